"""The last second of every world, kept while it runs, so that one that diverges can be looked at.

Two rings a world: one that takes a state every so many steps and reaches back for the time asked
for, and one that takes every state and holds the last few. Both stop where the world diverges.
"""

import dataclasses
import math

import mujoco
import numpy as np
import warp as wp

NSPARSE = 60  # states over the time asked for
NDENSE = 16  # states before the last, each
MEMORY = 256 << 20  # bytes of all worlds, beyond which fewer states are kept

# What is kept of a state, in the order of MuJoCo's state vector of these components.
SPEC = int(
    mujoco.mjtState.mjSTATE_TIME
    | mujoco.mjtState.mjSTATE_QPOS
    | mujoco.mjtState.mjSTATE_QVEL
    | mujoco.mjtState.mjSTATE_ACT
    | mujoco.mjtState.mjSTATE_CTRL
)


@dataclasses.dataclass(frozen=True)
class RecentState:
    """A state that a world went through.

    Attributes:
      step: steps it had taken.
      time: simulated time, s.
      qpos: (nq,), as are the others, shaped as in MjData: qvel (nv,), act (na,), ctrl (nu,).
    """

    step: int
    time: float
    qpos: np.ndarray
    qvel: np.ndarray
    act: np.ndarray
    ctrl: np.ndarray


@dataclasses.dataclass(frozen=True)
class Rings:
    """Which states are kept, and where: slots 0 to nsparse - 1, then ndense more.

    Attributes:
      every: steps between two states of the sparse ring.
      nsparse: states in it.
      ndense: states in the ring of the last ones.
    """

    every: int
    nsparse: int
    ndense: int

    @property
    def nslots(self) -> int:
        return self.nsparse + self.ndense

    def slots(self, last: int) -> list[tuple[int, int]]:
        """Steps and slots of all that is kept after `last` steps; a step may be in both rings."""
        newest = last // self.every
        sparse = range(max(0, newest - self.nsparse + 1), newest + 1)
        dense = range(max(0, last - self.ndense + 1), last + 1)
        return [(i * self.every, i % self.nsparse) for i in sparse] + [
            (step, self.nsparse + step % self.ndense) for step in dense
        ]


def choose_rings(mjm: mujoco.MjModel, nworld: int, seconds: float, itemsize: int) -> Rings:
    """Rings that reach back for `seconds` of simulated time, within `MEMORY`.

    Args:
      mjm: the model.
      nworld: number of worlds.
      seconds: simulated time to keep.
      itemsize: bytes of a number.
    """
    per_slot = nworld * mujoco.mj_stateSize(mjm, SPEC) * itemsize
    nslots = max(4, min(NSPARSE + NDENSE, MEMORY // per_slot))
    ndense = min(NDENSE, nslots // 4)
    nsteps = math.ceil(seconds / mjm.opt.timestep)
    every = max(1, math.ceil(nsteps / (nslots - ndense - 1)))
    return Rings(every, math.ceil(nsteps / every) + 1, ndense)


def keep(rings: Rings, kept: np.ndarray, states: np.ndarray, first: int, last: np.ndarray) -> None:
    """Put consecutive states of all worlds into their slots.

    Args:
      rings: which to keep.
      kept: what is kept, (nworld, nslots, state size).
      states: those after `first`, first + 1, ... steps, (nworld, n, state size).
      first: steps taken at the first of them.
      last: steps up to which each world is kept, (nworld,).
    """
    for end in np.unique(last[last >= first]):
        worlds = np.flatnonzero(last == end)[:, None]
        new = np.array([pair for pair in rings.slots(int(end)) if pair[0] >= first])
        steps, slots = new.T
        kept[worlds, slots] = states[worlds, steps - first]


def recall(rings: Rings, kept: np.ndarray, mjm: mujoco.MjModel, last: int) -> list[RecentState]:
    """The states of one world, oldest first.

    Args:
      rings: which are kept.
      kept: what is kept of that world, (nslots, state size).
      mjm: the model.
      last: steps of the last one.
    """
    ends = np.cumsum([1, mjm.nq, mjm.nv, mjm.na])
    return [
        RecentState(step, float(time[0]), *fields)
        for step, slot in sorted(dict(rings.slots(last)).items())
        for time, *fields in [np.split(kept[slot].astype(np.float64), ends)]
    ]


@wp.func
def _copy(
    source: wp.array2d[float], world: int, at: int, lane: int, nlane: int, out: wp.array[float]
):
    for i in range(lane, source.shape[1], nlane):
        out[at + i] = source[world, i]


@wp.func
def _copy_state(
    time: wp.array[float],
    qpos: wp.array2d[float],
    qvel: wp.array2d[float],
    act: wp.array2d[float],
    ctrl: wp.array2d[float],
    world: int,
    lane: int,
    nlane: int,
    out: wp.array[float],
):
    if lane == 0:
        out[0] = time[world]
    nq, nv, na = qpos.shape[1], qvel.shape[1], act.shape[1]
    _copy(qpos, world, 1, lane, nlane, out)
    _copy(qvel, world, 1 + nq, lane, nlane, out)
    _copy(act, world, 1 + nq + nv, lane, nlane, out)
    _copy(ctrl, world, 1 + nq + nv + na, lane, nlane, out)


@wp.kernel(enable_backward=False)
def keep_kernel(
    every: int,
    nsparse: int,
    ndense: int,
    ahead: int,
    nlane: int,
    nstep: wp.array[int],
    diverged_step: wp.array[int],
    time: wp.array[float],
    qpos: wp.array2d[float],
    qvel: wp.array2d[float],
    act: wp.array2d[float],
    ctrl: wp.array2d[float],
    kept_out: wp.array3d[float],
):
    """As `keep`, for the state after nstep[0] + ahead steps; nlane threads share a world."""
    world, lane = wp.tid()
    step = nstep[0] + ahead
    if diverged_step[world] >= 0 and step > diverged_step[world]:
        return
    dense = kept_out[world, nsparse + step % ndense]
    _copy_state(time, qpos, qvel, act, ctrl, world, lane, nlane, dense)
    if step % every == 0:
        sparse = kept_out[world, step / every % nsparse]
        _copy_state(time, qpos, qvel, act, ctrl, world, lane, nlane, sparse)
