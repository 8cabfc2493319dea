"""Streams over real sockets on loopback: viewers of all kinds, and those who may not watch."""

import contextlib
import dataclasses
import hashlib
import hmac
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import mujoco
import numpy as np
import pytest
import stand_in
import watching
from scenes import OWN, OWN_FOLDER
from watching import free_port

from mjsim import stream as streaming
from mjsim.model.files import REPOSITORY
from mjsim.stream import StreamClient, StreamError, StreamServer, io_thread

SWING = OWN_FOLDER / "pendula.xml"
PATIENCE = 20.0  # s; generous, since the machine may be busy with other tests


def wait_until(condition: Callable[[], bool], what: str) -> None:
    watching.wait_until(condition, what, PATIENCE)


class Run:
    """A simulation that streams, stepped by a thread until it is stopped."""

    def __init__(self, model: str = str(SWING), **options) -> None:
        self.lines: list[str] = []
        options = {"wait": 0.0, "report": self.lines.append, "port": free_port()} | options
        self.server = StreamServer(model_path=model, **options)
        self.port = self.server.port
        self.mjm = mujoco.MjModel.from_xml_path(model)
        self.mjd = mujoco.MjData(self.mjm)
        self.nstep = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._step)

    def __enter__(self) -> "Run":
        self.server.start()
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def _step(self) -> None:
        while not self._stop.is_set():
            mujoco.mj_step(self.mjm, self.mjd)
            self.nstep += 1
            self.server.send_state(self.mjd, self.nstep)
            time.sleep(0.001)

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()
        self.server.stop_connection()

    def connect(self, **options) -> StreamClient:
        return StreamClient.connect("127.0.0.1", self.port, **options)


@pytest.fixture
def run() -> Iterator[Run]:
    with Run() as started:
        yield started


def collect(client: StreamClient, until: Callable[[list[dict]], bool]) -> list[dict]:
    """All packets that `drain` returns, until there is what is waited for."""
    packets: list[dict] = []
    end = time.monotonic() + PATIENCE
    while not until(packets):
        assert time.monotonic() < end, f"only {[packet['kind'] for packet in packets]} came"
        packets += client.drain(0.1)
    return packets


def states(packets: list[dict]) -> list[dict]:
    return [packet for packet in packets if packet["kind"] == "state"]


def at_least(count: int) -> Callable[[list[dict]], bool]:
    return lambda packets: len(states(packets)) >= count


def closed(packets: list[dict]) -> bool:
    return bool(packets) and packets[-1]["kind"] == "close"


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


def test_at_most_the_rate_is_sent(run: Run) -> None:
    with run.connect() as client:
        collect(client, at_least(1))
        start, before = time.monotonic(), run.server.counters.frames
        time.sleep(0.5)
        rate = (run.server.counters.frames - before) / (time.monotonic() - start)
    assert rate <= 70


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


# --------------------------------------------------------------------------------- single packets


def test_packets_over_a_socket() -> None:
    left, right = socket.socketpair()
    with left, right:
        streaming.send_packet(left, {"kind": "x", "data": b"y"})
        assert streaming.recv_packet(right) == {"kind": "x", "data": b"y"}
        left.sendall(struct.pack("!I", 1 << 30))
        with pytest.raises(streaming.ProtocolError, match="at most"):
            streaming.recv_packet(right)
        left.sendall(struct.pack("!I", 100) + b"short")
        left.close()
        with pytest.raises(ConnectionError, match="5 of 100"):
            streaming.recv_packet(right)


# ------------------------------------------------------------------------------------------ token


def raw_conversation(port: int, send: bytes, timeout: float = PATIENCE) -> bytes:
    """All that a server says to somebody who sends this after the challenge."""
    with socket.create_connection(("127.0.0.1", port), timeout=timeout) as sock:
        came = sock.recv(4096)
        try:
            sock.sendall(send)
            while part := sock.recv(65536):
                came += part
        except ConnectionError:
            pass
    return came


def test_the_right_token_opens_the_stream() -> None:
    with Run(token="träge Masse") as run, run.connect(token="träge Masse") as client:
        assert collect(client, at_least(2))[0]["kind"] == "xml"


def test_the_response_is_the_documented_one() -> None:
    with Run(token="open") as run, socket.create_connection(("127.0.0.1", run.port)) as sock:
        challenge = stand_in.read(sock)
        assert challenge["kind"] == "challenge"
        assert challenge["algorithm"] == "hmac-sha256"
        digest = hmac.new(b"open", challenge["nonce"], hashlib.sha256).digest()
        stand_in.write(sock, {"kind": "response", "digest": digest})
        assert stand_in.read(sock)["kind"] == "xml"


@pytest.mark.parametrize(
    "answer",
    [
        streaming.encode_packet({"kind": "response", "digest": bytes(32)}),
        streaming.encode_packet({"kind": "response", "digest": "text"}),
        streaming.encode_packet({"kind": "response"}),
        struct.pack("!I", 5) + b"cos\ns",
        b"\xff\xff\xff\xff",
        b"GET / HTTP/1.1\r\n\r\n",
        bytes(100_000),
    ],
    ids=["zeros", "text", "nothing", "code", "length", "http", "flood"],
)
def test_a_wrong_answer_gets_nothing_of_the_model(answer: bytes) -> None:
    with Run(token="open") as run:
        came = raw_conversation(run.port, answer)
        wait_until(lambda: run.server.counters.refused == 1, "the refusal")
        assert not run.server.connected
        assert run.server.counters.viewers == 0
    assert any("refused" in line for line in run.lines)
    assert not any("open" in line for line in run.lines)
    (size,) = struct.unpack("!I", came[:4])
    assert len(came) == 4 + size  # the challenge, and not a byte more
    assert set(streaming.decode_payload(came[4:])) == {"kind", "algorithm", "nonce"}


def test_a_wrong_token_gets_nothing() -> None:
    with Run(token="open") as run, run.connect(token="shut") as client:
        with pytest.raises(ConnectionError):
            collect(client, at_least(1))
        wait_until(lambda: any("wrong token" in line for line in run.lines), "the log")


def test_a_missing_token_is_named_by_the_client() -> None:
    with (
        Run(token="open") as run,
        run.connect() as client,
        pytest.raises(streaming.ProtocolError, match="MJSTREAM_TOKEN"),
    ):
        collect(client, at_least(1))


def test_no_answer_gets_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(io_thread, "STALL_SECONDS", 0.5)
    with Run(token="open") as run:
        came = raw_conversation(run.port, b"")
        wait_until(lambda: any("missing token" in line for line in run.lines), "the log")
    assert b"mujoco" not in came


def test_waiting_for_a_token_takes_no_viewer_s_place() -> None:
    with Run(token="open") as run:
        strangers = [socket.create_connection(("127.0.0.1", run.port)) for _ in range(12)]
        try:
            with run.connect(token="open") as client:
                collect(client, at_least(2))
        finally:
            for sock in strangers:
                sock.close()


# --------------------------------------------------------------------------------------- settings


def test_without_a_port_nothing_happens() -> None:
    server = StreamServer("no such file", port=0)
    assert not server.enabled
    before = threading.active_count()
    with server:
        assert not server.due()
        assert not server.send_state(None)
        assert not server.connected
    assert threading.active_count() == before


def test_a_port_in_use_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(StreamError, match=f"port: {port} .*in use"):
            StreamServer(str(SWING), port=port).start()


@pytest.mark.parametrize(
    ("options", "setting"),
    [
        ({"host": "no.such.host.invalid"}, "host"),
        ({"host": "192.0.2.1"}, "port"),
        ({"port": 70000}, "port"),
        ({"hz": -1.0}, "hz"),
        ({"hz": float("nan")}, "hz"),
        ({"wait": -1.0}, "wait"),
        ({"mode": "mesh"}, "mode"),
        ({"model_path": "no such file"}, "model"),
    ],
)
def test_a_setting_that_cannot_be_used_is_named(options: dict, setting: str) -> None:
    with pytest.raises(StreamError) as caught:
        StreamServer(
            **{"model_path": str(SWING), "port": free_port(), "wait": 0.0} | options
        ).start()
    assert caught.value.setting == setting
    assert "\n" not in str(caught.value)


def test_a_model_that_cannot_be_sent_is_refused_with_the_port(tmp_path) -> None:
    """And not when the simulation is compiled, or a viewer comes."""
    binary = tmp_path / "pendula.mjb"
    mujoco.mj_saveModel(mujoco.MjModel.from_xml_path(str(SWING)), str(binary), None)
    port = free_port()
    with pytest.raises(StreamError, match=r"pendula\.mjb has no XML to send") as caught:
        StreamServer(str(binary), port=port).bind()
    assert caught.value.setting == "model"
    with socket.create_server(("127.0.0.1", port)):
        pass
    server = StreamServer(str(binary), port=port, mode="path")
    server.bind()
    server.stop_connection()


def test_a_failed_start_frees_the_port() -> None:
    port = free_port()
    with pytest.raises(StreamError):
        StreamServer("no such file", port=port).start()
    with socket.create_server(("127.0.0.1", port)):
        pass


def test_a_host_beyond_loopback_is_warned_about() -> None:
    with Run(host="0.0.0.0") as run:
        (warning,) = [line for line in run.lines if "warning" in line]
    assert f"ssh -N -L {run.port}:127.0.0.1:{run.port}" in warning
    with Run() as run:
        assert not any("warning" in line for line in run.lines)


def test_waiting_for_the_first_viewer() -> None:
    lines: list[str] = []
    server = StreamServer(str(SWING), port=free_port(), report=lines.append)
    thread = threading.Thread(target=server.start)
    thread.start()
    try:
        wait_until(lambda: bool(lines), "the line that says where")
        assert str(server.port) in lines[0]
        assert "MJSTREAM_PORT=0" in lines[0]
        time.sleep(0.3)
        assert thread.is_alive()
        StreamClient.connect("127.0.0.1", server.port).close()
    finally:
        thread.join(PATIENCE)
    assert not thread.is_alive()
    server.stop_connection()


def test_waiting_is_bounded_and_can_be_interrupted() -> None:
    for options, interrupted in (({"wait": 0.2}, lambda: False), ({}, lambda: True)):
        server = StreamServer(str(SWING), port=free_port(), report=lambda line: None, **options)
        start = time.monotonic()
        server.start(interrupted)
        assert time.monotonic() - start < 5.0
        server.stop_connection()


# ------------------------------------------------------------------------------------- the script


def headless(*arguments: str, **variables: str) -> subprocess.Popen:
    return subprocess.Popen(
        [
            sys.executable,
            str(REPOSITORY / "test_headless.py"),
            "--engine=mjc",
            f"--model={SWING}",
            *arguments,
        ],
        env=os.environ | variables,
        stderr=subprocess.PIPE,
        text=True,
    )


def connect_to(process: subprocess.Popen, port: int) -> StreamClient:
    clients: list[StreamClient] = []

    def connected() -> bool:
        try:
            clients.append(StreamClient.connect("127.0.0.1", port))
        except OSError:
            assert process.poll() is None
            return False
        return True

    wait_until(connected, "the script's port")
    return clients[0]


def test_the_script_streams_in_real_time(tmp_path) -> None:
    port, summary = free_port(), tmp_path / "summary.json"
    process = headless(f"--port={port}", f"--json={summary}", "--nsteps=500")
    with connect_to(process, port) as client:
        packets = collect(client, closed)
    _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, said
    assert f"waiting for a viewer at 127.0.0.1:{port}" in said
    assert packets[0]["kind"] == "xml"
    assert states(packets)[0]["step"] == 0
    assert states(packets)[-1]["step"] == 500
    came = json.loads(summary.read_text())
    timestep = mujoco.MjModel.from_xml_path(str(SWING)).opt.timestep
    assert came["run_seconds"] > 0.9 * 500 * timestep
    assert set(came["stream"]) == {field.name for field in dataclasses.fields(streaming.Counters)}
    assert came["stream"]["viewers"] == 1
    assert came["stream"]["frames_sent"] >= len(states(packets))


def test_the_script_ends_while_it_waits() -> None:
    process = headless(f"--port={free_port()}")
    line = process.stderr.readline()
    assert "waiting for a viewer" in line
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=PATIENCE)
    assert process.returncode == 128 + signal.SIGTERM


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"MJSTREAM_HOST": "no.such.host.invalid"}, "MJSTREAM_HOST: 'no.such.host.invalid'"),
        ({"MJSTREAM_WORLD": "1"}, "MJSTREAM_WORLD: 1 is no world: 0 to 0"),
        ({"MJSTREAM_HZ": "-1"}, "MJSTREAM_HZ: "),
        ({"MJSTREAM_WAIT": "soon"}, "MJSTREAM_WAIT: "),
        ({"MJSTREAM_MODEL": "mesh"}, "MJSTREAM_MODEL: "),
        ({"MJSTREAM_PORT": "70000"}, "MJSTREAM_PORT: 70000"),
    ],
)
def test_wrong_use_of_the_script_is_one_line(variables: dict[str, str], expected: str) -> None:
    process = headless("--nsteps=1", **{"MJSTREAM_PORT": str(free_port())} | variables)
    _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 2
    assert expected in said
    assert said.count("\n") == 1


def test_a_model_that_cannot_be_sent_ends_the_script_at_once(tmp_path) -> None:
    binary, broken = tmp_path / "pendula.mjb", tmp_path / "broken.xml"
    mujoco.mj_saveModel(mujoco.MjModel.from_xml_path(str(SWING)), str(binary), None)
    broken.write_text("<mujoco><oops/></mujoco>")
    for path, told in (
        (binary, "--stream-model: pendula.mjb has no XML to send: use MJSTREAM_MODEL=path"),
        (broken, f"--model: '{broken}' does not compile: XML Error"),
    ):
        process = headless(f"--port={free_port()}", f"--model={path}", "--nsteps=1")
        _, said = process.communicate(timeout=PATIENCE)
        assert process.returncode == 2
        assert told in said
        assert said.count("\n") == 1


def test_a_port_that_is_taken_ends_the_script_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        process = headless(f"--port={taken.getsockname()[1]}")
        _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 2
    assert "--port: " in said
    assert "in use" in said
    assert said.count("\n") == 1


# --------------------------------------------------------------------------- worlds to choose from


def test_the_model_says_what_runs_and_how_many_worlds_there_are() -> None:
    with Run(about={"engine": "mjc", "device": "cpu"}, nworld=3) as run, run.connect() as client:
        model = collect(client, at_least(1))[0]
    assert model["about"] == {"engine": "mjc", "device": "cpu"}
    assert model["nworld"] == 3
    assert model["asks"] == "ready"


@pytest.mark.parametrize("token", [None, "open sesame"])
def test_a_viewer_chooses_the_world(token: str | None) -> None:
    with Run(nworld=3, world=1, token=token) as run, run.connect(token=token) as client:
        assert run.server.world == 1
        collect(client, at_least(1))
        for asked, shown in ((2, 2), (99, 2), (-1, 0)):
            client.select_world(asked)
            wait_until(lambda shown=shown: run.server.world == shown, f"world {shown}")


def test_a_choice_right_after_the_response_is_heard() -> None:
    """In one piece with it, as TCP may deliver the two."""
    with (
        Run(nworld=3, token="open sesame") as run,
        socket.create_connection(("127.0.0.1", run.port)) as sock,
    ):
        nonce = stand_in.read(sock)["nonce"]
        digest = hmac.new(b"open sesame", nonce, hashlib.sha256).digest()
        packets = ({"kind": "response", "digest": digest}, {"kind": "world", "world": 2})
        sock.sendall(b"".join(map(streaming.encode_packet, packets)))
        wait_until(lambda: run.server.world == 2, "world 2")


def test_who_may_not_watch_may_not_choose() -> None:
    with (
        Run(nworld=3, token="open sesame") as run,
        socket.create_connection(("127.0.0.1", run.port)) as sock,
    ):
        stand_in.read(sock)
        stand_in.write(sock, {"kind": "world", "world": 2})
        wait_until(lambda: run.server.counters.refused == 1, "the refusal")
        assert run.server.world == 0


@pytest.mark.parametrize("world", [True, "2", 2.0, None, [2]])
def test_a_world_that_is_no_number_is_not_chosen(world: object) -> None:
    with Run(nworld=3) as run, run.connect() as client:
        streaming.send_packet(client._sock, {"kind": "world", "world": world})
        streaming.send_packet(client._sock, {"kind": "of the future"})
        client.select_world(1)
        wait_until(lambda: run.server.world == 1, "the choice after it")


def test_the_script_shows_the_world_that_a_viewer_asks_for() -> None:
    """Worlds differ by the noise on their controls."""
    port, humanoid = free_port(), f"--model={OWN_FOLDER / 'humanoid/humanoid.xml'}"
    noisy = ("--nworld=2", "--ctrl-noise=1", "--nsteps=100000", humanoid)
    with headless(f"--port={port}", *noisy) as process, connect_to(process, port) as client:
        packets = collect(client, at_least(5))
        client.select_world(1)
        packets = packets[-1:] + collect(client, lambda came: 1 in worlds(came))
        process.terminate()
        packets += collect(client, closed)
    zero, one = (next(each for each in states(packets) if each["world"] == k) for k in (0, 1))
    assert not np.allclose(zero["state"]["ctrl"], one["state"]["ctrl"])
    assert 0.0 < one["step_seconds"] < 10.0


def worlds(packets: list[dict]) -> set[int]:
    return {packet["world"] for packet in states(packets)}
