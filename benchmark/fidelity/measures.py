"""What a recorded motion is measured with: pure functions over trajectories.

The ruler is the same for every engine: MuJoCo C's kinematics, collision and energies, in float64,
on the qpos and qvel that the engine gave.
"""

import dataclasses
import itertools
from collections.abc import Callable

import mujoco
import numpy as np

from mjsim.model.arena import with_ample_arena

EXACT = "exact"  # a formula, or the ideal of rigid bodies
NEWTON = "MuJoCo C, Newton, a tenth of the timestep"


@dataclasses.dataclass(frozen=True)
class Trajectory:
    """States of every world at the sampled times. Frame 0 is the start.

    Frames that were not reached are NaN.

    Attributes:
      time: (nframe,) s.
      qpos: (nframe, nworld, nq).
      qvel: (nframe, nworld, nv).
    """

    time: np.ndarray
    qpos: np.ndarray
    qvel: np.ndarray

    def since(self, time: float) -> "Trajectory":
        """The frames from that time on."""
        return self.between(time, np.inf)

    def between(self, first: float, last: float) -> "Trajectory":
        """The frames from one time to another, both included."""
        kept = (self.time >= first - 1e-9) & (self.time <= last + 1e-9)
        return Trajectory(self.time[kept], self.qpos[kept], self.qvel[kept])


@dataclasses.dataclass(frozen=True)
class Quantity:
    """One number about a run, and what it should be.

    Attributes:
      name: what is measured.
      unit: of value and reference; empty for ratios and fractions.
      value: NaN where the run gave none.
      reference: what it should be; None: the same quantity of the NEWTON run.
      variant: which of several bodies or starts, e.g. "mu=0.4 direction=45".
      relative: the error is |value / reference - 1| instead of |value - reference|.
      headline: the scene's ranking goes by this one.
    """

    name: str
    unit: str
    value: float
    reference: float | None = 0.0
    variant: str = ""
    relative: bool = False
    headline: bool = False

    def error(self, reference: float) -> float:
        """Distance from the reference: absolute in the unit, or relative."""
        if self.relative:
            return abs(self.value / reference - 1)
        return abs(self.value - reference)


# ------------------------------------------------------------------------------------ the ruler


def measure_states(
    mjm: mujoco.MjModel,
    qpos: np.ndarray,
    qvel: np.ndarray,
    quantity: Callable[[mujoco.MjModel, mujoco.MjData], object],
) -> list[np.ndarray]:
    """What `quantity` finds in each state, positions and velocities evaluated by MuJoCo C.

    Args:
      mjm: the model.
      qpos: (n, nq).
      qvel: (n, nv).
      quantity: called with the model and its evaluated data.

    Returns:
      n arrays; those of states that are not finite hold one NaN.
    """
    mjm = with_ample_arena(mjm)
    mjd = mujoco.MjData(mjm)
    found = []
    for position, velocity in zip(qpos, qvel, strict=True):
        if not (np.isfinite(position).all() and np.isfinite(velocity).all()):
            found.append(np.array([np.nan]))
            continue
        mjd.qpos[:], mjd.qvel[:] = position, velocity
        mujoco.mj_fwdPosition(mjm, mjd)
        mujoco.mj_fwdVelocity(mjm, mjd)
        found.append(np.array(quantity(mjm, mjd), dtype=np.float64))
    return found


def _rectangle(values: list[np.ndarray]) -> np.ndarray:
    """Stack arrays of one shape, but for the single NaN of states that are not finite."""
    shape = max((value.shape for value in values), key=np.prod)
    return np.array([np.broadcast_to(value, shape) for value in values])


def _contact_depths(mjm: mujoco.MjModel, mjd: mujoco.MjData) -> np.ndarray:
    return np.maximum(0.0, [-contact.dist for contact in mjd.contact])


def penetrations(mjm: mujoco.MjModel, trajectory: Trajectory, world: int = 0) -> np.ndarray:
    """Depths of all contacts in all frames, m; NaN where a frame is, and if nothing touched."""
    frames = measure_states(
        mjm, trajectory.qpos[:, world], trajectory.qvel[:, world], _contact_depths
    )
    depths = np.concatenate(frames)
    return depths if depths.size else np.array([np.nan])


@dataclasses.dataclass(frozen=True)
class Invariants:
    """What a closed system keeps, frame by frame, about its centre of mass.

    Attributes:
      energy: (nframe,) kinetic and potential, without what contacts store, J.
      momentum: (nframe, 3) kg m/s.
      angular_momentum: (nframe, 3) about the centre of mass, kg m^2/s.
    """

    energy: np.ndarray
    momentum: np.ndarray
    angular_momentum: np.ndarray


def _seven_invariants(mjm: mujoco.MjModel, mjd: mujoco.MjData) -> np.ndarray:
    mujoco.mj_energyPos(mjm, mjd)
    mujoco.mj_energyVel(mjm, mjd)
    mujoco.mj_subtreeVel(mjm, mjd)
    mass = mjm.body_subtreemass[0]
    return np.concatenate([[mjd.energy.sum()], mass * mjd.subtree_linvel[0], mjd.subtree_angmom[0]])


def invariants(mjm: mujoco.MjModel, trajectory: Trajectory, world: int = 0) -> Invariants:
    """Energy, momentum and angular momentum of all bodies together."""
    values = _rectangle(
        measure_states(mjm, trajectory.qpos[:, world], trajectory.qvel[:, world], _seven_invariants)
    )
    return Invariants(values[:, 0], values[:, 1:4], values[:, 4:])


def site_distance(
    mjm: mujoco.MjModel, trajectory: Trajectory, one: str, other: str, world: int = 0
) -> np.ndarray:
    """Distance between two sites in every frame, (nframe,) m."""
    a, b = mjm.site(one).id, mjm.site(other).id
    values = measure_states(
        mjm,
        trajectory.qpos[:, world],
        trajectory.qvel[:, world],
        lambda mjm, mjd: [np.linalg.norm(mjd.site_xpos[a] - mjd.site_xpos[b])],
    )
    return _rectangle(values)[:, 0]


# ------------------------------------------------------------------------- bodies, joints, curves


def free_bodies(mjm: mujoco.MjModel) -> list[str]:
    """The names of the bodies that have a free joint."""
    free = mjm.jnt_bodyid[mjm.jnt_type == mujoco.mjtJoint.mjJNT_FREE]
    return [mjm.body(body).name for body in free]


def positions(mjm: mujoco.MjModel, trajectory: Trajectory, body: str) -> np.ndarray:
    """Of a free body, (nframe, nworld, 3) m."""
    start = mjm.jnt_qposadr[mjm.body(body).jntadr[0]]
    return trajectory.qpos[:, :, start : start + 3]


def velocities(mjm: mujoco.MjModel, trajectory: Trajectory, body: str) -> np.ndarray:
    """Of a free body, (nframe, nworld, 6): m/s, then rad/s in its own frame."""
    start = mjm.jnt_dofadr[mjm.body(body).jntadr[0]]
    return trajectory.qvel[:, :, start : start + 6]


def joint_position(mjm: mujoco.MjModel, trajectory: Trajectory, joint: str) -> np.ndarray:
    """Of a hinge or slide in world 0, (nframe,) rad or m."""
    return trajectory.qpos[:, 0, mjm.joint(joint).qposadr[0]]


def distance_travelled(path: np.ndarray) -> float:
    """From the first to the last of (nframe, 3) positions, in the plane, m."""
    return float(np.linalg.norm(path[-1, :2] - path[0, :2]))


def mean_velocity(time: np.ndarray, position: np.ndarray) -> float:
    """Slope between the ends of a curve: per second."""
    return float((position[-1] - position[0]) / (time[-1] - time[0]))


def mean_acceleration(time: np.ndarray, position: np.ndarray) -> float:
    """Of the parabola that fits a curve best: per second squared."""
    if not np.isfinite(position).all():
        return np.nan
    return float(2 * np.polyfit(time - time[0], position, 2)[0])


def stopping_time(time: np.ndarray, speed: np.ndarray, settled: float = 0.0) -> float:
    """When a speed that falls uniformly reaches zero, s; inf if it does not fall.

    The rate is that from `settled` to when half the speed of then is lost, since laws that creep
    never quite stop; to the end of the curve, if that comes first.
    """
    first = int(np.searchsorted(time, settled - 1e-9))
    below = np.flatnonzero(speed[first:] <= 0.5 * speed[first])
    last = first + below[0] if below.size else len(speed) - 1
    lost = speed[first] - speed[last]
    if np.isnan(lost):
        return np.nan
    return float(speed[0] * (time[last] - time[first]) / lost) if lost > 0 else np.inf


def largest_change(values: np.ndarray) -> float:
    """Largest distance from the first of (nframe, ...) values."""
    changes = (values - values[0]).reshape(len(values), -1)
    return float(np.linalg.norm(changes, axis=1).max())


def largest_gain(values: np.ndarray) -> float:
    """By how much (nframe,) values exceed the first, at most; 0 if they never do."""
    return float((values - values[0]).max())


def rebound(height: np.ndarray) -> float:
    """Height after the first bounce over the height before, both above height 0.

    The bounce is the lowest point before the height first rises again.
    """
    if not np.isfinite(height).all():
        return np.nan
    rising = np.flatnonzero(np.diff(height) > 0)
    if not rising.size:
        return 0.0
    return float(max(0.0, height[rising[0] :].max()) / height[0])


def is_falling(values: list[float]) -> bool:
    """Every value is smaller than the one before."""
    return all(later < earlier for earlier, later in itertools.pairwise(values))
