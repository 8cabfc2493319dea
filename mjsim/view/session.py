"""Simulations that run in front of a person: in real time, paused, stepped, reset and pushed."""

import collections
import fractions
import statistics
import time
from collections.abc import Callable, Sequence

import mujoco
import numpy as np

from mjsim.engines import Counts, Health, Simulation
from mjsim.engines.mjc import silent_mujoco_warnings
from mjsim.errors import OutOfRoomError
from mjsim.model.arena import with_ample_arena
from mjsim.pacing import FRAME_SECONDS, Pacer, Rates
from mjsim.record import Recorder
from mjsim.state import MOVING_FIELDS, PUSHING_FIELDS
from mjsim.view.controls import Controls
from mjsim.view.display import Display, Status

SHORTEST = 0.5  # s of running from which on the achieved speed is told


class _Shown:
    """A simulation, and the MjData in which one of its worlds is shown."""

    def __init__(self, simulation: Simulation, mjm: mujoco.MjModel) -> None:
        self.simulation, self._mjm = simulation, mjm
        self.mjd = mujoco.MjData(mjm)
        self.counts, self.health = Counts(0, 0), Health(None, 0, ())
        self._step_seconds: collections.deque[float] = collections.deque(maxlen=50)
        # Reading costs a copy from the device each: what the model has none of is not read.
        self._moving = [field for field in MOVING_FIELDS if getattr(self.mjd, field).size]

    @property
    def step_seconds(self) -> float:
        """Median wall time of the recent steps, s; 0 before the first."""
        return statistics.median(self._step_seconds) if self._step_seconds else 0.0

    def step(self, n: int) -> None:
        before = time.perf_counter()
        self.simulation.step(n)
        self.simulation.synchronize()
        self._step_seconds.append((time.perf_counter() - before) / n)
        self.look()

    def look(self) -> None:
        """Take the counts and the health of the last step."""
        self.counts, self.health = self.simulation.counts(), self.simulation.health()

    def read(self, world: int) -> None:
        """Show the present state of a world, or its last one if that is no longer finite."""
        state = {field: self.simulation.read(field, world) for field in self._moving}
        if not all(np.isfinite(values).all() for values in state.values()):
            return
        self.mjd.time = float(self.simulation.read("time", world))
        for field, values in state.items():
            getattr(self.mjd, field)[:] = values
        with silent_mujoco_warnings():
            mujoco.mj_forward(self._mjm, self.mjd)

    @property
    def took(self) -> str:
        """What a step takes, for people."""
        seconds = self.step_seconds
        return f"{1e6 * seconds:,.0f} us" if seconds < 1e-3 else f"{1e3 * seconds:,.2f} ms"

    @property
    def row(self) -> str:
        return f"{self.took}, {self.counts.contacts:,} contacts, {self.counts.rows:,} rows"


class Session:
    """Steps simulations of one model side by side and shows one world of each.

    All take the same steps: the slowest sets the pace. All get the same pushes.

    Args:
      simulations: what is stepped; of several, each is shown with the whole name of its engine.
      display: where to show them.
      recorders: what records each simulation as it is shown; or none.
      diverged: told of a simulation that has diverged; what it returns is shown.

    Attributes:
      controls: what the person who watches asks for.
      nstep: steps taken, through all resets.
    """

    def __init__(
        self,
        simulations: Sequence[Simulation],
        display: Display,
        recorders: Sequence[Recorder] = (),
        diverged: Callable[[Simulation], str] = lambda simulation: "",
    ) -> None:
        # A copy, since MuJoCo's window has switches for its options, of which no engine knows.
        mjm = with_ample_arena(simulations[0].mjm)
        self._shown = [_Shown(simulation, mjm) for simulation in simulations]
        self._display, self._recorders, self._diverged = display, recorders, diverged
        self._notice = ""
        self._mjds = [shown.mjd for shown in self._shown]
        nworld = simulations[0].nworld
        worlds = ("world",) if nworld > 1 else ()
        self.controls = Controls(("pause", "step", "reset", "speed", *worlds), nworld)
        self.nstep = 0
        self._timestep = float(mjm.opt.timestep)
        self._pacer, self._rates = Pacer(self._timestep), Rates(shortest=SHORTEST)
        self._measured = 0.0  # the speed wanted while the achieved one was measured
        self._world = 0
        self._pushed: dict[str, np.ndarray] = {}
        self._halted = False  # by a divergence, and not by the person
        self._take_world()
        names = [simulation.name for simulation in simulations]
        display.load(mjm, self._mjds, self.controls, names if len(names) > 1 else ())

    def run(self, stopped: Callable[[], bool], nsteps: int | None = None) -> None:
        """Step and show until it is `stopped`, the display closed, or `nsteps` taken."""
        before = time.perf_counter()
        while not stopped() and not self._display.closed:
            if nsteps is not None and self.nstep >= nsteps:
                return
            now = time.perf_counter()
            self._frame(now, now - before, None if nsteps is None else nsteps - self.nstep)
            before = now
            time.sleep(max(0.0, now + FRAME_SECONDS - time.perf_counter()))

    def _frame(self, now: float, elapsed: float, most: int | None) -> None:
        """Do what was asked for, take the steps that are due, and show."""
        moved = self._obey()
        speed = 0.0 if self.controls.paused else self._speed
        if speed != self._measured:
            self._rates.restart()  # no rate spans a pause or a change of speed
            self._measured = speed
        if speed:
            n = self._pacer.steps(elapsed, speed, self._step_seconds)
            moved |= self._step(n if most is None else min(n, most))
            self._rates.note(now, self.nstep * self._timestep)
        if moved:
            self._take_states()
        self._display.show(self.status(), moved)
        self._push()

    def _obey(self) -> bool:
        """Do what was asked for since the last frame; whether the states have changed."""
        moved = False
        for wish, value in self.controls.take():
            if wish == "reset":
                self._reset()
                moved = True
            elif wish == "step" and value > 0:
                moved |= self._step(int(value))
        if self.controls.world != self._world:
            self._release()
            self._world = self.controls.world
            self._take_world()
            moved = True
        return moved

    def _reset(self) -> None:
        for shown in self._shown:
            shown.simulation.reset()
            shown.look()
        self._take_world()
        if self._halted:
            self._halted = self.controls.paused = False
            self._notice = ""

    def _step(self, n: int) -> bool:
        if not n:
            return False
        try:
            for shown in self._shown:
                shown.step(n)
        except OutOfRoomError as error:
            shown.look()
            self._halted = self.controls.paused = True
            self._notice = str(error)
            return True
        self.nstep += n
        diverged = [shown.simulation for shown in self._shown if shown.health.divergence]
        if diverged and not self._halted:
            self._halted = self.controls.paused = True
            self._notice = "; ".join(filter(None, map(self._diverged, diverged)))
        return True

    @property
    def _speed(self) -> float:
        # MuJoCo makes the mouse a spring that has to be told every frame where the body is.
        pushing = self._pushed["xfrc_applied"].any()
        return min(self.controls.speed, 1.0) if pushing else self.controls.speed

    @property
    def _step_seconds(self) -> float:
        return sum(shown.step_seconds for shown in self._shown)

    # -------------------------------------------------------------------------------- states

    def _take_states(self) -> None:
        """Bring the MjData of each simulation up to date. All that is shown passes here."""
        for shown in self._shown:
            shown.read(self._world)
        for shown, recorder in zip(self._shown, self._recorders, strict=False):
            recorder.write(shown.mjd, shown.simulation.nstep)

    def _take_world(self) -> None:
        """Begin to show a world, or the same one from its start, with what pushes it."""
        for shown in self._shown:
            for field in PUSHING_FIELDS:
                getattr(shown.mjd, field)[:] = shown.simulation.read(field, self._world)
        self._pushed = {field: getattr(self._mjds[0], field).copy() for field in PUSHING_FIELDS}
        self._take_states()

    def _push(self) -> None:
        """Hand what the mouse does in the picture to the simulations, where it has changed."""
        for field, known in self._pushed.items():
            values = getattr(self._mjds[0], field)
            if np.array_equal(values, known):
                continue
            known[:] = values
            for shown in self._shown:
                getattr(shown.mjd, field)[:] = values
                shown.simulation.write(field, values, self._world)

    def _release(self) -> None:
        """Let go of the world that is shown."""
        self._mjds[0].xfrc_applied[:] = 0.0
        self._push()

    # -------------------------------------------------------------------------------- figures

    def status(self) -> Status:
        """What to show beside the picture."""
        rows, plots = {}, {}
        if len(self._shown) == 1:
            simulation = self._shown[0].simulation
            rows["engine"] = simulation.place
        rows["time"] = f"{self._mjds[0].time:.3f} s"
        rows["speed"] = self._describe_speed()
        if self.controls.nworld > 1:
            rows["world"] = f"{self._world} of 0 to {self.controls.nworld - 1}"
        for shown in self._shown:
            rows |= self._describe(shown)
            of = f" of {shown.simulation.name}" if len(self._shown) > 1 else ""
            plots[f"step time{of}, ms"] = 1e3 * shown.step_seconds
            plots[f"contacts{of}"] = shown.counts.contacts
        return Status(rows, plots, notice=self._notice)

    def _describe_speed(self) -> str:
        wanted = f"{fractions.Fraction(self._speed)}x"
        if self.controls.paused:
            return f"paused, {wanted}"
        rates = self._rates.per_second(time.perf_counter())
        return wanted if rates is None else f"{wanted}, achieved {rates[0]:.2f}x"

    def _describe(self, shown: _Shown) -> dict[str, str]:
        """The rows about one simulation."""
        simulation, health = shown.simulation, shown.health
        engine = simulation.place
        if len(self._shown) == 1:
            of_all = " of all worlds" if simulation.nworld > 1 else ""
            contacts = f"{shown.counts.contacts:,} in {shown.counts.rows:,} rows{of_all}"
            rows, of = {"step": shown.took, "contacts": contacts}, ""
        else:
            rows, of = {engine: shown.row}, f" ({simulation.name})"
        if health.divergence:
            rows[f"DIVERGED{of}"] = f"{health.divergence}; reset to start again"
        for number, sentence in enumerate(health.overflow, start=1):
            rows[f"WARNING {number}{of}"] = sentence
        return rows

    def summary(self) -> list[str]:
        """A line for each simulation, for when it is over."""
        return [
            f"{shown.simulation.place}: {shown.row}; "
            f"{shown.health.divergence or 'no world diverged'}"
            for shown in self._shown
        ]
