"""What a pass does tree by tree: validity of the memory, the sweep down, the step's length."""

import functools

import warp as wp

from comfree_warp.shared import bodies
from comfree_warp.shared.acceleration import accelerate as accelerate_dofs
from comfree_warp.shared.acceleration import is_diagonal, sweep_up
from comfree_warp.shared.fixed_point import add_fixed_pair, from_fixed_pair, is_deterministic
from comfree_warp.shared.lanes import nlane_for, sum_of_lanes
from comfree_warp.shared.rows import has_contact_rows
from comfree_warp.shared.threads import (
    block_dim_for,
    first_body,
    index,
    launch,
    nthread_for,
    tree_arrays,
)
from comfree_warp.types import Data, Model
from comfree_warp.warm.law import ROUNDING, conjugate_factor, next_alpha
from comfree_warp.warm.stacks.find import arrays_of

# Of `Warm.sums`.
WORK = wp.constant(0)  # -r d
REGULAR = wp.constant(1)  # R d^2
CONJUGATE = wp.constant(2)  # z y
CURVATURE = wp.constant(3)  # d y


@wp.func
def add_sum(
    value: float,
    treeid: int,
    which: int,
    deterministic: bool,
    sums: wp.array2d[float],
    fixed: wp.array3d[wp.int64],
):
    """Add to one of `Warm.sums` of a world, or of `Warm.sums_fixed`."""
    if deterministic:
        add_fixed_pair(value, fixed[treeid, which])
    else:
        wp.atomic_add(sums, treeid, which, value)


@wp.func
def read_sum(
    treeid: int,
    which: int,
    deterministic: bool,
    sums: wp.array2d[float],
    fixed: wp.array3d[wp.int64],
) -> float:
    """The sum again."""
    if deterministic:
        return from_fixed_pair(fixed[treeid, which])
    return sums[treeid, which]


@wp.func
def tree_beta(
    treeid: int, deterministic: bool, sums: wp.array2d[float], fixed: wp.array3d[wp.int64]
) -> float:
    """How much of its last step a tree keeps in its direction, from the sums of a proposal."""
    numerator = read_sum(treeid, CONJUGATE, deterministic, sums, fixed)
    return conjugate_factor(numerator, read_sum(treeid, CURVATURE, deterministic, sums, fixed))


@functools.cache
def _begin(stacking: bool, diagonal: bool, nlane: int) -> wp.Kernel:
    @wp.kernel(module="unique", enable_backward=False)
    def begin_trees(
        dof_bodyid: wp.array[int],
        tree_dofadr: wp.array[int],
        tree_dofnum: wp.array[int],
        tree_bodynum: wp.array[int],
        dof_armature: wp.array2d[float],
        M_rownnz: wp.array[int],
        M_rowadr: wp.array[int],
        tree_qposadr: wp.array[int],
        tree_qposnum: wp.array[int],
        time_in: wp.array[float],
        qpos_in: wp.array2d[float],
        M_in: wp.array2d[float],
        qfrc_smooth_in: wp.array2d[float],
        qacc_smooth_in: wp.array2d[float],
        mem_time: wp.array[float],
        mem_qpos: wp.array2d[float],
        mem_alpha: wp.array3d[float],
        drop_contact_rows: bool,
        ntree: int,
        nthread: int,
        ne_in: wp.array[int],
        nf_in: wp.array[int],
        nl_in: wp.array[int],
        stack_free: wp.array[int],
        nefc_out: wp.array[int],
        valid_out: wp.array2d[int],
        alpha_out: wp.array3d[float],
        smooth_out: wp.array2d[float],
        M_diaginv_out: wp.array2d[float],
        cfrc_contact_out: wp.array2d[wp.spatial_vector],
        qfrc_constraint_out: wp.array2d[float],
        stack_loose_out: wp.array2d[int],
        stack_parent_out: wp.array2d[int],
        stack_child_out: wp.array2d[int],
        stack_head_out: wp.array2d[int],
        stack_root_out: wp.array2d[int],
        stack_crossed_out: wp.array2d[int],
        stack_found_out: wp.array[int],
        stack_listed_out: wp.array[int],
    ):
        """Whether a tree is where the last step left it; 1 / M_dd; empty sums and stacks."""
        worldid, first_tree, lane = wp.tid()
        if wp.static(stacking) and first_tree == 0:
            stack_found_out[0] = 0
            stack_listed_out[0] = 0
            stack_listed_out[1] = 0
        item = wp.int32(first_tree)
        while item < ntree:
            treeid = index(item)
            item += nthread
            moved = float(0.0)
            adr = index(tree_qposadr[treeid])
            i = index(adr + lane)
            while i < adr + tree_qposnum[treeid]:
                if qpos_in[worldid, i] != mem_qpos[worldid, i]:
                    moved = 1.0
                i = index(i + wp.static(nlane))
            dofadr = index(tree_dofadr[treeid])
            first = first_body(treeid, tree_dofadr, dof_bodyid)
            bodyid = index(first + lane)
            while bodyid < first + tree_bodynum[treeid]:
                cfrc_contact_out[worldid, bodyid] = wp.spatial_vector()
                bodyid = index(bodyid + wp.static(nlane))
            smooth = float(0.0)
            dofid = index(dofadr + lane)
            while dofid < dofadr + tree_dofnum[treeid]:
                qfrc_constraint_out[worldid, dofid] = 0.0
                if wp.static(not diagonal):
                    last = index(M_rowadr[dofid] + M_rownnz[dofid] - 1)
                    M_diaginv_out[worldid, dofid] = 1.0 / M_in[worldid, last]
                smooth += qfrc_smooth_in[worldid, dofid] * qacc_smooth_in[worldid, dofid]
                dofid = index(dofid + wp.static(nlane))
            moved, smooth = sum_of_lanes(moved), sum_of_lanes(smooth)
            if lane > 0:
                continue
            if wp.static(stacking):
                loose = wp.int32(stack_free[treeid])
                if loose != 0:
                    armature = dof_armature[worldid % dof_armature.shape[0]]
                    for i in range(6):
                        if armature[dofadr + i] != 0.0:
                            loose = wp.int32(0)
                stack_loose_out[worldid, treeid] = loose
                stack_parent_out[worldid, treeid] = ntree
                stack_child_out[worldid, treeid] = 0
                stack_head_out[worldid, treeid] = 0
                stack_root_out[worldid, treeid] = -1
                stack_crossed_out[worldid, treeid] = 0
            if drop_contact_rows and treeid == 0:
                nefc_out[worldid] = ne_in[worldid] + nf_in[worldid] + nl_in[worldid]
            valid = moved == 0.0 and time_in[worldid] == mem_time[worldid]
            valid_out[worldid, treeid] = wp.where(valid, 1, 0)
            for i in range(2):
                alpha_out[worldid, treeid, i] = wp.where(valid, mem_alpha[worldid, treeid, i], 1.0)
            smooth_out[worldid, treeid] = smooth

    return begin_trees


@wp.func
def _take_dof(
    dofid: int,
    apply: bool,
    renew: bool,
    scale: float,
    qacc_step: wp.array[float],
    qacc: wp.array[float],
    qfrc_step: wp.array[float],
    qfrc_constraint: wp.array[float],
) -> float:
    """The acceleration of a dof, in a sweep down a tree; clears what the next pass adds up."""
    acc = float(qacc[dofid])
    if apply:
        acc += scale * qacc_step[dofid]
        qacc[dofid] = acc
    if renew:
        qfrc_constraint[dofid] = 0.0
    qfrc_step[dofid] = 0.0
    return acc


@wp.func
def _sweep_down(
    treeid: int,
    apply: bool,
    renew: bool,
    body_parentid: wp.array[int],
    body_dofadr: wp.array[int],
    body_dofnum: wp.array[int],
    dof_bodyid: wp.array[int],
    tree_dofadr: wp.array[int],
    tree_bodynum: wp.array[int],
    body_shiftnum: wp.array[int],
    cdof: wp.array[wp.spatial_vector],
    scale: float,
    qacc_step: wp.array[float],
    qacc: wp.array[float],
    cacc: wp.array[wp.spatial_vector],
    qfrc_step: wp.array[float],
    qfrc_constraint: wp.array[float],
    sums: wp.array2d[float],
):
    """A sweep down a tree of a world: what acc makes of its bodies, J acc but for the geometry.

    `apply` takes the step of the last pass first, `renew` clears the total that is made anew.
    """
    for i in range(4):
        sums[treeid, i] = 0.0
    first = first_body(treeid, tree_dofadr, dof_bodyid)
    bodyid = index(first)
    while bodyid < first + tree_bodynum[treeid]:
        motion = wp.spatial_vector()
        if bodyid > first:
            motion = cacc[index(body_parentid[bodyid])]
        dofadr = index(body_dofadr[bodyid])
        nshift = body_shiftnum[bodyid]
        if nshift == 3:
            for i in range(3):
                motion[3 + i] += _take_dof(
                    dofadr + i, apply, renew, scale, qacc_step, qacc, qfrc_step, qfrc_constraint
                )
        dofid = index(dofadr + nshift)
        while dofid < dofadr + body_dofnum[bodyid]:
            motion += cdof[dofid] * _take_dof(
                dofid, apply, renew, scale, qacc_step, qacc, qfrc_step, qfrc_constraint
            )
            dofid = index(dofid + 1)
        cacc[bodyid] = motion
        bodyid = index(bodyid + 1)


@functools.cache
def _accelerate_bodies(apply: bool, renew: bool) -> wp.Kernel:
    @wp.kernel(module="unique", enable_backward=False)
    def accelerate_bodies(
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
        scale_in: wp.array[float],
        qacc_step_in: wp.array2d[float],
        qacc_out: wp.array2d[float],
        cacc_out: wp.array2d[wp.spatial_vector],
        qfrc_step_out: wp.array2d[float],
        qfrc_constraint_out: wp.array2d[float],
        sums_out: wp.array3d[float],
    ):
        worldid, first = wp.tid()
        item = wp.int32(first)
        while item < ntree:
            treeid = index(item)
            item += nthread
            _sweep_down(
                treeid,
                wp.static(apply),
                wp.static(renew),
                body_parentid,
                body_dofadr,
                body_dofnum,
                dof_bodyid,
                tree_dofadr,
                tree_bodynum,
                body_shiftnum,
                cdof_in[worldid],
                scale_in[worldid],
                qacc_step_in[worldid],
                qacc_out[worldid],
                cacc_out[worldid],
                qfrc_step_out[worldid],
                qfrc_constraint_out[worldid],
                sums_out[worldid],
            )

    return accelerate_bodies


@functools.cache
def _accelerate_diagonal(deterministic: bool, renew: bool) -> wp.Kernel:
    @wp.kernel(module="unique", enable_backward=False)
    def accelerate_diagonal(
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
        qacc_step_in: wp.array2d[float],
        cfrc_fixed_out: wp.array3d[wp.int64],
        qfrc_fixed_out: wp.array2d[wp.int64],
        cfrc_contact_out: wp.array2d[wp.spatial_vector],
        qfrc_total_out: wp.array2d[float],
        qacc_out: wp.array2d[float],
        cacc_out: wp.array2d[wp.spatial_vector],
        qfrc_step_out: wp.array2d[float],
        qfrc_constraint_out: wp.array2d[float],
        sums_out: wp.array3d[float],
    ):
        """Up every tree and down again: a diagonal M lets no tree wait for another kernel."""
        worldid, first = wp.tid()
        item = wp.int32(first)
        while item < ntree:
            treeid = index(item)
            item += nthread
            sweep_up(
                treeid,
                wp.static(deterministic),
                True,
                True,
                True,
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
                qfrc_constraint_out[worldid],
                qfrc_total_out[worldid],
                qacc_out[worldid],
            )
            _sweep_down(
                treeid,
                False,
                wp.static(renew),
                body_parentid,
                body_dofadr,
                body_dofnum,
                dof_bodyid,
                tree_dofadr,
                tree_bodynum,
                body_shiftnum,
                cdof_in[worldid],
                0.0,
                qacc_step_in[worldid],
                qacc_out[worldid],
                cacc_out[worldid],
                qfrc_step_out[worldid],
                qfrc_constraint_out[worldid],
                sums_out[worldid],
            )

    return accelerate_diagonal


@functools.cache
def _choose_scale(deterministic: bool) -> wp.Kernel:
    @wp.kernel(module="unique", enable_backward=False)
    def choose_scale(
        ntree: int,
        tree_dofadr: wp.array[int],
        tree_dofnum: wp.array[int],
        smooth_in: wp.array2d[float],
        qfrc_step_in: wp.array2d[float],
        qacc_step_in: wp.array2d[float],
        sums_in: wp.array3d[float],
        sums_fixed_in: wp.array4d[wp.int64],
        kind: int,
        alpha_out: wp.array3d[float],
        scale_out: wp.array[float],
    ):
        """The exact minimum along the step, -sum(r d) / (q.w + sum(R d^2)), and every alpha.

        Where a tree's step is rounding, so is what alpha would learn from it. A block of threads
        looks after a world, and adds up in an order that is the same in every run.
        """
        worldid, first = wp.tid()
        sums, fixed = sums_in[worldid], sums_fixed_in[worldid]
        gained = float(0.0)
        curvature = float(0.0)
        item = wp.int32(first)
        while item < ntree:
            treeid = index(item)
            item += wp.block_dim()
            work = read_sum(treeid, WORK, wp.static(deterministic), sums, fixed)
            regular = read_sum(treeid, REGULAR, wp.static(deterministic), sums, fixed)
            moved = float(0.0)
            dofadr = index(tree_dofadr[treeid])
            dofid = index(dofadr)
            while dofid < dofadr + tree_dofnum[treeid]:
                moved += qfrc_step_in[worldid, dofid] * qacc_step_in[worldid, dofid]
                dofid = index(dofid + 1)
            regular += moved
            if moved > ROUNDING * smooth_in[worldid, treeid]:
                alpha = alpha_out[worldid, treeid, kind]
                alpha_out[worldid, treeid, kind] = next_alpha(alpha, work, regular)
            gained += work
            curvature += regular
        all_gained = wp.tile_sum(wp.tile(gained))[0]
        all_curvature = wp.tile_sum(wp.tile(curvature))[0]
        if first > 0:
            return
        scale = float(0.0)
        if all_curvature > 0.0:
            scale = wp.clamp(all_gained / all_curvature, 0.0, 1.0)
        scale_out[worldid] = scale

    return choose_scale


@wp.kernel(enable_backward=False)
def _take_step(
    scale_in: wp.array[float],
    nv: int,
    nthread: int,
    qfrc_step_in: wp.array2d[float],
    qacc_step_in: wp.array2d[float],
    qfrc_constraint_out: wp.array2d[float],
    qacc_out: wp.array2d[float],
    qfrc_total_out: wp.array2d[float],
):
    worldid, first = wp.tid()
    scale = scale_in[worldid]
    item = wp.int32(first)
    while item < nv:
        dofid = index(item)
        item += nthread
        qfrc = scale * qfrc_step_in[worldid, dofid]
        qfrc_constraint_out[worldid, dofid] += qfrc
        qfrc_total_out[worldid, dofid] += qfrc
        qacc_out[worldid, dofid] += scale * qacc_step_in[worldid, dofid]


def begin(m: Model, d: Data) -> None:
    """Find out for which trees the memory holds; start with empty sums and no stacks."""
    warm = d.warm
    stacks = warm.stacks
    nthread, nlane = nthread_for(d, m.ntree), nlane_for(d)
    launch(
        _begin(stacks is not None, is_diagonal(d), nlane),
        dim=(d.nworld, nthread, nlane),
        inputs=[
            *(m.dof_bodyid, m.tree_dofadr, m.tree_dofnum, m.tree_bodynum, m.dof_armature),
            *(m.M_rownnz, m.M_rowadr, warm.tree_qposadr, warm.tree_qposnum),
            *(d.time, d.qpos, d.M, d.qfrc_smooth, d.qacc_smooth),
            *(warm.mem_time, warm.mem_qpos, warm.mem_alpha),
            *(not has_contact_rows(m), m.ntree, nthread),
            *(d.ne, d.nf, d.nl),
            *arrays_of(stacks, "free"),
        ],
        outputs=[
            *(d.nefc, warm.valid, warm.alpha, warm.smooth, warm.M_diaginv),
            *(d.cfrc_contact, d.qfrc_constraint),
            *arrays_of(
                stacks, "loose", "parent", "child", "head", "root", "crossed", "found", "listed"
            ),
        ],
    )


def accelerate(m: Model, d: Data, *, renew: bool) -> None:
    """`qacc` of the present forces, M^-1 (qfrc_smooth + J^T f), and `cacc`; empty sums of a pass.

    Args:
      m: the model.
      d: the data.
      renew: clear `qfrc_constraint`, which is made anew after the pass.
    """
    if not is_diagonal(d):
        accelerate_dofs(m, d, d.qfrc_constraint, d.qacc, total=True, consume=True)
        accelerate_bodies(m, d, apply=False, renew=renew)
        return
    warm = d.warm
    nthread = nthread_for(d, m.ntree)
    launch(
        _accelerate_diagonal(is_deterministic(m), renew),
        dim=(d.nworld, nthread),
        inputs=[
            *(*tree_arrays(m), m.body_shiftnum, m.ntree, nthread),
            *(d.cdof, d.qfrc_smooth, d.qLDiagInv, warm.qacc_step),
        ],
        outputs=[
            *(d.cfrc_fixed, d.qfrc_fixed, d.cfrc_contact, d.qfrc_total, d.qacc, warm.cacc),
            *(warm.qfrc_step, d.qfrc_constraint, warm.sums),
        ],
    )
    _clear_fixed_sums(m, d)


def accelerate_bodies(m: Model, d: Data, *, apply: bool, renew: bool) -> None:
    """`cacc` from `qacc`, after the last pass's step where `apply`; clears the sums of a pass."""
    warm = d.warm
    if bodies.by_body(m, d):
        bodies.accelerate_bodies(m, d, apply=apply, renew=renew)
    else:
        nthread = nthread_for(d, m.ntree)
        launch(
            _accelerate_bodies(apply, renew),
            dim=(d.nworld, nthread),
            inputs=[
                *(*tree_arrays(m), m.body_shiftnum, m.ntree, nthread),
                *(d.cdof, warm.scale, warm.qacc_step),
            ],
            outputs=[d.qacc, warm.cacc, warm.qfrc_step, d.qfrc_constraint, warm.sums],
        )
    _clear_fixed_sums(m, d)


def _clear_fixed_sums(m: Model, d: Data) -> None:
    if is_deterministic(m):
        d.warm.sums_fixed.zero_()


def choose_scale(m: Model, d: Data, kind: int) -> None:
    """How far every world goes along its step, and how far every tree may next time."""
    warm = d.warm
    wp.launch_tiled(
        _choose_scale(is_deterministic(m)),
        dim=d.nworld,
        block_dim=block_dim_for(m.ntree),
        inputs=[
            *(m.ntree, m.tree_dofadr, m.tree_dofnum),
            *(warm.smooth, warm.qfrc_step, warm.qacc_step),
            *(warm.sums, warm.sums_fixed, kind),
        ],
        outputs=[warm.alpha, warm.scale],
    )


def take_step(m: Model, d: Data) -> None:
    """Add the last step to `qfrc_constraint`, `qfrc_total` and `qacc`."""
    warm = d.warm
    nthread = nthread_for(d, m.nv)
    launch(
        _take_step,
        dim=(d.nworld, nthread),
        inputs=[warm.scale, m.nv, nthread, warm.qfrc_step, warm.qacc_step],
        outputs=[d.qfrc_constraint, d.qacc, d.qfrc_total],
    )
