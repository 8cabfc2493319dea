"""What is done to a body of a stack, in float64, and to the contacts that are its own.

`stack_solve.py` has the equations, and puts these together.
"""

import warp as wp

from comfree_warp.shared.threads import first_body, index
from comfree_warp.types import vec5, vec6, vec6d, vec10
from comfree_warp.warm.law import friction_sq, into_cone
from comfree_warp.warm.sides import unpack_offsets, unpack_sides
from comfree_warp.warm.stacks.spatial import (
    element,
    free_motion,
    inertia,
    invert,
    move_matrix,
    move_motion,
    move_wrench,
    product,
    spatial,
    to_single,
)
from comfree_warp.warm.stages import FRICTION, NORMAL


@wp.func
def _unpack_offsets(offset: vec6) -> tuple[wp.vec3d, wp.vec3d]:
    offset1, offset2 = unpack_offsets(offset)
    return wp.vec3d(offset1), wp.vec3d(offset2)


@wp.func
def _row(i: int, frame: wp.mat33d, offset: wp.vec3d) -> wp.spatial_vectord:
    """What row i of a contact sees of a motion: along and about the axes of its frame."""
    axis = frame[i % 3]
    if i < 3:
        return spatial(wp.cross(offset, axis), axis)
    return spatial(axis, wp.vec3d())


@wp.func
def _residual(
    maxcondim: int,
    frame: wp.mat33d,
    apart: wp.spatial_vectord,
    bias: vec6,
    R: vec6,
    force: vec6,
) -> vec6d:
    """What a contact lacks, r, from the acceleration of its second body minus its first.

    Rows that it has not are told like others; D is zero there.
    """
    residual = vec6d()
    for i in range(6):
        if i < maxcondim:
            along = wp.where(i < 3, wp.spatial_bottom(apart), wp.spatial_top(apart))
            residual[i] = wp.dot(frame[i % 3], along)
            residual[i] += wp.float64(bias[i]) + wp.float64(R[i]) * wp.float64(force[i])
    return residual


@wp.func
def _holds(force: vec6, residual: vec6d, invmetric: vec6, condim: int, invfriction: vec5) -> bool:
    """Whether the friction that a contact's own step would ask for is in its cone."""
    if force[0] <= 0.0:
        return False
    wanted = vec6()
    for i in range(1, 6):
        if i < condim:
            wanted[i] = force[i] - float(residual[i]) * invmetric[i]
    return friction_sq(wanted, condim, invfriction) < force[0] * force[0]


@wp.func
def _weights(
    kind: int,
    maxcondim: int,
    force: vec6,
    residual: vec6d,
    R: vec6,
    invmetric: vec6,
    condim: int,
    invfriction: vec5,
) -> vec6d:
    """D of the rows of a contact that take part, 0 of the others.

    Friction where it holds; normals, the first time, where they push or should.
    """
    first = wp.where(kind == NORMAL, 0, 1)
    last = wp.int32(first)
    if kind == NORMAL and (force[0] > 0.0 or residual[0] < wp.float64(0.0)):
        last = 1
    if _holds(force, residual, invmetric, condim, invfriction):
        last = condim
    D = vec6d()
    for i in range(6):
        if i < maxcondim and i >= first and i < last:
            D[i] = wp.float64(1.0) / wp.float64(R[i])
    return D


@wp.func
def is_idle(D: vec6d) -> bool:
    """Whether no row of a contact takes part."""
    return D[0] == wp.float64(0.0) and D[1] == wp.float64(0.0)


@wp.func
def _wrench(maxcondim: int, frame: wp.mat33d, offset: wp.vec3d, force: vec6d) -> wp.spatial_vectord:
    """J^T f of a contact."""
    pull, torque = wp.vec3d(), wp.vec3d()
    for i in range(6):
        if i < maxcondim:
            along = force[i] * frame[i % 3]
            if i < 3:
                pull += along
            else:
                torque += along
    return spatial(torque + wp.cross(offset, pull), pull)


@wp.func
def _weigh(
    maxcondim: int, frame: wp.mat33d, offset: wp.vec3d, D: vec6d, residual: vec6d
) -> tuple[wp.spatial_matrixd, wp.spatial_vectord]:
    """J^T D J and J^T D r of a contact."""
    stiff, asked = wp.spatial_matrixd(), vec6d()
    for i in range(6):
        if i < maxcondim:
            row = _row(i, frame, offset)
            stiff += wp.outer(row, D[i] * row)
            asked[i] = D[i] * residual[i]
    return stiff, _wrench(maxcondim, frame, offset, asked)


@wp.func
def weigh_column(
    column: int, maxcondim: int, frame: wp.mat33d, offset: wp.vec3d, D: vec6d, residual: vec6d
) -> tuple[wp.spatial_vectord, wp.float64]:
    """A column of J^T D J, and an element of J^T D r."""
    stiff, asked = wp.spatial_vectord(), wp.float64(0.0)
    for i in range(6):
        if i < maxcondim:
            row = _row(i, frame, offset)
            seen = D[i] * element(row, column)
            stiff += seen * row
            asked += seen * residual[i]
    return stiff, asked


@wp.func
def _step(
    condim: int,
    maxcondim: int,
    frame: wp.mat33d,
    offset: wp.vec3d,
    motion: wp.spatial_vectord,
    D: vec6d,
    invfriction: vec5,
    force: vec6,
    residual: vec6d,
) -> tuple[vec6, wp.spatial_vectord]:
    """The step d of a contact, from w, and J^T d."""
    turn = wp.spatial_top(motion)
    move = wp.spatial_bottom(motion) + wp.cross(turn, offset)
    wanted = vec6()
    for i in range(6):
        if i < maxcondim:
            seen = wp.dot(frame[i % 3], wp.where(i < 3, move, turn))
            wanted[i] = force[i] - float(D[i] * (residual[i] - seen))
    wanted = into_cone(wanted, condim, invfriction)
    step, pushed = vec6(), vec6d()
    for i in range(6):
        if i < maxcondim:
            step[i] = wp.where(D[i] > wp.float64(0.0), wanted[i] - force[i], 0.0)
            pushed[i] = wp.float64(step[i])
    return step, _wrench(maxcondim, frame, offset, pushed)


@wp.func
def is_solved(tree: int, kind: int, root_of: wp.array[int], crossed: wp.array[int]) -> bool:
    """Whether a tree is in a stack, and for friction alone, whether that touches nothing else."""
    root = root_of[tree]
    if root < 0:
        return False
    return kind == NORMAL or crossed[root] == 0


@wp.func
def side_of(tree: int, sides: wp.vec4i, offset: vec6) -> tuple[wp.vec3d, bool, bool]:
    """The offset of a contact from a tree.

    And whether the tree is its second one, and whether it is with the parent of the tree.
    """
    _body, tree1, tree2 = unpack_sides(sides)
    offset1, offset2 = _unpack_offsets(offset)
    return wp.where(tree2 == tree, offset2, offset1), tree2 == tree, tree1 >= 0 and tree2 >= 0


@wp.func
def weigh_rows(
    conid: int,
    kind: int,
    maxcondim: int,
    contact_frame: wp.array[wp.mat33],
    contact_dim: wp.array[int],
    sides_of: wp.array[wp.vec4i],
    offset_of: wp.array[vec6],
    bias: wp.array[vec6],
    R_of: wp.array[vec6],
    invmetric: wp.array[vec6],
    invfriction: wp.array[vec5],
    force_of: wp.array[vec6],
    cacc: wp.array[wp.spatial_vector],
) -> tuple[vec6d, vec6d]:
    """Find r and D of a contact."""
    body, _tree1, _tree2 = unpack_sides(sides_of[conid])
    offset1, offset2 = _unpack_offsets(offset_of[conid])
    frame = wp.mat33d(contact_frame[conid])
    condim = wp.min(contact_dim[conid], maxcondim)
    R = R_of[conid]
    force = force_of[conid]
    apart = move_motion(wp.spatial_vectord(cacc[body[1]]), offset2)
    apart -= move_motion(wp.spatial_vectord(cacc[body[0]]), offset1)
    residual = _residual(maxcondim, frame, apart, bias[conid], R, force)
    D = _weights(kind, maxcondim, force, residual, R, invmetric[conid], condim, invfriction[conid])
    return residual, D


@wp.func
def weigh_contacts(
    tree: int,
    kind: int,
    maxcondim: int,
    dof_bodyid: wp.array[int],
    tree_dofadr: wp.array[int],
    crb: wp.array[vec10],
    contact_frame: wp.array[wp.mat33],
    contact_dim: wp.array[int],
    head: wp.array[int],
    next: wp.array[int],
    sides_of: wp.array[wp.vec4i],
    offset_of: wp.array[vec6],
    bias: wp.array[vec6],
    R_of: wp.array[vec6],
    invmetric: wp.array[vec6],
    invfriction: wp.array[vec5],
    force_of: wp.array[vec6],
    cacc: wp.array[wp.spatial_vector],
    residual_of: wp.array[vec6d],
    D_of: wp.array[vec6d],
    coupling: wp.array[wp.spatial_matrixd],
    kept_of: wp.array[wp.spatial_matrixd],
    motion_of: wp.array[wp.spatial_vectord],
    wrench_of: wp.array[wp.spatial_vectord],
):
    """M + G_static of a tree, and G of it and its parent; what the contacts of either kind ask.

    Added up where it is kept: a matrix of its own that a branch may change is copied every time.
    """
    kept_of[tree] = inertia(crb[first_body(tree, tree_dofadr, dof_bodyid)])
    coupling[tree] = wp.spatial_matrixd()
    motion_of[tree] = wp.spatial_vectord()
    wrench_of[tree] = wp.spatial_vectord()
    entry = head[tree]
    while entry > 0:
        conid = index(entry - 1)
        entry = next[conid]
        offset, is_second, of_parent = side_of(tree, sides_of[conid], offset_of[conid])
        residual, D = weigh_rows(
            conid,
            kind,
            maxcondim,
            contact_frame,
            contact_dim,
            sides_of,
            offset_of,
            bias,
            R_of,
            invmetric,
            invfriction,
            force_of,
            cacc,
        )
        residual_of[conid] = residual
        D_of[conid] = D
        if is_idle(D):
            continue
        frame = wp.mat33d(contact_frame[conid])
        contact_stiff, contact_asks = _weigh(maxcondim, frame, offset, D, residual)
        if not is_second:
            contact_asks = -contact_asks
        if of_parent:
            coupling[tree] = coupling[tree] + contact_stiff
            wrench_of[tree] = wrench_of[tree] + contact_asks
        else:
            kept_of[tree] = kept_of[tree] + contact_stiff
            motion_of[tree] = motion_of[tree] + contact_asks


@wp.func
def with_what_stands_on_it(
    tree: int,
    child_of: wp.array[int],
    sibling: wp.array[int],
    lever: wp.array[wp.vec3d],
    coupling: wp.array[wp.spatial_matrixd],
    kept_of: wp.array[wp.spatial_matrixd],
    motion_of: wp.array[wp.spatial_vectord],
    wrench_of: wp.array[wp.spatial_vectord],
) -> tuple[wp.spatial_matrixd, wp.spatial_vectord]:
    """F of a tree, after those that stand on it, and what is asked of it but for its parent."""
    free = wp.spatial_matrixd(kept_of[tree])
    asked = wp.spatial_vectord(motion_of[tree])
    entry = child_of[tree]
    while entry > 0:
        child = index(entry - 1)
        entry = sibling[child]
        r = lever[child]
        free += move_matrix(coupling[child], r)
        asked += move_wrench(wrench_of[child], r)
    return free, asked


@wp.func
def eliminate(
    tree: int,
    child_of: wp.array[int],
    sibling: wp.array[int],
    root_of: wp.array[int],
    lever: wp.array[wp.vec3d],
    coupling: wp.array[wp.spatial_matrixd],
    kept_of: wp.array[wp.spatial_matrixd],
    motion_of: wp.array[wp.spatial_vectord],
    wrench_of: wp.array[wp.spatial_vectord],
):
    """Eliminate a tree, after those that stand on it: E, S, x, and what it asks of its parent."""
    free, asked = with_what_stands_on_it(
        tree, child_of, sibling, lever, coupling, kept_of, motion_of, wrench_of
    )
    inverse = invert(free + coupling[tree])
    motion = inverse * (asked + wrench_of[tree])
    motion_of[tree] = motion
    if tree != root_of[tree]:
        kept = product(inverse, free)
        kept_of[tree] = kept
        coupling[tree] = free - product(free, kept)
        wrench_of[tree] = asked - free * motion


@wp.func
def descend(
    tree: int,
    ntree: int,
    parent_of: wp.array[int],
    lever: wp.array[wp.vec3d],
    kept_of: wp.array[wp.spatial_matrixd],
    motion_of: wp.array[wp.spatial_vectord],
) -> wp.spatial_vectord:
    """Find w of a tree, after its parent; what of it is not the parent's."""
    beside = wp.spatial_vectord(motion_of[tree])
    parent = index(parent_of[tree])
    if parent < ntree:
        carried = move_motion(motion_of[parent], lever[tree])
        beside -= kept_of[tree] * carried
        motion_of[tree] = beside + carried
    return beside


@wp.func
def step_contacts(
    tree: int,
    maxcondim: int,
    motion: wp.spatial_vectord,
    beside: wp.spatial_vectord,
    contact_frame: wp.array[wp.mat33],
    contact_dim: wp.array[int],
    head: wp.array[int],
    next: wp.array[int],
    sides_of: wp.array[wp.vec4i],
    offset_of: wp.array[vec6],
    R_of: wp.array[vec6],
    invfriction: wp.array[vec5],
    residual_of: wp.array[vec6d],
    D_of: wp.array[vec6d],
    force_of: wp.array[vec6],
    step_of: wp.array[vec6],
) -> tuple[wp.spatial_vectord, wp.spatial_vectord, wp.vec2d]:
    """Step d of the contacts of a tree.

    J^T d of all; of those between it and its parent; sums of -r d and R d^2.
    """
    wrench, between = wp.spatial_vectord(), wp.spatial_vectord()
    gained, curvature = wp.float64(0.0), wp.float64(0.0)
    entry = head[tree]
    while entry > 0:
        conid = index(entry - 1)
        entry = next[conid]
        D = D_of[conid]
        if is_idle(D):
            step_of[conid] = vec6()
            continue
        offset, is_second, of_parent = side_of(tree, sides_of[conid], offset_of[conid])
        condim = wp.min(contact_dim[conid], maxcondim)
        R = R_of[conid]
        residual = residual_of[conid]
        seen = motion
        if of_parent:
            seen = beside
        if not is_second:
            seen = -seen
        step, push = _step(
            condim,
            maxcondim,
            wp.mat33d(contact_frame[conid]),
            offset,
            seen,
            D,
            invfriction[conid],
            force_of[conid],
            residual,
        )
        if not is_second:
            push = -push
        step_of[conid] = step
        for i in range(6):
            if i < maxcondim:
                gained -= residual[i] * wp.float64(step[i])
                curvature += wp.float64(R[i] * step[i] * step[i])
        wrench += push
        if of_parent:
            between += push
    return wrench, between, wp.vec2d(gained, curvature)


@wp.func
def gather_wrenches(
    tree: int,
    dof_bodyid: wp.array[int],
    tree_dofadr: wp.array[int],
    crb: wp.array[vec10],
    child_of: wp.array[int],
    sibling: wp.array[int],
    lever: wp.array[wp.vec3d],
    between: wp.array[wp.spatial_vectord],
    motion_out: wp.array[wp.spatial_vectord],
    wrench_out: wp.array[wp.spatial_vectord],
) -> wp.float64:
    """J^T d of a tree with what stands on it, and M^-1 times that; their product."""
    wrench = wrench_out[tree]
    entry = child_of[tree]
    while entry > 0:
        child = index(entry - 1)
        entry = sibling[child]
        wrench -= move_wrench(between[child], lever[child])
    motion = free_motion(crb[first_body(tree, tree_dofadr, dof_bodyid)], wrench)
    wrench_out[tree] = wrench
    motion_out[tree] = motion
    return wp.dot(wrench, motion)


@wp.func
def exact_length(work: wp.vec2d) -> wp.float64:
    """How far along a step the cost is least, from -r d and d (A + R) d."""
    if work[1] > wp.float64(0.0):
        return wp.clamp(work[0] / work[1], wp.float64(0.0), wp.float64(1.0))
    return wp.float64(0.0)


@wp.func
def take_steps(
    tree: int,
    kind: int,
    scale: wp.float64,
    dof_bodyid: wp.array[int],
    tree_dofadr: wp.array[int],
    tree_bodynum: wp.array[int],
    cdof: wp.array[wp.spatial_vector],
    head: wp.array[int],
    next: wp.array[int],
    motion_of: wp.array[wp.spatial_vectord],
    wrench_of: wp.array[wp.spatial_vectord],
    step_of: wp.array[vec6],
    force_out: wp.array[vec6],
    cacc_out: wp.array[wp.spatial_vector],
    qacc_out: wp.array[float],
    qfrc_constraint_out: wp.array[float],
    qfrc_total_out: wp.array[float],
):
    """Take the steps of the contacts of a tree, and what they do to it."""
    entry = head[tree]
    while entry > 0:
        conid = index(entry - 1)
        entry = next[conid]
        force_out[conid] = force_out[conid] + float(scale) * step_of[conid]
    moved = to_single(scale * motion_of[tree])
    dofadr = tree_dofadr[tree]
    bodyid = first_body(tree, tree_dofadr, dof_bodyid)
    last = bodyid + tree_bodynum[tree]
    while bodyid < last:
        cacc_out[bodyid] += moved
        bodyid = index(bodyid + 1)
    linear = wp.spatial_bottom(moved)
    for i in range(3):
        along = cdof[dofadr + 3 + i]
        turn = wp.dot(wp.spatial_top(along), wp.spatial_top(moved))
        qacc_out[dofadr + 3 + i] += turn
        linear -= turn * wp.spatial_bottom(along)
    for i in range(3):
        qacc_out[dofadr + i] += linear[i]
    if kind == FRICTION:  # that of normals is made anew
        pull = to_single(scale * wrench_of[tree])
        for i in range(dofadr, dofadr + 6):
            qfrc = wp.dot(cdof[i], pull)
            qfrc_constraint_out[i] += qfrc
            qfrc_total_out[i] += qfrc
