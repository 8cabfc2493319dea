"""Watch a stream, play a recording or make a video of it, as `local_viewer.py` does."""

import contextlib
import dataclasses
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from mjsim import options
from mjsim.errors import SettingError
from mjsim.stop_signals import StopSignals
from mjsim.text import printable
from mjsim.view.replay_settings import ReplaySettings
from mjsim.view.settings import ViewSettings
from mjsim.view.watch_settings import WatchSettings

if TYPE_CHECKING:  # else only where they are used, since --help does without MuJoCo
    from mjsim.record import Recording


@dataclasses.dataclass(frozen=True)
class ViewerSettings(ReplaySettings, ViewSettings, WatchSettings):
    """Whom to watch or what to replay, and where to show it."""


def say(text: str) -> None:
    print(f"local_viewer.py: {printable(text)}", file=sys.stderr, flush=True)


def watch(chosen: ViewerSettings) -> bool:
    """Show a stream; False if there was none, where one was to be shown."""
    from mjsim.view.follow import Watch

    with StopSignals() as signals, chosen.open_display() as display:
        return Watch(chosen, display, signals, os.environ.get(options.TOKEN)).follow()


@contextlib.contextmanager
def open_recording(path: str) -> Iterator["Recording"]:
    """A recording, with what is wrong with it said on stderr."""
    from mjsim.record import Recording, RecordingError

    try:
        with Recording(path) as recording:
            if recording.problem:
                say(recording.problem)
            yield recording
    except RecordingError as error:
        raise SettingError("replay", str(error)) from error


def replay(chosen: ViewerSettings) -> None:
    """Show a recording."""
    from mjsim.view.replay import Replay

    with (
        open_recording(chosen.replay) as recording,
        StopSignals() as signals,
        chosen.open_display() as display,
    ):
        start, end = chosen.check_range(recording.duration)
        once = chosen.once or chosen.backend == "none"
        Replay(recording, display, signals, start, end, chosen.speed, once).play()


def render(chosen: ViewerSettings) -> int:
    """Make a video of a recording; the exit status."""
    from rich.console import Console
    from rich.progress import track

    from mjsim.render.video import check_video_path, frame_times, frames, write_video

    check_video_path(chosen.video)
    with open_recording(chosen.replay) as recording, StopSignals() as signals:
        start, end = chosen.check_range(recording.duration)
        times = frame_times(start, end, chosen.fps, chosen.speed)
        pictures = frames(recording, chosen.view, chosen.size, times)
        shown = track(pictures, "rendering", len(times), console=Console(stderr=True))
        nframes = write_video(
            chosen.video, shown, chosen.size, chosen.fps, lambda: signals.received is not None
        )
    say(f"{chosen.video}: {nframes:,} of {len(times):,} frames")
    return 128 + signals.received if signals.received else 0


def main(chosen: ViewerSettings) -> int:
    if chosen.video:
        if not chosen.replay:
            raise SettingError("video", "wants a recording to render: --replay FILE")
        return render(chosen)
    if chosen.replay:
        replay(chosen)
        return 0
    with contextlib.suppress(KeyboardInterrupt):
        return 0 if watch(chosen) else 1
    return 0
