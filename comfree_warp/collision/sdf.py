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
import importlib
from collections.abc import Sequence

import mujoco
import mujoco_warp
import numpy as np
import warp as wp

from comfree_warp.runtime.private import SDF_SHAPES
from comfree_warp.types import vec_pluginattr

# The module of the distance functions, imported when needed.
_FUNCTIONS = "comfree_warp.collision.sdf_shapes"


@dataclasses.dataclass(frozen=True)
class _Shape:
    """A shape of MuJoCo's library.

    Attributes:
      parameters: names and defaults, in MuJoCo's order.
      fixed: whether MuJoCo Warp has it with the defaults only.
    """

    parameters: dict[str, float]
    fixed: bool = False


# Their places here are the numbers by which the distance functions tell them apart.
_SHAPES = {
    "mujoco.sdf.torus": _Shape({"radius1": 0.35, "radius2": 0.15}),
    "mujoco.sdf.bowl": _Shape({"height": 0.4, "radius": 1.0, "thickness": 0.02}),
    "mujoco.sdf.bolt": _Shape({"radius": 0.26}),
    "mujoco.sdf.nut": _Shape({"radius": 0.26}),
    "mujoco.sdf.gear": _Shape(
        {"alpha": 0, "diameter": 2.8, "teeth": 25, "thickness": 0.2, "innerdiameter": -1},
        fixed=True,
    ),
}


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


def describe(mjm: mujoco.MjModel, kind: mujoco.mjtObj, numbers: Sequence[int] | np.ndarray) -> str:
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
    return list(_SHAPES).index(name), values


def read_shapes(mjm: mujoco.MjModel) -> list[tuple[int, list[float]]]:
    """The shapes of the geoms that are SDFs of a plugin, in order, and their parameters.

    Empty too where a program has filled MuJoCo Warp's hooks, since only that knows the shapes.

    Raises:
      NotImplementedError: MuJoCo Warp has no such shape.
      ValueError: a parameter is no number.
    """
    if not SDF_SHAPES.usable:
        found = np.flatnonzero(mjm.geom_plugin >= 0)
        if found.size:
            raise NotImplementedError(
                f"{describe(mjm, mujoco.mjtObj.mjOBJ_GEOM, found)}: SDF plugins need functions "
                f"that the installed MuJoCo Warp does not have ({', '.join(SDF_SHAPES.faults)}): "
                "install a version that comfree-warp is tested with, use a mesh, or the engine mjc"
            )
        return []
    hooks = SDF_SHAPES.owner("user_sdf")
    if hooks.user_sdf.func.__module__ not in (hooks.__name__, _FUNCTIONS):
        return []
    return [_read_shape(mjm, int(geomid)) for geomid in np.flatnonzero(mjm.geom_plugin >= 0)]


def put_shapes(m: mujoco_warp.Model, shapes: list[tuple[int, list[float]]]) -> None:
    """Let MuJoCo Warp's model have the shapes that `read_shapes` found in the host's.

    Args:
      m: the model on the device, in which MuJoCo Warp has an entry for each of them.
      shapes: what `read_shapes` returned.
    """
    if not shapes:
        return
    functions = importlib.import_module(_FUNCTIONS)
    hooks = SDF_SHAPES.owner("user_sdf")
    if hooks.user_sdf is not functions.distance:
        hooks.user_sdf, hooks.user_sdf_grad = functions.distance, functions.gradient
        # Kernels that were loaded for other models hold the empty functions.
        for name in ("_sdf_narrowphase", "_sensor_tactile"):
            SDF_SHAPES[name].module.mark_modified()
    attributes = np.zeros((len(shapes), vec_pluginattr._length_), dtype=np.float32)
    for i, (_, values) in enumerate(shapes):
        attributes[i, : len(values)] = values
    m.plugin = wp.array([number for number, _ in shapes], dtype=int)
    m.plugin_attr = wp.array(attributes, dtype=vec_pluginattr)
