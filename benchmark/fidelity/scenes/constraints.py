"""Equalities, limits and friction loss of joints."""

import math

import mujoco
import numpy as np

from benchmark.fidelity import measures
from benchmark.fidelity.measures import Quantity, Trajectory
from benchmark.fidelity.scenes.scene import GRAVITY, MM, FidelityScene, mjcf

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


SCENES = (
    FidelityScene(
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
)
