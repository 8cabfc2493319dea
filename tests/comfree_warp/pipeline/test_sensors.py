"""Sensors of MuJoCo Warp that read the wrong thing read MuJoCo C's values on both engines."""

import contextlib

import mujoco
import mujoco_warp
import numpy as np
import pytest

import comfree_warp as cfwarp
from comfree_warp.pipeline.sensors import limits_told_apart
from mjsim import engines

pytestmark = pytest.mark.engine

# Joints and tendons of the same index, some at their limit from the start. Joint 0 and tendon 0 are
# not the same, tendon 1 is of joint 0, and joint 2 is a ball.
LIMITS = """
<mujoco>
  <option timestep=".002"/>
  <worldbody>
    <body><joint name="j0" type="slide" axis="0 0 1" range="-.001 1" damping="50"/>
      <geom size=".05" mass="1"/></body>
    <body pos="0 1 0"><joint name="j1" type="hinge" axis="0 1 0" range="-20 20" damping="2"/>
      <geom pos=".1 0 0" size=".05" mass="2"/></body>
    <body pos="0 2 0"><joint name="j2" type="ball" range="0 30" damping="1"/>
      <geom pos=".2 0 .1" size=".05" mass="1"/></body>
    <body pos="0 3 0"><joint name="j3" type="slide" axis="0 0 1" damping="50"/>
      <geom size=".05" mass="3"/></body>
  </worldbody>
  <tendon>
    <fixed name="t0" limited="true" range="-.002 1"><joint joint="j3" coef="1"/></fixed>
    <fixed name="t1" limited="true" range="-1 .5" margin=".01"><joint joint="j0" coef="2"/></fixed>
    <fixed name="t2" limited="true" range="-.3 .3"><joint joint="j1" coef="1"/></fixed>
  </tendon>
  <sensor>
    {sensors}
    <jointlimitfrc joint="j0" cutoff="4"/>
    <tendonlimitfrc tendon="t0" cutoff="20"/>
    <tendonlimitpos tendon="t0" {delay}/>
    <jointlimitfrc joint="j0" {delay}/>
  </sensor>
</mujoco>
"""
KINDS = ("pos", "vel", "frc")
FIRST_LIMIT = int(mujoco.mjtConstraint.mjCNSTR_LIMIT_JOINT)  # the next is that of tendons


def limits(delay: str = "") -> mujoco.MjModel:
    sensors = "".join(
        f'<jointlimit{kind} joint="j{i}"/><tendonlimit{kind} tendon="t{i}"/>'
        for kind in KINDS
        for i in range(3)
    )
    return mujoco.MjModel.from_xml_string(LIMITS.format(sensors=sensors, delay=delay))


def started(mjm: mujoco.MjModel, lower: float) -> mujoco.MjData:
    """Data with all joints turned to their limits, those that slide by `lower` more or less."""
    mjd = mujoco.MjData(mjm)
    mjd.qpos[:] = [-0.002 - lower, 0.4, 0.9, 0.0, 0.0, 0.5, -0.004 + lower]
    mujoco.mju_normalize4(mjd.qpos[2:6])
    mjd.qvel[:] = [0.1, -0.2, 0.3, -0.4, 0.5, 0.6]
    return mjd


LOWER = (0.0, 0.003)  # in either world; in the second one tendon 0 is not at its limit


def stepped(package, mjm: mujoco.MjModel, nstep: int, **law: str) -> mujoco_warp.Data:
    m, mjd = package.put_model(mjm, **law), started(mjm, LOWER[0])
    d = package.put_data(mjm, mjd, nworld=2)
    d.qpos.assign([started(mjm, lower).qpos for lower in LOWER])
    ours = package is cfwarp  # which has no need to be told
    with contextlib.nullcontext() if ours else limits_told_apart():
        for _ in range(nstep):
            package.step(m, d)
    return d


@pytest.mark.parametrize("delay", ["", 'delay=".004" nsample="4"'], ids=["now", "delayed"])
def test_limits_of_a_joint_and_a_tendon_of_one_index_read_as_in_mujoco(delay, device):
    mjm, nstep = limits(delay), 5
    found = stepped(mujoco_warp, mjm, nstep).sensordata.numpy()
    for world, lower in enumerate(LOWER):
        mjd = started(mjm, lower)
        mujoco.mj_step(mjm, mjd, nstep)
        assert (mjd.sensordata[:6] != 0.0).sum() >= 4
        np.testing.assert_allclose(found[world], mjd.sensordata, rtol=1e-3, atol=1e-4)


def row_of(d: mujoco_warp.Data, world: int, kind: int, objid: int) -> int | None:
    count = d.nefc.numpy()[world]
    rows = (d.efc.type.numpy()[world] == kind) & (d.efc.id.numpy()[world] == objid)
    found = np.flatnonzero(rows[:count])
    return int(found[0]) if found.size else None


@pytest.mark.parametrize("law", ["paper", "warm"])
def test_on_comfree_they_read_the_row_of_their_own_limit(law, device):
    mjm = limits()
    d = stepped(cfwarp, mjm, 5, comfree_law=law)
    arrays = {
        "pos": d.efc.pos.numpy() - d.efc.margin.numpy(),
        "vel": d.efc.vel.numpy(),
        "frc": d.efc.force.numpy(),
    }
    found = d.sensordata.numpy()
    for world in range(2):
        for number in range(18):
            kind, of_tendon = KINDS[number // 6], number % 2
            row = row_of(d, world, FIRST_LIMIT + of_tendon, number // 2 % 3)
            expected = 0.0 if row is None else arrays[kind][world, row]
            assert found[world, number] == np.float32(expected), mjm.sensor(number).type
        assert found[world, 12] != found[world, 13]


def test_the_forces_that_two_limits_carry_are_told_on_every_engine():
    """The case of `limit_sensors.xml`: 9.81 and 29.43 N, where both sensors read 29.43."""
    mjm = mujoco.MjModel.from_xml_string("""
      <mujoco>
        <worldbody>
          <body><joint name="j" type="slide" axis="0 0 1" range="0 1" damping="50"/>
            <geom size=".05" mass="1"/></body>
          <body pos="0 1 0"><joint name="k" type="slide" axis="0 0 1" damping="50"/>
            <geom size=".05" mass="3"/></body>
        </worldbody>
        <tendon>
          <fixed name="t" limited="true" range="0 1"><joint joint="k" coef="1"/></fixed>
        </tendon>
        <sensor><jointlimitfrc joint="j"/><tendonlimitfrc tendon="t"/></sensor>
      </mujoco>""")
    for engine, law in (("mjwarp", None), ("comfree", "paper"), ("comfree", "warm")):
        simulation = engines.make_simulation(mjm, engine, law=law)
        simulation.step(1000)
        np.testing.assert_allclose(simulation._d.sensordata.numpy()[0], [9.81, 29.43], rtol=1e-3)
