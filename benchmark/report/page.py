"""The report: stored results as one page and as a Markdown summary."""

import dataclasses
import html
import json
import math
import os
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmark.common.measuring import Row, scaling_fits
from benchmark.report import plots, standings
from benchmark.report.standings import Curves, Ranking, Standing, label_of
from benchmark.speed.compare import TIE
from benchmark.sweep import results as sweep_results
from benchmark.sweep.cases import swept
from benchmark.sweep.results import HeatMap
from benchmark.sweep.table import STATUSES, read_rows
from mjsim.errors import SettingError

OPENING, CLOSING = "<!-- made by: make report -->", "<!-- end of report -->"
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


# -------------------------------------------------------------------------------------- the files


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
    speed: tuple[Row, ...]
    errors: tuple[Row, ...]
    stability: tuple[Row, ...]
    skipped: tuple[Row, ...]


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
    parts: dict[str, dict[str, dict[str, list[Row]]]] = {"speed": {}, "fidelity": {}}
    for _, document in sources:
        suite = SUITES[document["format"]]
        rows = document.get("rows") or [it["extra_info"] for it in document.get("benchmarks", [])]
        scenes: dict[str, dict[str, list[Row]]] = {}
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
        whole = (path for path in paths if not partial(load(path)))
        chosen = next(whole, paths[0] if paths else None)
        if chosen:
            found.append(chosen)
    found += sorted(folder.glob("sweep-*.jsonl"), key=lambda path: path.stat().st_mtime)[-1:]
    if not found:
        raise SettingError("report", f"no results in {folder}: make bench, make fidelity")
    return found


# --------------------------------------------------------------------------------- what is told


@dataclasses.dataclass(frozen=True)
class Story:
    """What the page and the summary tell, of the same results.

    Attributes:
      results: of which.
      labels: of all contenders.
      speed: rankings.
      accuracy: rankings.
      curves: error over cost.
      fits: how time per step grows.
      sweeps: name and rows of each table of benchmark/sweep.py.
    """

    results: Results
    labels: tuple[str, ...]
    speed: tuple[Ranking, ...]
    accuracy: tuple[Ranking, ...]
    curves: tuple[Curves, ...]
    fits: tuple[Row, ...]
    sweeps: tuple[tuple[str, list[Row]], ...] = ()


def tell(results: Results, sweeps: Sequence[tuple[str, list[Row]]] = ()) -> Story:
    """Rank, and fit."""
    steps = [row for row in results.speed if row["kind"] == "step"]
    found = standings.curves(results.errors)
    return Story(
        results,
        tuple(dict.fromkeys(label_of(row) for row in [*steps, *results.errors])),
        tuple(standings.speed_rankings(steps)),
        tuple(standings.accuracy_rankings(found)),
        tuple(found),
        tuple(scaling_fits(steps)),
        tuple(sweeps),
    )


def headlines(story: Story) -> list[tuple[str, str]]:
    """Who wins, with the missing said: subject and text."""
    speed = standings.speed_sentences(story.speed) or ["Not measured: make bench."]
    accuracy = standings.accuracy_sentences(story.accuracy) or ["Not measured: make fidelity."]
    return [("Speed", " ".join(speed)), ("Accuracy", " ".join(accuracy))]


def worse(story: Story) -> list[str]:
    """Where comfree is worse than MuJoCo."""
    told = []
    pairs = standings.opponents(
        [
            row
            for row in (*story.results.speed, *story.results.errors)
            if row.get("kind") != "stream"
        ]
    )
    for subject, peer in pairs:
        for rankings in (story.speed, story.accuracy):
            told.append(standings.worse_sentence(rankings, subject, peer))
            told += standings.unranked_sentences(rankings, subject, peer)
        told += standings.stability_sentences(story.results.stability, subject, peer)
    found = [sentence for sentence in told if sentence]
    return found or ["No results of comfree beside MuJoCo."]


def invalid(story: Story) -> list[tuple[str, str, str]]:
    """Where, who and why; of the fidelity suite, all timesteps."""
    found = [
        (f"{ranking.scene}, {ranking.about}", it.label, it.reason)
        for ranking in story.speed
        for it in ranking.standings
        if it.reason
    ]
    for curve in story.curves:
        for label, points in curve.points.items():
            reasons: dict[str, list[float]] = {}
            for point in points:
                if point.reason:
                    reasons.setdefault(point.reason, []).append(point.timestep)
            for reason, timesteps in reasons.items():
                at = ", ".join(f"{it:g}" for it in timesteps)
                found.append((f"{curve.scene}, {curve.quantity}, h = {at} s", label, reason))
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


def partial(document: dict[str, Any]) -> str:
    """What makes a run less than whole, or ""."""
    ended, selected = document.get("ended", "complete"), document.get("selected")
    told = [f"only {selected}"] if selected else []
    if document["level"] == "quick":
        told.append("a quick cut")
    if ended != "complete":
        told.append(f"ended before it was done, by {ended or 'a crash'}")
    return "; ".join(told)


BEST_HEAD = ("model or scene", "by", "best case", "value", "of cases")


def best_lines(rows: list[Row]) -> list[tuple[str, ...]]:
    """The best case of a sweep, of each subject and quantity."""
    names = swept(rows)
    return [
        (
            it.subject,
            it.quantity,
            sweep_results.chosen(it.row, names),
            standings.significant(it.value),
            f"{it.of:,}",
        )
        for it in sweep_results.best_cases(rows)
    ]


def sweep_sentence(rows: list[Row]) -> str:
    """How many cases, how they ended, and what law suits all best."""
    counts = {status: sum(row["status"] == status for row in rows) for status in STATUSES}
    told = [f"{number:,} {status}" for status, number in counts.items() if number]
    sentence = f"{len(rows):,} cases: {', '.join(told) or 'none'}."
    law = sweep_results.best_law(rows)
    if law:
        sentence += (
            f" The law that suits all best: {', '.join(sweep_results.told(law[0]))}; its errors "
            f"are {standings.times(law[1])} times the smallest of each, in the geometric mean."
        )
    return sentence


def slope(fit: Row | None) -> str:
    return f"{fit['slope']:.2f} +- {fit['standard_error']:.2f}" if fit else "too few points"


def accuracy_row(ranking: Ranking) -> str:
    return f"{ranking.scene}: {ranking.about}"


# --------------------------------------------------------------------------------------- Markdown


def plain(text: object) -> str:
    """Text for Markdown, where nothing of it is markup."""
    return re.sub(r"([\\`*_\[\]<>|#~&$])", r"\\\1", " ".join(str(text).split()))


def markdown_table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> list[str]:
    """Cells are Markdown already."""
    told = [head, ["---"] * len(head), *lines]
    return [f"| {' | '.join(line)} |" for line in told] + [""]


def _speed_cell(found: Sequence[Standing | None]) -> str:
    cells = []
    for it in found:
        if it is None:
            cells.append("-")
        elif it.rank is None:
            cells.append("invalid")
        else:
            cells.append(f"**{it.ratio:.2f}**" if it.rank == 1 else f"{it.ratio:.2f}")
    return " / ".join(cells)


def _error_cell(ranking: Ranking, it: Standing | None) -> str:
    if it is None:
        return "-"
    if it.rank is None:
        return _unranked(it)
    value = plain(standings.quantity(it.value, ranking.unit))
    return f"**{value}**" if it.rank == 1 else f"{value} ({_ratio(ranking, it, 'x')})"


def _unranked(it: Standing) -> str:
    return "none" if it.reason == standings.NO_VALUE else "invalid"


def _ratio(ranking: Ranking, it: Standing, sign: str = "\N{MULTIPLICATION SIGN} ") -> str:
    """How many times the best; a best error that counts as none makes it a lower bound."""
    bound = "\N{GREATER-THAN OR EQUAL TO} " if ranking.ranked[0].value < ranking.floor else ""
    return f"{bound}{sign}{standings.times(it.ratio)}"


def summarise(story: Story) -> str:
    """The Markdown summary."""
    told = [OPENING, ""]
    for _, document in story.results.sources:
        told += [
            f"{plain(SUITES[document['format']]).capitalize()}: {plain(made_with(document))}; "
            f"{plain(document['date'])}, commit {plain(document['commit'][:12])}, "
            f"level {plain(document['level'])}: {plain(document['command'])}. "
            f"{plain(partial(document))}".rstrip(),
            "",
        ]
    told += [f"- **{subject}.** {plain(text)}" for subject, text in headlines(story)] + [""]
    told += ["**Where comfree is worse than MuJoCo**", ""]
    told += [f"- {plain(sentence)}" for sentence in worse(story)] + [""]
    told += ["<details><summary>Scene by scene, scaling, invalid and skipped rows</summary>", ""]
    if story.speed:
        told += _markdown_speed(story)
    if story.accuracy:
        told += _markdown_accuracy(story)
    contacts = [fit for fit in story.fits if fit["against"] == "contacts"]
    if contacts:
        told += ["Time per step against contacts, fitted log-log slope:", ""]
        told += markdown_table(
            ("growing scene", "contender", "slope", "from 100 contacts on"),
            [
                (
                    plain(fit["scene"]),
                    plain(label_of(fit)),
                    slope(fit["fit"]),
                    slope(fit["fit_from_100"]),
                )
                for fit in contacts
            ],
        )
    for name, rows in story.sweeps:
        told += [f"Sweep {plain(name)}: {plain(sweep_sentence(rows))}", ""]
        told += markdown_table(BEST_HEAD, [tuple(map(plain, line)) for line in best_lines(rows)])
    told += ["Invalid or without a value, never ranked:", ""]
    told += [f"- {plain(f'{where}: {who}: {why}')}" for where, who, why in invalid(story)] or [
        "- nothing"
    ]
    told += ["", "Skipped:", ""]
    told += [
        f"- {plain(f'{who}: {count} row(s) of {where}: {reason}')}"
        for reason, who, count, where in standings.told_skips(story.results.skipped)
    ] or ["- nothing"]
    return "\n".join([*told, "", "</details>", "", CLOSING]) + "\n"


def put_into(text: str, summary: str, where: str) -> str:
    """A Markdown text with the summary in the place of the one that is there.

    Raises:
      SettingError: there is none.
    """
    before, opening, rest = text.partition(OPENING)
    _, closing, after = rest.partition(CLOSING)
    if not (opening and closing):
        raise SettingError("into", f"{where} has no {OPENING} ... {CLOSING}")
    return before + summary.rstrip("\n") + after


def _markdown_speed(story: Story) -> list[str]:
    scenes: dict[str, list[Ranking]] = {}
    for ranking in story.speed:
        scenes.setdefault(ranking.scene, []).append(ranking)
    labels = [it for it in story.labels if any(ranking.of(it) for ranking in story.speed)]
    lines = []
    for scene, rankings in scenes.items():
        worlds = " / ".join(ranking.about.partition(" ")[0] for ranking in rankings)
        best = " / ".join(
            standings.quantity(it.ranked[0].value, it.unit) if it.ranked else "-" for it in rankings
        )
        cells = [_speed_cell([ranking.of(label) for ranking in rankings]) for label in labels]
        lines.append((plain(scene), worlds, best, *cells))
    return [
        "Time per step of all worlds, over the fastest (bold: the fastest, or within "
        f"{100 * (TIE - 1):.0f} %):",
        "",
        *markdown_table(("scene", "worlds", "fastest", *map(plain, labels)), lines),
    ]


def _markdown_accuracy(story: Story) -> list[str]:
    labels = [it for it in story.labels if any(ranking.of(it) for ranking in story.accuracy)]
    shown = [it for it in story.accuracy if not it.undecided or len(it.ranked) < len(it.standings)]
    alike = [it for it in story.accuracy if it not in shown]
    told = [
        f"Error of the worst variant at {standings.timesteps(story.accuracy)}, and how many times "
        f"the smallest (bold: the smallest, or within {100 * (TIE - 1):.0f} %):",
        "",
        *markdown_table(
            ("scene", *map(plain, labels)),
            [
                (plain(accuracy_row(it)), *(_error_cell(it, it.of(label)) for label in labels))
                for it in shown
            ],
        ),
    ]
    if alike:
        names = "; ".join(accuracy_row(it) for it in alike)
        told += [f"No difference: {plain(names)}.", ""]
    return told


# ------------------------------------------------------------------------------------------- HTML


class Markup(str):
    """Text that is HTML already; all other text is escaped on its way into an element."""


def element(tag: str, *children: object, **attributes: object) -> Markup:
    """An HTML element; `class_` is the attribute class."""
    told = "".join(
        f' {name.rstrip("_")}="{html.escape(str(value))}"' for name, value in attributes.items()
    )
    return Markup(f"<{tag}{told}>{''.join(map(_escaped, children))}</{tag}>")


def _escaped(child: object) -> str:
    return child if isinstance(child, Markup) else html.escape(str(child))


def joined(parts: Iterable[object]) -> Markup:
    return Markup("".join(map(_escaped, parts)))


def table(head: Sequence[object], lines: Iterable[Sequence[object]], class_: str = "") -> Markup:
    """Cells that are no td yet become one."""
    body = joined(
        element("tr", *(it if _is_cell(it) else element("td", it) for it in line)) for line in lines
    )
    heads = [it if _is_cell(it) else element("th", it) for it in head]
    return element(
        "div",
        element(
            "table", element("thead", element("tr", *heads)), element("tbody", body), class_=class_
        ),
        class_="wide",
    )


def _is_cell(it: object) -> bool:
    return isinstance(it, Markup) and it.startswith(("<td", "<th"))


def bullets(lines: Iterable[object]) -> Markup:
    return element("ul", *(element("li", line) for line in lines))


def legend(story: Story, colours: dict[str, str]) -> Markup:
    return element(
        "p",
        *(
            element("span", label, class_="chip", style=f"background:{colours[label]}")
            for label in story.labels
        ),
        class_="legend",
    )


def ranking_table(
    rankings: Sequence[Ranking],
    labels: Sequence[str],
    colours: dict[str, str],
    cell: Callable[[Ranking, Standing], Markup],
) -> Markup:
    """A line per ranking, a column per label; the best cell has its label's colour."""
    labels = [label for label in labels if any(ranking.of(label) for ranking in rankings)]
    head = [
        "scene",
        "",
        *(element("th", label, style=f"color:{colours[label]}") for label in labels),
    ]
    lines, before = [], None
    for ranking in rankings:
        scene = "" if ranking.scene == before else ranking.scene
        before = ranking.scene
        first = element("td", scene, class_="scene")
        about = element("td", ranking.about, class_="about")
        found = [(label, ranking.of(label)) for label in labels]
        cells = [
            _ranked_cell(ranking, it, colours[label], cell) if it else element("td", "-")
            for label, it in found
        ]
        lines.append([first, about, *cells])
    return table(head, lines, "ranking")


def _ranked_cell(
    ranking: Ranking, it: Standing, colour: str, cell: Callable[[Ranking, Standing], Markup]
) -> Markup:
    if it.rank is None:
        return element("td", _unranked(it), class_="bad", title=it.reason)
    if ranking.undecided:
        return element("td", cell(ranking, it), class_="tie")
    if it.rank == 1:
        return element("td", cell(ranking, it), class_="best", style=f"background:{colour}")
    # A bar to a ratio of 1,000, in decades.
    width = min(100.0, 100 * math.log10(min(it.ratio, 1e3)) / 3)
    bar = f"background:linear-gradient(to right,{colour}38 {width:.0f}%,transparent {width:.0f}%)"
    return element("td", cell(ranking, it), style=bar)


def speed_cell(ranking: Ranking, it: Standing) -> Markup:
    contacts = "" if it.contacts is None else f"{it.contacts:,.0f} contacts"
    time = standings.quantity(it.value, ranking.unit)
    if it.rank == 1:
        return joined([element("b", time), " ", element("small", contacts)])
    small = element("small", ", ".join(filter(None, (time, contacts))))
    return joined([element("b", _ratio(ranking, it)), " ", small])


def error_cell(ranking: Ranking, it: Standing) -> Markup:
    value = standings.quantity(it.value, ranking.unit)
    if it.rank == 1:
        return element("b", value)
    return joined([element("b", _ratio(ranking, it)), " ", element("small", value)])


def tally_table(story: Story, colours: dict[str, str]) -> Markup:
    """Speed and accuracy side by side, a line per label."""
    speed = {it.label: it for it in standings.tallies(story.speed)}
    accuracy = {it.label: it for it in standings.tallies(story.accuracy)}
    lines = []
    for label in story.labels:
        cells: list[object] = [
            element(
                "td", element("span", label, class_="chip", style=f"background:{colours[label]}")
            )
        ]
        for tally, best in ((speed, "fastest"), (accuracy, "smallest error")):
            it = tally.get(label)
            if it is None:
                cells += ["not compared", "-", "-"]
                continue
            share = 100 * it.first / it.compared
            bar = (
                f"background:linear-gradient(to right,{colours[label]}66 {share:.0f}%,"
                f"transparent {share:.0f}%)"
            )
            cells += [
                element("td", f"{best} in {it.first} of {it.compared}", style=bar),
                f"\N{MULTIPLICATION SIGN} {standings.times(it.median)}",
                f"\N{MULTIPLICATION SIGN} {standings.times(it.worst)}",
            ]
        lines.append(cells)
    head = ["", "speed", "median to best", "at worst", "accuracy", "median to best", "at worst"]
    return table(head, lines, "tally")


def speed_details(rows: Iterable[Row]) -> Markup:
    """Every row of the speed suite, with the three times apart."""
    head = [
        *("scene", "worlds", "contender", "step, median (quartiles)", "step and copy"),
        *("compilation, s", "steps/s", "times real time", "contacts, mean (95 %)"),
        *("rows, mean (95 %)", "iterations", "host memory, MB", "device memory, MB"),
    ]

    def number(value: object, scale: float = 1.0) -> str:
        return standings.significant(value * scale) if isinstance(value, (int, float)) else "-"

    def numbers(of: object, form: str, scale: float = 1.0) -> str:
        if not isinstance(of, dict):
            return "-"
        return form.format(**{key: number(value, scale) for key, value in of.items()})

    lines = []
    for row in rows:
        lines.append(
            (
                row["scene"],
                f"{row['nworld']:,}",
                label_of(row) + ("" if row["valid"] else " (INVALID)"),
                numbers(row["time_per_step"], "{median} ({q1} to {q3}) us", 1e6),
                numbers(row.get("time_per_step_copied"), "{median} ({q1} to {q3}) us", 1e6),
                number(row.get("compile_seconds")),
                number(row.get("steps_per_second")),
                number(row.get("realtime_factor")),
                numbers(row["contacts"], "{mean} ({p95})"),
                numbers(row.get("rows"), "{mean} ({p95})"),
                numbers(row.get("iterations"), "{mean}"),
                number(row.get("host_memory"), 1e-6),
                number(row.get("device_memory"), 1e-6),
            )
        )
    return table(head, lines, "details")


def heat_table(found: HeatMap) -> Markup:
    """A cell per pair of settings, the darker the worse; the best is bold."""
    values = [cell for line in found.cells for cell in line if cell is not None]
    worse = -1.0 if found.quantity == sweep_results.FASTER else 1.0
    costs = [worse * value for value in values]
    low, high = min(costs), max(costs)

    def cell(value: float | None) -> Markup:
        if value is None:
            return element("td", "none", class_="bad")
        share = (worse * value - low) / (high - low) if high > low else 0.0
        text: object = standings.significant(value)
        if worse * value == low:
            text = element("b", text)
        return element("td", text, style=f"background:rgba(224,135,0,{0.7 * share:.2f})")

    head = [f"{found.down} \N{DOWNWARDS ARROW} {found.across} \N{RIGHTWARDS ARROW}"]
    return table(
        [*head, *(f"{value:g}" for value in found.columns)],
        [
            (f"{value:g}", *map(cell, line))
            for value, line in zip(found.rows, found.cells, strict=True)
        ],
    )


def stream_table(rows: Iterable[Row]) -> Markup:
    return table(
        ("who watches", "us per step", "over nobody, round by round"),
        [
            (
                row["contender"],
                standings.significant(1e6 * row["time_per_step"]["median"]),
                "{median:.2f} ({q1:.2f} to {q3:.2f})".format(**row["over_none"]),
            )
            for row in rows
        ],
    )


def worse_details(story: Story) -> Markup:
    """Every quantity in which comfree's error is the larger."""
    lines = [
        (
            accuracy_row(it.ranking),
            f"{it.subject.label}: {standings.quantity(it.subject.value, it.ranking.unit)}",
            f"{it.peer.label}: {standings.quantity(it.peer.value, it.ranking.unit)}",
            f"{'at least ' if it.at_least else ''}{standings.times(it.ratio)}",
        )
        for pair in standings.opponents(story.results.errors)
        for it in standings.shortfalls(story.accuracy, *pair)
    ]
    if not lines:
        return Markup()
    summary = element("summary", f"All {len(lines)} larger errors")
    return element("details", summary, table(("error of", "", "against", "times"), lines))


def curve_sections(story: Story, colours: dict[str, str]) -> list[Markup]:
    """A figure per scene; quantities without an error are said."""
    scenes: dict[str, list[Curves]] = {}
    for curve in story.curves:
        scenes.setdefault(curve.scene, []).append(curve)
    about: dict[str, object] = {}
    for _, document in story.results.sources:
        if isinstance(document.get("scenes"), dict):
            about |= document["scenes"]
    found = []
    for scene, several in scenes.items():
        shown = [it for it in several if not it.flat and _has_points(it)]
        told: list[object] = [element("h3", scene, " ", element("small", about.get(scene, "")))]
        if shown:
            told.append(Markup(plots.draw_curves(shown, colours)))
        flat = [it.quantity for it in several if it.flat]
        if flat:
            told.append(element("p", f"No error at any timestep: {'; '.join(flat)}."))
        nothing = [it.quantity for it in several if not it.flat and not _has_points(it)]
        if nothing:
            told.append(element("p", f"Nothing valid to draw: {'; '.join(nothing)}."))
        found.append(element("section", *told, class_="figure"))
    return found


def _has_points(curve: Curves) -> bool:
    return any(
        point.error is not None and point.cost for it in curve.points.values() for point in it
    )


STYLE = """
body { font: 14px/1.45 system-ui, sans-serif; margin: 1.5rem auto; max-width: 1500px;
  padding: 0 1rem; color: #222; background: #fff }
h1 { margin: 0; font-size: 1.5rem }
h2 { margin: 2rem 0 .5rem; border-bottom: 2px solid #ddd }
h3 { margin: .3rem 0 }
h3 small { font-weight: normal; color: #666 }
small { color: #555; font-size: .82em }
.source { color: #555; font-size: .86em }
.lead li { font-size: 1.08rem; margin: .2rem 0 }
table { border-collapse: collapse }
th, td { padding: .18rem .55rem; text-align: left; border-bottom: 1px solid #e6e6e6;
  white-space: nowrap }
th { font-size: .9em }
.wide { overflow-x: auto }
section { min-width: 0; max-width: 100%; box-sizing: border-box }
p, li, h3 { overflow-wrap: anywhere }
.tally td { font-size: 1.05rem; padding: .35rem .8rem }
.ranking { font-size: .86em }
.ranking td { min-width: 5.5em; padding: .15rem .4rem }
.ranking td.scene { font-weight: 600 }
.ranking td.about { color: #555; white-space: normal; min-width: 4em; max-width: 17em }
td.best, td.best small { color: #fff }
td.tie { background: #eee }
td.bad { color: #a00 }
.chip { color: #fff; border-radius: 1em; padding: .1em .8em; margin-right: .5em;
  font-weight: 600 }
.columns { display: flex; flex-wrap: wrap; gap: 1rem; align-items: flex-start }
.figures { display: flex; flex-wrap: wrap; gap: 1rem; align-items: flex-start }
.figure { border: 1px solid #e2e2e2; border-radius: 6px; padding: .6rem; width: min-content;
  min-width: 20rem; max-width: 100%; overflow-x: auto }
.legend { position: sticky; top: 0; background: #fff; padding: .5rem 0; z-index: 1 }
svg { max-width: 100%; height: auto }
.figure svg { max-width: none }
code { background: #f3f3f3; padding: .1em .3em; white-space: pre-wrap }
"""


def render(story: Story) -> str:
    """The page."""
    colours = plots.colour_of(story.labels)
    results = story.results
    parts: list[object] = [
        element("h1", "Which engine, how fast, and how right"),
        element(
            "p",
            joined(
                joined(
                    [
                        f"{SUITES[document['format']]}: {made_with(document)}; {document['date']}",
                        Markup("<br>"),
                    ]
                )
                for _, document in results.sources
            ),
            class_="source",
        ),
        tally_table(story, colours),
        element(
            "ul",
            *(
                element("li", element("b", f"{subject}. "), text)
                for subject, text in headlines(story)
            ),
            class_="lead",
        ),
        element("h2", "Where comfree is worse than MuJoCo"),
        bullets(worse(story)),
        worse_details(story),
        element("h2", "Who wins where"),
        element(
            "p",
            f"Filled: the best; all that are within {100 * (TIE - 1):.0f} % of it share that. "
            "Bars: how many times the best, on a logarithmic scale to 1,000. "
            "Grey: no difference, or nobody to compare with. "
            "Errors up to ",
            ", ".join(
                f"{100 * limit:g} %" if unit == "%" else f"{limit:g} {unit}".rstrip()
                for unit, limit in standings.NEGLIGIBLE.items()
            ),
            " count as none. Invalid rows do not rank.",
        ),
        element("div", *_ranking_sections(story, colours), class_="columns"),
    ]
    parts += _curve_part(story, colours)
    parts += _scaling_part(story, colours)
    parts += _stability_part(story)
    parts += [part for name, rows in story.sweeps for part in _sweep_part(name, rows)]
    streams = [row for row in results.speed if row["kind"] == "stream"]
    parts += [element("h2", "What streaming and recording cost")]
    parts += [stream_table(streams) if streams else element("p", "Not measured: make bench.")]
    parts += [element("h2", "Invalid or without a value, never ranked")]
    parts += [table(("where", "who", "why"), invalid(story)) if invalid(story) else "Nothing."]
    skips = standings.told_skips(results.skipped)
    parts += [element("h2", "Skipped")]
    parts += [table(("why", "who", "rows", "where"), skips) if skips else element("p", "Nothing.")]
    steps = [row for row in results.speed if row["kind"] == "step"]
    if steps:
        summary = element("summary", f"All {len(steps)} rows of the speed suite")
        parts += [element("h2", "All rows"), element("details", summary, speed_details(steps))]
    parts += [element("h2", "Made from"), *(_source(*source) for source in results.sources)]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        '<link rel="icon" href="data:,"><title>Benchmark report</title>'
        f"<style>{STYLE}</style></head><body>{joined(parts)}</body></html>\n"
    )


def _ranking_sections(story: Story, colours: dict[str, str]) -> list[Markup]:
    made = []
    for title, rankings, cell, target in (
        ("Speed: time per step of all worlds", story.speed, speed_cell, "make bench"),
        (
            f"Accuracy: error of the worst variant, {standings.timesteps(story.accuracy)}",
            story.accuracy,
            error_cell,
            "make fidelity",
        ),
    ):
        if rankings:
            made.append(
                element(
                    "section",
                    element("h3", title),
                    ranking_table(rankings, story.labels, colours, cell),
                )
            )
        else:
            made.append(
                element(
                    "section",
                    element("h3", title.partition(":")[0]),
                    element("p", f"Not measured: {target}."),
                )
            )
    return made


def _curve_part(story: Story, colours: dict[str, str]) -> list[Markup]:
    title = element("h2", "Error against cost")
    if not story.curves:
        return [title, element("p", "Not measured: make fidelity.")]
    text = (
        "Down and left is better. A point per timestep, with the timestep in ms beside it; the "
        "error is that of the worst variant. Hollow points on the dotted line: errors that count "
        "as none."
    )
    return [
        title,
        element("p", text),
        legend(story, colours),
        element("div", *curve_sections(story, colours), class_="figures"),
    ]


def _scaling_part(story: Story, colours: dict[str, str]) -> list[Markup]:
    parts = [element("h2", "Scaling")]
    for against in ("contacts", "worlds"):
        fits = [fit for fit in story.fits if fit["against"] == against]
        parts.append(element("h3", f"Time per step against {against}"))
        if not fits:
            parts.append(element("p", "Not measured at three sizes or more: make bench."))
            continue
        parts.append(Markup(plots.draw_scaling(fits, colours)))
        parts.append(
            element(
                "details",
                element("summary", "Fitted log-log slopes, with standard errors"),
                table(
                    ("scene", "contender", "slope", "from 100 on", "points"),
                    [
                        (
                            fit["scene"],
                            label_of(fit),
                            slope(fit["fit"]),
                            slope(fit["fit_from_100"]),
                            str(fit["fit"]["points"]),
                        )
                        for fit in fits
                    ],
                ),
            )
        )
    return parts


def _sweep_part(name: str, rows: list[Row]) -> list[Markup]:
    maps = [
        element(
            "section",
            element("h3", it.subject, " ", element("small", it.quantity)),
            heat_table(it),
            class_="figure",
        )
        for it in sweep_results.heat_maps(rows)
    ]
    return [
        element("h2", f"Sweep {name}"),
        element("p", sweep_sentence(rows)),
        table(BEST_HEAD, best_lines(rows)),
        element("div", *maps, class_="figures"),
    ]


def _stability_part(story: Story) -> list[Markup]:
    stability = story.results.stability
    parts = [element("h2", "Largest timestep that survives")]
    if not stability:
        return [*parts, element("p", "Not measured: make fidelity.")]
    died = standings.unstable(stability)
    if not died:
        return [*parts, element("p", "All scenes survive all timesteps.")]
    lines = [
        (
            it["scene"],
            label_of(it),
            f"{it['largest_timestep']:g} s" if it["largest_timestep"] else "none tried",
            ", ".join(map(str, it["died"])),
        )
        for it in died
    ]
    survived = len(stability) - len(died)
    return [
        *parts,
        table(("scene", "contender", "survives up to", "did not survive, s"), lines),
        element(
            "p", f"The other {survived} of {len(stability)} pairs survive every timestep tried."
        ),
    ]


def _source(name: str, document: dict[str, Any]) -> Markup:
    lines = [
        ("file", name),
        ("date", document["date"]),
        ("commit", document["commit"]),
        ("command", element("code", document["command"])),
        ("level", document["level"]),
        ("machine and versions", made_with(document)),
        ("complete", partial(document) or "yes"),
    ]
    if isinstance(document.get("overhead"), (int, float)):
        lines.append(
            ("the suite's own time", f"at most {100 * document['overhead']:.2f} % of a round")
        )
    return table((SUITES[document["format"]], ""), lines)


# ------------------------------------------------------------------------------------- the files


def write(
    files: Sequence[str], folder: str | os.PathLike[str], into: str | None = None
) -> list[Path]:
    """Write the page and the summary; the files that were written.

    Args:
      files: of results; the newest whole run of each suite when there is none.
      folder: of results, and for the report.
      into: a Markdown file to renew the summary in.

    Raises:
      SettingError: a file is no result, or cannot be read or written.
    """
    folder = Path(folder)
    paths = [Path(file) for file in files] or newest(folder)
    tables = [path for path in paths if path.suffix == ".jsonl"]
    documents = [(path.name, load(path)) for path in paths if path not in tables]
    story = tell(merge(documents), [(path.stem, read_rows(path)) for path in tables])
    summary = summarise(story)
    written = {folder / "report.html": render(story), folder / "summary.md": summary}
    try:
        if into:
            written[Path(into)] = put_into(Path(into).read_text(), summary, into)
        folder.mkdir(parents=True, exist_ok=True)
        for path, text in written.items():
            path.write_text(text)
    except OSError as error:
        raise SettingError("folder" if into is None else "into", str(error)) from None
    return list(written)
