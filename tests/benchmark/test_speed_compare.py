"""Comparisons of runs of the speed suite: what is slower, and what proves nothing."""

import copy
import dataclasses
import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmark.common import measuring
from benchmark.common.contenders import Contender
from benchmark.speed import compare
from benchmark.speed import measure as speed
from benchmark.speed.scenes import BY_NAME
from mjsim import engines
from mjsim.errors import SettingError
from mjsim.model.files import REPOSITORY


def document(*rows: measuring.ResultRow) -> dict:
    """As the suite writes it, in short."""
    machine = {"node": "here", "cpu": "one", "cores": 2, "load_average": 0.0}
    return {
        "format": "speed/1",
        "date": "2026-01-01",
        "commit": "abc",
        "machine": machine,
        "benchmarks": [{"extra_info": row} for row in rows],
    }


def run_compare(tmp_path: Path, old: dict, new: dict, *options: str) -> subprocess.CompletedProcess:
    paths = [tmp_path / "old.json", tmp_path / "new.json"]
    for path, content in zip(paths, (old, new), strict=True):
        path.write_text(json.dumps(content))
    return subprocess.run(
        [sys.executable, "-m", "benchmark.speed.compare", *map(str, paths), *options],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=120,
    )


@dataclasses.dataclass(frozen=True)
class Slowed(Contender):
    """Takes a fifth more steps than it is asked for."""

    def make_simulation(self, *args, **given) -> engines.Simulation:
        simulation = super().make_simulation(*args, **given)
        step = simulation.step
        simulation.step = lambda n=1: step(n + n // 5)
        return simulation


@pytest.fixture(scope="module")
def runs() -> dict[str, dict]:
    """Documents of three runs of mjc: two alike, and one that is slower by a fifth.

    They take turns in CPU time, so that other programs on the machine change nothing, and often
    enough that a median is known within 2 % where a neighbour makes single rounds vary by 15.
    """
    scene = dataclasses.replace(BY_NAME["pendula"], name="pendula of a test")
    kinds = {"stored": Contender, "unchanged": Contender, "slowed": Slowed}
    entries = [speed.Entry(kind(name, "mjc", {}), "cpu") for name, kind in kinds.items()]
    budget = speed.PointBudget(math.inf)
    found = speed.measure_group(scene, 1, entries, 161, budget, clock=time.process_time)
    documents = {}
    for name, measured in zip(kinds, found.values(), strict=True):
        row = copy.deepcopy(measured.row)
        row["contender"] = row["definition"]["contender"] = "mjc"
        row["series"] = measuring.definition_hash(row["definition"])
        documents[name] = document(row)
    return documents


@pytest.mark.alone
def test_a_planted_slowdown_of_20_percent_is_caught(runs, tmp_path):
    done = run_compare(tmp_path, runs["stored"], runs["slowed"])
    assert done.returncode == 1, done.stdout
    assert "SLOWER" in done.stdout
    assert "1 of 1 rows compared" in done.stdout


@pytest.mark.alone
def test_an_unchanged_run_is_not(runs, tmp_path):
    done = run_compare(tmp_path, runs["stored"], runs["unchanged"])
    assert done.returncode == 0, done.stdout
    assert "SLOWER" not in done.stdout


def row_of(contender: str, median: float, noise: float = 0.01, **more) -> measuring.ResultRow:
    """A row that took so many seconds, its quartiles a part of that away."""
    times = measuring.spread([median * (1 - 2 * noise), median, median * (1 + 2 * noise)])
    definition = {"scene": "s", "contender": contender}
    return {
        "kind": "step",
        "scene": "s",
        "nworld": 1,
        "device": "cpu",
        "contender": contender,
        "valid": True,
        "invalid": None,
        "time_per_step": times,
        "yardstick": 1.0,
        "series": measuring.definition_hash(definition),
        "definition": definition,
        **more,
    }


def kinds(
    old: list[measuring.ResultRow], new: list[measuring.ResultRow], limit: float = 1.15
) -> list[str]:
    return [verdict.kind for verdict in compare.compare(old, new, limit)]


def test_rows_are_judged_by_the_ratio_of_medians():
    old = [row_of("a", 1.0)]
    assert kinds(old, [row_of("a", 1.14)]) == ["alike"]
    assert kinds(old, [row_of("a", 1.16)]) == ["slower"]
    assert kinds(old, [row_of("a", 1.16)], limit=1.2) == ["alike"]
    assert kinds(old, [row_of("a", 0.8)]) == ["faster"]


def test_a_machine_that_was_not_as_fast_proves_nothing():
    old = [row_of("a", 1.0)]
    assert kinds(old, [row_of("a", 1.4, yardstick=1.4)]) == ["unclear"]
    assert kinds(old, [row_of("a", 0.84, yardstick=0.7)]) == ["unclear"]
    assert kinds(old, [row_of("a", 1.4, yardstick=1.1)]) == ["slower"]


def test_rounds_that_overlap_prove_nothing():
    assert kinds([row_of("a", 1.0, noise=0.2)], [row_of("a", 1.3, noise=0.2)]) == ["unclear"]


def test_a_row_without_a_partner_is_listed_and_not_compared(tmp_path):
    done = run_compare(tmp_path, document(row_of("a", 1.0)), document(row_of("b", 9.0)))
    assert done.returncode == 0
    assert "a on cpu: s, 1 world(s)" in done.stdout
    assert "the new run has no such row" in done.stdout
    assert "the stored run has no such row" in done.stdout
    assert "0 of 2 rows compared" in done.stdout


def test_machines_that_differ_are_said(tmp_path):
    old, new = document(row_of("a", 1.0)), document(row_of("a", 1.0))
    assert "DIFFER" not in run_compare(tmp_path, old, new).stdout
    new["machine"]["cores"] = 64
    assert "THE MACHINES DIFFER: cores 2 -> 64" in run_compare(tmp_path, old, new).stdout


def test_ranks_are_compared_but_for_ties(tmp_path):
    old = document(row_of("a", 1.0), row_of("b", 2.0), row_of("c", 2.02))
    tied = document(row_of("a", 3.0), row_of("b", 4.0), row_of("c", 3.98))
    assert run_compare(tmp_path, old, tied, "--ranks").returncode == 0
    swapped = document(row_of("a", 3.0), row_of("b", 2.0), row_of("c", 4.0))
    done = run_compare(tmp_path, old, swapped, "--ranks")
    assert done.returncode == 1
    assert "OTHER: a on cpu and b on cpu" in done.stdout


def test_wrong_use_of_the_comparison_ends_in_one_line(tmp_path):
    done = run_compare(tmp_path, {"format": "other"}, document())
    assert done.returncode == 2
    assert "is no run of the speed suite" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_run_is_never_compared_with_itself(tmp_path, monkeypatch):
    monkeypatch.setattr(compare, "RESULTS", tmp_path)
    paths = [tmp_path / f"speed-{name}.json" for name in "abc"]
    for age, path in enumerate(paths):
        path.touch()
        os.utime(path, (age, age))
    assert compare.with_newest([]) == paths[1:]
    assert compare.with_newest([paths[2]]) == [paths[2], paths[1]]
    with pytest.raises(SettingError, match="two different ones"):
        compare.with_newest([paths[0], paths[0]])
