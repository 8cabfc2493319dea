"""Stacks on a GPU, by six kernels: what `stack_solve.py` has the equations of.

Every body of a stack has lanes (`lanes.py`). They share its contacts, and then the columns of what
those add up to. Along a stack the lanes of a body that carries none go down to the root, or to
where branches meet; all of them find F and its inverse, each a column of what follows. On the way
back no body waits for another. Steps of contacts and what comes of them have a thread for a body.
"""

import functools

import warp as wp

from comfree_warp.shared.lanes import fence, meet, nlane_for, sum_of_lanes
from comfree_warp.shared.threads import first_body, index, launch, nthread_for
from comfree_warp.types import Data, Model, vec5, vec6, vec6d, vec10
from comfree_warp.warm.stacks.forces import (
    exact_length,
    gather_wrenches,
    is_idle,
    is_solved,
    side_of,
    step_contacts,
    take_steps,
    weigh_column,
    weigh_rows,
    with_what_stands_on_it,
)
from comfree_warp.warm.stacks.spatial import (
    column_of,
    element,
    inertia,
    invert,
    move_motion,
    move_wrench,
    unit,
)

_MOST = 1 << 17  # threads: about what a large GPU runs at a time


@wp.func
def _member(item: int, ntree: int, list_in: wp.array[int]) -> tuple[int, int]:
    """World and tree of an item of a list."""
    member = index(list_in[item])
    return member // ntree, member % ntree


def _elements(array: wp.array) -> wp.array:
    """The elements of vectors or matrices, in dimensions of their own."""
    shape = (*array.shape, *array.dtype._shape_)
    return wp.array(ptr=array.ptr, dtype=wp.float64, shape=shape, device=array.device)


@functools.cache
def _weigh_bodies(maxcondim: int) -> wp.Kernel:
    @wp.kernel(module="unique", enable_backward=False)
    def weigh_bodies(
        dof_bodyid: wp.array[int],
        tree_dofadr: wp.array[int],
        ntree: int,
        nthread: int,
        nlane: int,
        kind: int,
        listed_in: wp.array[int],
        members_in: wp.array[int],
        crb_in: wp.array2d[vec10],
        contact_frame_in: wp.array[wp.mat33],
        contact_dim_in: wp.array[int],
        root_in: wp.array2d[int],
        head_in: wp.array2d[int],
        next_in: wp.array[int],
        crossed_in: wp.array2d[int],
        sides_in: wp.array[wp.vec4i],
        offset_in: wp.array[vec6],
        bias_in: wp.array[vec6],
        R_in: wp.array[vec6],
        invmetric_in: wp.array[vec6],
        invfriction_in: wp.array[vec5],
        force_in: wp.array[vec6],
        cacc_in: wp.array2d[wp.spatial_vector],
        coupling_out: wp.array4d[wp.float64],
        kept_out: wp.array4d[wp.float64],
        motion_out: wp.array3d[wp.float64],
        wrench_out: wp.array3d[wp.float64],
        residual_out: wp.array[vec6d],
        D_out: wp.array[vec6d],
    ):
        """As `weigh_contacts`: every lane some contacts, then a column of what they make."""
        first, lane = wp.tid()
        for item in range(first, listed_in[0], nthread):
            worldid, tree = _member(item, ntree, members_in)
            if not is_solved(tree, kind, root_in[worldid], crossed_in[worldid]):
                continue
            place = wp.int32(0)
            entry = head_in[worldid, tree]
            while entry > 0:
                conid = index(entry - 1)
                entry = next_in[conid]
                if place % nlane == lane:
                    residual, D = weigh_rows(
                        conid,
                        kind,
                        wp.static(maxcondim),
                        contact_frame_in,
                        contact_dim_in,
                        sides_in,
                        offset_in,
                        bias_in,
                        R_in,
                        invmetric_in,
                        invfriction_in,
                        force_in,
                        cacc_in[worldid],
                    )
                    residual_out[conid] = residual
                    D_out[conid] = D
                place += 1
            meet()

            mass = inertia(crb_in[worldid, first_body(tree, tree_dofadr, dof_bodyid)])
            for column in range(lane, 6, nlane):
                kept, coupling = column_of(mass, column), wp.spatial_vectord()
                motion, wrench = wp.float64(0.0), wp.float64(0.0)
                entry = head_in[worldid, tree]
                while entry > 0:
                    conid = index(entry - 1)
                    entry = next_in[conid]
                    D = D_out[conid]
                    if is_idle(D):
                        continue
                    offset, is_second, of_parent = side_of(tree, sides_in[conid], offset_in[conid])
                    stiff, asked = weigh_column(
                        column,
                        wp.static(maxcondim),
                        wp.mat33d(contact_frame_in[conid]),
                        offset,
                        D,
                        residual_out[conid],
                    )
                    if not is_second:
                        asked = -asked
                    if of_parent:
                        coupling += stiff
                        wrench += asked
                    else:
                        kept += stiff
                        motion += asked
                for i in range(6):
                    kept_out[worldid, tree, column, i] = kept[i]
                    coupling_out[worldid, tree, column, i] = coupling[i]
                motion_out[worldid, tree, column] = motion
                wrench_out[worldid, tree, column] = wrench

    return weigh_bodies


@wp.kernel(enable_backward=False)
def _eliminate_bodies(
    ntree: int,
    nthread: int,
    nlane: int,
    kind: int,
    listed_in: wp.array[int],
    tops_in: wp.array[int],
    parent_in: wp.array2d[int],
    child_in: wp.array2d[int],
    sibling_in: wp.array2d[int],
    root_in: wp.array2d[int],
    crossed_in: wp.array2d[int],
    lever_in: wp.array2d[wp.vec3d],
    coupling_in: wp.array2d[wp.spatial_matrixd],
    kept_in: wp.array2d[wp.spatial_matrixd],
    motion_in: wp.array2d[wp.spatial_vectord],
    wrench_in: wp.array2d[wp.spatial_vectord],
    coupling_out: wp.array4d[wp.float64],
    kept_out: wp.array4d[wp.float64],
    motion_out: wp.array3d[wp.float64],
    wrench_out: wp.array3d[wp.float64],
    arrived_out: wp.array2d[int],
):
    """As `eliminate`, from every body that carries none down to the root; `kept` becomes E^T.

    Where branches meet, the lanes that come last go on. What is read is what is written, as
    matrices and as their elements.
    """
    first, lane = wp.tid()
    for item in range(first, listed_in[1], nthread):
        worldid, tree = _member(item, ntree, tops_in)
        if not is_solved(tree, kind, root_in[worldid], crossed_in[worldid]):
            continue
        tree = wp.int32(tree)
        while tree < ntree:
            free, asked = with_what_stands_on_it(
                tree,
                child_in[worldid],
                sibling_in[worldid],
                lever_in[worldid],
                coupling_in[worldid],
                kept_in[worldid],
                motion_in[worldid],
                wrench_in[worldid],
            )
            inverse = invert(free + coupling_in[worldid, tree])
            pushed = asked + wrench_in[worldid, tree]
            meet()  # all have read
            for column in range(lane, 7, nlane):
                left, right = column_of(free, column), pushed
                if column < 6:
                    right = left
                else:
                    left = asked
                kept = inverse * right
                passed = left - free * kept
                for i in range(6):
                    if column < 6:
                        kept_out[worldid, tree, column, i] = kept[i]
                        coupling_out[worldid, tree, column, i] = passed[i]
                    else:
                        motion_out[worldid, tree, i] = kept[i]
                        wrench_out[worldid, tree, i] = passed[i]
            meet()
            tree = parent_in[worldid, tree]
            if tree == ntree:
                break
            nchild = wp.int32(0)
            entry = child_in[worldid, tree]
            while entry > 0:
                entry = sibling_in[worldid, entry - 1]
                nchild += 1
            if nchild == 1:
                continue
            place = float(0.0)
            if lane == 0:
                fence()
                place = float(1 + wp.atomic_add(arrived_out, worldid, tree, 1))
                fence()
            place = sum_of_lanes(place)
            meet()  # what the fence lets one lane see, all see
            if int(place) < nchild:
                break
            if lane == 0:
                arrived_out[worldid, tree] = 0  # for the next time


@wp.func
def _motion_along(
    tree: int,
    i: int,
    ntree: int,
    parent_of: wp.array[int],
    lever: wp.array[wp.vec3d],
    kept_of: wp.array[wp.spatial_matrixd],
    motion_of: wp.array[wp.spatial_vectord],
) -> wp.float64:
    """Element i of w of a tree: x of it and of all below it, as far as each gets there."""
    motion = wp.float64(0.0)
    row = unit(i)
    below = wp.int32(tree)
    while below < ntree:
        motion += wp.dot(row, motion_of[below])
        row = move_wrench(row - kept_of[below] * row, lever[below])
        below = parent_of[below]
    return motion


@wp.kernel(enable_backward=False)
def _descend_bodies(
    ntree: int,
    nthread: int,
    nlane: int,
    kind: int,
    listed_in: wp.array[int],
    members_in: wp.array[int],
    parent_in: wp.array2d[int],
    root_in: wp.array2d[int],
    crossed_in: wp.array2d[int],
    lever_in: wp.array2d[wp.vec3d],
    kept_in: wp.array2d[wp.spatial_matrixd],
    motion_in: wp.array2d[wp.spatial_vectord],
    wrench_in: wp.array2d[wp.spatial_vectord],
    wrench_out: wp.array3d[wp.float64],
    between_out: wp.array3d[wp.float64],
):
    """Find w of every body, for `between`, and what of it is not its parent's, for `wrench`.

    As `descend`, but that no body waits for another: each goes along all that it stands on.
    """
    first, lane = wp.tid()
    for item in range(first, listed_in[0], nthread):
        worldid, tree = _member(item, ntree, members_in)
        if not is_solved(tree, kind, root_in[worldid], crossed_in[worldid]):
            continue
        parent = parent_in[worldid, tree]
        for i in range(lane, 6, nlane):
            wrench_out[worldid, tree, i] = _motion_along(
                parent,
                i,
                ntree,
                parent_in[worldid],
                lever_in[worldid],
                kept_in[worldid],
                motion_in[worldid],
            )
        meet()
        beside, carried = wp.spatial_vectord(motion_in[worldid, tree]), wp.spatial_vectord()
        if parent < ntree:
            carried = move_motion(wrench_in[worldid, tree], lever_in[worldid, tree])
            beside -= wp.transpose(kept_in[worldid, tree]) * carried
        meet()  # all have read
        for i in range(lane, 6, nlane):
            wrench_out[worldid, tree, i] = element(beside, i)
            between_out[worldid, tree, i] = element(beside + carried, i)


@functools.cache
def _step_bodies(maxcondim: int) -> wp.Kernel:
    @wp.kernel(module="unique", enable_backward=False)
    def step_bodies(
        ntree: int,
        nthread: int,
        kind: int,
        listed_in: wp.array[int],
        members_in: wp.array[int],
        contact_frame_in: wp.array[wp.mat33],
        contact_dim_in: wp.array[int],
        root_in: wp.array2d[int],
        head_in: wp.array2d[int],
        next_in: wp.array[int],
        crossed_in: wp.array2d[int],
        sides_in: wp.array[wp.vec4i],
        offset_in: wp.array[vec6],
        R_in: wp.array[vec6],
        invfriction_in: wp.array[vec5],
        residual_in: wp.array[vec6d],
        D_in: wp.array[vec6d],
        force_in: wp.array[vec6],
        wrench_out: wp.array2d[wp.spatial_vectord],
        between_out: wp.array2d[wp.spatial_vectord],
        work_out: wp.array2d[wp.vec2d],
        step_out: wp.array[vec6],
    ):
        first = wp.tid()
        for item in range(first, listed_in[0], nthread):
            worldid, tree = _member(item, ntree, members_in)
            if not is_solved(tree, kind, root_in[worldid], crossed_in[worldid]):
                continue
            wrench, between, work = step_contacts(
                tree,
                wp.static(maxcondim),
                between_out[worldid, tree],
                wrench_out[worldid, tree],
                contact_frame_in,
                contact_dim_in,
                head_in[worldid],
                next_in,
                sides_in,
                offset_in,
                R_in,
                invfriction_in,
                residual_in,
                D_in,
                force_in,
                step_out,
            )
            wrench_out[worldid, tree] = wrench
            between_out[worldid, tree] = between
            work_out[worldid, tree] = work

    return step_bodies


@wp.kernel(enable_backward=False)
def _gather_bodies(
    dof_bodyid: wp.array[int],
    tree_dofadr: wp.array[int],
    ntree: int,
    nthread: int,
    kind: int,
    listed_in: wp.array[int],
    members_in: wp.array[int],
    crb_in: wp.array2d[vec10],
    child_in: wp.array2d[int],
    sibling_in: wp.array2d[int],
    root_in: wp.array2d[int],
    crossed_in: wp.array2d[int],
    lever_in: wp.array2d[wp.vec3d],
    between_in: wp.array2d[wp.spatial_vectord],
    motion_out: wp.array2d[wp.spatial_vectord],
    wrench_out: wp.array2d[wp.spatial_vectord],
    work_out: wp.array2d[wp.vec2d],
):
    first = wp.tid()
    for item in range(first, listed_in[0], nthread):
        worldid, tree = _member(item, ntree, members_in)
        if not is_solved(tree, kind, root_in[worldid], crossed_in[worldid]):
            continue
        curvature = gather_wrenches(
            tree,
            dof_bodyid,
            tree_dofadr,
            crb_in[worldid],
            child_in[worldid],
            sibling_in[worldid],
            lever_in[worldid],
            between_in[worldid],
            motion_out[worldid],
            wrench_out[worldid],
        )
        work_out[worldid, tree] += wp.vec2d(wp.float64(0.0), curvature)


@wp.kernel(enable_backward=False)
def _move_bodies(
    dof_bodyid: wp.array[int],
    tree_dofadr: wp.array[int],
    tree_bodynum: wp.array[int],
    ntree: int,
    nthread: int,
    kind: int,
    listed_in: wp.array[int],
    members_in: wp.array[int],
    cdof_in: wp.array2d[wp.spatial_vector],
    root_in: wp.array2d[int],
    above_in: wp.array2d[int],
    head_in: wp.array2d[int],
    next_in: wp.array[int],
    crossed_in: wp.array2d[int],
    motion_in: wp.array2d[wp.spatial_vectord],
    wrench_in: wp.array2d[wp.spatial_vectord],
    work_in: wp.array2d[wp.vec2d],
    step_in: wp.array[vec6],
    force_out: wp.array[vec6],
    cacc_out: wp.array2d[wp.spatial_vector],
    qacc_out: wp.array2d[float],
    qfrc_constraint_out: wp.array2d[float],
    qfrc_total_out: wp.array2d[float],
):
    """As `take_steps`; the length of a stack's step is found by all of its bodies, all the same."""
    first = wp.tid()
    for item in range(first, listed_in[0], nthread):
        worldid, tree = _member(item, ntree, members_in)
        if not is_solved(tree, kind, root_in[worldid], crossed_in[worldid]):
            continue
        work = wp.vec2d()
        other = root_in[worldid, tree]
        while other >= 0:
            work += work_in[worldid, other]
            other = above_in[worldid, other]
        take_steps(
            tree,
            kind,
            exact_length(work),
            dof_bodyid,
            tree_dofadr,
            tree_bodynum,
            cdof_in[worldid],
            head_in[worldid],
            next_in,
            motion_in[worldid],
            wrench_in[worldid],
            step_in,
            force_out,
            cacc_out[worldid],
            qacc_out[worldid],
            qfrc_constraint_out[worldid],
            qfrc_total_out[worldid],
        )


def solve_by_lanes(m: Model, d: Data, kind: int) -> None:
    """As `stack_solve.solve_stacks`, where there is a stack."""
    warm, contact, stacks = d.warm, d.contact, d.warm.stacks
    maxcondim, nlane = int(m.nmaxcondim), nlane_for(d)
    most = d.nworld * m.ntree
    nthread, ngroup = (nthread_for(d, min(most, _MOST // share)) for share in (1, nlane))
    matrices_and_vectors = (stacks.coupling, stacks.kept, stacks.motion, stacks.wrench)
    elements = [_elements(array) for array in matrices_and_vectors]
    launch(
        _weigh_bodies(maxcondim),
        dim=(ngroup, nlane),
        inputs=[
            *(m.dof_bodyid, m.tree_dofadr, m.ntree, ngroup, nlane, kind),
            *(stacks.listed, stacks.members, d.crb, contact.frame),
            *(contact.dim, stacks.root, stacks.head, stacks.next, stacks.crossed),
            *(warm.sides, warm.offset, warm.bias, warm.R, warm.invmetric, warm.invfriction),
            *(warm.force, warm.cacc),
        ],
        outputs=[*elements, stacks.residual, stacks.D],
    )
    launch(
        _eliminate_bodies,
        dim=(ngroup, nlane),
        inputs=[
            *(m.ntree, ngroup, nlane, kind, stacks.listed, stacks.tops, stacks.parent),
            *(stacks.child, stacks.sibling, stacks.root, stacks.crossed, stacks.lever),
            *matrices_and_vectors,
        ],
        outputs=[*elements, stacks.arrived],
    )
    launch(
        _descend_bodies,
        dim=(ngroup, nlane),
        inputs=[
            *(m.ntree, ngroup, nlane, kind, stacks.listed, stacks.members, stacks.parent),
            *(stacks.root, stacks.crossed, stacks.lever),
            *(stacks.kept, stacks.motion, stacks.wrench),
        ],
        outputs=[elements[-1], _elements(stacks.between)],
    )
    launch(
        _step_bodies(maxcondim),
        dim=nthread,
        inputs=[
            *(m.ntree, nthread, kind, stacks.listed, stacks.members),
            *(contact.frame, contact.dim, stacks.root, stacks.head),
            *(stacks.next, stacks.crossed, warm.sides, warm.offset, warm.R, warm.invfriction),
            *(stacks.residual, stacks.D, warm.force),
        ],
        outputs=[stacks.wrench, stacks.between, stacks.work, warm.step],
    )
    launch(
        _gather_bodies,
        dim=nthread,
        inputs=[
            *(m.dof_bodyid, m.tree_dofadr, m.ntree, nthread, kind, stacks.listed),
            *(stacks.members, d.crb, stacks.child, stacks.sibling, stacks.root),
            *(stacks.crossed, stacks.lever, stacks.between),
        ],
        outputs=[stacks.motion, stacks.wrench, stacks.work],
    )
    launch(
        _move_bodies,
        dim=nthread,
        inputs=[
            *(m.dof_bodyid, m.tree_dofadr, m.tree_bodynum, m.ntree, nthread, kind),
            *(stacks.listed, stacks.members, d.cdof, stacks.root, stacks.above, stacks.head),
            *(stacks.next, stacks.crossed, stacks.motion, stacks.wrench, stacks.work, warm.step),
        ],
        outputs=[warm.force, warm.cacc, d.qacc, d.qfrc_constraint, d.qfrc_total],
    )
