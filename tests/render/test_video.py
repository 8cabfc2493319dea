"""Videos of recordings: how many frames, what is in them, and what is said where there is none."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import imageio_ffmpeg
import mujoco
import numpy as np
import pytest
from recordings import SWINGING, record_swinging
from watching import ViewerProcess, wait_until

from mjsim.errors import SettingError
from mjsim.model.files import REPOSITORY
from mjsim.render import opengl_probe as gl
from mjsim.render.offscreen import Offscreen, View, make_camera
from mjsim.render.video import frame_times

needs_rendering = pytest.mark.skipif(
    not any(gl.probe(way).renderer for way in ("EGL", "OSMesa")),
    reason="neither EGL nor OSMesa works on this machine (Debian: apt-get install libegl1 "
    "libgl1-mesa-dri, or libosmesa6)",
)


@pytest.fixture(scope="module")
def swinging(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five seconds of a pendulum."""
    return record_swinging(tmp_path_factory.mktemp("video") / "swinging.mcap", 5.0)


def make_video(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    command = [sys.executable, str(REPOSITORY / "local_viewer.py"), "--size", "160x120"]
    return subprocess.run(
        [*command, *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, **environment},
    )


def read_frames(path: Path) -> np.ndarray:
    """The frames of a video, (nframes, height, width, 3) uint8."""
    ffmpeg = imageio_ffmpeg.get_ffmpeg_exe()
    raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-fps_mode", "passthrough", "-"]
    done = subprocess.run(
        [ffmpeg, "-loglevel", "error", "-i", str(path), *raw], capture_output=True, check=True
    )
    return np.frombuffer(done.stdout, np.uint8).reshape(-1, 120, 160, 3)


def moving_pixels(frames: np.ndarray) -> int:
    """Pixels whose colour changes much from the first frame to any later one."""
    return int((np.abs(frames.astype(int) - frames[0]).max(axis=(0, 3)) > 80).sum())


# --------------------------------------------------------------------------- which frames


@pytest.mark.parametrize(
    ("start", "end", "fps", "speed", "nframes"),
    [
        (0.0, 5.0, 30.0, 1.0, 150),
        (0.0, 5.0, 30.0, 0.5, 300),
        (1.0, 1.99, 50.0, 1.0, 50),
        (2.0, 2.0, 30.0, 1.0, 1),
    ],
)
def test_a_video_has_fps_frames_for_each_second_of_it(
    start: float, end: float, fps: float, speed: float, nframes: int
) -> None:
    times = frame_times(start, end, fps, speed)
    assert len(times) == nframes
    assert times[0] == start
    assert np.diff(times) == pytest.approx(speed / fps)


# --------------------------------------------------------------------------------- cameras


def test_cameras_go_by_name_number_or_angles() -> None:
    mjm = mujoco.MjModel.from_xml_string(SWINGING)
    for name in ("side", "0"):
        camera = make_camera(mjm, View(name))
        assert camera.type == mujoco.mjtCamera.mjCAMERA_FIXED
        assert camera.fixedcamid == 0
    camera = make_camera(mjm, View(azimuth=45.0, elevation=-30.0, distance=3.0))
    assert camera.type == mujoco.mjtCamera.mjCAMERA_FREE
    assert (camera.azimuth, camera.elevation, camera.distance) == (45.0, -30.0, 3.0)


def test_an_unknown_camera_is_named_with_those_there_are() -> None:
    mjm = mujoco.MjModel.from_xml_string(SWINGING)
    with pytest.raises(SettingError, match="'top' is no camera of the model; it has side"):
        make_camera(mjm, View("top"))
    with pytest.raises(SettingError, match="azimuth: 30 is for the free camera"):
        make_camera(mjm, View("side", azimuth=30.0))
    no_camera = mujoco.MjModel.from_xml_string("<mujoco/>")
    with pytest.raises(SettingError, match="it has none: leave out --camera"):
        make_camera(no_camera, View("side"))


@needs_rendering
def test_a_fixed_camera_sees_what_the_free_one_does_not() -> None:
    mjm = mujoco.MjModel.from_xml_string(SWINGING)
    mjd = mujoco.MjData(mjm)
    mujoco.mj_forward(mjm, mjd)
    with Offscreen(mjm, 160, 120) as offscreen:
        side = offscreen.render(mjd, make_camera(mjm, View("side")))
        free = offscreen.render(mjd, make_camera(mjm, View()))
    assert side.shape == free.shape == (120, 160, 3)
    red = side[..., 0].astype(int) - side[..., 2] > 80  # of the pendulum
    assert red.sum() > 300
    assert np.nonzero(red)[0].mean() < 60  # it hangs from above: OpenGL's rows are turned
    assert np.abs(side.astype(int) - free).max() > 80


# ------------------------------------------------------------------------------ the program


@needs_rendering
@pytest.mark.parametrize("ending", ["mp4", "gif"])
def test_five_seconds_at_30_frames_are_150_and_the_bodies_in_them_move(
    ending: str, swinging: Path, tmp_path: Path
) -> None:
    path = tmp_path / f"swinging.{ending}"
    done = make_video("--replay", str(swinging), "--video", str(path), "--camera", "side")
    assert done.returncode == 0, done.stderr
    frames = read_frames(path)
    assert frames.shape == (150, 120, 160, 3)
    assert moving_pixels(frames) > 1000
    assert f"{path}: 150 of 150 frames" in done.stderr
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


@needs_rendering
@pytest.mark.parametrize("way", ["EGL", "OSMesa"])
def test_renders_by_the_way_that_mujoco_gl_names(way: str, swinging: Path, tmp_path: Path) -> None:
    if not gl.probe(way).renderer:
        pytest.skip(f"{way} does not work on this machine")
    path = tmp_path / "short.mp4"
    arguments = ("--replay", str(swinging), "--video", str(path), "--end", "0.2")
    done = make_video(*arguments, MUJOCO_GL=gl.WAYS[way].mujoco_gl)
    assert done.returncode == 0, done.stderr
    assert len(read_frames(path)) == 6


@needs_rendering
def test_start_end_and_speed_choose_what_is_in_it(swinging: Path, tmp_path: Path) -> None:
    path = tmp_path / "slow.mp4"
    chosen = ("--start", "1", "--end", "1.5", "--speed", "0.5", "--fps", "20")
    done = make_video("--replay", str(swinging), "--video", str(path), *chosen)
    assert done.returncode == 0, done.stderr
    assert len(read_frames(path)) == 20


@needs_rendering
def test_ctrl_c_keeps_the_frames_that_are_rendered(swinging: Path, tmp_path: Path) -> None:
    path = tmp_path / "cut.mp4"
    arguments = ("--replay", str(swinging), "--video", str(path), "--speed", "0.002")
    arguments += ("--size", "160x120")
    with ViewerProcess(tmp_path, 1, *arguments) as viewer:
        wait_until(Path(f"{path}.partial").exists, "ffmpeg has started")
        time.sleep(1.0)  # some of the minute that it takes
        viewer.send_signal(signal.SIGINT)
        assert viewer.status() == 130
    frames = read_frames(path)
    assert 0 < len(frames) < 75000
    assert f"{len(frames):,} of 75,000 frames" in viewer.errors


@needs_rendering
def test_a_video_replaces_an_older_one_only_when_it_is_whole(
    swinging: Path, tmp_path: Path
) -> None:
    path = tmp_path / "old.mp4"
    path.write_bytes(b"the older one")
    arguments = ("--replay", str(swinging), "--video", str(path), "--end", "0.1")
    assert make_video(*arguments, "--camera", "nowhere").returncode == 2
    assert path.read_bytes() == b"the older one"
    assert make_video(*arguments).returncode == 0
    assert len(read_frames(path)) == 3


WRONG = {
    "no recording": (["--video", "x.mp4"], "--video: wants a recording"),
    "format": (["--replay", "{0}", "--video", "x.avi"], "it ends in .mp4 or .gif"),
    "folder": (["--replay", "{0}", "--video", "nowhere/x.mp4"], "no such folder"),
    "odd size": (["--replay", "{0}", "--video", "x.mp4", "--size", "161x120"], "even numbers"),
    "no size": (["--replay", "{0}", "--video", "x.mp4", "--size", "big"], "'big' is no size"),
    "camera": (["--replay", "{0}", "--video", "x.mp4", "--camera", "top"], "it has side"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_use_is_one_line_that_names_the_setting(
    case: str, swinging: Path, tmp_path: Path
) -> None:
    arguments, said = WRONG[case]
    done = subprocess.run(
        [sys.executable, str(REPOSITORY / "local_viewer.py")]
        + [each.format(swinging) for each in arguments],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert said in line
    assert list(tmp_path.iterdir()) == []


def test_without_egl_and_osmesa_it_says_what_to_install(swinging: Path, tmp_path: Path) -> None:
    """PyOpenGL, told of a platform that neither is, refuses both as a machine without them does."""
    video = str(tmp_path / "x.mp4")
    done = make_video("--replay", str(swinging), "--video", video, PYOPENGL_PLATFORM="glx")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "--video: cannot render here; EGL: " in line
    assert "apt-get install libosmesa6" in line


def test_without_imageio_ffmpeg_it_says_the_line_that_installs_it(
    swinging: Path, tmp_path: Path
) -> None:
    (tmp_path / "imageio_ffmpeg.py").write_text("raise ImportError('not here')\n")
    arguments = ("--replay", str(swinging), "--video", str(tmp_path / "x.mp4"))
    done = make_video(*arguments, PYTHONPATH=str(tmp_path))
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "pip install 'comfree-warp[video]'" in line
