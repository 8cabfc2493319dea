"""The sweeps of trees with a thread for every body, as a GPU wants them.

Up a tree: what acts on a body and all below it, which are those that follow it. Down a tree: what
the dofs of a body and of all above it do. A thread goes over them by itself, so that none waits for
another; on the CPU a sweep by tree has less to do.
"""

import functools

import mujoco
import numpy as np
import warp as wp

from comfree_warp.shared.fixed_point import from_fixed
from comfree_warp.shared.threads import launch, push_dof
from comfree_warp.types import Data, Model

_MOST_BODIES = 128  # of a tree: a thread goes over up to all of them


def has_small_trees(mjm: mujoco.MjModel) -> bool:
    """Whether a tree has several bodies, and none very many."""
    return 1 < max(np.bincount(mjm.body_treeid + 1)[1:], default=0) <= _MOST_BODIES


def by_body(m: Model, d: Data) -> bool:
    """Whether bodies get a thread each."""
    return m.by_body and not d.qpos.device.is_cpu


@functools.cache
def _sum_below(deterministic: bool) -> wp.Kernel:
    @wp.kernel(module="unique", enable_backward=False)
    def sum_below(
        body_treeid: wp.array[int],
        body_subtreenum: wp.array[int],
        cfrc_in: wp.array2d[wp.spatial_vector],
        cfrc_fixed_in: wp.array3d[wp.int64],
        cfrc_out: wp.array2d[wp.spatial_vector],
    ):
        worldid, bodyid = wp.tid()
        below = wp.spatial_vector()
        if body_treeid[bodyid] >= 0:
            for i in range(bodyid, bodyid + body_subtreenum[bodyid]):
                cfrc = cfrc_in[worldid, i]
                if wp.static(deterministic):
                    for j in range(6):
                        cfrc[j] += from_fixed(cfrc_fixed_in[worldid, i, j])
                below += cfrc
        cfrc_out[worldid, bodyid] = below

    return sum_below


@functools.cache
def _accumulate_dofs(deterministic: bool, total: bool, consume: bool, diagonal: bool) -> wp.Kernel:
    @wp.kernel(module="unique", enable_backward=False)
    def accumulate_dofs(
        nbody: int,
        nv: int,
        dof_bodyid: wp.array[int],
        cdof_in: wp.array2d[wp.spatial_vector],
        qfrc_smooth_in: wp.array2d[float],
        qLDiagInv_in: wp.array2d[float],
        below_in: wp.array2d[wp.spatial_vector],
        cfrc_fixed_out: wp.array3d[wp.int64],
        qfrc_fixed_out: wp.array2d[wp.int64],
        cfrc_contact_out: wp.array2d[wp.spatial_vector],
        qfrc_out: wp.array2d[float],
        qfrc_total_out: wp.array2d[float],
        qacc_out: wp.array2d[float],
    ):
        """As `contacts.sweep_up`, of a body and of a dof."""
        worldid, i = wp.tid()
        if i < nbody:
            if wp.static(consume):
                cfrc_contact_out[worldid, i] = wp.spatial_vector()
            else:
                cfrc_contact_out[worldid, i] = below_in[worldid, i]
            if wp.static(deterministic):
                for j in range(6):
                    cfrc_fixed_out[worldid, i, j] = wp.int64(0)
        if i < nv:
            push_dof(
                i,
                wp.dot(cdof_in[worldid, i], below_in[worldid, dof_bodyid[i]]),
                wp.static(deterministic),
                wp.static(total),
                wp.static(diagonal),
                qfrc_smooth_in[worldid],
                qLDiagInv_in[worldid],
                qfrc_fixed_out[worldid],
                qfrc_out[worldid],
                qfrc_total_out[worldid],
                qacc_out[worldid],
            )

    return accumulate_dofs


def accumulate_forces(
    m: Model,
    d: Data,
    qfrc: wp.array2d[float],
    qacc: wp.array2d[float],
    deterministic: bool,
    total: bool,
    consume: bool,
    diagonal: bool,
) -> None:
    """As the kernel of that name in `contacts`, which says what the switches are."""
    below = wp.empty_like(d.cfrc_contact)
    launch(
        _sum_below(deterministic),
        dim=(d.nworld, m.nbody),
        inputs=[m.body_treeid, m.body_subtreenum, d.cfrc_contact, d.cfrc_fixed],
        outputs=[below],
    )
    launch(
        _accumulate_dofs(deterministic, total, consume, diagonal),
        dim=(d.nworld, max(m.nbody, m.nv)),
        inputs=[m.nbody, m.nv, m.dof_bodyid, d.cdof, d.qfrc_smooth, d.qLDiagInv, below],
        outputs=[d.cfrc_fixed, d.qfrc_fixed, d.cfrc_contact, qfrc, d.qfrc_total, qacc],
    )


@wp.kernel(enable_backward=False)
def _predict_velocity(
    opt_timestep: wp.array[float],
    body_parentid: wp.array[int],
    body_treeid: wp.array[int],
    body_dofadr: wp.array[int],
    body_dofnum: wp.array[int],
    qvel_in: wp.array2d[float],
    qacc_smooth_in: wp.array2d[float],
    cdof_in: wp.array2d[wp.spatial_vector],
    drop_contact_rows: bool,
    ne_in: wp.array[int],
    nf_in: wp.array[int],
    nl_in: wp.array[int],
    nefc_out: wp.array[int],
    qvel_smooth_pred_out: wp.array2d[float],
    cvel_smooth_pred_out: wp.array2d[wp.spatial_vector],
    cfrc_contact_out: wp.array2d[wp.spatial_vector],
    qfrc_constraint_out: wp.array2d[float],
):
    """As the kernel of that name in `contacts`, of a body."""
    worldid, bodyid = wp.tid()
    if bodyid == 0 and drop_contact_rows:
        nefc_out[worldid] = ne_in[worldid] + nf_in[worldid] + nl_in[worldid]
    if body_treeid[bodyid] < 0:
        return
    h = opt_timestep[worldid % opt_timestep.shape[0]]
    cvel = wp.spatial_vector()
    above = wp.int32(bodyid)
    while body_treeid[above] >= 0:
        dofadr = body_dofadr[above]
        for dofid in range(dofadr, dofadr + body_dofnum[above]):
            qvel = qvel_in[worldid, dofid] + h * qacc_smooth_in[worldid, dofid]
            cvel += cdof_in[worldid, dofid] * qvel
            if above == bodyid:
                qvel_smooth_pred_out[worldid, dofid] = qvel
                qfrc_constraint_out[worldid, dofid] = 0.0
        above = body_parentid[above]
    cvel_smooth_pred_out[worldid, bodyid] = cvel
    cfrc_contact_out[worldid, bodyid] = wp.spatial_vector()


def predict_velocity(m: Model, d: Data, drop_contact_rows: bool) -> None:
    """As that of `contacts`."""
    launch(
        _predict_velocity,
        dim=(d.nworld, m.nbody),
        inputs=[
            *(m.opt.timestep, m.body_parentid, m.body_treeid, m.body_dofadr, m.body_dofnum),
            *(d.qvel, d.qacc_smooth, d.cdof, drop_contact_rows, d.ne, d.nf, d.nl),
        ],
        outputs=[d.nefc, d.qvel_smooth_pred, d.cvel_smooth_pred, d.cfrc_contact, d.qfrc_constraint],
    )


@wp.kernel(enable_backward=False)
def _apply_step(
    scale_in: wp.array[float], qacc_step_in: wp.array2d[float], qacc_out: wp.array2d[float]
):
    worldid, dofid = wp.tid()
    qacc_out[worldid, dofid] += scale_in[worldid] * qacc_step_in[worldid, dofid]


@functools.cache
def _accelerate_bodies(renew: bool) -> wp.Kernel:
    @wp.kernel(module="unique", enable_backward=False)
    def accelerate_bodies(
        body_parentid: wp.array[int],
        body_treeid: wp.array[int],
        body_dofadr: wp.array[int],
        body_dofnum: wp.array[int],
        cdof_in: wp.array2d[wp.spatial_vector],
        qacc_in: wp.array2d[float],
        cacc_out: wp.array2d[wp.spatial_vector],
        qfrc_step_out: wp.array2d[float],
        qfrc_constraint_out: wp.array2d[float],
        sums_out: wp.array3d[float],
    ):
        """As the kernel of that name in `warm.trees`, of a body."""
        worldid, bodyid = wp.tid()
        treeid = body_treeid[bodyid]
        if treeid < 0:
            return
        if body_treeid[body_parentid[bodyid]] < 0:
            for i in range(4):
                sums_out[worldid, treeid, i] = 0.0
        motion = wp.spatial_vector()
        above = wp.int32(bodyid)
        while body_treeid[above] >= 0:
            dofadr = body_dofadr[above]
            for dofid in range(dofadr, dofadr + body_dofnum[above]):
                motion += cdof_in[worldid, dofid] * qacc_in[worldid, dofid]
                if above == bodyid:
                    qfrc_step_out[worldid, dofid] = 0.0
                    if wp.static(renew):
                        qfrc_constraint_out[worldid, dofid] = 0.0
            above = body_parentid[above]
        cacc_out[worldid, bodyid] = motion

    return accelerate_bodies


def accelerate_bodies(m: Model, d: Data, *, apply: bool, renew: bool) -> None:
    """As that of `warm.trees`."""
    warm = d.warm
    if apply:
        launch(
            _apply_step,
            dim=d.qacc.shape,
            inputs=[warm.scale, warm.qacc_step],
            outputs=[d.qacc],
        )
    launch(
        _accelerate_bodies(renew),
        dim=(d.nworld, m.nbody),
        inputs=[m.body_parentid, m.body_treeid, m.body_dofadr, m.body_dofnum, d.cdof, d.qacc],
        outputs=[warm.cacc, warm.qfrc_step, d.qfrc_constraint, warm.sums],
    )
