"""Who does not know the token gets nothing of the model, and cannot keep others out."""

import hashlib
import hmac
import socket
import struct

import pytest
import stand_in
from streamed_run import Run, at_least, collect, raw_conversation, wait_until

from mjsim import stream as streaming
from mjsim.stream import io_thread


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
