"""A place in a recording, and the state at that place in an MjData."""

from collections.abc import Iterator

import mujoco

from mjsim.errors import ProtocolError
from mjsim.record.format import RecordedState, RecordingError
from mjsim.record.reader import Recording
from mjsim.state import apply_mjdata


class Cursor:
    """A place in a recording: the last state at or before it, going on from there at no cost.

    Args:
      recording: what is read.

    Attributes:
      state: the state at this place.

    Raises:
      RecordingError: there is no state at all.
    """

    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        self._coming: Iterator[RecordedState] = iter(())
        self._next: RecordedState | None = None
        self.state: RecordedState
        if not self.seek(0.0):
            raise RecordingError(f"{recording.path.name} holds no state that can be read")

    def seek(self, at: float) -> bool:
        """Go to the last state at or before `at` seconds; whether there is one."""
        self._coming = self._recording.states(at)
        self._next = next(self._coming, None)
        return self.step()

    def forward(self, at: float) -> bool:
        """Go on to the last state at or before `at`; whether that is another one."""
        moved = False
        while self._next is not None and self._next.at <= at:
            moved = self.step()
        return moved

    def step(self) -> bool:
        """Go on to the next state; whether there is one."""
        if self._next is None:
            return False
        self.state, self._next = self._next, next(self._coming, None)
        return True

    def step_back(self) -> bool:
        """Go to the state before this one; whether there is one."""
        here = self.state.at
        before = next(self._recording.states(here - 1e-9), self.state)
        return before.at < here and self.seek(before.at)


def show_state(mjm: mujoco.MjModel, mjd: mujoco.MjData, recorded: RecordedState) -> str:
    """Bring `mjd` to a recorded state, all that follows from it included.

    Returns:
      why that is not possible, or "".
    """
    try:
        apply_mjdata(mjd, recorded.state)
        mujoco.mj_forward(mjm, mjd)
    except (ProtocolError, mujoco.FatalError, mujoco.UnexpectedError) as error:
        return " ".join(str(error).split())
    return ""
