"""The page's tables: rankings, tallies, details, heat maps."""

import math
from collections.abc import Callable, Iterable, Sequence

from benchmark.common.measuring import ResultRow
from benchmark.report import standings
from benchmark.report.markup import Markup, element, joined, table
from benchmark.report.standings import Ranking, Standing, label_of, times_the_best, unranked_word
from benchmark.report.story import Story, accuracy_row
from benchmark.sweep import results as sweep_results
from benchmark.sweep.results import HeatMap


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
        return element("td", unranked_word(it), class_="bad", title=it.reason)
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
    return joined([element("b", times_the_best(ranking, it)), " ", small])


def error_cell(ranking: Ranking, it: Standing) -> Markup:
    value = standings.quantity(it.value, ranking.unit)
    if it.rank == 1:
        return element("b", value)
    return joined([element("b", times_the_best(ranking, it)), " ", element("small", value)])


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


def speed_details(rows: Iterable[ResultRow]) -> Markup:
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


def stream_table(rows: Iterable[ResultRow]) -> Markup:
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
