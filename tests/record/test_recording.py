"""Recordings: what is written is what is read, whatever happens to the process or the file."""

import contextlib
import io
import os
import resource
import signal
import struct
import subprocess
import sys
import tracemalloc
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import hypothesis
import mcap.writer
import mujoco
import numpy as np
import pytest
import zstandard
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from hypothesis import strategies as st
from mcap.reader import make_reader
from watching import TIMEOUT, free_port, wait_until

from mjsim import engines
from mjsim.errors import SettingError
from mjsim.model.files import REPOSITORY
from mjsim.record import reader as recording
from mjsim.record.reader import RecordedState, Recorder, Recording, RecordingError
from mjsim.stream import StreamClient, apply_mjdata, pack_mjdata
from mjsim.stream.bundle import model_packet

MODELS = REPOSITORY / "benchmark" / "test_data"
SCENE = """
<mujoco>
  <worldbody>
    <body><freejoint/><geom size=".1"/></body>
    <body pos="1 0 0"><joint name="hinge" axis="0 1 0"/><geom size=".1" pos=".1 0 0"/></body>
    <body mocap="true" pos="0 0 1"/>
  </worldbody>
  <actuator><general joint="hinge" dyntype="integrator"/></actuator>
</mujoco>
"""
PACKET = {"kind": "xml", "xml": SCENE, "assets": {}}
ABOUT = {"engine": "mjc", "world": "0"}


def scene_states(n: int, seed: int = 0) -> Iterator[mujoco.MjData]:
    """The scene as it moves, n states, 0.1 s from one to the next."""
    mjm = mujoco.MjModel.from_xml_string(SCENE)
    mjd = mujoco.MjData(mjm)
    rng = np.random.default_rng(seed)
    for step in range(n):
        mjd.time = 0.1 * step
        for field in ("qpos", "qvel", "act", "ctrl", "xfrc_applied", "mocap_pos", "mocap_quat"):
            values = getattr(mjd, field)
            values[:] = rng.normal(size=values.shape)
        yield mjd


def record(path: Path, n: int = 100, packet: dict = PACKET) -> list[dict]:
    """Record the moving scene; what it went through."""
    states = []
    with Recorder(path, packet, ABOUT) as recorder:
        for step, mjd in enumerate(scene_states(n)):
            recorder.write(mjd, step)
            states.append(pack_mjdata(mjd))
    return states


def check_equal(recorded: dict, state: dict) -> None:
    """The same state, bit for bit."""
    assert recorded.keys() == state.keys()
    for field, values in state.items():
        assert np.array(recorded[field]).tobytes() == np.array(values).tobytes(), field
        assert np.shape(recorded[field]) == np.shape(values)


def headless(*arguments: str, cwd: Path = REPOSITORY, port: int = 0) -> list[str]:
    script = str(REPOSITORY / "test_headless.py")
    return [sys.executable, script, "--engine=mjc", f"--port={port}", *arguments]


def run_headless(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(headless(*arguments), capture_output=True, text=True, timeout=300)


# --------------------------------------------------------------------------- what comes back


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


# ------------------------------------------------------------------------------- the model


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


# ------------------------------------------------------------------------ killed, full, refused


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
    monkeypatch.setattr(recording.time, "monotonic", lambda: now[0])
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
    assert "make venv (or pip install -e '.[record]')" in done.stderr
    assert done.stderr.count("\n") == 1


# --------------------------------------------------------------------------- test_headless.py


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


# -------------------------------------------------------------------- files cut, damaged, hostile


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, list[dict]]:
    """The bytes of a recording, and what was recorded."""
    path = tmp_path_factory.mktemp("finished") / "run.mcap"
    states = record(path, 40)
    return path.read_bytes(), states


def offered(path: Path, data: bytes) -> list[RecordedState]:
    """All that is offered of a file; its errors are one line each, and all RecordingErrors."""
    path.write_bytes(data)
    try:
        with Recording(path) as run:
            recorded = [*run.states(), *run.states(1.0)][: run.nstates + 1000]
            assert run.problem is None or "\n" not in run.problem
            assert isinstance(run.about, dict)
            with contextlib.suppress(RecordingError):
                run.model()
            return recorded
    except RecordingError as error:
        if "\n" in str(error) or len(str(error)) > 400:
            pytest.fail(f"no message to show: {error}")
        return []


def chunk_offsets(data: bytes) -> list[int]:
    summary = make_reader(io.BytesIO(data)).get_summary()
    return [index.chunk_start_offset for index in summary.chunk_indexes]


LENIENT = hypothesis.settings(
    deadline=None,
    max_examples=300,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)


@LENIENT
@hypothesis.given(share=st.floats(0.0, 1.0))
def test_a_cut_recording_offers_all_states_before_the_cut(
    share: float, finished: tuple[bytes, list[dict]], tmp_path: Path
) -> None:
    data, states = finished
    size = int(share * len(data))
    recorded = offered(tmp_path / "cut.mcap", data[:size])
    steps = list(dict.fromkeys(each.step for each in recorded))
    assert steps == list(range(len(steps)))
    for each in recorded:
        check_equal(each.state, states[each.step])
    # The chunks, of half a second each, come after the model and before the index.
    first = chunk_offsets(data)[0]
    assert len(steps) >= 40 * (size - first) / (len(data) - first) - 12


@LENIENT
@hypothesis.given(
    flips=st.lists(st.tuples(st.floats(0.0, 0.9999), st.integers(1, 255)), min_size=1, max_size=4)
)
def test_flipped_bytes_leave_states_out_but_never_change_one(
    flips: list[tuple[float, int]], finished: tuple[bytes, list[dict]], tmp_path: Path
) -> None:
    data, states = bytearray(finished[0]), finished[1]
    for share, bits in flips:
        data[int(share * len(data))] ^= bits
    for each in offered(tmp_path / "flipped.mcap", bytes(data)):
        check_equal(each.state, states[each.step])


def test_a_length_that_no_file_has_costs_its_chunk_alone(
    finished: tuple[bytes, list[dict]], tmp_path: Path
) -> None:
    data, states = bytearray(finished[0]), finished[1]
    compression = chunk_offsets(finished[0])[0] + 9 + 8 + 8 + 8 + 4
    (name_length,) = struct.unpack_from("<I", data, compression)
    struct.pack_into("<Q", data, compression + 4 + name_length, 2**64 - 1)
    recorded = offered(tmp_path / "length.mcap", bytes(data))
    assert 0 < len(recorded) < 2 * len(states)
    for each in recorded:
        check_equal(each.state, states[each.step])


@LENIENT
@hypothesis.given(
    pieces=st.lists(
        st.one_of(
            st.binary(max_size=60),
            st.builds(
                lambda opcode, length, rest: struct.pack("<BQ", opcode, length) + rest,
                st.integers(0, 20),
                st.one_of(st.integers(0, 100), st.integers(0, 2**64 - 1)),
                st.binary(max_size=100),
            ),
            st.tuples(st.floats(0, 1), st.floats(0, 1)),
        ),
        max_size=8,
    )
)
def test_nonsense_is_refused_or_read_but_breaks_nothing(
    pieces: list, finished: tuple[bytes, list[dict]], tmp_path: Path
) -> None:
    """Made of random bytes, of records with random lengths, and of parts of a real recording."""
    data = finished[0]
    nonsense = recording._MAGIC
    for piece in pieces:
        if isinstance(piece, tuple):
            start, end = sorted(int(share * len(data)) for share in piece)
            piece = data[start:end]
        nonsense += piece
    offered(tmp_path / "nonsense.mcap", nonsense)
    offered(tmp_path / "nonsense.mcap", nonsense + data[-200:])


def test_a_cut_recording_says_how_much_is_there(
    finished: tuple[bytes, list[dict]], tmp_path: Path
) -> None:
    path = tmp_path / "cut.mcap"
    data = finished[0]
    path.write_bytes(data[: chunk_offsets(data)[-1] + 50])
    with Recording(path) as run:
        assert not run.complete
        assert "it was cut short or is damaged (in the record at byte " in run.problem
        assert f"it has {run.nstates} states of {run.duration:.2f} s" in run.problem
        assert run.nstates == sum(1 for _ in run.states()) >= 30
        assert next(run.states(2.0)).step == 20  # seeks by an index made again


def test_a_damaged_chunk_is_left_out_and_told(
    finished: tuple[bytes, list[dict]], tmp_path: Path
) -> None:
    path, data = tmp_path / "damaged.mcap", bytearray(finished[0])
    data[chunk_offsets(finished[0])[2] + 80] ^= 1
    path.write_bytes(data)
    with Recording(path) as run:
        assert run.problem is None  # nobody has looked yet
        steps = [each.step for each in run.states()]
        assert "damaged, and left out, is 1.10 to 1.50 s" in run.problem
    assert steps == [*range(11), *range(16, 40)]


def test_a_damaged_index_costs_no_state(finished: tuple[bytes, list[dict]], tmp_path: Path) -> None:
    path, data = tmp_path / "damaged.mcap", bytearray(finished[0])
    data[-60] ^= 1
    path.write_bytes(data)
    with Recording(path) as run:
        assert sum(1 for _ in run.states()) == run.nstates == 40
        assert "its index at the end is missing or damaged; it has 40 states of" in run.problem


def test_another_format_version_is_told_and_still_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(recording, "FORMAT", "2")
        record(tmp_path / "run.mcap", 10)
    with Recording(tmp_path / "run.mcap") as run:
        assert "it is of format version '2'" in run.problem
        assert sum(1 for _ in run.states()) == 10


def write_mcap(path: Path, metadata: str | None = recording.METADATA, schema: str = "x.Y") -> None:
    """An MCAP file as others write them, with one message."""
    writer = mcap.writer.Writer(str(path))
    writer.start()
    if metadata:
        writer.add_metadata(metadata, {"format": "1"})
    channel = writer.register_channel("/x", "json", writer.register_schema(schema, "json", b"{}"))
    writer.add_message(channel, 0, b"{}", 0)
    writer.finish()


def test_what_is_no_recording_is_refused_in_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with pytest.raises(RecordingError, match="No such file or directory"):
        Recording(path)
    path.write_text("hello")
    with pytest.raises(RecordingError, match="is no MCAP file, so no recording"):
        Recording(path)
    write_mcap(path, metadata=None)
    with pytest.raises(RecordingError, match="is an MCAP file, but no recording of a simulation"):
        Recording(path)
    write_mcap(path, schema="foxglove.Grid")
    with pytest.raises(RecordingError, match=r"has no states 'mjsim.State', but 'foxglove.Grid'"):
        Recording(path)
    with pytest.raises(RecordingError, match="Is a directory"):
        Recording(tmp_path)


def test_a_recording_without_a_model_says_so(tmp_path: Path) -> None:
    write_mcap(tmp_path / "run.mcap", schema=recording.SCHEMA)
    with Recording(tmp_path / "run.mcap") as run:
        with pytest.raises(RecordingError, match=r"run\.mcap has no model"):
            run.model()
        assert list(run.states()) == []
        assert "cannot be decoded" in run.problem


def chunk_record(declared: int, data: bytes, compression: str = "zstd") -> bytes:
    name = compression.encode()
    body = struct.pack("<QQQI", 0, 10**9, declared, 0) + struct.pack("<I", len(name)) + name
    body += struct.pack("<Q", len(data)) + data
    return struct.pack("<BQ", 6, len(body)) + body


@pytest.mark.parametrize("honest", [True, False])
def test_a_chunk_that_would_fill_the_memory_is_not_decompressed(
    honest: bool, finished: tuple[bytes, list[dict]], tmp_path: Path
) -> None:
    """A gigabyte of zeros in 32 kB, which says so, or says that it is a megabyte."""
    compressor = zstandard.ZstdCompressor().compressobj(size=1 << 30)
    bomb = b"".join(compressor.compress(bytes(1 << 24)) for _ in range(64)) + compressor.flush()
    data = finished[0]
    head = data[: chunk_offsets(data)[0]]
    path = tmp_path / "bomb.mcap"
    path.write_bytes(head + chunk_record(1 << 30 if honest else 1 << 20, bomb))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with Recording(path) as run:
        assert list(run.states()) == []
        assert "damaged, and left out, is 0.00 to 1.00 s" in run.problem
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kB


def test_records_that_declare_more_than_there_is_are_not_read(
    finished: tuple[bytes, list[dict]], tmp_path: Path
) -> None:
    head = finished[0][: chunk_offsets(finished[0])[0]]
    for opcode in range(1, 16):
        for length in (2**63, 2**64 - 1, 2**40):
            offered(tmp_path / "long.mcap", head + struct.pack("<BQ", opcode, length) + bytes(100))
            summary = struct.pack("<BQ", opcode, length)
            footer = struct.pack("<BQQQ", 2, 20, len(head), 0)
            footer += struct.pack("<I", zlib.crc32(summary + footer))
            offered(tmp_path / "long.mcap", head + summary + footer + recording._MAGIC)


def test_an_mjb_that_is_damaged_is_an_error_of_the_recording(tmp_path: Path) -> None:
    mujoco.mj_saveModel(mujoco.MjModel.from_xml_string(SCENE), str(tmp_path / "scene.mjb"), None)
    record(tmp_path / "run.mcap", 3, {"kind": "model_path", "path": str(tmp_path / "scene.mjb")})
    data = (tmp_path / "run.mcap").read_bytes()
    at = data.index((tmp_path / "scene.mjb").read_bytes()[:200])
    for offset in range(0, 200, 7):
        broken = bytearray(data)
        broken[at + offset] ^= 0xFF
        (tmp_path / "broken.mcap").write_bytes(broken)
        with Recording(tmp_path / "broken.mcap") as run:
            with pytest.raises(RecordingError, match="its model is damaged"):
                run.model()
            assert sum(1 for _ in run.states()) == 3


def test_model_packet_and_path_are_recorded_alike(tmp_path: Path) -> None:
    model = str(MODELS / "franka_cube_grasp" / "scene.xml")
    for name, packet in (
        ("sent", model_packet(model)),
        ("path", {"kind": "model_path", "path": model}),
    ):
        Recorder(tmp_path / name, packet, ABOUT).close()
    with Recording(tmp_path / "sent") as sent, Recording(tmp_path / "path") as path:
        assert sent._read_model() == path._read_model()
