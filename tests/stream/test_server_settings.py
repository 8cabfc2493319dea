"""What a server refuses and says of it, and when it takes its port, waits, and lets go."""

import socket
import struct
import threading
import time

import mujoco
import pytest
from streamed_run import PATIENCE, SWING, Run, wait_until
from watching import free_port

from mjsim import stream as streaming
from mjsim.stream import StreamClient, StreamError, StreamServer


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
