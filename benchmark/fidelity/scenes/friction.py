"""Coulomb friction, torsional and rolling friction: when bodies stick, slide and stop."""

import math
from functools import partial

import mujoco
import numpy as np

from benchmark.fidelity import measures
from benchmark.fidelity.measures import Quantity, Trajectory
from benchmark.fidelity.scenes.scene import GRAVITY, MM, FidelityScene, State, mjcf

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


SCENES = (
    *(
        FidelityScene(
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
        FidelityScene(
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
    FidelityScene(
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
)
