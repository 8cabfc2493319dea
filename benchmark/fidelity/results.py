"""What is made of result rows: the worst error of a scene, and which timesteps survive. Pure."""

import math
from collections.abc import Iterable

from benchmark.common.measuring import ResultRow


def worst_headlines(rows: Iterable[ResultRow]) -> dict[tuple[str, str], ResultRow]:
    """The worst variant of each headline quantity, by scene and quantity."""
    worst: dict[tuple[str, str], ResultRow] = {}
    for row in rows:
        if row["headline"]:
            key = (row["scene"], row["quantity"])
            before = worst.get(key)
            if before is None or _rank(row) > _rank(before):
                worst[key] = row
    return worst


def _rank(row: ResultRow) -> float:
    """The error to rank by: a missing one is worse than any."""
    return math.inf if row["error"] is None else row["error"]


def stability(rows: list[ResultRow]) -> list[ResultRow]:
    """Per scene and contender, the largest timestep up to which every run survived SURVIVAL s."""
    survived: dict[tuple, dict[float, bool]] = {}
    for row in rows:
        key = (row["scene"], row["contender"], row["device"], row["integrator"])
        survived.setdefault(key, {})[row["timestep"]] = row["invalid"] is None
    found = []
    for (scene, contender, device, integrator), by_timestep in survived.items():
        largest = None
        for timestep in sorted(by_timestep):
            if not by_timestep[timestep]:
                break
            largest = timestep
        found.append(
            {
                "scene": scene,
                "contender": contender,
                "device": device,
                "integrator": integrator,
                "largest_timestep": largest,
                "timesteps": sorted(by_timestep),
                "died": [timestep for timestep in sorted(by_timestep) if not by_timestep[timestep]],
            }
        )
    return found
