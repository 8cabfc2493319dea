"""Models and data: made from MuJoCo's host structures, reset, and copied back.

The functions of `mujoco_warp.io`, with what the contact law adds to model and data.
"""

import copy
import dataclasses
from typing import Any

import mujoco
import mujoco_warp
import numpy as np
import numpy.typing as npt
import warp as wp
from mujoco_warp import BroadphaseType

from comfree_warp import ignored
from comfree_warp.options import check_flex, check_options
from comfree_warp.runtime.changes import changed
from comfree_warp.shared.bodies import has_small_trees
from comfree_warp.shared.reset_kernels import (
    clear_numbers_kernel,
    clear_spatial_kernel,
    gather_kernel,
    list_contacts_kernel,
    make_unknown_kernel,
    mark_kernel,
    tell_rows_kernel,
)
from comfree_warp.shared.rows import has_contact_rows, max_nonzeros
from comfree_warp.shared.threads import launch, nthread_for
from comfree_warp.types import Data, Model
from comfree_warp.warm import allocate_memory, forget

# Beyond this many pairs of geoms one core tests them slower than it sorts the geoms (MuJoCo Warp
# itself sorts from 250,000 on).
_MAX_PAIRS_ON_CPU = 5_000

LAWS = ("paper", "warm")  # the default first
PASSES = (1, 2, 3, 4)  # of the warm law
EFC = ("lean", "full")  # what the rows of contacts have; the default first
_DEFAULTS = {"comfree_stiffness": 0.2, "comfree_damping": 0.001}


class ParameterError(ValueError):
    """A parameter of `put_model` cannot be used. Attribute: `parameter`, its name."""

    def __init__(self, parameter: str, problem: str) -> None:
        super().__init__(f"{parameter}{problem}")
        self.parameter = parameter


def _parameter(name: str, value: npt.ArrayLike) -> wp.array:
    """Validate a parameter of the law and put it on the device, (len,) float32."""
    allowed = "a finite number >= 0 or a non-empty one-dimensional sequence of them"
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise ParameterError(name, f"={value!r}: expected {allowed}") from None
    if array.ndim > 1:
        raise ParameterError(name, f" has shape {array.shape}: expected {allowed}")
    array = np.atleast_1d(array)
    if array.size == 0:
        raise ParameterError(name, f" is empty: expected {allowed}")
    wrong = array[~(np.isfinite(array) & (array >= 0.0))]
    if wrong.size:
        raise ParameterError(name, f" contains {wrong[0]}: expected {allowed}")
    return wp.array(array.astype(np.float32), dtype=float)


def _check_law(law: str, passes: int, parameters: dict[str, npt.ArrayLike | None]) -> None:
    if law not in LAWS:
        raise ParameterError("comfree_law", f"={law!r}: expected one of {', '.join(LAWS)}")
    allowed = PASSES if law == "warm" else (1,)
    if not isinstance(passes, int) or passes not in allowed:
        raise ParameterError(
            "comfree_passes",
            f"={passes!r}: expected {', '.join(map(str, allowed))} with comfree_law={law!r}",
        )
    for name, value in parameters.items():
        if law == "warm" and value is not None:
            raise ParameterError(
                name,
                f"={value!r} with comfree_law='warm', which has no such parameter: leave it "
                "out, and set solref and solimp in the model, or use comfree_law='paper'",
            )


def _check_efc(efc: str) -> None:
    if efc not in EFC:
        raise ParameterError("comfree_efc", f"={efc!r}: expected one of {', '.join(EFC)}")


def put_model(
    mjm: mujoco.MjModel,
    batch_sizes: dict[str, int] | None = None,
    *,
    comfree_stiffness: npt.ArrayLike | None = None,
    comfree_damping: npt.ArrayLike | None = None,
    comfree_law: str = "paper",
    comfree_passes: int = 1,
    comfree_efc: str = "lean",
) -> Model:
    """Create a model on the current Warp device.

    Args:
      mjm: the model on the host.
      batch_sizes: as of `mujoco_warp.put_model`.
      comfree_stiffness: k of the paper law, a scalar or a vector; world w uses entry w mod len.
        Dimensionless, finite, >= 0. 0.2 when None.
      comfree_damping: d of the paper law, likewise. 0.001 when None.
      comfree_law: "paper", the published law; or "warm", which has no parameter and honours
        solref and solimp.
      comfree_passes: of the warm law over normal forces, 1 to 4.
      comfree_efc: what the rows of contacts have in `Data.efc`. "lean": type, id, pos, margin, D,
        force and state, while J, vel and aref are not computed and read as NaN. "full": all, at the
        cost of a Jacobian. The data has to be made with the same.

    Returns:
      The model, with the parameters in `comfree_stiffness` and `comfree_damping`, (len,) float32.

    Raises:
      ParameterError: a parameter is negative, not finite, empty, no number or not a vector, or the
        law has no such parameter; the law, number of passes or `comfree_efc` does not exist. It is
        a ValueError that has the parameter's name.
      NotImplementedError: the model uses what this engine does not support (RK4, the discrete
        integrator, sleep, noslip, elasticity that needs the discrete integrator), or what
        MuJoCo Warp does not.
    """
    given = {"comfree_stiffness": comfree_stiffness, "comfree_damping": comfree_damping}
    _check_law(comfree_law, comfree_passes, given)
    _check_efc(comfree_efc)
    parameters = {
        name: _parameter(name, _DEFAULTS[name] if value is None else value)
        for name, value in given.items()
    }
    check_options(mjm.opt)
    if mjm.opt.solver == mujoco.mjtSolver.mjSOL_PGS:
        # MuJoCo Warp has no such solver, and comfree uses none; CG needs least of the data.
        mjm = copy.copy(mjm)
        mjm.opt.solver = mujoco.mjtSolver.mjSOL_CG
    base = ignored.put_model(mjm, batch_sizes)
    check_flex(base)
    nxn = base.opt.broadphase == BroadphaseType.NXN
    if wp.get_device().is_cpu and nxn and len(base.nxn_geom_pair_filtered) > _MAX_PAIRS_ON_CPU:
        base.opt.broadphase = BroadphaseType.SAP_TILE
    return Model(
        **_shallow(base),
        **parameters,
        comfree_law=comfree_law,
        comfree_passes=comfree_passes,
        comfree_efc=comfree_efc,
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


def _extend_data(mjm: mujoco.MjModel, base: mujoco_warp.Data, efc: str, law: str | None) -> Data:
    base.solver_niter.zero_()
    if not has_contact_rows(mjm, efc):
        base.njmax_nnz -= 1
        launch(
            make_unknown_kernel,
            dim=base.efc.J_colind.shape[0],
            inputs=[base.efc.J_colind, base.efc.J],
        )
    d = Data(
        **_shallow(base),
        qvel_smooth_pred=wp.zeros(base.qvel.shape, dtype=float),
        qfrc_total=base.efc.Ma,
        cvel_smooth_pred=wp.zeros(base.cvel.shape, dtype=base.cvel.dtype),
        cfrc_contact=wp.zeros(base.cvel.shape, dtype=base.cvel.dtype),
        cfrc_fixed=wp.zeros((*base.cvel.shape, 6), dtype=wp.int64),
        qfrc_fixed=wp.zeros(base.qvel.shape, dtype=wp.int64),
        overflow_told=wp.zeros(1, dtype=int),
        repairs=wp.zeros(base.nworld, dtype=int),
        comfree_efc=efc,
        nfriction=wp.zeros(1, dtype=int),
    )
    if law != "paper":
        d.warm = allocate_memory(mjm, d)
    return d


def _sized(mjm: mujoco.MjModel, efc: str, held: int, njmax_nnz: int | None) -> dict[str, int]:
    """njmax_nnz where it is not given and contacts have no Jacobian: else MuJoCo Warp chooses."""
    if has_contact_rows(mjm, efc):
        return {} if njmax_nnz is None else {"njmax_nnz": njmax_nnz}
    if njmax_nnz is None:
        njmax_nnz = max(held, max_nonzeros(mjm))
    return {"njmax_nnz": njmax_nnz + 1}  # and what the rows of contacts point at


def _check_data_settings(efc: str, law: str | None) -> None:
    _check_efc(efc)
    if law not in (None, *LAWS):
        raise ValueError(f"comfree_law={law!r}: expected one of {', '.join(LAWS)}, or None")


def make_data(
    mjm: mujoco.MjModel,
    nworld: int = 1,
    nconmax: int | None = None,
    nccdmax: int | None = None,
    njmax: int | None = None,
    njmax_nnz: int | None = None,
    naconmax: int | None = None,
    naccdmax: int | None = None,
    nvmax: int | None = None,
    *,
    comfree_efc: str = "lean",
    comfree_law: str | None = None,
) -> Data:
    """Create data in the model's initial state.

    Arguments and errors as of `mujoco_warp.make_data` and, for the others, `put_data`.
    """
    _check_data_settings(comfree_efc, comfree_law)
    sizes = _sized(mjm, comfree_efc, 0, njmax_nnz)
    base = mujoco_warp.make_data(
        mjm,
        nworld,
        nconmax,
        nccdmax,
        njmax,
        naconmax=naconmax,
        naccdmax=naccdmax,
        nvmax=nvmax,
        **sizes,
    )
    return _extend_data(mjm, base, comfree_efc, comfree_law)


def put_data(
    mjm: mujoco.MjModel,
    mjd: mujoco.MjData,
    nworld: int = 1,
    nconmax: int | None = None,
    nccdmax: int | None = None,
    njmax: int | None = None,
    njmax_nnz: int | None = None,
    naconmax: int | None = None,
    naccdmax: int | None = None,
    nvmax: int | None = None,
    *,
    comfree_efc: str = "lean",
    comfree_law: str | None = None,
) -> Data:
    """Copy data from the host into every world on the current Warp device.

    Args:
      mjm: the model on the host.
      mjd: the data on the host.
      nworld: number of worlds.
      nconmax: contacts to allocate per world (all worlds share the sum).
      nccdmax: convex collisions to allocate per world, likewise.
      njmax: constraint rows to allocate per world.
      njmax_nnz: non-zeros of a sparse Jacobian to allocate per world. When None, what rows other
        than contacts can need, since with "lean" rows a contact gets no Jacobian.
      naconmax: contacts to allocate for all worlds, in the place of nconmax.
      naccdmax: convex collisions to allocate for all worlds, in the place of nccdmax.
      nvmax: as of `mujoco_warp.put_data`.
      comfree_efc: what the rows of contacts have room for, as of `put_model`.
      comfree_law: "paper" saves the memory that the warm law needs; else it is allocated.

    Returns:
      The data, with `qvel_smooth_pred` and `qfrc_total`, (nworld, nv), beside MuJoCo Warp's.

    Raises:
      ValueError: a size is negative or too small for what `mjd` already holds, or a setting does
        not exist.
    """
    _check_data_settings(comfree_efc, comfree_law)
    held = int(mjd.efc_J_rownnz.sum()) if mujoco.mj_isSparse(mjm) else mjd.nefc * mjm.nv
    sizes = _sized(mjm, comfree_efc, held, njmax_nnz)
    base = mujoco_warp.put_data(
        mjm,
        mjd,
        nworld,
        nconmax,
        nccdmax,
        njmax,
        naconmax=naconmax,
        naccdmax=naccdmax,
        nvmax=nvmax,
        **sizes,
    )
    return _extend_data(mjm, base, comfree_efc, comfree_law)


# ------------------------------------------------------------------------------------- resetting


def _mask(numbers: wp.array, nworld: int, nkey: int | None = None) -> wp.array[bool]:
    """Which worlds an array says, (nworld,) bool."""
    mask = wp.empty(nworld, dtype=bool)
    launch(mark_kernel(numbers.dtype, nkey), dim=nworld, inputs=[numbers], outputs=[mask])
    return mask


def _words(array: wp.array) -> wp.array[int]:
    """An array of 4-byte components as (length, words of an element) int32, in place."""
    length = array.shape[0]
    nword = array.size * wp.types.type_size_in_bytes(array.dtype) // 4 // max(length, 1)
    return wp.array(
        ptr=array.ptr, dtype=int, shape=(length, nword), device=array.device, copy=False
    )


def _drop_void_contacts(d: Data) -> None:
    """Keep the contacts of the worlds that were not reset, in their order on a CPU."""
    old, count = wp.empty(d.naconmax, dtype=int), wp.zeros(1, dtype=int)
    nthread = nthread_for(d, d.naconmax)
    launch(
        list_contacts_kernel,
        dim=nthread,
        inputs=[d.naconmax, nthread, d.nacon, d.contact.type],
        outputs=[count, old],
    )
    for field in dataclasses.fields(d.contact):
        array = getattr(d.contact, field.name)
        if not array.size:
            continue
        words = _words(array)
        kept = wp.empty_like(words)
        unused = -1 if field.name == "efc_address" else 0
        launch(gather_kernel, dim=words.shape, inputs=[unused, count, old, words], outputs=[kept])
        wp.copy(words, kept)
    wp.copy(d.nacon, count)
    address = d.contact.efc_address
    launch(
        tell_rows_kernel,
        dim=address.shape,
        inputs=[d.nacon, d.contact.worldid, address],
        outputs=[d.efc.id],
    )


def _reset_rest(d: Data, mask: wp.array[bool]) -> None:
    """What MuJoCo Warp's functions do not know of, or do to other worlds than they should."""
    _drop_void_contacts(d)
    if d.warm is not None:
        forget(d, mask)
    for array in (d.qvel_smooth_pred, d.qfrc_total):
        launch(clear_numbers_kernel, dim=d.qvel.shape, inputs=[mask], outputs=[array])
    for array in (d.cvel_smooth_pred, d.cfrc_contact):
        launch(clear_spatial_kernel, dim=d.cvel.shape, inputs=[mask], outputs=[array])


def reset_data(m: Model, d: Data, reset: wp.array | None = None) -> None:
    """Set the worlds to the model's initial state. As `mujoco_warp.reset_data`.

    But the other worlds keep their contacts, of which `mujoco_warp.reset_data` drops all when it
    resets world 0.

    Args:
      m: the model on the device.
      d: the data on the device.
      reset: which worlds, (nworld,) bool or integer; all of them when None.

    Raises:
      ValueError: `reset` has another shape or dtype.
    """
    fits = isinstance(reset, wp.array) and reset.shape == (d.nworld,)
    if reset is None:
        mask = wp.ones(d.nworld, dtype=bool)
    elif fits and wp.types.type_is_int(reset.dtype):
        mask = _mask(reset, d.nworld)
    else:
        mask = reset  # bool, or what MuJoCo Warp refuses
    # It sets nacon to zero when it resets world 0.
    with changed(d, nacon=wp.clone(d.nacon)):
        mujoco_warp.reset_data(m, d, mask)
    _reset_rest(d, mask)


def reset_data_keyframe(m: Model, d: Data, key: int | wp.array) -> None:
    """Set the worlds to a keyframe. As `mujoco_warp.reset_data_keyframe`.

    But the other worlds keep their contacts, as with `reset_data`.

    Args:
      m: the model on the device.
      d: the data on the device.
      key: index of a keyframe for all worlds; or one for each, (nworld,) integer, where a world
        with an index that does not exist is left as it is.

    Raises:
      ValueError: a single key does not exist, or an array has another shape or dtype.
    """
    with changed(d, nacon=wp.clone(d.nacon)):
        mujoco_warp.reset_data_keyframe(m, d, key)
    if isinstance(key, wp.array):
        mask = _mask(key, d.nworld, m.nkey)
    else:
        mask = wp.ones(d.nworld, dtype=bool)
    _reset_rest(d, mask)
