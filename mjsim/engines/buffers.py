"""How many contacts and rows an engine on Warp makes room for."""

import copy

import mujoco
import numpy as np

from mjsim.engines.convex_pairs import ConvexPairs
from mjsim.engines.mjc import silent_mujoco_warnings
from mjsim.model.files import initial_data

_PAIRS_EVERY = 10  # steps, in which they hardly change


def size_buffers(mjm: mujoco.MjModel, nprobe: int = 500) -> dict[str, int]:
    """Choose nconmax, njmax and nccdmax (per world) from a short run of the model on MuJoCo C.

    Twice the largest number of contacts, of rows, and of geoms that are close to each other, seen
    in `nprobe` steps, since engines that let bodies sink deeper, or are driven otherwise, touch
    more.
    """
    probe = copy.copy(mjm)
    probe.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_AUTORESET
    mjd = initial_data(probe)
    pairs = ConvexPairs(probe)
    ncon, nefc, nccd = 0, 0, 0
    with silent_mujoco_warnings():
        for step in range(nprobe):
            mujoco.mj_step(probe, mjd)
            ncon, nefc = max(ncon, mjd.ncon), max(nefc, mjd.nefc)
            if not np.isfinite(mjd.qvel).all():
                break
            if pairs.countable and step % _PAIRS_EVERY == 0:
                nccd = max(nccd, pairs.close(mjd))
    nconmax = 2 * ncon + 32
    # An eighth of the contacts at least: those on planes may turn into others later.
    nccdmax = min(nconmax, max(2 * nccd + 32, nconmax // 8)) if pairs.countable else nconmax
    return {"nconmax": nconmax, "njmax": 2 * nefc + 64, "nccdmax": nccdmax}
