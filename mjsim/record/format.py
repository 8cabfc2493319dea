"""What a recording is made of: the message of a state, the names of the records, the limits.

The container is MCAP, because robotics tools open it, and because it is appended to: compressed
chunks with a checksum each, and an index at the end that can be made again where it is missing. A
state is a protobuf message whose schema is in the file, a model is attachments.
docs/recording.md has the format.
"""

import contextlib
import functools
import importlib.util
from typing import Any, NamedTuple

import numpy as np

from mjsim.state import SHAPES, SHARED_FIELDS, Snapshot
from mjsim.text import install_line

FORMAT = "1"
METADATA = "mjsim.recording"  # the name of the record that says what was recorded
SCHEMA = "mjsim.State"
TOPIC = "/state"
MODEL_XML, MODEL_MJB, ASSETS = "model.xml", "model.mjb", "assets/"  # names of attachments

MAX_CHUNK = 64 << 20  # bytes, before and after decompression; ours have a mebibyte
MAX_MODEL = 256 << 20  # bytes of all attachments
MAX_ATTACHMENTS = 10_000
MAX_TIME = 2**63 - 1  # ns

PACKAGES = ("mcap", "google.protobuf")


class RecordingError(ValueError):
    """A file is no recording that can be read, or its model is not; the message is one line."""


class RecordedState(NamedTuple):
    """A state out of a recording.

    Attributes:
      at: s of recording time, from the first state on. It never runs backwards.
      step: steps that the simulation had taken.
      state: `time` and float64 arrays, as `apply_mjdata` takes them.
    """

    at: float
    step: int
    state: dict[str, Any]


@functools.cache
def message() -> tuple[Any, bytes]:
    """The protobuf class of a state, and the schema that tells other programs what it is."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    kinds = descriptor_pb2.FieldDescriptorProto
    package, _, name = SCHEMA.partition(".")
    file = descriptor_pb2.FileDescriptorProto(
        name=f"{package}.proto", package=package, syntax="proto3"
    )
    state = file.message_type.add(name=name)
    state.field.add(name="time", number=1, type=kinds.TYPE_DOUBLE, label=kinds.LABEL_OPTIONAL)
    state.field.add(name="step", number=2, type=kinds.TYPE_INT64, label=kinds.LABEL_OPTIONAL)
    for number, field in enumerate(SHARED_FIELDS, start=3):
        state.field.add(
            name=field, number=number, type=kinds.TYPE_DOUBLE, label=kinds.LABEL_REPEATED
        )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    schema = descriptor_pb2.FileDescriptorSet(file=[file]).SerializeToString()
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(SCHEMA)), schema


def encode_state(snapshot: Snapshot, step: int) -> bytes:
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


def decode_state(data: bytes, shapes: dict[str, tuple[int, ...]] | None) -> tuple[int, dict]:
    """The steps taken, and the state, that a message holds.

    Args:
      data: the message.
      shapes: of the arrays, as the model has them; None: the model is not known.

    Raises:
      RecordingError: it is no such message, or does not fit the shapes.
    """
    from google.protobuf.message import DecodeError

    try:
        came = message()[0].FromString(data)
    except DecodeError:
        raise RecordingError("which cannot be decoded") from None
    state = {"time": came.time}
    for field in SHARED_FIELDS:
        values = np.array(getattr(came, field), np.float64)
        shape = shapes[field] if shapes else (-1, *SHAPES[field][1:])
        try:
            state[field] = values.reshape(shape)
        except ValueError:
            raise RecordingError(
                f"{field} has {values.size} values, and the model wants the shape {shape}"
            ) from None
    return came.step, state


def missing_packages() -> str | None:
    """What is missing to write and read recordings, with the line that installs it; or None."""
    for package in PACKAGES:
        with contextlib.suppress(ModuleNotFoundError):
            if importlib.util.find_spec(package):
                continue
        name = "protobuf" if package == "google.protobuf" else package
        return f"recordings need the package {name}: {install_line('record')}"
    return None
