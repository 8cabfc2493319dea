"""What the warm law remembers from step to step, and when it forgets.

`step` stores the force of every contact and row at its end; nothing else does, so that `forward`
can be called any number of times. A tree's memory holds while its part of qpos, and the time, are
bit for bit what the step left: a keyframe or a qpos that the caller wrote voids it, of that tree in
that world alone; a reset or another time voids that of the world. A contact or row uses the memory
if it holds for all trees it touches.

The force of a contact goes to that contact of the same pair of geoms (of a flex: of its vertex or
element) which is nearest now, so that what two bodies exert on each other is kept when collision
detection chooses other points: of two boxes it tells at most four, and which ones changes from step
to step. Contacts are found in chains by a hash of world and pair, in parallel, whichever geom
collision detection tells first. But for rounding nothing depends on the order in which they are
stored; with `Option.deterministic` nothing does, but for which of two contacts at one point is told
first.
"""

import functools

import mujoco
import numpy as np
import warp as wp

from comfree_warp.shared.acceleration import is_diagonal
from comfree_warp.shared.contacts import has_contacts
from comfree_warp.shared.fixed_point import from_fixed, precedes, to_fixed
from comfree_warp.shared.rows import has_contact_rows, max_rows
from comfree_warp.shared.threads import index, launch, nthread_for
from comfree_warp.types import CONTACT_TYPE_CONSTRAINT, Data, Model, Warm, vec5, vec6
from comfree_warp.warm.law import MEAN_GAIN
from comfree_warp.warm.stacks.find import allocate_stacks

_SAME_PLACE = wp.constant(1.0e-5)  # m; distances are compared in steps of it
_fixed8 = wp.types.vector(length=8, dtype=wp.int64)
_ROWS = {
    mujoco.mjtEq.mjEQ_CONNECT.value: 3,
    mujoco.mjtEq.mjEQ_WELD.value: 6,
    mujoco.mjtEq.mjEQ_JOINT.value: 1,
    mujoco.mjtEq.mjEQ_TENDON.value: 1,
    mujoco.mjtEq.mjEQ_FLEXSTRAIN.value: 24,  # a cell of at most eight nodes
}


def allocate_memory(mjm: mujoco.MjModel, d: Data) -> Warm:
    """The arrays that the warm law needs, with nothing remembered.

    They are made with the data, and not by the first step, which may be in a captured graph.
    """
    nworld, ncon, nrow = d.nworld, d.naconmax, max_rows(mjm, d)
    nhead = 1 << max(2 * ncon - 1, 1).bit_length()
    eq_slotnum = _equality_rows(mjm)
    nslot = int(eq_slotnum.sum()) + mjm.nv + 2 * mjm.njnt + 2 * mjm.ntendon
    nside = 0 if has_contact_rows(mjm, d.comfree_efc) else ncon
    adr, num = _tree_qpos(mjm)
    with wp.ScopedDevice(d.qpos.device):
        contact = {
            name: wp.zeros(ncon, dtype=vec6) for name in ("force", "step", "bias", "R", "invmetric")
        }
        contact |= {name: wp.zeros(ncon, dtype=float) for name in ("mean", "residual", "proposed")}
        row = {
            f"row_{name}": wp.zeros((nworld, nrow), dtype=float)
            for name in ("step", "bias", "invmetric", "mean", "residual", "proposed")
        }
        return Warm(
            mem_pos=wp.zeros(ncon, dtype=wp.vec3),
            mem_pair=wp.zeros(ncon, dtype=wp.vec2i),
            mem_worldid=wp.zeros(ncon, dtype=int),
            mem_normal=wp.zeros(ncon, dtype=wp.vec2),
            mem_friction=wp.zeros(ncon, dtype=wp.vec3),
            mem_torque=wp.zeros(ncon, dtype=wp.vec3),
            mem_count=wp.zeros(1, dtype=int),
            mem_next=wp.zeros(ncon, dtype=int),
            mem_row=wp.zeros((nworld, nslot, 2), dtype=float),
            mem_qpos=wp.zeros(d.qpos.shape, dtype=float),
            mem_time=wp.full(nworld, np.nan, dtype=float),
            mem_alpha=wp.ones((nworld, mjm.ntree, 2), dtype=float),
            eq_slotadr=wp.array(np.cumsum(eq_slotnum) - eq_slotnum, dtype=int),
            eq_slotnum=wp.array(eq_slotnum, dtype=int),
            tree_qposadr=wp.array(adr, dtype=int),
            tree_qposnum=wp.array(num, dtype=int),
            valid=wp.zeros((nworld, mjm.ntree), dtype=int),
            alpha=wp.zeros((nworld, mjm.ntree, 2), dtype=float),
            sums=wp.zeros((nworld, mjm.ntree, 4), dtype=float),
            sums_fixed=wp.zeros((nworld, mjm.ntree, 4, 2), dtype=wp.int64),
            smooth=wp.zeros((nworld, mjm.ntree), dtype=float),
            M_diaginv=d.qLDiagInv if is_diagonal(d) else wp.zeros_like(d.qvel),
            scale=wp.zeros(nworld, dtype=float),
            cacc=wp.zeros_like(d.cvel),
            qfrc_step=wp.zeros_like(d.qvel),
            qacc_step=wp.zeros_like(d.qvel),
            ntree=wp.zeros(ncon, dtype=int),
            sides=wp.zeros(nside, dtype=wp.vec4i),
            invfriction=wp.zeros(ncon, dtype=vec5),
            offset=wp.zeros(nside, dtype=vec6),
            pair=wp.zeros(ncon, dtype=wp.vec2i),
            sign=wp.zeros(ncon, dtype=float),
            inherited=wp.zeros(ncon, dtype=int),
            next=wp.zeros(ncon, dtype=int),
            head=wp.zeros(nhead, dtype=int),
            row_slot=wp.zeros((nworld, nrow), dtype=int),
            stacks=allocate_stacks(mjm, d),
            **contact,
            **row,
        )


def _equality_rows(mjm: mujoco.MjModel) -> np.ndarray:
    """The most rows that every equality can have, (neq,) int."""
    counts = np.array([_ROWS.get(kind, 0) for kind in mjm.eq_type], dtype=np.int32)
    flex = mjm.eq_type == mujoco.mjtEq.mjEQ_FLEX
    counts[flex] = mjm.flex_edgenum[mjm.eq_obj1id[flex]]
    return counts


def _tree_qpos(mjm: mujoco.MjModel) -> tuple[np.ndarray, np.ndarray]:
    """First component of qpos of every tree and number of them, (ntree,) int each."""
    qposadr = np.append(mjm.jnt_qposadr, mjm.nq)
    first_dof = np.append(mjm.tree_dofadr, mjm.nv)
    first_jnt = np.searchsorted(mjm.jnt_dofadr, first_dof)
    return qposadr[first_jnt[:-1]], np.diff(qposadr[first_jnt])


@wp.func
def _hash(worldid: int, pair: wp.vec2i, nhead: int) -> int:
    mixed = (worldid * 73856093) ^ (pair[0] * 19349663) ^ (pair[1] * 83492791)
    mixed = mixed ^ (mixed >> 15)
    return index(mixed & (nhead - 1))


@wp.func
def _is_same(worldid: int, pair: wp.vec2i, other_worldid: int, other: wp.vec2i) -> bool:
    return worldid == other_worldid and pair[0] == other[0] and pair[1] == other[1]


@wp.func
def _side(geom: int, flex: int, elem: int, vert: int) -> int:
    """What names one side of a contact: its geom, or below -1 a vertex or an element of a flex."""
    if geom >= 0:
        return geom
    if vert >= 0:
        return -2 - (flex << 24) - vert
    return -2 - (flex << 24) - (1 << 23) - elem


@wp.func
def _is_nearer(
    distance: float, pos: wp.vec3, conid: int, least: float, nearest_pos: wp.vec3, nearest: int
) -> bool:
    """Whether a contact is nearer than the nearest so far, in whatever order they are compared.

    A point that is told twice counts once: one of the two gets all.
    """
    if distance != least:
        return distance < least
    if precedes(pos, nearest_pos):
        return True
    return conid > nearest and not precedes(nearest_pos, pos)


@functools.cache
def _index_contacts(adhesion: bool, flex: bool) -> wp.Kernel:
    @wp.kernel(module="unique", enable_backward=False)
    def index_contacts(
        naconmax: int,
        nthread: int,
        nacon_in: wp.array[int],
        contact_dist_in: wp.array[float],
        contact_includemargin_in: wp.array[float],
        contact_geom_in: wp.array[wp.vec2i],
        contact_flex_in: wp.array[wp.vec2i],
        contact_elem_in: wp.array[wp.vec2i],
        contact_vert_in: wp.array[wp.vec2i],
        contact_worldid_in: wp.array[int],
        contact_type_in: wp.array[int],
        contact_adhesion_in: wp.array[float],
        active_out: wp.array[int],
        pair_out: wp.array[wp.vec2i],
        sign_out: wp.array[float],
        inherited_out: wp.array[int],
        next_out: wp.array[int],
        head_out: wp.array[int],
    ):
        """Which contacts push; all of them into the chains, and nothing inherited yet."""
        item, ncon = wp.int32(wp.tid()), wp.min(nacon_in[0], naconmax)
        while item < ncon:
            conid = index(item)
            item += nthread
            active = contact_dist_in[conid] < contact_includemargin_in[conid]
            if wp.static(adhesion):
                active = active or contact_adhesion_in[conid] != 0.0
            active = active and (contact_type_in[conid] & CONTACT_TYPE_CONSTRAINT) != 0
            active_out[conid] = wp.where(active, 1, 0)
            if not active:
                continue
            one = wp.int32(contact_geom_in[conid][0])
            other = wp.int32(contact_geom_in[conid][1])
            if wp.static(flex):
                of, elem = contact_flex_in[conid], contact_elem_in[conid]
                vert = contact_vert_in[conid]
                one = _side(one, of[0], elem[0], vert[0])
                other = _side(other, of[1], elem[1], vert[1])
            pair = wp.vec2i(wp.min(one, other), wp.max(one, other))
            pair_out[conid] = pair
            # A contact's force is that on its second geom, whichever collision detection tells.
            sign_out[conid] = wp.where(one <= other, 1.0, -1.0)
            inherited_out[conid] = 0
            chain = _hash(contact_worldid_in[conid], pair, head_out.shape[0])
            next_out[conid] = wp.atomic_exch(head_out, chain, conid + 1)

    return index_contacts


@wp.func
def _distance(square: float) -> float:
    """In steps of what counts as the same place, from its square."""
    return wp.floor(wp.sqrt(square) / _SAME_PLACE)


@wp.func
def _beyond(least: float) -> float:
    """The square of a distance that is surely more steps than `least`: told without a root."""
    reach = (least + 1.0) * _SAME_PLACE
    return 1.00001 * reach * reach


@wp.kernel(enable_backward=False)
def _find_heirs(
    naconmax: int,
    nthread: int,
    nacon_in: wp.array[int],
    contact_pos_in: wp.array[wp.vec3],
    contact_worldid_in: wp.array[int],
    active_in: wp.array[int],
    pair_in: wp.array[wp.vec2i],
    next_in: wp.array[int],
    head_in: wp.array[int],
    mem_count: wp.array[int],
    mem_worldid: wp.array[int],
    mem_pair: wp.array[wp.vec2i],
    mem_pos: wp.array[wp.vec3],
    mem_next_out: wp.array[int],
    inherited_out: wp.array[int],
):
    """Give every contact of the last step to the one of this step that gets its force."""
    ncon = wp.min(nacon_in[0], naconmax)
    item = wp.int32(wp.tid())
    while item < mem_count[0]:
        conid = index(item)
        item += nthread
        worldid, pair, pos = mem_worldid[conid], mem_pair[conid], mem_pos[conid]
        if worldid < 0:
            continue
        heir = wp.int32(-1)
        least = float(0.0)
        beyond = float(wp.inf)
        nearest_pos = wp.vec3()
        # What rests has kept its place in the list; then a glance at the others is enough.
        stays = conid < ncon and active_in[conid] != 0
        if stays and _is_same(contact_worldid_in[conid], pair_in[conid], worldid, pair):
            heir = conid
            nearest_pos = contact_pos_in[conid]
            least = _distance(wp.length_sq(nearest_pos - pos))
            beyond = _beyond(least)
        entry = head_in[_hash(worldid, pair, head_in.shape[0])]
        while entry > 0:
            other = index(entry - 1)
            entry = next_in[other]
            if other == heir:
                continue
            other_pos = contact_pos_in[other]
            square = wp.length_sq(other_pos - pos)
            if square > beyond:
                continue
            if _is_same(contact_worldid_in[other], pair_in[other], worldid, pair):
                distance = _distance(square)
                if heir < 0 or _is_nearer(distance, other_pos, other, least, nearest_pos, heir):
                    heir = other
                    least = distance
                    beyond = _beyond(least)
                    nearest_pos = other_pos
        if heir >= 0:
            mem_next_out[conid] = wp.atomic_exch(inherited_out, heir, conid + 1)


@wp.func
def inherit(
    inherited: int,
    frame: wp.mat33,
    condim: int,
    kept: float,
    sign: float,
    deterministic: bool,
    mem_normal: wp.array[wp.vec2],
    mem_friction: wp.array[wp.vec3],
    mem_torque: wp.array[wp.vec3],
    mem_next: wp.array[int],
) -> tuple[vec6, float]:
    """What a contact gets of the last step's forces, in its frame; the mean of its normal force.

    The chain of those forces begins at `inherited`. Of what the normal force differs from its mean,
    `kept` is left.
    """
    normal, friction, torque = wp.vec2(), wp.vec3(), wp.vec3()
    fixed = _fixed8()
    entry = wp.int32(inherited)
    while entry > 0:
        other = index(entry - 1)
        entry = mem_next[other]
        if deterministic:
            for i in range(2):
                fixed[i] += to_fixed(mem_normal[other][i])
            for i in range(3):
                fixed[2 + i] += to_fixed(mem_friction[other][i])
                fixed[5 + i] += to_fixed(mem_torque[other][i])
        else:
            normal += mem_normal[other]
            friction += mem_friction[other]
            torque += mem_torque[other]
    if deterministic:
        for i in range(2):
            normal[i] = from_fixed(fixed[i])
        for i in range(3):
            friction[i] = from_fixed(fixed[2 + i])
            torque[i] = from_fixed(fixed[5 + i])
    sliding, turning = sign * (frame * friction), sign * (frame * torque)
    mean = normal[1]
    force = vec6(mean + kept * (normal[0] - mean), 0.0, 0.0, 0.0, 0.0, 0.0)
    for i in range(1, 6):
        if i < condim:
            force[i] = wp.where(i < 3, sliding[i % 3], turning[i % 3])
    return force, mean


def index_contacts(m: Model, d: Data) -> None:
    """Which contacts push, and to which of them the forces of the last step go."""
    warm, contact = d.warm, d.contact
    warm.head.zero_()
    if not has_contacts(m):  # none pushes, and none is remembered
        warm.ntree.zero_()
        return
    nthread = nthread_for(d, d.naconmax)
    launch(
        _index_contacts(bool(m.flg_adhesion), m.nflex > 0),
        dim=nthread,
        inputs=[
            *(d.naconmax, nthread, d.nacon, contact.dist, contact.includemargin, contact.geom),
            *(contact.flex, contact.elem, contact.vert),
            *(contact.worldid, contact.type, contact.adhesion),
        ],
        outputs=[warm.ntree, warm.pair, warm.sign, warm.inherited, warm.next, warm.head],
    )
    launch(
        _find_heirs,
        dim=nthread,
        inputs=[
            *(d.naconmax, nthread, d.nacon, contact.pos, contact.worldid, warm.ntree),
            *(warm.pair, warm.next, warm.head),
            *(warm.mem_count, warm.mem_worldid, warm.mem_pair, warm.mem_pos),
        ],
        outputs=[warm.mem_next, warm.inherited],
    )


@wp.kernel(enable_backward=False)
def _remember_contacts(
    naconmax: int,
    nthread: int,
    nacon_in: wp.array[int],
    contact_pos_in: wp.array[wp.vec3],
    contact_frame_in: wp.array[wp.mat33],
    contact_worldid_in: wp.array[int],
    pair_in: wp.array[wp.vec2i],
    sign_in: wp.array[float],
    ntree_in: wp.array[int],
    force_in: wp.array[vec6],
    mean_in: wp.array[float],
    mem_count: wp.array[int],
    mem_pos: wp.array[wp.vec3],
    mem_pair: wp.array[wp.vec2i],
    mem_worldid: wp.array[int],
    mem_normal: wp.array[wp.vec2],
    mem_friction: wp.array[wp.vec3],
    mem_torque: wp.array[wp.vec3],
):
    first, ncon = wp.tid(), wp.min(nacon_in[0], naconmax)
    if first == 0:
        mem_count[0] = ncon
    item = wp.int32(first)
    while item < ncon:
        conid = index(item)
        item += nthread
        if ntree_in[conid] == 0:
            mem_worldid[conid] = -1
            continue
        force, toward, mean = force_in[conid], wp.transpose(contact_frame_in[conid]), mean_in[conid]
        mem_pos[conid] = contact_pos_in[conid]
        mem_pair[conid] = pair_in[conid]
        mem_worldid[conid] = contact_worldid_in[conid]
        mem_normal[conid] = wp.vec2(force[0], mean + MEAN_GAIN * (force[0] - mean))
        mem_friction[conid] = sign_in[conid] * toward * wp.vec3(0.0, force[1], force[2])
        mem_torque[conid] = sign_in[conid] * toward * wp.vec3(force[3], force[4], force[5])


@wp.kernel(enable_backward=False)
def _remember_rows(
    njmax: int,
    nthread: int,
    ne_in: wp.array[int],
    nf_in: wp.array[int],
    nl_in: wp.array[int],
    efc_force_in: wp.array2d[float],
    row_slot_in: wp.array2d[int],
    row_mean_in: wp.array2d[float],
    mem_row: wp.array3d[float],
):
    worldid, first = wp.tid()
    nrow = wp.min(ne_in[worldid] + nf_in[worldid] + nl_in[worldid], njmax)
    item = wp.int32(first)
    while item < nrow:
        efcid = index(item)
        item += nthread
        if row_slot_in[worldid, efcid] < 0:
            continue
        slot, force = row_slot_in[worldid, efcid], efc_force_in[worldid, efcid]
        mean = row_mean_in[worldid, efcid]
        mem_row[worldid, slot, 0] = force
        mem_row[worldid, slot, 1] = mean + MEAN_GAIN * (force - mean)


def remember(m: Model, d: Data) -> None:
    """Store the forces of this step, and the state that it led to."""
    warm, contact = d.warm, d.contact
    nthread = nthread_for(d, d.naconmax)
    launch(
        _remember_contacts,
        dim=nthread,
        inputs=[
            *(d.naconmax, nthread, d.nacon, contact.pos, contact.frame, contact.worldid),
            *(warm.pair, warm.sign, warm.ntree, warm.force, warm.mean),
        ],
        outputs=[
            *(warm.mem_count, warm.mem_pos, warm.mem_pair, warm.mem_worldid, warm.mem_normal),
            *(warm.mem_friction, warm.mem_torque),
        ],
    )
    if max_rows(m, d):
        warm.mem_row.zero_()
        nthread = nthread_for(d, max_rows(m, d))
        launch(
            _remember_rows,
            dim=(d.nworld, nthread),
            inputs=[d.njmax, nthread, d.ne, d.nf, d.nl, d.efc.force, warm.row_slot, warm.row_mean],
            outputs=[warm.mem_row],
        )
    wp.copy(warm.mem_time, d.time)
    wp.copy(warm.mem_qpos, d.qpos)
    wp.copy(warm.mem_alpha, warm.alpha)


def forget(d: Data, reset: wp.array) -> None:
    """Void the memory of the worlds in a mask, (nworld,) bool."""
    launch(_forget, dim=d.nworld, inputs=[reset], outputs=[d.warm.mem_time])


@wp.kernel(enable_backward=False)
def _forget(reset_in: wp.array[bool], mem_time: wp.array[float]):
    worldid = wp.tid()
    if reset_in[worldid]:
        mem_time[worldid] = wp.static(float("nan"))
