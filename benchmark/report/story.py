"""What the page and the summary tell: rankings, sentences and sweeps, of the same results."""

import dataclasses
from collections.abc import Sequence

from benchmark.common.measuring import ResultRow, scaling_fits
from benchmark.report import standings
from benchmark.report.results import Results
from benchmark.report.standings import Curves, Ranking, label_of
from benchmark.sweep import results as sweep_results
from benchmark.sweep.cases import swept
from benchmark.sweep.results import CaseRow
from benchmark.sweep.table import STATUSES


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
      sweeps: name and rows of each table of a sweep.
    """

    results: Results
    labels: tuple[str, ...]
    speed: tuple[Ranking, ...]
    accuracy: tuple[Ranking, ...]
    curves: tuple[Curves, ...]
    fits: tuple[ResultRow, ...]
    sweeps: tuple[tuple[str, list[CaseRow]], ...] = ()


def tell(results: Results, sweeps: Sequence[tuple[str, list[CaseRow]]] = ()) -> Story:
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


def lead_sentences(story: Story) -> list[tuple[str, str]]:
    """Who wins, with the missing said: subject and text."""
    speed = standings.speed_sentences(story.speed) or ["Not measured: make bench."]
    accuracy = standings.accuracy_sentences(story.accuracy) or ["Not measured: make fidelity."]
    return [("Speed", " ".join(speed)), ("Accuracy", " ".join(accuracy))]


def worse_sentences(story: Story) -> list[str]:
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


def invalid_rows(story: Story) -> list[tuple[str, str, str]]:
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


BEST_HEAD = ("model or scene", "by", "best case", "value", "of cases")


def best_lines(rows: list[CaseRow]) -> list[tuple[str, ...]]:
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


def sweep_sentence(rows: list[CaseRow]) -> str:
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


def slope(fit: ResultRow | None) -> str:
    return f"{fit['slope']:.2f} +- {fit['standard_error']:.2f}" if fit else "too few points"


def accuracy_row(ranking: Ranking) -> str:
    return f"{ranking.scene}: {ranking.about}"
