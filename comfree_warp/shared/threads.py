"""How kernels go over contacts, rows and trees: in how many threads and blocks, by which arrays.

A kernel strides over what there is, which may be less than there is room for:

    item, ncon = wp.int32(wp.tid()), wp.min(nacon_in[0], naconmax)
    while item < ncon:
        conid = index(item)
        item += nthread

`while`, as over the bodies and dofs of a tree: of a `range` whose bounds are known at run time
only, Warp makes a loop of ten more instructions a turn that the compiler does not unroll, a quarter
of the time of a kernel that has little to do. What a GPU alone runs keeps `range`.
"""

from collections.abc import Sequence

import warp as wp

from comfree_warp.shared.fixed_point import from_fixed
from comfree_warp.types import Data, Model

# Threads of a block on a GPU. Of a thousand contacts Warp's 256 make blocks for a few of its
# multiprocessors, and the others wait.
_BLOCK_DIM = 64


def launch(
    kernel: wp.Kernel, dim: int | Sequence[int], inputs: Sequence, outputs: Sequence = ()
) -> None:
    """Launch a kernel on the current device, in blocks that reach all of a GPU."""
    wp.launch(kernel, dim=dim, inputs=inputs, outputs=outputs, block_dim=_BLOCK_DIM)


def nthread_for(d: Data, most: int) -> int:
    """Threads for up to `most` items: one each on a GPU.

    On the CPU one for all. Threads run one after the other there, and one with nothing to do clears
    its local vectors all the same: 5 to 20 ns, a quarter of what a contact costs.
    """
    return min(most, 1) if d.qpos.device.is_cpu else most


def block_dim_for(most: int) -> int:
    """Threads of a block that strides over up to `most` items of a world; on a CPU it has one.

    A power of two from a warp to 256, so that models of about a size share what is compiled.
    """
    return min(256, max(32, 1 << (most - 1).bit_length()))


def tree_arrays(m: Model) -> list[wp.array]:
    """What a sweep over every tree reads of the model."""
    return [
        m.body_parentid,
        m.body_dofadr,
        m.body_dofnum,
        m.dof_bodyid,
        m.tree_dofadr,
        m.tree_bodynum,
    ]


@wp.func
def index(i: int) -> int:
    """A number that the compiler then knows not to be negative.

    Warp's arrays count negative indices from the end, which takes three of the seven instructions
    of an access. On a CPU that was a fifth of what a contact costs.
    """
    return wp.max(i, 0)


@wp.func
def first_body(treeid: int, tree_dofadr: wp.array[int], dof_bodyid: wp.array[int]) -> int:
    """The body that a tree begins with."""
    return index(dof_bodyid[index(tree_dofadr[treeid])])


@wp.func
def push_dof(
    dofid: int,
    along: float,
    deterministic: bool,
    total: bool,
    diagonal: bool,
    qfrc_smooth: wp.array[float],
    qLDiagInv: wp.array[float],
    qfrc_fixed: wp.array[wp.int64],
    qfrc: wp.array[float],
    qfrc_total: wp.array[float],
    qacc: wp.array[float],
):
    """What a wrench on its body and all below it does `along` a dof; of a sweep up a tree.

    `total`: also qfrc_smooth + that. `diagonal`: also M^-1 times either.
    """
    force = qfrc[dofid] + along
    if deterministic:
        force += from_fixed(qfrc_fixed[dofid])
        qfrc_fixed[dofid] = wp.int64(0)
    qfrc[dofid] = force
    if total:
        force += qfrc_smooth[dofid]
        qfrc_total[dofid] = force
    if diagonal:
        qacc[dofid] = qLDiagInv[dofid] * force
