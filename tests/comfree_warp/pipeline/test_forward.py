"""The pipeline around the law: what a step of comfree_warp shares with MuJoCo Warp's, and keeps."""

import mujoco
import mujoco_warp
import numpy as np
import pytest
import warp as wp

import comfree_warp as cfwarp

pytestmark = pytest.mark.engine

TWO_BALLS = """
<mujoco>
  <option gravity="0 0 0" timestep="0.001"/>
  <worldbody>
    <body pos="0 0 0"><freejoint/><geom type="box" size=".1 .08 .06" mass="1.3"/></body>
    <body pos=".27 .03 .02" euler="20 30 10"><freejoint/><geom size=".12" mass="0.7"/></body>
  </worldbody>
</mujoco>
"""

HUNG = """
<mujoco>
  <worldbody>
    <body name="weight" pos="0 0 1">
      <freejoint/><geom size=".05" mass="2" contype="0" conaffinity="0"/>
    </body>
  </worldbody>
  <equality><connect body1="weight" anchor="0 0 .3"/></equality>
</mujoco>
"""

BOX_ON_FLOOR = """
<mujoco>
  <option cone="{cone}" timestep="0.002"><flag energy="enable"/></option>
  <worldbody>
    <geom type="plane" size="1 1 .1" condim="{condim}"/>
    <body name="box" pos="0 0 .1">
      <freejoint/><geom type="box" size=".1 .1 .1" mass="3" condim="{condim}"/>
      <site name="pad" type="box" size=".12 .12 .12"/>
    </body>
  </worldbody>
  <sensor><touch site="pad"/><force site="pad"/></sensor>
</mujoco>
"""

PENDULUM = """
<mujoco>
  <option integrator="{integrator}"/>
  <worldbody>
    <body>
      <joint name="a" axis="0 1 0" damping=".1"/>
      <geom type="capsule" fromto="0 0 0 .3 0 0" size=".02"/>
      <body pos=".3 0 0"><joint axis="0 1 0" stiffness="1"/>
        <geom type="capsule" fromto="0 0 0 .3 0 0" size=".02" contype="0" conaffinity="0"/></body>
    </body>
  </worldbody>
  <actuator><position joint="a" kp="5" kv=".1"/></actuator>
</mujoco>
"""


def start(xml: str, qvel: np.ndarray | None = None, **kwargs) -> tuple:
    mjm = mujoco.MjModel.from_xml_string(xml)
    mjd = mujoco.MjData(mjm)
    if qvel is not None:
        mjd.qvel[:] = qvel
    mujoco.mj_forward(mjm, mjd)
    m = cfwarp.put_model(mjm)
    return mjm, mjd, m, cfwarp.put_data(mjm, mjd, nconmax=64, njmax=256, **kwargs)


def run(m: cfwarp.Model, d: cfwarp.Data, nsteps: int) -> None:
    with wp.ScopedCapture() as capture:
        cfwarp.step(m, d)
    for _ in range(nsteps):
        wp.capture_launch(capture.graph)


@pytest.mark.parametrize("integrator", ["Euler", "implicit", "implicitfast"])
def test_without_active_rows_a_step_equals_mujoco_warps(integrator, device):
    mjm, mjd, m, d = start(PENDULUM.format(integrator=integrator), qvel=np.array([1.0, -2.0]))
    their_m = mujoco_warp.put_model(mjm)
    their_d = mujoco_warp.put_data(mjm, mjd, nconmax=64, njmax=256)
    for _ in range(20):
        cfwarp.step(m, d)
        mujoco_warp.step(their_m, their_d)
    assert d.nefc.numpy()[0] == 0
    for field in ("qpos", "qvel", "qacc", "time"):
        ours, theirs = (getattr(data, field).numpy() for data in (d, their_d))
        np.testing.assert_allclose(ours, theirs, rtol=2e-6, atol=1e-6)


def momentum(mjm: mujoco.MjModel, qpos: np.ndarray, qvel: np.ndarray) -> np.ndarray:
    """Total linear momentum, and angular momentum about the origin, in float64 (6,)."""
    mjd = mujoco.MjData(mjm)
    mjd.qpos[:], mjd.qvel[:] = qpos, qvel
    mujoco.mj_forward(mjm, mjd)
    mujoco.mj_subtreeVel(mjm, mjd)
    linear = mjm.body_subtreemass[0] * mjd.subtree_linvel[0]
    about_origin = mjd.subtree_angmom[0] + np.cross(mjd.subtree_com[0], linear)
    return np.concatenate([linear, about_origin])


@pytest.mark.parametrize("cone", ["pyramidal", "elliptic"])
def test_two_free_bodies_colliding_keep_their_momentum(cone, device):
    xml = TWO_BALLS.replace("<option ", f'<option cone="{cone}" ')
    qvel = np.array([1.0, 0.1, 0, 0.5, 1, 2, -1.0, 0, 0.1, -1, 0, 3])
    mjm, mjd, m, d = start(xml, qvel)
    before = momentum(mjm, mjd.qpos, mjd.qvel)
    touched = False
    for _ in range(8):
        run(m, d, 25)
        touched = touched or d.efc.force.numpy().max() > 0
    after = momentum(mjm, d.qpos.numpy()[0], d.qvel.numpy()[0])
    assert touched
    assert np.abs(d.qvel.numpy()[0] - qvel).max() > 0.1
    np.testing.assert_allclose(after, before, atol=1e-4 * np.abs(before).max())


def test_equality_rows_pull_a_body_hung_by_connect_hangs(device):
    _, _, m, d = start(HUNG)
    run(m, d, 2000)
    z = d.qpos.numpy()[0, 2]
    assert abs(z - 1.0) < 0.03  # without pull it would have fallen 78 m
    # At rest the three rows carry the weight.
    np.testing.assert_allclose(d.qfrc_constraint.numpy()[0, 2], 2 * 9.81, rtol=1e-2)


@pytest.mark.parametrize(
    ("cone", "condim"), [("pyramidal", 1), ("pyramidal", 3), ("pyramidal", 4), ("elliptic", 6)]
)
def test_contact_sensors_read_the_weight_of_a_resting_box(cone, condim, device):
    _, _, m, d = start(BOX_ON_FLOOR.format(cone=cone, condim=condim))
    run(m, d, 1500)
    touch = d.sensordata.numpy()[0, 0]
    np.testing.assert_allclose(touch, 3 * 9.81, rtol=1e-2)
    np.testing.assert_allclose(d.qfrc_constraint.numpy()[0, 2], 3 * 9.81, rtol=1e-2)

    wrench = wp.zeros(1, dtype=wp.spatial_vector)
    normal = 0.0
    for contact in range(int(d.nacon.numpy()[0])):
        cfwarp.contact_force(m, d, wp.array([contact], dtype=int), False, wrench)
        normal += wrench.numpy()[0, 0]
    np.testing.assert_allclose(normal, touch, rtol=1e-4)


def test_energy_is_computed_when_the_model_asks_for_it(device):
    _, mjd, m, d = start(BOX_ON_FLOOR.format(cone="pyramidal", condim=3))
    cfwarp.forward(m, d)
    np.testing.assert_allclose(d.energy.numpy()[0], mjd.energy, rtol=1e-5, atol=1e-6)


def test_control_callback_sets_the_controls_of_the_step(device):
    _, _, m, d = start(PENDULUM.format(integrator="Euler"))
    m.callback.control = lambda m, d: d.ctrl.fill_(0.25)
    cfwarp.step(m, d)
    assert d.ctrl.numpy()[0, 0] == 0.25
    assert d.qfrc_actuator.numpy()[0, 0] == pytest.approx(5 * 0.25, rel=1e-5)


def test_step1_and_step2_make_a_step(device):
    xml = BOX_ON_FLOOR.format(cone="elliptic", condim=3)
    _, _, m, whole = start(xml)
    _, _, _, halves = start(xml)
    for _ in range(30):
        cfwarp.step(m, whole)
        cfwarp.step1(m, halves)
        cfwarp.step2(m, halves)
    np.testing.assert_array_equal(whole.qpos.numpy(), halves.qpos.numpy())


def test_a_captured_step_equals_an_eager_one(device):
    xml = BOX_ON_FLOOR.format(cone="pyramidal", condim=3)
    _, _, m, eager = start(xml)
    _, _, _, captured = start(xml)
    for _ in range(50):
        cfwarp.step(m, eager)
    run(m, captured, 50)
    np.testing.assert_array_equal(eager.qpos.numpy(), captured.qpos.numpy())


def test_two_runs_are_bit_identical_on_the_cpu():
    xml = TWO_BALLS.replace("gravity", 'jacobian="sparse" gravity')
    qvel = np.array([1.0, 0.1, 0, 0.5, 1, 2, -1.0, 0, 0.1, -1, 0, 3])
    results = []
    with wp.ScopedDevice("cpu"):
        for _ in range(2):
            _, _, m, d = start(xml, qvel)
            run(m, d, 200)
            results.append(d.qpos.numpy())
    np.testing.assert_array_equal(*results)


def test_qfrc_total_and_predicted_velocity_are_what_their_names_say(device):
    mjm, _, m, d = start(BOX_ON_FLOOR.format(cone="pyramidal", condim=3))
    cfwarp.forward(m, d)
    total = d.qfrc_smooth.numpy() + d.qfrc_constraint.numpy()
    np.testing.assert_allclose(d.qfrc_total.numpy(), total, rtol=1e-6)
    np.testing.assert_array_equal(d.efc.Ma.numpy(), d.qfrc_total.numpy())
    predicted = d.qvel.numpy() + mjm.opt.timestep * d.qacc_smooth.numpy()
    np.testing.assert_allclose(d.qvel_smooth_pred.numpy(), predicted, rtol=1e-6)
