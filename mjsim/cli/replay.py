"""`mjsim replay FILE`: play a recording."""

import contextlib
import dataclasses
import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING

from mjsim import options
from mjsim.errors import SettingError
from mjsim.stop_signals import StopSignals
from mjsim.text import printable
from mjsim.view.display_settings import DisplaySettings
from mjsim.view.replay_settings import PlaybackSettings
from mjsim.view.watch_settings import once_setting

if TYPE_CHECKING:  # else only where they are used, since --help does without MuJoCo
    from mjsim.record import Recording

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class ReplaySettings(PlaybackSettings, DisplaySettings):
    """What to play, and where to show it."""

    once: bool = once_setting()


@contextlib.contextmanager
def open_recording(path: str) -> Iterator["Recording"]:
    """A recording; a warning says what is wrong with it.

    Raises:
      SettingError: it cannot be read at all.
    """
    from mjsim.record import Recording, RecordingError

    try:
        with Recording(path) as recording:
            if recording.problem:
                log.warning(printable(recording.problem))
            yield recording
    except RecordingError as error:
        raise SettingError("replay", str(error)) from error


def main(chosen: ReplaySettings) -> int:
    """Show a recording; the exit status."""
    from mjsim.console import show_log  # only here, since --help and wrong use do without MuJoCo
    from mjsim.view.replay import Replay

    show_log(options.command_name())
    with (
        open_recording(chosen.replay) as recording,
        StopSignals() as signals,
        chosen.open_display() as display,
    ):
        start, end = chosen.check_range(recording.duration)
        once = chosen.once or chosen.backend == "none"
        Replay(recording, display, signals, start, end, chosen.speed, once).play()
    return 0
