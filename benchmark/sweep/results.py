"""What a sweep found, from the rows of its table: pure functions.

The value of a measured quantity is better the smaller it is, but for speeds. Rows that are not done
never win.
"""

import dataclasses
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from benchmark.sweep.cases import LAW, swept

FASTER = "steps_per_second"
FLOOR = 1e-3  # values up to this are alike

CaseRow = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class BestCase:
    """The best case of a subject, by one quantity.

    Attributes:
      subject: the model or scene.
      quantity: by which.
      row: of the case.
      value: of the quantity.
      of: cases that have one.
    """

    subject: str
    quantity: str
    row: CaseRow
    value: float
    of: int


@dataclasses.dataclass(frozen=True)
class HeatMap:
    """A quantity of a subject over two swept settings.

    Attributes:
      subject: the model or scene.
      quantity: which.
      across: name of the setting of columns.
      down: that of rows.
      columns: its values.
      rows: its values.
      cells: median over all that is swept else; None where nothing is done.
    """

    subject: str
    quantity: str
    across: str
    down: str
    columns: tuple[Any, ...]
    rows: tuple[Any, ...]
    cells: tuple[tuple[float | None, ...], ...]


def subject_of(row: CaseRow) -> str:
    return row["model"] or row["scene"]


def _groups(rows: Iterable[CaseRow]) -> dict[tuple[str, str], list[CaseRow]]:
    found: dict[tuple[str, str], list[CaseRow]] = {}
    for row in rows:
        if row["status"] == "done":
            for quantity, value in row["measured"].items():
                if value is not None:
                    found.setdefault((subject_of(row), quantity), []).append(row)
    return found


def _cost(row: CaseRow, quantity: str) -> float:
    value = row["measured"][quantity]
    return -value if quantity == FASTER else value


def best_cases(rows: Iterable[CaseRow]) -> list[BestCase]:
    """Of each subject and quantity."""
    return [
        BestCase(subject, quantity, row, row["measured"][quantity], len(group))
        for (subject, quantity), group in _groups(rows).items()
        for row in [min(group, key=lambda it: _cost(it, quantity))]
    ]


def chosen(row: CaseRow, names: Sequence[str]) -> str:
    """The settings of a row by which it differs: "stiffness 0.1, damping 0.01"."""
    return ", ".join([row["engine"], *told({name: row[name] for name in names})])


def told(settings: Mapping[str, Any]) -> list[str]:
    """The settings that have a value: ["law paper", "stiffness 0.1"]."""
    return [
        f"{name} {value}" if isinstance(value, str) else f"{name} {value:g}"
        for name, value in settings.items()
        if value is not None
    ]


def heat_maps(rows: Sequence[CaseRow]) -> list[HeatMap]:
    """Of each subject and quantity over the first two swept settings, those of the law first."""
    numeric = [name for name in swept(rows) if name != "law"]
    names = sorted(numeric, key=lambda name: name not in LAW)
    if len(names) < 2:
        return []
    down, across = names[:2]
    found = []
    for (subject, quantity), group in _groups(rows).items():
        tried = [it for it in rows if subject_of(it) == subject]
        ticks = [
            tuple(sorted({it[name] for it in tried if it[name] is not None}))
            for name in (down, across)
        ]
        if min(map(len, ticks)) < 2:
            continue
        cells = []
        for one in ticks[0]:
            line = []
            for other in ticks[1]:
                values = [
                    it["measured"][quantity]
                    for it in group
                    if (it[down], it[across]) == (one, other)
                ]
                line.append(statistics.median(values) if values else None)
            cells.append(tuple(line))
        # Not of settings that no case has both of, such as stiffness and passes.
        if any(cell is not None for line in cells for cell in line):
            found.append(HeatMap(subject, quantity, across, down, ticks[1], ticks[0], tuple(cells)))
    return found


def best_law(rows: Sequence[CaseRow]) -> tuple[dict[str, Any], float] | None:
    """The law with its parameters that suits all subjects best, and how far from the best in each.

    By the geometric mean, over all errors of all subjects, of the error over the smallest; of laws
    that are done everywhere. None where nothing of that kind was swept.
    """
    if not any(name in LAW for name in swept(rows)):
        return None
    ratios: dict[tuple[Any, ...], list[float]] = {}
    groups = {
        key: group
        for key, group in _groups(it for it in rows if it["engine"] == "comfree").items()
        if key[1] != FASTER
    }
    for (_, quantity), group in groups.items():
        pairs: dict[tuple[Any, ...], list[float]] = {}
        for row in group:
            value = max(row["measured"][quantity], FLOOR)
            pairs.setdefault(tuple(row[name] for name in LAW), []).append(value)
        least = min(statistics.median(values) for values in pairs.values())
        for pair, values in pairs.items():
            ratios.setdefault(pair, []).append(statistics.median(values) / least)
    whole = {pair: it for pair, it in ratios.items() if len(it) == len(groups)}
    if not whole:
        return None
    means = {pair: math.exp(statistics.fmean(map(math.log, it))) for pair, it in whole.items()}
    pair = min(means, key=means.get)
    return dict(zip(LAW, pair, strict=True)), means[pair]
