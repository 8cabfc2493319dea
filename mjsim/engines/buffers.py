"""How many contacts and rows an engine on Warp makes room for."""

import copy

import mujoco
import numpy as np

from mjsim.engines.convex_pairs import ConvexPairs
from mjsim.engines.mjc import silent_mujoco_warnings
from mjsim.engines.noise import ControlNoise, draw
from mjsim.model.arena import FULL, is_arena_error, with_arena
from mjsim.model.files import initial_data

_PAIRS_EVERY = 10  # steps, in which they hardly change
_STEPS = 500  # to look at, whatever they cost
_MOST_STEPS = 10_000
# Microseconds of steps that every run has time for, beyond those; counted and not measured, so that
# a model gets the same sizes on every machine.
_FREE_WORK = 30_000.0
_DRAWN_AT_ONCE = 256  # steps of noise


def _cost(mjm: mujoco.MjModel, mjd: mujoco.MjData, npair: int) -> float:
    """About how many microseconds the last step took on one core, with what is done beside it."""
    pairs = 0.1 * npair / _PAIRS_EVERY
    return 8.0 + 0.3 * mjm.nv + 0.05 * mjm.ngeom + 2.5 * mjd.ncon + 0.3 * mjd.nefc + pairs


def size_buffers(
    mjm: mujoco.MjModel, nprobe: int | None = None, noise: ControlNoise | None = None
) -> dict[str, int]:
    """Choose nconmax, njmax and nccdmax (per world) from a short run of the model on MuJoCo C.

    Twice the largest number of contacts, of rows, and of geoms that are close to each other that
    it sees, since engines that let bodies sink deeper, or are driven otherwise, touch more.

    Args:
      mjm: the model, with the timestep of the run.
      nprobe: steps to look at; when None 500, and more where steps are cheap.
      noise: that of the run's controls, of which the first world's is taken; none when None.
    """
    probe = copy.copy(mjm)
    probe.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_AUTORESET
    while True:
        try:
            ncon, nefc, nccd = _look(probe, nprobe, noise)
            break
        except _ArenaFullError:
            probe = with_arena(probe, 4 * probe.narena)
    nconmax = 2 * ncon + 32
    # An eighth of the contacts at least: those on planes may turn into others later. As many where
    # they cannot be counted.
    nccdmax = nconmax if nccd is None else min(nconmax, max(2 * nccd + 32, nconmax // 8))
    return {"nconmax": nconmax, "njmax": 2 * nefc + 64, "nccdmax": nccdmax}


class _ArenaFullError(Exception):
    """MuJoCo's arena has no room for all contacts and rows of a step."""


def _look(
    probe: mujoco.MjModel, nprobe: int | None, noise: ControlNoise | None
) -> tuple[int, int, int | None]:
    """The most contacts, rows, and close pairs of geoms of one kind, or None, in a run.

    Raises:
      _ArenaFullError: they do not fit the arena of the model.
    """
    mjd = initial_data(probe)
    if noise is not None and (noise.scale <= 0.0 or not probe.nu):
        noise = None
    base = mjd.ctrl.astype(np.float32)[None]
    pairs = ConvexPairs(probe)
    ncon, nefc, nccd = 0, 0, 0
    most = _MOST_STEPS if nprobe is None else nprobe
    cost = 0.0
    with silent_mujoco_warnings():
        for step in range(most):
            if nprobe is None and step >= _STEPS and cost > _FREE_WORK:
                break
            if noise is not None:
                if step % _DRAWN_AT_ONCE == 0:
                    ctrl = draw(noise, probe, base, step, _DRAWN_AT_ONCE)[0]
                mjd.ctrl[:] = ctrl[step % _DRAWN_AT_ONCE]
            try:
                mujoco.mj_step(probe, mjd)
            except mujoco.FatalError as error:
                if not is_arena_error(error):
                    raise
                raise _ArenaFullError from None
            ncon, nefc = max(ncon, mjd.ncon), max(nefc, mjd.nefc)
            if not np.isfinite(mjd.qvel).all():
                break
            if any(mjd.warning[kind].number for kind in FULL):
                raise _ArenaFullError
            if pairs.countable and step % _PAIRS_EVERY == 0:
                nccd = max(nccd, pairs.close(mjd))
            cost += _cost(probe, mjd, pairs.npair)
    return ncon, nefc, nccd if pairs.countable else None


def share_convex_collisions(sizes: dict[str, int], nworld: int) -> int:
    """Nccdmax of worlds that share what they have: up to nconmax.

    Where there are few worlds, there is memory for the worst case of one.
    """
    least = -(-sizes["nconmax"] // nworld)
    return min(sizes["nconmax"], max(sizes["nccdmax"], least))
