"""Play a recording on a display: pause, step, seek, speed."""

import time

import mujoco

from mjsim.pacing import FRAME_SECONDS
from mjsim.record import Recording
from mjsim.record.cursor import Cursor, show_state
from mjsim.stop_signals import StopSignals
from mjsim.view.controls import Controls
from mjsim.view.display import Display, Status


class Replay:
    """Plays a recording, as its viewer's `Controls` say.

    Args:
      recording: what to play.
      display: where to show it.
      signals: what ends it, beside the user of the display.
      start: where to begin, s.
      end: where to end, s; None: with the recording.
      speed: of real time.
      once: end with the recording, instead of waiting for the user there.

    Raises:
      RecordingError: it has no model or no state to show.
    """

    def __init__(
        self,
        recording: Recording,
        display: Display,
        signals: StopSignals,
        start: float = 0.0,
        end: float | None = None,
        speed: float = 1.0,
        once: bool = False,
    ) -> None:
        self._recording, self._display, self._signals = recording, display, signals
        self._start, self._once = start, once
        self._end = recording.duration if end is None else min(end, recording.duration)
        self._mjm = recording.model()
        self._mjd = mujoco.MjData(self._mjm)
        self._cursor = Cursor(recording)
        self._position, self._problem = 0.0, ""
        self._controls = Controls(
            ("pause", "step", "reset", "speed", "seek"), duration=recording.duration
        )
        self._controls.speed = speed

    def play(self) -> None:
        """Show it until the user, a signal or (with `once`) its end says so."""
        self._go_to(self._start)
        self._display.load(self._mjm, [self._mjd], self._controls)
        self._display.show(self._status(), moved=True)
        last = time.monotonic()
        while self._signals.received is None and not self._display.closed:
            time.sleep(FRAME_SECONDS)
            now = time.monotonic()
            moved = self._obey()
            if not self._controls.paused:
                moved |= self._move_on((now - last) * self._controls.speed)
            last = now
            self._display.show(self._status(), moved)
            if self._once and self._at_end:
                return

    @property
    def _at_end(self) -> bool:
        return self._position >= self._end

    def _obey(self) -> bool:
        """Do what was asked for; whether another state is there now."""
        moved = False
        for wish, value in self._controls.take():
            if wish == "step":
                moved |= self._step(value > 0.0)
            else:
                place = {"reset": self._start, "seek": value, "jump": self._position + value}
                moved |= self._go_to(place[wish])
        return moved

    def _move_on(self, seconds: float) -> bool:
        if self._at_end:  # gone on from the pause that the end is
            return self._go_to(self._start)
        self._position = min(self._position + seconds, self._end)
        moved = self._cursor.forward(self._position) and self._apply()
        if self._at_end and not self._once:
            self._controls.paused = True
        return moved

    def _step(self, on: bool) -> bool:
        moved = self._cursor.step() if on else self._cursor.step_back()
        self._position = self._cursor.state.at
        return moved and self._apply()

    def _go_to(self, position: float) -> bool:
        self._position = min(max(0.0, position), self._recording.duration)
        return self._cursor.seek(self._position) and self._apply()

    def _apply(self) -> bool:
        self._problem = show_state(self._mjm, self._mjd, self._cursor.state)
        return not self._problem

    def _status(self) -> Status:
        about, state = self._recording.about, self._cursor.state
        rows = {"engine": f"{about['engine']} on {about.get('device', '?')}"} if about else {}
        rows |= {
            "time": f"{self._mjd.time:.3f} s",
            "place": f"{self._position:.2f} of {self._recording.duration:.2f} s",
            "speed": f"{self._controls.speed:g}x" + (", paused" if self._controls.paused else ""),
            "step": f"{state.step:,}",
            "contacts": f"{self._mjd.ncon:,}",
        }
        if problem := self._problem or self._recording.problem:
            rows["problem"] = problem
        return Status(rows, {"contacts": self._mjd.ncon}, self._position)
