"""Rows that have a Jacobian under the warm law: equalities, limits, friction loss. As ../rows.py.

Kinds: 0 for equalities and limits, which go with the normals of contacts; 1 for friction loss.
"""

import functools

import mujoco
import warp as wp
from mujoco_warp import DisableBit

from comfree_warp.contacts import impedance
from comfree_warp.fixed_point import add_fixed_pair, from_fixed_pair, is_deterministic, to_fixed
from comfree_warp.law import project_row
from comfree_warp.rows import max_rows
from comfree_warp.types import Data, Model, vec5
from comfree_warp.warm.law import conjugate_factor, kept_part, solref_gains
from comfree_warp.warm.stages import CONJUGATE_STEP, PROPOSAL
from comfree_warp.warm.trees import CONJUGATE, CURVATURE, WORK

_EQUALITY = wp.constant(int(mujoco.mjtConstraint.mjCNSTR_EQUALITY))
_FRICTION_DOF = wp.constant(int(mujoco.mjtConstraint.mjCNSTR_FRICTION_DOF))
_FRICTION_TENDON = wp.constant(int(mujoco.mjtConstraint.mjCNSTR_FRICTION_TENDON))
_LIMIT_JOINT = wp.constant(int(mujoco.mjtConstraint.mjCNSTR_LIMIT_JOINT))
_LIMIT_TENDON = wp.constant(int(mujoco.mjtConstraint.mjCNSTR_LIMIT_TENDON))
_CONNECT = wp.constant(int(mujoco.mjtEq.mjEQ_CONNECT))
_WELD = wp.constant(int(mujoco.mjtEq.mjEQ_WELD))

NORMAL, FRICTION = range(2)


@wp.func
def _kind(row_type: int) -> int:
    if row_type == _FRICTION_DOF or row_type == _FRICTION_TENDON:
        return 1
    return 0


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


@functools.cache
def _prepare_rows(is_sparse: bool, deterministic: bool) -> wp.Kernel:
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
        M_rownnz: wp.array[int],
        M_rowadr: wp.array[int],
        njmax: int,
        M_in: wp.array2d[float],
        ne_in: wp.array[int],
        nf_in: wp.array[int],
        nl_in: wp.array[int],
        efc_type_in: wp.array2d[int],
        efc_id_in: wp.array2d[int],
        efc_J_rownnz_in: wp.array2d[int],
        efc_J_rowadr_in: wp.array2d[int],
        efc_J_colind_in: wp.array3d[int],
        efc_J_in: wp.array3d[float],
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
        row_metric_out: wp.array2d[float],
        row_mean_out: wp.array2d[float],
        qfrc_constraint_out: wp.array2d[float],
        qfrc_fixed_out: wp.array2d[wp.int64],
    ):
        worldid, efcid = wp.tid()
        if efcid >= wp.min(ne_in[worldid] + nf_in[worldid] + nl_in[worldid], njmax):
            return
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
            least = wp.where((opt_disableflags & DisableBit.REFSAFE) != 0, 0.0, 2.0 * h)
            gains = solref_gains(solref, solimp, least)
            B = gains[1]
            if row_type != _EQUALITY:
                B = wp.max(B, 1.0 / h)
                bias += (B - gains[1]) * efc_vel_in[worldid, efcid]
            kept = kept_part(h, gains[0] * impedance(solimp, phi), B)

        # P, and whether the memory holds for all trees that the row touches.
        J, colind = efc_J_in[worldid, 0], efc_J_colind_in[worldid, 0]
        first = wp.int32(0)
        end = wp.int32(nv)
        if wp.static(is_sparse):
            first = efc_J_rowadr_in[worldid, efcid]
            end = first + efc_J_rownnz_in[worldid, efcid]
        else:
            J = efc_J_in[worldid, efcid]
        nonzeros = wp.int32(0)
        positive = bool(False)
        P = float(0.0)
        valid = bool(True)
        for i in range(first, end):
            if J[i] != 0.0:
                dofid = i
                if wp.static(is_sparse):
                    dofid = colind[i]
                diagonal = M_rowadr[dofid] + M_rownnz[dofid] - 1
                P += J[i] * J[i] / M_in[worldid, diagonal]
                valid = valid and valid_in[worldid, dof_treeid[dofid]] != 0
                nonzeros += 1
                positive = J[i] > 0.0
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
        row_metric_out[worldid, efcid] = P + 1.0 / efc_D_in[worldid, efcid]
        row_mean_out[worldid, efcid] = mean
        if force == 0.0:
            return
        for i in range(first, end):
            if J[i] != 0.0:
                dofid = i
                if wp.static(is_sparse):
                    dofid = colind[i]
                if wp.static(deterministic):
                    wp.atomic_add(qfrc_fixed_out[worldid], dofid, to_fixed(J[i] * force))
                else:
                    wp.atomic_add(qfrc_constraint_out[worldid], dofid, J[i] * force)

    return prepare_rows


@functools.cache
def _step_rows(kind: int, stage: int, is_sparse: bool, deterministic: bool) -> wp.Kernel:
    @wp.kernel(module="unique", enable_backward=False)
    def step_rows(
        nv: int,
        dof_treeid: wp.array[int],
        njmax: int,
        ne_in: wp.array[int],
        nf_in: wp.array[int],
        nl_in: wp.array[int],
        efc_type_in: wp.array2d[int],
        efc_J_rownnz_in: wp.array2d[int],
        efc_J_rowadr_in: wp.array2d[int],
        efc_J_colind_in: wp.array3d[int],
        efc_J_in: wp.array3d[float],
        efc_D_in: wp.array2d[float],
        efc_frictionloss_in: wp.array2d[float],
        qacc_in: wp.array2d[float],
        alpha_in: wp.array3d[float],
        scale_in: wp.array[float],
        row_bias_in: wp.array2d[float],
        row_metric_in: wp.array2d[float],
        efc_force_out: wp.array2d[float],
        row_step_out: wp.array2d[float],
        row_residual_out: wp.array2d[float],
        row_proposed_out: wp.array2d[float],
        sums_out: wp.array3d[float],
        sums_fixed_out: wp.array4d[wp.int64],
        qfrc_step_out: wp.array2d[float],
        qfrc_fixed_out: wp.array2d[wp.int64],
    ):
        worldid, efcid = wp.tid()
        if efcid >= wp.min(ne_in[worldid] + nf_in[worldid] + nl_in[worldid], njmax):
            return
        row_type = efc_type_in[worldid, efcid]
        if _kind(row_type) != wp.static(kind):
            return
        J, colind = efc_J_in[worldid, 0], efc_J_colind_in[worldid, 0]
        first = wp.int32(0)
        end = wp.int32(nv)
        if wp.static(is_sparse):
            first = efc_J_rowadr_in[worldid, efcid]
            end = first + efc_J_rownnz_in[worldid, efcid]
        else:
            J = efc_J_in[worldid, efcid]
        sums, sums_fixed = sums_out[worldid], sums_fixed_out[worldid]

        # Trees come one after the other along a row, since its dofs do.
        J_qacc = float(0.0)
        alpha = float(1.0)
        beta = float(1.0)
        ntree = wp.int32(0)
        last = wp.int32(-1)
        for i in range(first, end):
            if J[i] != 0.0:
                dofid = i
                if wp.static(is_sparse):
                    dofid = colind[i]
                J_qacc += J[i] * qacc_in[worldid, dofid]
                treeid = dof_treeid[dofid]
                if treeid != last:
                    last = treeid
                    ntree += 1
                    alpha = wp.min(alpha, alpha_in[worldid, treeid, kind])
                    if wp.static(stage == CONJUGATE_STEP):
                        numerator = float(sums[treeid, CONJUGATE])
                        denominator = float(sums[treeid, CURVATURE])
                        if wp.static(deterministic):
                            numerator = from_fixed_pair(sums_fixed[treeid, CONJUGATE])
                            denominator = from_fixed_pair(sums_fixed[treeid, CURVATURE])
                        beta = wp.min(beta, conjugate_factor(numerator, denominator))
        R, force = 1.0 / efc_D_in[worldid, efcid], float(efc_force_out[worldid, efcid])
        taken = float(0.0)
        if wp.static(stage == PROPOSAL):
            taken = scale_in[worldid] * row_step_out[worldid, efcid]
            force += taken
            efc_force_out[worldid, efcid] = force
        loss = efc_frictionloss_in[worldid, efcid]
        residual = J_qacc + row_bias_in[worldid, efcid] + R * force
        wanted = force - residual / row_metric_in[worldid, efcid]
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
                return

        last = wp.int32(-1)
        share = 1.0 / float(wp.max(ntree, 1))
        for i in range(first, end):
            if J[i] != 0.0:
                dofid = i
                if wp.static(is_sparse):
                    dofid = colind[i]
                if wp.static(stage != PROPOSAL):
                    if wp.static(deterministic):
                        wp.atomic_add(qfrc_fixed_out[worldid], dofid, to_fixed(J[i] * step))
                    else:
                        wp.atomic_add(qfrc_step_out[worldid], dofid, J[i] * step)
                treeid = dof_treeid[dofid]
                if treeid != last:
                    last = treeid
                    one, other = -share * residual * step, share * R * step * step
                    if wp.static(stage == PROPOSAL):
                        one, other = share * step * change, share * taken * change
                    which = wp.static(int(CONJUGATE if stage == PROPOSAL else WORK))
                    if wp.static(deterministic):
                        add_fixed_pair(one, sums_fixed[treeid, which])
                        add_fixed_pair(other, sums_fixed[treeid, which + 1])
                    else:
                        wp.atomic_add(sums, treeid, which, one)
                        wp.atomic_add(sums, treeid, which + 1, other)

    return step_rows


@functools.cache
def _take_row_step(kind: int, total: bool, is_sparse: bool, deterministic: bool) -> wp.Kernel:
    @wp.kernel(module="unique", enable_backward=False)
    def take_row_step(
        nv: int,
        njmax: int,
        ne_in: wp.array[int],
        nf_in: wp.array[int],
        nl_in: wp.array[int],
        efc_type_in: wp.array2d[int],
        efc_J_rownnz_in: wp.array2d[int],
        efc_J_rowadr_in: wp.array2d[int],
        efc_J_colind_in: wp.array3d[int],
        efc_J_in: wp.array3d[float],
        efc_frictionloss_in: wp.array2d[float],
        scale_in: wp.array[float],
        row_step_in: wp.array2d[float],
        efc_force_out: wp.array2d[float],
        efc_state_out: wp.array2d[int],
        qfrc_constraint_out: wp.array2d[float],
        qfrc_fixed_out: wp.array2d[wp.int64],
    ):
        """F += s d; J^T f of all rows where `total`, else the states."""
        worldid, efcid = wp.tid()
        if efcid >= wp.min(ne_in[worldid] + nf_in[worldid] + nl_in[worldid], njmax):
            return
        row_type = efc_type_in[worldid, efcid]
        force = float(efc_force_out[worldid, efcid])
        if _kind(row_type) == wp.static(kind):
            force += scale_in[worldid] * row_step_in[worldid, efcid]
            efc_force_out[worldid, efcid] = force
        if wp.static(not total):
            loss = efc_frictionloss_in[worldid, efcid]
            _, state = project_row(row_type, loss, force)
            efc_state_out[worldid, efcid] = state
            return
        if force == 0.0:
            return
        J, colind = efc_J_in[worldid, 0], efc_J_colind_in[worldid, 0]
        first = wp.int32(0)
        end = wp.int32(nv)
        if wp.static(is_sparse):
            first = efc_J_rowadr_in[worldid, efcid]
            end = first + efc_J_rownnz_in[worldid, efcid]
        else:
            J = efc_J_in[worldid, efcid]
        for i in range(first, end):
            if J[i] != 0.0:
                dofid = i
                if wp.static(is_sparse):
                    dofid = colind[i]
                if wp.static(deterministic):
                    wp.atomic_add(qfrc_fixed_out[worldid], dofid, to_fixed(J[i] * force))
                else:
                    wp.atomic_add(qfrc_constraint_out[worldid], dofid, J[i] * force)

    return take_row_step


def _jacobian(d: Data) -> list[wp.array]:
    return [d.efc.J_rownnz, d.efc.J_rowadr, d.efc.J_colind, d.efc.J]


def prepare_rows(m: Model, d: Data) -> None:
    """Find a, R, P of every row; its warm force, and J^T of that in `qfrc_constraint`."""
    warm, efc = d.warm, d.efc
    neqslot = warm.mem_row.shape[1] - m.nv - 2 * m.njnt - 2 * m.ntendon
    wp.launch(
        _prepare_rows(bool(m.is_sparse), is_deterministic(m)),
        dim=(d.nworld, max_rows(m, d)),
        inputs=[
            *(m.nv, m.njnt, m.ntendon, neqslot, m.opt.timestep, m.opt.disableflags),
            *(m.eq_type, m.eq_solref, m.eq_solimp, m.jnt_solref, m.jnt_solimp),
            *(m.tendon_solref_lim, m.tendon_solimp_lim, m.dof_treeid, m.M_rownnz, m.M_rowadr),
            *(d.njmax, d.M, d.ne, d.nf, d.nl, efc.type, efc.id, *_jacobian(d), efc.pos, efc.margin),
            *(efc.D, efc.vel, efc.aref, efc.frictionloss),
            *(warm.eq_slotadr, warm.eq_slotnum, warm.mem_row, warm.valid),
        ],
        outputs=[
            *(efc.force, warm.row_slot, warm.row_bias, warm.row_metric, warm.row_mean),
            *(d.qfrc_constraint, d.qfrc_fixed),
        ],
    )


def step_rows(m: Model, d: Data, kind: int, stage: int) -> None:
    """The step d of the rows of a kind, or a stage of that."""
    warm, efc = d.warm, d.efc
    wp.launch(
        _step_rows(kind, stage, bool(m.is_sparse), is_deterministic(m)),
        dim=(d.nworld, max_rows(m, d)),
        inputs=[
            *(m.nv, m.dof_treeid, d.njmax, d.ne, d.nf, d.nl, efc.type, *_jacobian(d), efc.D),
            *(efc.frictionloss, d.qacc, warm.alpha, warm.scale, warm.row_bias, warm.row_metric),
        ],
        outputs=[
            *(efc.force, warm.row_step, warm.row_residual, warm.row_proposed),
            *(warm.sums, warm.sums_fixed, warm.qfrc_step, d.qfrc_fixed),
        ],
    )


def _take_row_step_of(m: Model, d: Data, kind: int, total: bool) -> None:
    wp.launch(
        _take_row_step(kind, total, bool(m.is_sparse), is_deterministic(m)),
        dim=(d.nworld, max_rows(m, d)),
        inputs=[
            *(m.nv, d.njmax, d.ne, d.nf, d.nl, d.efc.type, *_jacobian(d), d.efc.frictionloss),
            *(d.warm.scale, d.warm.row_step),
        ],
        outputs=[d.efc.force, d.efc.state, d.qfrc_constraint, d.qfrc_fixed],
    )


def collect_rows(m: Model, d: Data) -> None:
    """F += s d of the last pass over normals; J^T f of all rows in `qfrc_constraint`."""
    _take_row_step_of(m, d, NORMAL, total=True)


def finish_rows(m: Model, d: Data) -> None:
    """F += s d of the pass over friction; `efc.state`."""
    _take_row_step_of(m, d, FRICTION, total=False)
