"""Distance functions of MuJoCo's SDF shapes, for MuJoCo Warp's hooks.

A module of its own, since the package that bolt, nut and gear come from takes a while to import.
"""

import warp as wp
from mujoco_warp.test_data.collision_sdf.bolt import bolt
from mujoco_warp.test_data.collision_sdf.gear import gear
from mujoco_warp.test_data.collision_sdf.nut import nut

from comfree_warp.types import vec_pluginattr

TORUS, BOWL, BOLT, NUT, GEAR = range(5)  # in the order of the shapes in sdf.py

_WIDTH = wp.constant(1.0e-4)  # of differences, of which float32 leaves three digits, m


@wp.func
def _torus(p: wp.vec3, radius: float, thickness: float) -> float:
    """Distance from a ring around the z axis, less half its thickness."""
    return wp.length(wp.vec2(wp.length(wp.vec2(p[0], p[1])) - radius, p[2])) - thickness


@wp.func
def _bowl(p: wp.vec3, height: float, radius: float, thickness: float) -> float:
    """Distance from a sphere around the origin that is cut off above a height."""
    rim = wp.vec2(wp.sqrt(radius * radius - height * height), height)
    point = wp.vec2(wp.length(wp.vec2(p[0], p[1])), p[2])
    if rim[1] * point[0] < rim[0] * point[1]:
        return wp.length(point - rim) - thickness
    return wp.abs(wp.length(point) - radius) - thickness


@wp.func
def distance(p: wp.vec3, attr: vec_pluginattr, shape: int) -> float:
    """Signed distance of a point from the surface of a shape, negative inside, m."""
    if shape == TORUS:
        return _torus(p, attr[0], attr[1])
    if shape == BOWL:
        return _bowl(p, attr[0], attr[1], attr[2])
    if shape == BOLT:
        return bolt(p, attr)
    if shape == NUT:
        return nut(p, attr)
    return gear(p, attr)


@wp.func
def gradient(p: wp.vec3, attr: vec_pluginattr, shape: int) -> wp.vec3:
    """Gradient of `distance`, by central differences."""
    slope = wp.vec3()
    i = wp.int32(0)
    while i < 6:
        step = wp.vec3()
        step[i / 2] = wp.where(i % 2 == 0, _WIDTH, -_WIDTH)
        slope[i / 2] += wp.where(i % 2 == 0, 0.5, -0.5) / _WIDTH * distance(p + step, attr, shape)
        i += 1
    return slope
