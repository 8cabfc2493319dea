"""`mjsim watch`: watch a simulation that streams its state."""

import contextlib
import dataclasses
import os

from mjsim import options
from mjsim.stop_signals import StopSignals
from mjsim.view.display_settings import DisplaySettings
from mjsim.view.watch_settings import WatchSettings


@dataclasses.dataclass(frozen=True)
class WatchCommandSettings(DisplaySettings, WatchSettings):
    """Whom to watch, and where to show it."""


def main(chosen: WatchCommandSettings) -> int:
    """Show a stream; the exit status: 1 if --once was given and there was none."""
    from mjsim.console import show_log  # only here, since --help and wrong use do without MuJoCo
    from mjsim.view.follow import Watch

    show_log(options.command_name())
    with (
        contextlib.suppress(KeyboardInterrupt),
        StopSignals() as signals,
        chosen.open_display() as display,
    ):
        token = os.environ.get(options.TOKEN)
        return 0 if Watch(chosen, display, signals, token).follow() else 1
    return 0
