"""The last second before a divergence: remembered on each engine, and kept by the script."""

import json
import os
import subprocess
import sys
from pathlib import Path

import mujoco
import numpy as np
import pytest

from mjsim import choices, engines
from mjsim.engines.history import MEMORY, NSPARSE, SPEC, RecentState, Rings, choose_rings
from mjsim.model.files import REPOSITORY
from mjsim.record import Recording

# A spring that the integrator cannot follow: what the noise starts grows by a tenth with each step.
UNSTABLE = """
<mujoco>
  <option timestep="0.002" gravity="0 0 0"><flag eulerdamp="disable"/></option>
  <worldbody>
    <body><joint name="slide" type="slide" stiffness="1.0025e6"/><geom size=".1" mass="1"/></body>
    <body mocap="true" pos="0 0 1"/>
  </worldbody>
  <actuator><motor joint="slide"/></actuator>
</mujoco>
"""
NOISE = engines.ControlNoise(0.5, seed=3)
FIELDS = ("time", "qpos", "qvel", "act", "ctrl")

EVERY_ENGINE = pytest.mark.parametrize(
    "engine",
    ["mjc", *(pytest.param(name, marks=pytest.mark.engine) for name in ("mjwarp", "comfree"))],
)


def make(engine: str, xml: str = UNSTABLE, **settings: object) -> engines.Simulation:
    settings = {"nworld": 2, "noise": NOISE, "remember": 1.0, **settings}
    return engines.make_simulation(mujoco.MjModel.from_xml_string(xml), engine, **settings)


def state(simulation: engines.Simulation, world: int) -> list[np.ndarray]:
    return [simulation.read(field, world) for field in FIELDS]


def check_recalled(recalled: list[RecentState], history: list[list[np.ndarray]]) -> None:
    for each in recalled:
        for field, values in zip(FIELDS, history[each.step], strict=True):
            np.testing.assert_array_equal(getattr(each, field), values)


# -------------------------------------------------------------------------------- which states


def test_rings_reach_back_for_the_time_asked_for() -> None:
    for timestep in (0.0001, 0.002, 0.004, 0.01, 0.05, 0.7):
        mjm = mujoco.MjModel.from_xml_string(UNSTABLE)
        mjm.opt.timestep = timestep
        rings = choose_rings(mjm, nworld=1, seconds=1.0, itemsize=4)
        assert rings.nsparse <= NSPARSE
        for last in (100_000, 100_001, 123_456):
            steps = [step for step, _ in rings.slots(last)]
            assert min(steps) <= last - 1.0 / timestep
            assert max(steps) == last


def test_every_state_has_a_slot_of_its_own() -> None:
    """What is in a slot after `last` steps is what was put there last."""
    for rings in (Rings(9, 57, 16), Rings(1, 3, 1), Rings(4, 2, 5)):
        filled: dict[int, int] = {}
        for last in range(200):
            for step, slot in rings.slots(last):
                if step == last:
                    filled[slot] = step
            assert {slot: step for step, slot in rings.slots(last)} == filled


def test_many_worlds_are_remembered_in_bounded_memory() -> None:
    mjm = engines.load_model("benchmark/test_data/humanoid/humanoid.xml")
    size = mujoco.mj_stateSize(mjm, SPEC)
    few, many = (choose_rings(mjm, nworld, 1.0, itemsize=4) for nworld in (64, 16384))
    assert few.nslots > 70
    assert 4 <= many.nslots < few.nslots
    assert 4 * many.nslots * size * 16384 <= MEMORY
    assert min(step for step, _ in many.slots(5000)) <= 4500


# ------------------------------------------------------------------------------ on each engine


@EVERY_ENGINE
def test_a_simulation_recalls_the_last_second_of_each_world(engine: str) -> None:
    steady = UNSTABLE.replace("1.0025e6", "100")
    simulation, reference = make(engine, steady), make(engine, steady, remember=0.0)
    assert simulation.recall() == []
    history: list[list[list[np.ndarray]]] = [[state(reference, world)] for world in (0, 1)]
    for _ in range(1300):
        reference.step()
        for world in (0, 1):
            history[world].append(state(reference, world))
    for n in (1, 2, 600, 1, 696):
        simulation.step(n)
        for world in (0, 1):
            recalled = simulation.recall(world)
            steps = [each.step for each in recalled]
            assert steps == sorted(set(steps))
            assert steps[0] <= max(0, simulation.nstep - 500)
            assert steps[-1] == simulation.nstep
            check_recalled(recalled, history[world])
    assert len(recalled) > 60
    assert steps[-16:] == list(range(1285, 1301))


@EVERY_ENGINE
def test_of_a_world_that_diverged_the_second_before_is_recalled_long_after(engine: str) -> None:
    simulation, reference = make(engine), make(engine, remember=0.0)
    simulation.write("qpos", [[0.0], [1e-9]])
    reference.write("qpos", [[0.0], [1e-9]])
    history = [state(reference, world=1)]
    simulation.step(1000)
    simulation.step(1000)
    divergence = simulation.health().divergence
    assert 20 < divergence.step < 900
    while reference.nstep < divergence.step:
        reference.step()
        history.append(state(reference, divergence.world))
    recalled = simulation.recall(divergence.world)
    assert recalled[-1].step == divergence.step
    assert not abs(recalled[-1].qvel) <= engines.VELOCITY_LIMIT
    assert abs(recalled[-2].qvel) <= engines.VELOCITY_LIMIT
    check_recalled(recalled[1:], history)
    other = simulation.recall(1 - divergence.world)
    assert other[-1].step != divergence.step


@EVERY_ENGINE
def test_a_world_that_does_not_diverge_goes_on_being_remembered(engine: str) -> None:
    simulation = make(engine, noise=engines.ControlNoise())
    simulation.write("qpos", [[0.0], [0.1]])
    simulation.step(2000)
    assert simulation.health().ndiverged == 1
    assert simulation.recall(0)[-1].step == 2000
    assert simulation.recall(1)[-1].step == simulation.health().divergence.step


def test_nothing_is_remembered_unless_asked_for() -> None:
    simulation = make("mjc", remember=0.0)
    simulation.step(10)
    assert simulation.recall() == []


# ------------------------------------------------------------------------------- the recording


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
