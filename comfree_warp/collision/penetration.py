"""How deep two convex geoms are in each other, from a float64 hull of their Minkowski difference.

A point of the difference A - B is a support point of A minus the opposite support point of B. The
geoms overlap where the origin lies inside the difference, and are as deep in each other as the
origin is below its surface. The convex hull of a few of its points lies inside the difference too.
So the face of the hull that is nearest to the origin gives a lower bound of the depth, and how far
the difference reaches along any direction gives an upper bound. The hull grows beyond its nearest
face until the two bounds meet.

This is the expanding polytope algorithm (EPA), which MuJoCo Warp also has. Unlike there, planes are
in float64, no face is dropped for being close to the origin, and the upper bound is an answer even
when the hull cannot grow any more.
"""

import math

import warp as wp
from mujoco_warp import GeomType

from comfree_warp.runtime.private import CONVEX_CHECK

Geom, support = CONVEX_CHECK["Geom"], CONVEX_CHECK["support"]

NPOINT = 64  # most points of a hull; a face keeps each of its three in 10 bits
NFACE = 2 * NPOINT  # most faces of a hull

_SPHERE = wp.constant(int(GeomType.SPHERE))
_CAPSULE = wp.constant(int(GeomType.CAPSULE))
_ELLIPSOID = wp.constant(int(GeomType.ELLIPSOID))
_CYLINDER = wp.constant(int(GeomType.CYLINDER))
_BOX = wp.constant(int(GeomType.BOX))

_MASK = wp.constant(0x3FF)
_FINAL = wp.constant(1 << 30)  # bit of a face beyond which the hull does not grow
_TOLERANCE = wp.constant(wp.float64(1.0e-7))  # of a depth, m
_NO_AREA = wp.constant(wp.float64(1.0e-14))  # a triangle smaller than this has no normal, m^2
_NO_VOLUME = wp.constant(wp.float64(1.0e-16))  # a smaller tetrahedron has no inside, m^3
_THIRD_TURN = wp.constant(wp.float64(2.0 * math.pi / 3.0))


@wp.struct
class Hull:
    """Points of the Minkowski difference, and the faces of their convex hull.

    Attributes:
      point: support points in pairs: of geom 1, of geom 2                  (2 NPOINT,)
      index: which vertex of its geom each one is, as `multicontact` reads it  (2 NPOINT,)
      face: its three points, counterclockwise seen from outside            (NFACE,)
      plane: outward unit normal of a face, and its distance from the origin  (NFACE,)
      edge: scratch: edges around the faces that a new point replaces       (NFACE,)
    """

    point: wp.array[wp.vec3]
    index: wp.array[int]
    face: wp.array[int]
    plane: wp.array[wp.vec4d]
    edge: wp.array[int]


@wp.struct
class Depth:
    """What `penetration` finds.

    Attributes:
      depth: how deep the geoms are in each other, m; negative: they are at least that far apart
      normal: unit vector from geom 1 to geom 2, along which they are
      point: half way between the deepest points of the two geoms, m
      face: the face of the hull there; -1 where the hull has none
    """

    depth: float
    normal: wp.vec3
    point: wp.vec3
    face: int


@wp.func
def _point(hull: Hull, i: int) -> wp.vec3d:
    return wp.vec3d(hull.point[2 * i]) - wp.vec3d(hull.point[2 * i + 1])


@wp.func
def _half_width(geom: Geom, geomtype: int, dir: wp.vec3) -> float:
    """How far a geom reaches along a direction from its centre; 0 for a mesh."""
    local = wp.transpose(geom.rot) * dir
    if geomtype == _BOX:
        return wp.dot(wp.abs(local), geom.size)
    if geomtype == _ELLIPSOID:
        return wp.length(wp.cw_mul(local, geom.size))
    across = geom.size[0] * wp.sqrt(local[0] * local[0] + local[1] * local[1])
    if geomtype == _CYLINDER:
        return across + geom.size[1] * wp.abs(local[2])
    if geomtype == _CAPSULE:
        return geom.size[0] + geom.size[1] * wp.abs(local[2])
    return wp.where(geomtype == _SPHERE, geom.size[0], 0.0)


@wp.func
def _first_direction(geom1: Geom, geom2: Geom, geomtype1: int, geomtype2: int) -> wp.vec3d:
    """A box's or cylinder's face normal or the line of centres, along which they overlap least."""
    offset = geom2.pos - geom1.pos
    best = wp.normalize(offset)
    if wp.length_sq(best) == 0.0:
        best = wp.vec3(0.0, 0.0, 1.0)
    least = _half_width(geom1, geomtype1, best) + _half_width(geom2, geomtype2, best)
    least -= wp.dot(best, offset)
    for k in range(6):
        geomtype = wp.where(k < 3, geomtype1, geomtype2)
        axis = k % 3
        if geomtype == _BOX or (geomtype == _CYLINDER and axis == 2):
            dir = wp.where(k < 3, wp.transpose(geom1.rot)[axis], wp.transpose(geom2.rot)[axis])
            along = wp.dot(dir, offset)
            width = _half_width(geom1, geomtype1, dir) + _half_width(geom2, geomtype2, dir)
            if width - wp.abs(along) < least:
                least = width - wp.abs(along)
                best = wp.where(along < 0.0, -dir, dir)
    return wp.vec3d(best)


@wp.func
def _normal(hull: Hull, i: int) -> wp.vec3d:
    plane = hull.plane[i]
    return wp.vec3d(plane[0], plane[1], plane[2])


@wp.func
def _nearest_face(hull: Hull, nface: int) -> int:
    """The face whose plane is nearest to the origin, or farthest beyond it."""
    nearest = wp.int32(0)
    for i in range(1, nface):
        if hull.plane[i][3] < hull.plane[nearest][3]:
            nearest = i
    return nearest


@wp.func
def _set_face(hull: Hull, i: int, a: int, b: int, c: int):
    p, q, r = _point(hull, a), _point(hull, b), _point(hull, c)
    n = wp.normalize(wp.cross(q - p, r - p))
    # Measured at the middle, where the rounding of the normal counts least.
    distance = wp.dot(n, (p + q + r) / wp.float64(3.0))
    hull.face[i] = a + (b << 10) + (c << 20)
    hull.plane[i] = wp.vec4d(n[0], n[1], n[2], distance)


@wp.func
def _first_hull(hull: Hull, a: int, b: int, c: int, d: int) -> int:
    """Make the hull of four points. Returns its number of faces, 0 if they lie in a plane."""
    p = _point(hull, a)
    volume = wp.dot(wp.cross(_point(hull, b) - p, _point(hull, c) - p), _point(hull, d) - p)
    if wp.abs(volume) < _NO_VOLUME:
        return 0
    first, second = wp.int32(b), wp.int32(c)
    if volume > wp.float64(0.0):
        first, second = wp.int32(c), wp.int32(b)
    _set_face(hull, 0, a, first, second)
    _set_face(hull, 1, a, second, d)
    _set_face(hull, 2, second, first, d)
    _set_face(hull, 3, first, a, d)
    return 4


@wp.func
def _is_beyond(hull: Hull, i: int, w: wp.vec3d) -> bool:
    """Whether a point is outside of the plane of a face."""
    plane = hull.plane[i]
    return plane[0] * w[0] + plane[1] * w[1] + plane[2] * w[2] > plane[3] + wp.float64(1.0e-12)


@wp.func
def _grow(hull: Hull, nface: int, point: int) -> int:
    """Extend the hull to one more point.

    Returns the number of faces, or 0, with the hull unchanged, where rounding leaves no valid one.
    """
    w = _point(hull, point)
    nedge = wp.int32(0)
    for i in range(nface):
        if _is_beyond(hull, i, w):
            face = hull.face[i]
            for side in range(3):
                start = (face >> (10 * side)) & _MASK
                end = (face >> (10 * ((side + 1) % 3))) & _MASK
                # An edge that two replaced faces share is inside of what they leave open.
                back = end + (start << 10)
                at = wp.int32(0)
                while at < nedge:
                    if hull.edge[at] == back:
                        break
                    at += 1
                if at < nedge:
                    nedge -= 1
                    hull.edge[at] = hull.edge[nedge]
                else:
                    if nedge == NFACE:
                        return 0
                    hull.edge[nedge] = start + (end << 10)
                    nedge += 1
    if nedge < 3:
        return 0
    for i in range(nedge):
        p, q = _point(hull, hull.edge[i] & _MASK), _point(hull, hull.edge[i] >> 10)
        if wp.length(wp.cross(q - p, w - p)) < _NO_AREA:
            return 0
    kept = wp.int32(0)
    for i in range(nface):
        if not _is_beyond(hull, i, w):
            hull.face[kept] = hull.face[i]
            hull.plane[kept] = hull.plane[i]
            kept += 1
    if kept + nedge > NFACE:
        return 0
    for i in range(nedge):
        _set_face(hull, kept + i, hull.edge[i] & _MASK, hull.edge[i] >> 10, point)
    return kept + nedge


@wp.func
def _weights(hull: Hull, i: int) -> wp.vec3d:
    """Barycentric coordinates in a face of the point of its plane nearest to the origin."""
    face, plane = hull.face[i], hull.plane[i]
    n = _normal(hull, i)
    o = plane[3] * n
    p, q = _point(hull, face & _MASK), _point(hull, (face >> 10) & _MASK)
    r = _point(hull, (face >> 20) & _MASK)
    area = wp.dot(wp.cross(q - p, r - p), n)
    a = wp.dot(wp.cross(q - o, r - o), n) / area
    b = wp.dot(wp.cross(r - o, p - o), n) / area
    return wp.vec3d(a, b, wp.float64(1.0) - a - b)


@wp.func
def _tolerance(depth: wp.float64) -> wp.float64:
    """How far apart the two bounds of a depth may be."""
    return _TOLERANCE + wp.float64(1.0e-4) * wp.max(depth, wp.float64(0.0))


@wp.func
def penetration(hull: Hull, geom1: Geom, geom2: Geom, geomtype1: int, geomtype2: int) -> Depth:
    """How deep two convex geoms are in each other, to 0.1 um or 0.01 % of the depth.

    Round geoms deep in each other may need more points than a hull has: then the depth is an upper
    bound, which was within 2 % in all cases tried.

    Args:
      hull: scratch; afterwards it holds the points and faces found.
      geom1: the first geom, inflated by half of its margin.
      geom2: the second geom, likewise.
      geomtype1: type of the first geom.
      geomtype2: type of the second geom.
    """
    # The shortest reach of the difference along any direction tried: the upper bound of the depth.
    upper = wp.float64(1.0e10)
    best = wp.vec3d()
    deepest = wp.int32(0)
    first = _first_direction(geom1, geom2, geomtype1, geomtype2)
    side = wp.vec3d()
    side[wp.argmin(wp.abs(first))] = wp.float64(1.0)
    side = wp.normalize(wp.cross(first, side))
    across = wp.cross(first, side)

    npoint = wp.int32(0)
    nface = wp.int32(0)
    nearest = wp.int32(0)
    converged = wp.bool(False)
    while npoint < NPOINT:
        # The first hull has three points around a direction, so that they spread over the face of
        # the difference there if it is flat, and one in the opposite direction. Where these lie in
        # a plane, three points at right angles to the direction take their place. From then on a
        # point is added beyond the nearest face.
        dir = wp.vec3d(first)
        if nface > 0:
            nearest = _nearest_face(hull, nface)
            if hull.face[nearest] & _FINAL:
                lower = hull.plane[nearest][3]
                converged = upper <= lower + wp.float64(2.0) * _tolerance(upper)
                break
            dir = _normal(hull, nearest)
        elif npoint == 3:
            dir = -first
        elif npoint != 4:
            away = wp.where(npoint < 3, wp.float64(0.05), wp.float64(20.0))
            angle = _THIRD_TURN * wp.float64(npoint)
            dir = wp.normalize(first + away * (wp.cos(angle) * side + wp.sin(angle) * across))
        support1 = support(geom1, geomtype1, wp.vec3(dir))
        support2 = support(geom2, geomtype2, -wp.vec3(dir))
        hull.point[2 * npoint] = support1.point
        hull.point[2 * npoint + 1] = support2.point
        hull.index[2 * npoint] = support1.vertex_index
        hull.index[2 * npoint + 1] = support2.vertex_index
        reach = wp.dot(dir, _point(hull, npoint))
        if reach < upper:
            upper = reach
            best = dir
            deepest = npoint
        npoint += 1
        if nface > 0:
            grown = wp.int32(0)
            if reach > hull.plane[nearest][3] + _tolerance(upper):
                grown = _grow(hull, nface, npoint - 1)
            if grown > 0:
                nface = grown
            else:
                hull.face[nearest] |= _FINAL
        elif npoint == 5 or npoint == 8:
            base = wp.where(npoint == 5, 0, 5)
            nface = _first_hull(hull, base, base + 1, base + 2, 3)
            if nface == 0:
                nface = _first_hull(hull, base, base + 1, base + 2, 4)
            if npoint == 8 and nface == 0:
                break

    result = Depth()
    result.face = -1
    result.depth = wp.where(
        upper < wp.float64(1.0e10), float(upper), 0.0
    )  # 0 for poses that are NaN
    middle = wp.vec3d(hull.point[2 * deepest]) - wp.float64(0.5) * upper * best
    if converged:
        best = _normal(hull, nearest)
        # Several faces may lie in that plane: the contact is in the one that holds the point of the
        # plane nearest to the origin.
        most = wp.float64(-1.0e10)
        for i in range(nface):
            aligned = wp.dot(_normal(hull, i), best) > wp.float64(1.0 - 1.0e-6)
            if aligned and hull.plane[i][3] <= hull.plane[nearest][3] + _TOLERANCE:
                least = wp.min(_weights(hull, i))
                if least > most:
                    most = least
                    result.face = i
        weights = wp.max(_weights(hull, result.face), wp.vec3d())
        weights /= weights[0] + weights[1] + weights[2]
        middle = wp.vec3d()
        for k in range(3):
            i = (hull.face[result.face] >> (10 * k)) & _MASK
            middle += wp.float64(0.5) * weights[k] * wp.vec3d(hull.point[2 * i])
            middle += wp.float64(0.5) * weights[k] * wp.vec3d(hull.point[2 * i + 1])
    result.normal = wp.vec3(best)
    result.point = wp.vec3(middle)
    return result
