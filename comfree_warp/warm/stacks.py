"""Free bodies that stand on each other, solved together: what a pass of single contacts is slow at.

Such a pass moves information by one body. So before it every stack, a tree of bodies each of which
stands on its parent, gets the forces that all of it would need at once: on the normals that push or
should, and on the friction that holds, which would answer them a step late otherwise, and the stack
rock. With w the change of acceleration, D = 1/R and r = J acc + a + R f on these rows,

    (M + J^T D J) w = J^T D r          d = proj(f - D (r - J w)) - f

which along a tree is one elimination from the top down to the root and one substitution back up, of
6 x 6 blocks: of body b and its parent p, with G of the contacts between the two,

    H = M_b + G_static + sum of S of its children + G        E = H^-1 (H - G)
    S = (H - G) - (H - G) E                                  w_b = x_b + (1 - E) w_p

Then the exact length, per stack, as everywhere in the law. Contacts between two branches, and with
bodies that are not free, are left to the passes; those with what cannot move are part of H. After
the passes over normals once more for the friction that holds, where a stack has no contacts but
these: a body on two others is held by both.

Source: block elimination (Golub and Van Loan, "Matrix Computations", 4.5), along a tree as in
Featherstone's articulated bodies ("Rigid Body Dynamics Algorithms", chapter 7). Wrenches and
motions are about the centre of mass of each body, angular part first. All of it is in float64, but
for offsets that `prepare` has rounded: D is large where a contact is stiff, and multiplies what r
is rounded by.
"""

import functools

import mujoco
import numpy as np
import warp as wp
from mujoco_warp import DisableBit

from comfree_warp.contacts import has_contacts
from comfree_warp.fixed_point import is_deterministic, precedes
from comfree_warp.rows import has_contact_rows
from comfree_warp.sweeps import first_body, index, nthread_for
from comfree_warp.types import Data, Model, Stacks, vec5, vec6, vec6d, vec10
from comfree_warp.warm.law import friction_sq, into_cone
from comfree_warp.warm.sides import unpack_offsets, unpack_sides
from comfree_warp.warm.stages import FRICTION, NORMAL

# A body stands on another if the normal between them rises by more than this, as a sine.
_LEVEL = wp.constant(0.1)


def allocate_stacks(m: Model, d: Data) -> Stacks | None:
    """The arrays that `solve_stacks` needs; None where a model has no two bodies that may stack."""
    loose = _loose_trees(m)
    if loose.sum() < 2 or has_contact_rows(m):
        return None
    shape = (d.nworld, m.ntree)
    return Stacks(
        loose=wp.array(loose.astype(np.int32), dtype=int),
        parent=wp.zeros(shape, dtype=int),
        child=wp.zeros(shape, dtype=int),
        sibling=wp.zeros(shape, dtype=int),
        above=wp.zeros(shape, dtype=int),
        below=wp.zeros(shape, dtype=int),
        head=wp.zeros(shape, dtype=int),
        crossed=wp.zeros(shape, dtype=int),
        found=wp.zeros(1, dtype=int),
        next=wp.zeros(d.naconmax, dtype=int),
        coupling=wp.zeros(shape, dtype=wp.spatial_matrixd),
        kept=wp.zeros(shape, dtype=wp.spatial_matrixd),
        motion=wp.zeros(shape, dtype=wp.spatial_vectord),
        wrench=wp.zeros(shape, dtype=wp.spatial_vectord),
        residual=wp.zeros(d.naconmax, dtype=vec6d),
        part=wp.zeros(d.naconmax, dtype=wp.vec2i),
    )


def arrays_of(stacks: Stacks | None, *names: str) -> list[wp.array | None]:
    """Arrays of the stacks by name, for a kernel that does without where a model has none."""
    return [getattr(stacks, name) if stacks else None for name in names]


def _loose_trees(m: Model) -> np.ndarray:
    """Which trees are one free joint and nothing else, (ntree,) bool.

    An armature would be mass that `crb` does not tell of.
    """
    dofadr, dofnum = m.tree_dofadr.numpy(), m.tree_dofnum.numpy()
    free_dofs = m.jnt_dofadr.numpy()[m.jnt_type.numpy() == mujoco.mjtJoint.mjJNT_FREE]
    armature = m.dof_armature.numpy().any(axis=0)
    return np.array(
        [
            num == 6 and adr in free_dofs and not armature[adr : adr + 6].any()
            for adr, num in zip(dofadr, dofnum, strict=True)
        ],
        dtype=bool,
    )


@wp.func
def note_parent(
    tree1: int,
    tree2: int,
    com1: wp.vec3,
    com2: wp.vec3,
    normal: wp.vec3,
    gravity: wp.vec3,
    worldid: int,
    loose: wp.array[int],
    parent_out: wp.array2d[int],
    found_out: wp.array[int],
):
    """Of every tree, the first of those that it stands on; they are lower: there is no circle."""
    if loose[tree1] == 0 or loose[tree2] == 0:
        return
    higher = wp.dot(gravity, com1 - com2)
    slope = -wp.dot(gravity, normal)
    level = _LEVEL * wp.length(gravity)
    if higher > 0.0 and slope > level:
        wp.atomic_min(parent_out, worldid, tree2, tree1)
        found_out[0] = 1
    elif higher < 0.0 and -slope > level:
        wp.atomic_min(parent_out, worldid, tree1, tree2)
        found_out[0] = 1


@wp.kernel(enable_backward=False)
def _link_children(
    ntree: int,
    nthread: int,
    parent_in: wp.array2d[int],
    found_in: wp.array[int],
    child_out: wp.array2d[int],
    sibling_out: wp.array2d[int],
):
    if found_in[0] == 0:
        return
    worldid, first = wp.tid()
    for item in range(first, ntree, nthread):
        treeid = index(item)
        parent = parent_in[worldid, treeid]
        if parent < ntree:
            sibling_out[worldid, treeid] = wp.atomic_exch(child_out, worldid, parent, treeid + 1)


@wp.kernel(enable_backward=False)
def _collect_contacts(
    ntree: int,
    naconmax: int,
    nthread: int,
    loose: wp.array[int],
    nacon_in: wp.array[int],
    contact_worldid_in: wp.array[int],
    ntree_in: wp.array[int],
    sides_in: wp.array[wp.vec4i],
    parent_in: wp.array2d[int],
    child_in: wp.array2d[int],
    found_in: wp.array[int],
    next_out: wp.array[int],
    head_out: wp.array2d[int],
    crossed_out: wp.array2d[int],
):
    """Chain the contacts of every tree of a stack with its parent, and with what cannot move.

    Trees that touch others, too, are marked.
    """
    if found_in[0] == 0:
        return
    for item in range(wp.tid(), wp.min(nacon_in[0], naconmax), nthread):
        conid = index(item)
        if ntree_in[conid] == 0:
            continue
        worldid = index(contact_worldid_in[conid])
        _body, tree1, tree2 = unpack_sides(sides_in[conid])
        owner = wp.int32(-1)
        if tree1 < 0 or tree2 < 0:
            owner = wp.max(tree1, tree2)
            if loose[owner] == 0 or (
                parent_in[worldid, owner] == ntree and child_in[worldid, owner] == 0
            ):
                continue
        elif parent_in[worldid, tree1] == tree2:
            owner = tree1
        elif parent_in[worldid, tree2] == tree1:
            owner = tree2
        else:
            crossed_out[worldid, tree1] = 1
            crossed_out[worldid, tree2] = 1
            continue
        next_out[conid] = wp.atomic_exch(head_out, worldid, owner, conid + 1)


@wp.func
def _comes_before(
    one: int,
    other: int,
    are_trees: bool,
    contact_pos: wp.array[wp.vec3],
    contact_frame: wp.array[wp.mat33],
) -> bool:
    """An order that does not hang on how things are stored: trees by number, contacts by place."""
    if are_trees:
        return one < other
    if precedes(contact_pos[one], contact_pos[other]):
        return True
    if precedes(contact_pos[other], contact_pos[one]):
        return False
    return precedes(contact_frame[one][0], contact_frame[other][0])


@wp.func
def _sort_chain(
    head: int,
    are_trees: bool,
    contact_pos: wp.array[wp.vec3],
    contact_frame: wp.array[wp.mat33],
    next_out: wp.array[int],
) -> int:
    """Put a chain in order; its new head."""
    first = wp.int32(0)
    entry = wp.int32(head)
    while entry > 0:
        following = next_out[entry - 1]
        left = wp.int32(0)
        right = wp.int32(first)
        while right > 0 and _comes_before(
            right - 1, entry - 1, are_trees, contact_pos, contact_frame
        ):
            left = right
            right = next_out[right - 1]
        next_out[entry - 1] = right
        if left == 0:
            first = entry
        else:
            next_out[left - 1] = entry
        entry = following
    return first


@wp.kernel(enable_backward=False)
def _sort_chains(
    contact_pos_in: wp.array[wp.vec3],
    contact_frame_in: wp.array[wp.mat33],
    child_out: wp.array2d[int],
    sibling_out: wp.array2d[int],
    head_out: wp.array2d[int],
    next_out: wp.array[int],
):
    """Put children and contacts of a tree in an order that is the same in every run."""
    worldid, treeid = wp.tid()
    child_out[worldid, treeid] = _sort_chain(
        child_out[worldid, treeid], True, contact_pos_in, contact_frame_in, sibling_out[worldid]
    )
    head_out[worldid, treeid] = _sort_chain(
        head_out[worldid, treeid], False, contact_pos_in, contact_frame_in, next_out
    )


@wp.func
def _spatial(angular: wp.vec3d, linear: wp.vec3d) -> wp.spatial_vectord:
    return wp.spatial_vectord(angular[0], angular[1], angular[2], linear[0], linear[1], linear[2])


@wp.func
def _join(
    angular: wp.mat33d, mixed: wp.mat33d, mixed_transposed: wp.mat33d, linear: wp.mat33d
) -> wp.spatial_matrixd:
    """The 6 x 6 matrix of these blocks."""
    joined = wp.spatial_matrixd()
    for i in range(3):
        for j in range(3):
            joined[i, j] = angular[i, j]
            joined[i, 3 + j] = mixed[i, j]
            joined[3 + i, j] = mixed_transposed[i, j]
            joined[3 + i, 3 + j] = linear[i, j]
    return joined


@wp.func
def _blocks(matrix: wp.spatial_matrixd) -> tuple[wp.mat33d, wp.mat33d, wp.mat33d]:
    """The blocks of a symmetric 6 x 6 matrix: angular, mixed, linear."""
    angular, mixed, linear = wp.mat33d(), wp.mat33d(), wp.mat33d()
    for i in range(3):
        for j in range(3):
            angular[i, j] = matrix[i, j]
            mixed[i, j] = matrix[i, 3 + j]
            linear[i, j] = matrix[3 + i, 3 + j]
    return angular, mixed, linear


@wp.func
def _invert(matrix: wp.spatial_matrixd) -> wp.spatial_matrixd:
    """Inverse of a symmetric positive definite 6 x 6 matrix, over its Schur complement."""
    angular, mixed, linear = _blocks(matrix)
    linear = wp.inverse(linear)
    passed = mixed * linear
    angular = wp.inverse(angular - passed * wp.transpose(mixed))
    mixed = -(angular * passed)
    return _join(angular, mixed, wp.transpose(mixed), linear - wp.transpose(passed) * mixed)


@wp.func
def _move_matrix(matrix: wp.spatial_matrixd, r: wp.vec3d) -> wp.spatial_matrixd:
    """The same stiffness or inertia about a point that is r before the one it was about."""
    angular, mixed, linear = _blocks(matrix)
    across = wp.skew(r)
    moved = mixed + across * linear
    angular += across * wp.transpose(mixed) - moved * across
    return _join(angular, moved, wp.transpose(moved), linear)


@wp.func
def _move_wrench(wrench: wp.spatial_vectord, r: wp.vec3d) -> wp.spatial_vectord:
    """The same wrench about a point that is r before the one it was about."""
    torque, force = wp.spatial_top(wrench), wp.spatial_bottom(wrench)
    return _spatial(torque + wp.cross(r, force), force)


@wp.func
def _move_motion(motion: wp.spatial_vectord, r: wp.vec3d) -> wp.spatial_vectord:
    """The same motion at a point that is r further on."""
    turn = wp.spatial_top(motion)
    return _spatial(turn, wp.spatial_bottom(motion) + wp.cross(turn, r))


@wp.func
def _unpack_offsets(offset: vec6) -> tuple[wp.vec3d, wp.vec3d]:
    offset1, offset2 = unpack_offsets(offset)
    return wp.vec3d(offset1), wp.vec3d(offset2)


@wp.func
def _rotational(crb: vec10) -> wp.mat33d:
    """Inertia of a body about its centre of mass."""
    xx, yy, zz = wp.float64(crb[0]), wp.float64(crb[1]), wp.float64(crb[2])
    xy, xz, yz = wp.float64(crb[3]), wp.float64(crb[4]), wp.float64(crb[5])
    return wp.mat33d(xx, xy, xz, xy, yy, yz, xz, yz, zz)


@wp.func
def _inertia(crb: vec10) -> wp.spatial_matrixd:
    """M of a free body."""
    mass = wp.float64(crb[9]) * wp.identity(n=3, dtype=wp.float64)
    return _join(_rotational(crb), wp.mat33d(), wp.mat33d(), mass)


@wp.func
def _free_motion(crb: vec10, wrench: wp.spatial_vectord) -> wp.spatial_vectord:
    """M^-1 q of a free body."""
    turn = wp.inverse(_rotational(crb)) * wp.spatial_top(wrench)
    return _spatial(turn, wp.spatial_bottom(wrench) / wp.float64(crb[9]))


@wp.func
def _row(i: int, frame: wp.mat33, offset: wp.vec3d) -> wp.spatial_vectord:
    """What row i of a contact sees of a motion: along and about the axes of its frame."""
    axis = wp.vec3d(frame[i % 3])
    if i < 3:
        return _spatial(wp.cross(offset, axis), axis)
    return _spatial(axis, wp.vec3d())


@wp.func
def _residual(
    condim: int,
    frame: wp.mat33,
    apart: wp.spatial_vectord,
    bias: vec6,
    R: vec6,
    force: vec6,
) -> vec6d:
    """What a contact lacks, r, from the acceleration of its second body minus its first."""
    residual = vec6d()
    for i in range(6):
        if i < condim:
            along = wp.where(i < 3, wp.spatial_bottom(apart), wp.spatial_top(apart))
            residual[i] = wp.dot(wp.vec3d(frame[i % 3]), along)
            residual[i] += wp.float64(bias[i]) + wp.float64(R[i]) * wp.float64(force[i])
    return residual


@wp.func
def _holds(force: vec6, residual: vec6d, metric: vec6, condim: int, friction: vec5) -> bool:
    """Whether the friction that a contact's own step would ask for is in its cone."""
    if force[0] <= 0.0:
        return False
    wanted = vec6()
    for i in range(1, 6):
        if i < condim:
            wanted[i] = force[i] - float(residual[i]) / metric[i]
    return friction_sq(wanted, condim, friction) < force[0] * force[0]


@wp.func
def _part(
    kind: int, force: vec6, residual: vec6d, metric: vec6, condim: int, friction: vec5
) -> wp.vec2i:
    """Which rows of a contact take part: the first, and the one after the last.

    Friction where it holds; normals, the first time, where they push or should.
    """
    first = wp.where(kind == NORMAL, 0, 1)
    last = wp.int32(first)
    if kind == NORMAL and (force[0] > 0.0 or residual[0] < wp.float64(0.0)):
        last = 1
    if _holds(force, residual, metric, condim, friction):
        last = condim
    return wp.vec2i(first, last)


@wp.func
def _wrench(part: wp.vec2i, frame: wp.mat33, offset: wp.vec3d, force: vec6d) -> wp.spatial_vectord:
    """J^T f of the rows of a contact that take part."""
    pull, torque = wp.vec3d(), wp.vec3d()
    for i in range(6):
        if i >= part[0] and i < part[1]:
            along = force[i] * wp.vec3d(frame[i % 3])
            if i < 3:
                pull += along
            else:
                torque += along
    return _spatial(torque + wp.cross(offset, pull), pull)


@wp.func
def _weigh(
    part: wp.vec2i, frame: wp.mat33, offset: wp.vec3d, R: vec6, residual: vec6d
) -> tuple[wp.spatial_matrixd, wp.spatial_vectord]:
    """J^T D J and J^T D r of a contact."""
    stiff, asked = wp.spatial_matrixd(), vec6d()
    for i in range(6):
        if i >= part[0] and i < part[1]:
            row = _row(i, frame, offset)
            D = wp.float64(1.0) / wp.float64(R[i])
            stiff += wp.outer(row, D * row)
            asked[i] = D * residual[i]
    return stiff, _wrench(part, frame, offset, asked)


@wp.func
def _step(
    part: wp.vec2i,
    condim: int,
    frame: wp.mat33,
    offset: wp.vec3d,
    motion: wp.spatial_vectord,
    R: vec6,
    friction: vec5,
    force: vec6,
    residual: vec6d,
) -> tuple[vec6, wp.spatial_vectord]:
    """The step d of a contact, from w, and J^T d."""
    turn = wp.spatial_top(motion)
    move = wp.spatial_bottom(motion) + wp.cross(turn, offset)
    wanted = vec6()
    wanted[0] = force[0]
    for i in range(6):
        if i >= part[0] and i < part[1]:
            seen = wp.dot(wp.vec3d(frame[i % 3]), wp.where(i < 3, move, turn))
            wanted[i] = force[i] - float((residual[i] - seen) / wp.float64(R[i]))
    wanted = into_cone(wanted, condim, friction)
    step, pushed = vec6(), vec6d()
    for i in range(6):
        if i >= part[0] and i < part[1]:
            step[i] = wanted[i] - force[i]
            pushed[i] = wp.float64(step[i])
    return step, _wrench(part, frame, offset, pushed)


@wp.func
def _order(
    root: int,
    kind: int,
    parent: wp.array[int],
    child: wp.array[int],
    sibling: wp.array[int],
    crossed: wp.array[int],
    above_out: wp.array[int],
    below_out: wp.array[int],
) -> int:
    """Put the trees of a stack in an order in which parents come first; the last, or -1.

    -1 where the stack is left to the passes: of friction, where it touches other trees.
    """
    last = wp.int32(-1)
    tree = wp.int32(root)
    while tree >= 0:
        if kind == FRICTION and crossed[tree] != 0:
            return -1
        below_out[tree] = last
        if last >= 0:
            above_out[last] = tree
        last = tree
        following = child[tree]
        while following == 0 and tree != root:
            following = sibling[tree]
            tree = parent[tree]
        tree = following - 1
    above_out[last] = -1
    return last


@wp.func
def _to_single(vector: wp.spatial_vectord) -> wp.spatial_vector:
    return wp.spatial_vector(wp.vec3(wp.spatial_top(vector)), wp.vec3(wp.spatial_bottom(vector)))


@wp.func
def _eliminate(
    tree: int,
    root: int,
    kind: int,
    maxcondim: int,
    dof_bodyid: wp.array[int],
    tree_dofadr: wp.array[int],
    subtree_com: wp.array[wp.vec3],
    crb: wp.array[vec10],
    contact_frame: wp.array[wp.mat33],
    contact_friction: wp.array[vec5],
    contact_dim: wp.array[int],
    child_of: wp.array[int],
    sibling: wp.array[int],
    head: wp.array[int],
    next: wp.array[int],
    sides_of: wp.array[wp.vec4i],
    offset_of: wp.array[vec6],
    bias: wp.array[vec6],
    R_of: wp.array[vec6],
    metric: wp.array[vec6],
    cacc: wp.array[wp.spatial_vector],
    coupling: wp.array[wp.spatial_matrixd],
    kept_of: wp.array[wp.spatial_matrixd],
    motion_of: wp.array[wp.spatial_vectord],
    wrench_of: wp.array[wp.spatial_vectord],
    residual_of: wp.array[vec6d],
    part_of: wp.array[wp.vec2i],
    force_of: wp.array[vec6],
):
    """Eliminate a tree, after those that stand on it: E, S, x, and what it asks of its parent."""
    bodyid = first_body(tree, tree_dofadr, dof_bodyid)
    com = wp.vec3d(subtree_com[bodyid])
    free = _inertia(crb[bodyid])  # H - G
    asked = wp.spatial_vectord()
    entry = child_of[tree]
    while entry > 0:
        child = index(entry - 1)
        entry = sibling[child]
        r = wp.vec3d(subtree_com[first_body(child, tree_dofadr, dof_bodyid)]) - com
        free += _move_matrix(coupling[child], r)
        asked += _move_wrench(wrench_of[child], r)
    stiff = wp.spatial_matrixd()
    asked_of_parent = wp.spatial_vectord()
    entry = head[tree]
    while entry > 0:
        conid = index(entry - 1)
        entry = next[conid]
        body, tree1, tree2 = unpack_sides(sides_of[conid])
        offset1, offset2 = _unpack_offsets(offset_of[conid])
        frame = contact_frame[conid]
        condim = wp.min(contact_dim[conid], maxcondim)
        R = R_of[conid]
        force = force_of[conid]
        apart = _move_motion(wp.spatial_vectord(cacc[body[1]]), offset2)
        apart -= _move_motion(wp.spatial_vectord(cacc[body[0]]), offset1)
        residual = _residual(condim, frame, apart, bias[conid], R, force)
        residual_of[conid] = residual
        friction = contact_friction[conid]
        part = _part(kind, force, residual, metric[conid], condim, friction)
        part_of[conid] = part
        if part[0] == part[1]:
            continue
        contact_stiff, contact_asks = _weigh(
            part, frame, wp.where(tree2 == tree, offset2, offset1), R, residual
        )
        if tree2 != tree:
            contact_asks = -contact_asks
        if tree1 < 0 or tree2 < 0:
            free += contact_stiff
            asked += contact_asks
        else:
            stiff += contact_stiff
            asked_of_parent += contact_asks
    inverse = _invert(free + stiff)
    motion = inverse * (asked + asked_of_parent)
    motion_of[tree] = motion
    if tree != root:
        kept = inverse * free
        kept_of[tree] = kept
        coupling[tree] = free - free * kept
        wrench_of[tree] = asked - free * motion


@wp.func
def _substitute(
    tree: int,
    ntree: int,
    maxcondim: int,
    dof_bodyid: wp.array[int],
    tree_dofadr: wp.array[int],
    subtree_com: wp.array[wp.vec3],
    contact_frame: wp.array[wp.mat33],
    contact_friction: wp.array[vec5],
    contact_dim: wp.array[int],
    parent_of: wp.array[int],
    head: wp.array[int],
    next: wp.array[int],
    sides_of: wp.array[wp.vec4i],
    offset_of: wp.array[vec6],
    R_of: wp.array[vec6],
    kept_of: wp.array[wp.spatial_matrixd],
    motion_of: wp.array[wp.spatial_vectord],
    wrench_of: wp.array[wp.spatial_vectord],
    residual_of: wp.array[vec6d],
    part_of: wp.array[wp.vec2i],
    force_of: wp.array[vec6],
    step_of: wp.array[vec6],
) -> tuple[wp.float64, wp.float64]:
    """Motion w of a tree, after its parent; d of its contacts and J^T d. -r d and R d^2."""
    gained = wp.float64(0.0)
    curvature = wp.float64(0.0)
    com = wp.vec3d(subtree_com[first_body(tree, tree_dofadr, dof_bodyid)])
    parent = index(parent_of[tree])
    motion = motion_of[tree]
    relative = motion
    r = wp.vec3d()
    if parent < ntree:
        r = com - wp.vec3d(subtree_com[first_body(parent, tree_dofadr, dof_bodyid)])
        parent_motion = _move_motion(motion_of[parent], r)
        relative -= kept_of[tree] * parent_motion
        motion = relative + parent_motion
        motion_of[tree] = motion
    wrench, between = wp.spatial_vectord(), wp.spatial_vectord()
    entry = head[tree]
    while entry > 0:
        conid = index(entry - 1)
        entry = next[conid]
        step_of[conid] = vec6()
        part = part_of[conid]
        if part[0] == part[1]:
            continue
        part[1] = wp.min(part[1], maxcondim)  # as the compiler cannot know
        _body, tree1, tree2 = unpack_sides(sides_of[conid])
        offset1, offset2 = _unpack_offsets(offset_of[conid])
        condim = wp.min(contact_dim[conid], maxcondim)
        R = R_of[conid]
        force = force_of[conid]
        residual = residual_of[conid]
        friction = contact_friction[conid]
        of_parent = tree1 >= 0 and tree2 >= 0
        seen = motion
        if of_parent:
            seen = relative
        if tree2 != tree:
            seen = -seen
        step, push = _step(
            part,
            condim,
            contact_frame[conid],
            wp.where(tree2 == tree, offset2, offset1),
            seen,
            R,
            friction,
            force,
            residual,
        )
        if tree2 != tree:
            push = -push
        step_of[conid] = step
        for i in range(6):
            gained -= residual[i] * wp.float64(step[i])
            curvature += wp.float64(R[i] * step[i] * step[i])
        wrench += push
        if of_parent:
            between += push
    wrench_of[tree] = wrench
    if parent < ntree:
        wrench_of[parent] -= _move_wrench(between, r)
    return gained, curvature


@functools.cache
def _solve_stacks(maxcondim: int) -> wp.Kernel:
    @wp.kernel(module="unique", enable_backward=False)
    def solve_stacks_of(
        dof_bodyid: wp.array[int],
        tree_dofadr: wp.array[int],
        tree_bodynum: wp.array[int],
        ntree: int,
        nthread: int,
        kind: int,
        subtree_com_in: wp.array2d[wp.vec3],
        cdof_in: wp.array2d[wp.spatial_vector],
        crb_in: wp.array2d[vec10],
        contact_frame_in: wp.array[wp.mat33],
        contact_friction_in: wp.array[vec5],
        contact_dim_in: wp.array[int],
        parent_in: wp.array2d[int],
        child_in: wp.array2d[int],
        sibling_in: wp.array2d[int],
        head_in: wp.array2d[int],
        next_in: wp.array[int],
        crossed_in: wp.array2d[int],
        found_in: wp.array[int],
        sides_in: wp.array[wp.vec4i],
        offset_in: wp.array[vec6],
        bias_in: wp.array[vec6],
        R_in: wp.array[vec6],
        metric_in: wp.array[vec6],
        above_out: wp.array2d[int],
        below_out: wp.array2d[int],
        coupling_out: wp.array2d[wp.spatial_matrixd],
        kept_out: wp.array2d[wp.spatial_matrixd],
        motion_out: wp.array2d[wp.spatial_vectord],
        wrench_out: wp.array2d[wp.spatial_vectord],
        residual_out: wp.array[vec6d],
        part_out: wp.array[wp.vec2i],
        step_out: wp.array[vec6],
        force_out: wp.array[vec6],
        cacc_out: wp.array2d[wp.spatial_vector],
        qacc_out: wp.array2d[float],
        qfrc_constraint_out: wp.array2d[float],
        qfrc_total_out: wp.array2d[float],
    ):
        """Solve every stack, from where its root is: on a GPU a thread for each."""
        if found_in[0] == 0:
            return
        worldid, first = wp.tid()
        for item in range(first, ntree, nthread):
            root = index(item)
            if parent_in[worldid, root] < ntree or child_in[worldid, root] == 0:
                continue
            last = _order(
                root,
                kind,
                parent_in[worldid],
                child_in[worldid],
                sibling_in[worldid],
                crossed_in[worldid],
                above_out[worldid],
                below_out[worldid],
            )
            if last < 0:
                continue

            # Elimination, from above.
            tree = wp.int32(last)
            while tree >= 0:
                _eliminate(
                    tree,
                    root,
                    kind,
                    wp.static(maxcondim),
                    dof_bodyid,
                    tree_dofadr,
                    subtree_com_in[worldid],
                    crb_in[worldid],
                    contact_frame_in,
                    contact_friction_in,
                    contact_dim_in,
                    child_in[worldid],
                    sibling_in[worldid],
                    head_in[worldid],
                    next_in,
                    sides_in,
                    offset_in,
                    bias_in,
                    R_in,
                    metric_in,
                    cacc_out[worldid],
                    coupling_out[worldid],
                    kept_out[worldid],
                    motion_out[worldid],
                    wrench_out[worldid],
                    residual_out,
                    part_out,
                    force_out,
                )
                tree = below_out[worldid, tree]

            # Substitution, from the root; d, and what it does to every tree.
            gained = wp.float64(0.0)
            curvature = wp.float64(0.0)
            tree = wp.int32(root)
            while tree >= 0:
                tree_gained, tree_curvature = _substitute(
                    tree,
                    ntree,
                    wp.static(maxcondim),
                    dof_bodyid,
                    tree_dofadr,
                    subtree_com_in[worldid],
                    contact_frame_in,
                    contact_friction_in,
                    contact_dim_in,
                    parent_in[worldid],
                    head_in[worldid],
                    next_in,
                    sides_in,
                    offset_in,
                    R_in,
                    kept_out[worldid],
                    motion_out[worldid],
                    wrench_out[worldid],
                    residual_out,
                    part_out,
                    force_out,
                    step_out,
                )
                gained += tree_gained
                curvature += tree_curvature
                tree = above_out[worldid, tree]

            # M^-1 J^T d, and how far to go.
            tree = wp.int32(root)
            while tree >= 0:
                wrench = wrench_out[worldid, tree]
                motion = _free_motion(
                    crb_in[worldid, first_body(tree, tree_dofadr, dof_bodyid)], wrench
                )
                motion_out[worldid, tree] = motion
                curvature += wp.dot(wrench, motion)
                tree = above_out[worldid, tree]
            scale = wp.float64(0.0)
            if curvature > wp.float64(0.0):
                scale = wp.clamp(gained / curvature, wp.float64(0.0), wp.float64(1.0))

            tree = wp.int32(root)
            while tree >= 0:
                entry = head_in[worldid, tree]
                while entry > 0:
                    conid = index(entry - 1)
                    entry = next_in[conid]
                    force_out[conid] = force_out[conid] + float(scale) * step_out[conid]
                moved = _to_single(scale * motion_out[worldid, tree])
                dofadr = tree_dofadr[tree]
                bodyid = first_body(tree, tree_dofadr, dof_bodyid)
                for i in range(bodyid, bodyid + tree_bodynum[tree]):
                    cacc_out[worldid, i] += moved
                linear = wp.spatial_bottom(moved)
                for i in range(3):
                    cdof = cdof_in[worldid, dofadr + 3 + i]
                    turn = wp.dot(wp.spatial_top(cdof), wp.spatial_top(moved))
                    qacc_out[worldid, dofadr + 3 + i] += turn
                    linear -= turn * wp.spatial_bottom(cdof)
                for i in range(3):
                    qacc_out[worldid, dofadr + i] += linear[i]
                if kind == FRICTION:  # that of normals is made anew
                    pull = _to_single(scale * wrench_out[worldid, tree])
                    for i in range(dofadr, dofadr + 6):
                        qfrc = wp.dot(cdof_in[worldid, i], pull)
                        qfrc_constraint_out[worldid, i] += qfrc
                        qfrc_total_out[worldid, i] += qfrc
                tree = above_out[worldid, tree]

    return solve_stacks_of


def find_stacks(m: Model, d: Data) -> None:
    """The children of every parent, and the contacts between them, from `note_parent`.

    From the empty chains of `trees.begin`.
    """
    warm, contact = d.warm, d.contact
    stacks = warm.stacks
    if not may_stack(m, d):
        return
    nthread = nthread_for(d, d.naconmax)
    nthread_tree = nthread_for(d, m.ntree)
    wp.launch(
        _link_children,
        dim=(d.nworld, nthread_tree),
        inputs=[m.ntree, nthread_tree, stacks.parent, stacks.found],
        outputs=[stacks.child, stacks.sibling],
    )
    wp.launch(
        _collect_contacts,
        dim=nthread,
        inputs=[
            *(m.ntree, d.naconmax, nthread, stacks.loose, d.nacon, contact.worldid),
            *(warm.ntree, warm.sides, stacks.parent, stacks.child, stacks.found),
        ],
        outputs=[stacks.next, stacks.head, stacks.crossed],
    )
    if is_deterministic(m):
        wp.launch(
            _sort_chains,
            dim=(d.nworld, m.ntree),
            inputs=[contact.pos, contact.frame],
            outputs=[stacks.child, stacks.sibling, stacks.head, stacks.next],
        )


def solve_stacks(m: Model, d: Data, kind: int) -> None:
    """A step of every stack, over normals and friction or friction alone; `qacc`, `cacc` follow."""
    warm, contact = d.warm, d.contact
    stacks = warm.stacks
    if not may_stack(m, d):
        return
    nthread = nthread_for(d, m.ntree)
    wp.launch(
        _solve_stacks(int(m.nmaxcondim)),
        dim=(d.nworld, nthread),
        inputs=[
            *(m.dof_bodyid, m.tree_dofadr, m.tree_bodynum, m.ntree, nthread, kind),
            *(d.subtree_com, d.cdof, d.crb, contact.frame, contact.friction, contact.dim),
            *(stacks.parent, stacks.child, stacks.sibling, stacks.head, stacks.next),
            *(stacks.crossed, stacks.found, warm.sides, warm.offset),
            *(warm.bias, warm.R, warm.metric),
        ],
        outputs=[
            *(stacks.above, stacks.below, stacks.coupling, stacks.kept, stacks.motion),
            *(stacks.wrench, stacks.residual, stacks.part, warm.step, warm.force, warm.cacc),
            *(d.qacc, d.qfrc_constraint, d.qfrc_total),
        ],
    )


def may_stack(m: Model, d: Data) -> bool:
    """Whether there may be stacks, which `note_parent` is to look for."""
    without_gravity = m.opt.disableflags & DisableBit.GRAVITY
    return d.warm.stacks is not None and has_contacts(m) and not without_gravity
