"""Lines of text as a display."""

import os
import sys
import time
from collections.abc import Sequence

import mujoco

from mjsim.view.controls import Controls
from mjsim.view.display import Display, Status


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
