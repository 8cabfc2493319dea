"""Turn a recording into a video: rendered offscreen, encoded by the ffmpeg of `imageio-ffmpeg`.

That package brings its own ffmpeg, so that nothing has to be installed beside it.
"""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import mujoco
import numpy as np

from mjsim.errors import SettingError
from mjsim.record import Recording, RecordingError
from mjsim.record.cursor import Cursor, show_state
from mjsim.render.offscreen import Offscreen, View, make_camera
from mjsim.text import install_line

# A palette made for this very video: the fixed one of GIF turns a grey floor into stripes.
_PALETTE = "split[a][b];[a]palettegen=stats_mode=diff[p];[b][p]paletteuse=dither=bayer"
_ENCODING = {
    ".mp4": {
        "codec": "libx264",
        "pix_fmt_out": "yuv420p",  # what every player plays
        "output_params": ["-crf", "20", "-movflags", "+faststart", "-f", "mp4"],
    },
    ".gif": {
        "codec": "gif",
        "pix_fmt_out": "pal8",
        "output_params": ["-filter_complex", _PALETTE, "-f", "gif"],
    },
}


def frame_times(start: float, end: float, fps: float, speed: float) -> np.ndarray:
    """The places in a recording that the frames of its video show, s, (nframes,).

    Frame i is shown from i / fps on; 5 s at 30 frames per second and speed 1 are 150 frames.
    """
    nframes = max(1, round((end - start) / speed * fps))
    return start + speed / fps * np.arange(nframes)


def check_video_path(path: str) -> None:
    """Find out before rendering, not after it, that the video cannot be written.

    Raises:
      SettingError: the format is not known, the folder is not there, or ffmpeg is not.
    """
    if Path(path).suffix.lower() not in _ENCODING:
        raise SettingError("video", f"{path!r} is no video file: it ends in .mp4 or .gif")
    if not Path(path).absolute().parent.is_dir() or Path(path).is_dir():
        raise SettingError("video", f"{path!r} cannot be written: no such folder")
    try:
        import imageio_ffmpeg  # noqa: F401  an optional dependency
    except ImportError:
        raise SettingError(
            "video", f"imageio-ffmpeg is not installed: {install_line('video')}"
        ) from None


def frames(
    recording: Recording, view: View, size: tuple[int, int], times: np.ndarray
) -> Iterator[np.ndarray]:
    """The picture at each of the times, (height, width, 3) uint8.

    Raises:
      RecordingError: no model or no state can be read.
      SettingError: this machine cannot render, or the model has no such camera.
    """
    mjm = recording.model()
    mjd = mujoco.MjData(mjm)
    camera = make_camera(mjm, view)
    cursor = Cursor(recording)
    cursor.seek(float(times[0]))
    if problem := show_state(mjm, mjd, cursor.state):
        raise RecordingError(problem)
    offscreen = Offscreen(mjm, *size)

    def render() -> Iterator[np.ndarray]:
        with offscreen:
            picture = offscreen.render(mjd, camera)
            for at in times:
                if cursor.forward(float(at)) and not show_state(mjm, mjd, cursor.state):
                    picture = offscreen.render(mjd, camera)
                yield picture

    return render()  # a generator of its own, so that errors come before the first picture


def write_video(
    path: str,
    pictures: Iterable[np.ndarray],
    size: tuple[int, int],
    fps: float,
    stop: Callable[[], bool],
) -> int:
    """Encode pictures into a file, whole when it appears; the number of frames in it.

    Args:
      path: the file, .mp4 or .gif; one that is there is replaced in the end.
      pictures: (height, width, 3) uint8 each.
      size: width and height, even numbers.
      fps: frames per second.
      stop: asked before each frame whether to make do with what there is.

    Raises:
      SettingError: ffmpeg could not write it.
    """
    import imageio_ffmpeg

    partial = Path(f"{path}.partial")
    encoder = imageio_ffmpeg.write_frames(
        str(partial),
        size,
        fps=fps,
        macro_block_size=2,
        ffmpeg_log_level="error",
        **_ENCODING[Path(path).suffix.lower()],
    )
    nframes = 0
    try:
        encoder.send(None)
        for picture in pictures:
            if stop():
                break
            encoder.send(picture)
            nframes += 1
        encoder.close()
        # Closing tells nothing of an end that did not fit on the disk.
        found, _ = imageio_ffmpeg.count_frames_and_secs(str(partial)) if nframes else (0, 0.0)
        if found != nframes:
            raise OSError(f"{found:,} of {nframes:,} frames are in the file")
        if nframes:
            partial.replace(path)
    except (OSError, RuntimeError) as error:
        reason = str(error).strip().splitlines() or ["ffmpeg ended"]
        raise SettingError("video", f"{path!r} cannot be written: {reason[-1]}") from None
    finally:
        encoder.close()
        partial.unlink(missing_ok=True)
    return nframes
