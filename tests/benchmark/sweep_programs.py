"""Sweeps as programs, for the tests that run them."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mjsim.model.files import REPOSITORY

PENDULA = "benchmark/test_data/pendula.xml"
HUMANOID = "benchmark/test_data/humanoid/humanoid.xml"
RAY = Path(sys.executable).with_name("ray")
has_ray = pytest.mark.skipif(not RAY.exists(), reason="no Ray: pip install 'comfree-warp[sweep]'")


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "benchmark.sweep", *map(str, arguments)]


def environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return {**kept, **more}


def run_sweep(*arguments: object, **more: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        command(*arguments),
        cwd=REPOSITORY,
        env=environment(**more),
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )


def long_sweep(tmp_path: Path, ncase: int) -> list[object]:
    """Cases of about a second each."""
    seeds = ",".join(map(str, range(ncase)))
    flags = ["--model", HUMANOID, "--engine", "mjc", "--seed", seeds, "--ctrl-noise", 0.5]
    return [*flags, "--nsteps", 30_000, "--table", tmp_path / "table.jsonl"]


def wait_for_rows(path: Path, number: int, running: subprocess.Popen) -> None:
    deadline = time.monotonic() + 120
    while not path.exists() or path.read_text().count("\n") < number:
        assert running.poll() is None, running.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.1)
