"""Float64 reference of the complementarity-free contact law, in NumPy on MuJoCo C's own rows.

Written from the equations alone, to be compared with the engine. The law is the one of
ComFree-Sim (arXiv 2603.12185), on the contact model of arXiv 2408.07855; rows, constraint masses
and friction cones are those of the chapter "Computation" of MuJoCo's documentation. Units are SI
along each row: metres and newtons, or radians and newton metres where the row is an angle.
"""

import copy
from dataclasses import dataclass

import mujoco
import numpy as np

_TYPE = mujoco.mjtConstraint


@dataclass(frozen=True)
class Cone:
    """One elliptic contact of condim > 1: f_n >= sqrt(sum_j (f_j / mu_j)^2).

    Source: MuJoCo "Computation", "Friction cones".

    Attributes:
        rows: (condim,) int, the contact's rows in efc order, the normal first.
        friction: (condim - 1,) mu_j, one per row after the normal: two for sliding (no unit), then
            torsion and two for rolling (metres).
        mu: friction[0] / sqrt(impratio), the friction of MuJoCo's regularised cone (no unit).
    """

    rows: np.ndarray
    friction: np.ndarray
    mu: float


@dataclass(frozen=True)
class Rows:
    """The constraint rows at one state, as the law reads them.

    Attributes:
        J: (nefc, nv) Jacobian, dense.
        D: (nefc,) constraint mass imp / (1 - imp) / invweight, MuJoCo's efc_D (kg or kg m^2).
        phi: (nefc,) signed distance efc_pos - efc_margin, negative in violation (m or rad); zero
            on friction-loss rows and on the rows of an elliptic contact after the normal.
        vel: (nefc,) J qvel plus the surface velocity of conveyor geoms (m/s or rad/s).
        type: (nefc,) int, mjtConstraint.
        frictionloss: (nefc,) bound on |f| of friction-loss rows, zero elsewhere (N or N m).
        cones: the elliptic contacts of condim > 1.
    """

    J: np.ndarray
    D: np.ndarray
    phi: np.ndarray
    vel: np.ndarray
    type: np.ndarray
    frictionloss: np.ndarray
    cones: tuple[Cone, ...]


@dataclass(frozen=True)
class Result:
    """What the law gives at one state.

    Attributes:
        rows: the constraint rows.
        forces: (nefc,) f (N or N m).
        qfrc_constraint: (nv,) J^T f (N or N m).
        qacc: (nv,) acceleration with the constraint forces (m/s^2 or rad/s^2).
        qvel_smooth_pred: (nv,) v_s = v + h qacc_smooth (m/s or rad/s).
    """

    rows: Rows
    forces: np.ndarray
    qfrc_constraint: np.ndarray
    qacc: np.ndarray
    qvel_smooth_pred: np.ndarray


def rows_from_mujoco(mjm: mujoco.MjModel, mjd: mujoco.MjData) -> Rows:
    """Copy the rows of MuJoCo C, dense or sparse, after mj_forward.

    Source: the efc_* arrays and mjContact; MuJoCo "Computation", "Constraint model".
    """
    J = np.zeros((mjd.nefc, mjm.nv))
    if mujoco.mj_isSparse(mjm):
        for row, (start, count) in enumerate(zip(mjd.efc_J_rowadr, mjd.efc_J_rownnz, strict=True)):
            entries = slice(start, start + count)
            J[row, mjd.efc_J_colind[entries]] = mjd.efc_J[entries]
    else:
        J[:] = mjd.efc_J.reshape(J.shape)

    cones = tuple(
        Cone(
            rows=np.arange(contact.efc_address, contact.efc_address + contact.dim),
            friction=contact.friction[: contact.dim - 1].copy(),
            mu=contact.mu,
        )
        for contact in mjd.contact
        if contact.efc_address >= 0
        and mjd.efc_type[contact.efc_address] == _TYPE.mjCNSTR_CONTACT_ELLIPTIC
    )
    phi = mjd.efc_pos - mjd.efc_margin
    phi[_is_friction_loss(mjd.efc_type)] = 0
    for cone in cones:
        phi[cone.rows[1:]] = 0

    return Rows(
        J=J,
        D=mjd.efc_D.copy(),
        phi=phi,
        vel=mjd.efc_vel.copy(),
        type=mjd.efc_type.copy(),
        frictionloss=mjd.efc_frictionloss.copy(),
        cones=cones,
    )


def row_forces(
    rows: Rows, qacc_smooth: np.ndarray, timestep: float, stiffness: float, damping: float
) -> np.ndarray:
    """Return the constraint forces f = P(D a), shape (nefc,), in N or N m.

    With h the timestep, k the stiffness and d the damping (no units):

        u = vel + h J qacc_smooth            predicted speed along the row
        a = -(k / h) (h u + phi) - (d / h) u

    P keeps equality rows, clamps friction loss to +-frictionloss, projects the force of an
    elliptic contact onto its cone, and clamps every other row at zero from below. Source: arXiv
    2603.12185 (law), arXiv 2408.07855 (model), MuJoCo "Computation" (what a row may exert).

    Args:
        rows: the constraint rows.
        qacc_smooth: (nv,) acceleration without constraint forces (m/s^2 or rad/s^2).
        timestep: h, in seconds.
        stiffness: k.
        damping: d.
    """
    u = rows.vel + timestep * rows.J @ qacc_smooth
    a = -(stiffness / timestep) * (timestep * u + rows.phi) - (damping / timestep) * u
    raw = rows.D * a

    force = np.maximum(raw, 0)
    equality = rows.type == _TYPE.mjCNSTR_EQUALITY
    force[equality] = raw[equality]
    loss = _is_friction_loss(rows.type)
    force[loss] = np.clip(raw[loss], -rows.frictionloss[loss], rows.frictionloss[loss])
    for cone in rows.cones:
        force[cone.rows] = _project(raw[cone.rows], 1 / rows.D[cone.rows], cone.friction)
    return force


def acceleration(
    M: np.ndarray, qfrc_smooth: np.ndarray, rows: Rows, forces: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return qfrc_constraint = J^T f and qacc = M^-1 (qfrc_smooth + J^T f), both of shape (nv,).

    Source: MuJoCo "Computation", equation of motion.

    Args:
        M: (nv, nv) mass matrix.
        qfrc_smooth: (nv,) every force but the constraints' (N or N m).
        rows: the constraint rows.
        forces: (nefc,) constraint forces (N or N m).
    """
    qfrc_constraint = rows.J.T @ forces
    return qfrc_constraint, np.linalg.solve(M, qfrc_smooth + qfrc_constraint)


def full_mass_matrix(mjm: mujoco.MjModel, mjd: mujoco.MjData) -> np.ndarray:
    """Return the mass matrix M, dense (nv, nv), in kg, kg m and kg m^2."""
    M = np.zeros((mjm.nv, mjm.nv))
    mujoco.mj_fullM(mjm, mjd, M)
    return M


def step_reference(
    mjm: mujoco.MjModel, mjd: mujoco.MjData, stiffness: float, damping: float
) -> Result:
    """Apply the law at the state and controls of mjd, which is left as it is.

    The acceleration is the one before the integrator's own terms. MuJoCo 4's "discrete" integrator
    redefines efc_D and qacc_smooth, and contact adhesion biases MuJoCo's reference acceleration:
    the law covers neither.
    """
    mjd = copy.copy(mjd)
    mujoco.mj_forward(mjm, mjd)
    rows = rows_from_mujoco(mjm, mjd)
    h = mjm.opt.timestep
    forces = row_forces(rows, mjd.qacc_smooth, h, stiffness, damping)
    M = full_mass_matrix(mjm, mjd)
    qfrc_constraint, qacc = acceleration(M, mjd.qfrc_smooth, rows, forces)
    return Result(rows, forces, qfrc_constraint, qacc, mjd.qvel + h * mjd.qacc_smooth)


def _is_friction_loss(row_type: np.ndarray) -> np.ndarray:
    return np.isin(row_type, [_TYPE.mjCNSTR_FRICTION_DOF, _TYPE.mjCNSTR_FRICTION_TENDON])


def _project(force: np.ndarray, R: np.ndarray, friction: np.ndarray) -> np.ndarray:
    """Project a contact's force onto its elliptic cone: argmin of sum_i R_i (f_i - force_i)^2.

    With g_j = f_j / mu_j the cone is circular, f_n >= |g|, and the cost is
    R_n (f_n - n)^2 + sum_j w_j (g_j - g0_j)^2, w_j = R_j mu_j^2. MuJoCo makes every w_j the same,
    w = R_n mu^2 (mu: see Cone), so the nearest g is parallel to g0, and n and t = |g0| alone are
    left. Outside the cone the nearest point is on the boundary f_n = |g| = s, where the cost is
    least at s = (R_n n + w t) / (R_n + w), or at the apex if that is negative.
    """
    weights = R[1:] * friction**2
    w = weights.mean()
    if not np.allclose(weights, w, rtol=1e-4, atol=0):
        raise ValueError("the closed form needs R_j mu_j^2 to be the same on every friction row")
    n = force[0]
    t = np.linalg.norm(force[1:] / friction)
    if t <= n:
        return force
    s = (R[0] * n + w * t) / (R[0] + w)
    return np.concatenate([[s], force[1:] * s / t]) if s > 0 else np.zeros_like(force)
