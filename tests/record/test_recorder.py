"""A recorder takes the model and the states as people have them, and as many as they ask for."""

from pathlib import Path

import mujoco
import mujoco_warp
import numpy as np
import pytest
from recordings import ABOUT, SCENE, scene_states

from mjsim.errors import SettingError
from mjsim.record import Recorder, Recording
from mjsim.state import SHARED_FIELDS

OTHER = "<mujoco><worldbody><geom size='1'/></worldbody></mujoco>"


def steps_of(path: Path) -> list[int]:
    with Recording(path) as run:
        return [recorded.step for recorded in run.states()]


def record_times(path: Path, times: list[float], **options: object) -> list[int]:
    """Record a state at each of these simulated times, s; the indices of those that are kept."""
    states = scene_states(len(times))
    with Recorder(path, SCENE, **options) as recorder:
        for step, (time, mjd) in enumerate(zip(times, states, strict=True)):
            mjd.time = time
            recorder.write(mjd, step)
    return steps_of(path)


# ------------------------------------------------------------------------------------- the model


def test_each_kind_of_model_is_recorded(tmp_path: Path) -> None:
    path = tmp_path / "scene.xml"
    path.write_text(SCENE)
    spec = mujoco.MjSpec.from_string(SCENE)
    wanted = mujoco.MjModel.from_xml_string(SCENE)
    for number, model in enumerate((path, str(path), SCENE, spec, wanted)):
        with Recorder(tmp_path / f"{number}.mcap", model) as recorder:
            assert recorder.write(next(scene_states(1)))
        with Recording(tmp_path / f"{number}.mcap") as run:
            got = run.model()
            assert (run.nstates, run.about) == (1, {})
        assert got.names == wanted.names
        np.testing.assert_allclose(got.body_pos, wanted.body_pos)


def test_an_mjmodel_is_recorded_bit_for_bit_whatever_was_loaded_since(tmp_path: Path) -> None:
    mjm = mujoco.MjModel.from_xml_string(SCENE)
    mjm.body_mass[1] = 1.0 / 3.0
    mujoco.MjModel.from_xml_string(OTHER)
    Recorder(tmp_path / "run.mcap", mjm, ABOUT).close()
    with Recording(tmp_path / "run.mcap") as run:
        np.testing.assert_array_equal(run.model().body_mass, mjm.body_mass)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("no/such/file.xml", "No such file or directory"),
        ("<mujoco><oops/></mujoco>", "XML Error"),
        (42, "the int is no MjSpec, MjModel, MJCF text or path"),
    ],
)
def test_what_is_no_model_is_named_and_leaves_no_file(
    model: object, said: str, tmp_path: Path
) -> None:
    with pytest.raises(SettingError, match="the model cannot be recorded") as caught:
        Recorder(tmp_path / "run.mcap", model)
    assert said in caught.value.problem
    assert "\n" not in caught.value.problem
    assert list(tmp_path.iterdir()) == []


# -------------------------------------------------------------------------------------- the rate


@pytest.mark.parametrize(
    ("hz", "timestep", "kept"),
    [
        (0.0, 0.002, 500),
        (60.0, 0.002, 60),
        (50.0, 0.002, 50),
        (500.0, 0.002, 500),
        (1e6, 0.002, 500),
        (30.0, 0.004, 30),
        (1.0, 0.002, 1),
    ],
)
def test_the_rate_is_of_simulated_time(
    hz: float, timestep: float, kept: int, tmp_path: Path
) -> None:
    times, time = [], 0.0
    while time < 1.0 - 1e-9:
        times.append(time)
        time += timestep  # as MuJoCo adds them up, rounding errors and all
    steps = record_times(tmp_path / "run.mcap", times, hz=hz)
    assert steps[0] == 0
    assert len(steps) == kept


def test_states_are_evenly_spaced_where_the_rate_divides_the_steps(tmp_path: Path) -> None:
    times = [0.002 * step for step in range(500)]
    assert record_times(tmp_path / "run.mcap", times, hz=50) == list(range(0, 500, 10))


def test_times_in_float32_keep_the_spacing(tmp_path: Path) -> None:
    """As the engines on Warp have them, whose rounding errors grow with the time."""
    times = np.cumsum(np.full(10_000, 0.002, np.float32), dtype=np.float32)[9000:]
    steps = record_times(tmp_path / "run.mcap", times.tolist(), hz=50)
    assert set(np.diff(steps)) <= {9, 10, 11}
    assert 98 <= len(steps) <= 102


def test_a_recording_that_begins_late_begins_with_its_first_state(tmp_path: Path) -> None:
    times = [7.0 + 0.01 * step for step in range(100)]
    assert record_times(tmp_path / "run.mcap", times, hz=10) == list(range(0, 100, 10))


def test_the_first_state_after_a_reset_is_recorded(tmp_path: Path) -> None:
    times = [0.0, 0.01, 0.02, 0.0, 0.01, 0.02]
    assert record_times(tmp_path / "run.mcap", times, hz=10) == [0, 3]


def test_a_state_whose_time_is_no_number_is_recorded(tmp_path: Path) -> None:
    assert record_times(tmp_path / "run.mcap", [0.0, 0.01, np.nan, 0.02], hz=10) == [0, 2]


@pytest.mark.parametrize("hz", [-1.0, float("nan")])
def test_a_rate_that_is_none_is_named(hz: float, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="0 \\(every state\\) or more") as caught:
        Recorder(tmp_path / "run.mcap", SCENE, hz=hz)
    assert caught.value.setting == "hz"
    assert list(tmp_path.iterdir()) == []


def test_who_writes_is_told_whether_the_state_was_added(tmp_path: Path) -> None:
    mjd = next(scene_states(1))
    recorder = Recorder(tmp_path / "run.mcap", SCENE, hz=10)
    assert recorder.write(mjd)
    assert not recorder.write(mjd)
    recorder.close()
    mjd.time = 1.0
    assert not recorder.write(mjd)


# ---------------------------------------------------------------------- one world of batched data


def test_one_world_is_recorded_with_all_its_fields(tmp_path: Path) -> None:
    mjm = mujoco.MjModel.from_xml_string(SCENE)
    d = mujoco_warp.make_data(mjm, nworld=4)
    rng = np.random.default_rng(0)
    values = {}
    for field in SHARED_FIELDS:
        array = getattr(d, field)
        values[field] = rng.normal(size=array.numpy().shape).astype(np.float32)
        array.assign(values[field])
    d.time.assign(np.arange(4, dtype=np.float32))
    with Recorder(tmp_path / "run.mcap", mjm, hz=10) as recorder:
        assert recorder.write_world(d, 3, step=5)
        assert not recorder.write_world(d, 3, step=6)
        for world in (4, -1, True):
            with pytest.raises(SettingError, match=f"{world} is no world of this data: 0 to 3"):
                recorder.write_world(d, world)
    with Recording(tmp_path / "run.mcap") as run:
        (recorded,) = run.states()
    assert (recorded.step, recorded.state["time"]) == (5, 3.0)
    for field in SHARED_FIELDS:
        np.testing.assert_array_equal(recorded.state[field], values[field][3])
