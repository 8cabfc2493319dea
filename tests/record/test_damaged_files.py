"""Files that are cut, damaged or hostile: what is whole is read, and nothing else happens."""

import contextlib
import io
import resource
import struct
import zlib
from pathlib import Path

import hypothesis
import mcap.writer
import mujoco
import pytest
import zstandard
from hypothesis import strategies as st
from mcap.reader import make_reader
from recordings import (
    ABOUT,
    MODELS,
    SCENE,
    check_equal,
    record,
)

from mjsim.record import RecordedState, Recorder, Recording, RecordingError, format, mcap_walk
from mjsim.record import recorder as recorder_module
from mjsim.stream.bundle import model_packet


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, list[dict]]:
    """The bytes of a recording, and what was recorded."""
    path = tmp_path_factory.mktemp("finished") / "run.mcap"
    states = record(path, 40)
    return path.read_bytes(), states


def offered(path: Path, data: bytes) -> list[RecordedState]:
    """All that is offered of a file; its errors are one line each, and all RecordingErrors."""
    path.write_bytes(data)
    try:
        with Recording(path) as run:
            recorded = [*run.states(), *run.states(1.0)][: run.nstates + 1000]
            assert run.problem is None or "\n" not in run.problem
            assert isinstance(run.about, dict)
            with contextlib.suppress(RecordingError):
                run.model()
            return recorded
    except RecordingError as error:
        if "\n" in str(error) or len(str(error)) > 400:
            pytest.fail(f"no message to show: {error}")
        return []


def chunk_offsets(data: bytes) -> list[int]:
    summary = make_reader(io.BytesIO(data)).get_summary()
    return [index.chunk_start_offset for index in summary.chunk_indexes]


LENIENT = hypothesis.settings(
    deadline=None,
    max_examples=300,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)


@LENIENT
@hypothesis.given(share=st.floats(0.0, 1.0))
def test_a_cut_recording_offers_all_states_before_the_cut(
    share: float, finished: tuple[bytes, list[dict]], tmp_path: Path
) -> None:
    data, states = finished
    size = int(share * len(data))
    recorded = offered(tmp_path / "cut.mcap", data[:size])
    steps = list(dict.fromkeys(each.step for each in recorded))
    assert steps == list(range(len(steps)))
    for each in recorded:
        check_equal(each.state, states[each.step])
    # The chunks, of half a second each, come after the model and before the index.
    first = chunk_offsets(data)[0]
    assert len(steps) >= 40 * (size - first) / (len(data) - first) - 12


@LENIENT
@hypothesis.given(
    flips=st.lists(st.tuples(st.floats(0.0, 0.9999), st.integers(1, 255)), min_size=1, max_size=4)
)
def test_flipped_bytes_leave_states_out_but_never_change_one(
    flips: list[tuple[float, int]], finished: tuple[bytes, list[dict]], tmp_path: Path
) -> None:
    data, states = bytearray(finished[0]), finished[1]
    for share, bits in flips:
        data[int(share * len(data))] ^= bits
    for each in offered(tmp_path / "flipped.mcap", bytes(data)):
        check_equal(each.state, states[each.step])


def test_a_length_that_no_file_has_costs_its_chunk_alone(
    finished: tuple[bytes, list[dict]], tmp_path: Path
) -> None:
    data, states = bytearray(finished[0]), finished[1]
    compression = chunk_offsets(finished[0])[0] + 9 + 8 + 8 + 8 + 4
    (name_length,) = struct.unpack_from("<I", data, compression)
    struct.pack_into("<Q", data, compression + 4 + name_length, 2**64 - 1)
    recorded = offered(tmp_path / "length.mcap", bytes(data))
    assert 0 < len(recorded) < 2 * len(states)
    for each in recorded:
        check_equal(each.state, states[each.step])


@LENIENT
@hypothesis.given(
    pieces=st.lists(
        st.one_of(
            st.binary(max_size=60),
            st.builds(
                lambda opcode, length, rest: struct.pack("<BQ", opcode, length) + rest,
                st.integers(0, 20),
                st.one_of(st.integers(0, 100), st.integers(0, 2**64 - 1)),
                st.binary(max_size=100),
            ),
            st.tuples(st.floats(0, 1), st.floats(0, 1)),
        ),
        max_size=8,
    )
)
def test_nonsense_is_refused_or_read_but_breaks_nothing(
    pieces: list, finished: tuple[bytes, list[dict]], tmp_path: Path
) -> None:
    """Made of random bytes, of records with random lengths, and of parts of a real recording."""
    data = finished[0]
    nonsense = mcap_walk.MAGIC
    for piece in pieces:
        if isinstance(piece, tuple):
            start, end = sorted(int(share * len(data)) for share in piece)
            piece = data[start:end]
        nonsense += piece
    offered(tmp_path / "nonsense.mcap", nonsense)
    offered(tmp_path / "nonsense.mcap", nonsense + data[-200:])


def test_a_cut_recording_says_how_much_is_there(
    finished: tuple[bytes, list[dict]], tmp_path: Path
) -> None:
    path = tmp_path / "cut.mcap"
    data = finished[0]
    path.write_bytes(data[: chunk_offsets(data)[-1] + 50])
    with Recording(path) as run:
        assert not run.complete
        assert "it was cut short or is damaged (in the record at byte " in run.problem
        assert f"it has {run.nstates} states of {run.duration:.2f} s" in run.problem
        assert run.nstates == sum(1 for _ in run.states()) >= 30
        assert next(run.states(2.0)).step == 20  # seeks by an index made again


def test_a_damaged_chunk_is_left_out_and_told(
    finished: tuple[bytes, list[dict]], tmp_path: Path
) -> None:
    path, data = tmp_path / "damaged.mcap", bytearray(finished[0])
    data[chunk_offsets(finished[0])[2] + 80] ^= 1
    path.write_bytes(data)
    with Recording(path) as run:
        assert run.problem is None  # nobody has looked yet
        steps = [each.step for each in run.states()]
        assert "damaged, and left out, is 1.10 to 1.50 s" in run.problem
    assert steps == [*range(11), *range(16, 40)]


def test_a_damaged_index_costs_no_state(finished: tuple[bytes, list[dict]], tmp_path: Path) -> None:
    path, data = tmp_path / "damaged.mcap", bytearray(finished[0])
    data[-60] ^= 1
    path.write_bytes(data)
    with Recording(path) as run:
        assert sum(1 for _ in run.states()) == run.nstates == 40
        assert "its index at the end is missing or damaged; it has 40 states of" in run.problem


def test_another_format_version_is_told_and_still_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(recorder_module, "FORMAT", "2")
        record(tmp_path / "run.mcap", 10)
    with Recording(tmp_path / "run.mcap") as run:
        assert "it is of format version '2'" in run.problem
        assert sum(1 for _ in run.states()) == 10


def write_mcap(path: Path, metadata: str | None = format.METADATA, schema: str = "x.Y") -> None:
    """An MCAP file as others write them, with one message."""
    writer = mcap.writer.Writer(str(path))
    writer.start()
    if metadata:
        writer.add_metadata(metadata, {"format": "1"})
    channel = writer.register_channel("/x", "json", writer.register_schema(schema, "json", b"{}"))
    writer.add_message(channel, 0, b"{}", 0)
    writer.finish()


def test_what_is_no_recording_is_refused_in_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with pytest.raises(RecordingError, match="No such file or directory"):
        Recording(path)
    path.write_text("hello")
    with pytest.raises(RecordingError, match="is no MCAP file, so no recording"):
        Recording(path)
    write_mcap(path, metadata=None)
    with pytest.raises(RecordingError, match="is an MCAP file, but no recording of a simulation"):
        Recording(path)
    write_mcap(path, schema="foxglove.Grid")
    with pytest.raises(RecordingError, match=r"has no states 'mjsim.State', but 'foxglove.Grid'"):
        Recording(path)
    with pytest.raises(RecordingError, match="Is a directory"):
        Recording(tmp_path)


def test_a_recording_without_a_model_says_so(tmp_path: Path) -> None:
    write_mcap(tmp_path / "run.mcap", schema=format.SCHEMA)
    with Recording(tmp_path / "run.mcap") as run:
        with pytest.raises(RecordingError, match=r"run\.mcap has no model"):
            run.model()
        assert list(run.states()) == []
        assert "cannot be decoded" in run.problem


def chunk_record(declared: int, data: bytes, compression: str = "zstd") -> bytes:
    name = compression.encode()
    body = struct.pack("<QQQI", 0, 10**9, declared, 0) + struct.pack("<I", len(name)) + name
    body += struct.pack("<Q", len(data)) + data
    return struct.pack("<BQ", 6, len(body)) + body


@pytest.mark.parametrize("honest", [True, False])
def test_a_chunk_that_would_fill_the_memory_is_not_decompressed(
    honest: bool, finished: tuple[bytes, list[dict]], tmp_path: Path
) -> None:
    """A gigabyte of zeros in 32 kB, which says so, or says that it is a megabyte."""
    compressor = zstandard.ZstdCompressor().compressobj(size=1 << 30)
    bomb = b"".join(compressor.compress(bytes(1 << 24)) for _ in range(64)) + compressor.flush()
    data = finished[0]
    head = data[: chunk_offsets(data)[0]]
    path = tmp_path / "bomb.mcap"
    path.write_bytes(head + chunk_record(1 << 30 if honest else 1 << 20, bomb))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with Recording(path) as run:
        assert list(run.states()) == []
        assert "damaged, and left out, is 0.00 to 1.00 s" in run.problem
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kB


def test_records_that_declare_more_than_there_is_are_not_read(
    finished: tuple[bytes, list[dict]], tmp_path: Path
) -> None:
    head = finished[0][: chunk_offsets(finished[0])[0]]
    for opcode in range(1, 16):
        for length in (2**63, 2**64 - 1, 2**40):
            offered(tmp_path / "long.mcap", head + struct.pack("<BQ", opcode, length) + bytes(100))
            summary = struct.pack("<BQ", opcode, length)
            footer = struct.pack("<BQQQ", 2, 20, len(head), 0)
            footer += struct.pack("<I", zlib.crc32(summary + footer))
            offered(tmp_path / "long.mcap", head + summary + footer + mcap_walk.MAGIC)


def test_an_mjb_that_is_damaged_is_an_error_of_the_recording(tmp_path: Path) -> None:
    mujoco.mj_saveModel(mujoco.MjModel.from_xml_string(SCENE), str(tmp_path / "scene.mjb"), None)
    record(tmp_path / "run.mcap", 3, {"kind": "model_path", "path": str(tmp_path / "scene.mjb")})
    data = (tmp_path / "run.mcap").read_bytes()
    at = data.index((tmp_path / "scene.mjb").read_bytes()[:200])
    for offset in range(0, 200, 7):
        broken = bytearray(data)
        broken[at + offset] ^= 0xFF
        (tmp_path / "broken.mcap").write_bytes(broken)
        with Recording(tmp_path / "broken.mcap") as run:
            with pytest.raises(RecordingError, match="its model is damaged"):
                run.model()
            assert sum(1 for _ in run.states()) == 3


def test_model_packet_and_path_are_recorded_alike(tmp_path: Path) -> None:
    model = str(MODELS / "franka_cube_grasp" / "scene.xml")
    for name, packet in (
        ("sent", model_packet(model)),
        ("path", {"kind": "model_path", "path": model}),
    ):
        Recorder(tmp_path / name, packet, ABOUT).close()
    with Recording(tmp_path / "sent") as sent, Recording(tmp_path / "path") as path:
        assert sent._read_model() == path._read_model()
