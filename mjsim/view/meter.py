"""How a stream of states comes in: rate and delay."""

import dataclasses
import time

from mjsim.pacing import Rates

STALLED_SECONDS = 2.0  # without a state, after which a stream is said to have stalled


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

    def __init__(self) -> None:
        self._rates = Rates()
        self._nframes = 0
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
            self._nframes += nframes
            self._rates.note(self._last, simulated, self._nframes)
        self._simulated = simulated
        if sent is not None:
            took = time.time() - (now - self._last) - sent
            self._quickest = took if self._quickest is None else min(took, self._quickest)
            self._delay = took - self._quickest

    def figures(self) -> Figures:
        """The figures of now; the rate falls to zero where nothing arrives."""
        now = time.monotonic()
        factor, frames = self._rates.per_second(now) or (0.0, 0.0)
        return Figures(self._simulated or 0.0, frames, factor, self._delay, now - self._last)
