"""A gripper and a hand that each hold a cube."""

import math
from collections.abc import Callable
from functools import partial

import mujoco
import numpy as np

from benchmark.fidelity import measures
from benchmark.fidelity.measures import Quantity, Trajectory
from benchmark.fidelity.scenes.scene import MM, FidelityScene, Script, State, read_model
from mjsim import engines

GRASP = "benchmark/test_data/franka_cube_grasp/scene.xml"
HAND = "benchmark/test_data/hand/env_hand_cube.xml"
HELD = 0.03  # m that a cube may move in the hand and still be held
CLOSED = 1.0  # s, when the grasp is closed


def _turn(quat: np.ndarray, angle: np.ndarray) -> np.ndarray:
    """Turn (nworld, 4) quaternions about the vertical."""
    turned = np.empty_like(quat)
    for world, (old, a) in enumerate(zip(quat, angle, strict=True)):
        about = np.array([math.cos(a / 2), 0, 0, math.sin(a / 2)])
        mujoco.mju_mulQuat(turned[world], about, old)
    return turned


def perturbed_start(
    mjm: mujoco.MjModel, nworld: int, shift: float, yaw: float, joints: float
) -> State:
    """Keyframe 0 with the cube moved and turned, the same for every engine; world 0 as it is.

    Args:
      mjm: a model whose last joint is the free joint of "cube".
      nworld: number of worlds; fewer are the first of more.
      shift: largest move of the cube in x and in y, m.
      yaw: largest turn of the cube, rad.
      joints: largest change of the other joints, m or rad.
    """
    rng = np.random.default_rng(0)
    qpos = np.tile(mjm.key_qpos[0], (nworld, 1))
    cube = mjm.jnt_qposadr[mjm.body("cube").jntadr[0]]
    draw = rng.uniform(-1, 1, (nworld, cube + 3))
    draw[0] = 0
    qpos[:, :cube] += joints * draw[:, :cube]
    qpos[:, cube : cube + 2] += shift * draw[:, cube : cube + 2]
    qpos[:, cube + 3 :] = _turn(qpos[:, cube + 3 :], yaw * draw[:, cube + 2])
    return {"qpos": qpos, "ctrl": np.tile(mjm.key_ctrl[0], (nworld, 1))}


def grasp_script(mjm: mujoco.MjModel) -> Script:
    """Close, lift, hold, shake sideways, hold."""
    close, lift = mjm.key("grasp").ctrl, mjm.key("lift").ctrl
    joint1 = np.eye(mjm.nu)[mjm.actuator("joint1").id]
    shakes = tuple(
        (3.0 + 0.4 * i, lift + angle * joint1) for i, angle in enumerate((0.3, -0.3, 0.3, -0.3, 0))
    )
    return ((0.0, close), (CLOSED, lift), *shakes)


def _in_hand(mjm: mujoco.MjModel, trajectory: Trajectory, frame: int, hand: Callable) -> np.ndarray:
    """Where the cube is in the hand's frame, (nworld, 3) m; hand(mjd) gives its pos and mat."""
    cube = mjm.body("cube").id

    def relative(mjm: mujoco.MjModel, mjd: mujoco.MjData) -> np.ndarray:
        pos, mat = hand(mjd)
        return mat.reshape(3, 3).T @ (mjd.xpos[cube] - pos)

    states = measures.measure_states(mjm, trajectory.qpos[frame], trajectory.qvel[frame], relative)
    return np.array([np.broadcast_to(state, 3) for state in states])


def measure_grasp(mjm: mujoco.MjModel, trajectory: Trajectory) -> list[Quantity]:
    """A good grasp loses no cube.

    Held: at the end the cube is HELD or less from the middle of the fingers, and in the air.
    """
    tcp = mjm.site("tcp").id
    in_hand = partial(
        _in_hand, mjm, trajectory, hand=lambda mjd: (mjd.site_xpos[tcp], mjd.site_xmat[tcp])
    )
    closed, end = int(np.searchsorted(trajectory.time, CLOSED - 1e-9)), len(trajectory.time) - 1
    at_end = in_hand(end)
    height = measures.positions(mjm, trajectory, "cube")[end, :, 2]
    held = (np.linalg.norm(at_end, axis=1) <= HELD) & (height > mjm.key_qpos[0][-5] + 0.05)
    slip = MM * np.linalg.norm(at_end - in_hand(closed), axis=1)
    return _held_quantities(held, slip)


def measure_hand(mjm: mujoco.MjModel, trajectory: Trajectory) -> list[Quantity]:
    """A good hand loses no cube.

    Held: at the end the cube is HELD or less from where it was in the palm at the start.
    """
    palm = mjm.body("palm").id
    in_hand = partial(_in_hand, mjm, trajectory, hand=lambda mjd: (mjd.xpos[palm], mjd.xmat[palm]))
    closed, end = int(np.searchsorted(trajectory.time, CLOSED - 1e-9)), len(trajectory.time) - 1
    at_end = in_hand(end)
    held = np.linalg.norm(at_end - in_hand(0), axis=1) <= HELD
    slip = MM * np.linalg.norm(at_end - in_hand(closed), axis=1)
    return _held_quantities(held, slip)


def _held_quantities(held: np.ndarray, slip: np.ndarray) -> list[Quantity]:
    kept = slip[held]
    return [
        Quantity("held, fraction of starts", "", float(held.mean()), 1.0, headline=True),
        Quantity(
            "slip in the hand, mean over those held",
            "mm",
            float(kept.mean()) if kept.size else np.nan,
            headline=True,
        ),
    ]


SCENES = (
    FidelityScene(
        "grasp",
        "does the gripper keep its cube while it lifts, holds and shakes",
        partial(read_model, GRASP),
        measure_grasp,
        duration=5.5,
        sample=0.1,
        nconmax=64,
        njmax=256,
        nworld=64,
        start=partial(perturbed_start, shift=0.005, yaw=0.1, joints=0.002),
        script=grasp_script,
        finest=dict.fromkeys(engines.ENGINES, 0.002),
    ),
    FidelityScene(
        "hand",
        "does the hand keep its cube for 10 s",
        partial(read_model, HAND),
        measure_hand,
        duration=10.0,
        sample=0.1,
        nconmax=96,
        njmax=384,
        nworld=64,
        nworld_standard=16,
        start=partial(perturbed_start, shift=0.002, yaw=0.05, joints=0.02),
        finest=dict.fromkeys(engines.ENGINES, 0.002),
    ),
)
