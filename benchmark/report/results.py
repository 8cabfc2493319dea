"""Result files: which are read, what is refused, and whose rows are reported."""

import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmark.common.measuring import ResultRow
from mjsim.errors import SettingError

SUITES = {"speed/1": "speed", "fidelity/1": "fidelity"}

# What is needed of a file, by key: a type, or the keys of the dict that is there.
NUMBER, ANY_NUMBER, TEXT = (int, float), (int, float, type(None)), (str,)
ANY_TEXT = (str, type(None))
SPREAD = {"median": NUMBER, "q1": NUMBER, "q3": NUMBER}
MEAN = {"mean": NUMBER, "p95": NUMBER}
DOCUMENT = {"date": TEXT, "commit": TEXT, "command": TEXT, "level": TEXT, "machine": {"cpu": TEXT}}
NAMES = {"scene": TEXT, "contender": TEXT, "device": TEXT, "engine": TEXT}
STEP = {
    **NAMES,
    "nworld": (int,),
    "valid": (bool,),
    "invalid": ANY_TEXT,
    "family": ANY_TEXT,
    "time_per_step": SPREAD,
    "contacts": MEAN,
}
STREAM = {**NAMES, "time_per_step": SPREAD, "over_none": SPREAD}
ERROR = {
    **NAMES,
    "quantity": TEXT,
    "unit": TEXT,
    "headline": (bool,),
    "timestep": NUMBER,
    "error": ANY_NUMBER,
    "error_kind": TEXT,
    "cost": ANY_NUMBER,
    "invalid": ANY_TEXT,
}
SKIP = {"scene": TEXT, "contender": TEXT, "reason": TEXT}
STABILITY = {
    "scene": TEXT,
    "contender": TEXT,
    "device": TEXT,
    "largest_timestep": ANY_NUMBER,
    "died": (list,),
}


@dataclasses.dataclass(frozen=True)
class Results:
    """What is reported.

    Attributes:
      sources: name and document of each file.
      speed: rows of the speed suite.
      errors: rows of the fidelity suite.
      stability: per scene and contender, from the fidelity suite.
      skipped: what either left out.
    """

    sources: tuple[tuple[str, dict[str, Any]], ...]
    speed: tuple[ResultRow, ...]
    errors: tuple[ResultRow, ...]
    stability: tuple[ResultRow, ...]
    skipped: tuple[ResultRow, ...]


def check(found: object, needed: object, where: str) -> None:
    """Refuse what lacks a key, or has another type there.

    Raises:
      SettingError: naming it.
    """
    if isinstance(needed, dict):
        if not isinstance(found, dict):
            raise SettingError("report", f"{where} is no object")
        for key, inner in needed.items():
            if key not in found:
                raise SettingError("report", f"{where} has no {key!r}")
            check(found[key], inner, f"{where}, {key!r}")
        return
    fits = isinstance(found, needed) and not (isinstance(found, bool) and bool not in needed)
    if isinstance(found, float):
        fits = fits and math.isfinite(found)
    if not fits:
        allowed = " or ".join(kind.__name__ for kind in needed)
        raise SettingError("report", f"{where} is {str(found)[:80]!r}, not {allowed}")


def load(path: Path) -> dict[str, Any]:
    """A document of either suite.

    Raises:
      SettingError: it cannot be read, or is something else.
    """
    try:
        document = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise SettingError("report", f"{str(path)!r} cannot be read: {error}") from None
    suite = SUITES.get(str(document.get("format"))) if isinstance(document, dict) else None
    if suite is None:
        raise SettingError("report", f"{str(path)!r} is of neither suite: {', '.join(SUITES)}")
    check(document, DOCUMENT, path.name)
    lists = {"speed": ("benchmarks", "skipped"), "fidelity": ("rows", "stability", "skipped")}
    check(document, dict.fromkeys(lists[suite], (list,)), path.name)
    for number, row in enumerate(document["skipped"]):
        check(row, SKIP, f"{path.name}, skipped {number}")
    if suite == "speed":
        for number, benchmark in enumerate(document["benchmarks"]):
            where = f"{path.name}, benchmark {number}"
            check(benchmark, {"extra_info": {"kind": TEXT}}, where)
            row = benchmark["extra_info"]
            check(row, STEP if row["kind"] == "step" else STREAM, where)
            if not row["time_per_step"]["median"] > 0:
                raise SettingError("report", f"{where} took no time")
    else:
        for number, row in enumerate(document["rows"]):
            check(row, ERROR, f"{path.name}, row {number}")
            if not row["timestep"] > 0:
                raise SettingError("report", f"{path.name}, row {number}: no timestep")
        for number, row in enumerate(document["stability"]):
            check(row, STABILITY, f"{path.name}, stability {number}")
    return document


def merge(sources: Sequence[tuple[str, dict[str, Any]]]) -> Results:
    """Of a scene in several files of a suite, the last one's rows: those of two took no turns."""
    parts: dict[str, dict[str, dict[str, list[ResultRow]]]] = {"speed": {}, "fidelity": {}}
    for _, document in sources:
        suite = SUITES[document["format"]]
        rows = document.get("rows") or [it["extra_info"] for it in document.get("benchmarks", [])]
        scenes: dict[str, dict[str, list[ResultRow]]] = {}
        named = {"rows": rows, **{key: document.get(key, []) for key in ("stability", "skipped")}}
        for key, several in named.items():
            for row in several:
                scenes.setdefault(row["scene"], {}).setdefault(key, []).append(row)
        parts[suite] |= scenes
    gathered = {
        suite: {
            key: tuple(row for scene in scenes.values() for row in scene.get(key, ()))
            for key in ("rows", "stability", "skipped")
        }
        for suite, scenes in parts.items()
    }
    return Results(
        tuple(sources),
        gathered["speed"]["rows"],
        gathered["fidelity"]["rows"],
        gathered["fidelity"]["stability"],
        gathered["speed"]["skipped"] + gathered["fidelity"]["skipped"],
    )


def newest(folder: Path) -> list[Path]:
    """The newest whole run of each suite, or the newest at all where none is whole; a sweep too.

    Raises:
      SettingError: there are none, or one on the way there cannot be read.
    """
    found = []
    for suite in SUITES.values():
        paths = sorted(folder.glob(f"{suite}-*.json"), key=lambda path: -path.stat().st_mtime)
        whole = (path for path in paths if not why_partial(load(path)))
        chosen = next(whole, paths[0] if paths else None)
        if chosen:
            found.append(chosen)
    found += sorted(folder.glob("sweep-*.jsonl"), key=lambda path: path.stat().st_mtime)[-1:]
    if not found:
        raise SettingError("report", f"no results in {folder}: make bench, make fidelity")
    return found


def made_with(document: dict[str, Any]) -> str:
    """The machine and the versions, in a line."""
    machine = document["machine"]
    parts = [str(machine["cpu"]), f"{machine.get('cores', '?')} cores"]
    devices = machine.get("devices")
    if isinstance(devices, dict):
        parts += [f"{alias}: {name}" for alias, name in devices.items() if alias != "cpu"]
    parts.append(str(machine.get("system", "")))
    versions = document.get("versions")
    if not isinstance(versions, dict):
        rows = document.get("benchmarks") or [{}]
        versions = rows[0].get("extra_info", {}).get("definition", {}).get("versions", {})
    if "python" in machine:
        versions = {"python": machine["python"], **versions}
    return ", ".join(part for part in (*parts, *(f"{k} {v}" for k, v in versions.items())) if part)


def why_partial(document: dict[str, Any]) -> str:
    """What makes a run less than whole, or ""."""
    ended, selected = document.get("ended", "complete"), document.get("selected")
    told = [f"only {selected}"] if selected else []
    if document["level"] == "quick":
        told.append("a quick cut")
    if ended != "complete":
        told.append(f"ended before it was done, by {ended or 'a crash'}")
    return "; ".join(told)
