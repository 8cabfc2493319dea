"""The private names of Warp and MuJoCo Warp, and whether the installed ones are as expected.

No other module of the package imports private names. Each name is looked up once, when this module
is imported, and its parameters are compared with those that the code here was written for. A group
of names belongs to one part of the engine:

- A *shortcut* makes a run faster and changes no result. It is off, and MuJoCo Warp's or Warp's
  public functions are used instead, where one of its names is missing, where the installed version
  is none of `TESTED`, and with the environment variable `COMFREE_PLAIN=1`.
- A *correction* mends a result of MuJoCo Warp. It is off only where one of its names is missing.

What is off for another reason than `COMFREE_PLAIN` is told in one line at the package's import. By
`logging`, since a program that turns warnings into errors could not import the package
otherwise, and since `warnings` would add a line of source code.
"""

import dataclasses
import importlib
import inspect
import logging
import os
import sys
from collections.abc import Sequence
from typing import Any

import mujoco_warp
import warp as wp

# The versions that all tests have passed with.
TESTED = {"mujoco_warp": ("4.0.0",), "warp": ("1.19.0",)}

VARIABLE = "COMFREE_PLAIN"
_OFF = ("", "0", "false", "no", "off")


def _parameters(value: Any) -> tuple[str, ...] | None:
    """Names of the parameters of a function, kernel or Warp function; None of anything else."""
    function = getattr(value, "func", value)
    if not inspect.isroutine(function):
        return None
    return tuple(inspect.signature(function).parameters)


@dataclasses.dataclass(frozen=True)
class Name:
    """A name of another package.

    Attributes:
      module: where it is.
      name: what it is called there; `Class.method` for a method.
      parameters: of a function or kernel, what its parameters are called; None: not compared.
      fields: of a dataclass, fields that it has among others.
    """

    module: str
    name: str
    parameters: str | None = None
    fields: str = ""

    def __str__(self) -> str:
        return f"{self.module.replace('._src', '')}.{self.name}"

    def look_up(self) -> tuple[Any, str]:
        """The value, and what is wrong with it: "" if nothing is."""
        try:
            value: Any = importlib.import_module(self.module)
            for part in self.name.split("."):
                value = getattr(value, part)
        except (ImportError, AttributeError):
            return None, f"{self} is gone"
        if self.parameters is not None and not _alike(self.parameters.split(), value):
            return None, f"{self} has other parameters"
        absent = set(self.fields.split()) - {f.name for f in _fields(value)}
        if absent:
            return None, f"{self} has no {', '.join(sorted(absent))}"
        return value, ""


def _alike(expected: Sequence[str], function: Any) -> bool:
    """Whether a function has these parameters, where "*" stands for any one."""
    found = _parameters(function)
    return (
        found is not None
        and len(found) == len(expected)
        and all(one in ("*", other) for one, other in zip(expected, found, strict=True))
    )


def _fields(value: Any) -> Sequence[dataclasses.Field]:
    return dataclasses.fields(value) if dataclasses.is_dataclass(value) else ()


class Group:
    """Names that one part of the engine needs, and that it has together or not at all.

    Args:
      without: what is otherwise without this part, for the warning; "" for a shortcut.
      names: what it needs.

    Attributes:
      without: likewise.
      faults: what is wrong with the names, in words.
    """

    def __init__(self, without: str, *names: Name):
        self.without = without
        self.faults: list[str] = []
        self._values: dict[str, Any] = {}
        self._owners = {name.name: name.module for name in names}
        for name in names:
            self._values[name.name], fault = name.look_up()
            self.faults += [fault] if fault else []

    def __getitem__(self, name: str) -> Any:
        """The value of a name; None where it is not as expected."""
        return self._values[name]

    def owner(self, name: str) -> Any:
        """The module that has a name, in which a substitute is put for the time of a call."""
        return sys.modules[self._owners[name]]

    @property
    def usable(self) -> bool:
        """Whether this part can be used: all names are as expected, and no shortcut is unwanted."""
        return not self.faults and not (plain and not self.without)


_CONTEXT = "warp._src.context"
_SENSOR = "mujoco_warp._src.sensor"
_SDF = "mujoco_warp._src.collision_sdf"
_GJK = "mujoco_warp._src.collision_gjk"
_CORE = "mujoco_warp._src.collision_core"
_CONVEX = "mujoco_warp._src.collision_convex"

# Keys by which kernels are known; of others nothing is assumed.
ALL_PAIRS_KEY = "_nxn_broadphase__locals__kernel"  # tests every pair of geoms
FRICTION_KEY = "_friction_dof__locals__kernel"  # makes rows of dofs with friction loss
# Of our own: the module of convex pairs (`collision/narrowphase.py`), slowest to compile.
CONVEX_KEY = "_collide_convex__locals__collide_convex"

# -------------------------------------------------------------------------------------- shortcuts

# A captured call on the CPU is carried out without Warp's interpreter (`graph.py`), and with
# launches no larger than they must be.
CPU_GRAPH = Group(
    "",
    Name(_CONTEXT, "runtime"),
    Name(_CONTEXT, "_apic_record_capture_if", "condition on_true on_false kwargs"),
    Name(_CONTEXT, "_apic_record_capture_while", "condition while_body kwargs"),
)

# All kernels of a step are compiled before it, on all cores (`compilation.py`).
COMPILATION = Group(
    "",
    Name(_CONTEXT, "runtime"),
    Name(_CONTEXT, "Runtime.get_clang_pch_dir", "self"),
    Name("warp", "Module.get_module_identifier", "self block_dim"),
    Name("warp", "Module.register_kernel", "self kernel"),
)

# What a captured call allocates on a GPU shares one block of memory (`arena.py`).
ARENA = Group(
    "",
    Name("warp", "ScopedAllocator.__init__", "self device allocator"),
    Name("warp", "Device.get_allocator"),
)

# Pairs of geoms that may touch are found by a kernel of our own (`broadphase.py`).
BROADPHASE = Group(
    "",
    Name(
        "mujoco_warp",
        "Model",
        fields="nxn_pairid nxn_geom_pair_filtered nxn_pairid_filtered pair_margin pair_gap "
        "geom_aabb geom_rbound geom_margin geom_gap nsensorcollision",
    ),
)

# ------------------------------------------------------------------------------------ corrections

_LIMIT_PARAMETERS = (
    "sensor_type sensor_datatype sensor_objid sensor_adr sensor_cutoff * "
    "ne_in nf_in nl_in efc_type_in efc_id_in"
)
LIMIT_SENSORS = Group(
    "sensors of a joint's and a tendon's limit of the same index read each other's row",
    Name(
        _SENSOR,
        "_write_scalar",
        "sensor_type sensor_datatype sensor_adr sensor_cutoff sensorid sensor out",
    ),
    Name(_SENSOR, "_limit_pos", f"{_LIMIT_PARAMETERS} efc_pos_in efc_margin_in sensordata_out"),
    Name(_SENSOR, "_limit_vel", f"{_LIMIT_PARAMETERS} efc_vel_in sensordata_out"),
    Name(_SENSOR, "_limit_frc", f"{_LIMIT_PARAMETERS} efc_force_in sensordata_out"),
)

SHARED_PLUGINS = Group(
    "geoms cannot share a plugin instance",
    Name("mujoco_warp._src.io", "_create_array", "data spec sizes batch_size"),
)

SDF_SHAPES = Group(
    "MuJoCo's SDF plugins (torus, bowl, bolt, nut, gear) are refused",
    Name(_SDF, "user_sdf", "p attr sdf_type"),
    Name(_SDF, "user_sdf_grad", "p attr sdf_type"),
    Name(_SDF, "_sdf_narrowphase"),
    Name(_SENSOR, "_sensor_tactile"),
)

CONVEX_CHECK = Group(
    "contacts of convex geoms are not checked, so that some are missed or too deep",
    Name(
        _CORE,
        "contact_margin_gap",
        "geom_margin geom_gap pair_margin pair_gap geoms pairid worldid",
    ),
    Name(
        _CORE,
        "contact_material_params",
        "geom_condim geom_priority geom_solmix geom_solref geom_solimp geom_friction geom_adhesion "
        "pair_dim pair_solref pair_solreffriction pair_solimp pair_adhesion pair_friction geoms "
        "pairid worldid",
    ),
    Name(
        _CORE,
        "geom_collision_pair_from_types",
        "geom_dataid geom_size mesh_vertadr mesh_vertnum mesh_graphadr mesh_vert mesh_graph "
        "mesh_polynum mesh_polyadr mesh_polynormal mesh_polyvertadr mesh_polyvertnum "
        "mesh_polyvert mesh_polymapadr mesh_polymapnum mesh_polymap geom_xpos_in geom_xmat_in "
        "geom_type1 geom_type2 geoms worldid",
    ),
    Name(
        _CORE,
        "write_contact",
        "naconmax_in id_ dist_in pos_in frame_in margin_in gap_in condim_in friction_in solref_in "
        "solreffriction_in solimp_in adhesion_in geoms_in pairid_in worldid_in contact_dist_out "
        "contact_pos_out contact_frame_out contact_includemargin_out contact_friction_out "
        "contact_solref_out contact_solreffriction_out contact_solimp_out contact_dim_out "
        "contact_geom_out contact_efc_address_out contact_worldid_out contact_type_out "
        "contact_geomcollisionid_out contact_adhesion_out nacon_out",
    ),
    Name(_CORE, "Geom"),
    Name(_GJK, "FLOAT_MAX"),
    Name(_GJK, "GJKResult"),
    Name(_GJK, "support", "geom geomtype dir"),
    Name(_GJK, "_supports_multiccd", "geom1 geom2 geomtype1 geomtype2"),
    Name(_GJK, "_gjk_simplex_to_epa", "result vert_out vert_index_out face_out"),
    Name(
        _GJK,
        "gjk_phase",
        "tolerance cutoff gjk_iterations geom1 geom2 geomtype1 geomtype2 x_1 x_2",
    ),
    Name(
        _GJK,
        "epa_phase",
        "tolerance epa_iterations result geom1 geom2 geomtype1 geomtype2 vert vert_index face "
        "face_pr face_norm2 horizon warn_overflow worldid overflow_out",
    ),
    Name(
        _GJK,
        "multicontact",
        "polygon clipped plane_normal plane_dist idx1 idx2 n1 n2 endvert face1 face2 epa_vert "
        "epa_vert_index epa_face x1 x2 geom1 geom2 geomtype1 geomtype2",
    ),
    Name("mujoco_warp._src.math", "make_frame", "a"),
    Name("mujoco_warp._src.math", "upper_trid_index", "n i j"),
    Name("mujoco_warp._src.types", "mat43"),
    Name(_CONVEX, "_CCD_MIN_BLOCKS"),
    Name(_CONVEX, "_ccd_grid_size", "kernel naconmax device"),
    Name(
        _CONVEX,
        "ccd_kernel_builder",
        "geomtype1 geomtype2 gjk_iterations epa_iterations use_multiccd geomgeomid block_dim "
        "warn_overflow",
    ),
    Name("mujoco_warp._src.collision_driver", "convex_narrowphase", "m d ctx collision_table"),
)

_GROUPS = tuple(value for value in tuple(globals().values()) if isinstance(value, Group))

# Where programs find MuJoCo Warp's hooks for SDFs; `comfree_warp._src`.
mujoco_warp_src = getattr(mujoco_warp, "_src", None)

# ------------------------------------------------------------------------- what is on, and is told


def _untested() -> list[str]:
    """The installed packages whose version is not in `TESTED`."""
    installed = {"mujoco_warp": mujoco_warp.__version__, "warp": wp.__version__}
    return [
        f"{name} {version} (tested: {', '.join(TESTED[name])})"
        for name, version in installed.items()
        if version not in TESTED[name]
    ]


def _warning(untested: list[str], groups: Sequence[Group]) -> str:
    """What to tell of versions that are not tested, and of names; "" if there is nothing."""
    parts = []
    slower = "public functions are used in the place of faster ones, with the same results"
    faults = [fault for group in groups for fault in group.faults if not group.without]
    if untested:
        parts.append(f"not tested with {', '.join(untested)}: {slower}")
    elif faults:
        parts.append(f"{', '.join(dict.fromkeys(faults))}: {slower}")
    parts += [
        f"{', '.join(group.faults)}: {group.without}"
        for group in groups
        if group.faults and group.without
    ]
    return "; ".join(parts)


_asked_for_plain = os.environ.get(VARIABLE, "").lower() not in _OFF

# Whether public functions alone take the place of all shortcuts.
plain = _asked_for_plain or bool(_untested())

_told = (
    _warning([], [group for group in _GROUPS if group.without])
    if _asked_for_plain
    else _warning(_untested(), _GROUPS)
)
if _told:
    logging.getLogger("comfree_warp").warning(
        "comfree_warp: %s; take versions that are tested, or a newer comfree-warp", _told
    )


# ------------------------------------------------------------------------------ what a run only has


def runtime_has(*names: str) -> bool:
    """Whether Warp's runtime, which exists from its first use on, has these attributes.

    Args:
      names: attributes, `core.function` for those of Warp's library.
    """
    runtime = importlib.import_module(_CONTEXT).runtime
    for name in names:
        value = runtime
        for part in name.split("."):
            if not hasattr(value, part):
                return False
            value = getattr(value, part)
    return True
