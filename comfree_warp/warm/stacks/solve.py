"""Free bodies that stand on each other, solved together: what a pass of single contacts is slow at.

Such a pass moves information by one body. So before it every stack, a tree of bodies each of which
stands on its parent (`stacks.py`), gets the forces that all of it needs at once: on the normals
that push or should, and on the friction that holds, which would answer them a step late otherwise,
and the stack rock. With -w the change of acceleration, r = J acc + a + R f, and D = 1/R on these
rows, zero on all others,

    (M + J^T D J) w = J^T D r          d = proj(f - D (r - J w)) - f

which along a tree is one elimination from the top down to the root and one substitution back up, of
6 x 6 blocks: of body b and its parent p, with G of the contacts between the two,

    F = M_b + G_static + sum of S of its children      E = (F + G)^-1 F
    S = F - F E                                        w_b = x_b + (1 - E) w_p

Then the exact length, per stack, as everywhere in the law. Contacts between two branches, and with
bodies that are not free, are left to the passes; those with what cannot move are part of F. After
the passes over normals once more for the friction that holds, where a stack has no contacts but
these: a body on two others is held by both.

On the CPU a thread does all of it, stack by stack; on a GPU `stack_lanes.py` does it.

Source: block elimination (Golub and Van Loan, "Matrix Computations", 4.5), along a tree as in
Featherstone's articulated bodies ("Rigid Body Dynamics Algorithms", chapter 7). All of it is in
float64, but for offsets that `prepare` has rounded: D is large where a contact is stiff, and
multiplies what r is rounded by.
"""

import functools

import warp as wp

from comfree_warp.shared.threads import index, launch, nthread_for
from comfree_warp.types import Data, Model, vec5, vec6, vec6d, vec10
from comfree_warp.warm.stacks import solve_on_gpu as stack_lanes
from comfree_warp.warm.stacks.find import may_stack
from comfree_warp.warm.stacks.forces import (
    descend,
    eliminate,
    exact_length,
    gather_wrenches,
    is_solved,
    step_contacts,
    take_steps,
    weigh_contacts,
)


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
        cdof_in: wp.array2d[wp.spatial_vector],
        crb_in: wp.array2d[vec10],
        contact_frame_in: wp.array[wp.mat33],
        contact_dim_in: wp.array[int],
        parent_in: wp.array2d[int],
        child_in: wp.array2d[int],
        sibling_in: wp.array2d[int],
        root_in: wp.array2d[int],
        above_in: wp.array2d[int],
        below_in: wp.array2d[int],
        head_in: wp.array2d[int],
        next_in: wp.array[int],
        crossed_in: wp.array2d[int],
        found_in: wp.array[int],
        lever_in: wp.array2d[wp.vec3d],
        sides_in: wp.array[wp.vec4i],
        offset_in: wp.array[vec6],
        bias_in: wp.array[vec6],
        R_in: wp.array[vec6],
        invmetric_in: wp.array[vec6],
        invfriction_in: wp.array[vec5],
        coupling_out: wp.array2d[wp.spatial_matrixd],
        kept_out: wp.array2d[wp.spatial_matrixd],
        motion_out: wp.array2d[wp.spatial_vectord],
        wrench_out: wp.array2d[wp.spatial_vectord],
        between_out: wp.array2d[wp.spatial_vectord],
        residual_out: wp.array[vec6d],
        D_out: wp.array[vec6d],
        step_out: wp.array[vec6],
        force_out: wp.array[vec6],
        cacc_out: wp.array2d[wp.spatial_vector],
        qacc_out: wp.array2d[float],
        qfrc_constraint_out: wp.array2d[float],
        qfrc_total_out: wp.array2d[float],
    ):
        """Solve every stack, from where its root is: as the CPU does."""
        if found_in[0] == 0:
            return
        worldid, first = wp.tid()
        item = wp.int32(first)
        while item < ntree:
            root = index(item)
            item += nthread
            if root_in[worldid, root] != root:
                continue
            if not is_solved(root, kind, root_in[worldid], crossed_in[worldid]):
                continue
            tree = below_in[worldid, root]
            while tree >= 0:
                weigh_contacts(
                    tree,
                    kind,
                    wp.static(maxcondim),
                    dof_bodyid,
                    tree_dofadr,
                    crb_in[worldid],
                    contact_frame_in,
                    contact_dim_in,
                    head_in[worldid],
                    next_in,
                    sides_in,
                    offset_in,
                    bias_in,
                    R_in,
                    invmetric_in,
                    invfriction_in,
                    force_out,
                    cacc_out[worldid],
                    residual_out,
                    D_out,
                    coupling_out[worldid],
                    kept_out[worldid],
                    motion_out[worldid],
                    wrench_out[worldid],
                )
                eliminate(
                    tree,
                    child_in[worldid],
                    sibling_in[worldid],
                    root_in[worldid],
                    lever_in[worldid],
                    coupling_out[worldid],
                    kept_out[worldid],
                    motion_out[worldid],
                    wrench_out[worldid],
                )
                if tree == root:
                    break
                tree = below_in[worldid, tree]

            work = wp.vec2d()
            tree = wp.int32(root)
            while tree >= 0:
                beside = descend(
                    tree,
                    ntree,
                    parent_in[worldid],
                    lever_in[worldid],
                    kept_out[worldid],
                    motion_out[worldid],
                )
                wrench, between, tree_work = step_contacts(
                    tree,
                    wp.static(maxcondim),
                    motion_out[worldid, tree],
                    beside,
                    contact_frame_in,
                    contact_dim_in,
                    head_in[worldid],
                    next_in,
                    sides_in,
                    offset_in,
                    R_in,
                    invfriction_in,
                    residual_out,
                    D_out,
                    force_out,
                    step_out,
                )
                wrench_out[worldid, tree] = wrench
                between_out[worldid, tree] = between
                work += tree_work
                tree = above_in[worldid, tree]

            tree = wp.int32(root)
            while tree >= 0:
                work[1] += gather_wrenches(
                    tree,
                    dof_bodyid,
                    tree_dofadr,
                    crb_in[worldid],
                    child_in[worldid],
                    sibling_in[worldid],
                    lever_in[worldid],
                    between_out[worldid],
                    motion_out[worldid],
                    wrench_out[worldid],
                )
                tree = above_in[worldid, tree]
            scale = exact_length(work)

            tree = wp.int32(root)
            while tree >= 0:
                take_steps(
                    tree,
                    kind,
                    scale,
                    dof_bodyid,
                    tree_dofadr,
                    tree_bodynum,
                    cdof_in[worldid],
                    head_in[worldid],
                    next_in,
                    motion_out[worldid],
                    wrench_out[worldid],
                    step_out,
                    force_out,
                    cacc_out[worldid],
                    qacc_out[worldid],
                    qfrc_constraint_out[worldid],
                    qfrc_total_out[worldid],
                )
                tree = above_in[worldid, tree]

    return solve_stacks_of


def by_lanes(d: Data) -> bool:
    """Whether every body of a stack has lanes of its own."""
    return not d.qpos.device.is_cpu


def solve_stacks(m: Model, d: Data, kind: int) -> None:
    """A step of every stack, over normals and friction or friction alone; `qacc`, `cacc` follow."""
    if not may_stack(m, d):
        return
    if by_lanes(d):
        stack_lanes.solve_by_lanes(m, d, kind)
        return
    warm, contact, stacks = d.warm, d.contact, d.warm.stacks
    nthread = nthread_for(d, m.ntree)
    launch(
        _solve_stacks(int(m.nmaxcondim)),
        dim=(d.nworld, nthread),
        inputs=[
            *(m.dof_bodyid, m.tree_dofadr, m.tree_bodynum, m.ntree, nthread, kind),
            *(d.cdof, d.crb, contact.frame, contact.dim),
            *(stacks.parent, stacks.child, stacks.sibling, stacks.root, stacks.above),
            *(stacks.below, stacks.head, stacks.next, stacks.crossed, stacks.found, stacks.lever),
            *(warm.sides, warm.offset, warm.bias, warm.R, warm.invmetric, warm.invfriction),
        ],
        outputs=[
            *(stacks.coupling, stacks.kept, stacks.motion, stacks.wrench, stacks.between),
            *(stacks.residual, stacks.D, warm.step, warm.force, warm.cacc),
            *(d.qacc, d.qfrc_constraint, d.qfrc_total),
        ],
    )
