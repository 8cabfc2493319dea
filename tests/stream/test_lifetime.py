"""A server lets go of its port and its thread: closed, or deleted and forgotten."""

import gc
import socket
import threading
import weakref

import mujoco
import pytest
from streamed_run import SWING, closed, collect
from watching import free_port

from mjsim.stream import StreamClient, StreamServer

CELL = """
server = StreamServer(spec, port=port, wait=0, report=print_nothing)
server.start()
mujoco.mj_step(mjm, mjd)
server.send_state(mjd)
"""


def started(port: int) -> StreamServer:
    server = StreamServer(str(SWING), port=port, wait=0, report=lambda line: None)
    server.start()
    return server


def assert_free(port: int) -> None:
    with socket.create_server(("127.0.0.1", port)):
        pass


def test_close_and_stop_connection_are_the_same_and_may_be_called_twice() -> None:
    for end in (StreamServer.close, StreamServer.stop_connection):
        server = started(free_port())
        end(server)
        assert_free(server.port)
        end(server)
        server.close()


def test_a_deleted_server_leaves_no_thread_and_no_port() -> None:
    port, threads = free_port(), threading.active_count()
    server = started(port)
    forgotten = weakref.ref(server)
    assert threading.active_count() == threads + 1
    del server
    assert forgotten() is None
    assert threading.active_count() == threads
    assert_free(port)


def test_a_deleted_server_in_a_circle_of_references_goes_with_it() -> None:
    port, threads = free_port(), threading.active_count()
    holder: list[object] = [started(port)]
    holder.append(holder)
    del holder
    gc.collect()
    assert threading.active_count() == threads
    assert_free(port)


def test_viewers_of_a_deleted_server_are_told_that_it_ended() -> None:
    server = started(free_port())
    with StreamClient.connect("127.0.0.1", server.port) as client:
        packets = collect(client, bool)
        del server
        packets += collect(client, closed)
    assert [packet["kind"] for packet in packets] == ["xml", "close"]


def test_a_port_that_was_only_bound_is_freed_with_the_server() -> None:
    port = free_port()
    server = StreamServer(str(SWING), port=port)
    server.bind()
    with pytest.raises(OSError, match="in use"):
        assert_free(port)
    del server
    assert_free(port)


def test_a_cell_of_a_notebook_may_be_run_again() -> None:
    threads = threading.active_count()
    spec = mujoco.MjSpec.from_file(str(SWING))
    mjm = spec.compile()
    names = {
        "StreamServer": StreamServer,
        "mujoco": mujoco,
        "spec": spec,
        "mjm": mjm,
        "mjd": mujoco.MjData(mjm),
        "port": free_port(),
        "print_nothing": lambda line: None,
    }
    for _ in range(3):
        exec(CELL, names)
        assert threading.active_count() == threads + 1
        with StreamClient.connect("127.0.0.1", names["port"]) as client:
            assert collect(client, bool)[0]["run"] == names["server"].run
    names["server"].close()
    assert threading.active_count() == threads


def test_without_waiting_a_loop_of_your_own_goes_on_at_once() -> None:
    mjd = mujoco.MjData(mujoco.MjModel.from_xml_path(str(SWING)))
    server = started(free_port())
    assert not server.connected
    assert not server.send_state(mjd)
    server.close()
    assert not server.send_state(mjd)
