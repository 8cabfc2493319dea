"""The packets of the stream, as pure functions over bytes: no sockets and no threads.

A packet is a 4-byte big-endian length and then that many bytes of pickle, holding a dict with a
`kind`. What comes over a wire may come from anybody, so `decode_payload` never calls `pickle`: see
`unpickle.py`.
"""

import pickle
import struct
from typing import Any

from mjsim.errors import ProtocolError
from mjsim.stream.unpickle import plain_copy, unpickle
from mjsim.text import shown

HEADER = struct.Struct("!I")
DEFAULT_LIMIT = 256 << 20  # bytes of the largest packet that is taken

Packet = dict[str, Any]


def encode_packet(packet: Packet) -> bytes:
    """The bytes of a packet, header and all.

    Raises:
      ProtocolError: it holds something that no receiver would take, or is too large for a header.
    """
    payload = pickle.dumps(plain_copy(packet), protocol=5)
    if len(payload) >= 1 << 32:
        raise ProtocolError(f"a packet of {len(payload)} bytes is too large: below 4 GiB")
    return HEADER.pack(len(payload)) + payload


def decode_payload(payload: bytes | bytearray | memoryview) -> Packet:
    """The packet that a payload (without its header) holds, of plain values and arrays only.

    Takes pickle protocols 2 to 5 and the arrays of NumPy 1 and 2.

    Raises:
      ProtocolError: it is no such pickle, or not of a dict with a `kind`.
    """
    with memoryview(payload) as view:
        packet = unpickle(view)
    if type(packet) is not dict or type(packet.get("kind")) is not str:
        raise ProtocolError(f"refused a packet that is no dict with a kind: {shown(packet)}")
    return packet


def payload_size(header: bytes | bytearray | memoryview, limit: int = DEFAULT_LIMIT) -> int:
    """The length that a 4-byte header declares.

    Raises:
      ProtocolError: it is beyond `limit`, in bytes.
    """
    (size,) = HEADER.unpack(header)
    if size > limit:
        raise ProtocolError(f"refused a packet of {size} bytes: at most {limit} are taken")
    return size


class PacketReader:
    """Cuts a stream of bytes into payloads, however it arrives."""

    def __init__(self, limit: int = DEFAULT_LIMIT):
        self._limit = limit
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """Take what arrived; the payloads that are now whole, oldest first.

        Raises:
          ProtocolError: a header declares more than the limit. Nothing more can be read then.
        """
        self._buffer += data
        payloads, at = [], 0
        try:
            while len(self._buffer) - at >= HEADER.size:
                start = at + HEADER.size
                size = payload_size(self._buffer[at:start], self._limit)
                if len(self._buffer) - start < size:
                    break
                with memoryview(self._buffer) as view:
                    payloads.append(bytes(view[start : start + size]))
                at = start + size
        finally:
            del self._buffer[:at]
        return payloads

    def end(self) -> None:
        """Take the end of the stream.

        Raises:
          ConnectionError: it came within a packet.
        """
        if self._buffer:
            raise ConnectionError(
                f"the stream was cut short, {len(self._buffer)} bytes into a packet"
            )
