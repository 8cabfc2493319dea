"""Contact forces without a Jacobian: from body velocities to body wrenches.

docs/contact_laws.md derives them. What a row of J would multiply is the relative motion of two
bodies at a point, and what its transpose would scatter is a wrench on each. So no row of a contact
is ever written:

    v_s          -> velocity of every body      a sweep down every tree
    2 velocities -> force of a contact          a thread per contact
    wrenches     -> qfrc_constraint             a sweep up every tree

The cost is O(dofs + contacts), and the memory does not depend on njmax x nv. `efc` still gets the
rows of a contact but for J, vel and aref, since sensors and `contact_force` read `efc.force`.

Spatial vectors are MuJoCo's: angular part first, about the centre of mass of the body's root.
Source: MuJoCo's "Computation" chapter for rows, impedance and cones; arXiv 2603.12185 for the law.
"""

import functools

import warp as wp
from mujoco_warp import ConeType

from comfree_warp.paper.law import cone_scale, row_acceleration
from comfree_warp.shared import bodies
from comfree_warp.shared.contacts import (
    MINVAL,
    count_rows,
    describe_row,
    described_rows,
    impedance,
    max_rows_of_contact,
    push_bodies,
    relative_velocity,
    reserve_rows,
)
from comfree_warp.shared.fixed_point import is_deterministic
from comfree_warp.shared.rows import QUADRATIC, SATISFIED, has_contact_rows
from comfree_warp.shared.threads import first_body, index, launch, nthread_for, tree_arrays
from comfree_warp.types import CONTACT_TYPE_CONSTRAINT, Data, Model, vec5, vec6


@wp.func
def _predict_dof(
    dofid: int,
    h: float,
    qvel: wp.array[float],
    qacc_smooth: wp.array[float],
    qvel_smooth_pred: wp.array[float],
    qfrc_constraint: wp.array[float],
) -> float:
    """v_s of a dof, in a sweep down a tree; clears what the law adds up."""
    predicted = qvel[dofid] + h * qacc_smooth[dofid]
    qvel_smooth_pred[dofid] = predicted
    qfrc_constraint[dofid] = 0.0
    return predicted


@wp.kernel(enable_backward=False)
def _predict_velocity(
    opt_timestep: wp.array[float],
    body_parentid: wp.array[int],
    body_dofadr: wp.array[int],
    body_dofnum: wp.array[int],
    dof_bodyid: wp.array[int],
    tree_dofadr: wp.array[int],
    tree_bodynum: wp.array[int],
    body_shiftnum: wp.array[int],
    qvel_in: wp.array2d[float],
    qacc_smooth_in: wp.array2d[float],
    cdof_in: wp.array2d[wp.spatial_vector],
    drop_contact_rows: bool,
    ntree: int,
    nthread: int,
    ne_in: wp.array[int],
    nf_in: wp.array[int],
    nl_in: wp.array[int],
    nefc_out: wp.array[int],
    qvel_smooth_pred_out: wp.array2d[float],
    cvel_smooth_pred_out: wp.array2d[wp.spatial_vector],
    cfrc_contact_out: wp.array2d[wp.spatial_vector],
    qfrc_constraint_out: wp.array2d[float],
):
    """v_s of every dof and body of a tree; also clears the sums and rows that come next."""
    worldid, first_tree = wp.tid()
    item = wp.int32(first_tree)
    while item < ntree:
        treeid = index(item)
        item += nthread
        if drop_contact_rows and treeid == 0:
            nefc_out[worldid] = ne_in[worldid] + nf_in[worldid] + nl_in[worldid]
        h = opt_timestep[worldid % opt_timestep.shape[0]]
        first = first_body(treeid, tree_dofadr, dof_bodyid)
        bodyid = index(first)
        while bodyid < first + tree_bodynum[treeid]:
            cvel = wp.spatial_vector()
            if bodyid > first:
                cvel = cvel_smooth_pred_out[worldid, index(body_parentid[bodyid])]
            dofadr = index(body_dofadr[bodyid])
            nshift = body_shiftnum[bodyid]
            if nshift == 3:
                for i in range(3):
                    cvel[3 + i] += _predict_dof(
                        dofadr + i,
                        h,
                        qvel_in[worldid],
                        qacc_smooth_in[worldid],
                        qvel_smooth_pred_out[worldid],
                        qfrc_constraint_out[worldid],
                    )
            dofid = index(dofadr + nshift)
            while dofid < dofadr + body_dofnum[bodyid]:
                cvel += cdof_in[worldid, dofid] * _predict_dof(
                    dofid,
                    h,
                    qvel_in[worldid],
                    qacc_smooth_in[worldid],
                    qvel_smooth_pred_out[worldid],
                    qfrc_constraint_out[worldid],
                )
                dofid = index(dofid + 1)
            cvel_smooth_pred_out[worldid, bodyid] = cvel
            cfrc_contact_out[worldid, bodyid] = wp.spatial_vector()
            bodyid = index(bodyid + 1)


@wp.func
def facet_force(
    row: int, law: wp.vec3, D: float, friction: vec5, u: vec6, phi: float
) -> tuple[float, int, float]:
    """Of a row of a pyramid, J_n +- mu_i J_i: its force, which i, and +-mu_i; law is (k, d, h)."""
    i = row // 2 + 1
    mu = friction[i - 1]
    if row % 2 == 1:
        mu = -mu
    asked = D * row_acceleration(law[0], law[1], law[2], u[0] + mu * u[i], phi)
    return wp.max(asked, 0.0), i, mu


@wp.func
def elliptic_force(
    condim: int, law: wp.vec3, D: float, mu: float, friction: vec5, u: vec6, phi: float
) -> tuple[vec6, int]:
    """The force of a contact with an elliptic cone, and the state of its rows.

    D is that of the normal. MuJoCo chooses those of the friction rows such that D_i / mu_i^2 is the
    same for all, D / mu^2, where mu is regularised by impratio.
    """
    force = vec6()
    force[0] = D * row_acceleration(law[0], law[1], law[2], u[0], phi)
    tangent_sq = float(0.0)
    for i in range(1, condim):
        ratio = friction[i - 1] / mu
        force[i] = D * ratio * ratio * row_acceleration(law[0], law[1], law[2], u[i], 0.0)
        scaled = force[i] / friction[i - 1]
        tangent_sq += scaled * scaled
    normal, factor, state = cone_scale(force[0], wp.sqrt(tangent_sq), mu)
    force[0] = normal
    for i in range(1, condim):
        force[i] *= factor
    return force, state


@functools.cache
def _contact_force(
    cone: int, maxcondim: int, surfacevel: bool, adhesion: bool, sparse: bool, deterministic: bool
) -> wp.Kernel:
    """The kernel for what a model can have."""
    elliptic = cone == ConeType.ELLIPTIC
    nrow_max = max_rows_of_contact(elliptic, maxcondim)

    @wp.kernel(module="unique", enable_backward=False)
    def contact_force(
        opt_timestep: wp.array[float],
        opt_impratio_invsqrt: wp.array[float],
        stiffness: wp.array[float],
        damping: wp.array[float],
        body_rootid: wp.array[int],
        body_treeid: wp.array[int],
        body_invweight0: wp.array2d[wp.vec2],
        geom_bodyid: wp.array[int],
        njmax: int,
        njmax_nnz: int,
        naconmax: int,
        nthread: int,
        subtree_com_in: wp.array2d[wp.vec3],
        cvel_smooth_pred_in: wp.array2d[wp.spatial_vector],
        nacon_in: wp.array[int],
        contact_dist_in: wp.array[float],
        contact_pos_in: wp.array[wp.vec3],
        contact_frame_in: wp.array[wp.mat33],
        contact_includemargin_in: wp.array[float],
        contact_friction_in: wp.array[vec5],
        contact_solimp_in: wp.array[vec5],
        contact_dim_in: wp.array[int],
        contact_geom_in: wp.array[wp.vec2i],
        contact_worldid_in: wp.array[int],
        contact_type_in: wp.array[int],
        contact_adhesion_in: wp.array[float],
        contact_surfacevel_in: wp.array[wp.vec3],
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
        efc_force_out: wp.array2d[float],
        efc_state_out: wp.array2d[int],
        cfrc_contact_out: wp.array2d[wp.spatial_vector],
        cfrc_fixed_out: wp.array3d[wp.int64],
    ):
        item, ncon = wp.int32(wp.tid()), wp.min(nacon_in[0], naconmax)
        while item < ncon:
            conid = index(item)
            item += nthread
            if not (contact_type_in[conid] & CONTACT_TYPE_CONSTRAINT):
                continue
            margin = contact_includemargin_in[conid]
            phi = contact_dist_in[conid] - margin
            active = phi < 0.0
            if wp.static(adhesion):
                active = active or contact_adhesion_in[conid] != 0.0
            if not active:
                continue

            worldid = index(contact_worldid_in[conid])
            condim = wp.min(contact_dim_in[conid], wp.static(maxcondim))
            frame = contact_frame_in[conid]
            geom = contact_geom_in[conid]
            body1, body2 = index(geom_bodyid[index(geom[0])]), index(geom_bodyid[index(geom[1])])
            offset1 = contact_pos_in[conid] - subtree_com_in[worldid, index(body_rootid[body1])]
            offset2 = contact_pos_in[conid] - subtree_com_in[worldid, index(body_rootid[body2])]

            # Bodies that cannot move have no velocity in that array.
            cvel1, cvel2 = cvel_smooth_pred_in[worldid, body1], cvel_smooth_pred_in[worldid, body2]
            u = relative_velocity(frame, cvel1, offset1, cvel2, offset2)
            if wp.static(surfacevel):
                for i in range(1, wp.min(condim, 4)):
                    u[i] += contact_surfacevel_in[conid][i - 1]

            law = wp.vec3(
                stiffness[worldid % stiffness.shape[0]],
                damping[worldid % damping.shape[0]],
                opt_timestep[worldid % opt_timestep.shape[0]],
            )
            friction = contact_friction_in[conid]
            mu = friction[0] * opt_impratio_invsqrt[worldid % opt_impratio_invsqrt.shape[0]]
            invweights = body_invweight0[worldid % body_invweight0.shape[0]]
            invweight = invweights[body1][0] + invweights[body2][0]
            nrow, row_type, invweight = count_rows(
                condim, wp.static(elliptic), invweight, mu, friction[0]
            )
            imp = impedance(contact_solimp_in[conid], phi)
            D = 1.0 / wp.max(invweight * (1.0 - imp) / imp, MINVAL)

            force, state = vec6(), int(QUADRATIC)
            if condim == 1:
                force[0] = wp.max(D * row_acceleration(law[0], law[1], law[2], u[0], phi), 0.0)
                if force[0] == 0.0:
                    state = SATISFIED
            elif wp.static(elliptic):
                force, state = elliptic_force(condim, law, D, mu, friction, u, phi)

            efcid0 = reserve_rows(worldid, nrow, njmax, nefc_out)
            for row in range(wp.static(nrow_max)):
                if row < nrow:
                    D_row, f_row, pos_row = D, float(0.0), phi + margin
                    if wp.static(elliptic) or condim == 1:
                        f_row = force[row]
                        if row > 0:
                            ratio = friction[row - 1] / mu
                            D_row, pos_row = D * ratio * ratio, margin
                    else:
                        f_row, i, mu_i = facet_force(row, law, D, friction, u, phi)
                        force[0] += f_row
                        force[i] += mu_i * f_row
                        state = wp.where(f_row == 0.0, SATISFIED, QUADRATIC)
                    efcid = wp.where(efcid0 < 0, -1, efcid0 + row)
                    contact_efc_address_out[conid, row] = efcid
                    if efcid >= 0:
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
                        efc_force_out[worldid, efcid] = f_row
                        efc_state_out[worldid, efcid] = state

            if force[0] == 0.0:  # then the cone leaves nothing sideways either
                continue
            push_bodies(
                force,
                frame,
                wp.vec2i(body1, body2),
                body_treeid[body1],
                body_treeid[body2],
                offset1,
                offset2,
                wp.static(maxcondim > 3),
                wp.static(deterministic),
                cfrc_contact_out[worldid],
                cfrc_fixed_out[worldid],
            )

    return contact_force


def predict_velocity(m: Model, d: Data) -> None:
    """v_s = qvel + h * qacc_smooth: `qvel_smooth_pred`, and of bodies `cvel_smooth_pred`.

    Rows of contacts that `make_constraint` may have made are dropped from `nefc`.
    """
    if bodies.by_body(m, d):
        bodies.predict_velocity(m, d, not has_contact_rows(m))
        return
    nthread = nthread_for(d, m.ntree)
    launch(
        _predict_velocity,
        dim=(d.nworld, nthread),
        inputs=[
            m.opt.timestep,
            *tree_arrays(m),
            m.body_shiftnum,
            d.qvel,
            d.qacc_smooth,
            d.cdof,
            *(not has_contact_rows(m), m.ntree, nthread),
            *(d.ne, d.nf, d.nl),
        ],
        outputs=[d.nefc, d.qvel_smooth_pred, d.cvel_smooth_pred, d.cfrc_contact, d.qfrc_constraint],
    )


@functools.cache
def _describe_contacts(elliptic: bool, maxcondim: int, adhesion: bool, sparse: bool) -> wp.Kernel:
    nrow_max = max_rows_of_contact(elliptic, maxcondim)

    @wp.kernel(module="unique", enable_backward=False)
    def describe_contacts(
        opt_impratio_invsqrt: wp.array[float],
        body_invweight0: wp.array2d[wp.vec2],
        geom_bodyid: wp.array[int],
        njmax: int,
        njmax_nnz: int,
        naconmax: int,
        nthread: int,
        nacon_in: wp.array[int],
        contact_dist_in: wp.array[float],
        contact_includemargin_in: wp.array[float],
        contact_friction_in: wp.array[vec5],
        contact_solimp_in: wp.array[vec5],
        contact_dim_in: wp.array[int],
        contact_geom_in: wp.array[wp.vec2i],
        contact_worldid_in: wp.array[int],
        contact_type_in: wp.array[int],
        contact_adhesion_in: wp.array[float],
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
        efc_force_out: wp.array2d[float],
        efc_state_out: wp.array2d[int],
    ):
        item, ncon = wp.int32(wp.tid()), wp.min(nacon_in[0], naconmax)
        while item < ncon:
            conid = index(item)
            item += nthread
            margin = contact_includemargin_in[conid]
            phi = contact_dist_in[conid] - margin
            active = phi < 0.0
            if wp.static(adhesion):
                active = active or contact_adhesion_in[conid] != 0.0
            if not active or not (contact_type_in[conid] & CONTACT_TYPE_CONSTRAINT):
                continue
            worldid = index(contact_worldid_in[conid])
            condim = wp.min(contact_dim_in[conid], wp.static(maxcondim))
            geom, friction = contact_geom_in[conid], contact_friction_in[conid]
            invweights = body_invweight0[worldid % body_invweight0.shape[0]]
            invweight = invweights[geom_bodyid[geom[0]]][0] + invweights[geom_bodyid[geom[1]]][0]
            mu = friction[0] * opt_impratio_invsqrt[worldid % opt_impratio_invsqrt.shape[0]]
            nrow, row_type, invweight = count_rows(
                condim, wp.static(elliptic), invweight, mu, friction[0]
            )
            imp = impedance(contact_solimp_in[conid], phi)
            D = 1.0 / wp.max(invweight * (1.0 - imp) / imp, MINVAL)
            efcid0 = reserve_rows(worldid, nrow, njmax, nefc_out)
            for row in range(wp.static(nrow_max)):
                if row < nrow:
                    efcid = wp.where(efcid0 < 0, -1, efcid0 + row)
                    contact_efc_address_out[conid, row] = efcid
                    if efcid >= 0:
                        D_row, pos_row = D, phi + margin
                        if wp.static(elliptic) and row > 0:
                            ratio = friction[row - 1] / mu
                            D_row, pos_row = D * ratio * ratio, margin
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
                        efc_force_out[worldid, efcid] = 0.0
                        efc_state_out[worldid, efcid] = SATISFIED

    return describe_contacts


def describe_contacts(m: Model, d: Data) -> None:
    """The rows of all contacts in `efc`, as `force_contacts` makes them, with no force yet."""
    contact = d.contact
    nthread = nthread_for(d, d.naconmax)
    elliptic = m.opt.cone == ConeType.ELLIPTIC
    launch(
        _describe_contacts(
            bool(elliptic), int(m.nmaxcondim), bool(m.flg_adhesion), bool(m.is_sparse)
        ),
        dim=nthread,
        inputs=[
            *(m.opt.impratio_invsqrt, m.body_invweight0, m.geom_bodyid),
            *(d.njmax, d.njmax_nnz, d.naconmax, nthread, d.nacon),
            *(contact.dist, contact.includemargin, contact.friction, contact.solimp, contact.dim),
            *(contact.geom, contact.worldid, contact.type, contact.adhesion),
        ],
        outputs=[
            *(d.nefc, contact.efc_address, *described_rows(d), d.efc.force, d.efc.state),
        ],
    )


def force_contacts(m: Model, d: Data) -> None:
    """`cfrc_contact` of all contacts, and their rows of `efc`."""
    contact, efc = d.contact, d.efc
    nthread = nthread_for(d, d.naconmax)
    launch(
        _contact_force(
            int(m.opt.cone),
            int(m.nmaxcondim),
            bool(m.flg_surfacevel),
            bool(m.flg_adhesion),
            bool(m.is_sparse),
            is_deterministic(m),
        ),
        dim=nthread,
        inputs=[
            m.opt.timestep,
            m.opt.impratio_invsqrt,
            m.comfree_stiffness,
            m.comfree_damping,
            m.body_rootid,
            m.body_treeid,
            m.body_invweight0,
            m.geom_bodyid,
            d.njmax,
            d.njmax_nnz,
            d.naconmax,
            nthread,
            d.subtree_com,
            d.cvel_smooth_pred,
            d.nacon,
            contact.dist,
            contact.pos,
            contact.frame,
            contact.includemargin,
            contact.friction,
            contact.solimp,
            contact.dim,
            contact.geom,
            contact.worldid,
            contact.type,
            contact.adhesion,
            contact.surfacevel,
        ],
        outputs=[
            d.nefc,
            contact.efc_address,
            *described_rows(d),
            efc.force,
            efc.state,
            d.cfrc_contact,
            d.cfrc_fixed,
        ],
    )
