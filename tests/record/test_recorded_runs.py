"""Runs of test_headless.py that are recorded: to the end, interrupted, killed, on a full disk."""

import contextlib
import os
import signal
import subprocess
import sys
import tracemalloc
from pathlib import Path
from types import SimpleNamespace

import mujoco
import numpy as np
import pytest
from recordings import (
    ABOUT,
    MODELS,
    PACKET,
    check_equal,
    headless,
    run_headless,
    scene_states,
)
from watching import TIMEOUT, free_port, wait_until

from mjsim import engines
from mjsim.errors import SettingError
from mjsim.model.files import REPOSITORY
from mjsim.record import Recorder, Recording
from mjsim.record import recorder as recorder_module
from mjsim.stream import StreamClient, pack_mjdata


def test_a_run_killed_in_the_middle_keeps_what_was_streamed_but_its_last_second(
    tmp_path: Path,
) -> None:
    port, path = free_port(), tmp_path / "run.mcap"
    model = MODELS / "humanoid" / "humanoid.xml"
    command = headless(
        *("--model", str(model), "--nsteps=1000000", "--ctrl-noise=0.5"),
        *("--record", str(path), "--record-hz=0", "--stream-hz=0"),
        port=port,
    )
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    streamed: dict[int, dict] = {}
    try:
        wait_until(lambda: can_connect(port), "the server listens")
        client = StreamClient.connect("127.0.0.1", port)
        while max(streamed, default=0) < 1500:  # 3 s
            for packet in client.drain(TIMEOUT):
                if packet["kind"] == "state":
                    streamed[packet["step"]] = packet["state"]
        process.send_signal(signal.SIGKILL)
        process.wait()
        with contextlib.suppress(ConnectionError):
            while packets := client.drain(1.0):
                streamed |= {each["step"]: each["state"] for each in packets}
        client.close()
    finally:
        process.kill()
        process.wait()
    with Recording(path) as run:
        recorded = {each.step: each.state for each in run.states()}
        assert not run.complete
        assert f"it has {len(recorded):,} states of " in run.problem
        assert len(recorded) == run.nstates
    assert list(recorded) == list(range(len(recorded)))
    assert recorded[len(recorded) - 1]["time"] > streamed[max(streamed)]["time"] - 1.0
    both = recorded.keys() & streamed.keys()
    assert len(both) > 100
    for step in both:
        check_equal(recorded[step], streamed[step])


def can_connect(port: int) -> bool:
    with contextlib.suppress(ConnectionError):
        StreamClient.connect("127.0.0.1", port).close()
        return True
    return False


def test_what_is_not_yet_in_the_file_is_half_a_second_at_most(tmp_path: Path) -> None:
    """By simulated time here: none of it is waited for."""
    path = tmp_path / "run.mcap"
    with Recorder(path, PACKET, ABOUT) as recorder:
        for step, mjd in enumerate(scene_states(50)):
            recorder.write(mjd, step)
            with Recording(path) as run:
                assert run.nstates >= step - 4
                assert run.model().nq == 8


def test_a_state_that_comes_late_by_the_clock_is_in_the_file_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, now = tmp_path / "run.mcap", [0.0]
    monkeypatch.setattr(recorder_module.time, "monotonic", lambda: now[0])
    with Recorder(path, PACKET, ABOUT) as recorder:
        for step, mjd in enumerate(scene_states(10)):
            mjd.time, now[0] = 1e-6 * step, 0.5 * (step + 1)
            recorder.write(mjd, step)
            with Recording(path) as run:
                assert run.nstates == step + 1


def test_a_full_disk_ends_the_recording_but_not_the_run(small_disk: Path) -> None:
    path = small_disk / "run.mcap"
    done = run_headless(
        *("--model", str(MODELS / "primitives.xml"), "--nsteps=200"),
        *("--record", str(path), "--record-hz=0"),
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("No space left on device") == 2  # then, and in the last line
    assert "200 steps in " in done.stderr
    with Recording(path) as run:
        steps = [each.step for each in run.states()]
        assert not run.complete
        assert f"recorded: {len(steps)} states, " in done.stderr
        assert steps == list(range(len(steps)))
        assert 0 < len(steps) < 200


def test_a_disk_that_is_full_from_the_start_is_wrong_use(small_disk: Path) -> None:
    (small_disk / "other").write_bytes(bytes(256 << 10))
    path = small_disk / "run.mcap"
    done = run_headless("--nsteps=1", "--record", str(path))
    assert done.returncode == 2
    assert f"--record: '{path}' cannot be written: No space left on device" in done.stderr
    assert not path.exists()


def test_an_existing_file_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "run.mcap"
    path.write_text("precious")
    with pytest.raises(SettingError, match="is there already and is kept") as caught:
        Recorder(path, PACKET, ABOUT)
    assert caught.value.setting == "record"
    done = run_headless("--nsteps=1", "--record", str(path))
    assert done.returncode == 2
    assert "--record: " in done.stderr
    assert done.stderr.count("\n") == 1
    assert path.read_text() == "precious"


def test_a_folder_that_is_not_there_is_wrong_use_before_anything_is_compiled() -> None:
    done = run_headless("--record=/no/such/run.mcap", "--engine=comfree")
    assert done.returncode == 2
    assert done.stderr.startswith("test_headless.py: --record: '/no/such/run.mcap' cannot be ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("package", ["mcap", "google.protobuf"])
def test_without_the_packages_the_install_line_is_told(package: str, tmp_path: Path) -> None:
    script = f"""
import runpy, sys
sys.modules[{package!r}] = None  # as if it were not installed
sys.argv = ["test_headless.py", "--record=run.mcap"]
runpy.run_path({str(REPOSITORY / "test_headless.py")!r}, run_name="__main__")
"""
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2, done.stderr
    assert "pip install 'comfree-warp[record]' (in a clone: make venv)" in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_script_records_from_the_first_state_to_the_last(tmp_path: Path) -> None:
    path, model = tmp_path / "run.mcap", MODELS / "humanoid" / "humanoid.xml"
    done = run_headless(
        *("--model", str(model), "--nsteps=203", "--nworld=3", "--stream-world=2"),
        *("--ctrl-noise=0.5", "--record", str(path), "--record-hz=100"),
    )
    assert done.returncode == 0, done.stderr
    simulation = engines.make_simulation(
        engines.load_model(model), "mjc", nworld=3, noise=engines.ControlNoise(0.5)
    )
    with Recording(path) as run:
        assert run.problem is None
        assert (run.about["engine"], run.about["world"]) == ("mjc", "2")
        assert run.about["timestep"] == "0.002"
        assert run.about["mujoco"] == mujoco.__version__
        recorded = list(run.states())
        size = path.stat().st_size / 1e6
        assert f"recorded: {run.nstates} states, {size:.1f} MB, in {path}" in done.stderr
    assert [each.step for each in recorded] == [*range(0, 203, 5), 203]
    for each in recorded:
        simulation.step(each.step - simulation.nstep)
        for field in ("qpos", "qvel", "ctrl", "xfrc_applied"):
            np.testing.assert_array_equal(each.state[field], simulation.read(field, world=2))


def test_ctrl_c_closes_the_recording_in_order(tmp_path: Path) -> None:
    path = tmp_path / "run.mcap"
    model = MODELS / "pendula.xml"
    process = subprocess.Popen(
        headless("--model", str(model), "--nsteps=2000000000", "--record", str(path)),
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_until(lambda: path.exists() and path.stat().st_size > 100_000, "some is recorded")
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 130, told
    with Recording(path) as run:
        assert (run.complete, run.problem) == (True, None)
        assert sum(1 for _ in run.states()) == run.nstates


def test_ten_minutes_of_the_humanoid_stay_below_50_mb(tmp_path: Path) -> None:
    """Told from twenty seconds of it, falling and shaken by control noise."""
    path, model = tmp_path / "run.mcap", MODELS / "humanoid" / "humanoid.xml"
    done = run_headless(
        *("--model", str(model), "--nsteps=10000", "--ctrl-noise=1", "--record", str(path))
    )
    assert done.returncode == 0, done.stderr
    with Recording(path) as run:
        assert run.duration == pytest.approx(20.0)
        assert run.nstates >= 60 * 20
    assert 30 * path.stat().st_size < 50e6


def test_neither_writing_nor_reading_holds_a_run_in_memory(tmp_path: Path) -> None:
    path = tmp_path / "run.mcap"
    state = SimpleNamespace(**pack_mjdata(next(scene_states(1))))
    rng = np.random.default_rng(0)
    no_model = PACKET | {"xml": "<nonsense/>"}  # one that fits would take its own room
    tracemalloc.start()
    try:
        with Recorder(path, no_model, ABOUT) as recorder:
            for step in range(600):
                state.time, state.qpos = 0.02 * step, rng.normal(size=2000)
                recorder.write(state, step)
        with Recording(path) as run:
            assert sum(1 for _ in run.states()) == run.nstates == 600
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert path.stat().st_size > 9e6
    assert peak < 4e6
