"""The last second of every world, kept while it runs, so that one that diverges can be looked at.

Two rings a world: one that takes a state every so many steps and reaches back for the time asked
for, and one that takes every state and holds the last few. Both stop where the world diverges.
"""

import dataclasses
import math

import mujoco
import numpy as np

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
