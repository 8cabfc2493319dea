"""Step a simulation while it is recorded, and while viewers may be watching.

In pieces: from one state to record to the next, and while somebody watches, of a frame at most.
"""

import time
from typing import Protocol

import mujoco
import numpy as np

from mjsim.pacing import FRAME_SECONDS, RealTime
from mjsim.record import Recorder
from mjsim.state import SHARED_FIELDS
from mjsim.stream import StreamServer


class Simulation(Protocol):
    """What is used of a simulation of `engines`."""

    mjm: mujoco.MjModel

    @property
    def nstep(self) -> int: ...
    def step(self, n: int = 1) -> None: ...
    def read(self, field: str, world: int = 0) -> np.ndarray: ...
    def synchronize(self) -> None: ...


class _World:
    """One world of a simulation, with the fields that an MjData has, copied when asked for.

    Attributes:
      index: of the world; may be changed.
    """

    time: float
    qpos: np.ndarray
    qvel: np.ndarray
    act: np.ndarray
    ctrl: np.ndarray
    xfrc_applied: np.ndarray
    mocap_pos: np.ndarray
    mocap_quat: np.ndarray

    def __init__(self, simulation: Simulation, index: int):
        self._simulation, self.index = simulation, index
        # Reading costs a copy from the device each, so what the model has none of is not read.
        mjd = mujoco.MjData(simulation.mjm)
        for field in SHARED_FIELDS:
            values = getattr(mjd, field)
            if not values.size:
                setattr(self, field, values.copy())

    def __getattr__(self, field: str) -> np.ndarray:
        return self._simulation.read(field, self.index)


class RecordedSimulation:
    """A simulation, one world of which is recorded as it steps, from its present state on.

    Args:
      simulation: what is stepped.
      recorder: what writes its states.
      world: index of the world to record.
      hz: states to record per second of simulated time; 0: every one.
    """

    def __init__(self, simulation: Simulation, recorder: Recorder, world: int, hz: float):
        self._simulation, self._recorder = simulation, recorder
        self._world = _World(simulation, world)
        self._every = max(1, round(1.0 / (hz * simulation.mjm.opt.timestep))) if hz else 1
        self.mjm = simulation.mjm
        self.read, self.synchronize = simulation.read, simulation.synchronize
        self._record()

    @property
    def nstep(self) -> int:
        return self._simulation.nstep

    def step(self, n: int = 1) -> None:
        """Advance by n timesteps, recording those states that are due."""
        end = self.nstep + n
        while self.nstep < end:
            due = self.nstep - self.nstep % self._every + self._every
            self._simulation.step(min(due, end) - self.nstep)
            if self.nstep == due:
                self._record()

    def record_last(self) -> None:
        """Record the present state, unless it has been."""
        if self._recorded_step != self.nstep:
            self._record()

    def _record(self) -> None:
        self._recorded_step = self.nstep
        self._recorder.write(self._world, self.nstep)


class Broadcast:
    """Steps a simulation and shows that one of its worlds which the server's viewers want to see.

    Args:
      simulation: what is stepped.
      server: who shows it.
      realtime: while somebody is watching, go no faster than real time.
    """

    def __init__(self, simulation: Simulation, server: StreamServer, realtime: bool = True):
        self._simulation, self._server, self._realtime = simulation, server, realtime
        self._world = _World(simulation, server.world)
        self._timestep = simulation.mjm.opt.timestep
        self._step_seconds: float | None = None  # that a step has taken of late
        self._clock = RealTime()

    def step(self, n: int) -> None:
        """Advance by n timesteps, showing those that viewers are due to see."""
        self.show()
        while n > 0:
            if not self._server.connected:
                self._clock.restart()
                self._simulation.step(n)
                return
            n -= self._step_piece(n)

    def show(self, last: bool = False) -> None:
        """Show the present state; the last one of a run even when no frame is due."""
        if last or self._server.due():
            self._world.index = world = self._server.world
            nstep, took = self._simulation.nstep, self._step_seconds
            self._server.send_state(self._world, nstep, last, world, took)

    def _step_piece(self, most: int) -> int:
        """Advance until the next frame is due, but no further than one frame of real time."""
        before = time.perf_counter()
        patience = min(self._server.due_in(), FRAME_SECONDS)
        n = min(most, 1 + int(patience / (self._step_seconds or 1.0)))
        if self._realtime:
            n = min(n, max(1, int(FRAME_SECONDS / self._timestep)))
        self._simulation.step(n)
        self._simulation.synchronize()  # else the pieces would pile up on a GPU
        self._step_seconds = max(1e-6, (time.perf_counter() - before) / n)
        self.show()
        if self._realtime:
            self._clock.wait(self._simulation.nstep * self._timestep)
        return n
