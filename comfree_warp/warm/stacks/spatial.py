"""Spatial algebra of free bodies in float64: 6 x 6 matrices, wrenches and motions.

The angular part comes first. All are about a point, of a body its centre of mass, and may be moved
to another. Featherstone, "Rigid Body Dynamics Algorithms", chapter 2.
"""

import warp as wp

from comfree_warp.types import vec10


@wp.func
def spatial(angular: wp.vec3d, linear: wp.vec3d) -> wp.spatial_vectord:
    return wp.spatial_vectord(angular[0], angular[1], angular[2], linear[0], linear[1], linear[2])


@wp.func
def unit(i: int) -> wp.spatial_vectord:
    """A vector whose element i is 1."""
    vector = wp.spatial_vectord()
    for j in range(6):
        vector[j] = wp.where(i == j, wp.float64(1.0), wp.float64(0.0))
    return vector


@wp.func
def element(vector: wp.spatial_vectord, i: int) -> wp.float64:
    """Element i, picked without an address, so that the vector stays in registers."""
    picked = vector[0]
    for j in range(1, 6):
        picked = wp.where(i == j, vector[j], picked)
    return picked


@wp.func
def column_of(matrix: wp.spatial_matrixd, i: int) -> wp.spatial_vectord:
    """Column i, likewise."""
    picked = wp.spatial_vectord()
    for j in range(6):
        picked[j] = element(matrix[j], i)
    return picked


@wp.func
def product(one: wp.spatial_matrixd, other: wp.spatial_matrixd) -> wp.spatial_matrixd:
    """Their product, row by row: a CPU makes Warp's column by column, and gathers every column."""
    rows = wp.spatial_matrixd()
    for i in range(6):
        rows[i] = one[i] * other
    return rows


@wp.func
def _join(
    angular: wp.mat33d, mixed: wp.mat33d, mixed_transposed: wp.mat33d, linear: wp.mat33d
) -> wp.spatial_matrixd:
    """The 6 x 6 matrix of these blocks."""
    joined = wp.spatial_matrixd()
    for i in range(3):
        for j in range(3):
            joined[i, j] = angular[i, j]
            joined[i, 3 + j] = mixed[i, j]
            joined[3 + i, j] = mixed_transposed[i, j]
            joined[3 + i, 3 + j] = linear[i, j]
    return joined


@wp.func
def _blocks(matrix: wp.spatial_matrixd) -> tuple[wp.mat33d, wp.mat33d, wp.mat33d]:
    """The blocks of a symmetric 6 x 6 matrix: angular, mixed, linear."""
    angular, mixed, linear = wp.mat33d(), wp.mat33d(), wp.mat33d()
    for i in range(3):
        for j in range(3):
            angular[i, j] = matrix[i, j]
            mixed[i, j] = matrix[i, 3 + j]
            linear[i, j] = matrix[3 + i, 3 + j]
    return angular, mixed, linear


@wp.func
def invert(matrix: wp.spatial_matrixd) -> wp.spatial_matrixd:
    """Inverse of a symmetric positive definite 6 x 6 matrix, over its Schur complement."""
    angular, mixed, linear = _blocks(matrix)
    linear = wp.inverse(linear)
    passed = mixed * linear
    angular = wp.inverse(angular - passed * wp.transpose(mixed))
    mixed = -(angular * passed)
    return _join(angular, mixed, wp.transpose(mixed), linear - wp.transpose(passed) * mixed)


@wp.func
def move_matrix(matrix: wp.spatial_matrixd, r: wp.vec3d) -> wp.spatial_matrixd:
    """The same stiffness or inertia about a point that is r before the one it was about."""
    angular, mixed, linear = _blocks(matrix)
    across = wp.skew(r)
    moved = mixed + across * linear
    angular += across * wp.transpose(mixed) - moved * across
    return _join(angular, moved, wp.transpose(moved), linear)


@wp.func
def move_wrench(wrench: wp.spatial_vectord, r: wp.vec3d) -> wp.spatial_vectord:
    """The same wrench about a point that is r before the one it was about."""
    torque, force = wp.spatial_top(wrench), wp.spatial_bottom(wrench)
    return spatial(torque + wp.cross(r, force), force)


@wp.func
def move_motion(motion: wp.spatial_vectord, r: wp.vec3d) -> wp.spatial_vectord:
    """The same motion at a point that is r further on."""
    turn = wp.spatial_top(motion)
    return spatial(turn, wp.spatial_bottom(motion) + wp.cross(turn, r))


@wp.func
def _rotational(crb: vec10) -> wp.mat33d:
    """Inertia of a body about its centre of mass."""
    xx, yy, zz = wp.float64(crb[0]), wp.float64(crb[1]), wp.float64(crb[2])
    xy, xz, yz = wp.float64(crb[3]), wp.float64(crb[4]), wp.float64(crb[5])
    return wp.mat33d(xx, xy, xz, xy, yy, yz, xz, yz, zz)


@wp.func
def inertia(crb: vec10) -> wp.spatial_matrixd:
    """M of a free body."""
    mass = wp.float64(crb[9]) * wp.identity(n=3, dtype=wp.float64)
    return _join(_rotational(crb), wp.mat33d(), wp.mat33d(), mass)


@wp.func
def free_motion(crb: vec10, wrench: wp.spatial_vectord) -> wp.spatial_vectord:
    """M^-1 q of a free body."""
    turn = wp.inverse(_rotational(crb)) * wp.spatial_top(wrench)
    return spatial(turn, wp.spatial_bottom(wrench) / wp.float64(crb[9]))


@wp.func
def to_single(vector: wp.spatial_vectord) -> wp.spatial_vector:
    return wp.spatial_vector(wp.vec3(wp.spatial_top(vector)), wp.vec3(wp.spatial_bottom(vector)))
