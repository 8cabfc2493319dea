"""Constraint rows that have a Jacobian: a thread per row for J v and the force, then J^T f.

Equality, limit and friction-loss rows, from `mujoco_warp.make_constraint`; where `has_contact_rows`
the contacts too. All other contacts are in contacts.py.
"""

import functools

import warp as wp
from mujoco_warp import ConeType

from comfree_warp.paper.law import cone_scale, row_acceleration
from comfree_warp.shared.fixed_point import add_to, is_deterministic, to_fixed
from comfree_warp.shared.rows import has_contact_rows, max_rows, project_row
from comfree_warp.shared.threads import index, launch, nthread_for
from comfree_warp.types import CONTACT_TYPE_CONSTRAINT, Data, Model, vec5


@functools.cache
def _row_force(is_sparse: bool) -> wp.Kernel:
    @wp.kernel(module="unique", enable_backward=False)
    def row_force(
        nv: int,
        njmax: int,
        nthread: int,
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
        worldid, first = wp.tid()
        item, nrow = wp.int32(first), wp.min(nefc_in[worldid], njmax)
        while item < nrow:
            efcid = index(item)
            item += nthread
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

            # J v_s in the form that keeps a conveyor's surface velocity, which efc.vel includes.
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


@wp.kernel(enable_backward=False)
def project_cone(
    opt_impratio_invsqrt: wp.array[float],
    naconmax: int,
    nthread: int,
    nacon_in: wp.array[int],
    contact_dim_in: wp.array[int],
    contact_type_in: wp.array[int],
    contact_friction_in: wp.array[vec5],
    contact_efc_address_in: wp.array2d[int],
    contact_worldid_in: wp.array[int],
    efc_force_out: wp.array2d[float],
    efc_state_out: wp.array2d[int],
):
    """Replace the row forces of every elliptic contact by their projection onto its cone."""
    item, ncon = wp.int32(wp.tid()), wp.min(nacon_in[0], naconmax)
    while item < ncon:
        conid = index(item)
        item += nthread
        dim = contact_dim_in[conid]
        if dim == 1 or not (contact_type_in[conid] & CONTACT_TYPE_CONSTRAINT):
            continue
        efcid0 = contact_efc_address_in[conid, 0]
        if efcid0 < 0:
            continue

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


@functools.cache
def _add_rows(is_sparse: bool, deterministic: bool) -> wp.Kernel:
    """J^T f: a thread per row of a sparse Jacobian, a thread per dof of a dense one."""

    @wp.kernel(module="unique", enable_backward=False)
    def add_rows_sparse(
        njmax: int,
        nefc_in: wp.array[int],
        nthread: int,
        efc_J_rownnz_in: wp.array2d[int],
        efc_J_rowadr_in: wp.array2d[int],
        efc_J_colind_in: wp.array3d[int],
        efc_J_in: wp.array3d[float],
        efc_force_in: wp.array2d[float],
        qfrc_constraint_out: wp.array2d[float],
        qfrc_fixed_out: wp.array2d[wp.int64],
    ):
        worldid, first = wp.tid()
        item, nrow = wp.int32(first), wp.min(nefc_in[worldid], njmax)
        while item < nrow:
            efcid = index(item)
            item += nthread
            force = efc_force_in[worldid, efcid]
            if force == 0.0:
                continue
            J, colind = efc_J_in[worldid, 0], efc_J_colind_in[worldid, 0]
            qfrc, fixed = qfrc_constraint_out[worldid], qfrc_fixed_out[worldid]
            rowadr = efc_J_rowadr_in[worldid, efcid]
            for i in range(rowadr, rowadr + efc_J_rownnz_in[worldid, efcid]):
                add_to(J[i] * force, colind[i], wp.static(deterministic), qfrc, fixed)

    @wp.kernel(module="unique", enable_backward=False)
    def add_rows_dense(
        njmax: int,
        nefc_in: wp.array[int],
        nthread: int,
        nv: int,
        efc_J_in: wp.array3d[float],
        efc_force_in: wp.array2d[float],
        qfrc_constraint_out: wp.array2d[float],
        qfrc_fixed_out: wp.array2d[wp.int64],
    ):
        worldid, first = wp.tid()
        J, force = efc_J_in[worldid], efc_force_in[worldid]
        item = wp.int32(first)
        while item < nv:
            dofid = index(item)
            item += nthread
            qfrc, fixed = float(0.0), wp.int64(0)
            for efcid in range(wp.min(nefc_in[worldid], njmax)):
                if wp.static(deterministic):
                    fixed += to_fixed(J[efcid, dofid] * force[efcid])
                else:
                    qfrc += J[efcid, dofid] * force[efcid]
            if wp.static(deterministic):
                qfrc_fixed_out[worldid, dofid] = fixed
            else:
                qfrc_constraint_out[worldid, dofid] = qfrc

    return add_rows_sparse if is_sparse else add_rows_dense


def force_rows(m: Model, d: Data) -> None:
    """`efc.force` and `efc.state` of all rows that there are so far."""
    nthread = nthread_for(d, max_rows(m, d))
    launch(
        _row_force(m.is_sparse),
        dim=(d.nworld, nthread),
        inputs=[
            m.nv,
            d.njmax,
            nthread,
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
    if has_contact_rows(m) and m.opt.cone == ConeType.ELLIPTIC:
        nthread = nthread_for(d, d.naconmax)
        launch(
            project_cone,
            dim=nthread,
            inputs=[
                m.opt.impratio_invsqrt,
                d.naconmax,
                nthread,
                d.nacon,
                d.contact.dim,
                d.contact.type,
                d.contact.friction,
                d.contact.efc_address,
                d.contact.worldid,
            ],
            outputs=[d.efc.force, d.efc.state],
        )


def add_rows(m: Model, d: Data) -> None:
    """`qfrc_constraint` += J^T f of the same rows."""
    if m.is_sparse:
        nthread = nthread_for(d, max_rows(m, d))
        layout = [nthread, d.efc.J_rownnz, d.efc.J_rowadr, d.efc.J_colind]
    else:
        nthread = nthread_for(d, m.nv)
        layout = [nthread, m.nv]
    launch(
        _add_rows(bool(m.is_sparse), is_deterministic(m)),
        dim=(d.nworld, nthread),
        inputs=[d.njmax, d.nefc, *layout, d.efc.J, d.efc.force],
        outputs=[d.qfrc_constraint, d.qfrc_fixed],
    )
