"""The speed suite as a program: its JSON, and what is kept when it is stopped or killed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import warp as wp

from benchmark.common import measuring
from mjsim.model.files import REPOSITORY


def suite(path: Path, *options: str) -> list[str]:
    """The command that runs the suite, with its results at a path."""
    return [
        *(sys.executable, "-m", "pytest", "-c", "benchmark/speed/pytest.ini", "benchmark/speed"),
        *("--level=quick", "--rounds=4", f"--benchmark-json={path}", *options),
    ]


def alone() -> dict[str, str]:
    """The environment without what tells a program that xdist shares out its tests."""
    return {name: value for name, value in os.environ.items() if "XDIST" not in name}


def run_suite(tmp_path: Path, *options: str) -> tuple[subprocess.CompletedProcess, dict]:
    path = tmp_path / "run.json"
    done = subprocess.run(
        suite(path, "-q", *options),
        cwd=REPOSITORY,
        env=alone(),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done, json.loads(path.read_text())


def test_the_suite_writes_pytest_benchmarks_json_with_its_rows(tmp_path):
    done, written = run_suite(tmp_path, "--scenes=pendula", "--contenders=mjc")
    assert written["format"] == "speed/1"
    assert {"commit", "command", "date", "machine", "skipped", "scaling"} <= written.keys()
    one, many = written["benchmarks"]
    assert one["params"] == {"scene": "pendula", "nworld": 1, "device": "cpu", "contender": "mjc"}
    assert many["extra_info"]["nworld"] == 64
    for each in (one, many):
        row, stats = each["extra_info"], each["stats"]
        assert each["group"] == "pendula"
        assert stats["rounds"] == 4
        assert stats["median"] == pytest.approx(row["time_per_step"]["median"])
        assert row["series"] == measuring.definition_hash(row["definition"])
    assert "the suite's own time in a round: at most" in done.stdout
    listed = subprocess.run(
        [sys.executable, "-m", "pytest_benchmark", "compare", str(tmp_path / "run.json")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert listed.returncode == 0, listed.stderr
    assert "pendula-64-cpu-mjc" in listed.stdout


def test_a_suite_that_is_told_to_stop_keeps_what_was_measured(tmp_path):
    path = tmp_path / "run.json"
    command = suite(path, "-v", "--scenes=pendula;humanoid;hand", "--contenders=mjc")
    with subprocess.Popen(
        command, cwd=REPOSITORY, env=alone(), stdout=subprocess.PIPE, text=True
    ) as running:
        next(line for line in running.stdout if "PASSED" in line)
        running.terminate()
        running.stdout.read()
        running.wait(timeout=60)
    assert running.returncode == 2
    written = json.loads(path.read_text())
    assert 1 <= len(written["benchmarks"]) < 6
    assert written["selected"] == "scenes 'pendula;humanoid;hand', contenders 'mjc'"
    assert written["ended"] == "a signal"
    assert os.listdir(tmp_path) == ["run.json"]


def test_rows_outlive_a_suite_that_is_killed(tmp_path):
    command = suite(tmp_path / "run.json", "-v", "--scenes=pendula;humanoid", "--contenders=mjc")
    with subprocess.Popen(
        command, cwd=REPOSITORY, env=alone(), stdout=subprocess.PIPE, text=True
    ) as running:
        passed = [next(line for line in running.stdout if "PASSED" in line) for _ in range(2)]
        running.kill()
    assert os.listdir(tmp_path) == ["run.rows.jsonl"]
    rows = [json.loads(line) for line in (tmp_path / "run.rows.jsonl").read_text().splitlines()]
    assert len(rows) >= len(passed) - 1
    assert rows[0]["scene"] == "humanoid, fallen"
    assert rows[0]["time_per_step"]["median"] > 0.0

    again = subprocess.run(
        command, cwd=REPOSITORY, env=alone(), capture_output=True, text=True, timeout=60
    )
    assert again.returncode == 4
    assert "run.rows.jsonl has the rows of a run that was killed" in again.stderr


@pytest.mark.engine
@pytest.mark.skipif(wp.is_cuda_available(), reason="there is a CUDA device on this machine")
def test_without_a_gpu_its_rows_are_skipped_with_the_reason(tmp_path):
    done, written = run_suite(tmp_path, "--scenes=pendula", "--contenders=mjc,comfree-paper")
    assert [(it["contender"], it["device"], it["nworld"]) for it in written["skipped"]] == [
        ("comfree-paper", "cuda:0", 1),
        ("comfree-paper", "cuda:0", 64),
    ]
    for skipped in written["skipped"]:
        assert skipped["reason"] == "device: 'cuda:0' is not here; available: cpu"
    assert "'cuda:0' is not here" in done.stdout
