"""test_headless.py as its user streams from it."""

import dataclasses
import json
import signal
import socket

import mujoco
import pytest
from streamed_run import (
    PATIENCE,
    SWING,
    closed,
    collect,
    connect_to,
    headless,
    states,
)
from watching import free_port

from mjsim import stream as streaming


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
