"""The device-side model and data: MuJoCo Warp's, with what the contact law adds to them."""

import dataclasses
from typing import Any

import mujoco_warp
import warp as wp


def _dtype(cls: Any, field: str) -> Any:
    """The type of an array's elements, where MuJoCo Warp has no public name for it."""
    declared: Any = {f.name: f.type for f in dataclasses.fields(cls)}[field]
    return declared.dtype


vec5 = _dtype(mujoco_warp.Contact, "friction")
CONTACT_TYPE_CONSTRAINT = wp.constant(1)  # the bit of `contact.type`

vec6 = wp.types.vector(length=6, dtype=float)
vec6d = wp.types.vector(length=6, dtype=wp.float64)
vec10 = _dtype(mujoco_warp.Data, "crb")
vec_pluginattr = _dtype(mujoco_warp.Model, "plugin_attr")


def _with_inherited_attributes(cls: type) -> type:
    """Put the attributes of the base class before those of `cls`, where programs look them up.

    Those are the docstring, which in MuJoCo Warp has every field in its place, and the annotations,
    by which programs find the arrays that may differ from world to world.
    """
    base = cls.__base__
    summary, own = str(cls.__doc__).split("    Attributes:\n")
    inherited = str(base.__doc__).split("Attributes:\n")[1].rstrip()
    cls.__doc__ = f"{summary}    Attributes:\n{inherited}\n{own}"
    cls.__annotations__ = base.__annotations__ | cls.__annotations__
    return cls


@_with_inherited_attributes
@dataclasses.dataclass(kw_only=True)
class Model(mujoco_warp.Model):
    """A `mujoco_warp.Model` with the parameters of the complementarity-free contact law.

    Attributes:
      comfree_stiffness: gain k on the predicted gap, entry w mod len for world w  (len,) float32
      comfree_damping: gain d on the predicted speed, entry w mod len for world w  (len,) float32
      comfree_law: "paper" or "warm"
      comfree_passes: of the warm law over normals, 1 to 4
      comfree_efc: what the rows of contacts have in `Data.efc`, "lean" or "full", see `put_model`
      body_shiftnum: how many of a body's dofs, the first, move it along an axis of the world each
        and do nothing else. It is 3 for a free joint, else 0       (nbody,) int32
      by_body: whether the sweeps of trees have a thread for every body on a GPU, see `bodies.py`
    """

    comfree_stiffness: wp.array[float]
    comfree_damping: wp.array[float]
    comfree_law: str
    comfree_passes: int
    comfree_efc: str
    body_shiftnum: wp.array[int]
    by_body: bool


@dataclasses.dataclass(kw_only=True)
class Stacks:
    """What of free bodies stands on what, and the work space to solve their forces.

    Attributes:
      free: whether a tree is one free joint and nothing else            (ntree,) int32
      loose: the same, and it has no armature, which is mass that `crb` does not tell of
                                                                         (nworld, ntree) int32
      parent: the tree that a tree stands on, or ntree                   (nworld, ntree) int32
      child, sibling: chains of the trees on it; 0 for the end, else one more than the tree
                                                                         (nworld, ntree) int32
      root: the lowest tree of its stack, -1 where it is in none         (nworld, ntree) int32
      above, below: the trees after and before it in an order of its stack in which parents come
        first; after the last -1, before the first the last             (nworld, ntree) int32
      head, next: chains of the contacts with its parent and with what cannot move, likewise
                                                      (nworld, ntree) and (naconmax,) int32
      crossed: whether a tree has contacts with others, too; of a root, whether any of its stack has
                                                                         (nworld, ntree) int32
      found: not 0 where a tree stands on another, in any world        (1,) int32
      listed: how many trees are in the two lists, which a GPU reads     (2,) int32
      members, tops: all that are in a stack, and those that carry none, as worldid ntree + treeid
                                                                         (nworld ntree,) int32
      lever: from the centre of mass of the tree that it stands on to its own, m
                                                                      (nworld, ntree, 3) float64
      coupling: G of a tree and its parent, then S, what it and all on it resist a motion of that
                                                                   (nworld, ntree, 6, 6) float64
      kept: M + G_static, then E, the part of such a motion that it does not follow (on a GPU E^T)
                                                                   (nworld, ntree, 6, 6) float64
      motion: what contacts with what cannot move ask, then x, w, M^-1 q
                                                                      (nworld, ntree, 6) float64
      wrench: what contacts with its parent ask, then all that is asked of that, on a GPU what of w
        is not the parent's, at last q = J^T d                        (nworld, ntree, 6) float64
      between: of q, what comes from the contacts with its parent; on a GPU w before
                                                                      (nworld, ntree, 6) float64
      arrived: on a GPU, how many of those on it were eliminated; 0 again at the end
                                                                         (nworld, ntree) int32
      work: its part of -r d and of d (A + R) d                       (nworld, ntree, 2) float64
      residual: r of a contact                                            (naconmax, 6) float64
      D: 1 / R of the rows of a contact that take part, 0 of the others   (naconmax, 6) float64
    """

    free: wp.array[int]
    loose: wp.array2d[int]
    parent: wp.array2d[int]
    child: wp.array2d[int]
    sibling: wp.array2d[int]
    above: wp.array2d[int]
    below: wp.array2d[int]
    root: wp.array2d[int]
    head: wp.array2d[int]
    next: wp.array[int]
    crossed: wp.array2d[int]
    found: wp.array[int]
    listed: wp.array[int]
    members: wp.array[int]
    tops: wp.array[int]
    lever: wp.array2d[wp.vec3d]
    coupling: wp.array2d[wp.spatial_matrixd]
    kept: wp.array2d[wp.spatial_matrixd]
    motion: wp.array2d[wp.spatial_vectord]
    wrench: wp.array2d[wp.spatial_vectord]
    between: wp.array2d[wp.spatial_vectord]
    arrived: wp.array2d[int]
    work: wp.array2d[wp.vec2d]
    residual: wp.array[vec6d]
    D: wp.array[vec6d]


@dataclasses.dataclass(kw_only=True)
class Warm:
    """What the warm law keeps between steps, and what it works on within one.

    Forces are in a contact's frame, normal first (N, N m); of a pair over `kind`, 0 is
    normals, limits and equalities, 1 friction.

    Attributes:
      mem_pos, mem_pair, mem_worldid: of the contacts of the last step; world -1: it did not push
                                                                          (naconmax,)
      mem_count: number of contacts of the last step                      (1,) int32
      mem_normal: normal force, and its slow mean                         (naconmax, 2) float32
      mem_friction, mem_torque: friction force and torque, in the world   (naconmax, 3) float32
      mem_row: force of rows other than contacts, and its slow mean; 0 and 0 where there was none
                                                                          (nworld, nslot, 2) float32
      mem_qpos, mem_time: the state that the step left; any other makes the memory of a tree void
                                                                  (nworld, nq), (nworld,) float32
      mem_alpha: part of its step that a tree takes                       (nworld, ntree, 2) float32
      eq_slotadr, eq_slotnum: where `mem_row` has an equality's rows      (neq,) int32
      tree_qposadr, tree_qposnum: the part of qpos that belongs to a tree (ntree,) int32
      valid: whether the memory holds for a tree                          (nworld, ntree) int32
      alpha: the same as `mem_alpha`, for this step                       (nworld, ntree, 2) float32
      sums: of a pass, per tree: -r d, R d^2, z y, d y                    (nworld, ntree, 4) float32
      sums_fixed: likewise, in fixed point, where `Option.deterministic` asks for it
                                                                     (nworld, ntree, 4, 2) int64
      smooth: q^T M^-1 q of a tree's smooth forces                        (nworld, ntree) float32
      M_diaginv: 1 / M_dd; `qLDiagInv` where M is diagonal                (nworld, nv) float32
      scale: s, the part of its step that a world takes                   (nworld,) float32
      cacc: acceleration of bodies along their tree, spatial              (nworld, nbody) spatial
      qfrc_step, qacc_step: J^T d and M^-1 J^T d                          (nworld, nv) float32
      force, step, bias, R, invmetric: f, d, a, R, 1 / (P + R) of a contact (naconmax, 6) float32
      invfriction: 1 / mu of its rows after the normal                    (naconmax, 5) float32
      mean, residual, proposed: its fbar; r and z of its normal           (naconmax,) float32
      ntree: number of trees that a contact touches; 0: nothing to do     (naconmax,) int32
      sides: its bodies and their trees, a tree -1 for none; empty, as is `offset`, where contacts
        have a Jacobian                                                   (naconmax, 4) int32
      offset: what leads to it from the centres of mass of their roots    (naconmax, 6) float32
      pair, sign: what a contact is between, in a fixed order; -1 where collision detection tells
        it in the other one                                               (naconmax,)
      inherited, mem_next: chains of the last step's contacts whose force a contact gets; 0 for the
        end, else one more than the contact                               (naconmax,) int32
      next, head: chains of this step's contacts with the same hash of world and geoms, likewise
                                                                     (naconmax,) and (nhead,) int32
      row_step, row_bias, row_invmetric, row_mean, row_residual, row_proposed: the same of rows
                                                                          (nworld, nrow) float32
      row_slot: place in `mem_row`, or -1                                 (nworld, nrow) int32
      stacks: of bodies that stand on each other; None where the model has none
    """

    mem_pos: wp.array[wp.vec3]
    mem_pair: wp.array[wp.vec2i]
    mem_worldid: wp.array[int]
    mem_count: wp.array[int]
    mem_normal: wp.array[wp.vec2]
    mem_friction: wp.array[wp.vec3]
    mem_torque: wp.array[wp.vec3]
    mem_next: wp.array[int]
    mem_row: wp.array3d[float]
    mem_qpos: wp.array2d[float]
    mem_time: wp.array[float]
    mem_alpha: wp.array3d[float]
    eq_slotadr: wp.array[int]
    eq_slotnum: wp.array[int]
    tree_qposadr: wp.array[int]
    tree_qposnum: wp.array[int]
    valid: wp.array2d[int]
    alpha: wp.array3d[float]
    sums: wp.array3d[float]
    sums_fixed: wp.array4d[wp.int64]
    smooth: wp.array2d[float]
    M_diaginv: wp.array2d[float]
    scale: wp.array[float]
    cacc: wp.array2d[wp.spatial_vector]
    qfrc_step: wp.array2d[float]
    qacc_step: wp.array2d[float]
    force: wp.array[vec6]
    step: wp.array[vec6]
    bias: wp.array[vec6]
    R: wp.array[vec6]
    invmetric: wp.array[vec6]
    invfriction: wp.array[vec5]
    mean: wp.array[float]
    residual: wp.array[float]
    proposed: wp.array[float]
    ntree: wp.array[int]
    sides: wp.array[wp.vec4i]
    offset: wp.array[vec6]
    pair: wp.array[wp.vec2i]
    sign: wp.array[float]
    inherited: wp.array[int]
    next: wp.array[int]
    head: wp.array[int]
    row_step: wp.array2d[float]
    row_bias: wp.array2d[float]
    row_invmetric: wp.array2d[float]
    row_mean: wp.array2d[float]
    row_residual: wp.array2d[float]
    row_proposed: wp.array2d[float]
    row_slot: wp.array2d[int]
    stacks: Stacks | None


@_with_inherited_attributes
@dataclasses.dataclass(kw_only=True)
class Data(mujoco_warp.Data):
    """A `mujoco_warp.Data` with the intermediate results of the complementarity-free step.

    Attributes:
      qvel_smooth_pred: qvel + timestep * qacc_smooth, the velocity that the next step would have
        with no constraint force (m/s, rad/s); paper law                  (nworld, nv) float32
      qfrc_total: qfrc_smooth + qfrc_constraint (N, N m); the same array as `efc.Ma`, from which
        MuJoCo Warp's integrators start when they factorize again         (nworld, nv) float32
      cvel_smooth_pred: the same of bodies, about the centre of mass of their root; angular part
        first (rad/s, m/s); paper law                                     (nworld, nbody) spatial
      cfrc_contact: sum of the contact wrenches on a body and below it, likewise (N m, N); the warm
        law leaves it empty                                               (nworld, nbody) spatial
      cfrc_fixed: the contact wrenches of a body as fixed_point.py sums them, where
        `Option.deterministic` asks for it                                (nworld, nbody, 6) int64
      qfrc_fixed: J^T f of the other rows, likewise                       (nworld, nv) int64
      overflow_told: bits of `mujoco_warp.OverflowType` that `step` has already told the user. Set
        to all ones for silence                                           (1,) int32
      repairs: how many convex collisions were done again since the data was made, because MuJoCo
        Warp's answer was impossible (`convex_check.py`)                  (nworld,) int32
      comfree_efc: for what the rows of contacts have room in `efc`, as `Model.comfree_efc`
      nfriction: how many dofs `make_constraint` has to look at for friction loss. The last one that
        has any, and all before it, on the CPU                            (1,) int32
      warm: memory and scratch of the warm law. None where the data was made for the paper law
    """

    qvel_smooth_pred: wp.array2d[float]
    qfrc_total: wp.array2d[float]
    cvel_smooth_pred: wp.array2d[wp.spatial_vector]
    cfrc_contact: wp.array2d[wp.spatial_vector]
    cfrc_fixed: wp.array3d[wp.int64]
    qfrc_fixed: wp.array2d[wp.int64]
    overflow_told: wp.array[int]
    repairs: wp.array[int]
    comfree_efc: str
    nfriction: wp.array[int]
    warm: Warm | None = None
