"""The complementarity-free contact law as Warp kernels. README.md beside this file derives it.

One thread per constraint row, one pass over the Jacobian, no iteration:

    v_s = qvel + h * qacc_smooth
    u_i = J_i v_s
    a_i = -(k / h) * (h * u_i + phi_i) - (d / h) * u_i
    f_i = P_i(D_i * a_i)
    qfrc_constraint = J^T f,  qacc = M^-1 (qfrc_smooth + qfrc_constraint)

Source: arXiv 2603.12185 and arXiv 2408.07855 for the law, MuJoCo's "Computation" chapter for J,
phi, D and the friction cone.
"""

import dataclasses
import functools

import mujoco
import mujoco_warp
import warp as wp
from mujoco_warp import ConeType

from comfree_warp.types import Data, Model

# The dtype of `contact.friction`; MuJoCo Warp has no public name for it.
_vec5 = {f.name: f for f in dataclasses.fields(mujoco_warp.Contact)}["friction"].type.dtype

_CONTACT_TYPE_CONSTRAINT = wp.constant(1)  # mujoco_warp's ContactType.CONSTRAINT (not public)

_EQUALITY = wp.constant(int(mujoco.mjtConstraint.mjCNSTR_EQUALITY))
_FRICTION_DOF = wp.constant(int(mujoco.mjtConstraint.mjCNSTR_FRICTION_DOF))
_FRICTION_TENDON = wp.constant(int(mujoco.mjtConstraint.mjCNSTR_FRICTION_TENDON))
_CONTACT_ELLIPTIC = wp.constant(int(mujoco.mjtConstraint.mjCNSTR_CONTACT_ELLIPTIC))

_SATISFIED = wp.constant(int(mujoco.mjtConstraintState.mjCNSTRSTATE_SATISFIED))
_QUADRATIC = wp.constant(int(mujoco.mjtConstraintState.mjCNSTRSTATE_QUADRATIC))
_LINEARNEG = wp.constant(int(mujoco.mjtConstraintState.mjCNSTRSTATE_LINEARNEG))
_LINEARPOS = wp.constant(int(mujoco.mjtConstraintState.mjCNSTRSTATE_LINEARPOS))
_CONE = wp.constant(int(mujoco.mjtConstraintState.mjCNSTRSTATE_CONE))


@wp.func
def row_acceleration(k: float, d: float, h: float, u: float, phi: float) -> float:
    """Acceleration that the law asks of a row: spring on the predicted gap, damper on the speed."""
    return -(k / h) * (h * u + phi) - (d / h) * u


@wp.func
def project_row(row_type: int, frictionloss: float, force: float):
    """P_i of every row that stands alone: its force and its `mjtConstraintState`."""
    if row_type == _EQUALITY:
        return force, _QUADRATIC
    if row_type == _FRICTION_DOF or row_type == _FRICTION_TENDON:
        if force >= frictionloss:
            return frictionloss, _LINEARNEG
        if force <= -frictionloss:
            return -frictionloss, _LINEARPOS
        return force, _QUADRATIC
    if row_type == _CONTACT_ELLIPTIC:
        return force, _QUADRATIC  # project_cone has the last word, over the contact as a whole
    if force > 0.0:
        return force, _QUADRATIC
    return 0.0, _SATISFIED


@wp.kernel(enable_backward=False)
def predict_velocity(
    opt_timestep: wp.array[float],
    qvel_in: wp.array2d[float],
    qacc_smooth_in: wp.array2d[float],
    qvel_smooth_pred_out: wp.array2d[float],
    qfrc_constraint_out: wp.array2d[float],
):
    """v_s of every dof; also clears the sum that the rows are about to add to."""
    worldid, dofid = wp.tid()
    h = opt_timestep[worldid % opt_timestep.shape[0]]
    qvel_smooth_pred_out[worldid, dofid] = (
        qvel_in[worldid, dofid] + h * qacc_smooth_in[worldid, dofid]
    )
    qfrc_constraint_out[worldid, dofid] = 0.0


@functools.cache
def _row_force(is_sparse: bool) -> wp.Kernel:
    @wp.kernel(module="unique", enable_backward=False)
    def row_force(
        nv: int,
        njmax: int,
        opt_timestep: wp.array[float],
        stiffness: wp.array[float],
        damping: wp.array[float],
        nefc_in: wp.array[int],
        qacc_smooth_in: wp.array2d[float],
        efc_type_in: wp.array2d[int],
        efc_J_rownnz_in: wp.array2d[int],
        efc_J_rowadr_in: wp.array2d[int],
        efc_J_colind_in: wp.array3d[int],
        efc_J_in: wp.array3d[float],
        efc_pos_in: wp.array2d[float],
        efc_margin_in: wp.array2d[float],
        efc_D_in: wp.array2d[float],
        efc_vel_in: wp.array2d[float],
        efc_frictionloss_in: wp.array2d[float],
        efc_force_out: wp.array2d[float],
        efc_state_out: wp.array2d[int],
    ):
        """f_i of every row (of an elliptic contact: before its projection onto the cone)."""
        worldid, efcid = wp.tid()
        if efcid >= wp.min(nefc_in[worldid], njmax):
            return

        qacc_smooth = qacc_smooth_in[worldid]
        J_qacc = float(0.0)
        if wp.static(is_sparse):
            J, colind = efc_J_in[worldid, 0], efc_J_colind_in[worldid, 0]
            rowadr = efc_J_rowadr_in[worldid, efcid]
            for i in range(rowadr, rowadr + efc_J_rownnz_in[worldid, efcid]):
                J_qacc += J[i] * qacc_smooth[colind[i]]
        else:
            J = efc_J_in[worldid, efcid]
            for dofid in range(nv):
                J_qacc += J[dofid] * qacc_smooth[dofid]

        # J v_s in the form that keeps the surface velocity of a conveyor, which efc.vel includes.
        h = opt_timestep[worldid % opt_timestep.shape[0]]
        u = efc_vel_in[worldid, efcid] + h * J_qacc

        # 0 on friction rows: MuJoCo Warp gives those pos = margin.
        phi = efc_pos_in[worldid, efcid] - efc_margin_in[worldid, efcid]

        k = stiffness[worldid % stiffness.shape[0]]
        d = damping[worldid % damping.shape[0]]
        force, state = project_row(
            efc_type_in[worldid, efcid],
            efc_frictionloss_in[worldid, efcid],
            efc_D_in[worldid, efcid] * row_acceleration(k, d, h, u, phi),
        )
        efc_force_out[worldid, efcid] = force
        efc_state_out[worldid, efcid] = state

    return row_force


@wp.func
def cone_scale(normal: float, tangent: float, mu: float):
    """Project a contact force onto the elliptic friction cone, in the metric of R = 1 / D.

    With T = sqrt(sum((f_j / mu_j)^2)), the cone is f_n >= T. MuJoCo chooses R_j of the friction
    rows such that R_j mu_j^2 = R_n mu^2 with mu = mu_1 / sqrt(impratio); in the metric of R the
    problem is then a plane one, min (n - f_n)^2 + mu^2 (t - T)^2 over n >= t, with three zones
    (the ones of MuJoCo's elliptic cost).

    Args:
      normal: f_n before projection.
      tangent: T before projection, >= 0.
      mu: friction of the contact, regularised by impratio.

    Returns:
      The normal force, the factor on the friction forces, and the row state of the contact.
    """
    if normal >= tangent:
        return normal, 1.0, _QUADRATIC
    if normal + mu * mu * tangent <= 0.0:
        return 0.0, 0.0, _SATISFIED
    projected = (normal + mu * mu * tangent) / (1.0 + mu * mu)
    return projected, projected / tangent, _CONE


@wp.kernel(enable_backward=False)
def project_cone(
    opt_impratio_invsqrt: wp.array[float],
    naconmax: int,
    nacon_in: wp.array[int],
    contact_dim_in: wp.array[int],
    contact_type_in: wp.array[int],
    contact_friction_in: wp.array[_vec5],
    contact_efc_address_in: wp.array2d[int],
    contact_worldid_in: wp.array[int],
    efc_force_out: wp.array2d[float],
    efc_state_out: wp.array2d[int],
):
    """Replace the row forces of every elliptic contact by their projection onto its cone."""
    conid = wp.tid()
    if conid >= wp.min(nacon_in[0], naconmax):
        return
    dim = contact_dim_in[conid]
    if dim == 1 or not (contact_type_in[conid] & _CONTACT_TYPE_CONSTRAINT):
        return
    efcid0 = contact_efc_address_in[conid, 0]
    if efcid0 < 0:
        return

    worldid = contact_worldid_in[conid]
    friction = contact_friction_in[conid]

    tangent_sq = float(0.0)
    for j in range(1, dim):
        efcid = contact_efc_address_in[conid, j]
        if efcid >= 0:
            scaled = efc_force_out[worldid, efcid] / friction[j - 1]
            tangent_sq += scaled * scaled

    mu = friction[0] * opt_impratio_invsqrt[worldid % opt_impratio_invsqrt.shape[0]]
    normal, scale, state = cone_scale(efc_force_out[worldid, efcid0], wp.sqrt(tangent_sq), mu)

    efc_force_out[worldid, efcid0] = normal
    efc_state_out[worldid, efcid0] = state
    for j in range(1, dim):
        efcid = contact_efc_address_in[conid, j]
        if efcid >= 0:
            efc_force_out[worldid, efcid] *= scale
            efc_state_out[worldid, efcid] = state


@wp.kernel(enable_backward=False)
def add_rows_sparse(
    njmax: int,
    nefc_in: wp.array[int],
    efc_J_rownnz_in: wp.array2d[int],
    efc_J_rowadr_in: wp.array2d[int],
    efc_J_colind_in: wp.array3d[int],
    efc_J_in: wp.array3d[float],
    efc_force_in: wp.array2d[float],
    qfrc_constraint_out: wp.array2d[float],
):
    """qfrc_constraint += J_i^T f_i, a thread per row of a sparse Jacobian."""
    worldid, efcid = wp.tid()
    if efcid >= wp.min(nefc_in[worldid], njmax):
        return
    force = efc_force_in[worldid, efcid]
    if force == 0.0:
        return
    J, colind, qfrc = (
        efc_J_in[worldid, 0],
        efc_J_colind_in[worldid, 0],
        qfrc_constraint_out[worldid],
    )
    rowadr = efc_J_rowadr_in[worldid, efcid]
    for i in range(rowadr, rowadr + efc_J_rownnz_in[worldid, efcid]):
        wp.atomic_add(qfrc, colind[i], J[i] * force)


@wp.kernel(enable_backward=False)
def add_rows_dense(
    njmax: int,
    nefc_in: wp.array[int],
    efc_J_in: wp.array3d[float],
    efc_force_in: wp.array2d[float],
    qfrc_constraint_out: wp.array2d[float],
):
    """qfrc_constraint = J^T f, a thread per dof of a dense Jacobian."""
    worldid, dofid = wp.tid()
    J, force = efc_J_in[worldid], efc_force_in[worldid]
    qfrc = float(0.0)
    for efcid in range(wp.min(nefc_in[worldid], njmax)):
        qfrc += J[efcid, dofid] * force[efcid]
    qfrc_constraint_out[worldid, dofid] = qfrc


@wp.kernel(enable_backward=False)
def total_force(
    qfrc_smooth_in: wp.array2d[float],
    qfrc_constraint_in: wp.array2d[float],
    qfrc_total_out: wp.array2d[float],
):
    """qfrc_total = qfrc_smooth + qfrc_constraint."""
    worldid, dofid = wp.tid()
    qfrc_total_out[worldid, dofid] = (
        qfrc_smooth_in[worldid, dofid] + qfrc_constraint_in[worldid, dofid]
    )


def _force_rows(m: Model, d: Data) -> None:
    wp.launch(
        _row_force(m.is_sparse),
        dim=(d.nworld, d.njmax),
        inputs=[
            m.nv,
            d.njmax,
            m.opt.timestep,
            m.comfree_stiffness,
            m.comfree_damping,
            d.nefc,
            d.qacc_smooth,
            d.efc.type,
            d.efc.J_rownnz,
            d.efc.J_rowadr,
            d.efc.J_colind,
            d.efc.J,
            d.efc.pos,
            d.efc.margin,
            d.efc.D,
            d.efc.vel,
            d.efc.frictionloss,
        ],
        outputs=[d.efc.force, d.efc.state],
    )
    if m.opt.cone == ConeType.ELLIPTIC:
        wp.launch(
            project_cone,
            dim=d.naconmax,
            inputs=[
                m.opt.impratio_invsqrt,
                d.naconmax,
                d.nacon,
                d.contact.dim,
                d.contact.type,
                d.contact.friction,
                d.contact.efc_address,
                d.contact.worldid,
            ],
            outputs=[d.efc.force, d.efc.state],
        )


def _add_rows(m: Model, d: Data) -> None:
    if m.is_sparse:
        pattern = [d.efc.J_rownnz, d.efc.J_rowadr, d.efc.J_colind]
        wp.launch(
            add_rows_sparse,
            dim=(d.nworld, d.njmax),
            inputs=[d.njmax, d.nefc, *pattern, d.efc.J, d.efc.force],
            outputs=[d.qfrc_constraint],
        )
    elif d.njmax:
        wp.launch(
            add_rows_dense,
            dim=(d.nworld, m.nv),
            inputs=[d.njmax, d.nefc, d.efc.J, d.efc.force],
            outputs=[d.qfrc_constraint],
        )


def constraint_forces(m: Model, d: Data) -> None:
    """Closed-form constraint forces and the acceleration that they lead to.

    Reads `qvel`, `qacc_smooth`, `qfrc_smooth` (nworld, nv), the factor of M and the rows of
    `make_constraint` (`efc`, `contact`, `nefc`); writes `efc.force` and `efc.state`
    (nworld, njmax), `qvel_smooth_pred`, `qfrc_constraint`, `qfrc_total` (= `efc.Ma`) and `qacc`
    (nworld, nv). Takes the place of `mujoco_warp.solve`; the solver options have no meaning here.
    """
    dofs = (d.nworld, m.nv)
    wp.launch(
        predict_velocity,
        dim=dofs,
        inputs=[m.opt.timestep, d.qvel, d.qacc_smooth],
        outputs=[d.qvel_smooth_pred, d.qfrc_constraint],
    )
    _force_rows(m, d)
    _add_rows(m, d)
    wp.launch(
        total_force, dim=dofs, inputs=[d.qfrc_smooth, d.qfrc_constraint], outputs=[d.qfrc_total]
    )
    mujoco_warp.solve_m(m, d, d.qacc, d.qfrc_total)
