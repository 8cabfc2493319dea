"""One interface over three engines: what each promises to every script and benchmark."""

import mujoco
import numpy as np
import pytest
import warp as wp

from mjsim import engines
from mjsim.engines.buffers import size_buffers

pytestmark = pytest.mark.engine

BOX = """
<mujoco>
  <option timestep="0.002"/>
  <worldbody>
    <geom type="plane" size="2 2 .1"/>
    <body pos="0 0 .1"><freejoint/><geom type="box" size=".1 .1 .1" mass="1"/></body>
    <body pos="1 0 1"><joint name="hinge" axis="0 1 0" damping=".1"/>
      <geom type="capsule" fromto="0 0 0 .3 0 0" size=".02"/></body>
  </worldbody>
  <actuator><position joint="hinge" kp="3" ctrlrange="-1 1"/></actuator>
  <keyframe><key time="1" qpos="0 0 .1 1 0 0 0 .5" qvel="0 0 0 0 0 0 .25" ctrl=".2"/></keyframe>
</mujoco>
"""

# A spring that no explicit step of 2 ms can follow.
EXPLODING = """
<mujoco>
  <option timestep="0.002" gravity="0 0 0"><flag eulerdamp="disable"/></option>
  <worldbody>
    <body><joint type="slide" stiffness="1e7"/><geom size=".1" mass="1"/></body>
  </worldbody>
  <keyframe><key qpos="0.1"/></keyframe>
</mujoco>
"""

EVERY_ENGINE = pytest.mark.parametrize("engine", engines.ENGINES)


def make(xml: str = BOX, **settings) -> engines.Simulation:
    return engines.make_simulation(mujoco.MjModel.from_xml_string(xml), **settings)


@EVERY_ENGINE
def test_a_run_starts_from_keyframe_0(engine):
    simulation = make(engine=engine)
    assert simulation.read("time") == 1.0
    np.testing.assert_allclose(simulation.read("qpos"), [0, 0, 0.1, 1, 0, 0, 0, 0.5], rtol=1e-6)
    np.testing.assert_allclose(simulation.read("qvel")[6], 0.25)
    np.testing.assert_allclose(simulation.read("ctrl"), [0.2], rtol=1e-6)


@EVERY_ENGINE
def test_step_advances_every_world_by_n_timesteps(engine):
    simulation = make(engine=engine, nworld=3)
    simulation.step(10)
    simulation.step()
    assert simulation.nstep == 11
    for world in range(3):
        assert simulation.read("time", world) == pytest.approx(1.0 + 11 * 0.002, abs=1e-5)


@EVERY_ENGINE
def test_the_engines_agree_on_a_motion_without_contact(engine):
    swing = BOX.replace('type="plane"', 'type="plane" contype="0" conaffinity="0"')
    expected = make(swing, engine="mjc")
    simulation = make(swing, engine=engine)
    for each in (expected, simulation):
        each.step(200)
    np.testing.assert_allclose(simulation.read("qpos"), expected.read("qpos"), atol=1e-4)


@EVERY_ENGINE
def test_counts_are_summed_over_the_worlds(engine):
    simulation = make(engine=engine, nworld=2)
    simulation.step(50)
    assert simulation.counts() == engines.Counts(contacts=8, rows=32)


@EVERY_ENGINE
def test_controls_can_be_set_for_all_worlds_or_each(engine):
    simulation = make(engine=engine, nworld=2)
    simulation.set_ctrl([0.5])
    assert simulation.read("ctrl", 1) == 0.5
    simulation.set_ctrl([[0.1], [-0.1]])
    simulation.step(400)
    assert simulation.read("qpos", 0)[7] > simulation.read("qpos", 1)[7]


@EVERY_ENGINE
def test_writing_one_world_leaves_the_others_as_they_are(engine):
    simulation = make(engine=engine, nworld=3)
    before = [simulation.read("qvel", world) for world in range(3)]
    simulation.write("qvel", [0, 0, 0, 0, 0, 0, 2.0], world=1)
    simulation.write("ctrl", [0.75], world=1)
    simulation.write("xfrc_applied", [[0] * 6, [0, 0, 50, 0, 0, 0], [0] * 6], world=1)
    for world in (0, 2):
        np.testing.assert_array_equal(simulation.read("qvel", world), before[world])
        assert simulation.read("ctrl", world) == pytest.approx(0.2)
        assert not simulation.read("xfrc_applied", world).any()
    simulation.step(20)
    np.testing.assert_array_equal(simulation.read("qpos", 0), simulation.read("qpos", 2))
    assert simulation.read("qpos", 1)[2] > simulation.read("qpos", 0)[2] + 0.01
    assert simulation.read("qpos", 1)[7] > simulation.read("qpos", 0)[7] + 0.01


@EVERY_ENGINE
def test_noise_is_added_around_the_controls_written_to_one_world(engine):
    noise = engines.ControlNoise(scale=0.01, seed=7)
    simulation = make(engine=engine, nworld=2, noise=noise)
    simulation.write("ctrl", [0.75], world=1)
    simulation.step(3)
    assert simulation.read("ctrl", 0) == pytest.approx(0.2, abs=0.011)
    assert simulation.read("ctrl", 1) == pytest.approx(0.75, abs=0.011)


RESETTING = """
<mujoco>
  <option timestep="0.002"/>
  <worldbody>
    <geom type="plane" size="2 2 .1"/>
    <body mocap="true" pos="0 1 .3"><geom type="box" size=".1 .1 .1"/></body>
    <body pos="0 1 .55"><freejoint/><geom type="box" size=".1 .1 .1" mass="1"/></body>
    <body pos="1 0 1"><joint name="hinge" axis="0 1 0" damping=".1"/>
      <geom type="capsule" fromto="0 0 0 .3 0 0" size=".02"/></body>
  </worldbody>
  <actuator><position joint="hinge" kp="3" timeconst=".05" ctrlrange="-1 1"/></actuator>
  <keyframe>
    <key time="1" qpos="0 1 .52 1 0 0 0 .5" qvel="0 0 0 0 .2 0 .25" act=".1" ctrl=".2"
      mpos="0 1 .318"/>
  </keyframe>
</mujoco>
"""


@EVERY_ENGINE
def test_a_run_after_a_reset_equals_the_first_one_bit_for_bit(engine):
    simulation = make(RESETTING, engine=engine, nworld=2, noise=engines.ControlNoise(0.3, 7))

    def run() -> list[np.ndarray]:
        states = []
        for n in (0, 1, 30, 100):
            simulation.step(n)
            states += [
                simulation.read(field, world) for field in engines.STATE_FIELDS for world in (0, 1)
            ]
        return states

    first = run()
    counts = simulation.counts()
    assert counts.contacts > 0
    simulation.set_ctrl([-0.5])
    simulation.write("xfrc_applied", np.full((4, 6), 3.0))
    simulation.write("qfrc_applied", np.full(7, 2.0))
    simulation.write("mocap_pos", [[0, 1, 0.5]])
    simulation.step(77)
    simulation.reset()
    assert simulation.nstep == 0
    for before, after in zip(first, run(), strict=True):
        np.testing.assert_array_equal(after, before)
    assert simulation.counts() == counts


@EVERY_ENGINE
def test_a_reset_mends_a_diverged_run(engine):
    simulation = make(EXPLODING, engine=engine)
    simulation.step(2000)
    first = simulation.health()
    assert first.ndiverged == 1
    simulation.reset()
    assert simulation.health() == engines.Health(None, 0, ())
    np.testing.assert_allclose(simulation.read("qpos"), [0.1], rtol=1e-6)
    simulation.step(2000)
    assert simulation.health() == first


@pytest.mark.parametrize("engine", ["mjwarp", "comfree"])
def test_a_reset_forgets_overflow_until_it_comes_again(engine):
    simulation = make(engine=engine, njmax=3, nconmax=2, fixed_buffers=True)
    simulation.step(20)
    told = simulation.health().overflow
    assert told
    simulation.reset()
    assert simulation.health().overflow == ()
    simulation.step(20)
    assert simulation.health().overflow == told


@EVERY_ENGINE
def test_a_field_that_is_none_is_refused(engine):
    with pytest.raises(ValueError, match="'qpoz' is none of time, qpos"):
        make(engine=engine).read("qpoz")


@EVERY_ENGINE
def test_a_diverged_world_is_found_with_its_step_and_time(engine):
    simulation = make(EXPLODING, engine=engine, nworld=2)
    simulation.write("qpos", [[0.0], [0.1]])
    simulation.step(1)
    assert simulation.health().ndiverged == 0
    simulation.step(30)
    health = simulation.health()
    assert health.ndiverged == 1
    assert health.divergence.world == 1
    assert 1 < health.divergence.step < 10
    assert health.divergence.time == pytest.approx(health.divergence.step * 0.002)
    assert "world 1 diverged at step" in str(health.divergence)


@EVERY_ENGINE
def test_a_healthy_run_says_so(engine):
    simulation = make(engine=engine)
    simulation.step(20)
    assert simulation.health() == engines.Health(None, 0, ())


@pytest.mark.parametrize("engine", ["mjwarp", "comfree"])
def test_overflow_is_told_with_the_count_needed_and_nothing_is_printed(engine, capfd):
    simulation = make(engine=engine, njmax=3, nconmax=2, fixed_buffers=True)
    simulation.step(20)
    simulation.synchronize()
    assert simulation.health().lost
    told = "\n".join(simulation.health().overflow)
    assert "njmax=3, needed at least" in told
    assert "--njmax" in told
    assert "nconmax=2, needed at least 4" in told
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""


@EVERY_ENGINE
def test_all_worlds_are_read_and_counted_at_once(engine):
    simulation = make(engine=engine, nworld=2)
    lifted = np.stack([simulation.read("qpos")] * 2)
    lifted[1, 2] += 1.0
    simulation.write("qpos", lifted)
    simulation.step(5)
    every = simulation.read_all("qpos")
    np.testing.assert_array_equal(every, [simulation.read("qpos", world) for world in (0, 1)])
    counts, sums = simulation.world_counts(), simulation.counts()
    assert counts.contacts.tolist() == [4, 0]
    assert counts.contacts.sum() == sums.contacts
    assert counts.rows.sum() == sums.rows
    if engine == "comfree":
        assert counts.iterations is None
    else:
        assert counts.iterations[0] >= 1


@EVERY_ENGINE
def test_new_controls_count_from_the_next_step_on(engine):
    noisy, same, without = (make(engine=engine, noise=engines.ControlNoise(0.1)) for _ in range(3))
    for simulation in (noisy, same, without):
        simulation.step(3)
        if simulation is not without:
            simulation.set_ctrl([-0.5])
    noisy.step(3)
    for _ in range(3):
        same.step()
    without.step(3)
    np.testing.assert_array_equal(noisy.read("qpos"), same.read("qpos"))
    assert noisy.read("qpos")[-1] < without.read("qpos")[-1]


def test_buffers_are_sized_from_the_model_when_not_given():
    sizes = size_buffers(mujoco.MjModel.from_xml_string(BOX))
    assert sizes["nconmax"] >= 8
    assert sizes["njmax"] >= 32


@pytest.mark.parametrize("engine", ["mjwarp", "comfree"])
def test_control_noise_is_the_same_sequence_on_every_engine(engine):
    noise = engines.ControlNoise(scale=0.3, seed=7)
    for nstep in (1, 5):
        reference = make(engine="mjc", nworld=2, noise=noise)
        simulation = make(engine=engine, nworld=2, noise=noise)
        reference.step(nstep)
        simulation.step(nstep)
        for world in range(2):
            expected = reference.read("ctrl", world)
            np.testing.assert_allclose(simulation.read("ctrl", world), expected, rtol=1e-6)
        assert reference.read("ctrl", 0) != reference.read("ctrl", 1)
        assert abs(reference.read("ctrl", 0) - 0.2) <= 0.3


def test_control_noise_does_not_depend_on_how_the_run_is_cut():
    noise = engines.ControlNoise(scale=0.3, seed=7)
    whole, pieces = make(engine="mjc", noise=noise), make(engine="mjc", noise=noise)
    whole.step(30)
    for n in (1, 9, 20):
        pieces.step(n)
    np.testing.assert_array_equal(whole.read("qpos"), pieces.read("qpos"))


def test_mjc_equals_a_loop_of_mj_step_bit_for_bit():
    mjm = mujoco.MjModel.from_xml_string(BOX)
    mjd = engines.initial_data(mjm)
    simulation = make(engine="mjc", nworld=3)
    for n in (7, 40, 53):
        simulation.step(n)
    for _ in range(100):
        mujoco.mj_step(mjm, mjd)
    np.testing.assert_array_equal(simulation.read("qpos", world=2), mjd.qpos)


SLEEPING = """
<mujoco>
  <option timestep="0.005"><flag sleep="enable"/></option>
  <worldbody>
    <geom type="plane" size="5 5 .1"/>
    <body pos="0 0 .1"><freejoint/><geom type="box" size=".1 .1 .1"/></body>
    <body pos="1 0 .4"><freejoint/><geom type="box" size=".1 .1 .1"/></body>
    <body pos="0 0 3"><freejoint/><geom type="box" size=".1 .1 .1"/></body>
  </worldbody>
  <keyframe><key qpos="0 0 .0999 1 0 0 0 1 0 .4 1 0 0 0 0 0 3 1 0 0 0"/></keyframe>
</mujoco>
"""


def asleep(simulation: engines.Simulation, world: int = 0) -> np.ndarray:
    """Which kinematic trees sleep."""
    if simulation.engine == "mjc":
        return simulation._batch.bind("tree_asleep")[world] >= 0
    return simulation._d.tree_asleep.numpy()[world] >= 0


def test_bodies_that_sleep_on_mjc_are_those_of_a_loop_of_mj_step_bit_for_bit():
    mjm = mujoco.MjModel.from_xml_string(SLEEPING)
    mjd = engines.initial_data(mjm)
    simulation = make(SLEEPING, engine="mjc", nworld=2)
    seen = []
    for n in (100, 1, 99, 300):
        simulation.step(n)
        mujoco.mj_step(mjm, mjd, n)
        for world in range(2):
            np.testing.assert_array_equal(simulation.read("qpos", world), mjd.qpos)
            np.testing.assert_array_equal(simulation.read("qvel", world), mjd.qvel)
            np.testing.assert_array_equal(asleep(simulation, world), mjd.tree_asleep >= 0)
        seen.append(asleep(simulation).tolist())
    assert [True, False, False] in seen or [False, True, False] in seen
    assert seen[-1] == [True, True, True]


def test_a_reset_of_mjc_wakes_what_sleeps():
    simulation = make(SLEEPING, engine="mjc")
    states = []
    for _ in range(2):
        simulation.step(500)
        assert asleep(simulation).all()
        states.append(simulation.read("qpos"))
        simulation.reset()
        simulation.step()
        assert not asleep(simulation).any()
        simulation.reset()
    np.testing.assert_array_equal(*states)


@pytest.mark.engine
def test_bodies_sleep_on_mjwarp_whatever_its_memory_held_before():
    """The work space of its solver is not cleared by MuJoCo Warp: the second one was NaN."""
    states = []
    for _ in range(3):
        simulation = make(SLEEPING, engine="mjwarp", nconmax=40 + len(states), njmax=200)
        simulation.step(400)
        assert asleep(simulation).any()
        states.append(simulation.read("qpos"))
    assert np.isfinite(states).all()
    np.testing.assert_array_equal(states[1], states[0])
    np.testing.assert_array_equal(states[2], states[0])


def test_a_diverging_mjc_run_leaves_no_log_and_prints_nothing(capfd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    simulation = make(EXPLODING, engine="mjc")
    simulation.step(2000)
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("law", engines.LAWS)
def test_every_law_steps(law):
    simulation = make(law=law, nworld=2)
    simulation.step(10)
    assert simulation.health() == engines.Health(None, 0, ())


def test_the_law_is_a_part_of_the_engine_s_name():
    for named, law in (("comfree:warm", None), ("comfree:warm", "warm"), ("comfree", "warm")):
        simulation = make(engine=named, law=law)
        assert (simulation.engine, simulation.law) == ("comfree", "warm")
        assert simulation.place == "comfree:warm on cpu"
    assert make().name == f"comfree:{engines.LAWS[0]}"
    assert make(engine="mjc").place == "mjc on cpu"


@pytest.mark.cuda
def test_engines_run_on_cuda():
    if not wp.is_cuda_available():
        pytest.skip("no CUDA device on this machine")
    for engine in ("mjwarp", "comfree"):
        simulation = make(engine=engine, device="cuda:0", nworld=1024)
        simulation.step(100)
        assert simulation.health() == engines.Health(None, 0, ())
        assert simulation.counts() == engines.Counts(contacts=4096, rows=4 * 4096)


@pytest.mark.parametrize(
    "engine", ["mjc", *(pytest.param(e, marks=pytest.mark.engine) for e in engines.ENGINES[1:])]
)
def test_every_field_can_be_written_also_where_the_model_has_none_of_it(engine):
    mjm = mujoco.MjModel.from_xml_string(
        "<mujoco><worldbody><body><freejoint/><geom size='.1'/></body></worldbody></mujoco>"
    )
    simulation = engines.make_simulation(mjm, engine, nworld=2)
    for field in engines.STATE_FIELDS:
        simulation.write(field, simulation.read(field, 1))
        simulation.write(field, simulation.read(field, 1), world=1)
