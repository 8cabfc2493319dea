"""Streams over real sockets on loopback: viewers of all kinds come, stay and go."""

import contextlib
import itertools
import socket
import struct
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace

import mujoco
import numpy as np
import pytest
import stand_in
from scenes import OWN, OWN_FOLDER
from streamed_run import (
    SWING,
    Run,
    at_least,
    closed,
    collect,
    raw_conversation,
    states,
    wait_until,
)
from watching import free_port

from mjsim import stream as streaming
from mjsim.stream import StreamClient, StreamServer, io_thread
from mjsim.stream import server as server_module


@pytest.fixture
def run() -> Iterator[Run]:
    with Run() as started:
        yield started


def test_one_viewer(run: Run) -> None:
    with run.connect() as client:
        packets = collect(client, at_least(10))
        assert run.server.connected
        run.stop()
        packets += collect(client, closed)
        with pytest.raises(ConnectionError):
            client.drain(1.0)
    kinds = [packet["kind"] for packet in packets]
    assert kinds == ["xml", *["state"] * (len(kinds) - 2), "close"]
    steps = [packet["step"] for packet in states(packets)]
    assert steps == sorted(set(steps))
    assert {packet["run"] for packet in packets[:-1]} == {run.server.run}
    shown = mujoco.MjData(streaming.load_model(packets[0]))
    streaming.apply_mjdata(shown, packets[-2]["state"])
    assert run.server.counters.viewers == 1
    assert run.server.counters.frames_sent >= 10
    assert run.server.counters.longest_send_seconds > 0.0


def test_the_newest_state_comes_before_close() -> None:
    server = StreamServer(str(SWING), port=free_port(), wait=0.0, hz=0, report=lambda line: None)
    mjm = mujoco.MjModel.from_xml_path(str(SWING))
    mjd = mujoco.MjData(mjm)
    with server, StreamClient.connect("127.0.0.1", server.port) as client:
        wait_until(lambda: server.connected, "the viewer")
        for step in range(1000):
            mujoco.mj_step(mjm, mjd)
            server.send_state(mjd, step)
        stopping = threading.Thread(target=server.stop_connection)  # goes on while we read
        stopping.start()
        packets = collect(client, closed)
        stopping.join()
    assert packets[-2]["step"] == 999
    np.testing.assert_array_equal(packets[-2]["state"]["qpos"], mjd.qpos)


def test_the_last_state_is_sent_even_when_none_is_due() -> None:
    server = StreamServer(str(SWING), port=free_port(), wait=0.0, hz=0.1, report=lambda line: None)
    mjd = mujoco.MjData(mujoco.MjModel.from_xml_path(str(SWING)))
    with server, StreamClient.connect("127.0.0.1", server.port) as client:
        wait_until(lambda: server.due(), "the viewer")
        assert server.send_state(mjd, 1)
        assert not server.due()
        assert not server.send_state(mjd, 2)
        assert server.send_state(mjd, 3, last=True)
        server.stop_connection()
        packets = collect(client, closed)
    assert states(packets)[-1]["step"] == 3


def test_eight_viewers_and_no_more(run: Run) -> None:
    clients = [run.connect() for _ in range(8)]
    try:
        for client in clients:
            assert collect(client, at_least(3))[0]["kind"] == "xml"
        with run.connect() as ninth:
            packets = collect(ninth, closed)
        assert [packet["kind"] for packet in packets] == ["close"]
        assert any("refused" in line and "8 viewers" in line for line in run.lines)
        assert run.server.counters.viewers == 8
        run.stop()
        for client in clients:
            collect(client, closed)
    finally:
        for client in clients:
            client.close()


def test_connections_that_nobody_reads_keep_no_viewer_out(run: Run) -> None:
    """Not even while the machine at their other end takes what comes for them."""
    with contextlib.ExitStack() as stack:
        for _ in range(8):
            stack.enter_context(socket.create_connection(("127.0.0.1", run.port)))
        wait_until(lambda: run.server.counters.viewers == 8, "all of them")
        with run.connect() as client:
            packets = collect(client, at_least(3))
        assert packets[0]["kind"] == "xml"
        assert run.server.counters.refused == 0


def test_viewers_that_say_nothing_hold_their_places(run: Run) -> None:
    """As those written before there was anything to say: they read, and that is found out."""
    viewers = [stand_in.Client("127.0.0.1", run.port) for _ in range(8)]
    done = threading.Event()

    def read(viewer: stand_in.Client) -> None:
        while not done.is_set():
            viewer.receive()

    threads = [threading.Thread(target=read, args=(viewer,)) for viewer in viewers]
    for thread in threads:
        thread.start()
    try:
        wait_until(lambda: all(len(viewer.states) > 1 for viewer in viewers), "all watch")
        with run.connect() as ninth:
            assert [packet["kind"] for packet in collect(ninth, closed)] == ["close"]
    finally:
        done.set()
        for thread in threads:
            thread.join()
        for viewer in viewers:
            viewer.close()


def test_connections_that_nobody_reads_are_bounded(run: Run) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(60):
            stack.enter_context(socket.create_connection(("127.0.0.1", run.port)))
        wait_until(lambda: run.server.counters.refused > 0, "refusals")
        with contextlib.suppress(ConnectionError), run.connect() as client:
            collect(client, lambda packets: len(packets) > 0)
    assert max_connections(run) <= 8 + 2 * io_thread.MAX_PENDING + 1


def max_connections(run: Run) -> int:
    return run.server._mailbox.watched


def test_refusals_are_one_line_a_second() -> None:
    """However many connections a port scanner makes."""
    with Run(token="open") as run:
        for _ in range(100):
            raw_conversation(run.port, b"GET / HTTP/1.1\r\n\r\n")
        wait_until(lambda: run.server.counters.refused == 100, "the refusals")
        start = time.monotonic()
        wait_until(lambda: any(" more in 1 s: " in line for line in run.lines), "the line")
        assert time.monotonic() - start < 5.0
        told = [line for line in run.lines if line.startswith("refused ")]
        assert told[0].startswith("refused 127.0.0.1:")
    told = [line for line in run.lines if line.startswith("refused ")]
    assert len(told) < 20
    counts = [int(line.split()[1]) for line in told[1:] if " more in 1 s: " in line]
    assert sum(counts) + len(told) - len(counts) == 100
    assert "because wrong token" in told[1]


def test_a_late_viewer_gets_the_model_first(run: Run) -> None:
    with run.connect() as early, run.connect() as late:
        collect(early, at_least(5))
        assert collect(late, at_least(1))[0]["kind"] == "xml"


def test_a_viewer_returns(run: Run) -> None:
    for _ in range(3):
        with run.connect() as client:
            packets = collect(client, at_least(2))
        assert packets[0]["kind"] == "xml"
        assert packets[0]["run"] == run.server.run
        wait_until(lambda: not run.server.connected, "the viewer to be gone")
    assert run.server.counters.viewers == 3


def test_a_viewer_killed_within_a_frame_does_not_matter(run: Run) -> None:
    with run.connect() as other:
        sock = socket.create_connection(("127.0.0.1", run.port))
        sock.recv(100)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()
        collect(other, at_least(5))
        wait_until(lambda: run.server._mailbox.watched == 1, "the killed viewer to be gone")


def test_a_new_run_has_another_id() -> None:
    port = free_port()
    runs = []
    for _ in range(2):
        with Run(port=port) as run, run.connect() as client:
            runs.append(collect(client, at_least(1))[0]["run"])
    assert runs[0] != runs[1]


def test_a_server_can_be_started_again() -> None:
    server = StreamServer(str(SWING), port=free_port(), wait=0.0, report=lambda line: None)
    for _ in range(2):
        with server, StreamClient.connect("127.0.0.1", server.port) as client:
            collect(client, lambda packets: bool(packets))


def test_the_rate_is_kept_by_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that goes on by a millisecond with every step: 60 states in 1,000 steps."""
    ticks = itertools.count()
    clock = SimpleNamespace(
        perf_counter=lambda: 1e-3 * next(ticks), monotonic=time.monotonic, time=time.time
    )
    monkeypatch.setattr(server_module, "time", clock)
    server = StreamServer(str(SWING), port=free_port(), wait=0.0, report=lambda line: None)
    mjd = mujoco.MjData(mujoco.MjModel.from_xml_path(str(SWING)))
    with server, StreamClient.connect("127.0.0.1", server.port):
        wait_until(lambda: server.connected, "the viewer")
        sent = [server.send_state(mjd, step) for step in range(1000)]
        assert server.counters.frames == sum(sent)
    # Sending reads the clock twice, so that the 1,000 steps take 1.06 s of it.
    assert 60 <= sum(sent) <= 65


def test_the_rate_is_sent_and_no_more(run: Run) -> None:
    rates = []
    with run.connect() as client:
        collect(client, at_least(1))
        while not rates or (max(rates) < 50 and len(rates) < 10):  # the machine may be busy
            start, before = time.monotonic(), run.server.counters.frames
            time.sleep(0.5)
            rates.append((run.server.counters.frames - before) / (time.monotonic() - start))
    assert 50 <= max(rates) <= 70


@pytest.mark.parametrize("name", OWN)
def test_every_model_through_the_stream(name: str) -> None:
    with Run(str(OWN_FOLDER / name)) as run, run.connect() as client:
        packets = collect(client, at_least(2))
        mjm = streaming.load_model(packets[0])
        mjd = mujoco.MjData(mjm)
        streaming.apply_mjdata(mjd, packets[-1]["state"])
        mujoco.mj_forward(mjm, mjd)
        assert np.isfinite(mjd.geom_xpos).all()


def test_the_path_is_sent_where_it_is_asked_for() -> None:
    with Run(mode="path") as run, run.connect() as client:
        packet = collect(client, at_least(1))[0]
    assert (packet["kind"], packet["path"]) == ("model_path", str(SWING))
    assert streaming.load_model(packet).nq == run.mjm.nq


@pytest.mark.parametrize("mode", streaming.MODEL_MODES)
def test_a_client_written_from_the_description_shows_our_stream(mode: str) -> None:
    with Run(mode=mode) as run:
        client = stand_in.Client("127.0.0.1", run.port)
        while len(client.states) < 5:
            client.receive()
        run.stop()
        while client.receive() != "close":
            pass
        client.close()
    np.testing.assert_array_equal(client.mjd.qpos, client.states[-1]["qpos"])
    assert client.mjd.time > 0.0


@pytest.mark.parametrize("mode", streaming.MODEL_MODES)
@pytest.mark.parametrize("version", [2, 3, 4, 5])
def test_we_show_a_server_written_from_the_description(version: int, mode: str) -> None:
    path = str(OWN_FOLDER / "pendula.xml") if mode == "path" else None
    server = stand_in.Server(SWING.read_text(), protocol=version, path=path)
    try:
        with StreamClient.connect("127.0.0.1", server.port) as client:
            packets = collect(client, closed)
    finally:
        server.join()
    mjd = mujoco.MjData(streaming.load_model(packets[0]))
    streaming.apply_mjdata(mjd, packets[-2]["state"])
    np.testing.assert_array_equal(mjd.qpos, server.last["qpos"])
    assert mjd.time == server.last["time"]
