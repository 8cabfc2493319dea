"""A script of somebody's own streams and records, and a client of somebody's own reads it."""

import os
import pickle
import socket
import struct
import subprocess
import sys
from pathlib import Path

import mujoco
import numpy as np
from watching import free_port, wait_until

from mjsim.model.files import REPOSITORY
from mjsim.record import Recording

SCRIPT = REPOSITORY / "tests" / "own_loop.py"


def connect(process: subprocess.Popen, port: int) -> socket.socket:
    found: list[socket.socket] = []

    def connected() -> bool:
        assert process.poll() is None, process.stderr.read()
        try:
            found.append(socket.create_connection(("127.0.0.1", port), timeout=30))
        except ConnectionError:
            return False
        return True

    wait_until(connected, "the script listens")
    return found[0]


def read_packets(sock: socket.socket) -> list[dict]:
    """All packets up to `close`, by what the protocol says of them and nothing of ours."""
    packets = []
    with sock, sock.makefile("rb") as stream:
        while not packets or packets[-1]["kind"] != "close":
            (size,) = struct.unpack("!I", stream.read(4))
            packets.append(pickle.loads(stream.read(size)))
    return packets


def test_a_script_of_thirty_lines_streams_and_records(tmp_path: Path) -> None:
    assert len(SCRIPT.read_text().splitlines()) <= 32
    port = free_port()
    with subprocess.Popen(
        [sys.executable, str(SCRIPT), str(port), "run.mcap"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        packets = read_packets(connect(process, port))
        _, said = process.communicate(timeout=60)
    assert process.returncode == 0, said
    kinds = [packet["kind"] for packet in packets]
    assert (kinds[0], set(kinds[1:-1]), kinds[-1]) == ("xml", {"state"}, "close")
    mjm = mujoco.MjModel.from_xml_string(packets[0]["xml"])
    mjd = mujoco.MjData(mjm)
    for _ in range(500):
        mujoco.mj_step(mjm, mjd)
    np.testing.assert_allclose(packets[-2]["state"]["qpos"], mjd.qpos, atol=1e-6)
    with Recording(tmp_path / "run.mcap") as run:
        assert (run.complete, run.problem) == (True, None)
        assert [recorded.step for recorded in run.states()] == list(range(0, 500, 10))
        assert run.model().nq == mjm.nq
