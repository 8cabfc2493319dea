"""The scenes of the fidelity suite: small models whose right answer is known.

A scene is a model, a start, perhaps a script of controls, and a function that turns the recorded
motion into quantities, each beside what it should be: an exact formula, the ideal of rigid bodies,
or MuJoCo C's Newton solver at a tenth of the timestep. Many variants go into one model as bodies
that do not touch, and into its worlds, since runs and kernel compilations are what costs.

Lengths in the models are metres, masses kilograms; depths and drifts are reported in mm.
"""

import dataclasses
import hashlib
import math
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import mujoco
import mujoco_warp
import numpy as np

from benchmark.fidelity import measures as measures
from benchmark.fidelity.measures import Quantity, Trajectory
from mjsim import engines

SWEEP = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02)  # s
GRAVITY = 9.81  # m/s^2
MM = 1e3

State = Mapping[str, np.ndarray]
Script = tuple[tuple[float, np.ndarray], ...]


@dataclasses.dataclass(frozen=True)
class Scene:
    """What is simulated and measured.

    Attributes:
      name: of the scene.
      about: what it asks, in one line.
      xml: makes the MJCF, which names no timestep and no integrator.
      measure: quantities of a motion; the same names and variants whatever happened.
      duration: s.
      sample: s between recorded states; every step where steps are longer.
      nconmax: contacts per world to allocate.
      njmax: constraint rows per world to allocate.
      nworld: worlds; those of level full.
      nworld_standard: worlds at the levels below, where not the same.
      start: fields of the initial state, (nworld, n) each; from the model where not given.
      script: controls, each from its time on.
      quick: whether it is part of level quick.
      finest: by engine, the finest timestep that level standard has time for; a step of one law
        of comfree takes about as long as one of the other.
      files: gives the files that the MJCF refers to, by name.
      revision: raise it when the measure changes, so that stored results start a new series.
    """

    name: str
    about: str
    xml: Callable[[], str]
    measure: Callable[[mujoco.MjModel, Trajectory], list[Quantity]]
    duration: float
    sample: float
    nconmax: int
    njmax: int
    nworld: int = 1
    nworld_standard: int | None = None
    start: Callable[[mujoco.MjModel, int], State] | None = None
    script: Callable[[mujoco.MjModel], Script] | None = None
    quick: bool = False
    finest: Mapping[str, float] = dataclasses.field(default_factory=dict)
    files: Callable[[], Mapping[str, bytes]] = dict
    revision: int = 1

    def model(self, timestep: float, integrator: str) -> mujoco.MjModel:
        """Compile the model with a timestep in s and an integrator by MuJoCo's name."""
        mjm = mujoco.MjModel.from_xml_string(self.xml(), self.files())
        mjm.opt.timestep = timestep
        mjm.opt.integrator = getattr(mujoco.mjtIntegrator, f"mjINT_{integrator.upper()}")
        return mjm

    def model_hash(self) -> str:
        """64 hex digits, of the MJCF and its files."""
        found = hashlib.sha256(self.xml().encode())
        for name, content in sorted(self.files().items()):
            found.update(name.encode() + content)
        return found.hexdigest()


def mjcf(
    worldbody: str,
    cone: str = "pyramidal",
    gravity: float = GRAVITY,
    default: str = "",
    more: str = "",
) -> str:
    return f"""<mujoco>
  <option cone="{cone}" gravity="0 0 -{gravity:g}"/>
  <default>{default}</default>
  <worldbody>
    {worldbody}
  </worldbody>
  {more}
</mujoco>"""


def read_model(path: str | Path) -> str:
    return engines.find_file(path).read_text()


def read_files(path: str | Path, pattern: str) -> dict[str, bytes]:
    """The files beside a model whose names match, by name."""
    beside = sorted(engines.find_file(path).parent.glob(pattern))
    return {file.name: file.read_bytes() for file in beside if file.is_file()}


# -------------------------------------------------------------------------- boxes that lie still

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
    they stood. A box that hops may never be caught in the floor, so its height is told too.

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


# ----------------------------------------------------------------------------------- a dense pile

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
        row, place = divmod(cell, 3)
        x, y = 0.125 * (row - 1), 0.125 * (place - 1)
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


# ------------------------------------------------------------------------- what comes to its end

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


# ------------------------------------------------------------------------------- Coulomb friction

FRICTIONS = (0.2, 0.4, 0.8)
DIRECTIONS = (0, 15, 30, 45)  # degrees
SLIDE_SPEED = 2.0  # m/s
_SLIDER = 'type="box" size="0.1 0.1 0.02" mass="1" priority="1"'


def sliding_xml(cone: str) -> str:
    """A flat box per coefficient; the worlds are the directions."""
    bodies = "\n    ".join(
        f'<body name="mu{mu}" pos="0 {3 * (i - 1)} 0.02"><freejoint/>'
        f'<geom {_SLIDER} friction="{mu} 0 0"/></body>'
        for i, mu in enumerate(FRICTIONS)
    )
    return mjcf(f'<geom type="plane" size="9 9 1"/>\n    {bodies}', cone=cone)


def sliding_start(mjm: mujoco.MjModel, nworld: int) -> State:
    """World w slides, and is turned, in DIRECTIONS[w]."""
    qpos, qvel = np.tile(mjm.qpos0, (nworld, 1)), np.zeros((nworld, mjm.nv))
    for world, degrees in enumerate(DIRECTIONS):
        angle = math.radians(degrees)
        for i in range(len(FRICTIONS)):
            qpos[world, 7 * i + 3 : 7 * i + 7] = math.cos(angle / 2), 0, 0, math.sin(angle / 2)
            qvel[world, 6 * i : 6 * i + 2] = np.multiply(
                SLIDE_SPEED, (math.cos(angle), math.sin(angle))
            )
    return {"qpos": qpos, "qvel": qvel}


def measure_sliding(mjm: mujoco.MjModel, trajectory: Trajectory) -> list[Quantity]:
    """Coulomb: a body of speed v stops after v^2 / (2 mu g), in whatever direction it slides.

    A pyramidal cone holds |f_x| + |f_y| <= mu f_n and is weaker between its axes, by up to 1/sqrt 2
    at 45 degrees (MuJoCo, "Computation", friction cones): that error is in the model, not in the
    solver. A box that slides does not leave the floor.
    """
    found = []
    for mu in FRICTIONS:
        path = measures.positions(mjm, trajectory, f"mu{mu}")
        for world, degrees in enumerate(DIRECTIONS):
            found.append(
                Quantity(
                    "stopping distance",
                    "m",
                    measures.distance_travelled(path[:, world]),
                    SLIDE_SPEED**2 / (2 * mu * GRAVITY),
                    f"mu={mu} direction={degrees}",
                    relative=True,
                    headline=True,
                )
            )
        rise = np.maximum(path[:, :, 2] - path[0, :, 2], 0.0)
        found.append(
            Quantity("hop above the floor, largest", "mm", MM * float(rise.max()), 0.0, f"mu={mu}")
        )
    return found


INCLINE_FRICTION = 0.5  # sticks up to 26.6 degrees
INCLINES = (10, 20, 30, 40)


def incline_xml(cone: str) -> str:
    """A box per slope. Each sees its own plane only: planes have no end."""
    bodies = []
    for i, degrees in enumerate(INCLINES):
        sin, cos = math.sin(math.radians(degrees)), math.cos(math.radians(degrees))
        masks = f'contype="{1 << i}" conaffinity="{1 << i}"'
        bodies.append(
            f'<geom type="plane" size="9 9 1" pos="0 {i} 0" euler="0 {degrees} 0" {masks}/>\n    '
            f'<body name="slope{degrees}" pos="{0.02 * sin:.12g} {i} {0.02 * cos:.12g}" '
            f'euler="0 {degrees} 0"><freejoint/>'
            f'<geom {_SLIDER} friction="{INCLINE_FRICTION} 0 0" {masks}/></body>'
        )
    return mjcf("\n    ".join(bodies), cone=cone)


def measure_incline(mjm: mujoco.MjModel, trajectory: Trajectory) -> list[Quantity]:
    """Coulomb: at rest where tan a < mu, else the acceleration is g (sin a - mu cos a).

    Creep is the mean speed over the last second, the acceleration that between half time and end.
    """
    found = []
    for degrees in INCLINES:
        angle, body = math.radians(degrees), f"slope{degrees}"
        downhill = np.array([math.cos(angle), 0, -math.sin(angle)])
        variant = f"angle={degrees}"
        if math.tan(angle) < INCLINE_FRICTION:
            late = trajectory.since(trajectory.time[-1] - 1.0)
            along = measures.positions(mjm, late, body)[:, 0] @ downhill
            creep = MM * measures.mean_velocity(late.time, along)
            found.append(Quantity("creep speed", "mm/s", creep, 0.0, variant, headline=True))
        else:
            late = trajectory.since(trajectory.time[-1] / 2)
            along = measures.positions(mjm, late, body)[:, 0] @ downhill
            exact = GRAVITY * (math.sin(angle) - INCLINE_FRICTION * math.cos(angle))
            found.append(
                Quantity(
                    "sliding acceleration",
                    "m/s^2",
                    measures.mean_acceleration(late.time, along),
                    exact,
                    variant,
                    relative=True,
                    headline=True,
                )
            )
    return found


# ------------------------------------------------------------------ torsional and rolling friction

TORSIONS = (0.005, 0.01, 0.02)  # m
ROLLINGS = (0.004, 0.008, 0.016)  # m
RADIUS = 0.1
SPIN = 40.0  # rad/s
SETTLED = 0.2  # s, when the spheres have found their weight on the floor
ROLL_SPEED = 1.0  # m/s


def spinning_xml() -> str:
    spheres = [
        (f"spin{c}", f"{i} 0 {RADIUS}", f'condim="4" friction="1 {c} 0"')
        for i, c in enumerate(TORSIONS)
    ] + [
        (f"roll{c}", f"0 {i + 1} {RADIUS}", f'condim="6" friction="1 0.001 {c}"')
        for i, c in enumerate(ROLLINGS)
    ]
    bodies = "\n    ".join(
        f'<body name="{name}" pos="{pos}"><freejoint/>'
        f'<geom size="{RADIUS}" mass="1" priority="1" {friction}/></body>'
        for name, pos, friction in spheres
    )
    return mjcf(f'<geom type="plane" size="9 9 1"/>\n    {bodies}', cone="elliptic")


def spinning_start(mjm: mujoco.MjModel, nworld: int) -> State:
    qvel = np.zeros((nworld, mjm.nv))
    for c in TORSIONS:
        qvel[:, mjm.body(f"spin{c}").dofadr[0] + 5] = SPIN
    for c in ROLLINGS:
        first = mjm.body(f"roll{c}").dofadr[0]
        qvel[:, first], qvel[:, first + 4] = ROLL_SPEED, ROLL_SPEED / RADIUS
    return {"qvel": qvel}


def measure_spinning(mjm: mujoco.MjModel, trajectory: Trajectory) -> list[Quantity]:
    """A sphere on a plane under torques c m g, with c the coefficient in metres.

    Spinning about the normal, I = 2/5 m r^2: it stops after w I / (c m g). Rolling without slip,
    about the contact I = 7/5 m r^2: after v 7/5 r / (c g). Source: MuJoCo "Computation", torsional
    and rolling friction bound a torque by coefficient times normal force.
    """
    found = []
    spins = [measures.velocities(mjm, trajectory, f"spin{c}")[:, 0, 5] for c in TORSIONS]
    rolls = [measures.velocities(mjm, trajectory, f"roll{c}")[:, 0, 0] for c in ROLLINGS]
    for name, coefficients, speeds, exact in (
        ("spin-down time", TORSIONS, spins, SPIN * 0.4 * RADIUS**2 / GRAVITY),
        ("roll-down time", ROLLINGS, rolls, ROLL_SPEED * 1.4 * RADIUS / GRAVITY),
    ):
        times = [measures.stopping_time(trajectory.time, speed, SETTLED) for speed in speeds]
        found += [
            Quantity(name, "s", time, exact / c, f"c={c} m", relative=True, headline=True)
            for c, time in zip(coefficients, times, strict=True)
        ]
        falling = float(measures.is_falling(times))
        found.append(Quantity(f"{name} falls with the coefficient", "", falling, 1.0))
    return found


# ------------------------------------------------------------------------------------ conservation


def collision_xml() -> str:
    """Spheres and boxes of 0.5 to 4 kg that fly into each other, without gravity."""
    bodies = []
    for i in range(8):
        angle = 2 * math.pi * i / 8
        mass = 0.5 * 2 ** (i % 4)
        shape = 'type="sphere" size="0.08"' if i % 2 else 'type="box" size="0.07 0.06 0.05"'
        bodies.append(
            f'<body name="body{i}" pos="{0.6 * math.cos(angle):.4f} {0.6 * math.sin(angle):.4f} '
            f'{0.02 * i:g}"><freejoint/><geom {shape} mass="{mass}"/></body>'
        )
    return mjcf("\n    ".join(bodies), gravity=0.0)


def collision_start(mjm: mujoco.MjModel, nworld: int) -> State:
    """Towards a point beside the centre, so that they hit askew and there is angular momentum."""
    qvel = np.zeros((nworld, mjm.nv))
    for i in range(8):
        angle = 2 * math.pi * i / 8
        speed = 1.0 + 0.1 * i
        qvel[:, 6 * i] = -speed * math.cos(angle + 0.1)
        qvel[:, 6 * i + 1] = -speed * math.sin(angle + 0.1)
        qvel[:, 6 * i + 2] = -0.06 * i
    return {"qvel": qvel}


def measure_collision(mjm: mujoco.MjModel, trajectory: Trajectory) -> list[Quantity]:
    """Bodies that touch only each other keep momentum and angular momentum, and gain no energy.

    As fractions of the sum of the momenta's sizes, of the angular momentum and of the energy at
    the start.
    """
    kept = measures.invariants(mjm, trajectory)
    mass = mjm.body_mass[1:]
    speed = np.linalg.norm(trajectory.qvel[0, 0].reshape(-1, 6)[:, :3], axis=1)
    return [
        Quantity(
            "momentum, largest change",
            "",
            measures.largest_change(kept.momentum) / float(mass @ speed),
            headline=True,
        ),
        Quantity(
            "angular momentum, largest change",
            "",
            measures.largest_change(kept.angular_momentum)
            / float(np.linalg.norm(kept.angular_momentum[0])),
            headline=True,
        ),
        Quantity(
            "kinetic energy, largest gain", "", measures.largest_gain(kept.energy) / kept.energy[0]
        ),
    ]


LINKS, LINK = 5, 0.2  # number and length in m
CHAIN_ANGLE = 45  # degrees from hanging; beyond, whips make every timestep too long


def chain_xml() -> str:
    """Capsules hinged end to end, aslant in a straight line, no damping, nothing to touch."""
    places = [f'euler="0 {90 - CHAIN_ANGLE} 0"'] + [f'pos="{LINK} 0 0"'] * (LINKS - 1)
    opening = "".join(
        f'<body {place}><joint type="hinge" axis="0 1 0"/>'
        f'<geom type="capsule" size="0.02" fromto="0 0 0 {LINK} 0 0" contype="0" conaffinity="0"/>'
        for place in places
    )
    return mjcf(opening + "</body>" * LINKS)


def measure_chain(mjm: mujoco.MjModel, trajectory: Trajectory) -> list[Quantity]:
    """Energy is kept; its largest change is told as a fraction of what hanging down would free."""
    energy = measures.invariants(mjm, trajectory).energy
    depths = LINK * (np.arange(LINKS) + 0.5) * (1 - math.cos(math.radians(CHAIN_ANGLE)))
    free = GRAVITY * float(mjm.body_mass[1:] @ depths)
    return [
        Quantity(
            "energy, largest change", "", measures.largest_change(energy) / free, headline=True
        )
    ]


def tumbling_xml() -> str:
    body = '<body name="body"><freejoint/><geom type="box" size="0.05 0.1 0.15" mass="2"/></body>'
    return mjcf(body, gravity=0.0)


def tumbling_start(mjm: mujoco.MjModel, nworld: int) -> State:
    """About the middle axis, where turning is unstable, with a nudge."""
    return {"qvel": np.tile([0, 0, 0, 0.05, 5.0, 0.05], (nworld, 1))}


def measure_tumbling(mjm: mujoco.MjModel, trajectory: Trajectory) -> list[Quantity]:
    """A free body keeps its angular momentum, in the world's frame, and its energy (Euler)."""
    kept = measures.invariants(mjm, trajectory)
    momentum = kept.angular_momentum
    return [
        Quantity(
            "angular momentum, largest change",
            "",
            measures.largest_change(momentum) / float(np.linalg.norm(momentum[0])),
            headline=True,
        ),
        Quantity(
            "energy, largest change", "", measures.largest_change(kept.energy) / kept.energy[0]
        ),
    ]


DROP = 0.5  # m, from the lowest point of the ball
# The contact as a spring alone: acceleration -1e4/s^2 times depth, no damping, constant impedance.
_ELASTIC = 'solref="-10000 0" solimp="0.95 0.95 0.001"'


def bounce_xml() -> str:
    balls = "\n    ".join(
        f'<body name="{name}" pos="{i} 0 {RADIUS + DROP}"><freejoint/>'
        f'<geom size="{RADIUS}" mass="1" priority="1" {contact}/></body>'
        for i, (name, contact) in enumerate((("soft", ""), ("elastic", _ELASTIC)))
    )
    return mjcf(f'<geom type="plane" size="9 9 1"/>\n    {balls}')


def measure_bounce(mjm: mujoco.MjModel, trajectory: Trajectory) -> list[Quantity]:
    """A bouncing ball gains no energy; one on an undamped contact comes back to its height.

    comfree-paper does not know solref, and so not the undamped contact: its error there is that.
    """
    found = []
    for name in ("soft", "elastic"):
        height = measures.positions(mjm, trajectory, name)[:, 0, 2] - RADIUS
        speed = np.linalg.norm(measures.velocities(mjm, trajectory, name)[:, 0, :3], axis=1)
        energy = 0.5 * speed**2 + GRAVITY * height
        found += [
            Quantity(
                "energy, largest gain",
                "",
                measures.largest_gain(energy) / (GRAVITY * DROP),
                variant=name,
                headline=name == "soft",
            ),
            Quantity(
                "rebound over drop",
                "",
                measures.rebound(height),
                1.0 if name == "elastic" else None,
                name,
                headline=name == "elastic",
            ),
        ]
    return found


# ------------------------------------------------------------------------------------ constraints

LOSSES = {"holds": 15.0, "slips": 5.0}  # N, under a weight of 9.81 N
LIMIT_FALL = 0.2  # m


def constraints_xml() -> str:
    """Independent bodies, each on one constraint; nothing collides."""
    losses = "\n    ".join(
        f'<body pos="{4 + i} 0 0"><joint name="{name}" type="slide" axis="0 0 -1" '
        f'frictionloss="{loss}"/><geom size="0.05" mass="1"/></body>'
        for i, (name, loss) in enumerate(LOSSES.items())
    )
    worldbody = f"""<site name="hook"/>
    <body name="swinging"><freejoint/>
      <geom type="capsule" size="0.02" fromto="0 0 0 0.5 0 0" mass="1"/><site name="eye"/></body>
    <site name="wall" pos="1 0 0"/>
    <body name="bracket" pos="1 0 0"><freejoint/>
      <geom type="box" size="0.1 0.05 0.05" pos="0.1 0 0" mass="1"/><site name="root"/></body>
    <body pos="2 0 0"><joint name="slide" type="slide" axis="0 0 1" range="-{LIMIT_FALL} 1"
      limited="true"/><geom size="0.05" mass="1"/></body>
    <body pos="3 0 0"><joint name="hinge" axis="0 1 0" range="-180 45" limited="true"/>
      <geom type="capsule" size="0.02" fromto="0 0 0 0.3 0 0" mass="1"/></body>
    {losses}"""
    equality = """<equality>
    <connect site1="hook" site2="eye"/>
    <weld site1="wall" site2="root"/>
  </equality>"""
    return mjcf(worldbody, more=equality, default='<geom contype="0" conaffinity="0"/>')


def measure_constraints(mjm: mujoco.MjModel, trajectory: Trajectory) -> list[Quantity]:
    """Ideal joints do not part, limits do not give, and dry friction is Coulomb's.

    The connected bar swings from level, and the weld carries a bar of 1 kg by its end. Overshoot is
    the furthest beyond the limit after a free fall onto it, violation what is left in the last
    second. Friction loss F under a weight m g: at rest where F > m g, else g - F / m.
    """
    late = trajectory.since(trajectory.time[-1] - 1.0)
    connect = MM * measures.site_distance(mjm, trajectory, "hook", "eye")
    weld = MM * measures.site_distance(mjm, late, "wall", "root")
    quat = late.qpos[-1, 0, mjm.jnt_qposadr[mjm.body("bracket").jntadr[0]] + 3 :][:4]
    angle = 2 * math.degrees(math.atan2(np.linalg.norm(quat[1:]), abs(quat[0])))
    slide = -LIMIT_FALL - measures.joint_position(mjm, trajectory, "slide")
    hinge = np.degrees(measures.joint_position(mjm, trajectory, "hinge")) - 45
    settled = trajectory.time >= late.time[0]
    creep = measures.mean_velocity(late.time, measures.joint_position(mjm, late, "holds"))
    fall = measures.mean_acceleration(
        trajectory.time, measures.joint_position(mjm, trajectory, "slips")
    )
    return [
        Quantity("connect: largest gap, swinging", "mm", connect.max(), headline=True),
        Quantity("weld: gap under load", "mm", weld.mean(), headline=True),
        Quantity("weld: angle under load", "deg", angle),
        Quantity("slide limit: overshoot", "mm", MM * np.maximum(slide, 0).max(), headline=True),
        Quantity("slide limit: violation at rest", "mm", MM * np.maximum(slide, 0)[settled].mean()),
        Quantity("hinge limit: overshoot", "deg", np.maximum(hinge, 0).max()),
        Quantity("hinge limit: violation at rest", "deg", np.maximum(hinge, 0)[settled].mean()),
        Quantity("friction loss that holds: creep", "mm/s", MM * creep, headline=True),
        Quantity(
            "friction loss that slips: acceleration",
            "m/s^2",
            fall,
            GRAVITY - LOSSES["slips"],
            relative=True,
        ),
    ]


# ---------------------------------------------------------------------------------------- grasping

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
    place = partial(
        _in_hand, mjm, trajectory, hand=lambda mjd: (mjd.site_xpos[tcp], mjd.site_xmat[tcp])
    )
    closed, end = int(np.searchsorted(trajectory.time, CLOSED - 1e-9)), len(trajectory.time) - 1
    at_end = place(end)
    height = measures.positions(mjm, trajectory, "cube")[end, :, 2]
    held = (np.linalg.norm(at_end, axis=1) <= HELD) & (height > mjm.key_qpos[0][-5] + 0.05)
    slip = MM * np.linalg.norm(at_end - place(closed), axis=1)
    return _held_quantities(held, slip)


def measure_hand(mjm: mujoco.MjModel, trajectory: Trajectory) -> list[Quantity]:
    """A good hand loses no cube.

    Held: at the end the cube is HELD or less from where it was in the palm at the start.
    """
    palm = mjm.body("palm").id
    place = partial(_in_hand, mjm, trajectory, hand=lambda mjd: (mjd.xpos[palm], mjd.xmat[palm]))
    closed, end = int(np.searchsorted(trajectory.time, CLOSED - 1e-9)), len(trajectory.time) - 1
    at_end = place(end)
    held = np.linalg.norm(at_end - place(0), axis=1) <= HELD
    slip = MM * np.linalg.norm(at_end - place(closed), axis=1)
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


# -------------------------------------------------------------------------------------- the scenes

_COARSE_WARP = {"mjwarp": 0.002}

SCENES = (
    Scene(
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
    Scene(
        "stack of 10",
        "do ten boxes on top of each other stand for 10 s",
        partial(boxes_xml, column(10)),
        measure_boxes,
        duration=10.0,
        sample=0.1,
        nconmax=160,
        njmax=640,
        finest=_COARSE_WARP,
    ),
    Scene(
        "pyramid of 15",
        "do 15 boxes in five rows stand for 10 s",
        partial(boxes_xml, pyramid(5)),
        measure_boxes,
        duration=10.0,
        sample=0.1,
        nconmax=320,
        njmax=1280,
        finest=_COARSE_WARP,
    ),
    Scene(
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
    Scene(
        "arch",
        "does an arch of nine wedges stand for 5 s",
        arch_xml,
        partial(measure_boxes, depth=None),
        duration=5.0,
        sample=0.05,
        nconmax=192,
        njmax=768,
    ),
    Scene(
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
    Scene(
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
    *(
        Scene(
            f"sliding, {cone}",
            "does a sliding box stop where Coulomb says, in every direction",
            partial(sliding_xml, cone),
            measure_sliding,
            duration=2.0,
            sample=0.02,
            nconmax=32,
            njmax=128,
            nworld=len(DIRECTIONS),
            start=sliding_start,
            quick=cone == "pyramidal",
        )
        for cone in ("pyramidal", "elliptic")
    ),
    *(
        Scene(
            f"incline, {cone}",
            "does a box stick to a slope below the friction angle, and slide as it should above",
            partial(incline_xml, cone),
            measure_incline,
            duration=3.0,
            sample=0.02,
            nconmax=32,
            njmax=128,
            quick=cone == "pyramidal",
        )
        for cone in ("pyramidal", "elliptic")
    ),
    Scene(
        "spinning and rolling",
        "do torsional and rolling friction stop a sphere when they should",
        spinning_xml,
        measure_spinning,
        duration=2.5,
        sample=0.002,
        nconmax=16,
        njmax=96,
        start=spinning_start,
    ),
    Scene(
        "collision",
        "do bodies that hit each other keep their momentum",
        collision_xml,
        measure_collision,
        duration=1.5,
        sample=0.02,
        nconmax=96,
        njmax=384,
        start=collision_start,
        quick=True,
    ),
    Scene(
        "pendulum chain",
        "does a free chain keep its energy",
        chain_xml,
        measure_chain,
        duration=5.0,
        sample=0.02,
        nconmax=8,
        njmax=16,
        quick=True,
    ),
    Scene(
        "bouncing ball",
        "does a ball bounce without gaining energy",
        bounce_xml,
        measure_bounce,
        duration=1.2,
        sample=0.002,
        nconmax=8,
        njmax=32,
        quick=True,
    ),
    Scene(
        "tumbling body",
        "does a free body keep its angular momentum",
        tumbling_xml,
        measure_tumbling,
        duration=10.0,
        sample=0.02,
        nconmax=8,
        njmax=16,
        start=tumbling_start,
    ),
    Scene(
        "constraints",
        "do connect, weld, limits and friction loss hold",
        constraints_xml,
        measure_constraints,
        duration=5.0,
        sample=0.002,
        nconmax=8,
        njmax=64,
        quick=True,
    ),
    Scene(
        "mass ratios",
        "does a light box carry one of 1 to 1,000 times its mass",
        mass_ratio_xml,
        measure_mass_ratio,
        duration=5.0,
        sample=0.1,
        nconmax=64,
        njmax=256,
    ),
    Scene(
        "deep start",
        "does a body that starts in the floor come out without being thrown",
        deep_xml,
        measure_deep,
        duration=1.0,
        sample=0.002,
        nconmax=32,
        njmax=128,
    ),
    Scene(
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
    Scene(
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
BY_NAME = {scene.name: scene for scene in SCENES}
