"""Collision detection with a broad phase for one world on one core.

MuJoCo Warp tests every pair of geoms in `Model.nxn_geom_pair_filtered`, or sorts the geoms along a
fixed axis and looks every pair of overlapping ones up in a table. Here the geoms are swept along
the axis on which they are spread most, and MuJoCo Warp gets a list of the few pairs that its own
filters will let through, in the order in which it tests all pairs. So contacts come in the order of
`mujoco_warp.collision`, bit for bit, unless that sorts the geoms.
"""

import math

import mujoco_warp as mjw
import warp as wp
from mujoco_warp import BroadphaseFilter, BroadphaseType

from comfree_warp.collision.convex_contacts import checked_narrow_phase
from comfree_warp.runtime.changes import changed
from comfree_warp.runtime.graph import trimmed_launches
from comfree_warp.runtime.private import ALL_PAIRS_KEY, BROADPHASE
from comfree_warp.shared.contacts import has_contacts
from comfree_warp.shared.threads import launch
from comfree_warp.types import Data, Model

_RUN = 16  # geoms that are sorted by insertion before runs of them are merged
_FEWEST_PAIRS = 32  # of which a list costs no more than to test them all
_FORBIDDEN = wp.constant(-2)  # in Model.nxn_pairid


@wp.func
def _pair_address(ngeom: int, geom1: int, geom2: int) -> int:
    """Where a table of all pairs geom1 < geom2 has this one."""
    return geom1 * (2 * ngeom - geom1 - 3) / 2 + geom2 - 1


@wp.func
def _precedes(lower: wp.array[float], geom1: int, geom2: int) -> bool:
    if lower[geom1] == lower[geom2]:
        return geom1 < geom2
    return lower[geom1] < lower[geom2]


@wp.func
def _sort(count: int, lower: wp.array[float], order: wp.array[int], scratch: wp.array[int]):
    """Sort the first `count` geoms of `order` by `lower`; the same order whatever it was before."""
    for i in range(count):
        geomid = order[i]
        j = wp.int32(i)
        while j % _RUN > 0:
            if _precedes(lower, order[j - 1], geomid):
                break
            order[j] = order[j - 1]
            j -= 1
        order[j] = geomid
    run = wp.int32(_RUN)
    while run < count:
        for i in range(count):
            scratch[i] = order[i]
        start = wp.int32(0)
        while start < count:
            end1, end2 = wp.min(start + run, count), wp.min(start + 2 * run, count)
            # Copies, where `i = start` would be a second name.
            i, j = wp.int32(start), wp.int32(end1)
            for k in range(start, end2):
                takes_first = i < end1
                if i < end1 and j < end2:  # both sides of an `and` are evaluated
                    takes_first = _precedes(lower, scratch[i], scratch[j])
                if takes_first:
                    order[k] = scratch[i]
                    i += 1
                else:
                    order[k] = scratch[j]
                    j += 1
            start = end2
        run *= 2


@wp.func
def _is_parted(
    rot1: wp.mat33,
    half1: wp.vec3,
    rot2: wp.mat33,
    half2: wp.vec3,
    offset: wp.vec3,
    margin: float,
) -> bool:
    """Whether a face of the first box has the second one more than the margin in front of it."""
    for k in range(3):
        normal = wp.vec3(rot1[0, k], rot1[1, k], rot1[2, k])
        across = normal * rot2
        reach = half1[k] + margin
        for j in range(3):
            reach += wp.abs(across[j]) * half2[j]
        if wp.abs(wp.dot(normal, offset)) > reach:
            return True
    return False


@wp.func
def _boxes_meet(
    geom1: int,
    geom2: int,
    margin: float,
    geom_aabb: wp.array3d[wp.vec3],
    geom_xpos: wp.array2d[wp.vec3],
    geom_xmat: wp.array2d[wp.mat33],
) -> bool:
    """Whether no face of either bounding box parts it from the other."""
    rot1, rot2 = geom_xmat[0, geom1], geom_xmat[0, geom2]
    offset = (
        geom_xpos[0, geom2]
        + rot2 * geom_aabb[0, geom2, 0]
        - geom_xpos[0, geom1]
        - rot1 * geom_aabb[0, geom1, 0]
    )
    half1, half2 = geom_aabb[0, geom1, 1], geom_aabb[0, geom2, 1]
    if _is_parted(rot1, half1, rot2, half2, offset, margin):
        return False
    return not _is_parted(rot2, half2, rot1, half1, offset, margin)


@wp.func
def _add_pair(geom1: int, geom2: int, npair: int, found: wp.array[wp.vec2i]) -> int:
    """Append a pair where there is room for it; the number of pairs with it."""
    if npair < found.shape[0]:
        found[npair] = wp.vec2i(geom1, geom2)
    return npair + 1


@wp.func
def _chain_pairs(
    ngeom: int,
    npair: int,
    found: wp.array[wp.vec2i],
    first_of_geom1: wp.array[int],
    next_of_geom1: wp.array[int],
    first_of_geom2: wp.array[int],
    next_of_geom2: wp.array[int],
):
    """Chain the pairs of every first geom, by rising second geom; -1 ends a chain."""
    for geomid in range(ngeom):
        first_of_geom1[geomid] = -1
        first_of_geom2[geomid] = -1
    for i in range(npair):
        geom2 = found[i][1]
        next_of_geom2[i] = first_of_geom2[geom2]
        first_of_geom2[geom2] = i
    # Each pair is put before the others of its first geom, so the highest second geom comes first.
    for k in range(ngeom):
        i = wp.int32(first_of_geom2[ngeom - 1 - k])
        while i >= 0:
            geom1 = found[i][0]
            next_of_geom1[i] = first_of_geom1[geom1]
            first_of_geom1[geom1] = i
            i = next_of_geom2[i]


@wp.kernel(enable_backward=False)
def _find_pairs(
    ngeom: int,
    geom_aabb: wp.array3d[wp.vec3],
    geom_rbound: wp.array2d[float],
    geom_margin: wp.array2d[float],
    geom_gap: wp.array2d[float],
    nxn_pairid: wp.array[wp.vec2i],
    geom_xpos_in: wp.array2d[wp.vec3],
    geom_xmat_in: wp.array2d[wp.mat33],
    sphere: wp.array[wp.vec4],
    lower: wp.array[float],
    order: wp.array[int],
    scratch: wp.array[int],
    found: wp.array[wp.vec2i],
    first_of_geom1: wp.array[int],
    next_of_geom1: wp.array[int],
    first_of_geom2: wp.array[int],
    next_of_geom2: wp.array[int],
    pair_out: wp.array[wp.vec2i],
    pairid_out: wp.array[wp.vec2i],
    npair_out: wp.array[int],
):
    """The pairs of geoms whose bounding spheres and boxes overlap; the rest of the list is void.

    A list that is too short is full, and so longer than naconmax; all pairs are counted.
    """
    # Bounded geoms come first in `order`, planes last.
    nbounded = wp.int32(0)
    nplane = wp.int32(0)
    total = wp.vec3()
    total_sq = wp.vec3()
    for geomid in range(ngeom):
        pos = geom_xpos_in[0, geomid]
        margin = geom_margin[0, geomid] + geom_gap[0, geomid]
        sphere[geomid] = wp.vec4(pos[0], pos[1], pos[2], geom_rbound[0, geomid] + margin)
        if geom_rbound[0, geomid] == 0.0:
            nplane += 1
            order[ngeom - nplane] = geomid
        elif wp.isfinite(wp.dot(pos, pos)):  # else it is nowhere, and touches nothing
            order[nbounded] = geomid
            nbounded += 1
            total += pos
            total_sq += wp.cw_mul(pos, pos)
    spread = total_sq - wp.cw_mul(total, total) / float(wp.max(nbounded, 1))
    axis = wp.int32(wp.argmax(spread))
    for i in range(nbounded):
        geomid = order[i]
        lower[geomid] = sphere[geomid][axis] - sphere[geomid][3]
    _sort(nbounded, lower, order, scratch)

    npair = wp.int32(0)
    for p in range(nplane):
        plane = order[ngeom - 1 - p]
        rot = geom_xmat_in[0, plane]
        normal = wp.vec3(rot[0, 2], rot[1, 2], rot[2, 2])
        above = wp.dot(normal, geom_xpos_in[0, plane]) + sphere[plane][3]
        for i in range(nbounded):
            geomid = order[i]
            ball = sphere[geomid]
            if normal[0] * ball[0] + normal[1] * ball[1] + normal[2] * ball[2] <= above + ball[3]:
                geom1, geom2 = wp.min(plane, geomid), wp.max(plane, geomid)
                pairid = nxn_pairid[_pair_address(ngeom, geom1, geom2)]
                if pairid[0] != _FORBIDDEN:
                    npair = _add_pair(geom1, geom2, npair, found)
    for i in range(nbounded):
        geomid = order[i]
        ball = sphere[geomid]
        upper = ball[axis] + ball[3]
        for j in range(i + 1, nbounded):
            other = order[j]
            if lower[other] > upper:
                break
            away = sphere[other] - ball
            reach = sphere[other][3] + ball[3]
            if away[0] * away[0] + away[1] * away[1] + away[2] * away[2] > reach * reach:
                continue
            geom1, geom2 = wp.min(geomid, other), wp.max(geomid, other)
            pairid = nxn_pairid[_pair_address(ngeom, geom1, geom2)]
            if pairid[0] == _FORBIDDEN:
                continue
            margin = reach - geom_rbound[0, geom1] - geom_rbound[0, geom2]
            if _boxes_meet(geom1, geom2, margin, geom_aabb, geom_xpos_in, geom_xmat_in):
                npair = _add_pair(geom1, geom2, npair, found)
    npair_out[0] = npair

    nfound = wp.min(npair, found.shape[0])
    _chain_pairs(ngeom, nfound, found, first_of_geom1, next_of_geom1, first_of_geom2, next_of_geom2)
    told = wp.int32(0)
    for geomid in range(ngeom):
        i = wp.int32(first_of_geom1[geomid])
        while i >= 0:
            pair = found[i]
            pair_out[told] = pair
            pairid_out[told] = nxn_pairid[_pair_address(ngeom, pair[0], pair[1])]
            told += 1
            i = next_of_geom1[i]
    # A void pair is a geom with itself, under a pair margin that is no number.
    for i in range(nfound, pair_out.shape[0]):
        pair_out[i] = wp.vec2i(0, 0)
        pairid_out[i] = wp.vec2i(0, -1)


@wp.kernel(enable_backward=False)
def _tell_all_pairs(npair_in: wp.array[int], ncollision_out: wp.array[int]):
    ncollision_out[0] = wp.max(ncollision_out[0], npair_in[0])


# What MuJoCo Warp still has to look at: void pairs. `_find_pairs` has compared spheres and boxes.
_FILTERS = int(BroadphaseFilter.PLANE | BroadphaseFilter.SPHERE)


def _finds_pairs(m: Model, d: Data) -> bool:
    """Whether the list below can be made, and costs no more than to test all pairs.

    Where MuJoCo Warp would sort the geoms, the list has another order than it, and sums over
    contacts follow the order. So this must not depend on `naconmax`, or a run would go another way
    where its buffers are made larger.
    """
    if BROADPHASE.faults or d.nworld > 1 or not d.qpos.device.is_cpu or not has_contacts(m):
        return False
    return (
        m.opt.broadphase_filter & _FILTERS == _FILTERS
        and not m.npair
        and not m.nsensorcollision
        and d.naconmax > 0
        and len(m.nxn_geom_pair_filtered) > _FEWEST_PAIRS
    )


def collision(m: Model, d: Data) -> None:
    """The contacts of all worlds. As `mujoco_warp.collision`."""
    with checked_narrow_phase(d, d.repairs):
        if not _finds_pairs(m, d):
            mjw.collision(m, d)
        elif BROADPHASE.usable:
            _collide_pairs(m, d)
        else:
            # So that contacts come in the order of the list below.
            with changed(m.opt, broadphase=BroadphaseType.NXN):
                mjw.collision(m, d)


def _collide_pairs(m: Model, d: Data) -> None:
    # One more than the contacts, so that a full list is seen to hold too many.
    nmax = min(d.naconmax, len(m.nxn_geom_pair_filtered)) + 1
    pair, pairid = wp.empty(nmax, dtype=wp.vec2i), wp.empty(nmax, dtype=wp.vec2i)
    npair = wp.empty(1, dtype=int)
    launch(
        _find_pairs,
        dim=1,
        inputs=[
            m.ngeom,
            m.geom_aabb,
            m.geom_rbound,
            m.geom_margin,
            m.geom_gap,
            m.nxn_pairid,
            d.geom_xpos,
            d.geom_xmat,
            wp.empty(m.ngeom, dtype=wp.vec4),
            wp.empty(m.ngeom, dtype=float),
            wp.empty(m.ngeom, dtype=int),
            wp.empty(m.ngeom, dtype=int),
            wp.empty(nmax, dtype=wp.vec2i),
            *(wp.empty(m.ngeom, dtype=int), wp.empty(nmax, dtype=int)),
            *(wp.empty(m.ngeom, dtype=int), wp.empty(nmax, dtype=int)),
        ],
        outputs=[pair, pairid, npair],
    )
    never = wp.full((1, 1), math.nan, dtype=float)
    with (
        changed(m.opt, broadphase=BroadphaseType.NXN, broadphase_filter=_FILTERS),
        changed(
            m,
            nxn_geom_pair_filtered=pair,
            nxn_pairid_filtered=pairid,
            pair_margin=never,
            pair_gap=never,
        ),
        trimmed_launches({ALL_PAIRS_KEY: npair}),
    ):
        mjw.collision(m, d)
    launch(_tell_all_pairs, dim=1, inputs=[npair], outputs=[d.ncollision])
