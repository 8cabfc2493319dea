"""Functions of a contact that both laws use: its impedance, motion, push and rows in `efc`.

Spatial vectors are MuJoCo's: angular part first, about the centre of mass of the body's root.
Source: MuJoCo's "Computation" chapter for rows, impedance and cones.
"""

import mujoco
import warp as wp
from mujoco_warp import DisableBit

from comfree_warp.shared.fixed_point import to_fixed
from comfree_warp.types import Data, Model, vec5, vec6

FRICTIONLESS = wp.constant(int(mujoco.mjtConstraint.mjCNSTR_CONTACT_FRICTIONLESS))
PYRAMIDAL = wp.constant(int(mujoco.mjtConstraint.mjCNSTR_CONTACT_PYRAMIDAL))
ELLIPTIC = wp.constant(int(mujoco.mjtConstraint.mjCNSTR_CONTACT_ELLIPTIC))
MINVAL = wp.constant(mujoco.mjMINVAL)
MINIMP = wp.constant(mujoco.mjMINIMP)
MAXIMP = wp.constant(mujoco.mjMAXIMP)


@wp.func
def impedance(solimp: vec5, pos: float) -> float:
    """d(r) of MuJoCo's "Solver parameters": how much of a row's motion its force resists."""
    dmin = wp.clamp(solimp[0], MINIMP, MAXIMP)
    dmax = wp.clamp(solimp[1], MINIMP, MAXIMP)
    if dmin == dmax or solimp[2] <= MINVAL:
        return 0.5 * (dmin + dmax)
    x = wp.abs(pos) / solimp[2]
    if x >= 1.0:
        return dmax
    mid = wp.clamp(solimp[3], MINIMP, MAXIMP)
    power = wp.max(solimp[4], 1.0)
    y = x
    if power == 2.0:  # the default, without wp.pow, which costs as much as the rest of the row
        y = wp.where(x <= mid, x * x / mid, 1.0 - (1.0 - x) * (1.0 - x) / (1.0 - mid))
    elif power > 1.0:
        if x <= mid:
            y = wp.pow(x, power) / wp.pow(mid, power - 1.0)
        else:
            y = 1.0 - wp.pow(1.0 - x, power) / wp.pow(1.0 - mid, power - 1.0)
    return dmin + y * (dmax - dmin)


@wp.func
def relative_velocity(
    frame: wp.mat33,
    cvel1: wp.spatial_vector,
    offset1: wp.vec3,
    cvel2: wp.spatial_vector,
    offset2: wp.vec3,
) -> vec6:
    """Body 2's minus body 1's at the contact, in its frame: normal, tangents, spin, rolls.

    The offsets lead to the contact from where the spatial velocities are taken.
    """
    linear = wp.spatial_bottom(cvel2) + wp.cross(wp.spatial_top(cvel2), offset2)
    linear -= wp.spatial_bottom(cvel1) + wp.cross(wp.spatial_top(cvel1), offset1)
    linear = frame * linear
    angular = frame * (wp.spatial_top(cvel2) - wp.spatial_top(cvel1))
    return vec6(linear[0], linear[1], linear[2], angular[0], angular[1], angular[2])


@wp.func
def _add_wrench(
    force: wp.vec3,
    torque: wp.vec3,
    offset: wp.vec3,
    bodyid: int,
    deterministic: bool,
    cfrc: wp.array[wp.spatial_vector],
    fixed: wp.array2d[wp.int64],
):
    """Add a force and torque at a point to a body's wrench, about what is `offset` before it."""
    wrench = wp.spatial_vector(torque + wp.cross(offset, force), force)
    if deterministic:
        for i in range(6):
            wp.atomic_add(fixed, bodyid, i, to_fixed(wrench[i]))
    else:
        wp.atomic_add(cfrc, bodyid, wrench)


@wp.func
def push_apart(
    pull: wp.vec3,
    turn: wp.vec3,
    body: wp.vec2i,
    treeid1: int,
    treeid2: int,
    offset1: wp.vec3,
    offset2: wp.vec3,
    deterministic: bool,
    cfrc: wp.array[wp.spatial_vector],
    fixed: wp.array2d[wp.int64],
):
    """Apply a force and a torque to body 2 and their opposites to body 1.

    Bodies of no tree cannot move, and are left out.
    """
    if treeid1 >= 0:
        _add_wrench(-pull, -turn, offset1, body[0], deterministic, cfrc, fixed)
    if treeid2 >= 0:
        _add_wrench(pull, turn, offset2, body[1], deterministic, cfrc, fixed)


@wp.func
def push_bodies(
    force: vec6,
    frame: wp.mat33,
    body: wp.vec2i,
    treeid1: int,
    treeid2: int,
    offset1: wp.vec3,
    offset2: wp.vec3,
    turns: bool,
    deterministic: bool,
    cfrc: wp.array[wp.spatial_vector],
    fixed: wp.array2d[wp.int64],
):
    """Apply a contact's force, in its frame, to body 2 and its opposite to body 1.

    Without `turns` there is no torque.
    """
    toward = wp.transpose(frame)
    pull = toward * wp.vec3(force[0], force[1], force[2])
    turn = wp.vec3()
    if turns:
        turn = toward * wp.vec3(force[3], force[4], force[5])
    push_apart(pull, turn, body, treeid1, treeid2, offset1, offset2, deterministic, cfrc, fixed)


def max_rows_of_contact(elliptic: bool, maxcondim: int) -> int:
    """The most rows that a contact has in `efc`: a constant bound, so that a loop unrolls."""
    return maxcondim if elliptic else max(1, 2 * (maxcondim - 1))


@wp.func
def reserve_rows(worldid: int, nrow: int, njmax: int, nefc_out: wp.array[int]) -> int:
    """Where the rows of a contact begin in `efc`; -1 where there is no room for all of them.

    All or none, since readers look at the first.
    """
    efcid0 = wp.atomic_add(nefc_out, worldid, nrow)
    return wp.where(efcid0 + nrow > njmax, -1, efcid0)


@wp.func
def count_rows(
    condim: int, elliptic: bool, invweight: float, mu: float, sliding: float
) -> tuple[int, int, float]:
    """Number and type of the rows that a contact has in `efc`, and the inverse weight of each.

    `mu` is the regularized, `sliding` the given coefficient of sliding friction. Source: MuJoCo's
    "Computation" chapter, on pyramidal cones.
    """
    if condim == 1:
        return condim, int(FRICTIONLESS), invweight
    if elliptic:
        return condim, int(ELLIPTIC), invweight
    facet = invweight * (2.0 * (1.0 + sliding * sliding) * mu * mu)
    return 2 * (condim - 1), int(PYRAMIDAL), facet


@wp.func
def describe_row(
    worldid: int,
    efcid: int,
    conid: int,
    row_type: int,
    pos: float,
    margin: float,
    D: float,
    sparse: bool,
    njmax_nnz: int,
    efc_type_out: wp.array2d[int],
    efc_id_out: wp.array2d[int],
    efc_J_rownnz_out: wp.array2d[int],
    efc_J_rowadr_out: wp.array2d[int],
    efc_J_out: wp.array3d[float],
    efc_pos_out: wp.array2d[float],
    efc_margin_out: wp.array2d[float],
    efc_D_out: wp.array2d[float],
    efc_vel_out: wp.array2d[float],
    efc_aref_out: wp.array2d[float],
    efc_frictionloss_out: wp.array2d[float],
):
    """Write what `efc` tells of a contact's row beside its force and state.

    J, vel and aref are not computed, and read as NaN, so that nobody takes what an earlier step has
    left for them. A sparse J has an entry for that behind those of the other rows.
    """
    nan = wp.static(float("nan"))
    efc_type_out[worldid, efcid] = row_type
    efc_id_out[worldid, efcid] = conid
    efc_pos_out[worldid, efcid] = pos
    efc_margin_out[worldid, efcid] = margin
    efc_D_out[worldid, efcid] = D
    efc_frictionloss_out[worldid, efcid] = 0.0
    efc_vel_out[worldid, efcid] = nan
    efc_aref_out[worldid, efcid] = nan
    if sparse:
        efc_J_rownnz_out[worldid, efcid] = 1
        efc_J_rowadr_out[worldid, efcid] = njmax_nnz
    elif not wp.isnan(efc_J_out[worldid, efcid, 0]):  # it was another row's, or never used
        for i in range(efc_J_out.shape[2]):
            efc_J_out[worldid, efcid, i] = nan


def described_rows(d: Data) -> list[wp.array]:
    """The arrays of `efc` that `describe_row` writes."""
    efc = d.efc
    return [
        *(efc.type, efc.id, efc.J_rownnz, efc.J_rowadr, efc.J, efc.pos, efc.margin, efc.D),
        *(efc.vel, efc.aref, efc.frictionloss),
    ]


def has_contacts(m: Model) -> bool:
    """Whether contacts act at all."""
    return not m.opt.disableflags & (DisableBit.CONTACT | DisableBit.CONSTRAINT)
