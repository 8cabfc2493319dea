"""What the warm law remembers from step to step, and when it forgets.

`step` stores the force of every contact and row at its end; nothing else does, so that `forward`
can be called any number of times. A tree's memory holds while its part of qpos, and the time, are
bit for bit what the step left: a reset, a keyframe, a state that the caller wrote void it, of that
tree in that world alone. A contact or row uses the memory if it holds for all trees it touches.

A contact takes the force of the nearest contact that the same two geoms had, up to 2 cm away.
Contacts are found by a hash of world and geoms, in constant time and in parallel; which of several
is nearest does not depend on the order in which they were stored.
"""

import mujoco
import numpy as np
import warp as wp

from comfree_warp.rows import max_rows
from comfree_warp.types import Data, Model, Warm, vec6
from comfree_warp.warm.law import MEAN_GAIN

_RADIUS = wp.constant(0.02)  # m
_ROWS = {
    mujoco.mjtEq.mjEQ_CONNECT.value: 3,
    mujoco.mjtEq.mjEQ_WELD.value: 6,
    mujoco.mjtEq.mjEQ_JOINT.value: 1,
    mujoco.mjtEq.mjEQ_TENDON.value: 1,
}


def allocate_memory(m: Model, d: Data) -> None:
    """Make the arrays that the warm law needs in `d.warm`, with nothing remembered.

    The first `step` or `forward` does it by itself, unless it is being captured. Nothing happens
    where the model's law is another, or they are there.
    """
    if m.comfree_law != "warm" or d.warm is not None:
        return
    nworld, ncon, nrow = d.nworld, d.naconmax, max_rows(m, d)
    nhead = 1 << max(2 * ncon - 1, 1).bit_length()
    eq_slotnum = _equality_rows(m)
    nslot = int(eq_slotnum.sum()) + m.nv + m.njnt + 2 * m.ntendon
    adr, num = _tree_qpos(m)
    with wp.ScopedDevice(d.qpos.device):
        contact = {
            name: wp.zeros(ncon, dtype=vec6) for name in ("force", "step", "bias", "R", "metric")
        }
        contact |= {name: wp.zeros(ncon, dtype=float) for name in ("mean", "residual", "proposed")}
        row = {
            f"row_{name}": wp.zeros((nworld, nrow), dtype=float)
            for name in ("step", "bias", "metric", "mean", "residual", "proposed")
        }
        d.warm = Warm(
            mem_pos=wp.zeros(ncon, dtype=wp.vec3),
            mem_geom=wp.zeros(ncon, dtype=wp.vec2i),
            mem_worldid=wp.zeros(ncon, dtype=int),
            mem_normal=wp.zeros(ncon, dtype=float),
            mem_mean=wp.zeros(ncon, dtype=float),
            mem_friction=wp.zeros(ncon, dtype=wp.vec3),
            mem_torque=wp.zeros(ncon, dtype=wp.vec3),
            mem_next=wp.zeros(ncon, dtype=int),
            mem_head=wp.zeros(nhead, dtype=int),
            mem_row=wp.zeros((nworld, nslot, 2), dtype=float),
            mem_qpos=wp.zeros(d.qpos.shape, dtype=float),
            mem_time=wp.full(nworld, np.nan, dtype=float),
            mem_alpha=wp.ones((nworld, m.ntree, 2), dtype=float),
            eq_slotadr=wp.array(np.cumsum(eq_slotnum) - eq_slotnum, dtype=int),
            eq_slotnum=wp.array(eq_slotnum, dtype=int),
            tree_qposadr=wp.array(adr, dtype=int),
            tree_qposnum=wp.array(num, dtype=int),
            valid=wp.zeros((nworld, m.ntree), dtype=int),
            alpha=wp.zeros((nworld, m.ntree, 2), dtype=float),
            sums=wp.zeros((nworld, m.ntree, 4), dtype=float),
            sums_fixed=wp.zeros((nworld, m.ntree, 4, 2), dtype=wp.int64),
            scale=wp.zeros(nworld, dtype=float),
            cacc=wp.zeros_like(d.cvel),
            qfrc_step=wp.zeros_like(d.qvel),
            qacc_step=wp.zeros_like(d.qvel),
            ntree=wp.zeros(ncon, dtype=int),
            row_slot=wp.zeros((nworld, nrow), dtype=int),
            **contact,
            **row,
        )


def _equality_rows(m: Model) -> np.ndarray:
    """The most rows that every equality can have, (neq,) int."""
    kinds = m.eq_type.numpy()
    counts = np.array([_ROWS.get(kind, 0) for kind in kinds], dtype=np.int32)
    flex = kinds == mujoco.mjtEq.mjEQ_FLEX
    counts[flex] = m.flex_edgenum.numpy()[m.eq_obj1id.numpy()[flex]]
    return counts


def _tree_qpos(m: Model) -> tuple[np.ndarray, np.ndarray]:
    """First component of qpos of every tree and number of them, (ntree,) int each."""
    qposadr = np.append(m.jnt_qposadr.numpy(), m.nq)
    first_dof = np.append(m.tree_dofadr.numpy(), m.nv)
    first_jnt = np.searchsorted(m.jnt_dofadr.numpy(), first_dof)
    return qposadr[first_jnt[:-1]], np.diff(qposadr[first_jnt])


@wp.func
def _hash(worldid: int, geom: wp.vec2i, nhead: int) -> int:
    mixed = (worldid * 73856093) ^ (geom[0] * 19349663) ^ (geom[1] * 83492791)
    mixed = mixed ^ (mixed >> 15)
    return mixed & (nhead - 1)


@wp.func
def find_contact(
    worldid: int,
    geom: wp.vec2i,
    pos: wp.vec3,
    mem_worldid: wp.array[int],
    mem_geom: wp.array[wp.vec2i],
    mem_pos: wp.array[wp.vec3],
    mem_next: wp.array[int],
    mem_head: wp.array[int],
) -> int:
    """The contact of the last step that is nearest to this one, or -1."""
    nearest = wp.int32(-1)
    least = float(_RADIUS)
    entry = mem_head[_hash(worldid, geom, mem_head.shape[0])]
    while entry > 0:
        other = entry - 1
        entry = mem_next[other]
        same = mem_worldid[other] == worldid
        if not (same and mem_geom[other][0] == geom[0] and mem_geom[other][1] == geom[1]):
            continue
        distance = wp.length(mem_pos[other] - pos)
        closer = distance < least
        if distance == least and nearest >= 0:  # the same whatever the order of the chain
            delta = mem_pos[other] - mem_pos[nearest]
            closer = delta[0] < 0.0 or (
                delta[0] == 0.0 and (delta[1] < 0.0 or (delta[1] == 0.0 and delta[2] < 0.0))
            )
        if closer:
            nearest, least = other, distance
    return nearest


@wp.kernel(enable_backward=False)
def _remember_contacts(
    naconmax: int,
    nacon_in: wp.array[int],
    contact_pos_in: wp.array[wp.vec3],
    contact_frame_in: wp.array[wp.mat33],
    contact_geom_in: wp.array[wp.vec2i],
    contact_worldid_in: wp.array[int],
    ntree_in: wp.array[int],
    force_in: wp.array[vec6],
    mean_in: wp.array[float],
    mem_pos: wp.array[wp.vec3],
    mem_geom: wp.array[wp.vec2i],
    mem_worldid: wp.array[int],
    mem_normal: wp.array[float],
    mem_mean: wp.array[float],
    mem_friction: wp.array[wp.vec3],
    mem_torque: wp.array[wp.vec3],
    mem_next: wp.array[int],
    mem_head: wp.array[int],
):
    conid = wp.tid()
    if conid >= wp.min(nacon_in[0], naconmax) or ntree_in[conid] == 0:
        return
    force, toward = force_in[conid], wp.transpose(contact_frame_in[conid])
    geom, worldid = contact_geom_in[conid], contact_worldid_in[conid]
    mem_pos[conid] = contact_pos_in[conid]
    mem_geom[conid] = geom
    mem_worldid[conid] = worldid
    mem_normal[conid] = force[0]
    mem_mean[conid] = mean_in[conid] + MEAN_GAIN * (force[0] - mean_in[conid])
    mem_friction[conid] = toward * wp.vec3(0.0, force[1], force[2])
    mem_torque[conid] = toward * wp.vec3(force[3], force[4], force[5])
    mem_next[conid] = wp.atomic_exch(mem_head, _hash(worldid, geom, mem_head.shape[0]), conid + 1)


@wp.kernel(enable_backward=False)
def _remember_rows(
    njmax: int,
    ne_in: wp.array[int],
    nf_in: wp.array[int],
    nl_in: wp.array[int],
    efc_force_in: wp.array2d[float],
    row_slot_in: wp.array2d[int],
    row_mean_in: wp.array2d[float],
    mem_row: wp.array3d[float],
):
    worldid, efcid = wp.tid()
    nrow = ne_in[worldid] + nf_in[worldid] + nl_in[worldid]
    if efcid >= wp.min(nrow, njmax) or row_slot_in[worldid, efcid] < 0:
        return
    slot, force, mean = (
        row_slot_in[worldid, efcid],
        efc_force_in[worldid, efcid],
        row_mean_in[worldid, efcid],
    )
    mem_row[worldid, slot, 0] = force
    mem_row[worldid, slot, 1] = mean + MEAN_GAIN * (force - mean)


@wp.kernel(enable_backward=False)
def _remember_state(
    tree_qposadr: wp.array[int],
    tree_qposnum: wp.array[int],
    time_in: wp.array[float],
    qpos_in: wp.array2d[float],
    alpha_in: wp.array3d[float],
    mem_time: wp.array[float],
    mem_qpos: wp.array2d[float],
    mem_alpha: wp.array3d[float],
):
    worldid, treeid = wp.tid()
    if treeid == 0:
        mem_time[worldid] = time_in[worldid]
    adr = tree_qposadr[treeid]
    for i in range(adr, adr + tree_qposnum[treeid]):
        mem_qpos[worldid, i] = qpos_in[worldid, i]
    for i in range(2):
        mem_alpha[worldid, treeid, i] = alpha_in[worldid, treeid, i]


def remember(m: Model, d: Data) -> None:
    """Store the forces of this step, and the state that it led to."""
    warm, contact = d.warm, d.contact
    warm.mem_head.zero_()
    wp.launch(
        _remember_contacts,
        dim=d.naconmax,
        inputs=[
            *(d.naconmax, d.nacon, contact.pos, contact.frame, contact.geom, contact.worldid),
            *(warm.ntree, warm.force, warm.mean),
        ],
        outputs=[
            *(warm.mem_pos, warm.mem_geom, warm.mem_worldid, warm.mem_normal, warm.mem_mean),
            *(warm.mem_friction, warm.mem_torque, warm.mem_next, warm.mem_head),
        ],
    )
    if max_rows(m, d):
        warm.mem_row.zero_()
        wp.launch(
            _remember_rows,
            dim=(d.nworld, max_rows(m, d)),
            inputs=[d.njmax, d.ne, d.nf, d.nl, d.efc.force, warm.row_slot, warm.row_mean],
            outputs=[warm.mem_row],
        )
    wp.launch(
        _remember_state,
        dim=(d.nworld, m.ntree),
        inputs=[warm.tree_qposadr, warm.tree_qposnum, d.time, d.qpos, warm.alpha],
        outputs=[warm.mem_time, warm.mem_qpos, warm.mem_alpha],
    )


def forget(d: Data, reset: wp.array) -> None:
    """Void the memory of the worlds in a mask, (nworld,) bool."""
    wp.launch(_forget, dim=d.nworld, inputs=[reset], outputs=[d.warm.mem_time])


@wp.kernel(enable_backward=False)
def _forget(reset_in: wp.array[bool], mem_time: wp.array[float]):
    worldid = wp.tid()
    if reset_in[worldid]:
        mem_time[worldid] = wp.static(float("nan"))
