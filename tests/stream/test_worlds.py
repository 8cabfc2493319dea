"""Viewers choose the world that is shown, if they may watch at all."""

import hashlib
import hmac
import socket

import numpy as np
import pytest
import stand_in
from scenes import OWN_FOLDER
from streamed_run import Run, at_least, closed, collect, connect_to, headless, states, wait_until
from watching import free_port

from mjsim import stream as streaming


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
