"""The viewer: what it makes of a stream, good or bad, and the program with and without a window."""

import contextlib
import pickle
import re
import signal
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import mujoco
import numpy as np
import pytest
from screen import Screen
from watching import ViewerProcess, Witness, free_port, streaming_scene, wait_until

from mjsim import stream as streaming
from mjsim.record import Recording
from mjsim.stop_signals import StopSignals
from mjsim.stream import StreamServer, encode_packet, pack_mjdata
from mjsim.view import viewing
from mjsim.view.follow import Reader, Watch
from mjsim.view.watch_settings import WatchSettings

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


@contextlib.contextmanager
def watching(port: int, token: str | None = None) -> Iterator[Witness]:
    """A viewer in a thread of this process."""
    witness = Witness()
    chosen = WatchSettings(port=port, retry_delay=0.05)
    watch = Watch(chosen, witness, StopSignals(), token)
    thread = threading.Thread(target=watch.follow)
    thread.start()
    try:
        yield witness
    finally:
        witness.hung_up = True
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
    about = {"engine": "mjc", "device": "cpu"}
    model = {"kind": "xml", "xml": SWINGING, "assets": {}, "run": run, "about": about}
    return encode_packet(model) + encode_packet({"kind": "state", "state": pack_mjdata(mjd)})


def test_shows_the_newest_of_what_has_arrived() -> None:
    """Of a hundred states in one go, one is drawn or a few: the last of them in any case."""
    mjd = mujoco.MjData(mujoco.MjModel.from_xml_string(SWINGING))
    stream = encode_packet({"kind": "xml", "xml": SWINGING})
    for number in range(100):
        mjd.time, mjd.qpos[0] = number, 0.01 * number
        stream += encode_packet({"kind": "state", "state": pack_mjdata(mjd)})
    with answering(stream) as port, watching(port) as witness:
        wait_until(lambda: witness.times and witness.times[-1] == 99.0, "the last shows")
    assert witness.positions[-1] == pytest.approx(0.99)
    assert len(witness.times) < 50


def test_figures_tell_rate_and_delay(swinging: Path) -> None:
    port = free_port()
    with streaming_scene(swinging, port, hz=50.0), watching(port) as witness:
        wait_until(lambda: len(witness.times) > 120, "two seconds of it are shown")
    rate, realtime = re.findall(r"[0-9.]+", witness.statuses[-1].rows["rate"])
    assert float(rate) == pytest.approx(50.0, rel=0.3)
    assert float(realtime) == pytest.approx(1.0, rel=0.3)
    assert 0 <= int(witness.statuses[-1].rows["delay"].removesuffix(" ms")) < 1000


def test_a_stream_that_stalls_says_so(swinging: Path) -> None:
    """In the window, on the page and in lines of text, which all show these rows."""
    mjd = mujoco.MjData(mujoco.MjModel.from_xml_string(SWINGING))
    server = StreamServer(str(swinging), port=free_port(), wait=0.0, report=lambda text: None)
    with server, watching(server.port) as witness:
        wait_until(lambda: server.due(), "the viewer is there")
        server.send_state(mjd, 1)
        wait_until(lambda: witness.times, "a state is shown")
        wait_until(lambda: witness.statuses[-1].rows["rate"] == "nothing for 3 s", "3 s pass")
        assert witness.statuses[-1].rows["delay"] == "unknown"
        assert "nothing comes from the server" in witness.statuses[-1].notice
        assert any("frames/s" in status.rows["rate"] for status in witness.statuses)
        server.send_state(mjd, 2)
        wait_until(lambda: "frames/s" in witness.statuses[-1].rows["rate"], "it goes on")
        assert witness.statuses[-1].notice == ""
        assert witness.statuses[-1].rows["delay"].endswith(" ms")


def test_the_rate_after_a_reconnect_is_that_of_the_new_connection() -> None:
    """Its first state may be one that was taken long before, and the clock is that of its server.

    Twice real time in steps of a second, in a second and a half.
    """
    clock = [1000.0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(viewing.time, "monotonic", lambda: clock[0])
        meter = viewing.Meter()
        meter.note(3.0, None, 1)
        for number in range(4):
            clock[0] += 0.5
            meter.note(500.0 + number, None, 5)
        figures = meter.figures()
        assert (figures.time, figures.realtime_factor) == (503.0, 2.0)
        assert figures.frames_per_second == 10.0
        clock[0] += 12.7
        assert meter.figures().rows["rate"] == "nothing for 12 s"


def test_a_viewer_reads_while_it_loads_a_model(
    swinging: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Longer than the server waits for one that takes nothing; and then shows the newest state."""
    monkeypatch.setattr(streaming, "STALL_SECONDS", 1.0)
    port, busy = free_port(), threading.Event()
    load = Witness.load

    def slow_load(self: Witness, *arguments: object) -> None:
        load(self, *arguments)
        busy.set()
        threading.Event().wait(4.0)

    monkeypatch.setattr(Witness, "load", slow_load)
    with streaming_scene(swinging, port, hz=0.0) as server, watching(port) as witness:
        wait_until(busy.is_set, "the model has come")
        wait_until(lambda: witness.times, "a state is shown")
        assert witness.times[0] > 2.0
        assert (server.counters.dropped, server.counters.viewers) == (0, 1)


def test_what_is_not_taken_in_time_is_pushed_out_by_what_is_newer() -> None:
    one, other = (
        encode_packet({"kind": "xml", "xml": SWINGING, "run": run}) for run in ("one", "other")
    )
    stream = one + other + 5 * _state(time=2.0) + _state(time=3.0)
    with (
        answering(stream + encode_packet({"kind": "close"})) as port,
        Reader(streaming.StreamClient.connect("127.0.0.1", port)) as reader,
    ):
        reader._thread.join(1.0)  # until the server has hung up
        arrivals = reader.take(1.0)
        with pytest.raises(ConnectionError, match="closed the connection"):
            reader.take(10.0)
    assert [arrival.packet["kind"] for arrival in arrivals] == ["xml", "state", "close"]
    assert arrivals[0].packet["run"] == "other"
    assert arrivals[1].packet["state"]["time"] == 3.0
    assert arrivals[1].nframes == 6


def test_the_end_of_a_run_is_a_notice(swinging: Path) -> None:
    port = free_port()
    with watching(port) as witness:
        with streaming_scene(swinging, port):
            wait_until(lambda: witness.statuses, "a state is shown")
            assert witness.statuses[-1].notice == ""
        wait_until(lambda: witness.statuses[-1].notice, "a notice is given")
        assert "trying every 0.05 s" in witness.statuses[-1].notice


def test_delay_is_unknown_where_the_server_does_not_say_when_it_sends() -> None:
    with answering(swinging_packets("one", 1.0)) as port, watching(port) as witness:
        wait_until(lambda: witness.times, "the state is shown")
    assert witness.statuses[-1].rows["delay"] == "unknown"


def test_tells_a_dropped_connection_from_a_new_run(capfd: pytest.CaptureFixture[str]) -> None:
    runs = ("one", "one", "two")
    streams = [swinging_packets(run, number) for number, run in enumerate(runs)]
    with answering(*streams) as port, watching(port) as witness:
        wait_until(lambda: len(witness.times) == 3, "all three connections are shown")
    said = [line for line in capfd.readouterr().err.splitlines() if "2 bodies" in line]
    assert [line.split(": ")[1] for line in said] == [
        "connected",
        "the same run goes on",
        "a new run",
    ]


def test_shows_the_next_run_with_another_model(swinging: Path, falling: Path) -> None:
    port = free_port()
    with watching(port) as witness:
        for path, number in ((swinging, 1), (falling, 2)):
            with streaming_scene(path, port):
                wait_until(lambda number=number: len(witness.models) == number, "it is shown")
                shown = len(witness.times)
                wait_until(lambda shown=shown: len(witness.times) > shown, "it moves")
    assert witness.models == [2, 3]


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
    with answering(sent, swinging_packets("one", 7.0)) as port, watching(port) as witness:
        wait_until(
            lambda: witness.times and witness.times[-1] == 7.0,
            "the connection after the bad one is shown",
        )
    errors = capfd.readouterr().err
    assert said in errors
    assert all(len(line) < 600 and line.isprintable() for line in errors.splitlines())


def test_pause_holds_the_picture_while_the_stream_goes_on(swinging: Path) -> None:
    port = free_port()
    with streaming_scene(swinging, port), watching(port) as witness:
        wait_until(lambda: len(witness.times) > 10, "it moves")
        witness.controls.toggle_pause()
        wait_until(lambda: witness.statuses[-1].rows["rate"] == "paused", "it pauses")
        held, shown = len(witness.times), len(witness.statuses)
        wait_until(lambda: len(witness.statuses) > shown + 20, "it is still shown")
        assert len(witness.times) <= held + 1
        before = witness.times[-1]
        witness.controls.toggle_pause()
        wait_until(lambda: len(witness.times) > held + 10, "it goes on")
    assert witness.times[held + 5] > before + 0.2  # at the newest state, not where it was held


def test_tells_what_runs_and_what_a_step_takes(swinging: Path) -> None:
    port = free_port()
    about = {"engine": "mjc\x1b[2J", "device": "cpu", "oddity": 7}
    with streaming_scene(swinging, port, about=about), watching(port) as witness:
        wait_until(lambda: witness.times, "a state is shown")
    rows = witness.statuses[-1].rows
    assert rows["engine"] == "mjc?[2J on cpu"
    assert "step" not in rows  # which this server does not say
    assert rows["contacts"] == "0"


def test_a_world_that_one_viewer_chooses_is_shown_to_all(swinging: Path) -> None:
    port = free_port()
    with (
        streaming_scene(swinging, port, nworld=3, world=1),
        watching(port) as one,
        watching(port) as other,
    ):
        for witness in (one, other):
            wait_until(lambda each=witness: "world 1" in shown_world(each), "world 1")
            assert witness.controls.world == 1
        one.controls.change_world(1)
        for witness in (one, other):
            wait_until(lambda each=witness: "world 2" in shown_world(each), "world 2")
            wait_until(lambda each=witness: each.controls.world == 2, "its controls say so")
        other.controls.change_world(1)
        for witness in (one, other):
            wait_until(lambda each=witness: "world 0" in shown_world(each), "world 0")


def shown_world(witness: Witness) -> str:
    return f"world {witness.statuses[-1].rows['world']}" if witness.statuses else ""


def test_a_run_of_the_same_model_moves_where_the_last_one_was_shown(swinging: Path) -> None:
    port = free_port()
    with watching(port) as witness:
        for _ in range(2):
            with streaming_scene(swinging, port):
                shown = len(witness.times)
                wait_until(lambda: witness.times and 0.1 < witness.times[-1] < 0.5, "a new run")
                wait_until(lambda shown=shown: len(witness.times) > shown + 60, "it goes on")
    assert witness.models == [2]


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_shows_a_diverged_state(value: float) -> None:
    stream = XML + _state(qpos=np.array([value]), time=1.0) + _state(time=2.0)
    with answering(stream) as port, watching(port) as witness:
        wait_until(lambda: witness.times and witness.times[-1] == 2.0, "it is shown")


def test_answers_the_challenge_with_the_token(swinging: Path) -> None:
    port = free_port()
    with (
        streaming_scene(swinging, port, token="open sesame"),
        watching(port, token="open sesame") as witness,
    ):
        wait_until(lambda: witness.times, "a state is shown")


@pytest.mark.parametrize("token", [None, "wrong"])
def test_says_that_the_token_is_not_right(
    token: str | None, swinging: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    port, said = free_port(), ""
    with (
        streaming_scene(swinging, port, token="open sesame"),
        watching(port, token=token) as witness,
    ):

        def told() -> bool:
            nonlocal said
            said += capfd.readouterr().err
            return "MJSTREAM_TOKEN" in said

        wait_until(told, "the viewer names MJSTREAM_TOKEN")
    assert witness.models == []


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


def test_once_without_a_server_ends_with_a_word_and_status_1(tmp_path: Path) -> None:
    port = free_port()
    arguments = ("--backend=none", "--once", "--retry-delay=0.1")
    with ViewerProcess(tmp_path, port, *arguments) as viewer:
        assert viewer.status() == 1
    told = viewer.errors.splitlines()[-1]
    assert told.startswith(f"local_viewer.py: no server at 127.0.0.1:{port}: Connection refused")
    assert told.endswith("given up after 5 s")


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


def test_window_draws_a_moving_scene(screen: Screen, swinging: Path, tmp_path: Path) -> None:
    port = free_port()
    with (
        streaming_scene(swinging, port),
        ViewerProcess(tmp_path, port, DISPLAY=screen.name) as viewer,
    ):
        viewer.wait_for("connected")
        wait_until(screen.drawn, "there is a picture")
        before = screen.pixels()
        wait_until(lambda: screen.moved_since(before), "the capsule is elsewhere")


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


# ---------------------------------------------------------------------------------- recording


def test_records_what_it_shows_run_by_run(tmp_path: Path) -> None:
    """A dropped connection goes on in the same file, another run begins the next free one."""
    (tmp_path / "seen-2.mcap").write_text("precious")
    runs = [("one", 0.0), ("one", 1.0), ("two", np.nan), ("three", 3.0)]
    streams = [swinging_packets(run, time) for run, time in runs]
    arguments = ("--backend=none", "--retry-delay=0.05", "--record=seen.mcap")
    with answering(*streams) as port, ViewerProcess(tmp_path, port, *arguments) as viewer:
        wait_until(lambda: viewer.errors.count("trying every") == 4, "all four have hung up")
        assert "recording to seen-4.mcap" in viewer.errors
        viewer.send_signal(signal.SIGTERM)
        assert viewer.status() == 0
    assert (tmp_path / "seen-2.mcap").read_text() == "precious"
    for name, times in (("seen", [0.0, 1.0]), ("seen-3", [np.nan]), ("seen-4", [3.0])):
        with Recording(tmp_path / f"{name}.mcap") as run:
            assert run.complete
            assert run.about["server"] == f"127.0.0.1:{port}"
            assert run.about["engine"] == "mjc"
            assert run.model().nbody == 2
            recorded = [each.state["time"] for each in run.states()]
        np.testing.assert_array_equal(recorded, times)


def test_does_not_record_over_a_file(tmp_path: Path) -> None:
    (tmp_path / "seen.mcap").write_text("precious")
    with ViewerProcess(tmp_path, free_port(), "--backend=none", "--record=seen.mcap") as viewer:
        assert viewer.status() == 2
        assert "--record: 'seen.mcap' is there already and is kept" in viewer.errors
        assert viewer.errors.count("\n") == 1
