"""What lies or is held in the end: a humanoid that fell, and a pot that two arms lift."""

from functools import partial
from pathlib import Path

import mujoco
import mujoco_warp

from benchmark.fidelity import measures
from benchmark.fidelity.measures import Quantity, Trajectory
from benchmark.fidelity.scenes.scene import MM, FidelityScene, Script, read_files, read_model

LATE = 0.7  # of the duration: from when on what fell lies still
HUMANOID = "benchmark/test_data/humanoid/humanoid.xml"
TWO_ARMS = Path(mujoco_warp.__file__).parent / "test_data" / "aloha_pot" / "scene.xml"
POT = "partnet_100015/"
LIFTED = 0.05  # m; Newton lifts the pot by 0.11


def measure_late(mjm: mujoco.MjModel, trajectory: Trajectory) -> list[Quantity]:
    """What lies, or is held, is as deep in what carries it as by Newton."""
    depths = MM * measures.penetrations(mjm, trajectory.since(LATE * trajectory.time[-1]))
    return [
        Quantity("penetration, mean at rest", "mm", depths.mean(), None, headline=True),
        Quantity("penetration, largest at rest", "mm", depths.max(), None),
    ]


def two_arms_script(mjm: mujoco.MjModel) -> Script:
    """The model's own: one arm pushes the lid aside, the other takes the pot by a handle."""
    keys = (mjm.key(i) for i in range(mjm.nkey))
    return tuple((float(key.time[0]), key.ctrl) for key in keys if key.name.startswith("lift_pot"))


def measure_two_arms(mjm: mujoco.MjModel, trajectory: Trajectory) -> list[Quantity]:
    """The pot ends LIFTED or more above where it stood, and is held as deep as by Newton."""
    height = measures.positions(mjm, trajectory, POT)[:, 0, 2]
    lifted = float(height[-1] - height[0] >= LIFTED)
    return [
        Quantity("pot lifted", "", lifted, 1.0, headline=True),
        *measure_late(mjm, trajectory),
    ]


SCENES = (
    FidelityScene(
        "humanoid",
        "how deep does a humanoid lie that fell",
        partial(read_model, HUMANOID),
        measure_late,
        duration=5.0,
        sample=0.02,
        nconmax=64,
        njmax=256,
        files=partial(read_files, HUMANOID, "humanoid_body.xml"),
    ),
    FidelityScene(
        "two arms",
        "do two arms lift a pot and hold it",
        partial(read_model, TWO_ARMS),
        measure_two_arms,
        duration=4.0,
        sample=0.05,
        nconmax=512,
        njmax=1024,
        script=two_arms_script,
        files=partial(read_files, TWO_ARMS, "*"),
    ),
)
