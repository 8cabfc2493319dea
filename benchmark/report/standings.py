"""Who wins where and by how much, from the rows of stored results: pure functions.

A label is a contender with its device, as tables and plots name it. Invalid rows never rank, and
keep their reason.
"""

import dataclasses
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence

from benchmark.common.measuring import ResultRow
from benchmark.fidelity.results import worst_headlines
from benchmark.speed.compare import TIE

TIMESTEP = 0.002  # s; accuracy is ranked at it, or at the nearest that most contenders have
# An error up to this is none: nobody would choose an engine by it. By unit, "%" where relative.
NEGLIGIBLE = {"%": 1e-3, "mm": 1e-2, "mm/s": 1e-2, "s": 1e-2, "": 1e-3}
STEP_TIME = "s/step"
NO_VALUE = "no value to measure"  # e.g. the slip of what was never held


@dataclasses.dataclass(frozen=True)
class Standing:
    """How a label did in a ranking.

    Attributes:
      label: a contender with its device.
      value: s per step, or the error; None where there is none.
      ratio: value over the best; None where not ranked. Negligible errors count as just so large.
      rank: 1 is the best, and shared within TIE; None where not ranked.
      reason: why it is not ranked, or "".
      contacts: mean per world; None where unknown.
    """

    label: str
    value: float | None
    ratio: float | None = None
    rank: int | None = None
    reason: str = ""
    contacts: float | None = None


@dataclasses.dataclass(frozen=True)
class Ranking:
    """A comparison of labels: the ranked ones first, the best before all.

    Attributes:
      scene: its name.
      about: what is compared there: "16 worlds", or the quantity.
      unit: of values: STEP_TIME, "%" (of values that are fractions), or the quantity's.
      floor: values up to this are alike.
      standings: of every label.
      timestep: s; of accuracy.
    """

    scene: str
    about: str
    unit: str
    floor: float
    standings: tuple[Standing, ...]
    timestep: float | None = None

    @property
    def ranked(self) -> tuple[Standing, ...]:
        return tuple(it for it in self.standings if it.rank is not None)

    @property
    def undecided(self) -> bool:
        """Whether all that rank are alike."""
        return all(it.rank == 1 for it in self.ranked)

    def of(self, label: str) -> Standing | None:
        return next((it for it in self.standings if it.label == label), None)


def label_of(row: ResultRow) -> str:
    """The contender, with its device unless that is the CPU."""
    return row["contender"] if row["device"] == "cpu" else f"{row['contender']} on {row['device']}"


def rank_standings(standings: Iterable[Standing], floor: float = 0.0) -> tuple[Standing, ...]:
    """Standings with rank and ratio, the best first; those without a value or with a reason last.

    Whoever is within TIE of the first of a rank shares it.
    """
    standings = list(standings)
    fit = [it for it in standings if it.value is not None and not it.reason]
    placed: list[Standing] = []
    first, rank, best = -math.inf, 0, 0.0
    for number, it in enumerate(sorted(fit, key=lambda it: it.value), start=1):
        value = max(it.value, floor)
        if number == 1:
            best = value
        if value > first * TIE or number == 1:
            first, rank = value, number
        ratio = value / best if best else (1.0 if value == best else math.inf)
        placed.append(dataclasses.replace(it, rank=rank, ratio=ratio))
    return (*placed, *(it for it in standings if it not in fit))


# ----------------------------------------------------------------------------------------- speed


def count_worlds(nworld: int) -> str:
    return "1 world" if nworld == 1 else f"{nworld:,} worlds"


def speed_rankings(rows: Iterable[ResultRow]) -> list[Ranking]:
    """By scene and number of worlds."""
    groups: dict[tuple[str, int], list[Standing]] = {}
    for row in rows:
        if row["kind"] == "step":
            standing = Standing(
                label_of(row),
                row["time_per_step"]["median"],
                reason="" if row["valid"] else row["invalid"] or "invalid",
                contacts=row["contacts"]["mean"],
            )
            groups.setdefault((row["scene"], row["nworld"]), []).append(standing)
    return [
        Ranking(scene, count_worlds(nworld), STEP_TIME, 0.0, rank_standings(standings))
        for (scene, nworld), standings in groups.items()
    ]


# -------------------------------------------------------------------------------------- accuracy


@dataclasses.dataclass(frozen=True)
class CurvePoint:
    """A point of a curve. Attributes: `timestep` in s; `cost`, s of wall time per simulated s."""

    timestep: float
    cost: float | None
    error: float | None
    reason: str


@dataclasses.dataclass(frozen=True)
class Curves:
    """The error of a scene's quantity over its cost, per label, by timestep.

    Attributes:
      scene: its name.
      quantity: whose error, of the worst variant.
      unit: of the error: "%" (as a fraction), or the quantity's.
      points: of each label, the finest timestep first.
    """

    scene: str
    quantity: str
    unit: str
    points: dict[str, tuple[CurvePoint, ...]]

    @property
    def floor(self) -> float:
        return NEGLIGIBLE.get(self.unit, 1e-3)

    @property
    def flat(self) -> bool:
        """Whether no error is above the floor."""
        points = [point for points in self.points.values() for point in points]
        return all(it.error is not None and it.error <= self.floor for it in points)


def curves(rows: Iterable[ResultRow]) -> list[Curves]:
    """Of each scene and headline quantity."""
    runs: dict[tuple[str, float], list[ResultRow]] = {}
    for row in rows:
        runs.setdefault((label_of(row), row["timestep"]), []).append(row)
    found: dict[tuple[str, str], dict[str, list[CurvePoint]]] = {}
    units: dict[tuple[str, str], str] = {}
    for label, timestep in sorted(runs, key=lambda key: key[1]):
        for key, row in worst_headlines(runs[label, timestep]).items():
            reason = row["invalid"] or ("" if row["error"] is not None else NO_VALUE)
            point = CurvePoint(timestep, row["cost"], row["error"], reason)
            found.setdefault(key, {}).setdefault(label, []).append(point)
            units[key] = "%" if row["error_kind"] == "relative" else row["unit"]
    return [
        Curves(*key, units[key], {label: tuple(points) for label, points in found[key].items()})
        for key in sorted(found, key=_order(rows))
    ]


def _order(rows: Iterable[ResultRow]):
    places = {}
    for row in rows:
        places.setdefault((row["scene"], row["quantity"]), len(places))
    return places.__getitem__


def ranked_timestep(curve: Curves) -> float:
    """The one at which a quantity is ranked, s: TIMESTEP, or the nearest that most labels have."""
    count: dict[float, int] = {}
    for points in curve.points.values():
        for point in points:
            count[point.timestep] = count.get(point.timestep, 0) + 1
    most = [timestep for timestep in count if count[timestep] == max(count.values())]
    return min(most, key=lambda timestep: abs(math.log(timestep / TIMESTEP)))


def accuracy_rankings(found: Iterable[Curves]) -> list[Ranking]:
    """By scene and headline quantity, at one timestep each."""
    rankings = []
    for curve in found:
        timestep = ranked_timestep(curve)
        standings = [
            Standing(label, point.error, reason=point.reason)
            for label, points in curve.points.items()
            for point in points
            if point.timestep == timestep
        ]
        placed = rank_standings(standings, curve.floor)
        rankings.append(
            Ranking(curve.scene, curve.quantity, curve.unit, curve.floor, placed, timestep)
        )
    return rankings


# ---------------------------------------------------------------------------------------- summary


@dataclasses.dataclass(frozen=True)
class Tally:
    """How a label did over many rankings.

    Attributes:
      label: a contender with its device.
      compared: rankings that have it and another, and are decided.
      first: of those, where it is the best or shares that.
      median: ratio to the best.
      worst: largest ratio to the best.
    """

    label: str
    compared: int
    first: int
    median: float
    worst: float


def decided(rankings: Iterable[Ranking]) -> list[Ranking]:
    """Those in which two at least rank, and not all alike."""
    return [it for it in rankings if len(it.ranked) > 1 and not it.undecided]


def tallies(rankings: Iterable[Ranking]) -> list[Tally]:
    """Of each label, who is first the most often before all."""
    found: dict[str, list[Standing]] = {}
    for ranking in decided(rankings):
        for standing in ranking.ranked:
            found.setdefault(standing.label, []).append(standing)
    made = [
        Tally(
            label,
            len(standings),
            sum(it.rank == 1 for it in standings),
            statistics.median(it.ratio for it in standings),
            max(it.ratio for it in standings),
        )
        for label, standings in found.items()
    ]
    return sorted(made, key=lambda it: (-it.first / it.compared, it.median))


@dataclasses.dataclass(frozen=True)
class Shortfall:
    """Where one is worse than another.

    Attributes:
      ranking: where.
      subject: who is worse.
      peer: than whom.
      ratio: how many times.
      at_least: the peer's error is negligible, and the ratio is to the largest negligible one.
    """

    ranking: Ranking
    subject: Standing
    peer: Standing
    ratio: float
    at_least: bool


def shortfalls(rankings: Iterable[Ranking], subject: str, peer: str) -> list[Shortfall]:
    """Where a label is worse than another by more than TIE, the worst first."""
    found = []
    for ranking in rankings:
        ours, theirs = ranking.of(subject), ranking.of(peer)
        if ours and theirs and ours.ratio and theirs.ratio:
            ratio = ours.ratio / theirs.ratio
            if ratio > TIE:
                found.append(Shortfall(ranking, ours, theirs, ratio, theirs.value < ranking.floor))
    return sorted(found, key=lambda it: -it.ratio)


def both_ranked(rankings: Iterable[Ranking], subject: str, peer: str) -> int:
    """Rankings that rank both."""
    labels = ({standing.label for standing in it.ranked} for it in rankings)
    return sum({subject, peer} <= each for each in labels)


def opponents(rows: Iterable[ResultRow]) -> list[tuple[str, str]]:
    """Pairs of a comfree label, and a MuJoCo label on the same device or of MuJoCo C."""
    seen: Mapping[str, ResultRow] = {label_of(row): row for row in rows}
    return [
        (subject, peer)
        for subject, ours in seen.items()
        if ours.get("engine") == "comfree"
        for peer, theirs in seen.items()
        if theirs.get("engine") == "mjc"
        or (theirs.get("engine") == "mjwarp" and theirs["device"] == ours["device"])
    ]


def unstable(stability: Iterable[ResultRow]) -> list[ResultRow]:
    """Those that did not survive every timestep."""
    return [it for it in stability if it["died"]]


# --------------------------------------------------------------------------------------- in words


def times(ratio: float) -> str:
    """How many times: 2.3, or 1,720."""
    if not math.isfinite(ratio):
        return "infinitely many"
    return f"{ratio:.1f}" if ratio < 9.95 else f"{ratio:,.0f}"


def quantity(value: float, unit: str) -> str:
    """A value with its unit: "3.11 ms", "12.3 mm", "0.4 %"."""
    if unit == STEP_TIME:
        scale, name = next(
            ((s, n) for s, n in ((1e6, "us"), (1e3, "ms")) if value * s < 1000), (1.0, "s")
        )
        return f"{significant(value * scale)} {name}"
    if unit == "%":
        return f"{significant(100 * value)} %"
    return f"{significant(value)} {unit}".rstrip()


def significant(value: float) -> str:
    """Three digits, without an exponent where that reads well."""
    if value == 0 or not 1e-3 <= abs(value) < 1e6:
        return f"{value:.3g}"
    rounded = float(f"{value:.3g}")
    return f"{rounded:,.{max(0, 2 - math.floor(math.log10(abs(rounded))))}f}"


def _listed(tally: Sequence[Tally], verb: str) -> str:
    others = [
        f"{it.label} {verb} {times(it.median)} times the best (median; {times(it.worst)} at worst)"
        for it in tally
        if it.median > TIE
    ]
    return f"; {'; '.join(others)}" if others else ""


def speed_sentences(rankings: Sequence[Ranking]) -> list[str]:
    """Who is fast, in a sentence; none without comparisons."""
    tally = tallies(rankings)
    if not tally:
        return []
    firsts = ", ".join(f"{it.label} in {it.first} of {it.compared}" for it in tally if it.first)
    return [f"Fastest, or as fast as the fastest: {firsts}{_listed(tally, 'takes')}."]


def accuracy_sentences(rankings: Sequence[Ranking]) -> list[str]:
    """Who is accurate, in a sentence; none without comparisons."""
    tally = tallies(rankings)
    alike = sum(len(it.ranked) > 1 and it.undecided for it in rankings)
    told = []
    if tally:
        firsts = ", ".join(f"{it.label} in {it.first} of {it.compared}" for it in tally if it.first)
        told.append(
            f"Smallest error, alone or shared, at {timesteps(rankings)}: "
            f"{firsts}{_listed(tally, 'has')}."
        )
    if alike:
        told.append(f"In {alike} more there is no difference.")
    return told


def timesteps(rankings: Iterable[Ranking]) -> str:
    """Those of accuracy: h = 0.002 s."""
    found = sorted({it.timestep for it in rankings if it.timestep is not None})
    return "h = " + ", ".join(f"{timestep:g}" for timestep in found) + " s"


def worse_sentence(rankings: Sequence[Ranking], subject: str, peer: str) -> str | None:
    """Where a label is worse than another, with the worst ratio; None where not both rank."""
    compared = both_ranked(rankings, subject, peer)
    if not compared:
        return None
    speed = rankings[0].unit == STEP_TIME
    adjective = "slower than" if speed else "less accurate than"
    found = shortfalls(rankings, subject, peer)
    if not found:
        return f"{subject} is nowhere {adjective} {peer} ({compared} comparisons)."
    worst = found[0]
    unit = worst.ranking.unit
    per = " per step" if speed else " of error"
    return (
        f"{subject} is {adjective} {peer} in {len(found)} of {compared} comparisons. Worst: "
        f"{worst.ranking.scene}, {worst.ranking.about}: {quantity(worst.subject.value, unit)}{per} "
        f"against {quantity(worst.peer.value, unit)}, "
        f"{'at least ' if worst.at_least else ''}{times(worst.ratio)} times."
    )


def unranked_sentences(rankings: Iterable[Ranking], subject: str, peer: str) -> list[str]:
    """Where a label does not rank, but another does."""
    return [
        f"{subject} does not rank in {it.scene}, {it.about}, where {peer} does: {ours.reason}."
        for it in rankings
        if (ours := it.of(subject)) and (theirs := it.of(peer)) and theirs.rank and not ours.rank
    ]


def stability_sentences(stability: Iterable[ResultRow], subject: str, peer: str) -> list[str]:
    """Where a label needs a shorter timestep than another to survive."""
    largest = {(it["scene"], label_of(it)): it["largest_timestep"] for it in stability}
    told = []
    for (scene, label), ours in largest.items():
        theirs = largest.get((scene, peer))
        if label == subject and theirs and (ours or 0.0) < theirs:
            how = f"up to h = {ours:g} s only" if ours else "at no timestep tried"
            told.append(f"{subject} survives {scene} {how}, {peer} up to h = {theirs:g} s.")
    return told


def told_skips(skipped: Iterable[ResultRow]) -> list[tuple[str, str, int, str]]:
    """Reason, contenders, how many, and examples of what was left out for it."""
    groups: dict[str, list[ResultRow]] = {}
    for row in skipped:
        groups.setdefault(row["reason"], []).append(row)
    found = []
    for reason, rows in groups.items():
        who = ", ".join(dict.fromkeys(label_of({"device": "cpu", **row}) for row in rows))
        scenes = list(dict.fromkeys(row["scene"] for row in rows))
        where = ", ".join(scenes) if len(scenes) <= 5 else f"{len(scenes)} scenes"
        found.append((reason, who, len(rows), where))
    return found


def unranked_word(it: Standing) -> str:
    """Why a standing does not rank, in a word for a cell."""
    return "none" if it.reason == NO_VALUE else "invalid"


def times_the_best(ranking: Ranking, it: Standing, sign: str = "\N{MULTIPLICATION SIGN} ") -> str:
    """How many times the best; a best error that counts as none makes it a lower bound."""
    bound = "\N{GREATER-THAN OR EQUAL TO} " if ranking.ranked[0].value < ranking.floor else ""
    return f"{bound}{sign}{times(it.ratio)}"
