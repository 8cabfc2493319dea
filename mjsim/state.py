"""The state of a simulation: its fields by MuJoCo's names, and how one is read, copied and set.

A state that leaves the process, to a viewer or into a file, is `time` and `SHARED_FIELDS`, in that
order. The engines know `STATE_FIELDS`, which has the generalized forces beside them.
"""

import contextlib
import math
import operator
from types import SimpleNamespace
from typing import Any, Protocol

import numpy as np

from mjsim.errors import ProtocolError, SettingError
from mjsim.text import kind_of, shown

MOVING_FIELDS = ("qpos", "qvel", "act", "ctrl")  # what a simulation changes, or its controller
PUSHING_FIELDS = ("xfrc_applied", "mocap_pos", "mocap_quat")  # what acts on it from outside
SHARED_FIELDS = (*MOVING_FIELDS, *PUSHING_FIELDS)
OPTIONAL_FIELDS = ("mocap_pos", "mocap_quat")  # of these, what a received state may lack
STATE_FIELDS = ("time", *MOVING_FIELDS, "qfrc_applied", *PUSHING_FIELDS)

# The shapes of the arrays, by the names of the model's sizes.
SHAPES: dict[str, tuple[str | int, ...]] = {
    "qpos": ("nq",),
    "qvel": ("nv",),
    "act": ("na",),
    "ctrl": ("nu",),
    "qfrc_applied": ("nv",),
    "xfrc_applied": ("nbody", 6),
    "mocap_pos": ("nmocap", 3),
    "mocap_quat": ("nmocap", 4),
}

_SNAPSHOT_FIELDS = ("time", *SHARED_FIELDS)
Snapshot = list[tuple[bytes, tuple[int, ...]]]  # of these fields in turn: float64 bytes, and shape


class State(Protocol):
    """What `pack_mjdata` reads: an MjData, or anything else with these fields of it."""

    time: float
    qpos: np.ndarray
    qvel: np.ndarray
    act: np.ndarray
    ctrl: np.ndarray
    xfrc_applied: np.ndarray
    mocap_pos: np.ndarray
    mocap_quat: np.ndarray


def take_snapshot(mjd: State) -> Snapshot:
    """A copy of a state in the cheapest form there is, a third of the time of `pack_mjdata`."""
    asarray, float64 = np.asarray, np.float64
    snapshot = []
    for field in _SNAPSHOT_FIELDS:
        values = asarray(getattr(mjd, field), float64)
        snapshot.append((values.tobytes(), values.shape))
    return snapshot


def unpack_snapshot(snapshot: Snapshot) -> dict[str, Any]:
    """The state that a snapshot is of, as `pack_mjdata` would have packed it."""
    state: dict[str, Any] = {}
    for field, (data, shape) in zip(_SNAPSHOT_FIELDS, snapshot, strict=True):
        # Over a bytearray, so that who receives the array may write into it.
        state[field] = np.frombuffer(bytearray(data)).reshape(shape)
    state["time"] = float(state["time"])
    return state


def pack_mjdata(mjd: State) -> dict[str, Any]:
    """A copy of what a viewer needs of `mjd`: the time in s and float64 arrays, shapes as there."""
    return unpack_snapshot(take_snapshot(mjd))


def apply_mjdata(mjd: State, state: object) -> None:
    """Copy a received state into `mjd`. NaN and infinity pass, since they show a divergence.

    Fields that only our own server sends (mocap poses) may be missing, others are ignored.

    Raises:
      ProtocolError: a field is missing or does not fit the model. `mjd` is then as it was.
    """
    if not isinstance(state, dict):
        raise ProtocolError(f"the state came as {kind_of(state)}, not as a dict")
    time = state.get("time")
    if not isinstance(time, (int, float)):
        raise ProtocolError(f"time came as {shown(time)}; the model wants a number")
    time = _real(time)
    checked = {}
    for field in SHARED_FIELDS:
        came, wanted = state.get(field), getattr(mjd, field)
        if came is None and field in OPTIONAL_FIELDS:
            continue
        if not isinstance(came, np.ndarray):
            raise ProtocolError(
                f"{field} came as {kind_of(came)}; the model wants an array of shape {wanted.shape}"
            )
        if came.shape != wanted.shape or came.dtype.kind not in "iuf":
            raise ProtocolError(
                f"{field} came with shape {shown(came.shape)} and dtype {came.dtype}; "
                f"the model wants {wanted.shape} and float64"
            )
        checked[field] = came
    mjd.time = time
    with np.errstate(over="ignore"):  # a longdouble beyond float64 becomes infinite
        for field, came in checked.items():
            getattr(mjd, field)[:] = came


def _real(time: float) -> float:
    with contextlib.suppress(OverflowError):
        return float(time)
    return math.inf


# --------------------------------------------------------------------- one world of batched data


def check_world(d: Any, world: int) -> int:
    """The index of a world of batched data, as an int.

    Args:
      d: a `mujoco_warp.Data` or `comfree_warp.Data`, or other data whose fields have a leading
        axis of worlds.
      world: index of the world, from 0.

    Raises:
      SettingError: `world`: the data has no such world, or is not batched.
    """
    shape = tuple(getattr(getattr(d, "qpos", None), "shape", ()))
    if len(shape) != 2:
        raise SettingError(
            "world",
            f"a {type(d).__name__} with qpos of shape {shape} has no worlds to choose from: pass "
            "batched data, (nworld, nq), or an MjData without a world",
        )
    try:
        index = -1 if isinstance(world, bool) else operator.index(world)
    except TypeError:
        index = -1
    if not 0 <= index < shape[0]:
        raise SettingError("world", f"{world!r} is no world of this data: 0 to {shape[0] - 1}")
    return index


def read_world(d: Any, world: int) -> State:
    """Copy the state of one world out of batched data, from its device where it has one.

    Args:
      d: as `check_world` takes it.
      world: index of the world, from 0.

    Returns:
      an object with the fields of an MjData that `State` lists, shaped as there.

    Raises:
      SettingError: `world`: the data has no such world, or is not batched.
    """
    index = check_world(d, world)
    fields = {field: _row(getattr(d, field), index) for field in SHARED_FIELDS}
    return SimpleNamespace(time=world_time(d, index), **fields)


def world_time(d: Any, world: int) -> float:
    """The simulated time of one world of batched data, s; `check_world` has passed the index."""
    return float(_row(d.time, world))


def _row(values: Any, world: int) -> np.ndarray:
    """One world's values of a Warp array or a NumPy array, without copying the other worlds'."""
    if 0 in values.shape:  # an empty array, which Warp does not slice
        return np.asarray(values.numpy() if hasattr(values, "numpy") else values)[world]
    row = values[world : world + 1]
    return np.asarray(row.numpy() if hasattr(row, "numpy") else row)[0]
