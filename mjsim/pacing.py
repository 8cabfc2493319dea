"""Simulated time against wall time: how many steps are due, when to wait, and how fast it goes."""

import collections
import time

FRAME_SECONDS = 1.0 / 60.0  # from one picture to the next
MAX_LAG = 0.25  # s behind real time, beyond which the clock starts anew instead of hurrying
MAX_PIECE = 2 * FRAME_SECONDS  # s of stepping between two pictures, where the engine is slow


class Pacer:
    """Says how many steps are due for simulated time to follow wall time, times a speed.

    Steps that the engines are too slow for are let go, so that they never have to hurry after it.

    Args:
      timestep: of the model, s.
    """

    def __init__(self, timestep: float) -> None:
        self._timestep = timestep
        self._due = 0.0  # s of simulated time

    def steps(self, elapsed: float, speed: float, step_seconds: float) -> int:
        """How many steps to take now.

        Args:
          elapsed: wall time since the last call, s.
          speed: simulated seconds per second of wall time.
          step_seconds: wall time that a step takes, s; 0 if that is not known yet.
        """
        self._due += min(elapsed, MAX_LAG) * speed
        due = int(self._due / self._timestep + 1e-9)
        most = max(1, int(MAX_PIECE / step_seconds)) if step_seconds else 1
        if due > most:
            self._due = 0.0
            return most
        self._due -= due * self._timestep
        return due


class RealTime:
    """Holds back who runs faster than real time."""

    def __init__(self) -> None:
        self._start: float | None = None  # time.perf_counter() of simulated time 0

    def restart(self) -> None:
        """Let real time begin with the next state."""
        self._start = None

    def wait(self, simulated: float) -> None:
        """Sleep until real time has come to a simulated time, s."""
        now = time.perf_counter()
        if self._start is None or now - self._start - simulated > MAX_LAG:
            self._start = now - simulated
        ahead = self._start + simulated - now
        if ahead > 0.0:
            time.sleep(ahead)


class Rates:
    """How much quantities that never go back have grown per second of late.

    Args:
      shortest: span of time from which on a rate is told, s.
    """

    WINDOW = 2.0  # s

    def __init__(self, shortest: float = 0.0) -> None:
        self._shortest = shortest
        self._notes: collections.deque[tuple[float, ...]] = collections.deque()

    def restart(self) -> None:
        """Forget what was noted."""
        self._notes.clear()

    def note(self, now: float, *totals: float) -> None:
        """Take the quantities as they are at a time, s."""
        self._notes.append((now, *totals))
        self._forget_before(now)

    def per_second(self, now: float) -> tuple[float, ...] | None:
        """The rate of each quantity within the last `WINDOW`; None if too little was noted."""
        self._forget_before(now)
        if len(self._notes) < 2:
            return None
        (start, *before), (end, *after) = self._notes[0], self._notes[-1]
        if end <= start or end - start < self._shortest:
            return None
        pairs = zip(before, after, strict=True)
        return tuple((later - earlier) / (end - start) for earlier, later in pairs)

    def _forget_before(self, now: float) -> None:
        while self._notes and self._notes[0][0] < now - self.WINDOW:
            self._notes.popleft()
