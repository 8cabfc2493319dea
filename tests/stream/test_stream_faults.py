"""Viewers that stall, vanish or swarm: the run does not notice, and nothing is left behind."""

import contextlib
import gc
import os
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import mujoco
import numpy as np
import pytest
import stand_in
from streamed_run import PATIENCE, Run, at_least, collect, states_behind_a_stall, wait_until

from mjsim.model.files import REPOSITORY
from mjsim.stream import io_thread

STATE = mujoco.mjtState.mjSTATE_INTEGRATION


def final_state(mjm: mujoco.MjModel, mjd: mujoco.MjData) -> np.ndarray:
    state = np.empty(mujoco.mj_stateSize(mjm, STATE))
    mujoco.mj_getState(mjm, mjd, state, STATE)
    return state


def assert_undisturbed(run: Run) -> None:
    """The run ended where the same number of steps end that nobody has watched."""
    mjd = mujoco.MjData(run.mjm)
    for _ in range(run.nstep):
        mujoco.mj_step(run.mjm, mjd)
    assert run.nstep > 0
    np.testing.assert_array_equal(final_state(run.mjm, run.mjd), final_state(run.mjm, mjd))


def sockets() -> int:
    kinds = (os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if exists(fd))
    return sum(kind.startswith("socket:") for kind in kinds)


def exists(fd: str) -> bool:
    return os.path.lexists(f"/proc/self/fd/{fd}")  # the one that lists them is gone by now


def resident() -> int:
    """Bytes of memory that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def reset(sock: socket.socket) -> None:
    """Close with a reset instead of an orderly end."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def never_read(seconds: float) -> None:
    with Run(hz=0) as run, socket.socket() as sock, run.connect() as other:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(("127.0.0.1", run.port))
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            assert collect(other, at_least(1)), "another viewer starves"
            time.sleep(0.05)
        assert run.server.counters.dropped == 1
        assert any("took nothing for 10 s" in line for line in run.lines)
        assert run.server.counters.longest_send_seconds < 0.5
    assert_undisturbed(run)


@pytest.mark.alone
def test_a_viewer_that_never_reads_is_dropped() -> None:
    never_read(14.0)


@pytest.mark.alone
@pytest.mark.slow
def test_a_viewer_that_never_reads_for_a_minute_is_dropped() -> None:
    never_read(60.0)


def test_a_viewer_that_stalls_gets_the_newest_state_then() -> None:
    with Run(hz=0) as run:
        behind = states_behind_a_stall(run)
    # What was on its way already: the send buffer's unsent part, and a window of 4 KiB.
    assert behind < 60
    assert_undisturbed(run)


# ---------------------------------------------------------------------------------------- resets


def after_connecting(sock: socket.socket, run: Run) -> None:
    pass


def after_the_challenge(sock: socket.socket, run: Run) -> None:
    assert stand_in.read(sock)["kind"] == "challenge"


def within_the_response(sock: socket.socket, run: Run) -> None:
    assert stand_in.read(sock)["kind"] == "challenge"
    sock.sendall(b"\0\0")


def within_the_model(sock: socket.socket, run: Run) -> None:
    sock.recv(10)


def after_the_model(sock: socket.socket, run: Run) -> None:
    assert stand_in.read(sock)["kind"] == "xml"


def within_a_state(sock: socket.socket, run: Run) -> None:
    after_the_model(sock, run)
    sock.recv(10)


def between_states(sock: socket.socket, run: Run) -> None:
    after_the_model(sock, run)
    for _ in range(5):
        assert stand_in.read(sock)["kind"] == "state"


def at_the_end(sock: socket.socket, run: Run) -> None:
    after_the_model(sock, run)
    run.stop()


@pytest.mark.parametrize("leave", [reset, socket.socket.close])
@pytest.mark.parametrize(
    ("phase", "token"),
    [
        (after_connecting, None),
        (after_connecting, "open"),
        (after_the_challenge, "open"),
        (within_the_response, "open"),
        (within_the_model, None),
        (after_the_model, None),
        (within_a_state, None),
        (between_states, None),
        (at_the_end, None),
    ],
)
def test_leaving_in_any_phase(
    phase: Callable[[socket.socket, Run], None],
    token: str | None,
    leave: Callable[[socket.socket], None],
) -> None:
    with Run(token=token) as run:
        sock = socket.create_connection(("127.0.0.1", run.port), timeout=PATIENCE)
        phase(sock, run)
        leave(sock)
        if phase is not at_the_end:
            with run.connect(token=token) as client:
                collect(client, at_least(2))
    assert not run.server.connected
    assert not any("error" in line for line in run.lines)
    assert_undisturbed(run)


def test_an_end_without_a_word_is_not_an_end_for_the_run() -> None:
    """A viewer that says it will send no more is gone, as one that closed is."""
    with Run() as run, socket.create_connection(("127.0.0.1", run.port)) as sock:
        sock.shutdown(socket.SHUT_WR)
        wait_until(lambda: run.server.counters.viewers == 1, "the viewer")
        wait_until(lambda: not run.server.connected, "the viewer to be gone")
    assert_undisturbed(run)


def test_a_viewer_that_floods_is_dropped() -> None:
    with Run() as run:
        with (
            socket.create_connection(("127.0.0.1", run.port)) as sock,
            contextlib.suppress(ConnectionError),
        ):
            for _ in range(1000):
                sock.sendall(bytes(10_000))
                time.sleep(0.001)
        wait_until(lambda: run.server.counters.refused == 1, "the refusal")
    assert_undisturbed(run)


HALF_OPEN = """
import fcntl, socket, struct, sys, time
sys.path[:0] = {path!r}
from streamed_run import Run, wait_until
from test_stream_faults import assert_undisturbed

def loopback(up):
    with socket.socket() as sock:
        fcntl.ioctl(sock, 0x8914, struct.pack("16sh14x", b"lo", 0x49 if up else 0x48))

loopback(True)
with Run() as run, socket.create_connection(("127.0.0.1", run.port)) as sock:
    sock.recv(10)
    wait_until(lambda: run.server.connected, "the viewer")
    loopback(False)  # from here on no packet arrives, and nobody is told
    time.sleep(12.5)
    assert not run.server.connected, "the viewer is still there"
    assert run.server.counters.dropped == 1
    loopback(True)
    with run.connect() as client:
        end = time.monotonic() + 10
        while not client.drain(0.1):
            assert time.monotonic() < end
assert_undisturbed(run)
print("done")
"""


def test_a_half_open_connection_is_dropped() -> None:
    """In a network of its own, which goes down under an open connection."""
    unshare = shutil.which("unshare")
    if not unshare or subprocess.run([unshare, "-rn", "true"], capture_output=True).returncode:
        pytest.skip("needs unshare (util-linux) and leave to make a network namespace")
    code = HALF_OPEN.format(
        path=[str(REPOSITORY), str(REPOSITORY / "tests"), str(Path(__file__).parent)]
    )
    done = subprocess.run(
        [unshare, "-rn", sys.executable, "-c", code], capture_output=True, text=True, timeout=120
    )
    assert done.stdout.endswith("done\n"), done.stderr


# ---------------------------------------------------------------------------------------- swarms


def visit(port: int, kind: int) -> None:
    """Connect and leave again, in one of several ways."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as sock:
        if kind % 4 == 1:
            sock.recv(100)
        elif kind % 4 == 2:
            stand_in.read(sock)
        elif kind % 4 == 3:
            sock.sendall(b"\0\0\0\1")
        if kind % 3 == 0:
            reset(sock)


def test_a_thousand_visits_leave_nothing_behind() -> None:
    with Run() as run:
        for kind in range(200):  # what is allocated once and kept
            visit(run.port, kind)
        wait_until(lambda: not run.server.connected, "the last one to be gone")
        gc.collect()
        before = (threading.active_count(), sockets(), resident())
        for kind in range(1000):
            visit(run.port, kind)
        wait_until(lambda: not run.server.connected, "the last one to be gone")
        time.sleep(0.2)
        gc.collect()
        after = (threading.active_count(), sockets(), resident())
    assert after[:2] == before[:2]
    assert after[2] - before[2] < 4 << 20
    assert_undisturbed(run)
    assert run.server.counters.longest_send_seconds < 0.5


def test_a_run_leaves_no_thread_and_no_socket() -> None:
    gc.collect()
    before = (threading.active_count(), sockets())
    for _ in range(5):
        with Run() as run, run.connect() as client:
            collect(client, at_least(1))
    gc.collect()
    assert (threading.active_count(), sockets()) == before


def test_an_error_in_the_thread_of_the_stream_does_not_end_the_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with Run() as run, run.connect() as client:
        collect(client, at_least(1))

        def fail(packet: dict) -> bytes:
            raise RuntimeError("a bug")

        monkeypatch.setattr(io_thread, "encode_packet", fail)
        wait_until(lambda: any("a bug" in line for line in run.lines), "the line that tells")
        steps = run.nstep
        wait_until(lambda: run.nstep > steps + 10, "more steps")
        assert not run.server.due()
    assert_undisturbed(run)
