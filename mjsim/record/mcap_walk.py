"""Finds the records of an MCAP file that may be cut, damaged or hostile.

What is in a file may come from anybody. Sizes are checked before anything is read or decompressed,
and the summary at the end is an index that saves time, never the only way to the states.
"""

import io
import struct
import zlib
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING, Any, NamedTuple, Protocol

from mjsim.record.format import MAX_CHUNK, METADATA, SCHEMA, RecordingError

if TYPE_CHECKING:
    from mcap.data_stream import ReadDataStream

MAGIC = b"\x89MCAP0\r\n"
MAX_SUMMARY = 256 << 20  # bytes; a chunk takes about a hundred
MAX_RECORD = 1 << 20  # bytes of any other record

_RECORD = struct.Struct("<BQ")  # opcode, length
_MESSAGE = struct.Struct("<HIQQ")  # channel, sequence, log time, publish time
_CHUNK = struct.Struct("<QQQ")  # first and last log time, size before compression
_FOOTER = struct.Struct("<BQQQI")  # opcode, length, start of summary, of offsets, checksum
_INDEX_ENTRY = 16  # bytes of a message in a MessageIndex, after 6 of its head


class RecordKind(Protocol):
    """A class of `mcap.records` whose records can be read."""

    @staticmethod
    def read(stream: "ReadDataStream", /) -> Any: ...


class Place(NamedTuple):
    """Where the payload of a record is in the file."""

    at: int
    length: int


class Chunk(NamedTuple):
    """Where a chunk is, and what it spans."""

    start: int  # ns, of its first state
    end: int  # ns, of its last
    place: Place


class Contents:
    """What a file is found to hold: by its summary, or by a walk from record to record."""

    def __init__(self) -> None:
        self.metadata: list[Place] = []
        self.attachments: list[Place] = []
        self.chunks: list[Chunk] = []
        self.nstates = 0
        self.schemas: dict[int, str] = {}
        self.channels: dict[int, int] = {}  # to the id of the schema
        self.ending = ""  # why the file had to be walked through
        self.counted = True  # whether `nstates` has those of the last chunk

    def is_state(self, channel: int) -> bool:
        """Whether messages of a channel are states; so is what a lost record leaves unnamed."""
        if channel not in self.channels:
            return True
        return self.schemas.get(self.channels[channel], SCHEMA) == SCHEMA

    def is_foreign(self) -> bool:
        return bool(self.channels) and not any(map(self.is_state, self.channels))


def read_summary(file: IO[bytes], file_size: int) -> Contents | None:
    """The contents as the end of the file lists them; None where that is missing or damaged."""
    tail = _FOOTER.size + len(MAGIC)
    file.seek(max(0, file_size - tail))
    end = file.read(tail)
    if len(end) < tail or not end.endswith(MAGIC):
        return None
    opcode, _, start, _, checksum = _FOOTER.unpack_from(end)
    size = file_size - tail - start
    if opcode != _opcode().FOOTER or not 0 < start < file_size or not 0 <= size <= MAX_SUMMARY:
        return None
    file.seek(start)
    summary = file.read(size)
    if checksum not in (0, zlib.crc32(end[: _FOOTER.size - 4], zlib.crc32(summary))):
        return None
    try:
        return _from_summary(io.BytesIO(summary), len(summary))
    except RecordingError:
        return None


def _from_summary(summary: IO[bytes], size: int) -> Contents:
    from mcap import records

    opcodes, contents = _opcode(), Contents()
    for opcode, place in _records(summary, 0, size):
        if opcode == opcodes.CHUNK_INDEX:
            index = parse(records.ChunkIndex, summary, place)
            where = _payload(index.chunk_start_offset, index.chunk_length)
            contents.chunks.append(Chunk(index.message_start_time, index.message_end_time, where))
        elif opcode == opcodes.METADATA_INDEX:
            index = parse(records.MetadataIndex, summary, place)
            if index.name == METADATA:
                contents.metadata.append(_payload(index.offset, index.length))
        elif opcode == opcodes.ATTACHMENT_INDEX:
            index = parse(records.AttachmentIndex, summary, place)
            contents.attachments.append(_payload(index.offset, index.length))
        elif opcode == opcodes.STATISTICS:
            contents.nstates = parse(records.Statistics, summary, place).message_count
        else:
            _note_channel(contents, opcode, summary, place)
    return contents


def walk(file: IO[bytes], file_size: int) -> Contents:
    """The contents as found from record to record, up to where the file ends or is damaged."""
    opcodes, contents = _opcode(), Contents()
    contents.ending = "its index at the end is missing or damaged"
    try:
        for opcode, place in _records(file, len(MAGIC), file_size):
            if opcode == opcodes.CHUNK:
                start, end, _ = _CHUNK.unpack(read(file, place, _CHUNK.size))
                contents.chunks.append(Chunk(start, end, place))
                contents.counted = False
            elif opcode == opcodes.MESSAGE_INDEX:
                contents.nstates += max(0, place.length - 6) // _INDEX_ENTRY
                contents.counted = True
            elif opcode == opcodes.METADATA:
                contents.metadata.append(place)
            elif opcode == opcodes.ATTACHMENT:
                contents.attachments.append(place)
            elif opcode == opcodes.DATA_END:
                break
        else:
            contents.ending = "it was cut short"
    except RecordingError as error:
        contents.ending = f"it was cut short or is damaged ({error})"
    return contents


def messages(file: IO[bytes], chunk: Chunk, contents: Contents) -> Iterator[tuple[int, bytes]]:
    """The times in ns and the data of a chunk's states.

    Raises:
      RecordingError: the chunk is damaged; what came before that is good.
    """
    opcodes = _opcode()
    data = _decompressed(file, chunk)
    for opcode, place in _records(io.BytesIO(data), 0, len(data)):
        if opcode == opcodes.MESSAGE and place.length >= _MESSAGE.size:
            channel, _, at, _ = _MESSAGE.unpack_from(data, place.at)
            if contents.is_state(channel):
                yield at, data[place.at + _MESSAGE.size : place.at + place.length]
        elif opcode in (opcodes.SCHEMA, opcodes.CHANNEL):
            _note_channel(contents, opcode, io.BytesIO(data), place)
        else:  # as a chunk of millions of empty records, which would take minutes
            raise RecordingError(f"a record {opcode} in a chunk")


def _opcode() -> Any:
    from mcap.opcode import Opcode

    return Opcode


def _payload(offset: int, length: int) -> Place:
    """Where the payload of a record is, of an index that counts the record's head too."""
    return Place(offset + _RECORD.size, length - _RECORD.size)


def _records(file: IO[bytes], at: int, end: int) -> Iterator[tuple[int, Place]]:
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
        yield opcode, Place(at, length)
        at += length


def read(file: IO[bytes], place: Place, most: int | None = None) -> bytes:
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


def parse(kind: type[RecordKind], file: IO[bytes], place: Place, limit: int = MAX_RECORD) -> Any:
    """A record of that kind.

    Raises:
      RecordingError: it is none, or longer than `limit`.
    """
    from mcap.data_stream import ReadDataStream
    from mcap.exceptions import McapError

    if place.length > limit:
        raise RecordingError(f"a record of {place.length:,} bytes at byte {place.at:,}")
    try:
        return kind.read(ReadDataStream(io.BytesIO(read(file, place))))
    except (McapError, struct.error, UnicodeDecodeError, OverflowError) as error:
        raise RecordingError(f"in the record at byte {place.at:,}: {error}") from None


def _note_channel(contents: Contents, opcode: int, file: IO[bytes], place: Place) -> None:
    """Remember a schema or a channel; of others there is nothing to remember."""
    from mcap import records

    if opcode == _opcode().SCHEMA:
        schema = parse(records.Schema, file, place)
        contents.schemas[schema.id] = schema.name
    elif opcode == _opcode().CHANNEL:
        channel = parse(records.Channel, file, place)
        contents.channels[channel.id] = channel.schema_id


def _decompressed(file: IO[bytes], chunk: Chunk) -> bytes:
    """The records of a chunk.

    Raises:
      RecordingError: its size is beyond the limit, or its checksum is wrong.
    """
    import zstandard
    from mcap import records

    packed = parse(records.Chunk, file, chunk.place, MAX_CHUNK)
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
