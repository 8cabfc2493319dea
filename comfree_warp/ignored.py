"""What MuJoCo Warp would ignore in a model without a word: refused by name, or given to it."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import mujoco
import mujoco_warp
import numpy as np
from mujoco_warp import GeomType

from comfree_warp.collision.sdf import describe, plugin_slots, put_shapes, read_shapes
from comfree_warp.runtime.changes import substituted
from comfree_warp.runtime.private import SHARED_PLUGINS


def put_model(mjm: mujoco.MjModel, batch_sizes: dict[str, int] | None = None) -> mujoco_warp.Model:
    """MuJoCo Warp's model of a model on the host, on the current device.

    As `mujoco_warp.put_model`, but with MuJoCo's own SDF shapes, and without what it would ignore.

    Raises:
      NotImplementedError: the model has something that MuJoCo Warp does not honour.
      ValueError: a parameter of a plugin is no number.
    """
    _check_plugins(mjm)
    _check_actuators(mjm)
    shapes = read_shapes(mjm)
    with _shared_plugins():
        m = mujoco_warp.put_model(mjm, batch_sizes)
    _check_sdf_geoms(mjm, m)
    put_shapes(m, shapes)
    return m


# ------------------------------------------------------------------------------------- plugins


def _check_plugins(mjm: mujoco.MjModel) -> None:
    """Refuse plugins other than those of geoms.

    One that is attached to nothing may still act, if it computes passive forces. Of those that come
    with MuJoCo none does.
    """
    for kind, plugin in (
        (mujoco.mjtObj.mjOBJ_BODY, mjm.body_plugin),
        (mujoco.mjtObj.mjOBJ_ACTUATOR, mjm.actuator_plugin),
        (mujoco.mjtObj.mjOBJ_SENSOR, mjm.sensor_plugin),
    ):
        found = np.flatnonzero(plugin >= 0)
        if found.size:
            raise NotImplementedError(
                f"the plugin of {describe(mjm, kind, found)} is not supported by MuJoCo Warp: "
                "leave it out, or use the engine mjc"
            )
    attached = np.isin(np.arange(mjm.nplugin), mjm.geom_plugin)
    found = np.flatnonzero(~attached & ~np.isin(mjm.plugin, list(plugin_slots().values())))
    if found.size:
        raise NotImplementedError(
            f"{describe(mjm, mujoco.mjtObj.mjOBJ_PLUGIN, found)} is not supported by MuJoCo Warp, "
            "in case it computes passive forces: leave it out, or use the engine mjc"
        )


@contextlib.contextmanager
def _shared_plugins() -> Iterator[None]:
    """Within this context geoms may share a plugin instance, if MuJoCo Warp lets them."""
    if not SHARED_PLUGINS.usable:
        yield
        return
    create = _with_plugin_of_each_geom(SHARED_PLUGINS["_create_array"])
    with substituted(SHARED_PLUGINS.owner("_create_array"), _create_array=create):
        yield


def _with_plugin_of_each_geom(create: Callable[..., Any]) -> Callable[..., Any]:
    """MuJoCo Warp's function that makes an array, for models whose geoms share plugin instances.

    MuJoCo Warp lists the plugin of each geom that has one, and wants this list to be as long as the
    model's list of plugin instances.
    """

    def create_array(data: Any, spec: Any, sizes: dict[str, int], batch_size: int = 1) -> Any:
        if isinstance(data, list) and getattr(spec, "shape", (0,))[0] == "nplugin":
            sizes = sizes | {"nplugin": len(data)}
        return create(data, spec, sizes, batch_size)

    return create_array


# ----------------------------------------------------------------------------------- actuators


def _check_actuators(mjm: mujoco.MjModel) -> None:
    """Refuse actuators that are disabled by their group, which MuJoCo Warp lets act."""
    groups = mjm.actuator_group
    disabled = (groups >= 0) & (groups < 31) & ((mjm.opt.disableactuator >> groups) & 1 != 0)
    found = np.flatnonzero(disabled)
    if found.size:
        raise NotImplementedError(
            "<option actuatorgroupdisable> is not supported by MuJoCo Warp, and disables "
            f"{describe(mjm, mujoco.mjtObj.mjOBJ_ACTUATOR, found)}: leave these out, set their "
            "ctrl to 0, or use the engine mjc"
        )


def check_callbacks(mjm: mujoco.MjModel) -> None:
    """Refuse what acts through MuJoCo's callbacks, which only MuJoCo C calls.

    Not a part of `put_model`, since a program may give the model callbacks of MuJoCo Warp later.

    Raises:
      NotImplementedError: a callback is set, or an actuator's gain is to come from one.
    """
    names = ("control", "passive", "sensor", "contactfilter", "act_dyn", "act_gain", "act_bias")
    for name in names:
        if getattr(mujoco, f"get_mjcb_{name}")() is not None:
            raise NotImplementedError(
                f"the callback of mujoco.set_mjcb_{name} is not supported by MuJoCo Warp: unset it "
                f"(mujoco.set_mjcb_{name}(None)), or use the engine mjc"
            )
    found = np.flatnonzero(mjm.actuator_gaintype == mujoco.mjtGain.mjGAIN_USER)
    if found.size:
        raise NotImplementedError(
            f"gaintype='user' of {describe(mjm, mujoco.mjtObj.mjOBJ_ACTUATOR, found)} is not "
            "supported by MuJoCo Warp without a callback: use another gaintype, or the engine mjc"
        )


# ----------------------------------------------------------------------------------- SDF geoms


def _pair_index(kind: GeomType, other: GeomType) -> int:
    """Where `geom_pair_type_count` has a pair of types, a lower and a higher one.

    It has the upper triangle of a matrix over all types, row by row, with the diagonal.
    """
    return int(kind) * (2 * len(GeomType) - int(kind) - 1) // 2 + int(other)


def _check_sdf_geoms(mjm: mujoco.MjModel, m: mujoco_warp.Model) -> None:
    """Refuse an SDF that may meet a mesh or a height field, or the ray of a rangefinder.

    MuJoCo Warp finds contacts of an SDF and a mesh where there are none, as deep as the SDF is
    thick. Neither it nor MuJoCo C has any of an SDF and a height field. Its rays pass through SDFs.
    """
    geoms = np.flatnonzero(mjm.geom_type == mujoco.mjtGeom.mjGEOM_SDF)
    if not geoms.size:
        return
    sdf = describe(mjm, mujoco.mjtObj.mjOBJ_GEOM, geoms)
    for kind, what, instead in (
        (GeomType.MESH, "mesh", "make the mesh an SDF too (type='sdf')"),
        (GeomType.HFIELD, "height field", "make the height field an SDF of a mesh"),
    ):
        if m.geom_pair_type_count[_pair_index(kind, GeomType.SDF)]:
            raise NotImplementedError(
                f"collision of an SDF ({sdf}) with a {what} is not supported by MuJoCo Warp: "
                f"keep them apart by contype and conaffinity, {instead}, or use the engine mjc"
            )
    found = np.flatnonzero(mjm.sensor_type == mujoco.mjtSensor.mjSENS_RANGEFINDER)
    if found.size:
        raise NotImplementedError(
            f"{describe(mjm, mujoco.mjtObj.mjOBJ_SENSOR, found)}, a rangefinder, is not supported "
            f"by MuJoCo Warp in a model with an SDF ({sdf}), through which its rays would pass: "
            "leave one of them out, or use the engine mjc"
        )
