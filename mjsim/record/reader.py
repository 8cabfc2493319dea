"""Runs in files: the model and its states, written while they happen, read piece by piece.

    with Recorder("run.mcap", model_packet("scene.xml"), {"engine": "mjc"}) as recorder:
        recorder.write(mjd, step)  # as often as wanted; SettingError only from the constructor

    with Recording("run.mcap") as recording:  # RecordingError
        mjm = recording.model()  # RecordingError
        for recorded in recording.states(start=2.5):  # s
            apply_mjdata(mjd, recorded.state)
        print(recording.problem)  # None, or what is wrong with the file

The container is MCAP, because robotics tools open it, and because it is appended to: compressed
chunks with a checksum each, and an index at the end that can be made again where it is missing. A
state is a protobuf message whose schema is in the file, a model is attachments. README.md has the
format.

What is in a file may come from anybody. Sizes are checked before anything is read or decompressed,
states are decoded by our own descriptor and not by the file's, and the summary at the end is an
index that saves time, never the only way to the states.
"""

import bisect
import contextlib
import functools
import importlib.util
import io
import math
import os
import struct
import sys
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import mujoco
import numpy as np

from mjsim.errors import ProtocolError, SettingError
from mjsim.model.arena import with_ample_arena
from mjsim.state import Snapshot, State, take_snapshot
from mjsim.stream.bundle import load_model, model_packet
from mjsim.stream.packets import Packet

if TYPE_CHECKING:
    from mcap.records import McapRecord

FORMAT = "1"
METADATA = "mjsim.recording"  # the name of the record that says what was recorded
SCHEMA = "mjsim.State"
TOPIC = "/state"
MODEL_XML, MODEL_MJB, ASSETS = "model.xml", "model.mjb", "assets/"  # names of attachments

FLUSH_SECONDS = 0.5  # of states that a crash may cost, by wall clock and in simulated time
FLUSH_BYTES = 1 << 20  # of states that make a chunk even so
PACKAGES = ("mcap", "google.protobuf")
INSTALL = "make venv (or pip install -e '.[record]')"

MAX_CHUNK = 64 << 20  # bytes, before and after decompression; ours have `FLUSH_BYTES`
MAX_MODEL = 256 << 20  # bytes of all attachments
MAX_SUMMARY = 256 << 20  # bytes; a chunk takes about a hundred
MAX_RECORD = 1 << 20  # bytes of any other record
MAX_ATTACHMENTS = 10_000
MAX_TIME = 2**63 - 1  # ns

# The arrays of a state, with the sizes of the model that give their shapes. In the message they
# have the numbers from 3 on, after `time` and `step`.
_ARRAYS: dict[str, tuple[str | int, ...]] = {
    "qpos": ("nq",),
    "qvel": ("nv",),
    "act": ("na",),
    "ctrl": ("nu",),
    "xfrc_applied": ("nbody", 6),
    "mocap_pos": ("nmocap", 3),
    "mocap_quat": ("nmocap", 4),
}

_MAGIC = b"\x89MCAP0\r\n"
_RECORD = struct.Struct("<BQ")  # opcode, length
_DOUBLE = struct.Struct("=d")
_MESSAGE = struct.Struct("<HIQQ")  # channel, sequence, log time, publish time
_CHUNK = struct.Struct("<QQQ")  # first and last log time, size before compression
_FOOTER = struct.Struct("<BQQQI")  # opcode, length, start of summary, of offsets, checksum
_INDEX_ENTRY = 16  # bytes of a message in a MessageIndex, after 6 of its head


class RecordingError(ValueError):
    """A file is no recording that can be read, or its model is not; the message is one line."""


class RecordedState(NamedTuple):
    """A state out of a recording.

    Attributes:
      at: s of recording time, from the first state on. It never runs backwards.
      step: steps that the simulation had taken.
      state: `time` and float64 arrays, as `protocol.apply_mjdata` takes them.
    """

    at: float
    step: int
    state: dict[str, Any]


@functools.cache
def _message() -> tuple[type, bytes]:
    """The protobuf class of a state, and the schema that tells other programs what it is."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    kinds = descriptor_pb2.FieldDescriptorProto
    package, _, name = SCHEMA.partition(".")
    file = descriptor_pb2.FileDescriptorProto(
        name=f"{package}.proto", package=package, syntax="proto3"
    )
    message = file.message_type.add(name=name)
    message.field.add(name="time", number=1, type=kinds.TYPE_DOUBLE, label=kinds.LABEL_OPTIONAL)
    message.field.add(name="step", number=2, type=kinds.TYPE_INT64, label=kinds.LABEL_OPTIONAL)
    for number, field in enumerate(_ARRAYS, start=3):
        message.field.add(
            name=field, number=number, type=kinds.TYPE_DOUBLE, label=kinds.LABEL_REPEATED
        )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    schema = descriptor_pb2.FileDescriptorSet(file=[file]).SerializeToString()
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(SCHEMA)), schema


def _encode(snapshot: Snapshot, step: int) -> bytes:
    """The message of a state. Its arrays are in it as they are in memory, so nothing is converted.

    That takes down to a tenth of the time of protobuf's own class, which is what reads it.
    """
    (time, _), *arrays = snapshot
    parts = [b"\x09", time, b"\x10", _varint(step & (1 << 64) - 1)]
    for number, (data, _) in enumerate(arrays, start=3):
        parts += (bytes([number << 3 | 2]), _varint(len(data)), data)
    return b"".join(parts)


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def missing_packages() -> str | None:
    """What is missing to write and read recordings, with the line that installs it; or None."""
    for package in PACKAGES:
        with contextlib.suppress(ModuleNotFoundError):
            if importlib.util.find_spec(package):
                continue
        name = "protobuf" if package == "google.protobuf" else package
        return f"recordings need the package {name}: {INSTALL}"
    return None


# ------------------------------------------------------------------------------------- writing


def check_path(path: str | os.PathLike[str]) -> None:
    """Find out before a run whether it can be recorded there.

    Raises:
      SettingError: `record`: there is such a file, no such folder, or a package is missing.
    """
    if missing := missing_packages():
        raise SettingError("record", missing)
    folder = Path(path).absolute().parent
    if Path(path).exists():
        raise _exists(path)
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise SettingError("record", f"{str(path)!r} cannot be written: no writable folder there")


def _exists(path: str | os.PathLike[str]) -> SettingError:
    return SettingError(
        "record", f"{str(path)!r} is there already and is kept: name another file, or remove it"
    )


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


class Recorder:
    """Writes a run to a file. Killed at any moment, it leaves all but the last half second.

    An I/O error after the start, such as a full disk, ends the recording but not the run: the file
    keeps what it has, and one line says so.

    Args:
      path: the file, which must not exist.
      model: a packet as `stream_model.model_packet` makes it, or as a viewer gets it. Of a
        "model_path" the model itself is recorded; as MJB where it has no XML that would do.
      about: what was run: engine, device, world, timestep, versions.
      report: told, once, if the recording ends early.

    Attributes:
      nstates: states that are in the file.
      nbytes: bytes of the file.
      problem: why the recording ended early, or None.

    Raises:
      SettingError: `record`: the file exists or cannot be written, the model is too large, or a
        package is missing.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        model: Packet,
        about: Mapping[str, str],
        report: Callable[[str], None] = _say,
    ):
        check_path(path)
        from mcap.writer import Writer

        self.path, self.nstates, self.nbytes, self.problem = Path(path), 0, 0, None
        self._report = report
        self._pending, self._pending_bytes = 0, 0  # states that are not yet in the file
        # The recording time `_at` (ns) goes on from `_origin` with the simulated time since
        # `_start` (s).
        self._at, self._origin, self._start = 0, 0, math.nan
        self._flushed_at, self._flushed_clock = 0, time.monotonic()
        files = _model_files(model)
        _, schema = _message()
        try:
            self._file = open(path, "xb")  # noqa: SIM115
        except FileExistsError:
            raise _exists(path) from None
        except OSError as error:
            raise self._unwritable(error) from None
        try:
            self._writer = Writer(self._file, chunk_size=MAX_CHUNK)  # `write` cuts them smaller
            self._writer.start()
            self._writer.add_metadata(METADATA, {**about, "format": FORMAT})
            for name, data in files.items():
                kind = "application/xml" if name == MODEL_XML else "application/octet-stream"
                self._writer.add_attachment(time.time_ns(), 0, name, kind, data)
            schema_id = self._writer.register_schema(SCHEMA, "protobuf", schema)
            self._channel = self._writer.register_channel(TOPIC, "protobuf", schema_id)
            self._writer.flush()
        except OSError as error:
            self._abandon()
            self.path.unlink()
            raise self._unwritable(error) from None

    def write(self, state: State, step: int) -> None:
        """Add a state, with the steps taken so far. NaN and infinity pass."""
        if self.problem is not None or self._file.closed:
            return
        snapshot = take_snapshot(state)
        (simulated,) = _DOUBLE.unpack(snapshot[0][0])
        self._advance(simulated)
        data = _encode(snapshot, step)
        with self._until_failure():
            self._writer.add_message(self._channel, self._at, data, time.time_ns(), self._sequence)
            self._pending, self._pending_bytes = self._pending + 1, self._pending_bytes + len(data)
            if (
                self._at - self._flushed_at >= 1e9 * FLUSH_SECONDS
                or self._pending_bytes >= FLUSH_BYTES
                or time.monotonic() - self._flushed_clock >= FLUSH_SECONDS
            ):
                self._flush()

    def close(self) -> None:
        """Write what is left, and the index."""
        if self.problem is None and not self._file.closed:
            with self._until_failure():
                self._flush()
                self._writer.finish()
                self._file.flush()
                self.nbytes = self._file.tell()
                self._file.close()

    def __enter__(self) -> "Recorder":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def _sequence(self) -> int:
        return (self.nstates + self._pending) & 0xFFFFFFFF

    def _advance(self, simulated: float) -> None:
        """Move the recording time on by the simulated time, which a reset puts back."""
        at = self._origin + 1e9 * (simulated - self._start)
        if self._at <= at < MAX_TIME:
            self._at = round(at)
        elif math.isfinite(simulated):
            self._origin, self._start = self._at, simulated

    def _flush(self) -> None:
        self._writer.flush()
        self.nstates += self._pending
        self._pending, self._pending_bytes = 0, 0
        self.nbytes = self._file.tell()
        self._flushed_at, self._flushed_clock = self._at, time.monotonic()

    @contextlib.contextmanager
    def _until_failure(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._abandon()
            self.problem = error.strerror or str(error)
            self._report(
                f"warning: the recording {str(self.path)!r} ends here, after {self.nstates:,} "
                f"states: {self.problem}"
            )

    def _abandon(self) -> None:
        with contextlib.suppress(OSError):  # what the file's buffer still holds is lost
            self._file.close()

    def _unwritable(self, error: OSError) -> SettingError:
        return SettingError("record", f"{str(self.path)!r} cannot be written: {error.strerror}")


class RunsRecorder:
    """Records runs one after another, each in its own file: FILE, then with -2, -3 in its name.

    Args:
      path: the file of the first run, which must not exist.
      about: what all of them have in common.
      report: told which file is next, and what goes wrong: from then on nothing does.

    Raises:
      SettingError: `record`, as `check_path`.
    """

    def __init__(
        self, path: str | os.PathLike[str], about: Mapping[str, str], report: Callable[[str], None]
    ):
        check_path(path)
        self._path, self._about, self._report = Path(path), about, report
        self._number = 0
        self._recorder: Recorder | None = None

    def begin(self, model: Packet, about: Mapping[str, str]) -> None:
        """Close the file of one run, and begin that of the next, with more to say of it."""
        self.close()
        path = self._next_path()
        try:
            self._recorder = Recorder(path, model, {**about, **self._about}, self._report)
        except SettingError as error:
            self._report(f"warning: the run is not recorded: {error.problem}")
        else:
            self._report(f"recording to {path}")

    def write(self, state: State, step: int) -> None:
        """As `Recorder.write`."""
        if self._recorder:
            self._recorder.write(state, step)

    def close(self) -> None:
        if self._recorder:
            self._recorder.close()
            self._recorder = None

    def _next_path(self) -> Path:
        self._number += 1
        suffix = f"-{self._number}" if self._number > 1 else ""
        path = self._path.with_stem(self._path.stem + suffix)
        return self._next_path() if path.exists() else path


def _model_files(model: Packet) -> dict[str, bytes]:
    """The attachments that a model makes."""
    if model["kind"] == "model_path":
        try:
            try:
                model = model_packet(model["path"])
            except ValueError:  # an MJB, or a model that XML does not bring across
                return _within_limit({MODEL_MJB: _binary(load_model(model))})
        except (OSError, ProtocolError) as error:
            raise SettingError("record", f"the model cannot be recorded: {error}") from None
    files = {MODEL_XML: model["xml"].encode()}
    return _within_limit(
        files | {ASSETS + name: data for name, data in (model.get("assets") or {}).items()}
    )


def _within_limit(files: dict[str, bytes]) -> dict[str, bytes]:
    size = sum(map(len, files.values()))
    if size > MAX_MODEL or len(files) > MAX_ATTACHMENTS:
        raise SettingError(
            "record",
            f"the model has {size / 1e6:,.0f} MB in {len(files):,} files: at most "
            f"{MAX_MODEL / 1e6:,.0f} MB in {MAX_ATTACHMENTS:,} are recorded",
        )
    return files


def _binary(mjm: mujoco.MjModel) -> bytes:
    buffer = np.zeros(mujoco.mj_sizeModel(mjm), np.uint8)
    mujoco.mj_saveModel(mjm, None, buffer)
    return buffer.tobytes()


# ------------------------------------------------------------------------------------- reading


class _Place(NamedTuple):
    """Where the payload of a record is in the file."""

    at: int
    length: int


class _Chunk(NamedTuple):
    """Where a chunk is, and what it spans."""

    start: int  # ns, of its first state
    end: int  # ns, of its last
    place: _Place


class _Contents:
    """What a file is found to hold: by its summary, or by a walk from record to record."""

    def __init__(self) -> None:
        self.metadata: list[_Place] = []
        self.attachments: list[_Place] = []
        self.chunks: list[_Chunk] = []
        self.nstates = 0
        self.schemas: dict[int, str] = {}
        self.channels: dict[int, int] = {}  # to the id of the schema

    def is_state(self, channel: int) -> bool:
        """Whether messages of a channel are states; so is what a lost record leaves unnamed."""
        if channel not in self.channels:
            return True
        return self.schemas.get(self.channels[channel], SCHEMA) == SCHEMA

    def is_foreign(self) -> bool:
        return bool(self.channels) and not any(map(self.is_state, self.channels))


class Recording:
    """A recorded run, read chunk by chunk. Not for several threads at once.

    Args:
      path: the file.

    Attributes:
      about: what was run, in the words of who recorded it.
      complete: whether the recording was closed in order and has its index.
      nstates: states in the file.
      duration: recording time of the last state, s.

    Raises:
      RecordingError: it cannot be read, is no MCAP file, holds no states of ours, or a package is
        missing.
    """

    def __init__(self, path: str | os.PathLike[str]):
        if missing := missing_packages():
            raise RecordingError(missing)
        self.path = Path(path)
        self._model: mujoco.MjModel | None = None
        self._damaged: set[_Chunk] = set()
        self._unfit = ""  # the first state that does not fit the model
        self._version, self._ending = "", ""
        try:
            self._file = self.path.open("rb")
            self._size = os.fstat(self._file.fileno()).st_size
        except OSError as error:
            raise RecordingError(f"{self.path}: {error.strerror}") from None
        try:
            self._open()
        except OSError as error:
            self.close()
            raise RecordingError(f"{self.path}: {error.strerror}") from None
        except RecordingError:
            self.close()
            raise

    def _open(self) -> None:
        if self._file.read(len(_MAGIC)) != _MAGIC:
            raise RecordingError(f"{self.path} is no MCAP file, so no recording")
        summarized = self._by_summary()
        self.complete = summarized is not None
        self._contents = summarized or self._by_walk()
        contents = self._contents
        contents.chunks.sort()
        self._starts = [chunk.start for chunk in contents.chunks]
        self.nstates = contents.nstates
        self.duration = max((chunk.end for chunk in contents.chunks), default=0) / 1e9
        self.about = self._read_about()
        self._version = self.about.pop("format", "unknown")
        if not self.complete and contents.chunks:
            next(self._messages(contents.chunks[0]), None)  # has the schema, too
        if contents.is_foreign():
            names = ", ".join(sorted({repr(name[:60]) for name in contents.schemas.values()})[:5])
            raise RecordingError(f"{self.path} has no states {SCHEMA!r}, but {names or 'others'}")

    @property
    def problem(self) -> str | None:
        """One sentence on what is wrong with the file, as far as it has been read; or None."""
        problems = []
        if self._version != FORMAT:
            problems.append(
                f"it is of format version {self._version[:20]!r}, of which this program, "
                f"which writes {FORMAT!r}, may miss something"
            )
        if not self.complete:
            problems.append(
                f"{self._ending}; it has {self.nstates:,} states of {self.duration:.2f} s"
            )
        if self._damaged:
            spans = [f"{c.start / 1e9:.2f} to {c.end / 1e9:.2f} s" for c in sorted(self._damaged)]
            more = f" and {len(spans) - 3} more" if len(spans) > 3 else ""
            problems.append(f"damaged, and left out, is {', '.join(spans[:3])}{more}")
        if self._unfit:
            problems.append(f"states that do not fit its model are left out: {self._unfit}")
        return f"{self.path.name}: {'; '.join(problems)}" if problems else None

    def model(self) -> mujoco.MjModel:
        """The model, compiled once.

        Raises:
          RecordingError: it is missing, damaged, or does not compile.
        """
        if self._model is None:
            files = self._read_model()
            try:
                if MODEL_MJB in files:
                    stored = mujoco.MjModel.from_binary_path(MODEL_MJB, files)
                    self._model = with_ample_arena(stored)
                else:
                    assets = {
                        name.removeprefix(ASSETS): data
                        for name, data in files.items()
                        if name.startswith(ASSETS)
                    }
                    xml = files[MODEL_XML].decode()
                    self._model = load_model({"kind": "xml", "xml": xml, "assets": assets})
            except KeyError:
                raise RecordingError(f"{self.path.name} has no model") from None
            except ProtocolError as error:
                reason = str(error).replace("that came", f"of {self.path.name}")
                raise RecordingError(reason) from None
            except (ValueError, RuntimeError, MemoryError, mujoco.FatalError) as error:
                reason = " ".join(str(error).split())
                raise RecordingError(f"{self.path.name}: its model is damaged: {reason}") from None
        return self._model

    def states(self, start: float = 0.0) -> Iterator[RecordedState]:
        """The states in their order, from the last one at or before `start` on.

        What is damaged or does not fit the model is left out, and `problem` then says so. Where
        the model cannot be had, every state is offered.

        Args:
          start: s of recording time.
        """
        shapes = self._shapes()
        earliest = round(1e9 * min(max(start, 0.0), MAX_TIME / 1e9))
        first = max(0, bisect.bisect_right(self._starts, earliest) - 1)
        last_before: RecordedState | None = None
        for chunk in self._contents.chunks[first:]:
            for at, data in self._messages(chunk):
                recorded = self._decode(at, data, shapes)
                if recorded is None:
                    continue
                if at <= earliest:
                    last_before = recorded
                    continue
                if last_before is not None:
                    yield last_before
                    last_before = None
                yield recorded
        if last_before is not None:
            yield last_before

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> "Recording":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    # ------------------------------------------------------------------ where what is

    def _by_summary(self) -> _Contents | None:
        """The contents as the end of the file lists them; None where that is missing or damaged."""
        tail = _FOOTER.size + len(_MAGIC)
        self._file.seek(max(0, self._size - tail))
        end = self._file.read(tail)
        if len(end) < tail or not end.endswith(_MAGIC):
            return None
        opcode, _, start, _, checksum = _FOOTER.unpack_from(end)
        size = self._size - tail - start
        if opcode != _opcode().FOOTER or not 0 < start < self._size or not 0 <= size <= MAX_SUMMARY:
            return None
        self._file.seek(start)
        summary = self._file.read(size)
        if checksum not in (0, zlib.crc32(end[: _FOOTER.size - 4], zlib.crc32(summary))):
            return None
        try:
            return self._from_summary(io.BytesIO(summary), len(summary))
        except RecordingError:
            return None

    def _from_summary(self, summary: IO[bytes], size: int) -> _Contents:
        from mcap import records

        opcodes, contents = _opcode(), _Contents()
        for opcode, place in _records(summary, 0, size):
            if opcode == opcodes.CHUNK_INDEX:
                index = _parse(records.ChunkIndex, summary, place)
                where = _payload(index.chunk_start_offset, index.chunk_length)
                contents.chunks.append(
                    _Chunk(index.message_start_time, index.message_end_time, where)
                )
            elif opcode == opcodes.METADATA_INDEX:
                index = _parse(records.MetadataIndex, summary, place)
                if index.name == METADATA:
                    contents.metadata.append(_payload(index.offset, index.length))
            elif opcode == opcodes.ATTACHMENT_INDEX:
                index = _parse(records.AttachmentIndex, summary, place)
                contents.attachments.append(_payload(index.offset, index.length))
            elif opcode == opcodes.STATISTICS:
                contents.nstates = _parse(records.Statistics, summary, place).message_count
            else:
                _note_channel(contents, opcode, summary, place)
        return contents

    def _by_walk(self) -> _Contents:
        """The contents as found from record to record, up to where the file ends or is damaged."""
        opcodes, contents = _opcode(), _Contents()
        self._ending = "its index at the end is missing or damaged"
        counted = True
        try:
            for opcode, place in _records(self._file, len(_MAGIC), self._size):
                if opcode == opcodes.CHUNK:
                    start, end, _ = _CHUNK.unpack(_read(self._file, place, _CHUNK.size))
                    contents.chunks.append(_Chunk(start, end, place))
                    counted = False
                elif opcode == opcodes.MESSAGE_INDEX:
                    contents.nstates += max(0, place.length - 6) // _INDEX_ENTRY
                    counted = True
                elif opcode == opcodes.METADATA:
                    contents.metadata.append(place)
                elif opcode == opcodes.ATTACHMENT:
                    contents.attachments.append(place)
                elif opcode == opcodes.DATA_END:
                    break
            else:
                self._ending = "it was cut short"
        except RecordingError as error:
            self._ending = f"it was cut short or is damaged ({error})"
        if not counted:  # cut between a chunk and the index of its messages
            self._contents = contents
            contents.nstates += sum(1 for _ in self._messages(contents.chunks[-1]))
        return contents

    # ------------------------------------------------------------------ what is there

    def _read_about(self) -> dict[str, str]:
        from mcap import records

        for place in self._contents.metadata:
            with contextlib.suppress(RecordingError):
                metadata = _parse(records.Metadata, self._file, place)
                if metadata.name == METADATA:
                    return metadata.metadata
        if self.complete:
            raise RecordingError(f"{self.path} is an MCAP file, but no recording of a simulation")
        raise RecordingError(f"{self.path} cannot be read: {self._ending}, before any state")

    def _read_model(self) -> dict[str, bytes]:
        from mcap import records

        places = self._contents.attachments
        if sum(place.length for place in places) > MAX_MODEL or len(places) > MAX_ATTACHMENTS:
            raise RecordingError(f"{self.path.name}: its model is too large")
        files = {}
        for place in places:
            data = _read(self._file, place)
            if int.from_bytes(data[-4:], "little") not in (0, zlib.crc32(data[:-4])):
                raise RecordingError(f"{self.path.name}: its model is damaged")
            attachment = _parse(
                records.Attachment, io.BytesIO(data), _Place(0, len(data)), MAX_MODEL
            )
            files[attachment.name] = attachment.data
        return files

    def _shapes(self) -> dict[str, tuple[int, ...]] | None:
        try:
            mjm = self.model()
        except RecordingError:
            return None
        return {
            field: tuple(size if isinstance(size, int) else getattr(mjm, size) for size in sizes)
            for field, sizes in _ARRAYS.items()
        }

    def _messages(self, chunk: _Chunk) -> Iterator[tuple[int, bytes]]:
        """The times in ns and the data of a chunk's states; a damaged chunk ends early."""
        opcodes, contents = _opcode(), self._contents
        try:
            data = _decompressed(self._file, chunk)
            for opcode, place in _records(io.BytesIO(data), 0, len(data)):
                if opcode == opcodes.MESSAGE and place.length >= _MESSAGE.size:
                    channel, _, at, _ = _MESSAGE.unpack_from(data, place.at)
                    if contents.is_state(channel):
                        yield at, data[place.at + _MESSAGE.size : place.at + place.length]
                elif opcode in (opcodes.SCHEMA, opcodes.CHANNEL):
                    _note_channel(contents, opcode, io.BytesIO(data), place)
                else:  # as a chunk of millions of empty records, which would take minutes
                    raise RecordingError(f"a record {opcode} in a chunk")
        except RecordingError:
            self._damaged.add(chunk)

    def _decode(
        self, at: int, data: bytes, shapes: dict[str, tuple[int, ...]] | None
    ) -> RecordedState | None:
        from google.protobuf.message import DecodeError

        try:
            message = _message()[0].FromString(data)
        except DecodeError:
            self._unfit = self._unfit or f"at {at / 1e9:.2f} s, which cannot be decoded"
            return None
        state = {"time": message.time}
        for field, sizes in _ARRAYS.items():
            values = np.array(getattr(message, field), np.float64)
            shape = shapes[field] if shapes else (-1, *sizes[1:])
            try:
                state[field] = values.reshape(shape)
            except ValueError:
                self._unfit = self._unfit or (
                    f"at {at / 1e9:.2f} s, {field} has {values.size} values, and the model wants "
                    f"the shape {shape}"
                )
                return None
        return RecordedState(at / 1e9, message.step, state)


def _opcode() -> Any:
    from mcap.opcode import Opcode

    return Opcode


def _payload(offset: int, length: int) -> _Place:
    """Where the payload of a record is, of an index that counts the record's head too."""
    return _Place(offset + _RECORD.size, length - _RECORD.size)


def _records(file: IO[bytes], at: int, end: int) -> Iterator[tuple[int, _Place]]:
    """The opcodes and places of the records that follow each other from `at` to `end`.

    Raises:
      RecordingError: one of them goes beyond the end.
    """
    while at < end:
        file.seek(at)
        head = file.read(_RECORD.size)
        opcode, length = _RECORD.unpack(head) if len(head) == _RECORD.size else (0, end)
        if length > end - at - _RECORD.size:
            raise RecordingError(f"in the record at byte {at:,}")
        at += _RECORD.size
        yield opcode, _Place(at, length)
        at += length


def _read(file: IO[bytes], place: _Place, most: int | None = None) -> bytes:
    """A record's payload, or its first bytes.

    Raises:
      RecordingError: so many are not there.
    """
    size = place.length if most is None else most
    if place.at < 0 or not 0 <= size <= place.length:
        raise RecordingError(f"in the record at byte {place.at:,}")
    try:
        file.seek(place.at)
        data = file.read(size)
    except (OSError, OverflowError) as error:
        raise RecordingError(f"at byte {place.at:,}: {error}") from None
    if len(data) != size:
        raise RecordingError(f"at byte {place.at:,}, where {size:,} bytes should be")
    return data


def _parse(
    kind: "type[McapRecord]", file: IO[bytes], place: _Place, limit: int = MAX_RECORD
) -> Any:
    """A record of that kind.

    Raises:
      RecordingError: it is none, or longer than `limit`.
    """
    from mcap.data_stream import ReadDataStream
    from mcap.exceptions import McapError

    if place.length > limit:
        raise RecordingError(f"a record of {place.length:,} bytes at byte {place.at:,}")
    try:
        return kind.read(ReadDataStream(io.BytesIO(_read(file, place))))
    except (McapError, struct.error, UnicodeDecodeError, OverflowError) as error:
        raise RecordingError(f"in the record at byte {place.at:,}: {error}") from None


def _note_channel(contents: _Contents, opcode: int, file: IO[bytes], place: _Place) -> None:
    """Remember a schema or a channel; of others there is nothing to remember."""
    from mcap import records

    if opcode == _opcode().SCHEMA:
        schema = _parse(records.Schema, file, place)
        contents.schemas[schema.id] = schema.name
    elif opcode == _opcode().CHANNEL:
        channel = _parse(records.Channel, file, place)
        contents.channels[channel.id] = channel.schema_id


def _decompressed(file: IO[bytes], chunk: _Chunk) -> bytes:
    """The records of a chunk.

    Raises:
      RecordingError: its size is beyond the limit, or its checksum is wrong.
    """
    import zstandard
    from mcap import records

    packed = _parse(records.Chunk, file, chunk.place, MAX_CHUNK)
    size, data = packed.uncompressed_size, packed.data
    if size > MAX_CHUNK:
        raise RecordingError(f"a chunk of {size:,} bytes at byte {chunk.place.at:,}")
    if packed.compression == "zstd":
        try:
            # What the frame says of its size is allocated before anything is decompressed.
            declared = zstandard.get_frame_parameters(data).content_size
            if declared not in (size, zstandard.CONTENTSIZE_UNKNOWN):
                raise RecordingError("a chunk of another size than it declares")
            data = zstandard.decompress(data, size)
        except zstandard.ZstdError as error:
            raise RecordingError(str(error)) from None
    elif packed.compression:
        raise RecordingError(f"a chunk compressed by {packed.compression[:20]!r}")
    if packed.uncompressed_crc not in (0, zlib.crc32(data)):
        raise RecordingError(f"the checksum of the chunk at byte {chunk.place.at:,}")
    return data
