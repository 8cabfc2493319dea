"""What a scene is shown on, and what the person who watches asks for.

A display takes a model and its data with `load`, then `show` as often as the state in that data,
or what stands beside the picture, has changed. It does not know where the states come from: a
stream, a recording or a simulation. What a person asks for, with a key or a button, it leaves in
the `Controls` that came with the model, for whoever makes the states.
"""

import abc
import collections
import dataclasses
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence

import mujoco
import numpy as np
import numpy.typing as npt

STALLED_SECONDS = 2.0  # without a state, after which a stream is said to have stalled
SPEEDS = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)


# ------------------------------------------------------------------------- what a person asks for


class Controls:
    """What the person who watches asks for: written by a display, in threads of its own.

    Args:
      offers: what makes sense here, of "pause", "step", "reset", "speed", "world" and "seek".
      nworld: number of worlds to choose from.
      duration: length of what can be sought in, s.

    Attributes:
      paused: nothing is to move but by single steps.
      speed: how fast it is to go, of real time; one of `SPEEDS`.
      world: index of the world to show.
    """

    def __init__(self, offers: Sequence[str] = (), nworld: int = 1, duration: float = 0.0) -> None:
        self.offers, self.nworld, self.duration = frozenset(offers), nworld, duration
        self.paused, self.speed, self.world = False, 1.0, 0
        self._asked: collections.deque[tuple[str, float]] = collections.deque(maxlen=100)

    def toggle_pause(self) -> None:
        self.paused = not self.paused

    def step(self, count: int = 1) -> None:
        """Ask for single steps; a negative count where one can go back."""
        self.paused = True
        self._asked.append(("step", count))

    def reset(self) -> None:
        """Ask for the start."""
        self._asked.append(("reset", 0.0))

    def seek(self, position: float) -> None:
        """Ask for a place in what can be sought in, s from its beginning."""
        self._asked.append(("seek", position))

    def jump(self, seconds: float) -> None:
        """Ask to seek from where it is."""
        self._asked.append(("jump", seconds))

    def change_speed(self, steps: int) -> None:
        """Take a faster or slower one of `SPEEDS`."""
        place = min(range(len(SPEEDS)), key=lambda i: abs(SPEEDS[i] - self.speed))
        self.speed = SPEEDS[min(max(place + steps, 0), len(SPEEDS) - 1)]

    def change_world(self, steps: int) -> None:
        """Show the next world, or another from here."""
        self.world = (self.world + steps) % self.nworld

    def take(self) -> list[tuple[str, float]]:
        """What was asked for since the last look, in order: "step", "reset", "seek" or "jump"."""
        asked = []
        while self._asked:
            asked.append(self._asked.popleft())
        return asked


@dataclasses.dataclass(frozen=True)
class Key:
    """A key of the window: GLFW's code and our name, what it does, and what must be offered."""

    code: int
    name: str
    what: str
    offer: str
    press: Callable[[Controls], None]


# Those of MuJoCo's own viewer where it has them; none that it uses for something else, as it does
# the digits up to 5, most letters and most punctuation.
KEYS = (
    Key(32, "Space", "pause, go on", "pause", Controls.toggle_pause),
    Key(262, "Right", "one step", "step", lambda controls: controls.step(1)),
    Key(263, "Left", "one step back", "seek", lambda controls: controls.step(-1)),
    Key(265, "Up", "1 s on", "seek", lambda controls: controls.jump(1.0)),
    Key(264, "Down", "1 s back", "seek", lambda controls: controls.jump(-1.0)),
    Key(259, "Backspace", "back to the start", "reset", Controls.reset),
    Key(45, "-", "half the speed", "speed", lambda controls: controls.change_speed(-1)),
    Key(61, "=", "twice the speed", "speed", lambda controls: controls.change_speed(1)),
    Key(56, "8", "previous world", "world", lambda controls: controls.change_world(-1)),
    Key(57, "9", "next world", "world", lambda controls: controls.change_world(1)),
)


def offered_keys(controls: Controls) -> list[Key]:
    """The keys that do something with these controls."""
    return [key for key in KEYS if key.offer in controls.offers]


# ---------------------------------------------------------------------------------- what is shown


@dataclasses.dataclass(frozen=True)
class Status:
    """What stands beside the picture.

    Attributes:
      rows: names and values for people, in the order in which they are shown.
      plots: numbers to plot over time, by their names with units.
      position: where in what can be sought in, s.
      notice: why what is shown does not go on, where that is not as the person wanted it; else "".
    """

    rows: Mapping[str, str]
    plots: Mapping[str, float] = dataclasses.field(default_factory=dict)
    position: float = 0.0
    notice: str = ""


class Display(abc.ABC):
    """Where a scene is shown, from the first model until `close`."""

    @property
    @abc.abstractmethod
    def closed(self) -> bool:
        """Whether the person who watches wants no more."""

    @abc.abstractmethod
    def load(
        self,
        mjm: mujoco.MjModel,
        mjds: Sequence[mujoco.MjData],
        controls: Controls,
        labels: Sequence[str] = (),
    ) -> None:
        """Show this model from now on.

        Args:
          mjm: the model.
          mjds: its states, to be shown side by side; they change under the display's eyes.
          controls: where to leave what a person asks for.
          labels: what to call each state, where there are several.
        """

    @abc.abstractmethod
    def show(self, status: Status, moved: bool) -> None:
        """Bring what stands beside the picture up to date and, if it `moved`, the picture.

        A window also sets `xfrc_applied` and the mocap poses of the first data to what the mouse
        does there, moved or not.
        """

    @abc.abstractmethod
    def close(self) -> None: ...

    def __enter__(self) -> "Display":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class Lines(Display):
    """A line a second on stdout. Whoever closes the other end of it wants no more."""

    PERIOD = 1.0  # s

    def __init__(self) -> None:
        self._due = 0.0
        self._hung_up = False

    @property
    def closed(self) -> bool:
        return self._hung_up

    def load(
        self,
        mjm: mujoco.MjModel,
        mjds: Sequence[mujoco.MjData],
        controls: Controls,
        labels: Sequence[str] = (),
    ) -> None:
        self._due = time.monotonic() + self.PERIOD

    def show(self, status: Status, moved: bool) -> None:
        if time.monotonic() < self._due:
            return
        self._due = max(self._due + self.PERIOD, time.monotonic())
        try:
            print("  ".join(f"{name} {value}" for name, value in status.rows.items()), flush=True)
        except BrokenPipeError:
            self._hung_up = True
            # Python flushes stdout once more at exit, and would report the same again.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    def close(self) -> None: ...


# -------------------------------------------------------------------------- figures of a stream


@dataclasses.dataclass(frozen=True)
class Figures:
    """How a stream of states comes in.

    Attributes:
      time: simulated time, s.
      frames_per_second: states that arrived, drawn or not, per second of wall time.
      realtime_factor: simulated seconds per second of wall time.
      delay: how much later the newest state came than the quickest one of this connection, s; or
        None if the server does not say when it sends.
      silent: since when nothing has come, s.
    """

    time: float
    frames_per_second: float
    realtime_factor: float
    delay: float | None
    silent: float = 0.0

    @property
    def stalled(self) -> bool:
        """Whether nothing has come for so long that the figures are of no present."""
        return self.silent >= STALLED_SECONDS

    @property
    def rows(self) -> dict[str, str]:
        rate = f"{self.frames_per_second:.1f} frames/s, {self.realtime_factor:.2f}x real time"
        delay = "unknown" if self.delay is None else f"{1e3 * self.delay:.0f} ms"
        if self.stalled:
            rate, delay = f"nothing for {int(self.silent)} s", "unknown"
        return {"time": f"{self.time:.3f} s", "rate": rate, "delay": delay}


class Meter:
    """Measures a connection: rate over the last two seconds, delay of the newest state.

    The delay is counted from the quickest arrival of the connection, because the clocks of two
    machines differ by more than what is to be measured. What remains is the time that states wait
    on their way; the way itself, half a round trip, is not in it.

    The first state of a connection is in no rate: it may have been taken long before, when somebody
    else was watching.
    """

    WINDOW = 2.0  # s

    def __init__(self) -> None:
        self._arrivals: collections.deque[tuple[float, float, int]] = collections.deque()
        self._last = time.monotonic()  # arrival, or the start
        self._simulated: float | None = None
        self._quickest: float | None = None
        self._delay: float | None = None

    def note(
        self, simulated: float, sent: float | None, nframes: int, arrived: float | None = None
    ) -> None:
        """Take the newest of some states that have arrived.

        Args:
          simulated: its simulated time, s.
          sent: the clock as it was sent (Unix time, s), where that is known.
          nframes: how many they are.
          arrived: when it did (time.monotonic); now, when None.
        """
        now = time.monotonic()
        self._last = now if arrived is None else arrived
        if self._simulated is not None:
            self._arrivals.append((self._last, simulated, nframes))
        self._simulated = simulated
        if sent is not None:
            took = time.time() - (now - self._last) - sent
            self._quickest = took if self._quickest is None else min(took, self._quickest)
            self._delay = took - self._quickest

    def figures(self) -> Figures:
        """The figures of now; the rate falls to zero where nothing arrives."""
        now = time.monotonic()
        while self._arrivals and self._arrivals[0][0] < now - self.WINDOW:
            self._arrivals.popleft()
        frames, factor = 0.0, 0.0
        if len(self._arrivals) > 1:
            (start, before, first), (end, after, _) = self._arrivals[0], self._arrivals[-1]
            if end > start:
                frames = (sum(nframes for *_, nframes in self._arrivals) - first) / (end - start)
                factor = (after - before) / (end - start)
        return Figures(self._simulated or 0.0, frames, factor, self._delay, now - self._last)


def same_model(one: mujoco.MjModel, other: mujoco.MjModel) -> bool:
    """Whether two models are the same, byte for byte."""

    def binary(mjm: mujoco.MjModel) -> npt.NDArray[np.uint8]:
        buffer = np.zeros(mujoco.mj_sizeModel(mjm), np.uint8)
        mujoco.mj_saveModel(mjm, None, buffer)
        return buffer

    return np.array_equal(binary(one), binary(other))
