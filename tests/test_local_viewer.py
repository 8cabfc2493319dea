"""The viewer: what it makes of a stream, good or bad, and the program with and without a window."""

import contextlib
import pickle
import re
import shutil
import signal
import socket
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import mujoco
import numpy as np
import pytest
from watching import ViewerProcess, free_port, streaming_scene, wait_until

import local_viewer
import viewing
from streaming import encode_packet, pack_mjdata

SWINGING = """
<mujoco model="swinging">
  <option gravity="0 0 -9.81"/>
  <worldbody>
    <light pos="0 -2 4"/>
    <geom type="plane" size="3 3 .1" rgba=".2 .3 .4 1"/>
    <body pos="0 0 1.6">
      <joint type="hinge" axis="0 1 0" damping="0"/>
      <geom type="capsule" fromto="0 0 0 1.2 0 0" size=".15" rgba=".9 .2 .1 1"/>
    </body>
  </worldbody>
</mujoco>
"""
FALLING = """
<mujoco model="falling">
  <worldbody>
    <geom type="plane" size="3 3 .1"/>
    <body pos="0 0 1"><freejoint/><geom size=".1"/></body>
    <body pos="0 1 1"><freejoint/><geom size=".1"/></body>
  </worldbody>
</mujoco>
"""


@pytest.fixture
def swinging(tmp_path: Path) -> Path:
    path = tmp_path / "swinging.xml"
    path.write_text(SWINGING)
    return path


@pytest.fixture
def falling(tmp_path: Path) -> Path:
    path = tmp_path / "falling.xml"
    path.write_text(FALLING)
    return path


# ----------------------------------------------------------------- the viewer behind its display


class Recorder(viewing.Display):
    """Shows nothing and remembers everything."""

    def __init__(self) -> None:
        self.models: list[int] = []  # bodies of each
        self.statuses: list[viewing.Status] = []
        self.positions: list[np.ndarray] = []
        self.times: list[float] = []
        self.rates: list[str] = []
        self.notice = ""
        self.hung_up = False

    @property
    def closed(self) -> bool:
        return self.hung_up

    def load(
        self,
        mjm: mujoco.MjModel,
        mjds: Sequence[mujoco.MjData],
        controls: viewing.Controls,
        labels: Sequence[str] = (),
    ) -> None:
        self.models.append(mjm.nbody)
        self.controls = controls
        (self.mjd,) = mjds

    def show(self, status: viewing.Status, moved: bool) -> None:
        self.rates.append(status.rows["rate"])
        self.notice = status.notice
        if moved:
            self.statuses.append(status)
            self.positions.append(self.mjd.qpos.copy())
            self.times.append(self.mjd.time)

    def close(self) -> None: ...


@contextlib.contextmanager
def watching(port: int, token: str | None = None) -> Iterator[Recorder]:
    """A viewer in a thread of this process."""
    recorder = Recorder()
    chosen = local_viewer.ViewerSettings(port=port, retry_delay=0.05)
    watch = local_viewer.Watch(chosen, recorder, local_viewer.StopSignals(), token)
    thread = threading.Thread(target=watch.follow)
    thread.start()
    try:
        yield recorder
    finally:
        recorder.hung_up = True
        thread.join()


@contextlib.contextmanager
def answering(*connections: bytes) -> Iterator[int]:
    """A server that sends each viewer in turn some bytes, and then hangs up; its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            for data in connections:
                with listener.accept()[0] as sock:
                    sock.sendall(data)
                    sock.shutdown(socket.SHUT_WR)
                    with contextlib.suppress(OSError):
                        sock.recv(1)  # until the viewer has gone

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        thread.join()


def swinging_packets(run: str, time: float) -> bytes:
    mjm = mujoco.MjModel.from_xml_string(SWINGING)
    mjd = mujoco.MjData(mjm)
    mjd.time = time
    model = {"kind": "xml", "xml": SWINGING, "assets": {}, "run": run}
    return encode_packet(model) + encode_packet({"kind": "state", "state": pack_mjdata(mjd)})


def test_shows_the_newest_of_what_has_arrived() -> None:
    """Of a hundred states in one go, one is drawn or a few: the last of them in any case."""
    mjd = mujoco.MjData(mujoco.MjModel.from_xml_string(SWINGING))
    stream = encode_packet({"kind": "xml", "xml": SWINGING})
    for number in range(100):
        mjd.time, mjd.qpos[0] = number, 0.01 * number
        stream += encode_packet({"kind": "state", "state": pack_mjdata(mjd)})
    with answering(stream) as port, watching(port) as recorder:
        wait_until(lambda: recorder.times and recorder.times[-1] == 99.0, "the last shows")
    assert recorder.positions[-1] == pytest.approx(0.99)
    assert len(recorder.statuses) < 50


def test_figures_tell_rate_and_delay(swinging: Path) -> None:
    port = free_port()
    with streaming_scene(swinging, port, hz=50.0), watching(port) as recorder:
        wait_until(lambda: len(recorder.statuses) > 120, "two seconds of it are shown")
    rate, realtime = re.findall(r"[0-9.]+", recorder.statuses[-1].rows["rate"])
    assert float(rate) == pytest.approx(50.0, rel=0.3)
    assert float(realtime) == pytest.approx(1.0, rel=0.3)
    assert 0 <= int(recorder.statuses[-1].rows["delay"].removesuffix(" ms")) < 1000


def test_pause_holds_the_picture_while_the_stream_goes_on(swinging: Path) -> None:
    port = free_port()
    with streaming_scene(swinging, port) as stream, watching(port) as recorder:
        wait_until(lambda: recorder.statuses, "a state is shown")
        recorder.controls.toggle_pause()
        wait_until(lambda: recorder.rates[-1] == "paused", "it says that it is paused")
        held, sent = len(recorder.times), stream.counters.frames_sent
        wait_until(lambda: stream.counters.frames_sent > sent + 30, "the stream goes on")
        assert len(recorder.times) == held
        recorder.controls.toggle_pause()
        wait_until(lambda: len(recorder.times) > held, "the picture goes on")
    assert recorder.times[-1] > recorder.times[held - 1] + 0.3


def test_the_end_of_a_run_is_a_notice(swinging: Path) -> None:
    port = free_port()
    with watching(port) as recorder:
        with streaming_scene(swinging, port):
            wait_until(lambda: recorder.statuses, "a state is shown")
            assert recorder.statuses[-1].notice == ""
        wait_until(lambda: recorder.notice, "a notice is given")
        assert "trying every 0.05 s" in recorder.notice


def test_delay_is_unknown_where_the_server_does_not_say_when_it_sends() -> None:
    with answering(swinging_packets("one", 1.0)) as port, watching(port) as recorder:
        wait_until(lambda: recorder.statuses, "the state is shown")
    assert recorder.statuses[-1].rows["delay"] == "unknown"


def test_tells_a_dropped_connection_from_a_new_run(capfd: pytest.CaptureFixture[str]) -> None:
    runs = ("one", "one", "two")
    streams = [swinging_packets(run, number) for number, run in enumerate(runs)]
    with answering(*streams) as port, watching(port) as recorder:
        wait_until(lambda: len(recorder.statuses) == 3, "all three connections are shown")
    said = [line for line in capfd.readouterr().err.splitlines() if "2 bodies" in line]
    assert [line.split(": ")[1] for line in said] == [
        "connected",
        "the same run goes on",
        "a new run",
    ]


def test_shows_the_next_run_with_another_model(swinging: Path, falling: Path) -> None:
    port = free_port()
    with watching(port) as recorder:
        for path, number in ((swinging, 1), (falling, 2)):
            with streaming_scene(path, port):
                wait_until(lambda number=number: len(recorder.models) == number, "it is shown")
                shown = len(recorder.statuses)
                wait_until(lambda shown=shown: len(recorder.statuses) > shown, "it moves")
    assert recorder.models == [2, 3]


def test_a_server_that_is_away_is_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    port = free_port()
    with watching(port):
        threading.Event().wait(0.5)
    lines = capfd.readouterr().err.splitlines()
    assert lines == [
        f"local_viewer.py: no server at 127.0.0.1:{port}: Connection refused; trying every 0.05 s"
    ]


class _Importing:
    def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
        return eval, ("__import__('os').abort()",)


def _framed(payload: bytes) -> bytes:
    return struct.pack("!I", len(payload)) + payload


def _state(**changed: object) -> bytes:
    mjd = mujoco.MjData(mujoco.MjModel.from_xml_string(SWINGING))
    return encode_packet({"kind": "state", "state": {**pack_mjdata(mjd), **changed}})


XML = encode_packet({"kind": "xml", "xml": SWINGING})
MALFORMED = {
    "noise": (b"HTTP/1.1 400 Bad Request\r\n\r\n", "refused a packet of 1213486160 bytes"),
    "no pickle": (_framed(b"{}"), "refused"),
    "import": (_framed(pickle.dumps({"kind": "xml", "xml": _Importing()})), "refused"),
    "cut short": (XML[:-1], "cut short"),
    "nothing": (b"", "is MJSTREAM_TOKEN the same?"),
    "too many viewers": (encode_packet({"kind": "close"}), "takes no more viewers"),
    "state first": (_state(), "a state before its model"),
    "shape": (XML + _state(qpos=np.zeros(7)), "qpos came with shape (7,)"),
    "no state": (XML + encode_packet({"kind": "state"}), "the state came as"),
    "no model": (encode_packet({"kind": "xml", "xml": "<mujoco><oops/></mujoco>"}), "not compile"),
    "memory": (
        encode_packet({"kind": "xml", "xml": '<mujoco><size memory="1000G"/></mujoco>'}),
        "Could not allocate memory",
    ),
    "terminal": (encode_packet({"kind": "xml", "xml": "<\x1b[2J/>"}), "not compile"),
    "path": (
        encode_packet({"kind": "model_path", "path": "/not/here.xml"}),
        "start the server with MJSTREAM_MODEL=xml",
    ),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_survives_what_is_no_stream_and_says_why(
    case: str, capfd: pytest.CaptureFixture[str]
) -> None:
    sent, said = MALFORMED[case]
    with answering(sent, swinging_packets("one", 7.0)) as port, watching(port) as recorder:
        wait_until(
            lambda: recorder.times and recorder.times[-1] == 7.0,
            "the connection after the bad one is shown",
        )
    errors = capfd.readouterr().err
    assert said in errors
    assert all(len(line) < 600 and line.isprintable() for line in errors.splitlines())


def test_a_run_of_the_same_model_moves_where_the_last_one_was_shown(swinging: Path) -> None:
    port = free_port()
    with watching(port) as recorder:
        for _ in range(2):
            with streaming_scene(swinging, port):
                shown = len(recorder.statuses)
                wait_until(lambda: recorder.times and 0.1 < recorder.times[-1] < 0.5, "a new run")
                wait_until(lambda shown=shown: len(recorder.statuses) > shown + 60, "it goes on")
    assert recorder.models == [2]


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_shows_a_diverged_state(value: float) -> None:
    stream = XML + _state(qpos=np.array([value]), time=1.0) + _state(time=2.0)
    with answering(stream) as port, watching(port) as recorder:
        wait_until(lambda: recorder.times and recorder.times[-1] == 2.0, "it is shown")


def test_answers_the_challenge_with_the_token(swinging: Path) -> None:
    port = free_port()
    with (
        streaming_scene(swinging, port, token="open sesame"),
        watching(port, token="open sesame") as recorder,
    ):
        wait_until(lambda: recorder.statuses, "a state is shown")


@pytest.mark.parametrize("token", [None, "wrong"])
def test_says_that_the_token_is_not_right(
    token: str | None, swinging: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    port, said = free_port(), ""
    with (
        streaming_scene(swinging, port, token="open sesame"),
        watching(port, token=token) as recorder,
    ):

        def told() -> bool:
            nonlocal said
            said += capfd.readouterr().err
            return "MJSTREAM_TOKEN" in said

        wait_until(told, "the viewer names MJSTREAM_TOKEN")
    assert recorder.models == []


# --------------------------------------------------------------------- the program, no window


def test_prints_a_line_a_second_and_ends_with_the_stream(swinging: Path, tmp_path: Path) -> None:
    """On a machine without glfw, which only the window needs."""
    (tmp_path / "glfw.py").write_text("raise ImportError('no glfw on this machine')\n")
    port = free_port()
    with ViewerProcess(
        tmp_path, port, "--backend", "none", "--once", PYTHONPATH=str(tmp_path)
    ) as viewer:
        with streaming_scene(swinging, port, wait=None):
            wait_until(lambda: viewer.output.count("\n") >= 2, "there are two lines")
        assert viewer.status() == 0
    lines = viewer.output.splitlines()
    assert all("s  " in line and "frames/s" in line and "delay" in line for line in lines)
    first, second = (float(re.match(r"time ([0-9.]+) s", line)[1]) for line in lines[:2])
    assert second - first == pytest.approx(1.0, abs=0.5)


def test_a_signal_while_it_waits_for_a_server_ends_it(tmp_path: Path) -> None:
    with ViewerProcess(tmp_path, free_port(), "--backend", "none") as viewer:
        viewer.wait_for("no server at")
        viewer.send_signal(signal.SIGTERM)
        assert viewer.status() == 0
    assert "Traceback" not in viewer.errors


def test_without_a_display_it_names_the_backend_without_one(tmp_path: Path) -> None:
    with ViewerProcess(tmp_path, free_port(), DISPLAY="", WAYLAND_DISPLAY="") as viewer:
        assert viewer.status() == 2
    (line,) = viewer.errors.splitlines()
    assert "native cannot open a window here" in line
    assert "--backend none" in line


# ---------------------------------------------------------------------- the program's window


class Screen:
    """A virtual X screen. Its pixels are a file, in the format of xwd."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "Xvfb_screen0"
        self._server = subprocess.Popen(
            ["Xvfb", "-displayfd", "1", "-screen", "0", "1024x768x24", "-fbdir", str(folder)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.name = f":{self._server.stdout.readline().strip()}"

    def close(self) -> None:
        self._server.terminate()
        self._server.wait()
        self._server.stdout.close()

    def pixels(self) -> np.ndarray:
        """What is on the screen now, (height, width, 4)."""
        dump = self._file.read_bytes()
        header = np.frombuffer(dump, ">u4", 25)
        height, bytes_per_line = int(header[5]), int(header[12])
        start = int(header[0] + 12 * header[19])  # after the header and the colour map
        return np.frombuffer(dump, np.uint8, height * bytes_per_line, start).reshape(height, -1, 4)

    def drawn(self) -> bool:
        """Whether there is a picture: many shades, where an empty screen has one."""
        return len(np.unique(self.pixels()[..., 1])) > 50

    def press(self, keys: str) -> None:
        """Press keys in MuJoCo's window."""
        window = ["search", "--onlyvisible", "--name", "MuJoCo"]
        subprocess.run(
            ["xdotool", *window, "windowfocus", "key", keys],
            env={"DISPLAY": self.name, "PATH": "/usr/bin:/bin"},
            check=True,
            capture_output=True,
            timeout=30.0,
        )


@pytest.fixture
def screen(tmp_path: Path) -> Iterator[Screen]:
    for program, package in (("Xvfb", "xvfb"), ("xdotool", "xdotool")):
        if not shutil.which(program):
            pytest.skip(f"no {program} on this machine (Debian: apt-get install {package})")
    screen = Screen(tmp_path)
    yield screen
    screen.close()


def test_window_draws_a_moving_scene(screen: Screen, swinging: Path, tmp_path: Path) -> None:
    port = free_port()
    with (
        streaming_scene(swinging, port),
        ViewerProcess(tmp_path, port, DISPLAY=screen.name) as viewer,
    ):
        viewer.wait_for("connected")
        wait_until(screen.drawn, "there is a picture")
        before = screen.pixels().astype(int)

        def moved() -> bool:
            """The capsule, which is large, is elsewhere: more has changed than some digits."""
            changed = np.abs(screen.pixels().astype(int) - before).max(axis=2) > 30
            return changed[120:].sum() > 2000

        wait_until(moved, "the capsule is elsewhere")


@pytest.mark.parametrize("way", ["the user closes it", "Ctrl-C"])
def test_window_ends_with_status_0(
    way: str, screen: Screen, swinging: Path, tmp_path: Path
) -> None:
    port = free_port()
    with (
        streaming_scene(swinging, port),
        ViewerProcess(tmp_path, port, DISPLAY=screen.name) as viewer,
    ):
        viewer.wait_for("connected")
        wait_until(screen.drawn, "there is a picture")
        if way == "Ctrl-C":
            viewer.send_signal(signal.SIGINT)
        else:
            screen.press("ctrl+q")
        assert viewer.status() == 0
    (line,) = viewer.errors.splitlines()
    assert "connected: swinging, 2 bodies" in line


def test_window_shows_the_next_run_with_another_model(
    screen: Screen, swinging: Path, falling: Path, tmp_path: Path
) -> None:
    port = free_port()
    with ViewerProcess(tmp_path, port, "--retry-delay", "0.1", DISPLAY=screen.name) as viewer:
        with streaming_scene(swinging, port):
            viewer.wait_for("swinging")
            wait_until(screen.drawn, "there is a picture")
        with streaming_scene(falling, port):
            viewer.wait_for("a new run: falling, 3 bodies")
            wait_until(screen.drawn, "there is a picture again")
        viewer.wait_for("the run has ended")
        viewer.send_signal(signal.SIGINT)
        assert viewer.status() == 0


def test_the_same_model_keeps_its_window(swinging: Path, falling: Path) -> None:
    one, other = (mujoco.MjModel.from_xml_path(str(path)) for path in (swinging, falling))
    assert viewing.same_model(one, mujoco.MjModel.from_xml_string(SWINGING))
    assert not viewing.same_model(one, other)
    other = mujoco.MjModel.from_xml_string(SWINGING.replace("9.81", "1.62"))
    assert not viewing.same_model(one, other)
