"""Rows that have a Jacobian under the warm law: equalities, limits, friction loss. As ../rows.py.

Kinds: 0 for equalities and limits, which go with the normals of contacts; 1 for friction loss.
"""

import functools

import mujoco
import warp as wp

from comfree_warp.shared.contacts import impedance
from comfree_warp.shared.fixed_point import add_to, is_deterministic
from comfree_warp.shared.rows import max_rows, project_row
from comfree_warp.shared.threads import index, launch, nthread_for
from comfree_warp.types import Data, Model, vec5
from comfree_warp.warm.jacobian import Jacobian, column_dof, entry, jacobian, ncolumn
from comfree_warp.warm.law import kept_part, solref_gains
from comfree_warp.warm.stacks.body import CONJUGATE, WORK, add_sum, tree_beta
from comfree_warp.warm.stages import CONJUGATE_STEP, FRICTION, NORMAL, PROPOSAL

_EQUALITY = wp.constant(int(mujoco.mjtConstraint.mjCNSTR_EQUALITY))
_FRICTION_DOF = wp.constant(int(mujoco.mjtConstraint.mjCNSTR_FRICTION_DOF))
_FRICTION_TENDON = wp.constant(int(mujoco.mjtConstraint.mjCNSTR_FRICTION_TENDON))
_LIMIT_JOINT = wp.constant(int(mujoco.mjtConstraint.mjCNSTR_LIMIT_JOINT))
_LIMIT_TENDON = wp.constant(int(mujoco.mjtConstraint.mjCNSTR_LIMIT_TENDON))
_CONNECT = wp.constant(int(mujoco.mjtEq.mjEQ_CONNECT))
_WELD = wp.constant(int(mujoco.mjtEq.mjEQ_WELD))


@wp.func
def _kind(row_type: int) -> int:
    if row_type == _FRICTION_DOF or row_type == _FRICTION_TENDON:
        return FRICTION
    return NORMAL


@wp.func
def _is_same(
    efcid: int, other: int, efc_type: wp.array2d[int], efc_id: wp.array2d[int], worldid: int
) -> bool:
    return (
        efc_type[worldid, other] == efc_type[worldid, efcid]
        and efc_id[worldid, other] == efc_id[worldid, efcid]
    )


@wp.func
def _place_in_block(
    efcid: int, efc_type: wp.array2d[int], efc_id: wp.array2d[int], worldid: int
) -> int:
    """How many rows of the same constraint come before; they lie together.

    By doubling steps and halving them again, since the edges of a flex are thousands of rows.
    """
    place = wp.int32(0)
    stride = wp.int32(1)
    while efcid - place - stride >= 0 and _is_same(
        efcid, efcid - place - stride, efc_type, efc_id, worldid
    ):
        place += stride
        stride *= 2
    while stride > 0:
        if efcid - place - stride >= 0 and _is_same(
            efcid, efcid - place - stride, efc_type, efc_id, worldid
        ):
            place += stride
        stride = stride // 2
    return place


@wp.func
def _add_force(
    force: float,
    jac: Jacobian,
    worldid: int,
    efcid: int,
    deterministic: bool,
    qfrc: wp.array[float],
    fixed: wp.array[wp.int64],
):
    """Qfrc += J^T of a force along a row."""
    for column in range(ncolumn(jac, worldid, efcid)):
        J = entry(jac, worldid, efcid, column)
        if J != 0.0:
            dofid = column_dof(jac, worldid, efcid, column)
            add_to(J * force, dofid, deterministic, qfrc, fixed)


@functools.cache
def _prepare(deterministic: bool) -> wp.Kernel:
    @wp.kernel(module="unique", enable_backward=False)
    def prepare_rows(
        nv: int,
        njnt: int,
        ntendon: int,
        neqslot: int,
        opt_timestep: wp.array[float],
        opt_disableflags: int,
        eq_type: wp.array[int],
        eq_solref: wp.array2d[wp.vec2],
        eq_solimp: wp.array2d[vec5],
        jnt_solref: wp.array2d[wp.vec2],
        jnt_solimp: wp.array2d[vec5],
        tendon_solref_lim: wp.array2d[wp.vec2],
        tendon_solimp_lim: wp.array2d[vec5],
        dof_treeid: wp.array[int],
        njmax: int,
        nthread: int,
        M_diaginv_in: wp.array2d[float],
        ne_in: wp.array[int],
        nf_in: wp.array[int],
        nl_in: wp.array[int],
        efc_type_in: wp.array2d[int],
        efc_id_in: wp.array2d[int],
        jac: Jacobian,
        efc_pos_in: wp.array2d[float],
        efc_margin_in: wp.array2d[float],
        efc_D_in: wp.array2d[float],
        efc_vel_in: wp.array2d[float],
        efc_aref_in: wp.array2d[float],
        efc_frictionloss_in: wp.array2d[float],
        eq_slotadr: wp.array[int],
        eq_slotnum: wp.array[int],
        mem_row_in: wp.array3d[float],
        valid_in: wp.array2d[int],
        efc_force_out: wp.array2d[float],
        row_slot_out: wp.array2d[int],
        row_bias_out: wp.array2d[float],
        row_invmetric_out: wp.array2d[float],
        row_mean_out: wp.array2d[float],
        qfrc_constraint_out: wp.array2d[float],
        qfrc_fixed_out: wp.array2d[wp.int64],
    ):
        worldid, first = wp.tid()
        nrow = wp.min(ne_in[worldid] + nf_in[worldid] + nl_in[worldid], njmax)
        item = wp.int32(first)
        while item < nrow:
            efcid = index(item)
            item += nthread
            row_type, id = efc_type_in[worldid, efcid], efc_id_in[worldid, efcid]

            # K I and B of rows that have a spring; what the memory calls the row.
            h = opt_timestep[worldid % opt_timestep.shape[0]]
            phi = efc_pos_in[worldid, efcid] - efc_margin_in[worldid, efcid]
            slot = wp.int32(-1)
            solref, solimp, spring = wp.vec2(), vec5(), bool(True)
            if row_type == _EQUALITY:
                solref = eq_solref[worldid % eq_solref.shape[0], id]
                solimp = eq_solimp[worldid % eq_solimp.shape[0], id]
                place = _place_in_block(efcid, efc_type_in, efc_id_in, worldid)
                if place < eq_slotnum[id]:
                    slot = eq_slotadr[id] + place
                if eq_type[id] == _CONNECT or eq_type[id] == _WELD:
                    total = float(0.0)
                    for i in range(wp.where(eq_type[id] == _WELD, 6, 3)):
                        other = efcid - place + i
                        if (
                            other < njmax
                            and other < ne_in[worldid]
                            and _is_same(efcid, other, efc_type_in, efc_id_in, worldid)
                        ):
                            apart = efc_pos_in[worldid, other] - efc_margin_in[worldid, other]
                            total += apart * apart
                    phi = wp.sqrt(total)
            elif row_type == _LIMIT_JOINT:
                solref = jnt_solref[worldid % jnt_solref.shape[0], id]
                solimp = jnt_solimp[worldid % jnt_solimp.shape[0], id]
                slot = neqslot + nv + ntendon + 2 * id
            elif row_type == _LIMIT_TENDON:
                solref = tendon_solref_lim[worldid % tendon_solref_lim.shape[0], id]
                solimp = tendon_solimp_lim[worldid % tendon_solimp_lim.shape[0], id]
                slot = neqslot + nv + ntendon + 2 * njnt + id
            else:
                spring = False
                slot = neqslot + id
                if row_type == _FRICTION_TENDON:
                    slot += nv
            bias = -efc_aref_in[worldid, efcid]
            kept = float(1.0)
            if spring:
                gains = solref_gains(solref, solimp, h, opt_disableflags)
                B = gains[1]
                if row_type != _EQUALITY:
                    B = wp.max(B, 1.0 / h)
                    bias += (B - gains[1]) * efc_vel_in[worldid, efcid]
                kept = kept_part(h, gains[0] * impedance(solimp, phi), B)

            # P, and whether the memory holds for all trees that the row touches.
            nonzeros = wp.int32(0)
            positive = bool(False)
            P = float(0.0)
            valid = bool(True)
            for column in range(ncolumn(jac, worldid, efcid)):
                J = entry(jac, worldid, efcid, column)
                if J != 0.0:
                    dofid = column_dof(jac, worldid, efcid, column)
                    P += J * J * M_diaginv_in[worldid, dofid]
                    valid = valid and valid_in[worldid, dof_treeid[dofid]] != 0
                    nonzeros += 1
                    positive = J > 0.0
            if row_type == _LIMIT_JOINT and nonzeros == 1 and positive:
                slot += 1  # a joint's two limits push in opposite directions
            force = float(0.0)
            mean = float(0.0)
            if valid and slot >= 0:
                mean = mem_row_in[worldid, slot, 1]
                force = mem_row_in[worldid, slot, 0]
                if spring:
                    force = mean + kept * (force - mean)
            force, _ = project_row(row_type, efc_frictionloss_in[worldid, efcid], force)
            efc_force_out[worldid, efcid] = force
            row_slot_out[worldid, efcid] = slot
            row_bias_out[worldid, efcid] = bias
            row_invmetric_out[worldid, efcid] = 1.0 / (P + 1.0 / efc_D_in[worldid, efcid])
            row_mean_out[worldid, efcid] = mean
            if force == 0.0:
                continue
            _add_force(
                force,
                jac,
                worldid,
                efcid,
                wp.static(deterministic),
                qfrc_constraint_out[worldid],
                qfrc_fixed_out[worldid],
            )

    return prepare_rows


@functools.cache
def _step(kind: int, stage: int, deterministic: bool) -> wp.Kernel:
    @wp.kernel(module="unique", enable_backward=False)
    def step_rows(
        dof_treeid: wp.array[int],
        njmax: int,
        nthread: int,
        ne_in: wp.array[int],
        nf_in: wp.array[int],
        nl_in: wp.array[int],
        efc_type_in: wp.array2d[int],
        jac: Jacobian,
        efc_D_in: wp.array2d[float],
        efc_frictionloss_in: wp.array2d[float],
        qacc_in: wp.array2d[float],
        alpha_in: wp.array3d[float],
        scale_in: wp.array[float],
        row_bias_in: wp.array2d[float],
        row_invmetric_in: wp.array2d[float],
        efc_force_out: wp.array2d[float],
        row_step_out: wp.array2d[float],
        row_residual_out: wp.array2d[float],
        row_proposed_out: wp.array2d[float],
        sums_out: wp.array3d[float],
        sums_fixed_out: wp.array4d[wp.int64],
        qfrc_step_out: wp.array2d[float],
        qfrc_fixed_out: wp.array2d[wp.int64],
    ):
        worldid, first = wp.tid()
        nrow = wp.min(ne_in[worldid] + nf_in[worldid] + nl_in[worldid], njmax)
        item = wp.int32(first)
        while item < nrow:
            efcid = index(item)
            item += nthread
            row_type = efc_type_in[worldid, efcid]
            if _kind(row_type) != wp.static(kind):
                continue
            sums, sums_fixed = sums_out[worldid], sums_fixed_out[worldid]

            # Trees come one after the other along a row, since its dofs do.
            J_qacc = float(0.0)
            alpha = float(1.0)
            beta = float(1.0)
            ntree = wp.int32(0)
            last = wp.int32(-1)
            for column in range(ncolumn(jac, worldid, efcid)):
                J = entry(jac, worldid, efcid, column)
                if J != 0.0:
                    dofid = column_dof(jac, worldid, efcid, column)
                    J_qacc += J * qacc_in[worldid, dofid]
                    treeid = dof_treeid[dofid]
                    if treeid != last:
                        last = treeid
                        ntree += 1
                        alpha = wp.min(alpha, alpha_in[worldid, treeid, kind])
                        if wp.static(stage == CONJUGATE_STEP):
                            kept = tree_beta(treeid, wp.static(deterministic), sums, sums_fixed)
                            beta = wp.min(beta, kept)
            R, force = 1.0 / efc_D_in[worldid, efcid], float(efc_force_out[worldid, efcid])
            taken = float(0.0)
            if wp.static(stage == PROPOSAL):
                taken = scale_in[worldid] * row_step_out[worldid, efcid]
                force += taken
                efc_force_out[worldid, efcid] = force
            loss = efc_frictionloss_in[worldid, efcid]
            residual = J_qacc + row_bias_in[worldid, efcid] + R * force
            wanted = force - residual * row_invmetric_in[worldid, efcid]
            if wp.static(stage == CONJUGATE_STEP):
                residual = row_residual_out[worldid, efcid]
                wanted = force + row_proposed_out[worldid, efcid]
                wanted += beta * row_step_out[worldid, efcid]
            allowed, _ = project_row(row_type, loss, wanted)
            step = allowed - force
            change = residual - row_residual_out[worldid, efcid]
            row_residual_out[worldid, efcid] = residual
            if wp.static(stage == PROPOSAL):
                if row_type != _EQUALITY and allowed <= 0.0:
                    taken = 0.0
                row_proposed_out[worldid, efcid] = step
                row_step_out[worldid, efcid] = taken
            else:
                step *= alpha
                row_step_out[worldid, efcid] = step
                if step == 0.0:
                    continue

            if wp.static(stage != PROPOSAL):
                _add_force(
                    step,
                    jac,
                    worldid,
                    efcid,
                    wp.static(deterministic),
                    qfrc_step_out[worldid],
                    qfrc_fixed_out[worldid],
                )
            share = 1.0 / float(wp.max(ntree, 1))
            one, other = -share * residual * step, share * R * step * step
            which = wp.static(int(WORK))
            if wp.static(stage == PROPOSAL):
                one, other = share * step * change, share * taken * change
                which = wp.static(int(CONJUGATE))
            last = wp.int32(-1)
            for column in range(ncolumn(jac, worldid, efcid)):
                if entry(jac, worldid, efcid, column) != 0.0:
                    treeid = dof_treeid[column_dof(jac, worldid, efcid, column)]
                    if treeid != last:
                        last = treeid
                        add_sum(one, treeid, which, wp.static(deterministic), sums, sums_fixed)
                        add_sum(
                            other, treeid, which + 1, wp.static(deterministic), sums, sums_fixed
                        )

    return step_rows


@functools.cache
def _take_step(kind: int, total: bool, deterministic: bool) -> wp.Kernel:
    @wp.kernel(module="unique", enable_backward=False)
    def take_row_step(
        njmax: int,
        nthread: int,
        ne_in: wp.array[int],
        nf_in: wp.array[int],
        nl_in: wp.array[int],
        efc_type_in: wp.array2d[int],
        jac: Jacobian,
        efc_frictionloss_in: wp.array2d[float],
        scale_in: wp.array[float],
        row_step_in: wp.array2d[float],
        efc_force_out: wp.array2d[float],
        efc_state_out: wp.array2d[int],
        qfrc_constraint_out: wp.array2d[float],
        qfrc_fixed_out: wp.array2d[wp.int64],
    ):
        """Take a step; then J^T f of all rows where `total`, else the states."""
        worldid, first = wp.tid()
        nrow = wp.min(ne_in[worldid] + nf_in[worldid] + nl_in[worldid], njmax)
        item = wp.int32(first)
        while item < nrow:
            efcid = index(item)
            item += nthread
            row_type = efc_type_in[worldid, efcid]
            force = float(efc_force_out[worldid, efcid])
            if _kind(row_type) == wp.static(kind):
                force += scale_in[worldid] * row_step_in[worldid, efcid]
                efc_force_out[worldid, efcid] = force
            if wp.static(not total):
                loss = efc_frictionloss_in[worldid, efcid]
                _, state = project_row(row_type, loss, force)
                efc_state_out[worldid, efcid] = state
                continue
            if force == 0.0:
                continue
            _add_force(
                force,
                jac,
                worldid,
                efcid,
                wp.static(deterministic),
                qfrc_constraint_out[worldid],
                qfrc_fixed_out[worldid],
            )

    return take_row_step


def prepare(m: Model, d: Data) -> None:
    """Find a, R, P of every row; its warm force, and J^T of that in `qfrc_constraint`."""
    warm, efc = d.warm, d.efc
    nthread = nthread_for(d, max_rows(m, d))
    neqslot = warm.mem_row.shape[1] - m.nv - 2 * m.njnt - 2 * m.ntendon
    launch(
        _prepare(is_deterministic(m)),
        dim=(d.nworld, nthread),
        inputs=[
            *(m.nv, m.njnt, m.ntendon, neqslot, m.opt.timestep, m.opt.disableflags),
            *(m.eq_type, m.eq_solref, m.eq_solimp, m.jnt_solref, m.jnt_solimp),
            *(m.tendon_solref_lim, m.tendon_solimp_lim, m.dof_treeid),
            *(d.njmax, nthread, warm.M_diaginv, d.ne, d.nf, d.nl),
            *(efc.type, efc.id, jacobian(m, d), efc.pos, efc.margin),
            *(efc.D, efc.vel, efc.aref, efc.frictionloss),
            *(warm.eq_slotadr, warm.eq_slotnum, warm.mem_row, warm.valid),
        ],
        outputs=[
            *(efc.force, warm.row_slot, warm.row_bias, warm.row_invmetric, warm.row_mean),
            *(d.qfrc_constraint, d.qfrc_fixed),
        ],
    )


def step(m: Model, d: Data, kind: int, stage: int) -> None:
    """The step d of the rows of a kind, or a stage of that."""
    warm, efc = d.warm, d.efc
    nthread = nthread_for(d, max_rows(m, d))
    launch(
        _step(kind, stage, is_deterministic(m)),
        dim=(d.nworld, nthread),
        inputs=[
            *(m.dof_treeid, d.njmax, nthread, d.ne, d.nf, d.nl, efc.type, jacobian(m, d), efc.D),
            *(efc.frictionloss, d.qacc, warm.alpha, warm.scale, warm.row_bias, warm.row_invmetric),
        ],
        outputs=[
            *(efc.force, warm.row_step, warm.row_residual, warm.row_proposed),
            *(warm.sums, warm.sums_fixed, warm.qfrc_step, d.qfrc_fixed),
        ],
    )


def _take_step_of(m: Model, d: Data, kind: int, total: bool) -> None:
    nthread = nthread_for(d, max_rows(m, d))
    launch(
        _take_step(kind, total, is_deterministic(m)),
        dim=(d.nworld, nthread),
        inputs=[
            *(d.njmax, nthread, d.ne, d.nf, d.nl, d.efc.type, jacobian(m, d), d.efc.frictionloss),
            *(d.warm.scale, d.warm.row_step),
        ],
        outputs=[d.efc.force, d.efc.state, d.qfrc_constraint, d.qfrc_fixed],
    )


def reclip(m: Model, d: Data) -> None:
    """Take the last step over normals; J^T f of all rows in `qfrc_constraint`."""
    _take_step_of(m, d, NORMAL, total=True)


def finish(m: Model, d: Data) -> None:
    """Take the step over friction; write `efc.state`."""
    _take_step_of(m, d, FRICTION, total=False)
