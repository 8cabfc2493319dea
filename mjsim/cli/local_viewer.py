"""What `local_viewer.py` does: `mjsim watch`, `mjsim replay` and `mjsim video` in one script."""

from __future__ import annotations

import dataclasses

from mjsim import options
from mjsim.cli import replay, video, watch
from mjsim.cli.replay import ReplaySettings
from mjsim.cli.watch import WatchCommandSettings
from mjsim.errors import SettingError
from mjsim.view.replay_settings import VideoSettings


@dataclasses.dataclass(frozen=True)
class LocalViewerSettings(VideoSettings, ReplaySettings, WatchCommandSettings):
    """Whom to watch or what to replay, and where to show it."""

    # Required by `mjsim replay` and `mjsim video`, these may be left out here: `main` looks.
    replay: str | None = options.setting(  # type: ignore[assignment]
        None,
        "--replay",
        "MJREPLAY_FILE",
        "Play a recording instead of watching a stream.",
        metavar="FILE",
    )
    video: str | None = options.setting(  # type: ignore[assignment]
        None,
        "--video",
        "MJVIDEO_FILE",
        "Render the recording to this file, .mp4 or .gif, instead of showing it.",
        metavar="FILE",
    )


def main(chosen: LocalViewerSettings) -> int:
    """Do what the settings ask for; the exit status."""
    if chosen.video:
        if not chosen.replay:
            raise SettingError("video", "wants a recording to render: --replay FILE")
        return video.main(chosen)
    if chosen.replay:
        return replay.main(chosen)
    return watch.main(chosen)
