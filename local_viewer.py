"""Watch a simulation that streams its state, in MuJoCo's window, a browser or as lines of text.

    python local_viewer.py                    # a server on this machine, or behind ssh -L
    python local_viewer.py --backend web      # a page at http://127.0.0.1:8080
    python local_viewer.py --backend none     # a line a second on stdout
    python local_viewer.py --replay run.mcap  # a recording, in any of these; or --video run.mp4

Comes back after a dropped connection and shows the next run when the server starts again. Exit
status: 0 window closed, Ctrl-C, SIGTERM, or what is shown has ended and --once was given; 1 --once
was given and for 5 s there was no server; 2 wrong use, or no window can be opened here; 130 or 143
interrupted by Ctrl-C or SIGTERM while it was starting or making a video.
"""

from mjsim import interrupts

if __name__ == "__main__":
    interrupts.install()

import contextlib
import dataclasses
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import settings
import variables
from mjsim.errors import SettingError
from mjsim.text import printable
from replay_settings import ReplaySettings
from stop_signals import StopSignals
from view_settings import ViewSettings
from watch_settings import WatchSettings

if TYPE_CHECKING:  # else only where they are used, since --help does without MuJoCo
    from recording import Recording


@dataclasses.dataclass(frozen=True)
class ViewerSettings(ReplaySettings, ViewSettings, WatchSettings):
    """Whom to watch or what to replay, and where to show it."""


def say(text: str) -> None:
    print(f"local_viewer.py: {printable(text)}", file=sys.stderr, flush=True)


def watch(chosen: ViewerSettings) -> bool:
    """Show a stream; False if there was none, where one was to be shown."""
    from watch import Watch

    with StopSignals() as signals, chosen.open_display() as display:
        return Watch(chosen, display, signals, os.environ.get(settings.TOKEN)).follow()


@contextlib.contextmanager
def open_recording(path: str) -> Iterator["Recording"]:
    """A recording, with what is wrong with it said on stderr."""
    from recording import Recording, RecordingError

    try:
        with Recording(path) as recording:
            if recording.problem:
                say(recording.problem)
            yield recording
    except RecordingError as error:
        raise SettingError("replay", str(error)) from error


def replay(chosen: ViewerSettings) -> None:
    """Show a recording."""
    from replay import Replay

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

    from video import check_video_path, frame_times, frames, write_video

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


if __name__ == "__main__":
    variables.warn_of_unknown()
    settings.run(ViewerSettings, main, description=__doc__.split("\n\n")[0])
