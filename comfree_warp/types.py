"""The device-side model and data: MuJoCo Warp's, with what the contact law adds to them."""

import dataclasses

import mujoco_warp
import warp as wp

# What MuJoCo Warp has no public name for: the dtype of `contact.friction`, and a contact's type.
vec5 = {f.name: f for f in dataclasses.fields(mujoco_warp.Contact)}["friction"].type.dtype
CONTACT_TYPE_CONSTRAINT = wp.constant(1)


@dataclasses.dataclass(kw_only=True)
class Model(mujoco_warp.Model):
    """A `mujoco_warp.Model` with the parameters of the complementarity-free contact law.

    Attributes:
      comfree_stiffness: gain k on the predicted gap, entry w mod len for world w  (len,) float32
      comfree_damping: gain d on the predicted speed, entry w mod len for world w  (len,) float32
      has_gravcomp: whether `body_gravcomp` was not all zero when `put_model` saw it; set it when
        you write to that array, before the first step or capture
    """

    comfree_stiffness: wp.array[float]
    comfree_damping: wp.array[float]
    has_gravcomp: bool


@dataclasses.dataclass(kw_only=True)
class Data(mujoco_warp.Data):
    """A `mujoco_warp.Data` with the intermediate results of the complementarity-free step.

    Attributes:
      qvel_smooth_pred: qvel + timestep * qacc_smooth, the velocity that the next step would have
        with no constraint force (m/s, rad/s)                             (nworld, nv) float32
      qfrc_total: qfrc_smooth + qfrc_constraint (N, N m); the same array as `efc.Ma`, from which
        MuJoCo Warp's integrators start when they factorize again         (nworld, nv) float32
      cvel_smooth_pred: the same of bodies, about the centre of mass of their root; angular part
        first (rad/s, m/s)                                                (nworld, nbody) spatial
      cfrc_contact: sum of the contact wrenches on a body and below it, likewise (N m, N)
                                                                          (nworld, nbody) spatial
      cfrc_fixed: the contact wrenches of a body as fixed_point.py sums them, where
        `Option.deterministic` asks for it                                (nworld, nbody, 6) int64
      qfrc_fixed: J^T f of the other rows, likewise                       (nworld, nv) int64
      overflow_told: bits of `mujoco_warp.OverflowType` that `step` has already told the user;
        set to all ones for silence                                       (1,) int32
    """

    qvel_smooth_pred: wp.array2d[float]
    qfrc_total: wp.array2d[float]
    cvel_smooth_pred: wp.array2d[wp.spatial_vector]
    cfrc_contact: wp.array2d[wp.spatial_vector]
    cfrc_fixed: wp.array3d[wp.int64]
    qfrc_fixed: wp.array2d[wp.int64]
    overflow_told: wp.array[int]
