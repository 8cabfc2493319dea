"""Contacts that have a Jacobian (rows.py tells which), under the warm law: as contacts.py.

MuJoCo Warp made their rows, with the model's cone. What the law needs of them are the motions along
the normal and the tangents: the rows themselves on an elliptic contact; on a pyramidal one, whose
rows are J_n +- mu_i J_i, half the sum and half the difference of a pair.
"""

import functools

import warp as wp
from mujoco_warp import ConeType

from comfree_warp.shared.contacts import impedance
from comfree_warp.shared.fixed_point import add_to, is_deterministic
from comfree_warp.shared.threads import index, launch, nthread_for
from comfree_warp.types import Data, Model, vec5, vec6
from comfree_warp.warm.contacts import finish as finish
from comfree_warp.warm.jacobian import Jacobian, column_dof, entry, jacobian, ncolumn
from comfree_warp.warm.law import contact_demand, into_cone, nearest_friction, reciprocals
from comfree_warp.warm.memory import inherit
from comfree_warp.warm.stacks.body import CONJUGATE, WORK, add_sum, tree_beta
from comfree_warp.warm.stages import CONJUGATE_STEP, FRICTION, PROPOSAL


@wp.func
def _unfold(elliptic: bool, values: vec6, other: vec6, condim: int, invfriction: vec5) -> vec6:
    """Along normal and tangents, from what the rows, or both rows of every pair, have."""
    if elliptic or condim == 1:
        return values
    along = vec6()
    along[0] = 0.5 * (values[1] + other[1])
    for i in range(1, condim):
        along[i] = 0.5 * (values[i] - other[i]) * invfriction[i - 1]
    return along


@wp.func
def _column(
    jac: Jacobian,
    address: wp.array[int],
    elliptic: bool,
    worldid: int,
    column: int,
    condim: int,
    invfriction: vec5,
) -> vec6:
    """What a dof does along the normal and the tangents of the contact with rows at `address`."""
    values, other = vec6(), vec6()
    if elliptic or condim == 1:
        for i in range(condim):
            values[i] = entry(jac, worldid, address[i], column)
    else:
        for i in range(1, condim):
            values[i] = entry(jac, worldid, address[2 * i - 2], column)
            other[i] = entry(jac, worldid, address[2 * i - 1], column)
    return _unfold(elliptic, values, other, condim, invfriction)


@wp.func
def _add_force(
    force: vec6,
    jac: Jacobian,
    address: wp.array[int],
    elliptic: bool,
    worldid: int,
    condim: int,
    invfriction: vec5,
    deterministic: bool,
    qfrc: wp.array[float],
    fixed: wp.array[wp.int64],
):
    """Qfrc += J^T of a force along the normal and the tangents."""
    for column in range(ncolumn(jac, worldid, address[0])):
        J = _column(jac, address, elliptic, worldid, column, condim, invfriction)
        dofid = column_dof(jac, worldid, address[0], column)
        add_to(wp.dot(J, force), dofid, deterministic, qfrc, fixed)


@functools.cache
def _prepare(adhesion: bool, deterministic: bool) -> wp.Kernel:
    @wp.kernel(module="unique", enable_backward=False)
    def prepare_with_rows(
        jac: Jacobian,
        elliptic: bool,
        address_in: wp.array2d[int],
        opt_timestep: wp.array[float],
        opt_impratio_invsqrt: wp.array[float],
        opt_disableflags: int,
        maxcondim: int,
        dof_treeid: wp.array[int],
        naconmax: int,
        nthread: int,
        M_diaginv_in: wp.array2d[float],
        nacon_in: wp.array[int],
        contact_dist_in: wp.array[float],
        contact_frame_in: wp.array[wp.mat33],
        contact_includemargin_in: wp.array[float],
        contact_friction_in: wp.array[vec5],
        contact_solref_in: wp.array[wp.vec2],
        contact_solreffriction_in: wp.array[wp.vec2],
        contact_solimp_in: wp.array[vec5],
        contact_dim_in: wp.array[int],
        contact_worldid_in: wp.array[int],
        contact_adhesion_in: wp.array[float],
        efc_D_in: wp.array2d[float],
        efc_vel_in: wp.array2d[float],
        valid_in: wp.array2d[int],
        sign_in: wp.array[float],
        inherited_in: wp.array[int],
        mem_normal_in: wp.array[wp.vec2],
        mem_friction_in: wp.array[wp.vec3],
        mem_torque_in: wp.array[wp.vec3],
        mem_next_in: wp.array[int],
        ntree_out: wp.array[int],
        bias_out: wp.array[vec6],
        R_out: wp.array[vec6],
        invmetric_out: wp.array[vec6],
        invfriction_out: wp.array[vec5],
        mean_out: wp.array[float],
        force_out: wp.array[vec6],
        qfrc_constraint_out: wp.array2d[float],
        qfrc_fixed_out: wp.array2d[wp.int64],
    ):
        item, ncon = wp.int32(wp.tid()), wp.min(nacon_in[0], naconmax)
        while item < ncon:
            conid = index(item)
            item += nthread
            if ntree_out[conid] == 0:  # index_contacts has found out
                continue
            ntree_out[conid] = 0
            address = address_in[conid]
            if address[0] < 0:
                continue
            phi = contact_dist_in[conid] - contact_includemargin_in[conid]
            worldid = contact_worldid_in[conid]
            condim = wp.min(contact_dim_in[conid], maxcondim)
            nrow = condim
            if condim > 1 and not elliptic:
                nrow = 2 * (condim - 1)
            if address[nrow - 1] < 0:  # all or none, since readers look at the first
                for row in range(nrow):
                    address[row] = -1
                continue
            friction, solimp = contact_friction_in[conid], contact_solimp_in[conid]

            h = opt_timestep[worldid % opt_timestep.shape[0]]
            imp = impedance(solimp, phi)
            invfriction = reciprocals(friction, condim - 1)
            mu = friction[0] * opt_impratio_invsqrt[worldid % opt_impratio_invsqrt.shape[0]]
            normal_R = 1.0 / efc_D_in[worldid, address[0]]
            values, other = vec6(), vec6()
            if elliptic or condim == 1:
                for i in range(condim):
                    values[i] = efc_vel_in[worldid, address[i]]
            else:
                normal_R /= 2.0 * (1.0 + friction[0] * friction[0]) * mu * mu
                for i in range(1, condim):
                    values[i] = efc_vel_in[worldid, address[2 * i - 2]]
                    other[i] = efc_vel_in[worldid, address[2 * i - 1]]
            u = _unfold(elliptic, values, other, condim, invfriction)
            adhesion_force = float(0.0)
            if wp.static(adhesion):
                adhesion_force = contact_adhesion_in[conid]
            bias, R, kept = contact_demand(
                u,
                phi,
                imp,
                normal_R,
                adhesion_force,
                mu,
                condim,
                invfriction,
                contact_solref_in[conid],
                contact_solreffriction_in[conid],
                solimp,
                h,
                opt_disableflags,
            )

            # Trees come one after the other, since the dofs of a row do.
            metric = vec6(R)
            valid = bool(True)
            ntree = wp.int32(0)
            last = wp.int32(-1)
            ncol = ncolumn(jac, worldid, address[0])
            for column in range(ncol):
                J = _column(jac, address, elliptic, worldid, column, condim, invfriction)
                if wp.length_sq(J) > 0.0:
                    dofid = column_dof(jac, worldid, address[0], column)
                    metric += wp.cw_mul(J, J) * M_diaginv_in[worldid, dofid]
                    if dof_treeid[dofid] != last:
                        last = dof_treeid[dofid]
                        ntree += 1
                        valid = valid and valid_in[worldid, last] != 0
            force, mean = vec6(), float(0.0)
            if valid and ntree > 0:
                force, mean = inherit(
                    inherited_in[conid],
                    contact_frame_in[conid],
                    condim,
                    kept,
                    sign_in[conid],
                    wp.static(deterministic),
                    mem_normal_in,
                    mem_friction_in,
                    mem_torque_in,
                    mem_next_in,
                )
            force = into_cone(force, condim, invfriction)
            ntree_out[conid] = ntree
            bias_out[conid] = bias
            R_out[conid] = R
            invmetric_out[conid] = reciprocals(metric, condim)
            invfriction_out[conid] = invfriction
            mean_out[conid] = mean
            force_out[conid] = force
            if force[0] == 0.0:
                continue
            _add_force(
                force,
                jac,
                address,
                elliptic,
                worldid,
                condim,
                invfriction,
                wp.static(deterministic),
                qfrc_constraint_out[worldid],
                qfrc_fixed_out[worldid],
            )

    return prepare_with_rows


@functools.cache
def _step(kind: int, stage: int, deterministic: bool) -> wp.Kernel:
    @wp.kernel(module="unique", enable_backward=False)
    def step_with_rows(
        jac: Jacobian,
        elliptic: bool,
        address_in: wp.array2d[int],
        maxcondim: int,
        dof_treeid: wp.array[int],
        naconmax: int,
        nthread: int,
        nacon_in: wp.array[int],
        contact_dim_in: wp.array[int],
        contact_worldid_in: wp.array[int],
        qacc_in: wp.array2d[float],
        alpha_in: wp.array3d[float],
        scale_in: wp.array[float],
        ntree_in: wp.array[int],
        bias_in: wp.array[vec6],
        R_in: wp.array[vec6],
        invmetric_in: wp.array[vec6],
        invfriction_in: wp.array[vec5],
        force_out: wp.array[vec6],
        step_out: wp.array[vec6],
        residual_out: wp.array[float],
        proposed_out: wp.array[float],
        sums_out: wp.array3d[float],
        sums_fixed_out: wp.array4d[wp.int64],
        qfrc_step_out: wp.array2d[float],
        qfrc_fixed_out: wp.array2d[wp.int64],
    ):
        item, ncon = wp.int32(wp.tid()), wp.min(nacon_in[0], naconmax)
        while item < ncon:
            conid = index(item)
            item += nthread
            if ntree_in[conid] == 0:
                continue
            worldid = contact_worldid_in[conid]
            condim = wp.min(contact_dim_in[conid], maxcondim)
            invfriction = invfriction_in[conid]
            sums, sums_fixed = sums_out[worldid], sums_fixed_out[worldid]
            address = address_in[conid]
            ncol = ncolumn(jac, worldid, address[0])
            force, taken = vec6(force_out[conid]), float(0.0)
            if wp.static(stage == PROPOSAL):
                taken = scale_in[worldid] * step_out[conid][0]
                force[0] += taken
                force_out[conid] = force

            residual = bias_in[conid] + wp.cw_mul(R_in[conid], force)
            alpha = float(1.0)
            beta = float(1.0)
            last = wp.int32(-1)
            for column in range(ncol):
                J = _column(jac, address, elliptic, worldid, column, condim, invfriction)
                if wp.length_sq(J) > 0.0:
                    dofid = column_dof(jac, worldid, address[0], column)
                    residual += J * qacc_in[worldid, dofid]
                    treeid = dof_treeid[dofid]
                    if treeid != last:
                        last = treeid
                        alpha = wp.min(alpha, alpha_in[worldid, treeid, kind])
                        if wp.static(stage == CONJUGATE_STEP):
                            kept = tree_beta(treeid, wp.static(deterministic), sums, sums_fixed)
                            beta = wp.min(beta, kept)

            invmetric, step = invmetric_in[conid], vec6()
            one = float(0.0)
            other = float(0.0)
            if wp.static(kind == FRICTION):
                wanted = vec6()
                wanted[0] = force[0]
                for i in range(1, condim):
                    wanted[i] = force[i] - residual[i] * invmetric[i]
                nearest = nearest_friction(wanted, invmetric, condim, invfriction)
                for i in range(1, condim):
                    step[i] = alpha * (nearest[i] - force[i])
            elif wp.static(stage == CONJUGATE_STEP):
                residual[0] = residual_out[conid]
                wanted0 = force[0] + proposed_out[conid] + beta * step_out[conid][0]
                step[0] = alpha * (wp.max(wanted0, 0.0) - force[0])
            else:
                proposed = wp.max(force[0] - residual[0] * invmetric[0], 0.0) - force[0]
                if wp.static(stage == PROPOSAL):
                    if force[0] + proposed <= 0.0:
                        taken = 0.0
                    change = residual[0] - residual_out[conid]
                    one, other = proposed * change, taken * change
                    proposed_out[conid] = proposed
                    step[0] = taken
                else:
                    step[0] = alpha * proposed
                residual_out[conid] = residual[0]
            step_out[conid] = step
            if wp.static(stage != PROPOSAL):
                for i in range(condim):
                    one -= residual[i] * step[i]
                    other += R_in[conid][i] * step[i] * step[i]

            qfrc, qfrc_fixed = qfrc_step_out[worldid], qfrc_fixed_out[worldid]
            share = 1.0 / float(ntree_in[conid])
            which = wp.static(int(CONJUGATE if stage == PROPOSAL else WORK))
            last = wp.int32(-1)
            for column in range(ncol):
                J = _column(jac, address, elliptic, worldid, column, condim, invfriction)
                if wp.length_sq(J) > 0.0:
                    dofid = column_dof(jac, worldid, address[0], column)
                    if wp.static(stage != PROPOSAL):
                        add_to(wp.dot(J, step), dofid, wp.static(deterministic), qfrc, qfrc_fixed)
                    treeid = dof_treeid[dofid]
                    if treeid != last:
                        last = treeid
                        for i in range(2):
                            value = share * wp.where(i == 0, one, other)
                            add_sum(
                                value, treeid, which + i, wp.static(deterministic), sums, sums_fixed
                            )

    return step_with_rows


@functools.cache
def _reclip(deterministic: bool) -> wp.Kernel:
    @wp.kernel(module="unique", enable_backward=False)
    def reclip_with_rows(
        jac: Jacobian,
        elliptic: bool,
        address_in: wp.array2d[int],
        maxcondim: int,
        naconmax: int,
        nthread: int,
        nacon_in: wp.array[int],
        contact_dim_in: wp.array[int],
        contact_worldid_in: wp.array[int],
        scale_in: wp.array[float],
        ntree_in: wp.array[int],
        invfriction_in: wp.array[vec5],
        step_in: wp.array[vec6],
        force_out: wp.array[vec6],
        qfrc_constraint_out: wp.array2d[float],
        qfrc_fixed_out: wp.array2d[wp.int64],
    ):
        item, ncon = wp.int32(wp.tid()), wp.min(nacon_in[0], naconmax)
        while item < ncon:
            conid = index(item)
            item += nthread
            if ntree_in[conid] == 0:
                continue
            worldid = contact_worldid_in[conid]
            condim = wp.min(contact_dim_in[conid], maxcondim)
            invfriction = invfriction_in[conid]
            force = vec6(force_out[conid])
            force[0] += scale_in[worldid] * step_in[conid][0]
            force = into_cone(force, condim, invfriction)
            force_out[conid] = force
            if force[0] == 0.0:
                continue
            _add_force(
                force,
                jac,
                address_in[conid],
                elliptic,
                worldid,
                condim,
                invfriction,
                wp.static(deterministic),
                qfrc_constraint_out[worldid],
                qfrc_fixed_out[worldid],
            )

    return reclip_with_rows


def _rows(m: Model, d: Data) -> tuple[Jacobian, bool, wp.array]:
    return jacobian(m, d), m.opt.cone == ConeType.ELLIPTIC, d.contact.efc_address


def prepare(m: Model, d: Data) -> None:
    """Find a, R, P of every contact; its warm force, and J^T of that in `qfrc_constraint`."""
    warm, contact = d.warm, d.contact
    nthread = nthread_for(d, d.naconmax)
    launch(
        _prepare(bool(m.flg_adhesion), is_deterministic(m)),
        dim=nthread,
        inputs=[
            *_rows(m, d),
            *(m.opt.timestep, m.opt.impratio_invsqrt, m.opt.disableflags),
            *(int(m.nmaxcondim), m.dof_treeid, d.naconmax, nthread, warm.M_diaginv),
            *(d.nacon, contact.dist, contact.frame, contact.includemargin),
            *(contact.friction, contact.solref, contact.solreffriction, contact.solimp),
            *(contact.dim, contact.worldid, contact.adhesion),
            *(d.efc.D, d.efc.vel, warm.valid),
            *(warm.sign, warm.inherited),
            *(warm.mem_normal, warm.mem_friction, warm.mem_torque, warm.mem_next),
        ],
        outputs=[
            *(warm.ntree, warm.bias, warm.R, warm.invmetric, warm.invfriction),
            *(warm.mean, warm.force),
            *(d.qfrc_constraint, d.qfrc_fixed),
        ],
    )


def step(m: Model, d: Data, kind: int, stage: int) -> None:
    """The step d of normal or friction forces, or a stage of that."""
    warm, contact = d.warm, d.contact
    nthread = nthread_for(d, d.naconmax)
    launch(
        _step(kind, stage, is_deterministic(m)),
        dim=nthread,
        inputs=[
            *_rows(m, d),
            *(int(m.nmaxcondim), m.dof_treeid, d.naconmax, nthread, d.nacon),
            *(contact.dim, contact.worldid, d.qacc, warm.alpha, warm.scale),
            *(warm.ntree, warm.bias, warm.R, warm.invmetric, warm.invfriction),
        ],
        outputs=[
            *(warm.force, warm.step, warm.residual, warm.proposed),
            *(warm.sums, warm.sums_fixed, warm.qfrc_step, d.qfrc_fixed),
        ],
    )


def reclip(m: Model, d: Data) -> None:
    """Take the last step over normals, friction into the new cones; J^T f of that."""
    warm, contact = d.warm, d.contact
    nthread = nthread_for(d, d.naconmax)
    launch(
        _reclip(is_deterministic(m)),
        dim=nthread,
        inputs=[
            *_rows(m, d),
            *(int(m.nmaxcondim), d.naconmax, nthread, d.nacon, contact.dim, contact.worldid),
            *(warm.scale, warm.ntree, warm.invfriction, warm.step),
        ],
        outputs=[warm.force, d.qfrc_constraint, d.qfrc_fixed],
    )
