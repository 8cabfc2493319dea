"""Between MuJoCo's host structures and the device: `mujoco_warp`'s functions, with k and d."""

import dataclasses
from typing import Any

import mujoco
import mujoco_warp
import numpy as np
import numpy.typing as npt
import warp as wp
from mujoco_warp import BroadphaseType, EnableBit, IntegratorType, OverflowType

from comfree_warp.bodies import has_small_trees
from comfree_warp.rows import has_contact_rows, max_nonzeros
from comfree_warp.sweeps import launch
from comfree_warp.types import Data, Model
from comfree_warp.warm import forget

# Beyond this many pairs of geoms one core tests them slower than it sorts the geoms (MuJoCo Warp
# itself sorts from 250,000 on).
_MAX_PAIRS_ON_CPU = 5_000

LAWS = ("paper", "warm")  # the default first
PASSES = (1, 2, 3, 4)  # of the warm law
_DEFAULTS = {"comfree_stiffness": 0.2, "comfree_damping": 0.001}

_INTEGRATORS = (IntegratorType.EULER, IntegratorType.IMPLICIT, IntegratorType.IMPLICITFAST)


def _parameter(name: str, value: npt.ArrayLike) -> wp.array:
    """Validate a parameter of the law and put it on the device, (len,) float32."""
    allowed = "a finite number >= 0 or a non-empty one-dimensional sequence of them"
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"{name}={value!r}: expected {allowed}") from None
    if array.ndim > 1:
        raise ValueError(f"{name} has shape {array.shape}: expected {allowed}")
    array = np.atleast_1d(array)
    if array.size == 0:
        raise ValueError(f"{name} is empty: expected {allowed}")
    wrong = array[~(np.isfinite(array) & (array >= 0.0))]
    if wrong.size:
        raise ValueError(f"{name} contains {wrong[0]}: expected {allowed}")
    return wp.array(array.astype(np.float32), dtype=float)


def _check_law(law: str, passes: int, parameters: dict[str, npt.ArrayLike | None]) -> None:
    if law not in LAWS:
        raise ValueError(f"comfree_law={law!r}: expected one of {', '.join(LAWS)}")
    allowed = PASSES if law == "warm" else (1,)
    if not isinstance(passes, int) or passes not in allowed:
        raise ValueError(
            f"comfree_passes={passes!r}: expected {', '.join(map(str, allowed))} with "
            f"comfree_law={law!r}"
        )
    for name, value in parameters.items():
        if law == "warm" and value is not None:
            raise ValueError(
                f"{name}={value!r} with comfree_law='warm', which has no such parameter: leave it "
                "out, and set solref and solimp in the model, or use comfree_law='paper'"
            )


def check_supported(mjm: mujoco.MjModel) -> None:
    """Refuse what the complementarity-free step does not cover, before anything is on the device.

    Raises:
      NotImplementedError: names the option and what to use instead.
    """
    integrator = mujoco.mjtIntegrator(mjm.opt.integrator)
    if mjm.opt.integrator not in _INTEGRATORS:
        raise NotImplementedError(
            f"integrator {integrator.name[len('mjINT_') :]} is not supported by comfree: "
            "set <option integrator> to Euler, implicitfast or implicit"
        )
    if mjm.opt.enableflags & EnableBit.SLEEP:
        raise NotImplementedError(
            "sleep is not supported by comfree: remove <flag sleep='enable'/> from <option>"
        )
    if mjm.opt.noslip_iterations > 0:
        raise NotImplementedError(
            f"noslip_iterations={mjm.opt.noslip_iterations} is not supported by comfree, which has "
            "no solver to post-process: set it to 0 in <option>"
        )


def _check_flex(m: mujoco_warp.Model) -> None:
    """Refuse the flex models that MuJoCo Warp itself would refuse, but only inside its step."""
    refused = {
        "stable Neo-Hookean flex elasticity": m.has_flex_snh,
        "passive flex contact": m.has_flex_passive,
        "flex elasticity under an implicit integrator": m.opt.integrator != IntegratorType.EULER
        and (m.nefmK > 0 or m.has_non_simple_flex),
    }
    for what, found in refused.items():
        if found:
            raise NotImplementedError(
                f"{what} needs MuJoCo's discrete integrator, which comfree does not support: "
                "use flex edge equalities, or elasticity with integrator='Euler'"
            )


def put_model(
    mjm: mujoco.MjModel,
    comfree_stiffness: npt.ArrayLike | None = None,
    comfree_damping: npt.ArrayLike | None = None,
    *,
    comfree_law: str = "paper",
    comfree_passes: int = 1,
    **kwargs: Any,
) -> Model:
    """Create a model on the current Warp device.

    Args:
      mjm: the model on the host.
      comfree_stiffness: k of the paper law, a scalar or a vector; world w uses entry w mod len.
        Dimensionless, finite, >= 0. 0.2 when None.
      comfree_damping: d of the paper law, likewise. 0.001 when None.
      comfree_law: "paper", the published law; or "warm", which has no parameter and honours
        solref and solimp.
      comfree_passes: of the warm law over normal forces, 1 to 4.
      **kwargs: as `mujoco_warp.put_model`.

    Returns:
      The model, with the parameters in `comfree_stiffness` and `comfree_damping`, (len,) float32.

    Raises:
      ValueError: a parameter is negative, not finite, empty, no number or not a vector, or the
        law has no such parameter; the law or number of passes does not exist.
      NotImplementedError: the model uses what this engine does not support (RK4, the discrete
        integrator, sleep, noslip, elasticity that needs the discrete integrator), or what
        MuJoCo Warp does not.
    """
    given = {"comfree_stiffness": comfree_stiffness, "comfree_damping": comfree_damping}
    _check_law(comfree_law, comfree_passes, given)
    parameters = {
        name: _parameter(name, _DEFAULTS[name] if value is None else value)
        for name, value in given.items()
    }
    check_supported(mjm)
    base = mujoco_warp.put_model(mjm, **kwargs)
    _check_flex(base)
    # comfree_warp.step tells the user once; MuJoCo Warp's own kernels would every step.
    # But that the Jacobian of contacts does not fit is for who makes one: `inverse`, `solve`.
    base.opt.warn_overflow = 0 if has_contact_rows(base) else OverflowType.NJMAX_NNZ
    nxn = base.opt.broadphase == BroadphaseType.NXN
    if wp.get_device().is_cpu and nxn and len(base.nxn_geom_pair_filtered) > _MAX_PAIRS_ON_CPU:
        base.opt.broadphase = BroadphaseType.SAP_TILE
    return Model(
        **_shallow(base),
        **parameters,
        comfree_law=comfree_law,
        comfree_passes=comfree_passes,
        has_gravcomp=bool(mjm.body_gravcomp.any()),
        has_frictionloss=bool(mjm.dof_frictionloss.any() or mjm.tendon_frictionloss.any()),
        body_shiftnum=wp.array(_shiftnum(mjm), dtype=int),
        by_body=has_small_trees(mjm),
    )


def _shiftnum(mjm: mujoco.MjModel) -> np.ndarray:
    """`Model.body_shiftnum`."""
    num = np.zeros(mjm.nbody, dtype=np.int32)
    num[mjm.jnt_bodyid[mjm.jnt_type == mujoco.mjtJoint.mjJNT_FREE]] = 3
    return num


def _shallow(instance: Any) -> dict[str, Any]:
    return {f.name: getattr(instance, f.name) for f in dataclasses.fields(instance)}


def _extend_data(base: mujoco_warp.Data) -> Data:
    base.solver_niter.zero_()
    return Data(
        **_shallow(base),
        qvel_smooth_pred=wp.zeros_like(base.qvel),
        qfrc_total=base.efc.Ma,
        cvel_smooth_pred=wp.zeros_like(base.cvel),
        cfrc_contact=wp.zeros_like(base.cvel),
        cfrc_fixed=wp.zeros((*base.cvel.shape, 6), dtype=wp.int64),
        qfrc_fixed=wp.zeros(base.qvel.shape, dtype=wp.int64),
        overflow_told=wp.zeros(1, dtype=int),
    )


def _sized(mjm: mujoco.MjModel, held: int, njmax_nnz: int | None) -> dict[str, int]:
    """njmax_nnz where it is not given and contacts have no Jacobian: else MuJoCo Warp chooses."""
    if njmax_nnz is None and not has_contact_rows(mjm):
        njmax_nnz = max(held, max_nonzeros(mjm))
    return {} if njmax_nnz is None else {"njmax_nnz": njmax_nnz}


def make_data(
    mjm: mujoco.MjModel, nworld: int = 1, *, njmax_nnz: int | None = None, **kwargs: Any
) -> Data:
    """Create data in the model's initial state.

    Arguments and errors as `mujoco_warp.make_data`; see `put_data` for njmax_nnz.
    """
    sizes = _sized(mjm, 0, njmax_nnz)
    return _extend_data(mujoco_warp.make_data(mjm, nworld, **sizes, **kwargs))


def put_data(
    mjm: mujoco.MjModel,
    mjd: mujoco.MjData,
    nworld: int = 1,
    nconmax: int | None = None,
    njmax: int | None = None,
    *,
    njmax_nnz: int | None = None,
    **kwargs: Any,
) -> Data:
    """Copy data from the host into every world on the current Warp device.

    Args:
      mjm: the model on the host.
      mjd: the data on the host.
      nworld: number of worlds.
      nconmax: contacts to allocate per world (all worlds share the sum).
      njmax: constraint rows to allocate per world.
      njmax_nnz: non-zeros of a sparse Jacobian to allocate per world; what rows other than contacts
        can need when None, since a contact gets no Jacobian. To call `make_constraint`, `inverse`
        or `solve` of MuJoCo Warp on the data, give what they need.
      **kwargs: as `mujoco_warp.put_data`.

    Returns:
      The data, with `qvel_smooth_pred` and `qfrc_total`, (nworld, nv), beside MuJoCo Warp's.

    Raises:
      ValueError: a size is negative or too small for what `mjd` already holds.
    """
    held = int(mjd.efc_J_rownnz.sum()) if mujoco.mj_isSparse(mjm) else mjd.nefc * mjm.nv
    sizes = {"nworld": nworld, "nconmax": nconmax, "njmax": njmax}
    sizes |= _sized(mjm, held, njmax_nnz)
    return _extend_data(mujoco_warp.put_data(mjm, mjd, **sizes, **kwargs))


_CONTACT_ROWS = (
    int(mujoco.mjtConstraint.mjCNSTR_CONTACT_FRICTIONLESS),
    int(mujoco.mjtConstraint.mjCNSTR_CONTACT_PYRAMIDAL),
    int(mujoco.mjtConstraint.mjCNSTR_CONTACT_ELLIPTIC),
)


def get_data_into(result: mujoco.MjData, mjm: mujoco.MjModel, d: Data, world_id: int = 0) -> None:
    """Copy a world back to the host. As `mujoco_warp.get_data_into`.

    Where contacts get no Jacobian, their rows have zeros in `efc_J`, `efc_vel` and `efc_aref`;
    `mujoco.mj_forward` on the result makes MuJoCo C's.
    """
    mujoco_warp.get_data_into(result, mjm, d, world_id)
    if has_contact_rows(mjm) or not mjm.nv:
        return
    contact = np.flatnonzero(np.isin(result.efc_type, _CONTACT_ROWS))
    result.efc_vel[contact] = 0.0
    result.efc_aref[contact] = 0.0
    if mujoco.mj_isSparse(mjm):
        for adr, nnz in zip(
            result.efc_J_rowadr[contact], result.efc_J_rownnz[contact], strict=True
        ):
            result.efc_J[adr : adr + nnz] = 0.0
    else:
        result.efc_J.reshape(-1, mjm.nv)[contact] = 0.0


@wp.kernel(enable_backward=False)
def _clear_worlds(reset_in: wp.array[bool], out: wp.array2d[Any]):
    worldid, i = wp.tid()
    if reset_in[worldid]:
        out[worldid, i] = type(out[worldid, i])(0.0)


def reset_data(m: Model, d: Data, reset: wp.array | None = None) -> None:
    """Set the worlds to the model's initial state. As `mujoco_warp.reset_data`.

    Args:
      m: the model on the device.
      d: the data on the device.
      reset: which worlds, (nworld,) bool or integer; all of them when None.

    Raises:
      ValueError: `reset` has another shape or dtype.
    """
    mujoco_warp.reset_data(m, d, reset)
    if reset is None:
        mask = wp.ones(d.nworld, dtype=bool)
    elif reset.dtype == wp.bool:
        mask = reset
    else:
        mask = wp.empty(d.nworld, dtype=bool)
        wp.utils.array_cast(reset, mask)
    if d.warm is not None:
        forget(d, mask)
    for array in (d.qvel_smooth_pred, d.qfrc_total, d.cvel_smooth_pred, d.cfrc_contact):
        launch(_clear_worlds, dim=array.shape, inputs=[mask], outputs=[array])
