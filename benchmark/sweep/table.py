"""The table of a sweep: a JSON line per case, appended when the case ends, by one program only."""

import fcntl
import json
import math
import os
from pathlib import Path
from typing import Any

from benchmark.sweep.cases import KINDS
from mjsim.errors import SettingError

FORMAT = "sweep/1"
NEEDED = {
    **dict.fromkeys(("case", "engine"), str),
    **dict.fromkeys(("model", "scene", "error", "law"), (str, type(None))),
    "measured": dict,
}
SETTINGS = tuple(name for name, kind in KINDS.items() if kind in (int, float))
# Of a case that `overflow` ended in, contacts or constraint rows did not fit the buffers.
STATUSES = ("done", "diverged", "overflow", "failed", "crashed", "timeout")


def read_rows(path: Path) -> list[dict[str, Any]]:
    """All whole rows; a last line without its end is one that was being written, and is left out.

    Raises:
      SettingError: the file is something else.
    """
    try:
        text = path.read_text()
    except OSError as error:
        raise SettingError("table", f"{str(path)!r} cannot be read: {error}") from None
    rows = []
    for number, line in enumerate(text[: text.rfind("\n") + 1].splitlines(), start=1):
        try:
            # Rows from before comfree had two laws, or buffers grew, name none.
            row = {"law": None, "passes": None, "fixed_buffers": True} | json.loads(line)
            if row["format"] != FORMAT or row["status"] not in STATUSES:
                raise ValueError
            if not all(isinstance(row[name], kind) for name, kind in NEEDED.items()):
                raise ValueError
            _check_numbers([*row["measured"].values(), *(row[name] for name in SETTINGS)])
            rows.append(row)
        except (ValueError, TypeError, KeyError, RecursionError):
            raise SettingError("table", f"{path}, line {number} is no row of a sweep") from None
    return rows


def _check_numbers(values: list[object]) -> None:
    """Raises ValueError: one is neither a finite number nor None."""
    for value in values:
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if value is not None and not (number and math.isfinite(value)):
            raise ValueError


class CaseTable:
    """A table open for appending, which no other program can open meanwhile.

    Attributes:
      rows: those that are in it.

    Raises:
      SettingError: it cannot be opened, is in use, or is something else.
    """

    def __init__(self, path: Path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("a+b")
        except OSError as error:
            raise SettingError("table", f"{str(path)!r} cannot be written: {error}") from None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            raise SettingError("table", f"{path} is in use: another sweep writes it") from None
        try:
            self.rows = read_rows(path)
        except SettingError:
            self._file.close()
            raise
        # Without the rest of a line that a crash cut off, the next row starts on its own.
        end = path.read_bytes().rfind(b"\n") + 1
        self._file.truncate(end)

    def __enter__(self) -> "CaseTable":
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()

    def append(self, row: dict[str, Any]) -> None:
        """Add a row; it is on the disk when this returns."""
        self._file.write(json.dumps({"format": FORMAT, **row}, allow_nan=False).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        self.rows.append(row)
