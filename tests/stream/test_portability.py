"""Where a system lacks a call that Linux has, streams work without it."""

import os
import socket
import subprocess
import sys

import pytest
from streamed_run import Run, at_least, collect, states_behind_a_stall
from watching import free_port

from mjsim.model.files import REPOSITORY
from mjsim.stream import sockets

# As on macOS, and then some: no names beyond it, no fcntl, no affinity, no libc through ctypes.
ELSEWHERE = """
import ctypes, os, socket, sys
sys.modules["fcntl"] = sys.modules["termios"] = None
for module, names in ((os, ["sched_getaffinity", "sched_setaffinity"]),
                      (socket, ["TCP_NOTSENT_LOWAT", "TCP_KEEPIDLE", "SO_REUSEPORT"])):
    for name in names:
        if hasattr(module, name):
            delattr(module, name)
def no_library(*arguments):
    raise OSError("no such library")
ctypes.PyDLL = no_library

import mujoco
from mjsim.cores import usable_cores
from mjsim.record import Recorder, Recording
from mjsim.stream import StreamClient, StreamServer

assert usable_cores() == os.cpu_count()
port = int(sys.argv[1])
xml = '<mujoco><worldbody><body><freejoint/><geom size="1"/></body></worldbody></mujoco>'
mjd = mujoco.MjData(mujoco.MjModel.from_xml_string(xml))
with StreamServer(xml, port=port, wait=0, hz=0, report=print) as server:
    with StreamClient.connect("127.0.0.1", port) as client:
        packets = []
        while len(packets) < 5:
            server.send_state(mjd)
            packets += client.drain(0.1)
print("kinds:", *dict.fromkeys(packet["kind"] for packet in packets))
"""


def test_the_rooms_import_and_work_where_linux_names_are_missing() -> None:
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, str(free_port())],
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "kinds: xml state" in done.stdout


def test_a_viewer_that_stalls_gets_new_states_without_the_limit_of_linux(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A small send buffer stands in: 4,000 states are made meanwhile."""
    monkeypatch.delattr(socket, "TCP_NOTSENT_LOWAT", raising=False)
    with Run(hz=0) as run:
        behind = states_behind_a_stall(run)
    assert behind < 200


def test_a_system_that_does_not_tell_what_is_unread_still_serves_viewers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sockets, "fcntl", None)
    with Run() as run, run.connect() as client:
        assert collect(client, at_least(3))[0]["kind"] == "xml"
