"""The receiving end of a stream."""

import contextlib
import select
import socket
import time

from mjsim.errors import ProtocolError
from mjsim.stream.bundle import MODEL_KINDS
from mjsim.stream.packets import DEFAULT_LIMIT, Packet, PacketReader, decode_payload
from mjsim.stream.sockets import digest, send_packet, tune


class StreamClient:
    """A connection to a server, ours or any that speaks the protocol.

    Attributes:
      skipped: states that arrived but were left out by `drain` for a newer one.
      received: packets that arrived.
    """

    def __init__(self, sock: socket.socket, token: str | None = None, limit: int = DEFAULT_LIMIT):
        self._sock, self._token = sock, token
        self._reader = PacketReader(limit)
        self._ended = False
        self.skipped, self.received = 0, 0
        sock.setblocking(False)

    @classmethod
    def connect(
        cls,
        host: str,
        port: int,
        token: str | None = None,
        timeout: float = 5.0,
        limit: int = DEFAULT_LIMIT,
    ) -> "StreamClient":
        """Connect to a server; the token is used when the server asks for one.

        Raises:
          OSError: there is none, or no such host.
        """
        sock = socket.create_connection((host, port), timeout=timeout)
        try:
            tune(sock)
            return cls(sock, token, limit)
        except BaseException:
            sock.close()
            raise

    def __enter__(self) -> "StreamClient":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def fileno(self) -> int:
        """For `select`."""
        return self._sock.fileno()

    def close(self) -> None:
        """Let go of the connection."""
        self._sock.close()

    def select_world(self, world: int) -> None:
        """Ask the server for another world; one that does not know of worlds takes no notice."""
        self._say({"kind": "world", "world": world})

    def _say(self, packet: Packet) -> None:
        with contextlib.suppress(OSError):  # if it is gone, reading will tell
            send_packet(self._sock, packet)

    def drain(self, timeout: float = 0.0) -> list[Packet]:
        """What has arrived, in order: every model and close packet, and of states only the newest.

        Args:
          timeout: seconds to wait for something when nothing is there; then the list is empty.

        Raises:
          ConnectionError: the stream ended, after all that came before the end was returned.
          ProtocolError: what came is no packet of a stream, or the server wants a token.
        """
        if not self._ended:
            poller = select.poll()
            poller.register(self._sock, select.POLLIN)
            poller.poll(1000 * timeout)
        packets: list[Packet] = []
        deadline = time.monotonic() + 0.1  # a server that never pauses must not keep us here
        while not self._ended:
            try:
                data = self._sock.recv(1 << 18)
            except BlockingIOError:
                return packets
            except OSError as error:
                self._ended = True
                if not packets:
                    raise ConnectionError(f"the connection broke: {error.strerror}") from None
                return packets
            self._ended = not data
            for payload in self._reader.feed(data):
                self._take(decode_payload(payload), packets)
            if time.monotonic() > deadline:
                break
        if packets or not self._ended:
            return packets
        self._reader.end()
        raise ConnectionError("the server closed the connection")

    def _take(self, packet: Packet, packets: list[Packet]) -> None:
        self.received += 1
        if packet["kind"] == "challenge":
            self._answer(packet)
        elif packet["kind"] == "state" and packets and packets[-1]["kind"] == "state":
            packets[-1] = packet
            self.skipped += 1
        elif packet["kind"] in (*MODEL_KINDS, "state", "close"):
            packets.append(packet)
            if packet.get("asks") == "ready":
                self._say({"kind": "ready"})
        # Another kind is from a newer server: it meant us to ignore what we do not know.

    def _answer(self, challenge: Packet) -> None:
        if not self._token:
            raise ProtocolError(
                "the server asks for a token: set MJSTREAM_TOKEN as it is set there"
            )
        nonce = challenge.get("nonce")
        if not isinstance(nonce, bytes) or challenge.get("algorithm") != "hmac-sha256":
            raise ProtocolError("the server sent a challenge that is not hmac-sha256 over bytes")
        self._say({"kind": "response", "digest": digest(self._token, nonce)})
