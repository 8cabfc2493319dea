"""Packets as bytes: what goes in comes out, and what must not come in does not."""

import pickle
import struct
import tracemalloc

import mujoco
import numpy as np
import pytest
from scenes import OWN, OWN_FOLDER

from mjsim import state
from mjsim.errors import ProtocolError
from mjsim.state import apply_mjdata, pack_mjdata
from mjsim.stream.bundle import load_model, model_packet
from mjsim.stream.packets import PacketReader, decode_payload, encode_packet

REQUIRED = [field for field in state.SHARED_FIELDS if field not in state.OPTIONAL_FIELDS]
SCENE = """
<mujoco><worldbody>
  <body mocap="true"/>
  <body><freejoint/><geom size=".1"/></body>
</worldbody></mujoco>
"""


def data(xml: str = SCENE) -> mujoco.MjData:
    return mujoco.MjData(mujoco.MjModel.from_xml_string(xml))


def state_packet() -> dict:
    mjd = data()
    mjd.qpos[:] = np.arange(7) + 0.5
    mjd.time = 3.25
    return {"kind": "state", "state": pack_mjdata(mjd), "step": 7, "run": "abc"}


def payload(packet: object) -> bytes:
    return encode_packet(packet)[4:]


def assert_same(left: object, right: object) -> None:
    assert type(left) is type(right)
    if isinstance(left, dict):
        assert list(left) == list(right)
        for key in left:
            assert_same(left[key], right[key])
    elif isinstance(left, (list, tuple)):
        assert len(left) == len(right)
        for one, other in zip(left, right, strict=True):
            assert_same(one, other)
    elif isinstance(left, np.ndarray):
        assert left.dtype == right.dtype
        np.testing.assert_array_equal(left, right, strict=True)
    else:
        assert left == right


EVERYTHING = {
    "kind": "all",
    "numbers": [0, 1, -1, 255, 256, 65536, -(2**31), 2**40, 2**100, 0.5, float("inf")],
    "text": ["", "x", "ä" * 300, "\n"],
    "bytes": [b"", b"\x00\xff", bytes(300)],
    "others": (
        None,
        True,
        False,
        (),
        (1,),
        (1, 2),
        (1, 2, 3),
        (1, 2, 3, 4),
        [],
        {},
        {"a": {"b": 1}},
    ),
    "arrays": [
        (np.arange(6) % 2).astype(kind).reshape(2, 3)
        for kind in ("?", "i1", "i8", "u2", "f2", "f4", "f8", "c8", "c16")
    ],
    "shapes": [
        np.zeros(()),
        np.zeros(0),
        np.zeros((0, 6)),
        np.ones((2, 0, 3)),
        np.zeros((1,) * 20),
    ],
    "order": np.arange(6.0).reshape(2, 3).T,
    "strided": np.arange(10.0)[::3],
    "endian": np.arange(3.0),
}


def test_a_packet_survives_the_way() -> None:
    packet = EVERYTHING
    assert_same(decode_payload(payload(packet)), packet)


@pytest.mark.parametrize("numpy_version", [1, 2])
@pytest.mark.parametrize("version", [2, 3, 4, 5])
def test_packets_of_other_picklers_decode(version: int, numpy_version: int) -> None:
    packet = EVERYTHING | {"endian": np.arange(3.0, dtype=">f8")}
    raw = pickle.dumps(packet, version)
    if numpy_version == 1:
        raw = as_numpy_1(raw)
    assert_same(decode_payload(raw), EVERYTHING)


def as_numpy_1(raw: bytes) -> bytes:
    """The same pickle with the names of NumPy 1, which are one byte shorter."""
    for module in (b"numpy._core.multiarray", b"numpy._core.numeric"):
        old = module.replace(b"_core", b"core")
        short, long = (b"\x8c" + bytes([len(name)]) + name for name in (old, module))
        raw = raw.replace(long, short).replace(b"c" + module + b"\n", b"c" + old + b"\n")
    if raw[2:3] == b"\x95":  # the first frame is shorter now; the pickler of C makes just one
        start = 11
        (declared,) = struct.unpack_from("<Q", raw, 3)
        shorter = min(declared, len(raw) - start)
        raw = raw[:3] + struct.pack("<Q", shorter) + raw[start:]
    return raw


def test_arrays_are_writable_and_of_this_machine() -> None:
    came = decode_payload(pickle.dumps({"kind": "x", "a": np.arange(3.0, dtype=">f8")}))["a"]
    assert came.flags.writeable
    assert came.dtype == np.float64


def test_what_we_send_is_the_documented_form() -> None:
    packet = state_packet()
    raw = encode_packet(packet)
    assert struct.unpack("!I", raw[:4]) == (len(raw) - 4,)
    assert raw[4:6] == b"\x80\x05"
    assert_same(pickle.loads(raw[4:]), packet)
    assert {"time", "qpos", "qvel", "act", "ctrl", "xfrc_applied"} <= set(packet["state"])
    assert type(packet["state"]["time"]) is float


class Evil:
    def __reduce__(self) -> tuple:
        return (exec, ("raise SystemExit('code from the wire was run')",))


def dag(depth: int, width: int = 2) -> tuple:
    tangle: tuple = ()
    for _ in range(depth):
        tangle = (tangle,) * width
    return tangle


def nested(depth: int) -> list:
    deep: list = []
    for _ in range(depth):
        deep = [deep]
    return deep


def loop() -> list:
    endless: list = []
    endless.append(endless)
    return endless


def proto(*parts: bytes) -> bytes:
    return b"\x80\x05" + b"".join(parts) + b"."


def array_bomb(shape: int = 100_000_000) -> bytes:
    """89 bytes that make NumPy's own `_reconstruct` allocate 800 MB."""
    size = struct.pack("<i", shape)
    return proto(
        b"cnumpy._core.multiarray\n_reconstruct\n",
        b"cnumpy\nndarray\nJ" + size + b"\x85C\x01d\x87R",
    )


HOSTILE = {
    "code": (pickle.dumps(Evil()), "builtins' 'exec"),
    "code by its old name": (pickle.dumps(Evil(), 2), "__builtin__' 'exec"),
    "import": (b"cos\nsystem\n(S'true'\ntR.", "'os' 'system'"),
    "a name under an allowed module": (proto(b"cnumpy\nload\n"), "'numpy' 'load'"),
    "a dotted name": (proto(b"\x8c\x05numpy\x8c\x0dndarray.dumps\x93"), "ndarray.dumps"),
    "a name that is no text": (proto(b"K\x01K\x02\x93"), "refused the name 1 2"),
    "instance": (b"(ios\nsystem\n.", "INST"),
    "new object": (proto(b"cnumpy\nndarray\n)\x81"), "NEWOBJ"),
    "extension": (proto(b"\x82\x01"), "EXT1"),
    "persistent id": (b"Pfile\n.", "PERSID"),
    "out-of-band buffer": (proto(b"\x97"), "NEXT_BUFFER"),
    "set": (pickle.dumps({"kind": {1, 2}}), "EMPTY_SET"),
    "unknown opcode": (proto(b"\xff"), "0xff"),
    "call of a class": (proto(b"cnumpy\nndarray\n)R"), "call of numpy.ndarray"),
    "call of text": (proto(b"\x8c\x01x)R"), "call of a str"),
    "state of a name": (proto(b"cnumpy\ndtype\n}b"), "set the state of numpy.dtype"),
    "state of a dict": (proto(b"}}b"), "set the state of a dict"),
    "array bomb": (array_bomb(), "_Array|Array"),
    "memo bomb": (proto(b"]r\xff\xff\xff\xff"), "memo index 4294967295"),
    "memo from nowhere": (proto(b"h\x05"), "memo index 5"),
    "length bomb": (proto(b"\x8e" + struct.pack("<Q", 1 << 45)), "35184372088832 bytes"),
    "text length bomb": (proto(b"\x8d" + struct.pack("<Q", 1 << 63)), "declares"),
    "bytearray length bomb": (proto(b"\x96" + struct.pack("<Q", 1 << 40)), "declares"),
    "frame bomb": (proto(b"\x95" + struct.pack("<Q", 1 << 62)), "frame"),
    "big int": (pickle.dumps({"kind": 1 << 5000}), "LONG4|int of"),
    "int in text": (b"I" + b"9" * 100000 + b"\n.", "INT"),
    "nesting": (proto(b"]" * 5000 + b"a" * 4999), "nested deeper"),
    "marks": (proto(b"(" * 5000), "empty stack"),
    "opcodes": (b"\x80\x05" + b"N0" * 150_000, "opcodes"),
    "tangle": (pickle.dumps({"kind": dag(4, 100)}), "values"),
    "deep tangle": (pickle.dumps({"kind": dag(60)}), "nested deeper"),
    "loop": (pickle.dumps({"kind": loop()}), "nested deeper"),
    "tangle as a shape": (
        proto(b"}" + pickle.dumps(dag(30))[2:-1] + b"K\x01s"),
        "key of type tuple",
    ),
    "tuple as a key": (pickle.dumps({"kind": {(1,): 2}}), "key of type tuple"),
    "key without a value": (proto(b"}(\x8c\x01au"), "no value"),
    "wrong container": (proto(b"}K\x01a"), "fills a list"),
    "empty": (b"", "does not end"),
    "no dict": (pickle.dumps([1]), "no dict with a kind"),
    "no kind": (pickle.dumps({"a": 1}), "no dict with a kind"),
    "kind of no text": (pickle.dumps({"kind": 3}), "no dict with a kind"),
    "objects": (pickle.dumps({"kind": np.array([None, 1])}), "dtype 'O8'"),
    "structure": (pickle.dumps({"kind": np.zeros(2, "i4,f4")}), "dtype"),
    "text array": (pickle.dumps({"kind": np.array(["a"])}), "dtype 'U1'"),
    "dates": (pickle.dumps({"kind": np.zeros(1, "M8[s]")}), "dtype 'M8'"),
    "bytearray": (pickle.dumps({"kind": "x", "b": bytearray(3)}, 5), "Buffer"),
    "something after the end": (pickle.dumps({"kind": "x"}) + b"N.", "left over"),
    "protocol 0": (pickle.dumps({"kind": "x"}, 0), "MARK|DICT|STRING|UNICODE|PUT"),
    "protocol 6": (b"\x80\x06N.", "protocol 6"),
    "not UTF-8": (proto(b"\x8c\x01\xff"), "UTF-8"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_pickles_are_refused_by_name(name: str) -> None:
    raw, expected = HOSTILE[name]
    tracemalloc.start()
    try:
        with pytest.raises(ProtocolError, match=expected) as caught:
            decode_payload(raw)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(str(caught.value)) < 300
    assert peak < 20e6 + 20 * len(raw)


def frombuffer(
    buffer: bytes, shape: bytes, dtype: bytes = b"f8", order: bytes = b"C", byteorder: bytes = b"<"
) -> bytes:
    """An array as protocol 5 pickles it, with a shape given as opcodes."""

    def text(value: bytes) -> bytes:
        return b"\x8c" + bytes([len(value)]) + value

    made = b"cnumpy\ndtype\n" + text(dtype) + b"\x89\x88\x87R"
    made += b"(K\x03" + text(byteorder) + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    head = b"}\x8c\x04kind" + b"cnumpy._core.numeric\n_frombuffer\n("
    return proto(
        head, b"\x96" + struct.pack("<Q", len(buffer)) + buffer, made, shape, text(order), b"tRs"
    )


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"buffer": bytes(8), "shape": b"J\xff\xff\xff\x7f\x85"}, "takes 17179869176"),
        ({"buffer": bytes(8), "shape": b"J\xff\xff\xff\xff\x85"}, "shape"),
        ({"buffer": bytes(8), "shape": b"\x88\x85"}, "shape"),
        ({"buffer": bytes(8), "shape": b"K\x01"}, "shape"),
        ({"buffer": b"", "shape": b"K\x00J\xff\xff\xff\x7f\x86"}, "kind"),
        ({"buffer": b"", "shape": b"(" + b"K\x00" * 40 + b"t"}, "shape"),
        ({"buffer": b"", "shape": b"(K\x00" + b"J\xff\xff\xff\x7f" * 20 + b"t"}, "shape|big|kind"),
        ({"buffer": bytes(8), "shape": b"K\x01\x85", "order": b"K"}, "order"),
        ({"buffer": bytes(8), "shape": b"K\x01\x85", "dtype": b"O8"}, "dtype"),
        ({"buffer": bytes(8), "shape": b"K\x01\x85", "dtype": b"f9"}, "NumPy knows none"),
        ({"buffer": bytes(8), "shape": b"K\x01\x85", "dtype": b"f"}, "dtype"),
        ({"buffer": bytes(8), "shape": b"K\x01\x85", "byteorder": b"?"}, "state"),
        ({"buffer": b"\x02", "shape": b"K\x01\x85", "dtype": b"b1"}, "neither 0 nor 1"),
    ],
)
def test_an_array_must_fit_its_buffer(arguments: dict, expected: str) -> None:
    with pytest.raises(ProtocolError, match=expected):
        decode_payload(frombuffer(**arguments))


def test_the_crafted_array_is_good_but_for_what_is_wrong() -> None:
    raw = frombuffer(bytes(8), b"K\x01\x85").replace(
        b"\x8c\x04kind", b"\x8c\x04kind\x8c\x01xs\x8c\x01a"
    )
    assert_same(decode_payload(raw), {"kind": "x", "a": np.zeros(1)})


def test_no_packet_is_sent_that_would_be_refused() -> None:
    for bad in (object(), {1, 2}, 1j, np.array([None]), 1 << 200, loop(), {1: 2}, bytearray(1)):
        with pytest.raises(ProtocolError):
            encode_packet({"kind": "x", "bad": bad})


# -------------------------------------------------------------------------------------- framing


def test_packets_are_found_however_they_are_cut() -> None:
    packets = [{"kind": str(i), "bytes": bytes(i)} for i in (0, 1, 300, 2)]
    stream = b"".join(map(encode_packet, packets))
    for size in (1, 2, 3, 7, 100, len(stream)):
        reader = PacketReader()
        came = []
        for at in range(0, len(stream), size):
            came += map(decode_payload, reader.feed(stream[at : at + size]))
        reader.end()
        assert came == packets


def test_a_length_over_the_limit_is_refused_before_it_is_read() -> None:
    reader = PacketReader(limit=1000)
    assert reader.feed(struct.pack("!I", 1000)) == []
    reader = PacketReader(limit=1000)
    with pytest.raises(ProtocolError, match="1001 bytes: at most 1000"):
        reader.feed(struct.pack("!I", 1001))
    with pytest.raises(ProtocolError, match=f"at most {256 << 20}"):
        PacketReader().feed(b"\xff\xff\xff\xff")


def test_a_stream_cut_short_is_a_connection_error() -> None:
    raw = encode_packet({"kind": "x"})
    for cut in range(1, len(raw)):
        reader = PacketReader()
        assert reader.feed(raw[:cut]) == []
        with pytest.raises(ConnectionError, match=f"{cut} bytes into a packet"):
            reader.end()


# --------------------------------------------------------------------------------------- states


def test_a_state_survives_the_way() -> None:
    state = decode_payload(payload(state_packet()))["state"]
    mjd = data()
    apply_mjdata(mjd, state)
    assert mjd.time == 3.25
    assert mjd.qpos.tolist() == [0.5, 1.5, 2.5, 3.5, 4.5, 5.5, 6.5]
    assert mjd.mocap_pos.shape == (1, 3)


def test_packing_copies() -> None:
    mjd = data()
    state = pack_mjdata(mjd)
    mjd.qpos[:] = 9.0
    assert not (state["qpos"] == 9.0).any()


@pytest.mark.parametrize("field", state.SHARED_FIELDS)
@pytest.mark.parametrize(
    "wrong", [np.zeros(1), np.zeros((9, 9)), np.zeros(7, complex), [0.0] * 7, "text", 1.0]
)
def test_a_state_that_does_not_fit_says_so_and_changes_nothing(field: str, wrong: object) -> None:
    mjd = data()
    before = pack_mjdata(mjd)
    state = state_packet()["state"] | {field: wrong}
    shape = str(getattr(mjd, field).shape).replace("(", r"\(").replace(")", r"\)")
    with pytest.raises(ProtocolError, match=rf"^{field} came .*; the model wants .*{shape}"):
        apply_mjdata(mjd, state)
    assert_same(pack_mjdata(mjd), before)


@pytest.mark.parametrize("field", ["time", *REQUIRED])
def test_a_state_without_a_field_says_so(field: str) -> None:
    state = state_packet()["state"]
    del state[field]
    with pytest.raises(ProtocolError, match=f"^{field} came as"):
        apply_mjdata(data(), state)


def test_a_state_of_a_server_that_knows_no_mocap_is_fine() -> None:
    state = state_packet()["state"]
    del state["mocap_pos"], state["mocap_quat"]
    state["new"] = "ignored"
    apply_mjdata(data(), state)


@pytest.mark.parametrize("state", [None, 3, [], "state"])
def test_a_state_that_is_none_is_refused(state: object) -> None:
    with pytest.raises(ProtocolError, match="not as a dict"):
        apply_mjdata(data(), state)


def test_a_diverged_state_is_shown() -> None:
    state = state_packet()["state"]
    state["qpos"][0] = np.nan
    state["qvel"][0] = np.inf
    state["time"] = 10**35
    mjd = data()
    apply_mjdata(mjd, state)
    assert np.isnan(mjd.qpos[0])


# --------------------------------------------------------------------------------------- models


@pytest.mark.parametrize("name", OWN)
def test_every_model_arrives_whole(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    packet = decode_payload(payload(model_packet(str(OWN_FOLDER / name))))
    monkeypatch.chdir(tmp_path)
    here, there = mujoco.MjModel.from_xml_path(str(OWN_FOLDER / name)), load_model(packet)
    for size in ("nq", "nv", "nu", "na", "nbody", "ngeom", "nmocap", "nflex"):
        assert getattr(here, size) == getattr(there, size)
    mjd = mujoco.MjData(here)
    mujoco.mj_step(here, mjd)
    shown = mujoco.MjData(there)
    apply_mjdata(shown, pack_mjdata(mjd))
    mujoco.mj_forward(here, mjd)
    mujoco.mj_forward(there, shown)
    np.testing.assert_allclose(shown.geom_xpos, mjd.geom_xpos, atol=1e-4)


TETRAHEDRON = "v 0 0 0\nv {0} 0 0\nv 0 {0} 0\nv 0 0 {0}\nf 1 3 2\nf 1 2 4\nf 2 3 4\nf 3 1 4\n"


def test_a_model_with_files_arrives_with_them(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "robot" / "meshes").mkdir(parents=True)
    (tmp_path / "robot" / "meshes" / "part.obj").write_text(TETRAHEDRON.format(1))
    (tmp_path / "shapes").mkdir()
    (tmp_path / "shapes" / "part.obj").write_text(TETRAHEDRON.format(2))
    field = np.array([2, 2], np.int32).tobytes() + np.arange(4, dtype=np.float32).tobytes()
    (tmp_path / "shapes" / "ground.bin").write_bytes(field)
    (tmp_path / "robot" / "robot.xml").write_text(
        """<mujoco><compiler meshdir="meshes"/><asset><mesh name="part" file="part.obj"/></asset>
        <worldbody><body name="arm"><freejoint/><geom type="mesh" mesh="part"/></body></worldbody>
        </mujoco>"""
    )
    (tmp_path / "more.xml").write_text(
        """<mujoco><worldbody><body pos="0 0 5"><freejoint/><geom size=".1"/></body></worldbody>
        </mujoco>"""
    )
    scene = tmp_path / "scene.xml"
    scene.write_text(
        """<mujoco><compiler meshdir="shapes"/><include file="more.xml"/>
        <asset><model name="robot" file="robot/robot.xml"/><mesh file="part.obj"/>
        <hfield name="ground" file="ground.bin" size="1 1 1 .1"/></asset>
        <worldbody><geom type="hfield" hfield="ground"/>
        <body><freejoint/><geom type="mesh" mesh="part"/></body>
        <attach model="robot" body="arm" prefix="r_"/></worldbody></mujoco>"""
    )
    packet = decode_payload(payload(model_packet(str(scene))))
    assert len(packet["assets"]) == 3
    here = mujoco.MjModel.from_xml_path(str(scene))
    monkeypatch.chdir("/")
    for path in tmp_path.rglob("*.*"):
        path.unlink()
    there = load_model(packet)
    np.testing.assert_allclose(there.mesh_vert, here.mesh_vert, atol=1e-5)
    np.testing.assert_allclose(there.hfield_data, here.hfield_data)
    assert there.nq == here.nq == 21


def test_a_path_that_is_not_here_asks_for_the_model_itself() -> None:
    with pytest.raises(ProtocolError, match=r"no_such\.xml.*MJSTREAM_MODEL=xml"):
        load_model({"kind": "model_path", "path": "/no_such.xml"})


@pytest.mark.parametrize(
    "packet",
    [
        {"kind": "xml"},
        {"kind": "xml", "xml": 3},
        {"kind": "xml", "xml": "<mujoco"},
        {"kind": "xml", "xml": "<mujoco/>", "assets": [1]},
        {"kind": "xml", "xml": "<mujoco/>", "assets": {"a": "text"}},
        {"kind": "xml", "xml": "\0"},
        {"kind": "model_path"},
        {"kind": "model_path", "path": "a\0b"},
    ],
)
def test_a_model_that_cannot_be_loaded_is_an_error_of_the_protocol(packet: dict) -> None:
    with pytest.raises(ProtocolError):
        load_model(packet)


def test_a_model_without_xml_names_the_other_mode(tmp_path) -> None:
    binary = tmp_path / "scene.mjb"
    mjm = mujoco.MjModel.from_xml_string(SCENE)
    mujoco.mj_saveModel(mjm, str(binary), None)
    with pytest.raises(ValueError, match="MJSTREAM_MODEL=path"):
        model_packet(str(binary))
    packet = model_packet(str(binary), "path")
    assert load_model(packet).nq == mjm.nq
