"""What stands on what: of free bodies, found anew in every step.

A body stands on the first of the lower free bodies that hold it up. That makes trees of them, each
a stack, whose forces `stack_solve.py` finds together. A contact belongs to the upper of two such
bodies, or to the one that it holds up where the other cannot move; all others cross.
"""

import mujoco
import numpy as np
import warp as wp
from mujoco_warp import DisableBit

from comfree_warp.shared.contacts import has_contacts
from comfree_warp.shared.fixed_point import is_deterministic, precedes
from comfree_warp.shared.rows import has_contact_rows
from comfree_warp.shared.threads import first_body, index, launch, nthread_for
from comfree_warp.types import Data, Model, Stacks, vec6d
from comfree_warp.warm.sides import unpack_sides

# A body stands on another if the normal between them rises by more than this, as a sine.
_LEVEL = wp.constant(0.1)


def allocate_stacks(mjm: mujoco.MjModel, d: Data) -> Stacks | None:
    """The arrays that `solve_stacks` needs; None where a model has no two bodies that may stack."""
    free = _free_trees(mjm)
    if free.sum() < 2 or has_contact_rows(mjm, d.comfree_efc):
        return None
    shape = (d.nworld, mjm.ntree)
    return Stacks(
        free=wp.array(free.astype(np.int32), dtype=int),
        loose=wp.zeros(shape, dtype=int),
        parent=wp.zeros(shape, dtype=int),
        child=wp.zeros(shape, dtype=int),
        sibling=wp.zeros(shape, dtype=int),
        above=wp.zeros(shape, dtype=int),
        below=wp.zeros(shape, dtype=int),
        root=wp.zeros(shape, dtype=int),
        head=wp.zeros(shape, dtype=int),
        crossed=wp.zeros(shape, dtype=int),
        found=wp.zeros(1, dtype=int),
        listed=wp.zeros(2, dtype=int),
        members=wp.zeros(d.nworld * mjm.ntree, dtype=int),
        tops=wp.zeros(d.nworld * mjm.ntree, dtype=int),
        lever=wp.zeros(shape, dtype=wp.vec3d),
        next=wp.zeros(d.naconmax, dtype=int),
        coupling=wp.zeros(shape, dtype=wp.spatial_matrixd),
        kept=wp.zeros(shape, dtype=wp.spatial_matrixd),
        motion=wp.zeros(shape, dtype=wp.spatial_vectord),
        wrench=wp.zeros(shape, dtype=wp.spatial_vectord),
        between=wp.zeros(shape, dtype=wp.spatial_vectord),
        arrived=wp.zeros(shape, dtype=int),
        work=wp.zeros(shape, dtype=wp.vec2d),
        residual=wp.zeros(d.naconmax, dtype=vec6d),
        D=wp.zeros(d.naconmax, dtype=vec6d),
    )


def arrays_of(stacks: Stacks | None, *names: str) -> list[wp.array | None]:
    """Arrays of the stacks by name, for a kernel that does without where a model has none."""
    return [getattr(stacks, name) if stacks else None for name in names]


def _free_trees(mjm: mujoco.MjModel) -> np.ndarray:
    """Which trees are one free joint and nothing else, (ntree,) bool."""
    free_dofs = mjm.jnt_dofadr[mjm.jnt_type == mujoco.mjtJoint.mjJNT_FREE]
    return (mjm.tree_dofnum == 6) & np.isin(mjm.tree_dofadr, free_dofs)


@wp.func
def note_parent(
    tree1: int,
    tree2: int,
    com1: wp.vec3,
    com2: wp.vec3,
    normal: wp.vec3,
    gravity: wp.vec3,
    worldid: int,
    loose: wp.array2d[int],
    parent_out: wp.array2d[int],
    found_out: wp.array[int],
):
    """Of every tree, the first of those that it stands on; they are lower: there is no circle."""
    if loose[worldid, tree1] == 0 or loose[worldid, tree2] == 0:
        return
    higher = wp.dot(gravity, com1 - com2)
    slope = -wp.dot(gravity, normal)
    level_sq = _LEVEL * _LEVEL * wp.length_sq(gravity)
    if slope * slope <= level_sq:
        return
    if higher > 0.0 and slope > 0.0:
        wp.atomic_min(parent_out, worldid, tree2, tree1)
        found_out[0] = 1
    elif higher < 0.0 and slope < 0.0:
        wp.atomic_min(parent_out, worldid, tree1, tree2)
        found_out[0] = 1


@wp.func
def _com(
    tree: int, dof_bodyid: wp.array[int], tree_dofadr: wp.array[int], subtree_com: wp.array[wp.vec3]
) -> wp.vec3d:
    """Centre of mass of a tree (m)."""
    return wp.vec3d(subtree_com[first_body(tree, tree_dofadr, dof_bodyid)])


@wp.kernel(enable_backward=False)
def _link_children(
    dof_bodyid: wp.array[int],
    tree_dofadr: wp.array[int],
    ntree: int,
    nthread: int,
    subtree_com_in: wp.array2d[wp.vec3],
    parent_in: wp.array2d[int],
    found_in: wp.array[int],
    child_out: wp.array2d[int],
    sibling_out: wp.array2d[int],
    lever_out: wp.array2d[wp.vec3d],
):
    if found_in[0] == 0:
        return
    worldid, first = wp.tid()
    item = wp.int32(first)
    while item < ntree:
        treeid = index(item)
        item += nthread
        parent = parent_in[worldid, treeid]
        if parent < ntree:
            sibling_out[worldid, treeid] = wp.atomic_exch(child_out, worldid, parent, treeid + 1)
            com = _com(treeid, dof_bodyid, tree_dofadr, subtree_com_in[worldid])
            com -= _com(parent, dof_bodyid, tree_dofadr, subtree_com_in[worldid])
            lever_out[worldid, treeid] = com


@wp.kernel(enable_backward=False)
def _collect_contacts(
    ntree: int,
    naconmax: int,
    nthread: int,
    loose: wp.array2d[int],
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
    item, ncon = wp.int32(wp.tid()), wp.min(nacon_in[0], naconmax)
    while item < ncon:
        conid = index(item)
        item += nthread
        if ntree_in[conid] == 0:
            continue
        worldid = index(contact_worldid_in[conid])
        _body, tree1, tree2 = unpack_sides(sides_in[conid])
        owner = wp.int32(-1)
        if tree1 < 0 or tree2 < 0:
            owner = wp.max(tree1, tree2)
            if loose[worldid, owner] == 0 or (
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


@wp.kernel(enable_backward=False)
def _order_trees(
    ntree: int,
    nthread: int,
    parent_in: wp.array2d[int],
    child_in: wp.array2d[int],
    sibling_in: wp.array2d[int],
    found_in: wp.array[int],
    root_out: wp.array2d[int],
    above_out: wp.array2d[int],
    below_out: wp.array2d[int],
    crossed_out: wp.array2d[int],
    listed_out: wp.array[int],
    members_out: wp.array[int],
    tops_out: wp.array[int],
):
    """Put the trees of a stack in an order in which parents come first; tell its root of crossings.

    The order ends with -1, and goes on from the root to the last, the other way. The trees of all
    stacks are listed, too, in any order on a GPU.
    """
    if found_in[0] == 0:
        return
    worldid, first = wp.tid()
    item = wp.int32(first)
    while item < ntree:
        root = index(item)
        item += nthread
        stands, carries = parent_in[worldid, root] < ntree, child_in[worldid, root] > 0
        if stands or carries:
            members_out[wp.atomic_add(listed_out, 0, 1)] = worldid * ntree + root
        if stands and not carries:
            tops_out[wp.atomic_add(listed_out, 1, 1)] = worldid * ntree + root
        if stands or not carries:
            continue
        crossed = wp.int32(0)
        last = wp.int32(root)
        tree = wp.int32(root)
        while tree >= 0:
            root_out[worldid, tree] = root
            crossed = wp.max(crossed, crossed_out[worldid, tree])
            below_out[worldid, tree] = last
            above_out[worldid, last] = tree
            last = tree
            following = child_in[worldid, tree]
            while following == 0 and tree != root:
                following = sibling_in[worldid, tree]
                tree = parent_in[worldid, tree]
            tree = following - 1
        above_out[worldid, last] = -1
        below_out[worldid, root] = last
        crossed_out[worldid, root] = crossed


def find_stacks(m: Model, d: Data) -> None:
    """Which trees are a stack and in which order, and whose the contacts are, from `note_parent`.

    Begins with what `trees.begin` has left: chains and lists without an entry, trees without a
    root.
    """
    warm, contact = d.warm, d.contact
    stacks = warm.stacks
    if not may_stack(m, d):
        return
    nthread = nthread_for(d, d.naconmax)
    nthread_tree = nthread_for(d, m.ntree)
    launch(
        _link_children,
        dim=(d.nworld, nthread_tree),
        inputs=[
            *(m.dof_bodyid, m.tree_dofadr, m.ntree, nthread_tree, d.subtree_com),
            *(stacks.parent, stacks.found),
        ],
        outputs=[stacks.child, stacks.sibling, stacks.lever],
    )
    launch(
        _collect_contacts,
        dim=nthread,
        inputs=[
            *(m.ntree, d.naconmax, nthread, stacks.loose, d.nacon, contact.worldid),
            *(warm.ntree, warm.sides, stacks.parent, stacks.child, stacks.found),
        ],
        outputs=[stacks.next, stacks.head, stacks.crossed],
    )
    if is_deterministic(m):
        launch(
            _sort_chains,
            dim=(d.nworld, m.ntree),
            inputs=[contact.pos, contact.frame],
            outputs=[stacks.child, stacks.sibling, stacks.head, stacks.next],
        )
    launch(
        _order_trees,
        dim=(d.nworld, nthread_tree),
        inputs=[
            *(m.ntree, nthread_tree, stacks.parent, stacks.child, stacks.sibling, stacks.found)
        ],
        outputs=[
            *(stacks.root, stacks.above, stacks.below, stacks.crossed),
            *(stacks.listed, stacks.members, stacks.tops),
        ],
    )


def may_stack(m: Model, d: Data) -> bool:
    """Whether there may be stacks, which `note_parent` is to look for."""
    without_gravity = m.opt.disableflags & DisableBit.GRAVITY
    return d.warm.stacks is not None and has_contacts(m) and not without_gravity
