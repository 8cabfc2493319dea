"""Whether what MuJoCo Warp finds of two convex geoms is possible.

MuJoCo Warp's EPA works in float32 with absolute tolerances. For some of the poses in which one geom
lies on another it finds no contact, or one deeper than the geoms are large
(`docs/upstream/convex-collision.md`). The check is the overlap of the two geoms along the normal
that was found, from their support functions: it must be the depth that was found.

A candidate that fails writes no contact. It is marked instead, in its `pairid`, and
`convex_repair.py` finds its contacts anew and takes the mark away.
"""

import math

import warp as wp
from mujoco_warp import GeomType

from comfree_warp.runtime.private import CONVEX_CHECK

Geom, support = CONVEX_CHECK["Geom"], CONVEX_CHECK["support"]

_CAPSULE = wp.constant(int(GeomType.CAPSULE))
_ELLIPSOID = wp.constant(int(GeomType.ELLIPSOID))
_CYLINDER = wp.constant(int(GeomType.CYLINDER))
_BOX = wp.constant(int(GeomType.BOX))
_MESH = wp.constant(int(GeomType.MESH))
# GJK's distance of geoms that are beyond its cutoff.
_APART = wp.constant(float(CONVEX_CHECK["FLOAT_MAX"]))

_ROUNDING = wp.constant(2.0e-6)  # error of a depth in float32, for geoms up to a few metres, m
_TILT = wp.constant(0.1)  # largest error of a normal that rounding alone explains, rad
_ALIGNED = wp.constant(math.cos(0.2))  # least cosine between the normals of a face and of EPA
_FIRST_MARK = wp.constant(-8)  # marks are this or less; `pairid[0]` is -2 or more


@wp.func
def mark_doubtful(collisionid: int, found: bool, collision_pairid: wp.array[wp.vec2i]):
    """Mark a candidate for repair, with whether MuJoCo Warp found a contact."""
    pairid = collision_pairid[collisionid]
    pairid[0] = _FIRST_MARK - 2 * (pairid[0] + 2) - wp.where(found, 1, 0)
    collision_pairid[collisionid] = pairid


@wp.func
def is_marked(pairid: wp.vec2i) -> bool:
    return pairid[0] <= _FIRST_MARK


@wp.func
def had_contact(marked: wp.vec2i) -> bool:
    """Whether MuJoCo Warp found a contact of a candidate that is marked."""
    return ((_FIRST_MARK - marked[0]) & 1) != 0


@wp.func
def unmarked(marked: wp.vec2i) -> wp.vec2i:
    """The `pairid` of a candidate before it was marked."""
    return wp.vec2i(((_FIRST_MARK - marked[0]) >> 1) - 2, marked[1])


@wp.func
def is_doubtful(
    overlap: bool,
    found: bool,
    dist: float,
    point1: wp.vec3,
    point2: wp.vec3,
    geom1: Geom,
    geom2: Geom,
    geomtype1: int,
    geomtype2: int,
) -> bool:
    """Whether the answer of GJK and EPA is impossible.

    Args:
      overlap: whether GJK says that the geoms overlap.
      found: whether the answer makes a contact.
      dist: distance of the geoms, inflated by their margins; negative where they overlap, m.
      point1: the point of the first geom that is nearest to the second, or deepest in it.
      point2: the same of the second geom.
      geom1: the first geom, with its margin.
      geom2: the second geom, likewise.
      geomtype1: type of the first geom.
      geomtype2: type of the second geom.
    """
    if not found:
        if overlap:
            return True
        if dist == _APART:
            return False
    elif dist > 0.0:
        return False  # GJK measures distances well
    dir = wp.where(dist > 0.0, point2 - point1, point1 - point2)
    length = wp.length(dir)
    if length == 0.0:
        return True
    dir /= length
    end1 = support(geom1, geomtype1, dir).point
    end2 = support(geom2, geomtype2, -dir).point
    depth = wp.dot(dir, end1 - end2)
    if not found:
        return depth > 0.0
    # Along a normal that is off by an angle, the overlap is larger than the depth by up to that
    # angle times the distance between the points found and the ends of the geoms.
    lever = wp.length(end1 - point1) + wp.length(end2 - point2)
    excess = depth + dist
    return excess > _ROUNDING + _TILT * lever or excess < 0.01 * dist - 5.0 * _ROUNDING


@wp.func
def _is_within(point: wp.vec3, geom: Geom, geomtype: int) -> bool:
    """Whether a point lies in a geom that is inflated by half its margin and 1 % of its size."""
    away = point - geom.pos
    local = wp.abs(wp.transpose(geom.rot) * away)
    size = 1.01 * geom.size + wp.vec3(0.51 * geom.margin + _ROUNDING)
    if geomtype == _BOX or geomtype == _ELLIPSOID:
        return local[0] <= size[0] and local[1] <= size[1] and local[2] <= size[2]
    across = wp.sqrt(local[0] * local[0] + local[1] * local[1])
    if geomtype == _CYLINDER:
        return across <= size[0] and local[2] <= size[1]
    if geomtype == _CAPSULE:
        return across <= size[0] and local[2] <= size[0] + size[1]
    distance = wp.length(away)
    if geomtype != _MESH:
        return distance <= size[0]
    if distance == 0.0:
        return True
    farthest = support(geom, geomtype, away / distance).point - geom.pos
    return distance * distance <= 1.01 * wp.dot(farthest, away) + _ROUNDING * distance


@wp.func
def are_doubtful(
    ncontact: int,
    dist: float,
    dists: wp.vec4,
    point1: wp.vec3,
    point2: wp.vec3,
    normal: wp.vec3,
    geom1: Geom,
    geom2: Geom,
    geomtype1: int,
    geomtype2: int,
) -> bool:
    """Whether contacts do not go with the answer of GJK and EPA that they were made from.

    A single contact is at the points that GJK or EPA found, which must lie in the geoms. Several
    are clipped from two faces. Their normal may differ from that of EPA, and then their depth must
    not be several times that of EPA.

    Args:
      ncontact: number of contacts.
      dist: distance of the inflated geoms as GJK or EPA found it, m.
      dists: those of the contacts, if there are several, m.
      point1: the point of the first geom that is nearest to the second, or deepest in it.
      point2: the same of the second geom.
      normal: of the contacts, a unit vector.
      geom1: the first geom, with its margin.
      geom2: the second geom, likewise.
      geomtype1: type of the first geom.
      geomtype2: type of the second geom.
    """
    if dist > 0.0:
        return False
    if ncontact > 1:
        deepest = wp.float32(dist)
        for i in range(ncontact):
            deepest = wp.min(deepest, dists[i])
        dir = point1 - point2
        aligned = wp.dot(normal, dir) >= _ALIGNED * wp.length(dir)
        return not aligned and deepest < 2.0 * dist - 5.0 * _ROUNDING
    return not (_is_within(point1, geom1, geomtype1) and _is_within(point2, geom2, geomtype2))
