"""The interface of a simulation, and what it tells of itself.

Nothing here imports Warp, so that a run on MuJoCo C and every `--help` do without it.
"""

import abc
import dataclasses
import logging
from collections.abc import Callable

import mujoco
import numpy as np
import numpy.typing as npt

from mjsim.choices import engine_name
from mjsim.engines import history
from mjsim.engines.history import RecentState
from mjsim.state import STATE_FIELDS

# Called with: modules compiled so far, modules to compile, name of the one just started ("" at the
# end of one). From several threads, never at the same time.
Progress = Callable[[int, int, str], None]

# Told a line when a run goes on with larger buffers.
Report = Callable[[str], None]
log_warning: Report = logging.getLogger("mjsim.engines").warning

# No machine moves at this speed; a world that does (or is NaN) has diverged.
VELOCITY_LIMIT = 1e5  # m/s or rad/s


@dataclasses.dataclass(frozen=True)
class Counts:
    """Contacts and constraint rows of the last step, summed over all worlds."""

    contacts: int
    rows: int


@dataclasses.dataclass(frozen=True)
class WorldCounts:
    """What the last step had to do, world by world.

    Attributes:
      contacts: (nworld,) int.
      rows: constraint rows, (nworld,) int.
      iterations: of the solver, in the island that needed most, (nworld,) int; None where the
        engine does not iterate.
    """

    contacts: np.ndarray
    rows: np.ndarray
    iterations: np.ndarray | None


@dataclasses.dataclass(frozen=True)
class Divergence:
    """The first sign of a diverged world: a velocity that is NaN or beyond `VELOCITY_LIMIT`.

    Attributes:
      world: index of the world.
      step: how many steps it had taken, counted from 1.
      time: simulated time at the end of that step, s.
    """

    world: int
    step: int
    time: float

    def __str__(self) -> str:
        return (
            f"world {self.world} diverged at step {self.step} (t = {self.time:.4f} s): "
            f"a velocity is NaN or beyond {VELOCITY_LIMIT:g} m/s or rad/s"
        )


@dataclasses.dataclass(frozen=True)
class Health:
    """What went wrong so far.

    Attributes:
      divergence: the earliest one, or None.
      ndiverged: number of worlds that have diverged.
      overflow: a sentence for each buffer that was too small, with the count needed so far; those
        that grew instead are not among them.
      lost: whether contacts or constraint rows were lost, so that the motion is another one. A
        diverged world has lost none.
      repairs: convex collisions that were done again, because MuJoCo Warp's answer was impossible.
        They went well in the end, so two healths that differ in nothing else are equal.
    """

    divergence: Divergence | None
    ndiverged: int
    overflow: tuple[str, ...]
    lost: bool = False
    repairs: int = dataclasses.field(default=0, compare=False)


class Simulation(abc.ABC):
    """Worlds of one model on one engine and device.

    Where a buffer turns out too small for a step, the simulation goes back to a state from before
    it, makes room and takes the steps since then again, unless its buffers are fixed: on the CPU
    bit for bit the run that had room from the start. Every call but `write` and, on CUDA, `step`
    returns after that, and raises `OutOfRoomError` where there is no memory for it.

    Attributes:
      mjm: the model, on the host.
      engine: one of `ENGINES`.
      device: Warp's name of the device; "cpu" for mjc.
      law: of `LAWS`, for comfree; None for the others.
      nworld: number of worlds.
      nstep: steps taken since the start, per world.
      compile_seconds: time spent compiling and loading kernels and capturing the step.
      sizes: of the engine's buffers at present: nconmax, njmax and nccdmax per world, or
        MuJoCo's arena in bytes.
      fixed_buffers: whether they stay so, and what does not fit is lost.
      grown: a line for each time that they grew.
      rings: which recent states are kept, or None.
    """

    mjm: mujoco.MjModel
    engine: str
    device: str
    law: str | None = None
    nworld: int
    nstep: int = 0
    compile_seconds: float = 0.0
    sizes: dict[str, int]
    fixed_buffers: bool = False
    grown: tuple[str, ...] = ()
    rings: history.Rings | None = None
    _report: Report = log_warning

    def _tell_growth(self, what: str) -> None:
        """Say that what did not fit does now."""
        line = f"{self.place}: {what}; nothing is lost"
        self.grown = (*self.grown, line)
        self._report(line)

    @property
    def name(self) -> str:
        """The engine's whole name, with its law where it has one: "mjc", "comfree:warm"."""
        return engine_name(self.engine, self.law)

    @property
    def place(self) -> str:
        """What runs where, for people: "mjc on cpu", "comfree:warm on cuda:0"."""
        return f"{self.name} on {self.device}"

    @abc.abstractmethod
    def step(self, n: int = 1) -> None:
        """Advance every world by n timesteps. On CUDA this returns before the work is done."""

    @abc.abstractmethod
    def read(self, field: str, world: int = 0) -> np.ndarray:
        """Copy one field (of `STATE_FIELDS`, shape as in MjData) of one world from the device."""

    @abc.abstractmethod
    def read_all(self, field: str) -> np.ndarray:
        """Copy one field of all worlds: as `read`, with a leading axis of nworld."""

    @abc.abstractmethod
    def write(self, field: str, values: npt.ArrayLike, world: int | None = None) -> None:
        """Set a field of every world: values as in MjData, or with a leading axis of nworld.

        With `world`, set that of one world, values as in MjData, and leave the others as they are.
        """

    def set_ctrl(self, ctrl: npt.ArrayLike) -> None:
        """Set the controls, (nu,) or (nworld, nu); control noise is added around them."""
        self.write("ctrl", ctrl)

    @abc.abstractmethod
    def counts(self) -> Counts:
        """Contacts and rows of the last step; waits for the device."""

    @abc.abstractmethod
    def world_counts(self) -> WorldCounts:
        """The same world by world, and the solver's iterations; waits for the device."""

    @abc.abstractmethod
    def health(self) -> Health:
        """Divergence and overflow so far; waits for the device."""

    @abc.abstractmethod
    def reset(self) -> None:
        """Put every world back to `initial_data`: on the CPU, the next run repeats the first."""

    @abc.abstractmethod
    def synchronize(self) -> None:
        """Wait until the steps asked for are done."""

    def recall(self, world: int = 0) -> list[RecentState]:
        """The states that a world went through of late, oldest first; waits for the device.

        The last one is the present state, or the one in which the world diverged. Empty before the
        first step, and without `remember`.
        """
        if self.rings is None or not self.nstep:
            return []
        diverged_step, kept = self._recent(world)
        last = self.nstep if diverged_step < 0 else diverged_step
        return history.recall(self.rings, kept, self.mjm, last)

    @abc.abstractmethod
    def _recent(self, world: int) -> tuple[int, np.ndarray]:
        """The step at which a world diverged, or -1; and what is kept of it, slot by slot."""


def check_field(field: str) -> None:
    if field not in STATE_FIELDS:
        raise ValueError(f"field {field!r} is none of {', '.join(STATE_FIELDS)}")


def describe_health(
    diverged_step: np.ndarray,
    overflow: tuple[str, ...],
    lost: bool,
    start_time: float,
    timestep: float,
    repairs: int = 0,
) -> Health:
    diverged = np.flatnonzero(diverged_step >= 0)
    if not diverged.size:
        return Health(None, 0, overflow, lost, repairs)
    world = diverged[diverged_step[diverged].argmin()]
    step = int(diverged_step[world])
    first = Divergence(int(world), step, start_time + step * timestep)
    return Health(first, int(diverged.size), overflow, lost, repairs)
