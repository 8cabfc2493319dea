"""`mjsim video FILE OUT`: make a video of a recording."""

import logging

from mjsim import options
from mjsim.cli.replay import open_recording
from mjsim.stop_signals import StopSignals
from mjsim.text import printable
from mjsim.view.replay_settings import VideoSettings

log = logging.getLogger(__name__)


def main(chosen: VideoSettings) -> int:
    """Render a recording; the exit status."""
    from rich.progress import track  # only here, since --help and wrong use do without MuJoCo

    from mjsim.console import console, show_log
    from mjsim.render.video import check_video_path, frame_times, frames, write_video

    show_log(options.command_name())
    check_video_path(chosen.video)
    with open_recording(chosen.replay) as recording, StopSignals() as signals:
        start, end = chosen.check_range(recording.duration)
        times = frame_times(start, end, chosen.fps, chosen.speed)
        pictures = frames(recording, chosen.view, chosen.size, times)
        shown = track(pictures, "rendering", len(times), console=console)
        nframes = write_video(
            chosen.video, shown, chosen.size, chosen.fps, lambda: signals.received is not None
        )
    log.info(printable(f"{chosen.video}: {nframes:,} of {len(times):,} frames"))
    return 128 + signals.received if signals.received else 0
