"""What of a recording to play, and how to make a video of it."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import click

from mjsim import options
from mjsim.errors import SettingError

if TYPE_CHECKING:
    from mjsim.render.offscreen import View


class SizeType(click.ParamType):
    """Width and height in pixels."""

    name = "WxH"
    LIMITS = (16, 8192)

    def convert(
        self, value: str | tuple, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        if isinstance(value, tuple):
            return value
        parts = value.lower().split("x")
        if len(parts) != 2 or not all(part.isascii() and part.isdigit() for part in parts):
            self.fail(f"{value!r} is no size, such as 1280x720", param, ctx)
        size = int(parts[0]), int(parts[1])
        low, high = self.LIMITS
        if not all(low <= each <= high and each % 2 == 0 for each in size):
            self.fail(f"{value!r}: even numbers from {low} to {high} are wanted", param, ctx)
        return size


@dataclasses.dataclass(frozen=True)
class PlaybackSettings:
    """Which recording, from where to where, and how fast."""

    replay: str = options.argument("FILE", "MJREPLAY_FILE")
    start: float = options.setting(
        0.0,
        "--start",
        "MJREPLAY_START",
        "Seconds of the recording to leave out at its beginning.",
        type=click.FloatRange(min=0.0),
    )
    end: float | None = options.setting(
        None,
        "--end",
        "MJREPLAY_END",
        "Seconds into the recording at which to end.  [default: its end]",
        type=click.FloatRange(min=0.0),
    )
    speed: float = options.setting(
        1.0,
        "--speed",
        "MJREPLAY_SPEED",
        "Speed to play it at, of real time.",
        type=click.FloatRange(0.001, 1000.0),
    )

    def check_range(self, duration: float) -> tuple[float, float]:
        """Start and end in a recording of `duration` seconds.

        Raises:
          SettingError: nothing lies between them.
        """
        end = duration if self.end is None else min(self.end, duration)
        if self.start > duration:
            raise SettingError(
                "start", f"{self.start:g} is beyond the recording, which lasts {duration:g} s"
            )
        if self.start > end:
            raise SettingError("end", f"{self.end:g} comes before --start {self.start:g}")
        return self.start, end


@dataclasses.dataclass(frozen=True)
class VideoSettings(PlaybackSettings):
    """What a video of a recording shows."""

    video: str = options.argument("OUT", "MJVIDEO_FILE")
    size: tuple[int, int] = options.setting(
        (1280, 720),
        "--size",
        "MJVIDEO_SIZE",
        "Size of the video, pixels.",
        type=SizeType(),
        show_default="1280x720",
    )
    fps: float = options.setting(
        30.0,
        "--fps",
        "MJVIDEO_FPS",
        "Frames per second of the video.",
        type=click.FloatRange(1.0, 240.0),
    )
    camera: str | None = options.setting(
        None,
        "--camera",
        "MJVIDEO_CAMERA",
        "Camera of the model for the video, by name or number.  [default: a free camera]",
        metavar="NAME",
    )
    azimuth: float | None = options.setting(
        None,
        "--azimuth",
        "MJVIDEO_AZIMUTH",
        "Of the free camera, degrees.  [default: the model's, as for the next two]",
        type=click.FLOAT,
    )
    elevation: float | None = options.setting(
        None,
        "--elevation",
        "MJVIDEO_ELEVATION",
        "Of the free camera, degrees; negative looks down.",
        type=click.FLOAT,
    )
    distance: float | None = options.setting(
        None,
        "--distance",
        "MJVIDEO_DISTANCE",
        "Of the free camera, m.",
        type=click.FloatRange(min=0.0, min_open=True),
    )

    @property
    def view(self) -> View:
        """From where the video is seen."""
        from mjsim.render.offscreen import View

        return View(self.camera, self.azimuth, self.elevation, self.distance)
