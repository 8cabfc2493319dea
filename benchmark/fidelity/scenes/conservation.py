"""What bodies keep: momentum, angular momentum and energy."""

import math

import mujoco
import numpy as np

from benchmark.fidelity import measures
from benchmark.fidelity.measures import Quantity, Trajectory
from benchmark.fidelity.scenes.scene import GRAVITY, FidelityScene, State, mjcf


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
    frames = [f'euler="0 {90 - CHAIN_ANGLE} 0"'] + [f'pos="{LINK} 0 0"'] * (LINKS - 1)
    opening = "".join(
        f'<body {frame}><joint type="hinge" axis="0 1 0"/>'
        f'<geom type="capsule" size="0.02" fromto="0 0 0 {LINK} 0 0" contype="0" conaffinity="0"/>'
        for frame in frames
    )
    return mjcf(opening + "</body>" * LINKS)


def measure_chain(mjm: mujoco.MjModel, trajectory: Trajectory) -> list[Quantity]:
    """Energy is kept; its largest change is measured in units of what hanging down would free."""
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


RADIUS = 0.1  # of a ball, m
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


SCENES = (
    FidelityScene(
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
    FidelityScene(
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
    FidelityScene(
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
    FidelityScene(
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
)
