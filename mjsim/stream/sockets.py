"""What server and client do with their sockets, and what stands in where a system lacks a call."""

import contextlib
import ctypes
import os
import socket
import sys
from collections.abc import Callable

try:
    import fcntl
    import termios
except ImportError:  # no Unix
    fcntl = termios = None  # type: ignore[assignment]

from mjsim.stream.packets import (
    DEFAULT_LIMIT,
    HEADER,
    Packet,
    decode_payload,
    encode_packet,
    payload_size,
)

UNSENT_BYTES = 16 << 10  # that may wait in the kernel before a newer state
SEND_BUFFER = 32 << 10  # bytes of the kernel's whole send buffer, where it takes no such limit


def send_packet(sock: socket.socket, packet: Packet) -> None:
    """Send one packet over a blocking socket."""
    sock.sendall(encode_packet(packet))


def recv_packet(sock: socket.socket, limit: int = DEFAULT_LIMIT) -> Packet:
    """Receive one packet over a blocking socket.

    Args:
      sock: the socket.
      limit: bytes of the largest packet to take.

    Raises:
      ConnectionError: the stream ended.
      ProtocolError: what came is no packet, or larger than `limit`; nothing of it is read then.
    """
    size = payload_size(_recv_exactly(sock, HEADER.size), limit)
    return decode_payload(_recv_exactly(sock, size))


def _recv_exactly(sock: socket.socket, size: int) -> bytearray:
    data = bytearray()
    while len(data) < size:  # grows as it arrives: a declared length reserves nothing
        part = sock.recv(min(size - len(data), 1 << 20))
        if not part:
            raise ConnectionError(f"the stream was cut short: {len(data)} of {size} bytes came")
        data += part
    return data


def tune(sock: socket.socket) -> None:
    """Send at once, and find out within half a minute that the other end is gone."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def hold_little(sock: socket.socket) -> None:
    """Let the kernel take no more of what we send than a moment's worth, else it keeps old states.

    Linux counts what is not sent yet, macOS knows that count but Python does not name it there. A
    small send buffer stands in for it, at the price of the speed of links with a long round trip.
    """
    if hasattr(socket, "TCP_NOTSENT_LOWAT"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)
    else:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)


def unacknowledged(sock: socket.socket) -> int:
    """Bytes that the other machine has not acknowledged; 0 where the system does not say."""
    if not hasattr(fcntl, "ioctl") or not hasattr(termios, "TIOCOUTQ"):
        return 0
    try:
        left = fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4))
    except OSError:  # a system that does not tell of sockets, or a connection that is gone
        return 0
    return int.from_bytes(left, sys.byteorder)


def digest(token: str, nonce: bytes) -> bytes:
    """The answer to a challenge: HMAC-SHA256 of the nonce with the token as its key, 32 bytes."""
    import hmac  # only where there is a token: it starts OpenSSL, a quarter of this room's import

    return hmac.new(token.encode(), nonce, "sha256").digest()


def is_answer(answer: object, token: str, nonce: bytes) -> bool:
    """Whether somebody who knows the token gave that answer, found out in constant time."""
    import hmac

    return isinstance(answer, bytes) and hmac.compare_digest(answer, digest(token, nonce))


def byte_writer() -> Callable[[int], object]:
    """What writes a byte to a file descriptor that does not block, without letting go of the GIL.

    With os.write, or socket.send, the thread that is woken takes the GIL at once, and the
    simulation waits in `send_state` until that thread has encoded and sent: 0.4 ms were seen.
    """
    try:
        write = ctypes.PyDLL(None).write
    except (OSError, AttributeError, TypeError):  # no libc to be had so

        def os_write(fd: int) -> None:
            with contextlib.suppress(OSError):
                os.write(fd, b"\0")

        return os_write
    write.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t)
    write.restype = ctypes.c_ssize_t
    return lambda fd: write(fd, b"\0", 1)  # when it is full of wake-ups, one more is no news
