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

import mujoco
import mujoco_warp
import warp as wp
from mujoco_warp import ConeType, DisableBit

from comfree_warp.paper.law import QUADRATIC, SATISFIED, cone_scale, row_acceleration
from comfree_warp.paper.rows import has_contact_rows
from comfree_warp.shared import bodies
from comfree_warp.shared.fixed_point import from_fixed, is_deterministic, to_fixed
from comfree_warp.shared.threads import (
    first_body,
    index,
    launch,
    nthread_for,
    push_dof,
    tree_arrays,
)
from comfree_warp.types import CONTACT_TYPE_CONSTRAINT, Data, Model, vec5, vec6

FRICTIONLESS = wp.constant(int(mujoco.mjtConstraint.mjCNSTR_CONTACT_FRICTIONLESS))
PYRAMIDAL = wp.constant(int(mujoco.mjtConstraint.mjCNSTR_CONTACT_PYRAMIDAL))
ELLIPTIC = wp.constant(int(mujoco.mjtConstraint.mjCNSTR_CONTACT_ELLIPTIC))
MINVAL = wp.constant(mujoco.mjMINVAL)
MINIMP = wp.constant(mujoco.mjMINIMP)
MAXIMP = wp.constant(mujoco.mjMAXIMP)


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
def impedance(solimp: vec5, pos: float) -> float:
    """d(r) of MuJoCo's "Solver parameters": how much of a row's motion its force resists."""
    dmin = wp.clamp(solimp[0], MINIMP, MAXIMP)
    dmax = wp.clamp(solimp[1], MINIMP, MAXIMP)
    if dmin == dmax or solimp[2] <= MINVAL:
        return 0.5 * (dmin + dmax)
    x = wp.abs(pos) / solimp[2]
    if x >= 1.0:
        return dmax
    mid = wp.clamp(solimp[3], MINIMP, MAXIMP)
    power = wp.max(solimp[4], 1.0)
    y = x
    if power == 2.0:  # the default, without wp.pow, which costs as much as the rest of the row
        y = wp.where(x <= mid, x * x / mid, 1.0 - (1.0 - x) * (1.0 - x) / (1.0 - mid))
    elif power > 1.0:
        if x <= mid:
            y = wp.pow(x, power) / wp.pow(mid, power - 1.0)
        else:
            y = 1.0 - wp.pow(1.0 - x, power) / wp.pow(1.0 - mid, power - 1.0)
    return dmin + y * (dmax - dmin)


@wp.func
def relative_velocity(
    frame: wp.mat33,
    cvel1: wp.spatial_vector,
    offset1: wp.vec3,
    cvel2: wp.spatial_vector,
    offset2: wp.vec3,
) -> vec6:
    """Body 2's minus body 1's at the contact, in its frame: normal, tangents, spin, rolls.

    The offsets lead to the contact from where the spatial velocities are taken.
    """
    linear = wp.spatial_bottom(cvel2) + wp.cross(wp.spatial_top(cvel2), offset2)
    linear -= wp.spatial_bottom(cvel1) + wp.cross(wp.spatial_top(cvel1), offset1)
    linear = frame * linear
    angular = frame * (wp.spatial_top(cvel2) - wp.spatial_top(cvel1))
    return vec6(linear[0], linear[1], linear[2], angular[0], angular[1], angular[2])


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


@wp.func
def _add_wrench(
    force: wp.vec3,
    torque: wp.vec3,
    offset: wp.vec3,
    bodyid: int,
    deterministic: bool,
    cfrc: wp.array[wp.spatial_vector],
    fixed: wp.array2d[wp.int64],
):
    """Add a force and torque at a point to a body's wrench, about what is `offset` before it."""
    wrench = wp.spatial_vector(torque + wp.cross(offset, force), force)
    if deterministic:
        for i in range(6):
            wp.atomic_add(fixed, bodyid, i, to_fixed(wrench[i]))
    else:
        wp.atomic_add(cfrc, bodyid, wrench)


@wp.func
def push_apart(
    pull: wp.vec3,
    turn: wp.vec3,
    body: wp.vec2i,
    treeid1: int,
    treeid2: int,
    offset1: wp.vec3,
    offset2: wp.vec3,
    deterministic: bool,
    cfrc: wp.array[wp.spatial_vector],
    fixed: wp.array2d[wp.int64],
):
    """Apply a force and a torque to body 2 and their opposites to body 1.

    Bodies of no tree cannot move, and are left out.
    """
    if treeid1 >= 0:
        _add_wrench(-pull, -turn, offset1, body[0], deterministic, cfrc, fixed)
    if treeid2 >= 0:
        _add_wrench(pull, turn, offset2, body[1], deterministic, cfrc, fixed)


@wp.func
def push_bodies(
    force: vec6,
    frame: wp.mat33,
    body: wp.vec2i,
    treeid1: int,
    treeid2: int,
    offset1: wp.vec3,
    offset2: wp.vec3,
    turns: bool,
    deterministic: bool,
    cfrc: wp.array[wp.spatial_vector],
    fixed: wp.array2d[wp.int64],
):
    """Apply a contact's force, in its frame, to body 2 and its opposite to body 1.

    Without `turns` there is no torque.
    """
    toward = wp.transpose(frame)
    pull = toward * wp.vec3(force[0], force[1], force[2])
    turn = wp.vec3()
    if turns:
        turn = toward * wp.vec3(force[3], force[4], force[5])
    push_apart(pull, turn, body, treeid1, treeid2, offset1, offset2, deterministic, cfrc, fixed)


def max_rows_of_contact(elliptic: bool, maxcondim: int) -> int:
    """The most rows that a contact has in `efc`: a constant bound, so that a loop unrolls."""
    return maxcondim if elliptic else max(1, 2 * (maxcondim - 1))


@wp.func
def reserve_rows(worldid: int, nrow: int, njmax: int, nefc_out: wp.array[int]) -> int:
    """Where the rows of a contact begin in `efc`; -1 where there is no room for all of them.

    All or none, since readers look at the first.
    """
    efcid0 = wp.atomic_add(nefc_out, worldid, nrow)
    return wp.where(efcid0 + nrow > njmax, -1, efcid0)


@wp.func
def count_rows(
    condim: int, elliptic: bool, invweight: float, mu: float, sliding: float
) -> tuple[int, int, float]:
    """Number and type of the rows that a contact has in `efc`, and the inverse weight of each.

    `mu` is the regularized, `sliding` the given coefficient of sliding friction. Source: MuJoCo's
    "Computation" chapter, on pyramidal cones.
    """
    if condim == 1:
        return condim, int(FRICTIONLESS), invweight
    if elliptic:
        return condim, int(ELLIPTIC), invweight
    facet = invweight * (2.0 * (1.0 + sliding * sliding) * mu * mu)
    return 2 * (condim - 1), int(PYRAMIDAL), facet


@wp.func
def describe_row(
    worldid: int,
    efcid: int,
    conid: int,
    row_type: int,
    pos: float,
    margin: float,
    D: float,
    sparse: bool,
    njmax_nnz: int,
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
):
    """Write what `efc` tells of a contact's row beside its force and state.

    J, vel and aref are not computed, and read as NaN, so that nobody takes what an earlier step has
    left for them. A sparse J has an entry for that behind those of the other rows.
    """
    nan = wp.static(float("nan"))
    efc_type_out[worldid, efcid] = row_type
    efc_id_out[worldid, efcid] = conid
    efc_pos_out[worldid, efcid] = pos
    efc_margin_out[worldid, efcid] = margin
    efc_D_out[worldid, efcid] = D
    efc_frictionloss_out[worldid, efcid] = 0.0
    efc_vel_out[worldid, efcid] = nan
    efc_aref_out[worldid, efcid] = nan
    if sparse:
        efc_J_rownnz_out[worldid, efcid] = 1
        efc_J_rowadr_out[worldid, efcid] = njmax_nnz
    elif not wp.isnan(efc_J_out[worldid, efcid, 0]):  # it was another row's, or never used
        for i in range(efc_J_out.shape[2]):
            efc_J_out[worldid, efcid, i] = nan


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


@wp.func
def sweep_up(
    treeid: int,
    deterministic: bool,
    total: bool,
    consume: bool,
    diagonal: bool,
    body_parentid: wp.array[int],
    body_dofadr: wp.array[int],
    body_dofnum: wp.array[int],
    dof_bodyid: wp.array[int],
    tree_dofadr: wp.array[int],
    tree_bodynum: wp.array[int],
    body_shiftnum: wp.array[int],
    cdof: wp.array[wp.spatial_vector],
    qfrc_smooth: wp.array[float],
    qLDiagInv: wp.array[float],
    cfrc_fixed: wp.array2d[wp.int64],
    qfrc_fixed: wp.array[wp.int64],
    cfrc_contact: wp.array[wp.spatial_vector],
    qfrc: wp.array[float],
    qfrc_total: wp.array[float],
    qacc: wp.array[float],
):
    """A sweep up a tree of a world: qfrc += what the contact wrenches do along its dofs.

    `total` and `diagonal` as of `push_dof`. `consume`: the wrenches are zero afterwards.
    """
    first = first_body(treeid, tree_dofadr, dof_bodyid)
    last = first + tree_bodynum[treeid] - 1
    body = wp.int32(last)
    while body >= first:
        bodyid = index(body)
        body -= 1
        cfrc = cfrc_contact[bodyid]
        if deterministic:
            for i in range(6):
                cfrc[i] += from_fixed(cfrc_fixed[bodyid, i])
                cfrc_fixed[bodyid, i] = wp.int64(0)
        if consume:
            cfrc_contact[bodyid] = wp.spatial_vector()
        elif deterministic:
            cfrc_contact[bodyid] = cfrc
        if bodyid > first:
            cfrc_contact[index(body_parentid[bodyid])] += cfrc
        dofadr = index(body_dofadr[bodyid])
        nshift = body_shiftnum[bodyid]
        if nshift == 3:
            for i in range(3):
                push_dof(
                    dofadr + i,
                    cfrc[3 + i],
                    deterministic,
                    total,
                    diagonal,
                    qfrc_smooth,
                    qLDiagInv,
                    qfrc_fixed,
                    qfrc,
                    qfrc_total,
                    qacc,
                )
        dofid = index(dofadr + nshift)
        while dofid < dofadr + body_dofnum[bodyid]:
            push_dof(
                dofid,
                wp.dot(cdof[dofid], cfrc),
                deterministic,
                total,
                diagonal,
                qfrc_smooth,
                qLDiagInv,
                qfrc_fixed,
                qfrc,
                qfrc_total,
                qacc,
            )
            dofid = index(dofid + 1)


@functools.cache
def _accumulate_forces(
    deterministic: bool, total: bool, consume: bool, diagonal: bool
) -> wp.Kernel:
    @wp.kernel(module="unique", enable_backward=False)
    def accumulate_forces(
        body_parentid: wp.array[int],
        body_dofadr: wp.array[int],
        body_dofnum: wp.array[int],
        dof_bodyid: wp.array[int],
        tree_dofadr: wp.array[int],
        tree_bodynum: wp.array[int],
        body_shiftnum: wp.array[int],
        ntree: int,
        nthread: int,
        cdof_in: wp.array2d[wp.spatial_vector],
        qfrc_smooth_in: wp.array2d[float],
        qLDiagInv_in: wp.array2d[float],
        cfrc_fixed_out: wp.array3d[wp.int64],
        qfrc_fixed_out: wp.array2d[wp.int64],
        cfrc_contact_out: wp.array2d[wp.spatial_vector],
        qfrc_out: wp.array2d[float],
        qfrc_total_out: wp.array2d[float],
        qacc_out: wp.array2d[float],
    ):
        worldid, first = wp.tid()
        item = wp.int32(first)
        while item < ntree:
            treeid = index(item)
            item += nthread
            sweep_up(
                treeid,
                wp.static(deterministic),
                wp.static(total),
                wp.static(consume),
                wp.static(diagonal),
                body_parentid,
                body_dofadr,
                body_dofnum,
                dof_bodyid,
                tree_dofadr,
                tree_bodynum,
                body_shiftnum,
                cdof_in[worldid],
                qfrc_smooth_in[worldid],
                qLDiagInv_in[worldid],
                cfrc_fixed_out[worldid],
                qfrc_fixed_out[worldid],
                cfrc_contact_out[worldid],
                qfrc_out[worldid],
                qfrc_total_out[worldid],
                qacc_out[worldid],
            )

    return accumulate_forces


def has_contacts(m: Model) -> bool:
    """Whether contacts act at all."""
    return not m.opt.disableflags & (DisableBit.CONTACT | DisableBit.CONSTRAINT)


def is_diagonal(d: Data) -> bool:
    """Whether M is diagonal, so that no block of it has a factor."""
    return d.qLD.shape[1] == 0


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


def described_rows(d: Data) -> list[wp.array]:
    """The arrays of `efc` that `describe_row` writes."""
    efc = d.efc
    return [
        *(efc.type, efc.id, efc.J_rownnz, efc.J_rowadr, efc.J, efc.pos, efc.margin, efc.D),
        *(efc.vel, efc.aref, efc.frictionloss),
    ]


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


def accelerate(
    m: Model,
    d: Data,
    qfrc: wp.array2d[float],
    qacc: wp.array2d[float],
    *,
    total: bool,
    consume: bool,
) -> None:
    """`qfrc` += J^T of the contact wrenches, a sweep up every tree, and M^-1 of that.

    Args:
      m: the model.
      d: the data.
      qfrc: joint forces, (nworld, nv) (N, N m).
      qacc: the acceleration that they lead to, (nworld, nv) (m/s^2, rad/s^2).
      total: that of `qfrc_total` = `qfrc_smooth` + `qfrc` instead.
      consume: leave `cfrc_contact` empty for the next ones, instead of with the sums.
    """
    diagonal = is_diagonal(d)
    switches = (is_deterministic(m), total, consume, diagonal)
    if bodies.by_body(m, d):
        bodies.accumulate_forces(m, d, qfrc, qacc, *switches)
    else:
        nthread = nthread_for(d, m.ntree)
        launch(
            _accumulate_forces(*switches),
            dim=(d.nworld, nthread),
            inputs=[
                *(*tree_arrays(m), m.body_shiftnum, m.ntree, nthread),
                *(d.cdof, d.qfrc_smooth, d.qLDiagInv),
            ],
            outputs=[d.cfrc_fixed, d.qfrc_fixed, d.cfrc_contact, qfrc, d.qfrc_total, qacc],
        )
    if not diagonal:
        mujoco_warp.solve_m(m, d, qacc, d.qfrc_total if total else qfrc)
