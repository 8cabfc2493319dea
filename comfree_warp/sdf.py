"""MuJoCo's SDF plugins, shapes by a signed distance function, on MuJoCo Warp.

MuJoCo Warp calls the distance functions of such shapes through two hooks, which are empty: without
them the shapes touch nothing. Here they are filled with the shapes of MuJoCo's own library. It also
skips the parameters that a model leaves to their defaults, and reads the others in their place; so
the parameters are read here.

Programs that fill the hooks themselves are left alone.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Sequence

import mujoco
import mujoco_warp
import numpy as np
import warp as wp
from mujoco_warp._src import collision_sdf, sensor
from mujoco_warp._src.types import vec_pluginattr
from mujoco_warp.test_data.collision_sdf.bolt import bolt
from mujoco_warp.test_data.collision_sdf.gear import gear
from mujoco_warp.test_data.collision_sdf.nut import nut

_TORUS = wp.constant(0)
_BOWL = wp.constant(1)
_BOLT = wp.constant(2)
_NUT = wp.constant(3)
_GEAR = wp.constant(4)


@dataclasses.dataclass(frozen=True)
class _Shape:
    """A shape of MuJoCo's library.

    Attributes:
      number: which one `_distance` takes it for.
      parameters: names and defaults, in MuJoCo's order.
      fixed: whether MuJoCo Warp has it with the defaults only.
    """

    number: int
    parameters: dict[str, float]
    fixed: bool = False


_SHAPES = {
    "mujoco.sdf.torus": _Shape(0, {"radius1": 0.35, "radius2": 0.15}),
    "mujoco.sdf.bowl": _Shape(1, {"height": 0.4, "radius": 1.0, "thickness": 0.02}),
    "mujoco.sdf.bolt": _Shape(2, {"radius": 0.26}),
    "mujoco.sdf.nut": _Shape(3, {"radius": 0.26}),
    "mujoco.sdf.gear": _Shape(
        4,
        {"alpha": 0, "diameter": 2.8, "teeth": 25, "thickness": 0.2, "innerdiameter": -1},
        fixed=True,
    ),
}
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
def _distance(p: wp.vec3, attr: vec_pluginattr, shape: int) -> float:
    """Signed distance of a point from the surface of a shape, negative inside, m."""
    if shape == _TORUS:
        return _torus(p, attr[0], attr[1])
    if shape == _BOWL:
        return _bowl(p, attr[0], attr[1], attr[2])
    if shape == _BOLT:
        return bolt(p, attr)
    if shape == _NUT:
        return nut(p, attr)
    return gear(p, attr)


@wp.func
def _gradient(p: wp.vec3, attr: vec_pluginattr, shape: int) -> wp.vec3:
    """Gradient of `_distance`, by central differences."""
    gradient = wp.vec3()
    i = wp.int32(0)
    while i < 6:
        step = wp.vec3()
        step[i / 2] = wp.where(i % 2 == 0, _WIDTH, -_WIDTH)
        gradient[i / 2] += (
            wp.where(i % 2 == 0, 0.5, -0.5) / _WIDTH * _distance(p + step, attr, shape)
        )
        i += 1
    return gradient


@functools.cache
def plugin_slots() -> dict[str, int]:
    """The numbers that MuJoCo gave the plugins of its shapes in this process, by their names."""
    found = {}
    for name in _SHAPES:
        plugin = f'<plugin plugin="{name}"><instance name="x"/></plugin>'
        xml = f"<mujoco><extension>{plugin}</extension></mujoco>"
        with contextlib.suppress(ValueError):  # this MuJoCo does not have it
            found[name] = int(mujoco.MjModel.from_xml_string(xml).plugin[0])
    return found


def _texts(mjm: mujoco.MjModel, instance: int) -> list[str]:
    """The parameters of a plugin instance as the model gives them, "" where it does not."""
    start = mjm.plugin_attradr[instance]
    last = instance + 1 == mjm.nplugin
    end = len(mjm.plugin_attr) if last else mjm.plugin_attradr[instance + 1]
    return bytes(mjm.plugin_attr[start:end]).decode().split("\0")


def describe(mjm: mujoco.MjModel, kind: mujoco.mjtObj, numbers: Sequence[int]) -> str:
    """Objects of a kind for people: "geom 'lid', number 4 and others"."""
    what = kind.name.removeprefix("mjOBJ_").lower()
    names = [(mujoco.mj_id2name(mjm, kind, int(i)), i) for i in numbers[:3]]
    told = ", ".join(repr(name) if name else f"number {i}" for name, i in names)
    return f"{what} {told}{' and others' if len(numbers) > 3 else ''}"


def _read_shape(mjm: mujoco.MjModel, geomid: int) -> tuple[int, list[float]]:
    instance = int(mjm.geom_plugin[geomid])
    what = (
        f"{describe(mjm, mujoco.mjtObj.mjOBJ_GEOM, [geomid])} is an SDF of the "
        f"{describe(mjm, mujoco.mjtObj.mjOBJ_PLUGIN, [instance])}"
    )
    slot = int(mjm.plugin[instance])
    name = next((name for name in _SHAPES if plugin_slots().get(name) == slot), None)
    if name is None:
        raise NotImplementedError(
            f"{what}, whose shape MuJoCo Warp does not have: use one of {', '.join(_SHAPES)}, a "
            "mesh, or the engine mjc; or fill MuJoCo Warp's hooks user_sdf and user_sdf_grad"
        )
    shape, values = _SHAPES[name], []
    for (parameter, default), text in zip(
        shape.parameters.items(), _texts(mjm, instance), strict=False
    ):
        try:
            values.append(float(text) if text else default)
        except ValueError:
            raise ValueError(f"{what}: {parameter}={text!r} is no number") from None
    if shape.fixed and values != list(shape.parameters.values()):
        defaults = ", ".join(f"{key}={value}" for key, value in shape.parameters.items())
        raise NotImplementedError(
            f"{what}: MuJoCo Warp has {name} with its defaults only: leave out its parameters "
            f"({defaults}), or use the engine mjc"
        )
    return shape.number, values


def read_shapes(mjm: mujoco.MjModel) -> list[tuple[int, list[float]]]:
    """The shapes of the geoms that are SDFs of a plugin, in order, and their parameters.

    Empty too where a program has filled MuJoCo Warp's hooks, since only that knows the shapes.

    Raises:
      NotImplementedError: MuJoCo Warp has no such shape.
      ValueError: a parameter is no number.
    """
    if collision_sdf.user_sdf.func.__module__ not in (collision_sdf.__name__, __name__):
        return []
    return [_read_shape(mjm, geomid) for geomid in np.flatnonzero(mjm.geom_plugin >= 0)]


def put_shapes(m: mujoco_warp.Model, shapes: list[tuple[int, list[float]]]) -> None:
    """Let MuJoCo Warp's model have the shapes that `read_shapes` found in the host's.

    Args:
      m: the model on the device, in which MuJoCo Warp has an entry for each of them.
      shapes: what `read_shapes` returned.
    """
    if not shapes:
        return
    if collision_sdf.user_sdf is not _distance:
        collision_sdf.user_sdf, collision_sdf.user_sdf_grad = _distance, _gradient
        # Kernels that were loaded for other models hold the empty functions.
        for kernel in (collision_sdf._sdf_narrowphase, sensor._sensor_tactile):
            kernel.module.mark_modified()
    attributes = np.zeros((len(shapes), vec_pluginattr._length_), dtype=np.float32)
    for i, (_, values) in enumerate(shapes):
        attributes[i, : len(values)] = values
    m.plugin = wp.array([number for number, _ in shapes], dtype=int)
    m.plugin_attr = wp.array(attributes, dtype=vec_pluginattr)
