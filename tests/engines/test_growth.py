"""Nobody has to know nconmax, njmax or nccdmax: buffers grow, and nothing is lost or changed."""

import itertools
import json
import subprocess
import sys

import numpy as np
import pytest
import warp as wp
from growing import LANDING, assert_same, load, make

from mjsim import engines
from mjsim.engines import memory
from mjsim.engines.on_warp import make_on_warp
from mjsim.errors import OutOfRoomError, SettingError
from mjsim.model.files import REPOSITORY
from mjsim.record import Recorder, Recording
from mjsim.run.broadcast import RecordedSimulation

ON_WARP = pytest.mark.parametrize(
    ("engine", "law"), [("comfree", "paper"), ("comfree", "warm"), ("mjwarp", None)]
)
SHAPES = ("box", "cylinder", "capsule")
FALLING = "".join(
    f'<body pos="{(i % 4) * 0.32:.2f} {(i // 4 % 3) * 0.32:.2f} {0.15 + 0.21 * i:.2f}"><freejoint/>'
    f'<geom type="{SHAPES[i % 3]}" size=".1 .1 .1"/></body>'
    for i in range(18)
)
# One after the other 18 bodies fall on a heap, beside what else a step carries over to the next:
# activations, delayed controls and sensors, tendons, a weld, a joint equality, a mocap body.
RICH = f"""<mujoco>
  <option timestep="0.004" integrator="implicitfast"/>
  <worldbody>
    <geom type="plane" size="5 5 .1"/>
    {FALLING}
    <body name="hand" mocap="true" pos="3 0 1">
      <geom size=".05" contype="0" conaffinity="0"/>
    </body>
    <body name="held" pos="3 0 1"><freejoint/><geom size=".08"/></body>
    <body pos="2 2 1">
      <joint name="a" axis="0 1 0" range="-30 60" limited="true" frictionloss=".1" stiffness="3"/>
      <geom type="capsule" fromto="0 0 0 .3 0 0" size=".03"/>
      <site name="s1" pos=".2 0 .05"/>
      <body pos=".3 0 0">
        <joint name="b" axis="0 1 0" damping=".05"/>
        <geom type="capsule" fromto="0 0 0 .3 0 0" size=".03"/>
        <site name="s2" pos=".2 0 .05"/>
      </body>
    </body>
    <body pos="2 3 1">
      <joint name="c" type="slide" axis="1 0 0" damping="1"/><geom size=".05"/>
    </body>
  </worldbody>
  <tendon>
    <spatial name="t" range="0 .35" limited="true" springlength=".2" stiffness="5">
      <site site="s1"/><site site="s2"/>
    </spatial>
  </tendon>
  <equality>
    <weld body1="hand" body2="held"/>
    <joint joint1="a" joint2="c" polycoef="0 .5 0 0 0"/>
  </equality>
  <actuator>
    <muscle joint="a" ctrlrange="0 1" lengthrange="-1 1" force="4"/>
    <motor joint="c" nsample="6" delay=".012" ctrlrange="-1 1"/>
    <position joint="b" kp="2" timeconst=".05" ctrlrange="-1 1"/>
  </actuator>
  <sensor>
    <jointpos joint="a" nsample="4" delay=".01"/>
    <jointvel joint="c" nsample="3" delay=".02" interp="linear"/>
    <touch site="s1"/>
  </sensor>
  <keyframe><key ctrl=".3 .5 -.2" mpos="3 0 1"/></keyframe>
</mujoco>"""
ROOM = {"nconmax": 300, "njmax": 1200, "nccdmax": 300, "fixed_buffers": True}
NOISE = engines.ControlNoise(0.5, 1)


def run(simulation: engines.Simulation, pieces: tuple[int, ...] = (1, 1, 40, 200, 300)) -> None:
    """Steps in pieces, and between them what a caller may do."""
    last = simulation.nworld - 1
    for n in pieces:
        simulation.step(n)
        simulation.write("qvel", 0.9 * simulation.read("qvel", last), world=last)
        simulation.set_ctrl([0.2, -0.1, 0.3 * (n % 2)])
        simulation.write("mocap_pos", [[3.0, 0.002 * n, 1.0]])


# ---------------------------------------------------------------------------- bit for bit the same


@pytest.mark.engine
@ON_WARP
def test_a_run_that_outgrows_its_buffers_five_times_equals_one_with_room(engine, law, caplog):
    settings = {"noise": NOISE, "remember": 1.0}
    simulation = make(RICH, engine, law, nconmax=1, njmax=1, nccdmax=1, **settings)
    expected = make(RICH, engine, law, **ROOM, **settings)
    for each in (simulation, expected):
        run(each)
    assert len(simulation.grown) >= 5
    assert [record.message for record in caplog.records] == list(simulation.grown)
    assert expected.grown == ()
    assert not expected.health().lost
    assert_same(simulation, expected)
    for ours, theirs in zip(simulation.recall(), expected.recall(), strict=True):
        assert ours.step == theirs.step
        np.testing.assert_array_equal(ours.qpos, theirs.qpos)
    np.testing.assert_array_equal(simulation._d.sensordata.numpy(), expected._d.sensordata.numpy())


@pytest.mark.engine
@ON_WARP
def test_several_worlds_share_what_has_grown(engine, law):
    simulation = make(RICH, engine, law, nworld=3, nconmax=1, njmax=1, nccdmax=1, noise=NOISE)
    expected = make(RICH, engine, law, nworld=3, **ROOM, noise=NOISE)
    for each in (simulation, expected):
        run(each)
    assert any("nconmax" in line for line in simulation.grown)
    assert_same(simulation, expected)


@pytest.mark.engine
@ON_WARP
def test_convex_collisions_that_do_not_fit_are_not_lost(engine, law):
    sizes = {**ROOM, "nccdmax": 1, "fixed_buffers": False}
    simulation = make(RICH, engine, law, nworld=2, **sizes)
    # Of few worlds each has room for all: here they are to have none.
    simulation._d.naccdmax = 1
    simulation._compile(engines.initial_data(simulation.mjm), None)
    expected = make(RICH, engine, law, nworld=2, **ROOM)
    for each in (simulation, expected):
        run(each, (100, 200))
    assert any("convex collisions than nccdmax" in line for line in simulation.grown)
    assert_same(simulation, expected)


@pytest.mark.engine
@ON_WARP
def test_a_run_at_which_nobody_looks_until_it_is_read_is_the_same(engine, law):
    """As on a GPU, which none of its calls waits for: all since the snapshot is done again."""
    simulation = make(RICH, engine, law, nconmax=1, njmax=1, noise=NOISE)
    simulation._status_in_place = None
    expected = make(RICH, engine, law, **ROOM, noise=NOISE)
    for each in (simulation, expected):
        for n in (1, 30, 2, 100):
            each.step(n)
            each.set_ctrl([0.2, -0.1, 0.01 * n])
            each.write("qfrc_applied", np.full(each.mjm.nv, 1e-3 * n))
    assert_same(simulation, expected)
    assert len(simulation.grown) >= 2
    for each in (simulation, expected):
        each.step(5)
    assert_same(simulation, expected)


@pytest.mark.engine
def test_non_zeros_of_a_sparse_jacobian_that_do_not_fit_are_not_lost():
    sizes = {"nconmax": 300, "njmax": 1200, "nccdmax": 300}
    simulation, expected = (
        make_on_warp(
            load(RICH), "mjwarp", "cpu", 1, given, {}, NOISE, 0.0, None, False, lambda line: None
        )
        for given in ({**sizes, "njmax_nnz": 40}, sizes)
    )
    for each in (simulation, expected):
        run(each, (40, 100))
    assert "njmax_nnz=40 (now 80)" in simulation.grown[0]
    assert_same(simulation, expected)


@pytest.mark.engine
@ON_WARP
def test_a_run_after_a_reset_repeats_the_one_that_grew(engine, law):
    simulation = make(RICH, engine, law, nconmax=2, njmax=16, noise=NOISE)
    fields = []
    for _ in range(2):
        run(simulation, (60, 60))
        fields.append([simulation.read_all(field) for field in engines.STATE_FIELDS])
        grown = simulation.grown
        simulation.reset()
    assert grown == simulation.grown != ()  # and the second run finds room
    for first, second in zip(*fields, strict=True):
        np.testing.assert_array_equal(first, second)


@pytest.mark.engine
@pytest.mark.parametrize("model", ["constraints", "flex/floppy", "humanoid/humanoid"])
@ON_WARP
def test_a_step_reads_nothing_that_is_not_put_back(engine, law, model):
    """MuJoCo Warp reads `cvel` of the step before, on connects: who knows what else, and where."""
    mjm = engines.load_model(f"benchmark/test_data/{model}.xml")
    grown, expected = (
        engines.make_simulation(mjm, engine, nworld=2, noise=NOISE, law=law) for _ in range(2)
    )
    for simulation in (grown, expected):
        simulation.write("qvel", simulation.read("qvel") + 0.1, world=1)
    for n in (23, 20):
        grown.step(n)
        expected.step(n)
        grown._renew_snapshot()
        grown._reallocate({name: 2 * size for name, size in grown.sizes.items()})
    for simulation in (grown, expected):
        simulation.step(20)
    assert_same(grown, expected)
    for field in ("sensordata", "qacc", "xpos", "qacc_warmstart", "energy"):
        theirs = getattr(expected._d, field).numpy()
        np.testing.assert_array_equal(getattr(grown._d, field).numpy(), theirs)


HEAP = f"""<mujoco><option timestep="0.004"/><worldbody>
  <geom type="plane" size="5 5 .1"/>{FALLING}
</worldbody></mujoco>"""


@pytest.mark.engine
@pytest.mark.parametrize("pieces", [(150,), (1,) * 150, (7, 100, 43)])
def test_how_a_run_is_cut_does_not_matter_to_growth(pieces):
    simulation = make(HEAP, "comfree", "warm", nconmax=1, njmax=1)
    for n in pieces:
        simulation.step(n)
    expected = make(HEAP, "comfree", "warm", **ROOM)
    expected.step(150)
    assert simulation.grown
    assert_same(simulation, expected)


@pytest.mark.engine
def test_however_many_steps_are_asked_for_few_are_taken_again(monkeypatch):
    simulation = make(HEAP, "comfree", "paper", nconmax=1, njmax=1)
    again = []
    take_again = type(simulation)._take_again

    def note(self, nstep):
        again.append(nstep)
        take_again(self, nstep)

    monkeypatch.setattr(type(simulation), "_take_again", note)
    simulation.step(2000)
    assert len(again) >= 3
    assert max(again) <= 256


@pytest.mark.engine
@pytest.mark.parametrize("engine", ["mjwarp", "comfree"])
def test_a_line_says_what_was_too_small_at_which_step(engine):
    told = []
    simulation = make(HEAP, engine, nconmax=4, njmax=600, report=told.append)
    expected = make(HEAP, engine, **ROOM)
    first = 0
    for step in itertools.count(1):
        expected.step()
        counted = expected._d.nacon, expected._d.ncollision
        if max(int(count.numpy()[0]) for count in counted) > 4:
            first = step
            break
    simulation.step(first + 10)
    assert told[0] == (
        f"{simulation.name} on cpu: step {first} has more contacts or close pairs of geoms than "
        f"nconmax=4 (now {simulation.sizes['nconmax']}); nothing is lost"
    )
    assert tuple(told) == simulation.grown


@pytest.mark.engine
def test_states_read_and_recorded_after_growth_are_the_new_ones(tmp_path):
    path = tmp_path / "run.mcap"
    model = tmp_path / "heap.xml"
    model.write_text(HEAP)
    simulation = make(HEAP, "comfree", nconmax=1, njmax=1)
    expected = make(HEAP, "comfree", **ROOM)
    seen = []
    with Recorder(path, {"kind": "model_path", "path": str(model)}, {}) as recorder:
        stepped = RecordedSimulation(simulation, recorder, world=0, hz=0)
        for _ in range(120):
            stepped.step()
            expected.step()
            seen.append(expected.read("qpos"))
            np.testing.assert_array_equal(simulation.read("qpos"), seen[-1])
    assert simulation.grown
    with Recording(path) as recording:
        recorded = [state.state["qpos"] for state in recording.states()]
    np.testing.assert_array_equal(recorded[1:], seen)


@pytest.mark.cuda
@pytest.mark.parametrize("engine", ["mjwarp", "comfree"])
def test_contacts_that_do_not_fit_are_not_lost_on_cuda(engine):
    if not wp.is_cuda_available():
        pytest.skip("no CUDA device on this machine")
    simulation = make(LANDING, engine, device="cuda:0", nworld=256, nconmax=1, njmax=16)
    for _ in range(300):  # without waiting for any of them
        simulation.step()
        simulation.write("xfrc_applied", np.zeros((2, 6)))
    assert simulation.counts() == engines.Counts(contacts=4 * 256, rows=16 * 256)
    assert simulation.grown
    assert not simulation.health().lost


# --------------------------------------------------------------------------- what is told no bit of

PASSING = """<mujoco>
  <option timestep="0.02" integrator="RK4"/>
  <worldbody>
    <geom type="plane" size="5 5 .1"/>
    <body pos="0 0 .1"><freejoint/><geom size=".1"/></body>
    <geom size=".03" pos="1.12 0 .5"/>
    <body pos="1 0 .5" gravcomp="1">
      <joint type="slide" axis="1 0 0"/><geom size=".03" mass=".1"/>
    </body>
  </worldbody>
  <keyframe><key qpos="0 0 .0999 1 0 0 0 0" qvel="0 0 0 0 0 0 10"/></keyframe>
</mujoco>"""


@pytest.mark.engine
def test_a_contact_in_the_middle_of_a_step_of_runge_kutta_is_not_lost():
    """Between two ends of a step, at which it is apart, a ball meets an obstacle."""
    lossy, simulation, expected = (
        make(PASSING, "mjwarp", **sizes)
        for sizes in ({**ROOM, "nconmax": 1, "nccdmax": 1}, {"nconmax": 1, "njmax": 64}, ROOM)
    )
    for each in (lossy, simulation, expected):
        each.step(5)
    assert lossy.health().lost
    assert lossy.read("qvel")[6] != expected.read("qvel")[6]
    assert simulation.grown
    assert_same(simulation, expected)


@pytest.mark.engine
def test_no_room_for_contacts_at_all_is_told_too():
    simulation = make(HEAP, "comfree", nconmax=0, njmax=64, fixed_buffers=True)
    simulation.step(100)
    assert simulation.health().lost


@pytest.mark.engine
def test_a_contact_sensor_takes_all_contacts_there_are():
    sensed = HEAP.replace("<mujoco>", "<mujoco>{}").replace(
        "</worldbody>",
        "</worldbody><sensor><contact num='4' data='found dist'/></sensor>",
    )
    few = '<custom><numeric name="contact_sensor_maxmatch" data="1"/></custom>'
    many = few.replace('data="1"', 'data="64"')
    simulation, expected = (make(sensed.format(text), "mjwarp") for text in (few, many))
    for each in (simulation, expected):
        each.step(100)
    assert any("contact_sensor_maxmatch=1 (now 2)" in line for line in simulation.grown)
    np.testing.assert_array_equal(simulation._d.sensordata.numpy(), expected._d.sensordata.numpy())


GROUND = f"""<mujoco>
  <asset>
    <hfield name="ground" nrow="40" ncol="40" size="1 1 .1 .1" elevation="{"0 " * 1600}"/>
  </asset>
  <worldbody>
    <geom type="hfield" hfield="ground"/>
    <body pos="0 0 2.98"><freejoint/><geom size="3"/></body>
  </worldbody>
</mujoco>"""


@pytest.mark.engine
def test_what_cannot_grow_is_told_to_be_lost():
    simulation = make(GROUND, "comfree", nconmax=400, njmax=1600)
    simulation.step(20)
    assert simulation.grown == ()
    health = simulation.health()
    assert health.lost
    assert "a geom spans more cells of a height field" in health.overflow[0]


@pytest.mark.engine
def test_a_world_that_has_diverged_gets_no_more_room():
    simulation = make(HEAP, "comfree", nworld=2, nconmax=40, njmax=64)
    simulation.step(1)
    qvel = simulation.read("qvel", 1)
    qvel[2::6] = -1e6
    simulation.write("qvel", qvel, world=1)
    simulation.step(1)
    assert simulation.health().ndiverged == 1
    # All in one place: more rows than ever, in a world that does not matter any more.
    simulation.write("qpos", np.tile([0, 0, 0.05, 1, 0, 0, 0], 18), world=1)
    simulation.step(20)
    assert not any("constraint rows" in line for line in simulation.grown)
    assert not simulation.health().lost


# ------------------------------------------------------------------------------------- no memory


@pytest.mark.engine
def test_what_cannot_be_had_ends_the_run_at_the_last_step_that_lost_nothing(monkeypatch):
    simulation = make(HEAP, "comfree", "warm", nconmax=1, njmax=1)
    expected = make(HEAP, "comfree", "warm", **ROOM)
    put_data, sizes = simulation._put_data, simulation.sizes

    def put_small_data(mjd, nworld):
        if simulation.sizes != sizes:
            raise RuntimeError("Failed to allocate 123 bytes on device 'cpu'")
        return put_data(mjd, nworld)

    monkeypatch.setattr(simulation, "_put_data", put_small_data)
    with pytest.raises(OutOfRoomError, match="Failed to allocate 123 bytes") as caught:
        simulation.step(200)
    last = simulation.nstep
    assert f"The {last} steps before are done" in str(caught.value)
    assert 0 < last < 200
    expected.step(last)
    np.testing.assert_array_equal(simulation.read("qpos"), expected.read("qpos"))
    health = simulation.health()
    assert health.lost
    assert health.overflow == (str(caught.value),)
    with pytest.raises(OutOfRoomError):
        simulation.step()
    monkeypatch.undo()
    simulation.reset()
    simulation.step(200)
    expected.step(200 - last)
    assert_same(simulation, expected)


LIMITED = """
import resource, sys
from mjsim.run import headless
from mjsim.run.headless_settings import HeadlessSettings

class Limited(HeadlessSettings):
    def make_recorder(self, *arguments, **about):
        recorder = super().make_recorder(*arguments, **about)
        pages = int(open("/proc/self/statm").read().split()[0])
        most = pages * resource.getpagesize() + (48 << 20)
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        return recorder

model, record, json = sys.argv[1:]
sizes = {"nworld": 10_000, "nconmax": 1, "njmax": 16}
chosen = Limited(model=model, **sizes, nsteps=200, port=0, record=record, record_hz=0, json=json)
sys.exit(headless.main(chosen, "mjsim run"))
"""


@pytest.mark.engine
@pytest.mark.skipif(sys.platform != "linux", reason="no /proc")
def test_a_run_without_memory_ends_in_order_with_all_that_it_computed(tmp_path):
    model, recorded, summary = (tmp_path / name for name in ("m.xml", "r.mcap", "s.json"))
    model.write_text(LANDING)
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(model), str(recorded), str(summary)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 3, done.stderr
    last = done.stderr.splitlines()[-1]
    assert "more contacts or close pairs of geoms than nconmax=1 (now 5)" in last
    assert "bytes are left" in last
    assert "Take fewer worlds" in last
    found = json.loads(summary.read_text())
    assert found["nsteps"] == found["recording"]["states"] - 1 < 200
    with Recording(recorded) as recording:
        assert recording.problem is None
        assert recording.nstates == found["nsteps"] + 1


@pytest.mark.skipif(sys.platform != "linux", reason="no /proc")
def test_the_memory_that_is_left_is_known():
    left = memory.available_memory()
    assert 1 << 20 < left < 1 << 50


@pytest.mark.engine
def test_more_worlds_than_there_is_memory_for_are_wrong_use():
    with pytest.raises(SettingError, match="do not fit the memory of cpu") as caught:
        make(LANDING, "comfree", nworld=1 << 30, nconmax=1, njmax=16)
    assert caught.value.setting == "nworld"
