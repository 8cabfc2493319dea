"""More than 100,000 malformed packets: each is refused, in bounded time and memory."""

import contextlib
import pickle
import pickletools
import random
import resource
import struct
import time

import hypothesis
import mujoco
import numpy as np
import pytest
from hypothesis import strategies as st
from test_packets import EVERYTHING, HOSTILE, SCENE, as_numpy_1, data, state_packet

from mjsim.errors import ProtocolError
from mjsim.state import apply_mjdata
from mjsim.stream import unpickle
from mjsim.stream.packets import PacketReader, decode_payload, encode_packet

SHARDS = 8
PER_SHARD = 13_000  # refused packets; together more than 100,000
SECONDS_PER_PACKET = 2.0  # a decoder that hangs takes longer, a busy machine does not
GROWTH = 300 << 20  # bytes that the process may grow by in a shard

PACKETS = (state_packet(), {"kind": "xml", "xml": SCENE, "assets": {"a": bytes(40)}}, EVERYTHING)
REAL = [pickle.dumps(packet, version) for packet in PACKETS for version in (2, 3, 4, 5)]
REAL += [as_numpy_1(raw) for raw in REAL]
OPCODES = [opcode.code.encode("latin1") for opcode in pickletools.opcodes]
FRAGMENTS = [
    *OPCODES,
    *(raw for raw, _ in HOSTILE.values() if 0 < len(raw) < 200),
    b"cos\nsystem\n",
    b"cbuiltins\neval\n",
    b"cnumpy._core.multiarray\n_reconstruct\n",
    b"cnumpy\ndtype\n",
    b"cnumpy\nndarray\n",
    b"(\x8c\x04exec\x85R",
    b"]" * 100,
    b"(" * 100,
    b"]\x94h\x00a",
]
EXTREMES = [
    *(struct.pack(f, v) for f in ("<I", "<i", ">I") for v in (0, 1, 255, 2**31 - 1)),
    *(struct.pack(f, v) for f in ("<Q", "<q") for v in (0, 2**31, 2**40, 2**63 - 1)),
    struct.pack("<q", -1),
    b"\xff\xff\xff\xff",
]


def check_plain(value: object, depth: int = 0) -> None:
    """Only what the protocol allows may come out, whatever went in."""
    assert depth <= unpickle.MAX_DEPTH + 1
    if type(value) is dict:
        assert all(type(key) is str for key in value)
        value = list(value.values())
    if type(value) in (list, tuple):
        for item in value:
            check_plain(item, depth + 1)
    elif isinstance(value, np.ndarray):
        assert type(value) is np.ndarray
        assert value.dtype.kind in "biufc"
    else:
        assert value is None or type(value) in (str, bytes, bool, int, float)


def mutate(raw: bytes, rng: random.Random) -> bytes:
    """One mutation of a packet, like those that find bugs in decoders."""
    at, end = sorted((rng.randrange(len(raw) + 1), rng.randrange(len(raw) + 1)))
    kind = rng.randrange(9)
    if kind == 0:
        return raw[:at]
    if kind == 1:
        return raw[:at] + bytes([rng.randrange(256)]) + raw[at + 1 :]
    if kind == 2:
        return raw[:at] + raw[end:]
    if kind == 3:
        return raw[:end] + raw[at:end][:500] + raw[end:]
    if kind == 4:
        return raw[:at] + rng.choice(FRAGMENTS) + raw[at:]
    if kind == 5:
        extreme = rng.choice(EXTREMES)
        return raw[:at] + extreme + raw[at + len(extreme) :]
    if kind == 6:
        other = rng.choice(REAL)
        return raw[:at] + other[rng.randrange(len(other)) :]
    if kind == 7:
        return raw[:at] + rng.choice(OPCODES) + raw[at + 1 :]
    flipped = bytearray(raw)
    for _ in range(rng.randrange(1, 8)):
        if flipped:
            flipped[rng.randrange(len(flipped))] ^= 1 << rng.randrange(8)
    return bytes(flipped)


def malformed(rng: random.Random) -> bytes:
    """A payload that no server meant to send: mutated, or nothing but opcodes."""
    if rng.random() < 0.15:
        parts = rng.choices(FRAGMENTS + EXTREMES, k=rng.randrange(1, 60))
        return b"\x80" + bytes([rng.randrange(7)]) + b"".join(parts)
    raw = rng.choice(REAL)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 8))):
        raw = mutate(raw, rng)
    return raw


def take(raw: bytes, mjd: mujoco.MjData) -> bool:
    """Do with a payload what a viewer does; whether it was refused."""
    try:
        packet = decode_payload(raw)
        check_plain(packet)
        if packet["kind"] == "state":
            apply_mjdata(mjd, packet.get("state"))
    except ProtocolError as error:
        if len(str(error)) > 400 or "\n" in str(error):
            pytest.fail(f"no message to show: {error}")
        return True
    return False


@pytest.mark.parametrize("seed", range(SHARDS))
def test_malformed_packets_are_refused(seed: int) -> None:
    rng, mjd = random.Random(seed), data()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused, slowest = 0, 0.0
    while refused < PER_SHARD:
        raw = malformed(rng)
        start = time.thread_time()
        refused += take(raw, mjd)
        slowest = max(slowest, time.thread_time() - start)
    assert slowest < SECONDS_PER_PACKET
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown * 1024 < GROWTH


def test_malformed_streams_end_in_an_error() -> None:
    """The same, with the framing damaged too, in pieces of any size."""
    rng, stream = random.Random(1), b"".join(encode_packet(packet) for packet in PACKETS)
    refused = 0
    for _ in range(3000):
        raw, reader, size = mutate(stream, rng), PacketReader(limit=1 << 20), rng.randrange(1, 4000)
        try:
            for at in range(0, len(raw), size):
                for payload in reader.feed(raw[at : at + size]):
                    check_plain(decode_payload(payload))
            reader.end()
        except (ProtocolError, ConnectionError):
            refused += 1
    assert refused > 1000


ATOMS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**126), 2**126),
    st.floats(allow_nan=False),
    st.text(st.characters(exclude_categories=["Cs"])),
    st.binary(),
)
VALUES = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=4),
    ),
    max_leaves=12,
)


@hypothesis.settings(deadline=None, max_examples=300)
@hypothesis.given(VALUES, st.integers(2, 5))
def test_any_plain_value_survives_the_way(value: object, version: int) -> None:
    packet = {"kind": "x", "value": value}
    try:
        raw = encode_packet(packet)[4:]
    except ProtocolError as error:
        hypothesis.assume("nested deeper" not in str(error))
        raise
    assert decode_payload(raw) == packet
    assert decode_payload(pickle.dumps(packet, version)) == packet


@hypothesis.settings(deadline=None, max_examples=2000)
@hypothesis.given(st.binary(max_size=300))
def test_any_bytes_are_refused_or_plain(raw: bytes) -> None:
    with contextlib.suppress(ProtocolError):
        check_plain(decode_payload(raw))


PIECE = st.one_of(
    st.sampled_from(FRAGMENTS),
    st.sampled_from(EXTREMES),
    st.binary(max_size=3),
    ATOMS.map(lambda atom: pickle.dumps(atom, 2)[2:-1]),
)


@hypothesis.settings(deadline=None, max_examples=2000)
@hypothesis.given(st.lists(PIECE, max_size=40))
def test_any_opcodes_are_refused_or_plain(pieces: list[bytes]) -> None:
    with contextlib.suppress(ProtocolError):
        check_plain(decode_payload(b"\x80\x04" + b"".join(pieces) + b"."))
