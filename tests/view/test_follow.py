"""Following a stream: what the viewer makes of it, good or bad."""

import contextlib
import logging
import pickle
import re
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import mujoco
import numpy as np
import pytest
from watching import (
    SWINGING,
    Witness,
    answering,
    free_port,
    streaming_scene,
    swinging_packets,
    wait_until,
)

from mjsim.model.compare import same_model
from mjsim.stop_signals import StopSignals
from mjsim.stream import StreamClient, StreamServer, encode_packet, io_thread, pack_mjdata
from mjsim.view import meter
from mjsim.view.follow import Reader, Watch
from mjsim.view.watch_settings import WatchSettings

Told = Callable[[], list[str]]


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Told:
    """What is logged, line by line."""
    caplog.set_level(logging.INFO, logger="mjsim")
    return lambda: caplog.messages


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
        patch.setattr(meter.time, "monotonic", lambda: clock[0])
        stream = meter.Meter()
        stream.note(3.0, None, 1)
        for number in range(4):
            clock[0] += 0.5
            stream.note(500.0 + number, None, 5)
        figures = stream.figures()
        assert (figures.time, figures.realtime_factor) == (503.0, 2.0)
        assert figures.frames_per_second == 10.0
        clock[0] += 12.7
        assert stream.figures().rows["rate"] == "nothing for 12 s"


def test_a_viewer_reads_while_it_loads_a_model(
    swinging: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Longer than the server waits for one that takes nothing; and then shows the newest state."""
    monkeypatch.setattr(io_thread, "STALL_SECONDS", 1.0)
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
        Reader(StreamClient.connect("127.0.0.1", port)) as reader,
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


def test_tells_a_dropped_connection_from_a_new_run(told: Told) -> None:
    runs = ("one", "one", "two")
    streams = [swinging_packets(run, number) for number, run in enumerate(runs)]
    with answering(*streams) as port, watching(port) as witness:
        wait_until(lambda: len(witness.times) == 3, "all three connections are shown")
    assert [line.split(": ")[0] for line in told() if "2 bodies" in line] == [
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


def test_a_server_that_is_away_is_one_line(told: Told) -> None:
    port = free_port()
    with watching(port):
        threading.Event().wait(0.5)
    assert told() == [f"no server at 127.0.0.1:{port}: Connection refused; trying every 0.05 s"]


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
def test_survives_what_is_no_stream_and_says_why(case: str, told: Told) -> None:
    sent, said = MALFORMED[case]
    with answering(sent, swinging_packets("one", 7.0)) as port, watching(port) as witness:
        wait_until(
            lambda: witness.times and witness.times[-1] == 7.0,
            "the connection after the bad one is shown",
        )
    assert said in "".join(told())
    assert all(len(line) < 600 and line.isprintable() for line in told())


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
def test_says_that_the_token_is_not_right(token: str | None, swinging: Path, told: Told) -> None:
    port = free_port()
    with (
        streaming_scene(swinging, port, token="open sesame"),
        watching(port, token=token) as witness,
    ):
        wait_until(lambda: "MJSTREAM_TOKEN" in "".join(told()), "the viewer names MJSTREAM_TOKEN")
    assert witness.models == []


def test_the_same_model_keeps_its_window(swinging: Path, falling: Path) -> None:
    one, other = (mujoco.MjModel.from_xml_path(str(path)) for path in (swinging, falling))
    assert same_model(one, mujoco.MjModel.from_xml_string(SWINGING))
    assert not same_model(one, other)
    other = mujoco.MjModel.from_xml_string(SWINGING.replace("9.81", "1.62"))
    assert not same_model(one, other)
