"""Contacts under the warm law: a thread per contact, no Jacobian. As ../contacts.py does it.

    prepare    geometry, a, R, P; the force to start from; what stands on what
    step       d of a pass over normal forces, or over friction
    reclip     f += s d; friction into the new cones
    finish     f += s d; `efc.force` and `efc.state`

Every contact has Coulomb's own cone, as with `cone="elliptic"`: a pyramid is an approximation that
solvers make for their own sake. Where the model asks for one, `efc` has its rows all the same.
"""

import functools

import warp as wp
from mujoco_warp import ConeType

from comfree_warp.shared.contacts import (
    MINVAL,
    count_rows,
    describe_row,
    described_rows,
    impedance,
    max_rows_of_contact,
    push_apart,
    push_bodies,
    relative_velocity,
    reserve_rows,
)
from comfree_warp.shared.fixed_point import is_deterministic
from comfree_warp.shared.rows import CONE, QUADRATIC, SATISFIED
from comfree_warp.shared.threads import index, launch, nthread_for
from comfree_warp.types import Data, Model, vec5, vec6
from comfree_warp.warm.law import contact_demand, into_cone, nearest_friction, reciprocals
from comfree_warp.warm.memory import inherit
from comfree_warp.warm.sides import pack_offsets, unpack_offsets, unpack_sides
from comfree_warp.warm.stacks.body import CONJUGATE, WORK, add_sum, tree_beta
from comfree_warp.warm.stacks.find import arrays_of, may_stack, note_parent
from comfree_warp.warm.stages import CONJUGATE_STEP, FRICTION, NORMAL, PROPOSAL


@wp.func
def _padded_column(frame: wp.mat33, i: int) -> wp.vec4:
    """A column of the frame, what a component of a motion is along its axes; padded for SIMD."""
    return wp.vec4(frame[0, i], frame[1, i], frame[2, i], 0.0)


@wp.func
def _inverse_mass(
    worldid: int,
    bodyid1: int,
    bodyid2: int,
    offset1: wp.vec3,
    offset2: wp.vec3,
    frame: wp.mat33,
    condim: int,
    body_parentid: wp.array[int],
    body_dofadr: wp.array[int],
    body_dofnum: wp.array[int],
    body_shiftnum: wp.array[int],
    cdof_in: wp.array2d[wp.spatial_vector],
    M_diaginv_in: wp.array2d[float],
) -> vec6:
    """P = sum over the dofs above either body of J^2 / M_dd."""
    x, y, z = _padded_column(frame, 0), _padded_column(frame, 1), _padded_column(frame, 2)
    linear, angular = wp.vec4(), wp.vec4()
    body1, body2 = wp.int32(bodyid1), wp.int32(bodyid2)
    while body1 != body2:  # what moves both moves them alike: J = 0
        bodyid = index(wp.max(body1, body2))
        offset = offset2
        if body1 == bodyid:
            offset = offset1
            body1 = index(body_parentid[bodyid])
        else:
            body2 = index(body_parentid[bodyid])
        first = index(body_dofadr[bodyid])
        last = first + body_dofnum[bodyid]
        nshift = body_shiftnum[bodyid]
        if nshift == 3:
            inverse_mass = M_diaginv_in[worldid, first]  # of a free joint, along all axes
            for i in range(3):
                linear[i] += inverse_mass
        dofid = index(first + nshift)
        while dofid < last:
            cdof = cdof_in[worldid, dofid]
            turn, move = wp.spatial_top(cdof), wp.spatial_bottom(cdof)
            inverse = M_diaginv_in[worldid, dofid]
            move += wp.cross(turn, offset)
            J = x * move[0] + y * move[1] + z * move[2]
            linear += inverse * wp.cw_mul(J, J)
            if condim > 3:
                J = x * turn[0] + y * turn[1] + z * turn[2]
                angular += inverse * wp.cw_mul(J, J)
            dofid = index(dofid + 1)
    return vec6(linear[0], linear[1], linear[2], angular[0], angular[1], angular[2])


@wp.func
def _lightest(alpha: wp.array2d[float], tree1: int, tree2: int, kind: int) -> float:
    """The smallest alpha of the trees that a contact touches."""
    least = float(1.0)
    if tree1 >= 0:
        least = wp.min(least, alpha[tree1, kind])
    if tree2 >= 0:
        least = wp.min(least, alpha[tree2, kind])
    return least


@wp.func
def _add_sums(
    one: float,
    other: float,
    tree1: int,
    tree2: int,
    which: int,
    deterministic: bool,
    sums: wp.array2d[float],
    fixed: wp.array3d[wp.int64],
):
    """Share two values, for the sums `which` and the next, among the trees of a contact."""
    share = wp.where(tree1 >= 0 and tree2 >= 0 and tree1 != tree2, 0.5, 1.0)
    if tree1 >= 0:
        add_sum(share * one, tree1, which, deterministic, sums, fixed)
        add_sum(share * other, tree1, which + 1, deterministic, sums, fixed)
    if tree2 >= 0 and tree2 != tree1:
        add_sum(share * one, tree2, which, deterministic, sums, fixed)
        add_sum(share * other, tree2, which + 1, deterministic, sums, fixed)


@functools.cache
def _prepare(
    cone: int,
    maxcondim: int,
    surfacevel: bool,
    adhesion: bool,
    sparse: bool,
    stacking: bool,
    deterministic: bool,
) -> wp.Kernel:
    elliptic = cone == ConeType.ELLIPTIC
    nrow_max = max_rows_of_contact(elliptic, maxcondim)

    @wp.kernel(module="unique", enable_backward=False)
    def prepare(
        opt_timestep: wp.array[float],
        opt_gravity: wp.array[wp.vec3],
        opt_impratio_invsqrt: wp.array[float],
        opt_disableflags: int,
        body_parentid: wp.array[int],
        body_rootid: wp.array[int],
        body_treeid: wp.array[int],
        body_dofadr: wp.array[int],
        body_dofnum: wp.array[int],
        body_shiftnum: wp.array[int],
        body_invweight0: wp.array2d[wp.vec2],
        geom_bodyid: wp.array[int],
        njmax: int,
        njmax_nnz: int,
        naconmax: int,
        nthread: int,
        subtree_com_in: wp.array2d[wp.vec3],
        cdof_in: wp.array2d[wp.spatial_vector],
        cvel_in: wp.array2d[wp.spatial_vector],
        M_diaginv_in: wp.array2d[float],
        nacon_in: wp.array[int],
        contact_dist_in: wp.array[float],
        contact_pos_in: wp.array[wp.vec3],
        contact_frame_in: wp.array[wp.mat33],
        contact_includemargin_in: wp.array[float],
        contact_friction_in: wp.array[vec5],
        contact_solref_in: wp.array[wp.vec2],
        contact_solreffriction_in: wp.array[wp.vec2],
        contact_solimp_in: wp.array[vec5],
        contact_dim_in: wp.array[int],
        contact_geom_in: wp.array[wp.vec2i],
        contact_worldid_in: wp.array[int],
        contact_adhesion_in: wp.array[float],
        contact_surfacevel_in: wp.array[wp.vec3],
        valid_in: wp.array2d[int],
        sign_in: wp.array[float],
        inherited_in: wp.array[int],
        mem_normal_in: wp.array[wp.vec2],
        mem_friction_in: wp.array[wp.vec3],
        mem_torque_in: wp.array[wp.vec3],
        mem_next_in: wp.array[int],
        loose: wp.array2d[int],
        nefc_out: wp.array[int],
        contact_efc_address_out: wp.array2d[int],
        efc_type_out: wp.array2d[int],
        efc_id_out: wp.array2d[int],
        efc_J_rownnz_out: wp.array2d[int],
        efc_J_rowadr_out: wp.array2d[int],
        efc_J_out: wp.array3d[float],
        efc_pos_out: wp.array2d[float],
        efc_margin_out: wp.array2d[float],
        efc_D_out: wp.array2d[float],
        efc_vel_out: wp.array2d[float],
        efc_aref_out: wp.array2d[float],
        efc_frictionloss_out: wp.array2d[float],
        ntree_out: wp.array[int],
        sides_out: wp.array[wp.vec4i],
        offset_out: wp.array[vec6],
        bias_out: wp.array[vec6],
        R_out: wp.array[vec6],
        invmetric_out: wp.array[vec6],
        invfriction_out: wp.array[vec5],
        mean_out: wp.array[float],
        force_out: wp.array[vec6],
        stack_parent_out: wp.array2d[int],
        stack_found_out: wp.array[int],
        cfrc_contact_out: wp.array2d[wp.spatial_vector],
        cfrc_fixed_out: wp.array3d[wp.int64],
    ):
        item, ncon = wp.int32(wp.tid()), wp.min(nacon_in[0], naconmax)
        while item < ncon:
            conid = index(item)
            item += nthread
            if ntree_out[conid] == 0:  # index_contacts has found out
                continue
            margin = contact_includemargin_in[conid]
            phi = contact_dist_in[conid] - margin
            worldid = index(contact_worldid_in[conid])
            condim = wp.min(contact_dim_in[conid], wp.static(maxcondim))
            frame, pos = contact_frame_in[conid], contact_pos_in[conid]
            geom = contact_geom_in[conid]
            friction, solimp = contact_friction_in[conid], contact_solimp_in[conid]
            body1 = index(geom_bodyid[index(geom[0])])
            body2 = index(geom_bodyid[index(geom[1])])
            tree1, tree2 = body_treeid[body1], body_treeid[body2]
            ntree = wp.int32(0)
            valid = bool(True)
            if tree1 >= 0:
                ntree += 1
                valid = valid_in[worldid, tree1] != 0
            if tree2 >= 0:
                if tree2 != tree1:
                    ntree += 1
                valid = valid and valid_in[worldid, tree2] != 0
            ntree_out[conid] = ntree
            if ntree == 0:  # as little to do as to tell
                for row in range(contact_efc_address_out.shape[1]):
                    contact_efc_address_out[conid, row] = -1
                continue

            com1 = subtree_com_in[worldid, index(body_rootid[body1])]
            com2 = subtree_com_in[worldid, index(body_rootid[body2])]
            if wp.static(stacking) and ntree == 2:
                note_parent(
                    tree1,
                    tree2,
                    com1,
                    com2,
                    frame[0],
                    opt_gravity[worldid % opt_gravity.shape[0]],
                    worldid,
                    loose,
                    stack_parent_out,
                    stack_found_out,
                )
            offset1, offset2 = pos - com1, pos - com2
            sides_out[conid] = wp.vec4i(body1, body2, tree1, tree2)
            offset_out[conid] = pack_offsets(offset1, offset2)
            u = relative_velocity(
                frame, cvel_in[worldid, body1], offset1, cvel_in[worldid, body2], offset2
            )
            if wp.static(surfacevel):
                for i in range(1, wp.min(condim, 4)):
                    u[i] += contact_surfacevel_in[conid][i - 1]

            h = opt_timestep[worldid % opt_timestep.shape[0]]
            imp = impedance(solimp, phi)
            invweights = body_invweight0[worldid % body_invweight0.shape[0]]
            invweight = invweights[body1][0] + invweights[body2][0]
            normal_R = wp.max(invweight * (1.0 - imp) / imp, MINVAL)
            invfriction = reciprocals(friction, condim - 1)
            mu = friction[0] * opt_impratio_invsqrt[worldid % opt_impratio_invsqrt.shape[0]]
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

            # `efc` tells of the rows that the model's cone has.
            nrow, row_type, invweight = count_rows(
                condim, wp.static(elliptic), invweight, mu, friction[0]
            )
            D = 1.0 / wp.max(invweight * (1.0 - imp) / imp, MINVAL)
            efcid0 = reserve_rows(worldid, nrow, njmax, nefc_out)
            for row in range(wp.static(nrow_max)):
                if row < nrow:
                    efcid = wp.where(efcid0 < 0, -1, efcid0 + row)
                    contact_efc_address_out[conid, row] = efcid
                    if efcid >= 0:
                        D_row, pos_row = D, phi + margin
                        if wp.static(elliptic) and row > 0:
                            D_row, pos_row = 1.0 / R[row], margin
                        describe_row(
                            worldid,
                            efcid,
                            conid,
                            row_type,
                            pos_row,
                            margin,
                            D_row,
                            wp.static(sparse),
                            njmax_nnz,
                            efc_type_out,
                            efc_id_out,
                            efc_J_rownnz_out,
                            efc_J_rowadr_out,
                            efc_J_out,
                            efc_pos_out,
                            efc_margin_out,
                            efc_D_out,
                            efc_vel_out,
                            efc_aref_out,
                            efc_frictionloss_out,
                        )

            force, mean = vec6(), float(0.0)
            if valid:
                force, mean = inherit(
                    inherited_in[conid],
                    frame,
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
            mean_out[conid] = mean
            force_out[conid] = force
            bias_out[conid] = bias
            R_out[conid] = R
            invfriction_out[conid] = invfriction
            P = _inverse_mass(
                worldid,
                body1,
                body2,
                offset1,
                offset2,
                frame,
                condim,
                body_parentid,
                body_dofadr,
                body_dofnum,
                body_shiftnum,
                cdof_in,
                M_diaginv_in,
            )
            invmetric_out[conid] = reciprocals(P + R, condim)
            if force[0] == 0.0:
                continue
            push_bodies(
                force,
                frame,
                wp.vec2i(body1, body2),
                tree1,
                tree2,
                offset1,
                offset2,
                wp.static(maxcondim > 3),
                wp.static(deterministic),
                cfrc_contact_out[worldid],
                cfrc_fixed_out[worldid],
            )

    return prepare


@functools.cache
def _step_normals(stage: int, deterministic: bool) -> wp.Kernel:

    @wp.kernel(module="unique", enable_backward=False)
    def step_normals(
        naconmax: int,
        nthread: int,
        nacon_in: wp.array[int],
        contact_frame_in: wp.array[wp.mat33],
        contact_worldid_in: wp.array[int],
        cacc_in: wp.array2d[wp.spatial_vector],
        alpha_in: wp.array3d[float],
        scale_in: wp.array[float],
        ntree_in: wp.array[int],
        sides_in: wp.array[wp.vec4i],
        offset_in: wp.array[vec6],
        bias_in: wp.array[vec6],
        R_in: wp.array[vec6],
        invmetric_in: wp.array[vec6],
        force_out: wp.array[vec6],
        step_out: wp.array[vec6],
        residual_out: wp.array[float],
        proposed_out: wp.array[float],
        sums_out: wp.array3d[float],
        sums_fixed_out: wp.array4d[wp.int64],
        cfrc_contact_out: wp.array2d[wp.spatial_vector],
        cfrc_fixed_out: wp.array3d[wp.int64],
    ):
        item, ncon = wp.int32(wp.tid()), wp.min(nacon_in[0], naconmax)
        while item < ncon:
            conid = index(item)
            item += nthread
            if ntree_in[conid] == 0:
                continue
            worldid = index(contact_worldid_in[conid])
            body, tree1, tree2 = unpack_sides(sides_in[conid])
            sums, sums_fixed = sums_out[worldid], sums_fixed_out[worldid]
            offset1, offset2 = unpack_offsets(offset_in[conid])
            normal = contact_frame_in[conid][0]
            R = R_in[conid][0]

            if wp.static(stage == CONJUGATE_STEP):
                force0, residual = force_out[conid][0], residual_out[conid]
                proposed = proposed_out[conid]
            else:
                force = force_out[conid]
                taken = float(0.0)
                if wp.static(stage == PROPOSAL):
                    taken = scale_in[worldid] * step_out[conid][0]
                    force[0] += taken
                    force_out[conid] = force
                cacc1, cacc2 = cacc_in[worldid, body[0]], cacc_in[worldid, body[1]]
                apart = wp.spatial_bottom(cacc2) + wp.cross(wp.spatial_top(cacc2), offset2)
                apart -= wp.spatial_bottom(cacc1) + wp.cross(wp.spatial_top(cacc1), offset1)
                residual = wp.dot(normal, apart) + bias_in[conid][0] + R * force[0]
                proposed = wp.max(force[0] - residual * invmetric_in[conid][0], 0.0) - force[0]
                if wp.static(stage == PROPOSAL):
                    if force[0] + proposed <= 0.0:
                        taken = 0.0
                    change = residual - residual_out[conid]
                    _add_sums(
                        proposed * change,
                        taken * change,
                        tree1,
                        tree2,
                        CONJUGATE,
                        wp.static(deterministic),
                        sums,
                        sums_fixed,
                    )
                    step_out[conid] = vec6(taken, 0.0, 0.0, 0.0, 0.0, 0.0)
                residual_out[conid] = residual
                proposed_out[conid] = proposed
                force0 = force[0]
                if wp.static(stage == PROPOSAL):
                    continue

            step = float(proposed)
            if wp.static(stage == CONJUGATE_STEP):
                beta = float(1.0)
                for i in range(2):
                    treeid = wp.where(i == 0, tree1, tree2)
                    if treeid >= 0:
                        kept = tree_beta(treeid, wp.static(deterministic), sums, sums_fixed)
                        beta = wp.min(beta, kept)
                step = wp.max(force0 + step + beta * step_out[conid][0], 0.0) - force0
            step *= _lightest(alpha_in[worldid], tree1, tree2, NORMAL)
            step_out[conid] = vec6(step, 0.0, 0.0, 0.0, 0.0, 0.0)
            if step == 0.0:
                continue
            _add_sums(
                -residual * step,
                R * step * step,
                tree1,
                tree2,
                WORK,
                wp.static(deterministic),
                sums,
                sums_fixed,
            )
            push_apart(
                step * normal,
                wp.vec3(),
                body,
                tree1,
                tree2,
                offset1,
                offset2,
                wp.static(deterministic),
                cfrc_contact_out[worldid],
                cfrc_fixed_out[worldid],
            )

    return step_normals


@functools.cache
def _reclip(maxcondim: int, deterministic: bool) -> wp.Kernel:

    @wp.kernel(module="unique", enable_backward=False)
    def reclip(
        naconmax: int,
        nthread: int,
        nacon_in: wp.array[int],
        contact_frame_in: wp.array[wp.mat33],
        contact_dim_in: wp.array[int],
        contact_worldid_in: wp.array[int],
        scale_in: wp.array[float],
        ntree_in: wp.array[int],
        sides_in: wp.array[wp.vec4i],
        offset_in: wp.array[vec6],
        invfriction_in: wp.array[vec5],
        step_in: wp.array[vec6],
        force_out: wp.array[vec6],
        cfrc_contact_out: wp.array2d[wp.spatial_vector],
        cfrc_fixed_out: wp.array3d[wp.int64],
    ):
        item, ncon = wp.int32(wp.tid()), wp.min(nacon_in[0], naconmax)
        while item < ncon:
            conid = index(item)
            item += nthread
            if ntree_in[conid] == 0:
                continue
            worldid = index(contact_worldid_in[conid])
            condim = wp.min(contact_dim_in[conid], wp.static(maxcondim))
            force = force_out[conid]
            force[0] += scale_in[worldid] * step_in[conid][0]
            force = into_cone(force, condim, invfriction_in[conid])
            force_out[conid] = force
            if force[0] == 0.0:
                continue
            body, tree1, tree2 = unpack_sides(sides_in[conid])
            offset1, offset2 = unpack_offsets(offset_in[conid])
            push_bodies(
                force,
                contact_frame_in[conid],
                body,
                tree1,
                tree2,
                offset1,
                offset2,
                wp.static(maxcondim > 3),
                wp.static(deterministic),
                cfrc_contact_out[worldid],
                cfrc_fixed_out[worldid],
            )

    return reclip


@functools.cache
def _step_friction(maxcondim: int, deterministic: bool) -> wp.Kernel:

    @wp.kernel(module="unique", enable_backward=False)
    def step_friction(
        naconmax: int,
        nthread: int,
        nacon_in: wp.array[int],
        contact_frame_in: wp.array[wp.mat33],
        contact_dim_in: wp.array[int],
        contact_worldid_in: wp.array[int],
        cacc_in: wp.array2d[wp.spatial_vector],
        alpha_in: wp.array3d[float],
        ntree_in: wp.array[int],
        sides_in: wp.array[wp.vec4i],
        offset_in: wp.array[vec6],
        bias_in: wp.array[vec6],
        R_in: wp.array[vec6],
        invmetric_in: wp.array[vec6],
        invfriction_in: wp.array[vec5],
        force_in: wp.array[vec6],
        step_out: wp.array[vec6],
        sums_out: wp.array3d[float],
        sums_fixed_out: wp.array4d[wp.int64],
        cfrc_contact_out: wp.array2d[wp.spatial_vector],
        cfrc_fixed_out: wp.array3d[wp.int64],
    ):
        item, ncon = wp.int32(wp.tid()), wp.min(nacon_in[0], naconmax)
        while item < ncon:
            conid = index(item)
            item += nthread
            if ntree_in[conid] == 0:
                continue
            condim = wp.min(contact_dim_in[conid], wp.static(maxcondim))
            force = force_in[conid]
            if condim == 1 or force[0] == 0.0:
                step_out[conid] = vec6()
                continue
            worldid = index(contact_worldid_in[conid])
            body, tree1, tree2 = unpack_sides(sides_in[conid])
            offset1, offset2 = unpack_offsets(offset_in[conid])
            frame = contact_frame_in[conid]
            apart = relative_velocity(
                frame, cacc_in[worldid, body[0]], offset1, cacc_in[worldid, body[1]], offset2
            )
            R, invmetric, bias = R_in[conid], invmetric_in[conid], bias_in[conid]
            wanted = vec6()
            wanted[0] = force[0]
            residual = vec6()
            for i in range(1, wp.static(maxcondim)):
                if i < condim:
                    residual[i] = apart[i] + bias[i] + R[i] * force[i]
                    wanted[i] = force[i] - residual[i] * invmetric[i]
            nearest = nearest_friction(wanted, invmetric, condim, invfriction_in[conid])
            alpha = _lightest(alpha_in[worldid], tree1, tree2, FRICTION)
            step = vec6()
            work = float(0.0)
            regular = float(0.0)
            for i in range(1, wp.static(maxcondim)):
                if i < condim:
                    step[i] = alpha * (nearest[i] - force[i])
                    work -= residual[i] * step[i]
                    regular += R[i] * step[i] * step[i]
            step_out[conid] = step
            sums, sums_fixed = sums_out[worldid], sums_fixed_out[worldid]
            _add_sums(
                work,
                regular,
                tree1,
                tree2,
                WORK,
                wp.static(deterministic),
                sums,
                sums_fixed,
            )
            push_bodies(
                step,
                frame,
                body,
                tree1,
                tree2,
                offset1,
                offset2,
                wp.static(maxcondim > 3),
                wp.static(deterministic),
                cfrc_contact_out[worldid],
                cfrc_fixed_out[worldid],
            )

    return step_friction


@functools.cache
def _finish(elliptic: bool, maxcondim: int) -> wp.Kernel:
    @wp.kernel(module="unique", enable_backward=False)
    def finish(
        naconmax: int,
        nthread: int,
        nacon_in: wp.array[int],
        contact_dim_in: wp.array[int],
        contact_efc_address_in: wp.array2d[int],
        contact_worldid_in: wp.array[int],
        scale_in: wp.array[float],
        ntree_in: wp.array[int],
        invfriction_in: wp.array[vec5],
        step_in: wp.array[vec6],
        force_out: wp.array[vec6],
        efc_force_out: wp.array2d[float],
        efc_state_out: wp.array2d[int],
    ):
        item, ncon = wp.int32(wp.tid()), wp.min(nacon_in[0], naconmax)
        while item < ncon:
            conid = index(item)
            item += nthread
            if ntree_in[conid] == 0:
                continue
            worldid = index(contact_worldid_in[conid])
            condim = wp.min(contact_dim_in[conid], wp.static(maxcondim))
            force, step, invfriction = force_out[conid], step_in[conid], invfriction_in[conid]
            scale = scale_in[worldid]
            scaled = vec6()  # force over mu
            tangent_sq = float(0.0)
            for i in range(1, wp.static(maxcondim)):
                if i < condim:
                    force[i] += scale * step[i]
                    scaled[i] = force[i] * invfriction[i - 1]
                    tangent_sq += scaled[i] * scaled[i]
            force_out[conid] = force
            address = contact_efc_address_in[conid, 0]  # of the first row, which the others follow
            if address < 0:
                continue
            first = index(address)
            state = int(QUADRATIC)
            if force[0] == 0.0:
                state = SATISFIED
            elif wp.static(elliptic) and condim > 1 and tangent_sq >= 0.9999 * force[0] * force[0]:
                state = CONE
            if wp.static(elliptic) or condim == 1:
                for i in range(condim):
                    efcid = first + i
                    efc_force_out[worldid, efcid] = force[i]
                    efc_state_out[worldid, efcid] = state
            else:
                share = force[0] / float(2 * (condim - 1))
                for i in range(1, wp.static(maxcondim)):
                    if i < condim:
                        facet = 0.5 * scaled[i]
                        for side in range(2):
                            efcid = first + 2 * (i - 1) + side
                            of_side = wp.where(side == 0, facet, -facet)
                            efc_force_out[worldid, efcid] = share + of_side
                            efc_state_out[worldid, efcid] = state

    return finish


def prepare(m: Model, d: Data) -> None:
    """Geometry, a, R, P of every contact; its warm force; its rows of `efc` but for the force."""
    warm, contact = d.warm, d.contact
    nthread = nthread_for(d, d.naconmax)
    launch(
        _prepare(
            int(m.opt.cone),
            int(m.nmaxcondim),
            bool(m.flg_surfacevel),
            bool(m.flg_adhesion),
            bool(m.is_sparse),
            may_stack(m, d),
            is_deterministic(m),
        ),
        dim=nthread,
        inputs=[
            *(m.opt.timestep, m.opt.gravity, m.opt.impratio_invsqrt, m.opt.disableflags),
            *(m.body_parentid, m.body_rootid, m.body_treeid),
            *(m.body_dofadr, m.body_dofnum, m.body_shiftnum),
            *(m.body_invweight0, m.geom_bodyid),
            *(d.njmax, d.njmax_nnz, d.naconmax, nthread),
            *(d.subtree_com, d.cdof, d.cvel, warm.M_diaginv),
            *(d.nacon, contact.dist, contact.pos, contact.frame, contact.includemargin),
            *(contact.friction, contact.solref, contact.solreffriction, contact.solimp),
            *(contact.dim, contact.geom, contact.worldid, contact.adhesion),
            *(contact.surfacevel, warm.valid),
            *(warm.sign, warm.inherited),
            *(warm.mem_normal, warm.mem_friction, warm.mem_torque, warm.mem_next),
            *arrays_of(warm.stacks, "loose"),
        ],
        outputs=[
            *(d.nefc, contact.efc_address, *described_rows(d)),
            *(warm.ntree, warm.sides, warm.offset, warm.bias, warm.R),
            *(warm.invmetric, warm.invfriction, warm.mean, warm.force),
            *arrays_of(warm.stacks, "parent", "found"),
            *(d.cfrc_contact, d.cfrc_fixed),
        ],
    )


def step(m: Model, d: Data, kind: int, stage: int) -> None:
    """The step d of all normal or friction forces, or a stage of that."""
    if kind == FRICTION:
        _launch_friction(m, d)
    else:
        _launch_normals(m, d, stage)


def _launch_normals(m: Model, d: Data, stage: int) -> None:
    warm, contact = d.warm, d.contact
    nthread = nthread_for(d, d.naconmax)
    launch(
        _step_normals(stage, is_deterministic(m)),
        dim=nthread,
        inputs=[
            *(d.naconmax, nthread),
            *(d.nacon, contact.frame, contact.worldid, warm.cacc, warm.alpha, warm.scale),
            *(warm.ntree, warm.sides, warm.offset, warm.bias, warm.R, warm.invmetric),
        ],
        outputs=[
            *(warm.force, warm.step, warm.residual, warm.proposed, warm.sums, warm.sums_fixed),
            *(d.cfrc_contact, d.cfrc_fixed),
        ],
    )


def reclip(m: Model, d: Data) -> None:
    """Take the last step over normals, friction into the new cones; their wrenches."""
    warm, contact = d.warm, d.contact
    nthread = nthread_for(d, d.naconmax)
    launch(
        _reclip(int(m.nmaxcondim), is_deterministic(m)),
        dim=nthread,
        inputs=[
            *(d.naconmax, nthread),
            *(d.nacon, contact.frame, contact.dim, contact.worldid),
            *(warm.scale, warm.ntree, warm.sides, warm.offset, warm.invfriction, warm.step),
        ],
        outputs=[warm.force, d.cfrc_contact, d.cfrc_fixed],
    )


def _launch_friction(m: Model, d: Data) -> None:
    warm, contact = d.warm, d.contact
    nthread = nthread_for(d, d.naconmax)
    launch(
        _step_friction(int(m.nmaxcondim), is_deterministic(m)),
        dim=nthread,
        inputs=[
            *(d.naconmax, nthread),
            *(d.nacon, contact.frame, contact.dim, contact.worldid),
            *(warm.cacc, warm.alpha, warm.ntree, warm.sides, warm.offset),
            *(warm.bias, warm.R, warm.invmetric, warm.invfriction, warm.force),
        ],
        outputs=[warm.step, warm.sums, warm.sums_fixed, d.cfrc_contact, d.cfrc_fixed],
    )


def finish(m: Model, d: Data) -> None:
    """Take the step over friction; write `efc.force` and `efc.state`."""
    warm, contact = d.warm, d.contact
    nthread = nthread_for(d, d.naconmax)
    launch(
        _finish(m.opt.cone == ConeType.ELLIPTIC, int(m.nmaxcondim)),
        dim=nthread,
        inputs=[
            *(d.naconmax, nthread, d.nacon, contact.dim, contact.efc_address),
            *(contact.worldid, warm.scale, warm.ntree, warm.invfriction, warm.step),
        ],
        outputs=[warm.force, d.efc.force, d.efc.state],
    )
