"""Ctrl-C and SIGTERM as a wish that a program looks for, so that it ends with its work in order."""

import signal
from types import FrameType

from mjsim import interrupts


class StopSignals:
    """SIGINT and SIGTERM end the program: at once while it `waits`, else when it next looks.

    A second one ends the process, since the program may be long in code that does not look.

    Attributes:
      received: the signal that came, or None.
      waits: set by the program around what may be interrupted anywhere, by KeyboardInterrupt.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self.waits = False

    def __enter__(self) -> "StopSignals":
        self._previous = {
            signum: signal.signal(signum, self._note) for signum in interrupts.SIGNALS
        }
        return self

    def __exit__(self, *exception: object) -> None:
        self.waits = False
        if self.received is None:  # else nothing but a second one must interrupt what remains
            for signum, handler in self._previous.items():
                signal.signal(signum, handler)

    def _note(self, signum: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(signum)
        interrupts.end_at_next()
        if self.waits:
            raise KeyboardInterrupt
