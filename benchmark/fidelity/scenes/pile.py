"""A dense pile: 36 bodies of five kinds in a bin."""

import mujoco
import numpy as np

from benchmark.fidelity import measures
from benchmark.fidelity.measures import Quantity, Trajectory
from benchmark.fidelity.scenes.scene import MM, FidelityScene, mjcf

PILE_WALL = 0.19  # half the width of the bin, m
PILE_SETTLED = 1.5  # s
_PILE_SHAPES = (
    'type="sphere" size="0.055"',
    'type="box" size="0.05 0.05 0.04"',
    'type="capsule" size="0.035 0.03"',
    'type="cylinder" size="0.05 0.04"',
    'type="ellipsoid" size="0.06 0.05 0.04"',
)


def pile_xml() -> str:
    """36 bodies of five kinds, askew, in layers of nine above a bin whose walls are planes."""
    rng = np.random.default_rng(0)
    bodies = []
    for i in range(36):
        layer, cell = divmod(i, 9)
        row, column = divmod(cell, 3)
        x, y = 0.125 * (row - 1), 0.125 * (column - 1)
        pos = np.array([x, y, 0.08 + 0.13 * layer]) + rng.uniform(-0.005, 0.005, 3)
        quat = rng.normal(size=4)
        bodies.append(
            f'<body name="body{i}" pos="{" ".join(f"{value:.4f}" for value in pos)}" '
            f'quat="{" ".join(f"{value:.4f}" for value in quat)}"><freejoint/>'
            f"<geom {_PILE_SHAPES[i % len(_PILE_SHAPES)]}/></body>"
        )
    walls = "\n    ".join(
        f'<geom type="plane" size="1 1 1" pos="{-PILE_WALL * x} {-PILE_WALL * y} 0" '
        f'zaxis="{x} {y} 0"/>'
        for x, y in ((1, 0), (-1, 0), (0, 1), (0, -1))
    )
    return mjcf("\n    ".join(['<geom type="plane" size="1 1 1"/>', walls, *bodies]))


def measure_pile(mjm: mujoco.MjModel, trajectory: Trajectory) -> list[Quantity]:
    """Rigid bodies do not penetrate. The figures of arXiv 2603.12185 are this mean and spread."""
    settled = trajectory.since(PILE_SETTLED)
    depths = MM * measures.penetrations(mjm, settled)
    paths = [measures.positions(mjm, settled, body)[:, 0] for body in measures.free_bodies(mjm)]
    last = np.array([path[-1] for path in paths])
    outside = (np.abs(last[:, :2]).max(axis=1) > PILE_WALL) | (last[:, 2] < 0)
    speeds = np.linalg.norm([path[-1] - path[0] for path in paths], axis=1) / (
        settled.time[-1] - settled.time[0]
    )
    return [
        Quantity("penetration, mean over time and contacts", "mm", depths.mean(), headline=True),
        Quantity("penetration, spread over time and contacts", "mm", depths.std()),
        Quantity("penetration, largest", "mm", depths.max()),
        Quantity("bodies pushed through floor or walls", "", float(outside.sum())),
        Quantity("creep after settling, mean over bodies", "mm/s", MM * float(speeds.mean())),
        Quantity("height of the pile's centre", "mm", MM * float(last[:, 2].mean()), None),
    ]


SCENES = (
    FidelityScene(
        "dense pile",
        "how far do 36 bodies in a bin sink into each other",
        pile_xml,
        measure_pile,
        duration=3.0,
        sample=0.02,
        nconmax=800,
        njmax=2000,
        finest={"mjc": 0.001, "mjwarp": 0.002, "comfree": 0.001},
    ),
)
