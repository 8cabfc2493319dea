"""What the CPU solves for itself with M is what MuJoCo Warp solves."""

import mujoco
import mujoco_warp
import numpy as np
import pytest
import scenes
from engine_rows import relative_error

import comfree_warp as cfwarp
from comfree_warp.pipeline.cholesky import euler, fwd_acceleration

pytestmark = pytest.mark.engine

# Joints that are damped by themselves, by one actuator, by two, and not at all; a free body.
DAMPED = """
<mujoco>
  <option timestep="0.01"/>
  <default><geom size=".05" mass="0.5" contype="0" conaffinity="0"/></default>
  <worldbody>
    <body><joint name="a" axis="0 1 0" damping="0.3 0.2 0.1"/><geom pos=".3 0 0"/>
      <body pos=".3 0 0"><joint name="b" axis="0 1 0"/><geom pos=".3 0 0"/>
        <body pos=".3 0 0"><joint name="c" axis="1 1 0"/><geom pos=".3 0 0"/>
          <body pos="0 .3 0"><joint name="d" type="ball" damping="0.2"/><geom pos="0 .2 0"/></body>
        </body>
        <body pos="0 .3 0"><joint type="slide" axis="0 0 1"/><geom pos="0 .2 0"/></body>
      </body>
    </body>
    <body pos="2 0 0"><freejoint/><geom pos=".1 0 0"/></body>
    <body pos="3 0 0"><freejoint/><geom/></body>
  </worldbody>
  <actuator>
    <motor joint="b" gear="3" damping="0.1 0.2"/>
    <motor joint="c" gear="2" damping="0.3"/>
    <motor jointinparent="c" gear="1" damping="0.2"/>
  </actuator>
</mujoco>
"""


def chain(nbody: int) -> mujoco.MjModel:
    # Without armature M is so stiff that MuJoCo Warp's own factors on a GPU, whose order of
    # operations changes, differ by 1 % from run to run.
    joint = '<joint axis="0 1 0" damping=".1" armature=".01"/>'
    bodies = f'<body pos=".1 0 0">{joint}<geom size=".02"/>' * nbody
    return mujoco.MjModel.from_xml_string(
        f'<mujoco><default><geom contype="0" conaffinity="0"/></default>'
        f"<worldbody>{bodies}{'</body>' * nbody}</worldbody></mujoco>"
    )


MODELS = {
    "damped": mujoco.MjModel.from_xml_string(DAMPED),
    "humanoid": mujoco.MjModel.from_xml_path(str(scenes.PATHS["own/humanoid/humanoid.xml"])),
    "large": chain(70),  # more dofs than MuJoCo Warp factorizes densely
}


@pytest.fixture(params=MODELS)
def moving(request, device):
    """A model, and data of two worlds that move and are pushed, up to the forces on them."""
    if request.param == "large" and device != "cpu":
        pytest.skip("on a GPU both are MuJoCo Warp's, and differ by 1e-3 from run to run")
    mjm = MODELS[request.param]
    rng = np.random.default_rng(0)
    m = cfwarp.put_model(mjm)
    d = cfwarp.make_data(mjm, nworld=2, nconmax=64, njmax=256)
    d.qvel.assign(rng.normal(0, 1, d.qvel.shape))
    d.qfrc_applied.assign(rng.normal(0, 1, d.qfrc_applied.shape))
    xfrc = rng.normal(0, 1, (2, mjm.nbody, 6))
    xfrc[:, rng.uniform(size=mjm.nbody) < 0.5] = 0.0
    d.xfrc_applied.assign(xfrc)
    cfwarp.forward(m, d)
    return m, d


def test_smooth_acceleration_and_the_factor_are_mujoco_warps(moving):
    m, d = moving
    names = ("qfrc_smooth", "qacc_smooth", "qLD", "qLDiagInv")
    found = {}
    for call in (fwd_acceleration, lambda m, d: mujoco_warp.fwd_acceleration(m, d, True)):
        for name in names:
            getattr(d, name).zero_()
        call(m, d)
        found[call] = {name: getattr(d, name).numpy().copy() for name in names}
    ours, theirs = found.values()
    assert np.abs(theirs["qLD"]).any()
    for name in names:
        assert relative_error(ours[name], theirs[name]) < 1e-4, name


def test_a_damped_euler_step_is_mujoco_warps(moving):
    m, d = moving
    start = {name: getattr(d, name).numpy().copy() for name in ("qpos", "qvel", "time")}
    names = ("qpos", "qvel", "time", "qacc", "qacc_warmstart")
    found = []
    for call in (euler, mujoco_warp.euler):
        for name, value in start.items():
            getattr(d, name).assign(value)
        call(m, d)
        found.append({name: getattr(d, name).numpy().copy() for name in names})
    ours, theirs = found
    assert relative_error(ours["qvel"] - start["qvel"], theirs["qvel"] - start["qvel"]) < 2e-4
    for name in names:
        np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-4, atol=1e-4)


@pytest.mark.usefixtures("device")
def test_damping_is_seen_by_the_euler_step():
    mjm = MODELS["damped"]
    m, d = cfwarp.put_model(mjm), cfwarp.make_data(mjm)
    qvel = []
    for undamped in (0, int(mujoco.mjtDisableBit.mjDSBL_EULERDAMP)):
        cfwarp.reset_data(m, d)
        d.qvel.fill_(2.0)
        m.opt.disableflags = undamped
        cfwarp.step(m, d)
        qvel.append(d.qvel.numpy().copy())
    assert np.abs(qvel[0] - qvel[1]).max() > 0.01
