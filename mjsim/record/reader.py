"""Reads recordings, chunk by chunk, whole or cut or damaged.

What is in a file may come from anybody. States are decoded by our own descriptor and not by the
file's; `mcap_walk.py` finds the records.
"""

import bisect
import contextlib
import io
import os
import zlib
from collections.abc import Iterator
from pathlib import Path

import mujoco

from mjsim.errors import ProtocolError
from mjsim.model.arena import with_ample_arena
from mjsim.record.format import (
    ASSETS,
    FORMAT,
    MAX_ATTACHMENTS,
    MAX_MODEL,
    MAX_TIME,
    METADATA,
    MODEL_MJB,
    MODEL_XML,
    SCHEMA,
    RecordedState,
    RecordingError,
    decode_state,
    missing_packages,
)
from mjsim.record.mcap_walk import MAGIC, Chunk, Place, messages, parse, read, read_summary, walk
from mjsim.state import SHAPES, SHARED_FIELDS
from mjsim.stream.bundle import load_model


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
        self._damaged: set[Chunk] = set()
        self._unfit = ""  # the first state that does not fit the model
        self._version = ""
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
        if self._file.read(len(MAGIC)) != MAGIC:
            raise RecordingError(f"{self.path} is no MCAP file, so no recording")
        summarized = read_summary(self._file, self._size)
        self.complete = summarized is not None
        self._contents = contents = summarized or walk(self._file, self._size)
        if not contents.counted:
            contents.nstates += sum(1 for _ in self._messages(contents.chunks[-1]))
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
                f"{self._contents.ending}; it has {self.nstates:,} states of {self.duration:.2f} s"
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

    # ------------------------------------------------------------------ what is there

    def _read_about(self) -> dict[str, str]:
        from mcap import records

        for place in self._contents.metadata:
            with contextlib.suppress(RecordingError):
                metadata = parse(records.Metadata, self._file, place)
                if metadata.name == METADATA:
                    return metadata.metadata
        if self.complete:
            raise RecordingError(f"{self.path} is an MCAP file, but no recording of a simulation")
        raise RecordingError(
            f"{self.path} cannot be read: {self._contents.ending}, before any state"
        )

    def _read_model(self) -> dict[str, bytes]:
        from mcap import records

        places = self._contents.attachments
        if sum(place.length for place in places) > MAX_MODEL or len(places) > MAX_ATTACHMENTS:
            raise RecordingError(f"{self.path.name}: its model is too large")
        files = {}
        for place in places:
            data = read(self._file, place)
            if int.from_bytes(data[-4:], "little") not in (0, zlib.crc32(data[:-4])):
                raise RecordingError(f"{self.path.name}: its model is damaged")
            attachment = parse(records.Attachment, io.BytesIO(data), Place(0, len(data)), MAX_MODEL)
            files[attachment.name] = attachment.data
        return files

    def _shapes(self) -> dict[str, tuple[int, ...]] | None:
        try:
            mjm = self.model()
        except RecordingError:
            return None
        return {
            field: tuple(
                size if isinstance(size, int) else getattr(mjm, size) for size in SHAPES[field]
            )
            for field in SHARED_FIELDS
        }

    def _messages(self, chunk: Chunk) -> Iterator[tuple[int, bytes]]:
        """The times in ns and the data of a chunk's states; a damaged chunk ends early."""
        try:
            yield from messages(self._file, chunk, self._contents)
        except RecordingError:
            self._damaged.add(chunk)

    def _decode(
        self, at: int, data: bytes, shapes: dict[str, tuple[int, ...]] | None
    ) -> RecordedState | None:
        try:
            step, state = decode_state(data, shapes)
        except RecordingError as error:
            self._unfit = self._unfit or f"at {at / 1e9:.2f} s, {error}"
            return None
        return RecordedState(at / 1e9, step, state)
