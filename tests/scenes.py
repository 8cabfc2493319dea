"""The models that the tests run on, and random states of them."""

from pathlib import Path

import mujoco
import mujoco_warp
import numpy as np

from mjsim.model.files import REPOSITORY

OWN_FOLDER = REPOSITORY / "benchmark" / "test_data"
THEIR_FOLDER = Path(mujoco_warp.__file__).parent / "test_data"

OWN = (
    "primitives.xml",
    "collision.xml",
    "constraints.xml",
    "pendula.xml",
    "humanoid/humanoid.xml",
    "humanoid/n_humanoid.xml",
    "hfield/hfield.xml",
    "flex/floppy.xml",
    "ball_rotation.xml",
    "cylinder_rolling.xml",
    "hand/env_hand_cube.xml",
    "franka_cube_grasp/scene.xml",
)

# Shipped with mujoco_warp: humanoid, collision, constraints, pendula, hfield, flex, tendon,
# actuation. Of flex, the scenes small enough for a test.
THEIRS = (
    "humanoid/humanoid.xml",
    "humanoid/n_humanoid.xml",
    "collision.xml",
    "constraints.xml",
    "pendula.xml",
    "hfield/hfield.xml",
    "flex/floppy.xml",
    "flex/moving_base_strain.xml",
    "flex/rope.xml",
    *(f"tendon/{path.name}" for path in sorted((THEIR_FOLDER / "tendon").glob("*.xml"))),
    *(f"actuation/{path.name}" for path in sorted((THEIR_FOLDER / "actuation").glob("*.xml"))),
)

PATHS = {f"own/{name}": OWN_FOLDER / name for name in OWN} | {
    f"theirs/{name}": THEIR_FOLDER / name for name in THEIRS
}


def random_state(mjm: mujoco.MjModel, seed: int) -> mujoco.MjData:
    """A state that the model could be in: some way into a run, then shaken.

    The run is MuJoCo C's from the initial state under random controls; then positions move by
    about a centimetre or degree and velocities by a metre or radian per second.
    """
    rng = np.random.default_rng(seed)
    mjd = mujoco.MjData(mjm)
    if mjm.nkey:
        mujoco.mj_resetDataKeyframe(mjm, mjd, 0)
    limited = mjm.actuator_ctrllimited.astype(bool)
    low = np.where(limited, mjm.actuator_ctrlrange[:, 0], -1.0)
    high = np.where(limited, mjm.actuator_ctrlrange[:, 1], 1.0)
    for _ in range(int(rng.integers(1, 60))):
        mjd.ctrl[:] = rng.uniform(low, high)
        mujoco.mj_step(mjm, mjd)
    mujoco.mj_integratePos(mjm, mjd.qpos, rng.normal(0.0, 0.01, mjm.nv), 1.0)
    mjd.qvel += rng.normal(0.0, 1.0, mjm.nv)
    mjd.qpos[:] = mjd.qpos.astype(np.float32)  # both sides start from the very same numbers
    mjd.qvel[:] = mjd.qvel.astype(np.float32)
    mjd.act[:] = mjd.act.astype(np.float32)
    mjd.ctrl[:] = mjd.ctrl.astype(np.float32)
    return mjd


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
