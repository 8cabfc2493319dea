"""What is recorded is what is read: every bit of the states, and the model with its files."""

import struct
from pathlib import Path

import mujoco
import numpy as np
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from mcap.reader import make_reader
from recordings import ABOUT, MODELS, PACKET, SCENE, check_equal, record, scene_states

from mjsim.record import Recorder, Recording, RecordingError
from mjsim.stream import apply_mjdata, pack_mjdata


def test_every_state_comes_back_bit_for_bit(tmp_path: Path) -> None:
    states = record(tmp_path / "run.mcap")
    with Recording(tmp_path / "run.mcap") as run:
        recorded = list(run.states())
        assert (run.complete, run.problem, run.nstates) == (True, None, 100)
        assert run.about == ABOUT
        assert run.duration == pytest.approx(9.9)
    assert [each.step for each in recorded] == list(range(100))
    assert [each.at for each in recorded] == pytest.approx(np.arange(100) * 0.1)
    for each, state in zip(recorded, states, strict=True):
        check_equal(each.state, state)


def test_nan_infinity_and_every_bit_of_a_number_pass(tmp_path: Path) -> None:
    mjm = mujoco.MjModel.from_xml_string(SCENE)
    mjd = mujoco.MjData(mjm)
    mjd.time = np.nan
    payload = struct.unpack("<d", struct.pack("<Q", 0x7FF8DEADBEEF0001))[0]
    mjd.qpos[:5] = np.nan, np.inf, -np.inf, -0.0, 5e-324
    mjd.qvel[0] = payload
    with Recorder(tmp_path / "run.mcap", PACKET, ABOUT) as recorder:
        recorder.write(mjd, 7)
    with Recording(tmp_path / "run.mcap") as run:
        ((at, step, state),) = run.states()
    assert (at, step) == (0.0, 7)
    check_equal(state, pack_mjdata(mjd))


def test_a_recorded_state_can_be_put_into_the_recorded_model(tmp_path: Path) -> None:
    record(tmp_path / "run.mcap")
    with Recording(tmp_path / "run.mcap") as run:
        mjd = mujoco.MjData(run.model())
        for recorded in run.states():
            apply_mjdata(mjd, recorded.state)
    assert mjd.time == pytest.approx(9.9)


def test_states_start_with_the_last_one_at_or_before_the_time_asked_for(tmp_path: Path) -> None:
    record(tmp_path / "run.mcap")
    with Recording(tmp_path / "run.mcap") as run:
        for start, step in ((-1.0, 0), (0.0, 0), (0.05, 0), (0.1, 1), (4.999, 49), (5.0, 50)):
            assert next(run.states(start)).step == step
        for start in (9.9, 1e6, np.inf):
            assert [each.step for each in run.states(start)] == [99]
        for recorded in list(run.states()):
            assert next(run.states(recorded.at)).step == recorded.step
        assert [each.step for each in run.states(2.0)] == list(range(20, 100))


def test_recording_time_goes_on_where_a_reset_puts_the_simulation_back(tmp_path: Path) -> None:
    times = [0.0, 1.0, 2.0, 0.0, 1.0, np.nan, 1.5, -3.0, -2.0]
    with Recorder(tmp_path / "run.mcap", PACKET, ABOUT) as recorder:
        for step, (time, mjd) in enumerate(zip(times, scene_states(len(times)), strict=True)):
            mjd.time = time
            recorder.write(mjd, step)
    with Recording(tmp_path / "run.mcap") as run:
        recorded = list(run.states())
        assert next(run.states(2.0)).step == 3  # of those at the same time, the last
    assert [each.at for each in recorded] == [0.0, 1.0, 2.0, 2.0, 3.0, 3.0, 3.5, 3.5, 4.5]
    np.testing.assert_array_equal([each.state["time"] for each in recorded], times)


def test_a_recording_without_states_is_one(tmp_path: Path) -> None:
    record(tmp_path / "run.mcap", n=0)
    with Recording(tmp_path / "run.mcap") as run:
        assert (run.complete, run.nstates, run.duration, list(run.states())) == (True, 0, 0.0, [])


def test_other_programs_read_it_by_the_schema_in_the_file(tmp_path: Path) -> None:
    """As Foxglove and the like do: with nothing of ours."""
    states = record(tmp_path / "run.mcap")
    with (tmp_path / "run.mcap").open("rb") as file:
        for number, (schema, channel, message) in enumerate(
            make_reader(file, validate_crcs=True).iter_messages()
        ):
            assert (schema.encoding, channel.message_encoding) == ("protobuf", "protobuf")
            assert channel.topic == "/state"
            pool = descriptor_pool.DescriptorPool()
            for each in descriptor_pb2.FileDescriptorSet.FromString(schema.data).file:
                pool.Add(each)
            kind = message_factory.GetMessageClass(pool.FindMessageTypeByName(schema.name))
            state = kind.FromString(message.data)
            assert state.step == number
            assert list(state.qpos) == list(states[number]["qpos"])
            assert message.log_time == pytest.approx(1e8 * number)
    assert number == 99


@pytest.mark.parametrize(
    "model", ["hand/env_hand_cube.xml", "franka_cube_grasp/scene.xml", "hfield/hfield.xml"]
)
def test_a_model_comes_back_with_its_files(model: str, tmp_path: Path) -> None:
    original = mujoco.MjModel.from_xml_path(str(MODELS / model))
    packet = {"kind": "model_path", "path": str(MODELS / model)}
    Recorder(tmp_path / "run.mcap", packet, ABOUT).close()
    with Recording(tmp_path / "run.mcap") as run:
        copy = run.model()
        assert run.model() is copy
    for size in ("nq", "nv", "nu", "ngeom", "nmesh", "nmeshvert", "nhfielddata", "ntexdata"):
        assert getattr(copy, size) == getattr(original, size)
    np.testing.assert_allclose(copy.mesh_vert, original.mesh_vert, atol=1e-5)


def test_a_model_without_xml_is_recorded_as_mjb(tmp_path: Path) -> None:
    original = mujoco.MjModel.from_xml_string(SCENE)
    mujoco.mj_saveModel(original, str(tmp_path / "scene.mjb"), None)
    states = record(
        tmp_path / "run.mcap", 10, {"kind": "model_path", "path": str(tmp_path / "scene.mjb")}
    )
    with Recording(tmp_path / "run.mcap") as run:
        np.testing.assert_array_equal(run.model().body_pos, original.body_pos)
        for each, state in zip(run.states(), states, strict=True):
            check_equal(each.state, state)


def test_without_its_model_a_recording_still_offers_its_states(tmp_path: Path) -> None:
    packet = {"kind": "xml", "xml": "<mujoco><nonsense/></mujoco>", "assets": {}}
    states = record(tmp_path / "run.mcap", 10, packet)
    with Recording(tmp_path / "run.mcap") as run:
        with pytest.raises(RecordingError, match=r"the model of run\.mcap does not compile: "):
            run.model()
        for each, state in zip(run.states(), states, strict=True):
            check_equal(each.state, state)


def test_states_that_do_not_fit_the_model_are_left_out_and_told(tmp_path: Path) -> None:
    other = mujoco.MjData(mujoco.MjModel.from_xml_string("<mujoco/>"))
    with Recorder(tmp_path / "run.mcap", PACKET, ABOUT) as recorder:
        for step, mjd in enumerate(scene_states(10)):
            recorder.write(other if step == 4 else mjd, step)
    with Recording(tmp_path / "run.mcap") as run:
        assert [each.step for each in run.states()] == [0, 1, 2, 3, 5, 6, 7, 8, 9]
        assert "at 0.30 s, qpos has 0 values, and the model wants the shape (8,)" in run.problem
