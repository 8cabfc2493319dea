"""Scenes of the fidelity suite as they are run and measured, for its tests."""

import numpy as np

from benchmark.common import contenders
from benchmark.common.measuring import ResultRow
from benchmark.fidelity.measures import Quantity, Trajectory
from benchmark.fidelity.plan import Run
from benchmark.fidelity.scenes import BY_NAME
from benchmark.fidelity.scenes.scene import FidelityScene
from benchmark.fidelity.suite import FidelitySuite

MJC = contenders.parse("mjc")


def synthetic(scene: str, duration: float = 3.0, sample: float = 0.02):
    """The scene's model, and a trajectory of world 0 that stays at the start."""
    mjm = BY_NAME[scene].model(0.002, "implicitfast")
    time = np.arange(round(duration / sample) + 1) * sample
    qpos = np.tile(mjm.qpos0, (len(time), 1, 1))
    return mjm, Trajectory(time, qpos, np.zeros((len(time), 1, mjm.nv)))


def by_name(quantities: list[Quantity]) -> dict[str, Quantity]:
    return {f"{each.name} {each.variant}".strip(): each for each in quantities}


def run(
    scene: str | FidelityScene, timestep: float, contender: str = "mjc", mjm=None
) -> list[ResultRow]:
    scene = BY_NAME[scene] if isinstance(scene, str) else scene
    suite = FidelitySuite("implicitfast", "cpu", "standard", [])
    return suite.run(Run(scene, contenders.parse(contender), timestep, scene.nworld), mjm)


def errors(rows: list[ResultRow], quantity: str) -> dict[str, float]:
    found = {row["variant"]: row["error"] for row in rows if row["quantity"] == quantity}
    assert found
    return found
