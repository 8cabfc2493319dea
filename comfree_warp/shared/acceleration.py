"""From the wrenches of contacts to the acceleration of the dofs, in a sweep up every tree."""

import functools

import mujoco_warp
import warp as wp

from comfree_warp.shared import bodies
from comfree_warp.shared.fixed_point import from_fixed, is_deterministic
from comfree_warp.shared.threads import (
    first_body,
    index,
    launch,
    nthread_for,
    push_dof,
    tree_arrays,
)
from comfree_warp.types import Data, Model


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


def is_diagonal(d: Data) -> bool:
    """Whether M is diagonal, so that no block of it has a factor."""
    return d.qLD.shape[1] == 0


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
