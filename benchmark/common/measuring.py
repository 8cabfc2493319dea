"""How things are timed against each other, and what is made of the times: pure, but for a clock.

Rounds take turns, so that a machine that drifts hits all alike. A row of results carries its whole
definition; what is defined otherwise is another series, never compared.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from mjsim import engines

ResultRow = dict[str, Any]
Competitors = Mapping[str, Callable[[], None]]


# ---------------------------------------------------------------------------------------- timing


def turns(names: Sequence[str], rounds: int) -> Iterator[list[str]]:
    """The order of each round: all names, each round begun by the next one."""
    for turn in range(rounds):
        first = turn % len(names)
        yield [*names[first:], *names[:first]]


def interleaved_times(
    competitors: Competitors,
    rounds: int,
    prepare: Competitors | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Seconds of each competitor in each round; all take their turn in every round.

    Args:
      competitors: what is timed, by name.
      rounds: how often.
      prepare: by name, what runs before a turn, off the clock.
      clock: gives seconds.
    """
    times: dict[str, list[float]] = {name: [] for name in competitors}
    for order in turns(list(competitors), rounds):
        for name in order:
            if prepare:
                prepare[name]()
            run = competitors[name]
            start = clock()
            run()
            times[name].append(clock() - start)
    return times


class RecordedClock:
    """A timer for pytest-benchmark that replays what was measured before: 0, t, 0, t, ..."""

    def __init__(self) -> None:
        self._told: Iterator[float] = iter(())

    def load(self, times: Sequence[float]) -> None:
        """Take the seconds of the rounds to come."""
        self._told = (value for seconds in list(times) for value in (0.0, seconds))

    def __call__(self) -> float:
        return next(self._told)


# ------------------------------------------------------------------------------------ statistics


def spread(values: Sequence[float]) -> dict[str, float]:
    """Number, median, quartiles and extremes."""
    low, q1, median, q3, high = map(float, np.percentile(values, (0, 25, 50, 75, 100)))
    return {"n": len(values), "median": median, "q1": q1, "q3": q3, "min": low, "max": high}


def median_interval(found: Mapping[str, float]) -> tuple[float, float]:
    """Where the median of a `spread` lies with 95 %: the notch of a box plot (McGill, 1978)."""
    half = 1.57 * (found["q3"] - found["q1"]) / math.sqrt(found["n"])
    return found["median"] - half, found["median"] + half


def median_and_quartiles(values: Sequence[float], digits: int = 2) -> str:
    """For a table: "1.02 (0.98 to 1.10)"."""
    found = spread(values)
    return "{median:.{0}f} ({q1:.{0}f} to {q3:.{0}f})".format(digits, **found)


def round_ratios(slow: Sequence[float], fast: Sequence[float]) -> list[float]:
    """Of two competitors that took turns, one over the other, round by round."""
    return [one / other for one, other in zip(slow, fast, strict=True)]


def mean_and_p95(values: np.ndarray) -> dict[str, float]:
    """Mean and 95th percentile of all values, whatever the shape."""
    return {"mean": float(np.mean(values)), "p95": float(np.percentile(values, 95))}


def mean_and_max(values: np.ndarray) -> dict[str, float]:
    """Mean and largest of all values, whatever the shape."""
    return {"mean": float(np.mean(values)), "max": float(np.max(values))}


def fit_slope(x: Sequence[float], y: Sequence[float]) -> dict[str, float | int] | None:
    """The least-squares slope of log y over log x, with its standard error.

    None with fewer than three points, of which no error can be told, or with all x alike.
    """
    log_x, log_y = np.log(x), np.log(y)
    n = len(log_x)
    if n < 3:
        return None
    dx = log_x - log_x.mean()
    sxx = float(dx @ dx)
    if sxx == 0.0:
        return None
    slope = float(dx @ log_y) / sxx
    residual = log_y - log_y.mean() - slope * dx
    return {
        "slope": slope,
        "standard_error": math.sqrt(float(residual @ residual) / (n - 2) / sxx),
        "points": n,
    }


def predict(points: Sequence[tuple[float, float]], x: float) -> float | None:
    """What y may be at a larger x, from the last two of the points (x, y); None without a point.

    y is taken to grow at least like x, and at most like its cube.
    """
    if not points:
        return None
    last_x, last_y = points[-1]
    exponent = 1.0
    if len(points) > 1:
        before_x, before_y = points[-2]
        exponent = math.log(last_y / before_y) / math.log(last_x / before_x)
    return last_y * (x / last_x) ** min(3.0, max(1.0, exponent))


# ------------------------------------------------------------------------------------------ rows


def definition_hash(definition: Mapping[str, Any]) -> str:
    """16 hex digits that name a series: the same for the same definition only."""
    text = json.dumps(definition, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def differences(old: Any, new: Any, path: str = "") -> list[str]:
    """What changed from one definition to the other: "sizes.nv 6 -> 12"."""
    if isinstance(old, dict) and isinstance(new, dict):
        found = []
        for key in sorted(old.keys() | new.keys()):
            found += differences(old.get(key), new.get(key), f"{path}.{key}".removeprefix("."))
        return found
    return [] if old == new else [f"{path} {old} -> {new}"]


def why_invalid(health: engines.Health) -> str | None:
    """Why a row must not rank, or None."""
    reasons = list(health.overflow)
    if health.divergence:
        reasons.append(f"{health.ndiverged} world(s) diverged; {health.divergence}")
    return "; ".join(reasons) or None


def scaling_fits(rows: Sequence[ResultRow]) -> list[ResultRow]:
    """How the time per step grows, per family of valid rows and per contender and device.

    Against the number of contacts in the scenes made for it, which are all of one family and one
    world; against the number of worlds in the others.
    """
    found: dict[tuple, list[tuple[float, float]]] = {}
    for row in rows:
        if not row["valid"]:
            continue
        seconds = row["time_per_step"]["median"]
        family = row["family"]
        if family:
            key = ("contacts", family, row["contender"], row["device"])
            found.setdefault(key, []).append((row["contacts"]["mean"], seconds))
        else:
            key = ("worlds", row["scene"], row["contender"], row["device"])
            found.setdefault(key, []).append((row["nworld"], seconds))
    fits = []
    for (against, scene, contender, device), points in found.items():
        points = sorted(point for point in points if point[0] > 0)
        fit = fit_slope(*zip(*points, strict=True)) if points else None
        if fit is None:
            continue
        large = [point for point in points if point[0] >= 100]
        fits.append(
            {
                "against": against,
                "scene": scene,
                "contender": contender,
                "device": device,
                "points": points,
                "fit": fit,
                "fit_from_100": fit_slope(*zip(*large, strict=True)) if large else None,
            }
        )
    return fits
