"""The last second before a divergence, kept by the run as a recording."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scenes import UNSTABLE

from mjsim import choices, engines
from mjsim.model.files import REPOSITORY
from mjsim.record import Recording

EVERY_ENGINE = pytest.mark.parametrize(
    "engine",
    ["mjc", *(pytest.param(name, marks=pytest.mark.engine) for name in ("mjwarp", "comfree"))],
)


def headless(folder: Path, *arguments: str, hide: str = "") -> subprocess.CompletedProcess:
    """The script in that folder, on the unstable model; without a package if asked to."""
    model = folder.parent / "unstable.xml"
    model.write_text(UNSTABLE)
    words = ["--model", str(model), "--port=0", "--nsteps=5000", "--ctrl-noise=0.5", *arguments]
    program = f"""
import runpy, sys
sys.path.insert(0, {str(REPOSITORY)!r})
if {hide!r}:
    sys.modules[{hide!r}] = None
sys.argv = ["test_headless.py", *{words!r}]
runpy.run_path({str(REPOSITORY / "test_headless.py")!r}, run_name="__main__")
"""
    return subprocess.run(
        [sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, timeout=300
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the script is started."""
    path = tmp_path / "here"
    path.mkdir()
    return path


@EVERY_ENGINE
def test_a_run_that_diverges_keeps_the_second_before_of_the_first_such_world(
    engine: str, folder: Path, tmp_path: Path
) -> None:
    summary = tmp_path / "summary.json"
    done = headless(folder, f"--engine={engine}", "--nworld=3", "--json", str(summary))
    assert done.returncode == 1, done.stderr
    (path,) = folder.iterdir()
    first = json.loads(summary.read_text())["first_divergence"]
    name = choices.file_name(choices.engine_name(engine))
    assert path.name.startswith(f"diverged-unstable-{name}-world{first['world']}-20")
    told = done.stderr.splitlines()[-1]
    assert told.startswith(f"test_headless.py: world {first['world']} diverged at step ")
    assert told.endswith(f"; the last second before it is in {path.name}")
    with Recording(path) as run:
        assert (run.complete, run.problem) == (True, None)
        assert run.about["diverged"] == told.split(": ", 1)[1].partition("; ")[0]
        assert run.about["world"] == str(first["world"])
        assert run.about["engine"] == choices.engine_name(engine)
        recorded = list(run.states())
        assert run.model().nu == 1
    assert recorded[-1].step == first["step"]
    assert recorded[-1].state["time"] == pytest.approx(first["time"], rel=1e-4)
    assert not abs(recorded[-1].state["qvel"]) <= engines.VELOCITY_LIMIT
    assert recorded[0].step <= max(0, first["step"] - 500)
    np.testing.assert_array_equal(recorded[0].state["mocap_pos"], [[0, 0, 1]])


def test_a_run_that_does_not_diverge_keeps_nothing(folder: Path) -> None:
    done = headless(folder, "--engine=mjc", "--nsteps=10")
    assert done.returncode == 0, done.stderr
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("variable", [None, "0"])
def test_no_dump_keeps_none(
    variable: str | None, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if variable:
        monkeypatch.setenv("MJSIM_DUMP", variable)
    done = headless(folder, "--engine=mjc", *([] if variable else ["--no-dump"]))
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].endswith("a velocity is NaN or beyond 100000 m/s or rad/s")
    assert list(folder.iterdir()) == []


def test_without_the_packages_the_error_says_why_no_dump_was_kept(folder: Path) -> None:
    done = headless(folder, "--engine=mjc", hide="mcap")
    assert done.returncode == 1
    told = done.stderr.splitlines()[-1]
    assert "world 0 diverged at step " in told
    assert told.endswith(
        "; no dump was kept: recordings need the package mcap: "
        "pip install 'comfree-warp[record]' (in a clone: make venv)"
    )
    assert list(folder.iterdir()) == []


def test_a_dump_that_cannot_be_written_is_said_beside_the_divergence(folder: Path) -> None:
    mount = ["mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        (folder / "full").write_bytes(bytes(os.statvfs(folder).f_bavail * 4096))
        done = headless(folder, "--engine=mjc")
        assert [path.name for path in folder.iterdir()] == ["full"]
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
    assert done.returncode == 1
    told = done.stderr.splitlines()[-1]
    assert "world 0 diverged at step " in told
    assert "; no dump was kept: 'diverged-unstable-mjc-world0-" in told
    assert told.endswith("cannot be written: No space left on device")
