"""The memory in which MuJoCo C keeps the contacts and rows of a step, and what it works on."""

import copy
import functools
import struct

import mujoco
import numpy as np

from mjsim.model.compare import binary

# MuJoCo's warnings that contacts, or constraint rows, did not fit and are lost.
FULL = [int(mujoco.mjtWarning.mjWARN_CONTACTFULL), int(mujoco.mjtWarning.mjWARN_CNSTRFULL)]

_ENOUGH = 8 << 20  # bytes, less than what MuJoCo itself chooses
_AMPLE = 64 << 20


@functools.cache
def _narena_address() -> int:
    """Where a model's binary form has `narena`, which Python can read in a model and not set."""
    sizes = (1 << 20, 2 << 20)
    one, other = (
        binary(mujoco.MjModel.from_xml_string(f'<mujoco><size memory="{size}"/></mujoco>'))
        for size in sizes
    )
    changed = np.flatnonzero(one != other)
    for start in range(changed[-1] - 7, changed[0] + 1):
        if all(
            struct.unpack_from("<q", saved.data, start)[0] == size
            for saved, size in zip((one, other), sizes, strict=True)
        ):
            return int(start)
    raise RuntimeError(f"MuJoCo {mujoco.__version__} keeps narena elsewhere in its binary models")


def with_arena(mjm: mujoco.MjModel, nbytes: int) -> mujoco.MjModel:
    """A copy of the model whose data has an arena of that many bytes.

    The system grants such memory when it is used, so that a large arena costs nothing by itself.
    """
    saved = binary(mjm)
    struct.pack_into("<q", saved.data, _narena_address(), nbytes)
    larger = mujoco.MjModel.from_binary_path("model.mjb", {"model.mjb": saved.tobytes()})
    if larger.narena != nbytes:
        raise RuntimeError(f"MuJoCo made an arena of {larger.narena} bytes, not of {nbytes}")
    return larger


def with_ample_arena(mjm: mujoco.MjModel) -> mujoco.MjModel:
    """A copy of the model in whose data any state can be computed, whoever stepped it."""
    return with_arena(mjm, _AMPLE) if mjm.narena < _ENOUGH else copy.copy(mjm)


def is_arena_error(error: Exception) -> bool:
    """Whether MuJoCo ended a step because the arena had no room for what it works on."""
    return "mj_stackAlloc" in str(error) or "mj_arenaAlloc" in str(error)
