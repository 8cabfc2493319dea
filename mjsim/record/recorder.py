"""Writes runs into files while they happen."""

import contextlib
import math
import os
import struct
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import mujoco
import numpy as np

from mjsim.errors import SettingError
from mjsim.record.format import (
    ASSETS,
    FORMAT,
    MAX_ATTACHMENTS,
    MAX_CHUNK,
    MAX_MODEL,
    MAX_TIME,
    METADATA,
    MODEL_MJB,
    MODEL_XML,
    SCHEMA,
    TOPIC,
    encode_state,
    message,
    missing_packages,
)
from mjsim.state import State, check_world, read_world, take_snapshot, world_time
from mjsim.stream.bundle import Model, is_mjcf, load_model, model_packet
from mjsim.stream.packets import Packet
from mjsim.text import print_line

FLUSH_SECONDS = 0.5  # of states that a crash may cost, by wall clock and in simulated time
FLUSH_BYTES = 1 << 20  # of states that make a chunk even so

SLACK = 1e5  # ns, and at most 1 % of a period, by which a state may be early: times are rounded

_DOUBLE = struct.Struct("=d")


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


class Recorder:
    """Writes a run to a file. Killed at any moment, it leaves all but the last half second.

    An I/O error after the start, such as a full disk, ends the recording but not the run: the file
    keeps what it has, and one line says so.

    Args:
      path: the file, which must not exist.
      model: an `mujoco.MjModel`, an `mujoco.MjSpec`, MJCF as text, or the path of a file that
        MuJoCo loads; or a packet as `model_packet` makes it, or as a viewer gets it. It is recorded
        as XML; an MjModel, and what has no XML that would do, as MJB.
      about: what was run: engine, device, world, timestep, versions.
      report: told, once, if the recording ends early.
      hz: states to record per second of simulated time, at most; 0: every one that is written.

    Attributes:
      nstates: states that are in the file.
      nbytes: bytes of the file.
      problem: why the recording ended early, or None.

    Raises:
      SettingError: `record`: the file exists or cannot be written, the model is too large or
        cannot be recorded, or a package is missing; `hz`: it is no rate.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        model: Model | Packet,
        about: Mapping[str, str] | None = None,
        report: Callable[[str], None] = print_line,
        *,
        hz: float = 0.0,
    ):
        if not hz >= 0.0:
            raise SettingError("hz", f"{hz!r} is no rate: 0 (every state) or more")
        check_path(path)
        from mcap.writer import Writer

        self.path, self.nstates, self.nbytes = Path(path), 0, 0
        self.problem: str | None = None
        self._report = report
        self._pending, self._pending_bytes = 0, 0  # states that are not yet in the file
        # The recording time `_at` (ns) goes on from `_origin` with the simulated time since
        # `_start` (s).
        self._at, self._origin, self._start = 0, 0, math.nan
        self._period = 1e9 / hz if hz else 0.0  # ns
        self._slack = min(SLACK, 0.01 * self._period)
        self._next_at = 0.0  # ns of recording time from which the next state is due
        self._flushed_at, self._flushed_clock = 0, time.monotonic()
        files = _model_files(model)
        _, schema = message()
        try:
            self._file = open(path, "xb")  # noqa: SIM115
        except FileExistsError:
            raise _exists(path) from None
        except OSError as error:
            raise self._unwritable(error) from None
        try:
            self._writer = Writer(self._file, chunk_size=MAX_CHUNK)  # `write` cuts them smaller
            self._writer.start()
            self._writer.add_metadata(METADATA, {**(about or {}), "format": FORMAT})
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

    def write(self, state: State, step: int = 0) -> bool:
        """Add a state, if one is due by the `hz` of the recorder. NaN and infinity pass.

        Args:
          state: an MjData, or another object with the fields of it that `State` lists.
          step: steps taken so far.

        Returns:
          whether it was added.
        """
        return self._due(lambda: state.time) and self._add(state, step)

    def _add(self, state: State, step: int) -> bool:
        snapshot = take_snapshot(state)
        (simulated,) = _DOUBLE.unpack(snapshot[0][0])
        self._advance(simulated)
        self._next_at = max(self._next_at + self._period, self._at + 0.5 * self._period)
        data = encode_state(snapshot, step)
        with self._until_failure():
            self._writer.add_message(self._channel, self._at, data, time.time_ns(), self._sequence)
            self._pending, self._pending_bytes = self._pending + 1, self._pending_bytes + len(data)
            if (
                self._at - self._flushed_at >= 1e9 * FLUSH_SECONDS
                or self._pending_bytes >= FLUSH_BYTES
                or time.monotonic() - self._flushed_clock >= FLUSH_SECONDS
            ):
                self._flush()
        return self.problem is None

    def write_world(self, d: Any, world: int, step: int = 0) -> bool:
        """Add the state of one world of batched data, if one is due by the `hz` of the recorder.

        Where none is due, the time alone is copied from the device.

        Args:
          d: a `mujoco_warp.Data` or `comfree_warp.Data`.
          world: index of the world, from 0.
          step: steps taken so far.

        Returns:
          whether it was added.

        Raises:
          SettingError: `world`: the data has no such world, or is not batched.
        """
        index = check_world(d, world)
        return self._due(lambda: world_time(d, index)) and self._add(read_world(d, index), step)

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

    def _due(self, read_time: Callable[[], float]) -> bool:
        """Whether a state is to be recorded, whose simulated time in s is read where it counts.

        The first one is, and the first after a reset, and one whose time is no number.
        """
        if self.problem is not None or self._file.closed:
            return False
        if not self._period:
            return True
        went_on = self._advance(float(read_time()))
        return not went_on or self._at >= self._next_at - self._slack

    def _advance(self, simulated: float) -> bool:
        """Move the recording time on by the simulated time, s; whether that went on as well.

        It did not at the start, where a reset put it back, and where it is no number.
        """
        at = self._origin + 1e9 * (simulated - self._start)
        if self._at <= at < MAX_TIME:
            self._at = round(at)
            return True
        if math.isfinite(simulated):
            self._origin, self._start = self._at, simulated
        return False

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


def _model_files(model: Model | Packet) -> dict[str, bytes]:
    """The attachments that a model makes."""
    if isinstance(model, mujoco.MjModel):
        return _within_limit({MODEL_MJB: _binary(model)})
    if not isinstance(model, Mapping) or model["kind"] == "model_path":
        source = model["path"] if isinstance(model, Mapping) else model
        try:
            try:
                model = model_packet(source)
            except ValueError:  # an MJB, or a model that XML does not bring across
                return _within_limit({MODEL_MJB: _binary(_compiled(source))})
        except (OSError, TypeError, ValueError, mujoco.FatalError) as error:
            reason = " ".join(str(error).split())
            raise SettingError("record", f"the model cannot be recorded: {reason}") from None
    files = {MODEL_XML: model["xml"].encode()}
    return _within_limit(
        files | {ASSETS + name: data for name, data in (model.get("assets") or {}).items()}
    )


def _compiled(source: Model) -> mujoco.MjModel:
    if isinstance(source, mujoco.MjSpec):
        return source.copy().compile()
    if is_mjcf(source):
        return mujoco.MjModel.from_xml_string(source)
    return load_model({"kind": "model_path", "path": os.fspath(source)})


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
