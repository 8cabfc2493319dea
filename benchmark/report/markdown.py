"""The report as a Markdown summary, and its place in another file."""

import re
from collections.abc import Iterable, Sequence

from benchmark.report import standings
from benchmark.report.results import SUITES, made_with, why_partial
from benchmark.report.standings import Ranking, Standing, label_of, times_the_best, unranked_word
from benchmark.report.story import (
    BEST_HEAD,
    Story,
    accuracy_row,
    best_lines,
    invalid_rows,
    lead_sentences,
    slope,
    sweep_sentence,
    worse_sentences,
)
from benchmark.speed.compare import TIE
from mjsim.errors import SettingError

OPENING, CLOSING = "<!-- made by: make report -->", "<!-- end of report -->"


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
        return unranked_word(it)
    value = plain(standings.quantity(it.value, ranking.unit))
    return f"**{value}**" if it.rank == 1 else f"{value} ({times_the_best(ranking, it, 'x')})"


def summarise(story: Story) -> str:
    """The Markdown summary."""
    told = [OPENING, ""]
    for _, document in story.results.sources:
        told += [
            f"{plain(SUITES[document['format']]).capitalize()}: {plain(made_with(document))}; "
            f"{plain(document['date'])}, commit {plain(document['commit'][:12])}, "
            f"level {plain(document['level'])}: {plain(document['command'])}. "
            f"{plain(why_partial(document))}".rstrip(),
            "",
        ]
    told += [f"- **{subject}.** {plain(text)}" for subject, text in lead_sentences(story)] + [""]
    told += ["**Where comfree is worse than MuJoCo**", ""]
    told += [f"- {plain(sentence)}" for sentence in worse_sentences(story)] + [""]
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
    told += [f"- {plain(f'{where}: {who}: {why}')}" for where, who, why in invalid_rows(story)] or [
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
