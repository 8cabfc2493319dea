"""Hold a run of the speed suite against a stored one: make bench-compare, and --ranks.

    python -m benchmark.speed.compare           # the newest run against the one before it
    python -m benchmark.speed.compare OLD.json NEW.json --ratio 1.1
    python -m benchmark.speed.compare OLD.json NEW.json --ranks

Rows are compared where their definitions agree, by the ratio of medians. A row is slower when it is
beyond the ratio by the clock, and in units of the yardstick that was measured with it too, since a
machine that was slower is no slower program, and when the 95 % intervals of both medians do not
overlap. Where only some of that holds, nothing is known.

Exit status: 0 alike, 1 slower (with --ranks: other ranks), 2 wrong use.
"""

import sys

from mjsim import interrupts

if __name__ == "__main__":
    interrupts.install()

import dataclasses
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table

from benchmark.common.machine import RESULTS
from benchmark.common.measuring import ResultRow, differences, median_interval
from mjsim.cli import variables
from mjsim.errors import SettingError

TIE = 1.05  # contenders whose medians are closer than this share a rank

Key = tuple[str, int, str, str]


def key_of(row: ResultRow) -> Key:
    """What a row is of: scene, number of worlds, device, contender."""
    return (row["scene"], row["nworld"], row["device"], row["contender"])


def name_of(key: Key) -> str:
    scene, nworld, device, contender = key
    return f"{contender} on {device}: {scene}, {nworld} world(s)"


# ------------------------------------------------------------------------------------- comparison


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What is to be said of a row.

    Attributes:
      key: of the row.
      kind: "slower", "faster", "alike", "unclear", or "not compared".
      ratio: median of the new run over that of the old one; None where not compared.
      detail: why it was not compared.
      drift: the yardstick of the new run over that of the old one.
    """

    key: Key
    kind: str
    ratio: float | None = None
    detail: str = ""
    drift: float = 1.0


def compare(old: Sequence[ResultRow], new: Sequence[ResultRow], limit: float) -> list[Verdict]:
    """A verdict per row of either run.

    Args:
      old: rows of the stored run.
      new: rows of this run.
      limit: ratio of medians beyond which a row is slower, or under its inverse faster.
    """
    before = {key_of(row): row for row in old}
    after = {key_of(row): row for row in new}
    return [_judge(key, before.get(key), after.get(key), limit) for key in before | after]


def _judge(key: Key, old: ResultRow | None, new: ResultRow | None, limit: float) -> Verdict:
    if old is None or new is None:
        which = "stored" if old is None else "new"
        return Verdict(key, "not compared", detail=f"the {which} run has no such row")
    for which, row in (("stored", old), ("new", new)):
        if not row["valid"]:
            return Verdict(key, "not compared", detail=f"invalid in the {which} run")
    if old["series"] != new["series"]:
        changed = "; ".join(differences(old["definition"], new["definition"]))
        return Verdict(key, "not compared", detail=f"another series: {changed}")
    one, other = old["time_per_step"], new["time_per_step"]
    drift = 1.0
    if key[2] == "cpu" and old["yardstick"] and new["yardstick"]:
        drift = new["yardstick"] / old["yardstick"]
    ratio = other["median"] / one["median"]
    both = (ratio, ratio / drift)
    kind = "alike"
    if max(both) > limit:
        apart = median_interval(other)[0] / max(1.0, drift) > median_interval(one)[1]
        kind = "slower" if min(both) > limit and apart else "unclear"
    elif min(both) < 1.0 / limit:
        apart = median_interval(other)[1] / min(1.0, drift) < median_interval(one)[0]
        kind = "faster" if max(both) < 1.0 / limit and apart else "unclear"
    return Verdict(key, kind, ratio, drift=drift)


# ------------------------------------------------------------------------------------------ ranks


def ranking(rows: Sequence[ResultRow]) -> dict[tuple[str, int], list[ResultRow]]:
    """Valid rows by scene and number of worlds, the fastest first."""
    groups: dict[tuple[str, int], list[ResultRow]] = {}
    for row in rows:
        if row["valid"]:
            groups.setdefault((row["scene"], row["nworld"]), []).append(row)
    return {
        key: sorted(group, key=lambda row: row["time_per_step"]["median"])
        for key, group in groups.items()
    }


def other_ranks(
    old: Sequence[ResultRow], new: Sequence[ResultRow]
) -> dict[tuple[str, int], list[str]]:
    """By group of both runs, the pairs of contenders whose order is another: "a before b".

    A pair closer than `TIE` in either run is a tie, and has no order.
    """
    before, after = ranking(old), ranking(new)
    found = {}
    for group in before.keys() & after.keys():
        medians = [
            {(row["contender"], row["device"]): row["time_per_step"]["median"] for row in rows}
            for rows in (before[group], after[group])
        ]
        names = sorted(medians[0].keys() & medians[1].keys())
        found[group] = [
            f"{' on '.join(one)} and {' on '.join(other)}"
            for one in names
            for other in names
            if medians[0][one] * TIE < medians[0][other]
            and medians[1][other] * TIE < medians[1][one]
        ]
    return found


# ----------------------------------------------------------------------------------------- tables


def _standing_text(row: ResultRow, best: float) -> str:
    median = row["time_per_step"]["median"]
    device = "" if row["device"] == "cpu" else f" on {row['device']}"
    contacts = f", {row['contacts']['mean']:.0f} contacts" if "contacts" in row else ""
    return f"{row['contender']}{device} x{median / best:.2f}{contacts}"


def ranking_table(rows: Sequence[ResultRow]) -> Table:
    """A line per scene and number of worlds: who is fastest, and how much slower the others are."""
    table = Table("scene", "worlds", "fastest, us/step", "ranks", "invalid", box=MARKDOWN)
    ranked = ranking(rows)
    for group in dict.fromkeys((row["scene"], row["nworld"]) for row in rows):
        valid = ranked.get(group, [])
        best = valid[0]["time_per_step"]["median"] if valid else 1.0
        invalid = [
            f"{row['contender']}: {row['invalid']}"
            for row in rows
            if (row["scene"], row["nworld"]) == group and not row["valid"]
        ]
        table.add_row(
            group[0],
            str(group[1]),
            f"{1e6 * best:,.0f}" if valid else "",
            "; ".join(_standing_text(row, best) for row in valid),
            "; ".join(invalid),
        )
    return table


def _slope(fit: ResultRow | None) -> str:
    return f"{fit['slope']:.2f} +- {fit['standard_error']:.2f}" if fit else ""


def scaling_table(fits: Sequence[ResultRow]) -> Table:
    """A line per fitted slope."""
    table = Table(
        *("against", "scene", "contender", "log-log slope", "from 100 on", "points"), box=MARKDOWN
    )
    for fit in fits:
        table.add_row(
            fit["against"],
            fit["scene"],
            f"{fit['contender']} on {fit['device']}",
            _slope(fit["fit"]),
            _slope(fit["fit_from_100"]),
            ", ".join(f"{x:,.0f}: {1e3 * y:,.3g} ms" for x, y in fit["points"]),
        )
    return table


# ---------------------------------------------------------------------------------------- the tool


def load(path: Path) -> dict[str, Any]:
    """A run's document.

    Raises:
      SettingError: it is no run of the speed suite.
    """
    try:
        document = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise SettingError("run", f"{str(path)!r} cannot be read: {error}") from None
    if not isinstance(document, dict) or document.get("format") != "speed/1":
        raise SettingError("run", f"{str(path)!r} is no run of the speed suite: make bench")
    return document


def rows_of(document: dict[str, Any]) -> list[ResultRow]:
    return [benchmark["extra_info"] for benchmark in document["benchmarks"]]


def with_newest(given: Sequence[Path]) -> list[Path]:
    """The two runs to compare, the stored one first; what is not given is the newest there is.

    Raises:
      SettingError: there are fewer, or they are the same.
    """
    count, taken = 2 - len(given), {path.resolve() for path in given}
    found = sorted(RESULTS.glob("speed-*.json"), key=lambda path: path.stat().st_mtime)
    found = [path for path in found if path.resolve() not in taken]
    if len(found) < count or len(taken) < len(given):
        raise SettingError(
            "run", f"two different ones are needed; {len(found)} more in {RESULTS}: make bench"
        )
    return [*given, *found[len(found) - count :]]


def show_machines(console: Console, old: dict[str, Any], new: dict[str, Any]) -> None:
    for path, document in (("stored", old), ("new", new)):
        machine = document["machine"]
        console.print(
            f"{path}: {document['date']}, commit {document['commit'][:12]}, {machine['node']}, "
            f"{machine['cores']} cores of {machine['cpu']}, load {machine['load_average']:.1f}"
        )
    changed = differences(
        *({k: v for k, v in it["machine"].items() if k != "load_average"} for it in (old, new))
    )
    if changed:
        console.print(f"THE MACHINES DIFFER: {'; '.join(changed)}")


def show_comparison(console: Console, verdicts: Sequence[Verdict], limit: float) -> bool:
    """Print the verdicts; whether a row is slower."""
    table = Table("row", f"new / stored, limit {limit:g}", "in yardsticks", "verdict", box=MARKDOWN)
    for verdict in sorted(verdicts, key=lambda it: -(it.ratio or 0.0)):
        ratios = ["", ""]
        if verdict.ratio:
            ratios = [f"{verdict.ratio:.3f}", f"{verdict.ratio / verdict.drift:.3f}"]
        said = verdict.kind.upper() if verdict.kind == "slower" else verdict.kind
        told = f"{said}: {verdict.detail}" if verdict.detail else said
        table.add_row(name_of(verdict.key), *ratios, told)
    console.print(table)
    ratios = [verdict.ratio for verdict in verdicts if verdict.ratio]
    slower = sum(verdict.kind == "slower" for verdict in verdicts)
    middle = f"; median ratio {statistics.median(ratios):.3f}" if ratios else ""
    console.print(f"{len(ratios)} of {len(verdicts)} rows compared{middle}; {slower} slower")
    return slower > 0


def show_ranks(console: Console, old: Sequence[ResultRow], new: Sequence[ResultRow]) -> bool:
    """Print who is faster in both runs; whether some order is another."""
    before, after, changed = ranking(old), ranking(new), other_ranks(old, new)
    table = Table("scene", "worlds", "stored", "new", "ranks", box=MARKDOWN)
    for group in before:
        if group in changed:
            told = [
                " < ".join(row["contender"] for row in ranked[group]) for ranked in (before, after)
            ]
            verdict = f"OTHER: {'; '.join(changed[group])}" if changed[group] else "alike"
            table.add_row(group[0], str(group[1]), *told, verdict)
    console.print(table)
    different = sum(bool(pairs) for pairs in changed.values())
    console.print(
        f"{len(changed)} groups in both runs, {different} with other ranks (closer than "
        f"{100 * (TIE - 1):.0f} % is a tie)"
    )
    return different > 0


@click.command(help=__doc__.split("\n\n")[0])
@click.argument("runs", nargs=-1, type=click.Path(path_type=Path))
@click.option("--ratio", default=1.15, show_default=True, help="Slower than this fails.")
@click.option("--ranks", is_flag=True, help="Compare the order of contenders, not their times.")
@click.pass_context
def main(ctx: click.Context, runs: tuple[Path, ...], ratio: float, ranks: bool) -> None:
    console = Console(width=None if sys.stdout.isatty() else 200, highlight=False)
    try:
        if len(runs) > 2:
            raise SettingError("run", f"{len(runs)} runs; two at most: the stored one, the new one")
        if ratio <= 1.0:
            raise SettingError("ratio", f"{ratio:g} is not above 1")
        paths = with_newest(runs)
        old, new = (load(path) for path in paths)
    except SettingError as error:
        raise click.UsageError(str(error), ctx) from error
    console.print(f"{paths[1]} against {paths[0]}", soft_wrap=True)
    show_machines(console, old, new)
    if ranks:
        steps = [[row for row in rows_of(it) if row["kind"] == "step"] for it in (old, new)]
        failed = show_ranks(console, *steps)
    else:
        failed = show_comparison(console, compare(rows_of(old), rows_of(new), ratio), ratio)
    sys.exit(failed)


if __name__ == "__main__":
    variables.warn_of_unknown()
    main()
