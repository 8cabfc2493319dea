"""A run that streams itself, and what tests of streams read and wait for."""

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import mujoco
import stand_in
import watching
from scenes import OWN_FOLDER
from watching import free_port

from mjsim.model.files import REPOSITORY
from mjsim.stream import StreamClient, StreamServer

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


def states_behind_a_stall(run: Run) -> int:
    """How many old states a viewer gets that has read nothing for 4 s, before it gets a new one."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(("127.0.0.1", run.port))
        assert stand_in.read(sock)["kind"] == "xml"
        time.sleep(4.0)
        stalled_at = run.nstep
        behind = 0
        while stand_in.read(sock)["step"] < stalled_at:
            behind += 1
        assert run.server.counters.frames_skipped > 0
    return behind
