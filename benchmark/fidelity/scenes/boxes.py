"""Boxes that lie still: single, stacked, in an arch, under heavy ones, started in the floor."""

import math
from functools import partial

import mujoco
import numpy as np

from benchmark.fidelity import measures
from benchmark.fidelity.measures import Quantity, Trajectory
from benchmark.fidelity.scenes.scene import COARSE_WARP, GRAVITY, MM, FidelityScene, mjcf

EDGE = 0.1  # of every box that is stacked, m
ASKEW = 0.0001  # m by which such a box is put aside: on a perfect stack rounding decides what falls


def _askew(n: int, seed: int = 0) -> np.ndarray:
    """(n, 2) m in x and y."""
    return np.random.default_rng(seed).uniform(-ASKEW, ASKEW, (n, 2))


def boxes_xml(centres: list[tuple[float, float]]) -> str:
    """1 kg cubes near (x, z) in units of their edge, lowest z first, on a plane."""
    bodies = "\n    ".join(
        f'<body name="box{i}" pos="{EDGE * x + dx:.6f} {dy:.6f} {EDGE * z:g}"><freejoint/>'
        f'<geom type="box" size="{EDGE / 2} {EDGE / 2} {EDGE / 2}" mass="1"/></body>'
        for i, ((x, z), (dx, dy)) in enumerate(zip(centres, _askew(len(centres)), strict=True))
    )
    return mjcf(f'<geom type="plane" size="5 5 1"/>\n    {bodies}')


def column(height: int) -> list[tuple[float, float]]:
    return [(0.0, i + 0.5) for i in range(height)]


def pyramid(base: int) -> list[tuple[float, float]]:
    """Rows of base, base - 1, ... 1 boxes, a tenth of an edge between neighbours."""
    return [
        (1.1 * (i - (base - row - 1) / 2), row + 0.5)
        for row in range(base)
        for i in range(base - row)
    ]


def measure_boxes(
    mjm: mujoco.MjModel, trajectory: Trajectory, depth: float | None = 0.0
) -> list[Quantity]:
    """Rigid boxes at rest do not sink and do not move.

    They stand while every box is less than half an edge to the side of where it was put, less than
    that above, and higher than half its height. Penetration is that of the last second in which
    they stood. A box that hops may never be caught in the floor, so its height is measured too.

    Args:
      mjm: the model.
      trajectory: of world 0.
      depth: what penetration should be, mm; None: as deep as by Newton.
    """
    paths = [measures.positions(mjm, trajectory, body)[:, 0] for body in measures.free_bodies(mjm)]
    places = np.array(paths)  # (nbox, nframe, 3)
    aside = np.linalg.norm(places[:, :, :2] - places[:, :1, :2], axis=2)
    height, start = places[:, :, 2], places[:, :1, 2]
    rise = height - start
    standing = ((aside < EDGE / 2) & (rise < EDGE / 2) & (height > start / 2)).all(axis=0)
    fallen = np.flatnonzero(~standing)
    last = fallen[0] - 1 if fallen.size else len(standing) - 1
    stood = trajectory.time[last]
    depths = MM * measures.penetrations(mjm, trajectory.between(stood - 1.0, stood))
    return [
        Quantity("stood for", "s", stood, trajectory.time[-1], headline=True),
        Quantity("penetration, mean while standing", "mm", depths.mean(), depth, headline=True),
        Quantity("penetration, largest while standing", "mm", depths.max(), depth),
        Quantity("drift sideways, mean over boxes", "mm", MM * float(aside[:, -1].mean())),
        Quantity("hop above the start, largest", "mm", MM * float(np.maximum(rise, 0).max())),
    ]


ARCH_BLOCKS = 9
ARCH_RADIUS, ARCH_THICKNESS, ARCH_WIDTH = 0.5, 0.15, 0.2  # m; the radius is that of its middle


def arch_xml() -> str:
    """Half a ring of wedges, dry on each other, between two abutments that cannot move.

    Only the outermost wedges touch the abutments, below and behind. A pyramid's friction lets the
    wedges creep twice as far as a cone's.
    """
    half = math.pi / ARCH_BLOCKS / 2  # of the angle of a wedge
    corners = [
        (r * math.cos(side * half) - ARCH_RADIUS, y, r * math.sin(side * half))
        for r in (ARCH_RADIUS - ARCH_THICKNESS / 2, ARCH_RADIUS + ARCH_THICKNESS / 2)
        for side in (-1, 1)
        for y in (-ARCH_WIDTH / 2, ARCH_WIDTH / 2)
    ]
    vertices = " ".join(f"{value:.6f}" for corner in corners for value in corner)
    behind = ARCH_RADIUS + ARCH_THICKNESS / 2 + 0.1
    fixed = "\n    ".join(
        f'<geom type="box" size="0.15 {ARCH_WIDTH} 0.1" pos="{side * ARCH_RADIUS} 0 -0.1"/>\n    '
        f'<geom type="box" size="0.1 {ARCH_WIDTH} 0.1" pos="{side * behind} 0 0"/>'
        for side in (-1, 1)
    )
    angles = [(2 * i + 1) * half for i in range(ARCH_BLOCKS)]
    bodies = "\n    ".join(
        f'<body name="wedge{i}" pos="{ARCH_RADIUS * math.cos(angle):.6f} 0 '
        f'{ARCH_RADIUS * math.sin(angle):.6f}" euler="0 {-math.degrees(angle):.6f} 0"><freejoint/>'
        f'<geom type="mesh" mesh="wedge"/></body>'
        for i, angle in enumerate(angles)
    )
    return mjcf(
        f'<geom type="plane" size="5 5 1" pos="0 0 -0.2"/>\n    {fixed}\n    {bodies}',
        cone="elliptic",
        default='<geom friction="0.8 0.005 0.0001"/>',
        more=f'<asset><mesh name="wedge" vertex="{vertices}"/></asset>',
    )


MASS_RATIOS = (1, 10, 100, 1000)


def mass_ratio_xml() -> str:
    bodies = "\n    ".join(
        f'<body name="{name}{ratio}" pos="{i + dx:.6f} {dy:.6f} {EDGE * height}"><freejoint/>'
        f'<geom type="box" size="{EDGE / 2} {EDGE / 2} {EDGE / 2}" mass="{mass}"/></body>'
        for (i, ratio), (dx, dy) in zip(
            enumerate(MASS_RATIOS), _askew(len(MASS_RATIOS)), strict=True
        )
        for name, height, mass, dx, dy in (
            ("light", 0.5, 1, 0.0, 0.0),
            ("heavy", 1.5, ratio, dx, dy),
        )
    )
    return mjcf(f'<geom type="plane" size="9 9 1"/>\n    {bodies}')


def measure_mass_ratio(mjm: mujoco.MjModel, trajectory: Trajectory) -> list[Quantity]:
    """A rigid box carries any other: the upper one does not come down, whatever its mass.

    Carried: the heavy box ends within half an edge of where it was put.
    """
    paths = [measures.positions(mjm, trajectory, f"heavy{ratio}")[:, 0] for ratio in MASS_RATIOS]
    carried = [bool(np.linalg.norm(path[-1] - path[0]) < EDGE / 2) for path in paths]
    return [
        Quantity("ratios carried, fraction", "", float(np.mean(carried)), 1.0, headline=True),
        *(
            Quantity(
                "sag of the heavy box",
                "mm",
                MM * abs(path[-1, 2] - path[0, 2]),
                variant=f"ratio={ratio}",
            )
            for ratio, path in zip(MASS_RATIOS, paths, strict=True)
        ),
    ]


DEPTHS = (0.01, 0.05, 0.1)


def deep_xml() -> str:
    bodies = "\n    ".join(
        f'<body name="{name}{depth}" pos="{i} {j} {0.1 - depth:g}"><freejoint/>'
        f'<geom type="{name}" size="0.1 0.1 0.1" mass="8"/></body>'
        for i, depth in enumerate(DEPTHS)
        for j, name in enumerate(("box", "sphere"))
    )
    return mjcf(f'<geom type="plane" size="9 9 1"/>\n    {bodies}')


def measure_deep(mjm: mujoco.MjModel, trajectory: Trajectory) -> list[Quantity]:
    """A body that starts inside the floor should come out without being thrown.

    To come out at all it must move, so no speed is exact; what is wrong is to fly on, to
    z + v^2 / (2 g) above where it rests.
    """
    found = []
    for depth in DEPTHS:
        for name in ("box", "sphere"):
            body, variant = f"{name}{depth}", f"{name} depth={depth * MM:g} mm"
            speed = np.maximum(measures.velocities(mjm, trajectory, body)[:, 0, 2], 0.0)
            above = measures.positions(mjm, trajectory, body)[:, 0, 2] - 0.1
            apex = np.where(above <= 0, 0.0, above + speed**2 / (2 * GRAVITY)).max()
            found += [
                Quantity("peak speed upwards", "m/s", speed.max(), None, variant),
                Quantity("thrown above rest", "mm", MM * apex, 0.0, variant, headline=True),
            ]
    return found


SCENES = (
    FidelityScene(
        "resting box",
        "does one box lie still on the floor",
        partial(boxes_xml, column(1)),
        measure_boxes,
        duration=3.0,
        sample=0.02,
        nconmax=16,
        njmax=64,
        quick=True,
    ),
    FidelityScene(
        "stack of 10",
        "do ten boxes on top of each other stand for 10 s",
        partial(boxes_xml, column(10)),
        measure_boxes,
        duration=10.0,
        sample=0.1,
        nconmax=160,
        njmax=640,
        finest=COARSE_WARP,
    ),
    FidelityScene(
        "pyramid of 15",
        "do 15 boxes in five rows stand for 10 s",
        partial(boxes_xml, pyramid(5)),
        measure_boxes,
        duration=10.0,
        sample=0.1,
        nconmax=320,
        njmax=1280,
        finest=COARSE_WARP,
    ),
    FidelityScene(
        "arch",
        "does an arch of nine wedges stand for 5 s",
        arch_xml,
        partial(measure_boxes, depth=None),
        duration=5.0,
        sample=0.05,
        nconmax=192,
        njmax=768,
    ),
    FidelityScene(
        "mass ratios",
        "does a light box carry one of 1 to 1,000 times its mass",
        mass_ratio_xml,
        measure_mass_ratio,
        duration=5.0,
        sample=0.1,
        nconmax=64,
        njmax=256,
    ),
    FidelityScene(
        "deep start",
        "does a body that starts in the floor come out without being thrown",
        deep_xml,
        measure_deep,
        duration=1.0,
        sample=0.002,
        nconmax=32,
        njmax=128,
    ),
)
