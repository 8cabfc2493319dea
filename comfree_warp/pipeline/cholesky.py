"""Solves with M, and with M plus Euler's implicit damping, for one core.

On the CPU MuJoCo Warp's tiles factorize by scalar dot products. Here the rows of a block live on
the stack, as vectors that the compiler knows the length of, and are updated whole.
"""

import functools

import mujoco_warp as mjw
import warp as wp
from mujoco_warp import DisableBit, TrnType

from comfree_warp.runtime.changes import changed
from comfree_warp.shared.threads import launch, tree_arrays
from comfree_warp.types import Data, Model

_LANES = 8  # float32 in a vector register
_JOINT = wp.constant(int(TrnType.JOINT))
_JOINT_IN_PARENT = wp.constant(int(TrnType.JOINTINPARENT))


def _rows(size: int) -> type:
    """Type of as many rows, with room for one more column, in whole registers."""
    width = -(-(size + 1) // _LANES) * _LANES
    return wp.types.matrix(shape=(size, width), dtype=float)


@functools.cache
def _factor_solve(size: int) -> wp.Kernel:
    """Kernel over blocks of M of `size` dofs: M = U^T U as `qLD` has it, and x from M x = y."""
    Rows = _rows(size)

    @wp.kernel(module="unique", enable_backward=False)
    def factor_solve(
        M_rownnz: wp.array[int],
        M_rowadr: wp.array[int],
        M_colind: wp.array[int],
        qLD_block_adr: wp.array[int],
        block_dofadr: wp.array[int],
        M_in: wp.array2d[float],
        y_in: wp.array2d[float],
        qLD_out: wp.array2d[float],
        qLDiagInv_out: wp.array2d[float],
        x_out: wp.array2d[float],
    ):
        worldid, blockid = wp.tid()
        start = block_dofadr[blockid]
        factor_adr = qLD_block_adr[start]
        if factor_adr < 0:  # M is diagonal here
            for i in range(start, start + wp.static(size)):
                inverse = 1.0 / M_in[worldid, M_rowadr[i]]
                qLDiagInv_out[worldid, i] = inverse
                x_out[worldid, i] = inverse * y_in[worldid, i]
            return

        # y is one more column: eliminating it with the others is the forward substitution.
        U = Rows()
        for i in range(wp.static(size)):
            dofid = start + i
            rowadr = M_rowadr[dofid]
            for e in range(rowadr, rowadr + M_rownnz[dofid]):
                U[M_colind[e] - start, i] = M_in[worldid, e]
            U[i, wp.static(size)] = y_in[worldid, dofid]
        for k in range(wp.static(size)):
            row = U[k] * (1.0 / wp.sqrt(U[k, k]))
            U[k] = row
            for i in range(k + 1, wp.static(size)):
                U[i] -= U[k, i] * row
        for above in range(wp.static(size)):
            k = wp.static(size - 1) - above
            x = U[k, wp.static(size)] / U[k, k]
            x_out[worldid, start + k] = x
            for i in range(k):
                U[i, wp.static(size)] -= U[i, k] * x
        for i in range(wp.static(size)):
            for j in range(i, wp.static(size)):
                qLD_out[worldid, factor_adr + i * wp.static(size) + j] = U[i, j]

    return factor_solve


@wp.kernel(enable_backward=False)
def _smooth_force(
    body_parentid: wp.array[int],
    body_dofadr: wp.array[int],
    body_dofnum: wp.array[int],
    dof_bodyid: wp.array[int],
    tree_dofadr: wp.array[int],
    tree_bodynum: wp.array[int],
    tree_dofnum: wp.array[int],
    body_rootid: wp.array[int],
    xipos_in: wp.array2d[wp.vec3],
    subtree_com_in: wp.array2d[wp.vec3],
    cdof_in: wp.array2d[wp.spatial_vector],
    xfrc_applied_in: wp.array2d[wp.spatial_vector],
    qfrc_passive_in: wp.array2d[float],
    qfrc_bias_in: wp.array2d[float],
    qfrc_actuator_in: wp.array2d[float],
    qfrc_applied_in: wp.array2d[float],
    qfrc_smooth_out: wp.array2d[float],
):
    """Sum of all forces on the dofs of a tree but those of constraints."""
    worldid, treeid = wp.tid()
    start = tree_dofadr[treeid]
    for i in range(start, start + tree_dofnum[treeid]):
        qfrc_smooth_out[worldid, i] = (
            qfrc_passive_in[worldid, i]
            - qfrc_bias_in[worldid, i]
            + qfrc_actuator_in[worldid, i]
            + qfrc_applied_in[worldid, i]
        )
    first = dof_bodyid[start]
    for bodyid in range(first, first + tree_bodynum[treeid]):
        xfrc = xfrc_applied_in[worldid, bodyid]
        if wp.dot(xfrc, xfrc) == 0.0:
            continue
        force, torque = wp.spatial_top(xfrc), wp.spatial_bottom(xfrc)
        offset = xipos_in[worldid, bodyid] - subtree_com_in[worldid, body_rootid[bodyid]]
        wrench = wp.spatial_vector(torque + wp.cross(offset, force), force)
        moved = wp.int32(bodyid)
        while moved >= first:
            dofadr = body_dofadr[moved]
            for i in range(dofadr, dofadr + body_dofnum[moved]):
                qfrc_smooth_out[worldid, i] += wp.dot(cdof_in[worldid, i], wrench)
            moved = body_parentid[moved]


def _is_covered(m: Model, d: Data) -> bool:
    """Whether it is the CPU, and no block has more dofs than MuJoCo Warp factorizes densely."""
    return d.qpos.device.is_cpu and d.qLD.shape[1] == m.qLD_block_total


def fwd_acceleration(m: Model, d: Data) -> None:
    """As `mujoco_warp.fwd_acceleration` that factorizes: `qfrc_smooth`, `qacc_smooth`, `qLD`."""
    if not _is_covered(m, d):
        mjw.fwd_acceleration(m, d, factorize=True)
        return
    launch(
        _smooth_force,
        dim=(d.nworld, m.ntree),
        inputs=[
            *tree_arrays(m),
            m.tree_dofnum,
            m.body_rootid,
            d.xipos,
            d.subtree_com,
            d.cdof,
            d.xfrc_applied,
            d.qfrc_passive,
            d.qfrc_bias,
            d.qfrc_actuator,
            d.qfrc_applied,
        ],
        outputs=[d.qfrc_smooth],
    )
    for tile in m.M_tiles:
        launch(
            _factor_solve(tile.size),
            dim=(d.nworld, tile.adr.size),
            inputs=[
                *(m.M_rownnz, m.M_rowadr, m.M_colind, m.qLD_block_adr, tile.adr),
                *(d.M, d.qfrc_smooth),
            ],
            outputs=[d.qLD, d.qLDiagInv, d.qacc_smooth],
        )


@wp.func
def _damping_slope(
    jnt_actuatorid: wp.array[int],
    dof_jntid: wp.array[int],
    dof_damping: wp.array2d[float],
    dof_dampingpoly: wp.array2d[wp.vec2],
    actuator_trntype: wp.array[int],
    actuator_trnid: wp.array[wp.vec2i],
    actuator_damping: wp.array2d[float],
    actuator_dampingpoly: wp.array2d[wp.vec2],
    actuator_gear: wp.array2d[wp.spatial_vector],
    worldid: int,
    dofid: int,
    qvel: float,
) -> float:
    """-d(damping force)/d(qvel) of a dof: of its joint, and of actuators that damp the joint."""
    damping = dof_damping[worldid % dof_damping.shape[0], dofid]
    poly = dof_dampingpoly[worldid % dof_dampingpoly.shape[0], dofid]
    jntid = dof_jntid[dofid]
    actid = jnt_actuatorid[jntid]  # -1: none damps it; below: several may
    first = wp.max(actid, 0)
    last = wp.where(actid < -1, actuator_trntype.shape[0], actid + 1)
    for i in range(first, last):
        trntype = actuator_trntype[i]
        if actuator_trnid[i][0] == jntid and (trntype == _JOINT or trntype == _JOINT_IN_PARENT):
            gear = actuator_gear[worldid % actuator_gear.shape[0], i][0]
            damping += gear * gear * actuator_damping[worldid % actuator_damping.shape[0], i]
            more = actuator_dampingpoly[worldid % actuator_dampingpoly.shape[0], i]
            poly += gear * gear * more
    speed = wp.abs(qvel)
    return damping + speed * (2.0 * poly[0] + 3.0 * speed * poly[1])


@functools.cache
def _damped_solve(size: int) -> wp.Kernel:
    """Kernel over blocks of `size` dofs: x from (M + h diag(damping slope)) x = y.

    From the leaves to the root, so that what M has no entry for stays zero.
    """
    Rows = _rows(size)

    @wp.kernel(module="unique", enable_backward=False)
    def damped_solve(
        opt_timestep: wp.array[float],
        M_rownnz: wp.array[int],
        M_rowadr: wp.array[int],
        M_colind: wp.array[int],
        jnt_actuatorid: wp.array[int],
        dof_jntid: wp.array[int],
        dof_damping: wp.array2d[float],
        dof_dampingpoly: wp.array2d[wp.vec2],
        actuator_trntype: wp.array[int],
        actuator_trnid: wp.array[wp.vec2i],
        actuator_damping: wp.array2d[float],
        actuator_dampingpoly: wp.array2d[wp.vec2],
        actuator_gear: wp.array2d[wp.spatial_vector],
        block_dofadr: wp.array[int],
        M_in: wp.array2d[float],
        qvel_in: wp.array2d[float],
        y_in: wp.array2d[float],
        x_out: wp.array2d[float],
    ):
        worldid, blockid = wp.tid()
        start = block_dofadr[blockid]
        h = opt_timestep[worldid % opt_timestep.shape[0]]
        A = Rows()  # lower triangle, and y as one more column; above the diagonal no one looks
        for i in range(wp.static(size)):
            dofid = start + i
            rowadr = M_rowadr[dofid]
            for e in range(rowadr, rowadr + M_rownnz[dofid]):
                A[i, M_colind[e] - start] = M_in[worldid, e]
            A[i, i] += h * _damping_slope(
                jnt_actuatorid,
                dof_jntid,
                dof_damping,
                dof_dampingpoly,
                actuator_trntype,
                actuator_trnid,
                actuator_damping,
                actuator_dampingpoly,
                actuator_gear,
                worldid,
                dofid,
                qvel_in[worldid, dofid],
            )
            A[i, wp.static(size)] = y_in[worldid, dofid]
        for below in range(wp.static(size)):
            k = wp.static(size - 1) - below
            row = A[k] * (1.0 / A[k, k])
            rowadr = M_rowadr[start + k]
            for e in range(rowadr, rowadr + M_rownnz[start + k] - 1):
                i = M_colind[e] - start
                A[i] -= A[k, i] * row
            A[k] = row
        for k in range(wp.static(size)):
            x = A[k, wp.static(size)]
            rowadr = M_rowadr[start + k]
            for e in range(rowadr, rowadr + M_rownnz[start + k] - 1):
                i = M_colind[e] - start
                x -= A[k, i] * x_out[worldid, start + i]
            x_out[worldid, start + k] = x

    return damped_solve


def euler(m: Model, d: Data) -> None:
    """As `mujoco_warp.euler`: the next state, with the damping of joints taken implicitly."""
    undamped = DisableBit.EULERDAMP | DisableBit.DAMPER
    if not _is_covered(m, d) or m.opt.disableflags & undamped:
        mjw.euler(m, d)
        return
    qacc = wp.empty_like(d.qacc)
    for tile in m.M_tiles:
        launch(
            _damped_solve(tile.size),
            dim=(d.nworld, tile.adr.size),
            inputs=[
                m.opt.timestep,
                *(m.M_rownnz, m.M_rowadr, m.M_colind),
                *(m.jnt_actuatorid, m.dof_jntid, m.dof_damping, m.dof_dampingpoly),
                *(m.actuator_trntype, m.actuator_trnid),
                *(m.actuator_damping, m.actuator_dampingpoly, m.actuator_gear),
                *(tile.adr, d.M, d.qvel, d.qfrc_total),
            ],
            outputs=[qacc],
        )
    with (
        changed(d, qacc=qacc),
        changed(m.opt, disableflags=m.opt.disableflags | DisableBit.EULERDAMP),
        # Or it goes over all actuators to advance activations and histories that none has.
        changed(m, nactuator=m.nactuator if m.na or m.nhistory else 0),
    ):
        mjw.euler(m, d)
    wp.copy(d.qacc_warmstart, d.qacc)
