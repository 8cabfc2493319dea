"""What the page draws of a model, and the only module that knows the insides of viser and mjviser.

tests/view/test_web_scene.py has the list of those names of theirs that may go without notice.
"""

import copy
import math
from collections.abc import Callable
from typing import Any

import mujoco
import numpy as np
import trimesh
import viser
import viser.transforms as vtf
from mjviser import ViserMujocoScene

FACES = 500  # triangles of a body that is not near
FAR = 1e6  # m: beyond it, browsers cannot draw


class DrawnModel:
    """A model on the page, in one state: what mjviser draws of it, and what we draw beside that.

    Args:
      server: of the page.
      mjm: the model, which is left as it is.
      number: of the state, among those side by side.
      offset: from the first state, (3,), m.
      refresh: called when a browser asks for another way of drawing.
    """

    def __init__(
        self,
        server: viser.ViserServer,
        mjm: mujoco.MjModel,
        number: int,
        offset: np.ndarray,
        refresh: Callable[[], None],
    ) -> None:
        stage: Any = _Stage(server, number, offset, mjm.stat.extent)
        self.scene = ViserMujocoScene(stage, _without(mjm, _solid_geoms(mjm)), num_envs=1)
        self.scene.camera_tracking_enabled = False
        self.scene.set_refresh_handler(refresh)
        flexes = [_Flex(self.scene, i) for i in range(mjm.nflex) if mjm.flex_dim[i] > 1]
        self.parts: list[_Solids | _Flex] = [*_solids(mjm, self.scene), *flexes]

    def build_tabs(self, tabs: viser.GuiTabGroupHandle, camera: mujoco.MjvCamera) -> None:
        """Add the panel of mjviser to these tabs."""
        with tabs.add_tab("Show"):
            self.scene.create_overlay_gui()
        with tabs.add_tab("Groups"):
            self.scene.create_groups_gui()
        with tabs.add_tab("Camera"):
            self.scene.create_scene_gui(camera.distance, camera.azimuth, -camera.elevation)

    def share_tabs(self, first: "DrawnModel") -> None:
        """Let the tabs of the first state go for this one, too."""
        self.scene.mj_model = first.scene.mj_model
        self.scene.geom_groups_visible = first.scene.geom_groups_visible
        self.scene.site_groups_visible = first.scene.site_groups_visible
        # The only home of most of what can be shown.
        self.scene._mjv_option = first.scene._mjv_option

    def draw(self, mjd: mujoco.MjData, first: "DrawnModel") -> None:
        """Draw a state as the tabs of the first one have it."""
        if self is not first:
            self.scene.camera_tracking_enabled = first.scene.camera_tracking_enabled
            self.scene.show_convex_hull = first.scene.show_convex_hull  # brings the groups with it
        self.scene.update_from_mjdata(mjd)
        for part in self.parts:
            part.draw(mjd)


class _Stage:
    """The server as one of several scenes sees it: what it adds hangs below a frame of its own.

    mjviser names what it draws by the bodies alone, so that two scenes of one model would draw
    over each other. And where browsers look from, the page decides.
    """

    def __init__(
        self, server: viser.ViserServer, number: int, offset: np.ndarray, extent: float
    ) -> None:
        self._server = server
        self.scene = _Branch(server.scene, f"/scene{number}", extent, ground=number == 0)
        server.scene.add_frame(f"/scene{number}", position=offset, show_axes=False)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._server, name)

    def on_client_connect(self, callback: Callable[[viser.ClientHandle], None]) -> None: ...


class _Branch:
    """viser's scene, with all names below one."""

    def __init__(self, scene: viser.SceneApi, root: str, extent: float, ground: bool) -> None:
        self._scene, self._root, self._extent, self._ground = scene, root, extent, ground

    def __getattr__(self, method: str) -> Any:
        call = getattr(self._scene, method)
        if not method.startswith("add_"):
            return call
        return lambda name, *values, **options: call(self._root + name, *values, **options)

    def add_batched_meshes_trimesh(self, name: str, mesh: Any, **options: Any) -> Any:
        """Bodies: from afar with fewer triangles, of which trimesh gives a capsule 4,096.

        Not those of several colours, whose borders that would move.
        """
        colours = mesh.visual.vertex_colors if mesh.visual.kind == "vertex" else ()
        if len(mesh.faces) > FACES and len(np.unique(colours, axis=0)) == 1:
            options["lod"] = ((0.5 * self._extent, FACES / len(mesh.faces)),)
        return self._scene.add_batched_meshes_trimesh(self._root + name, mesh, **options)

    def configure_environment_map(self, **options: Any) -> None:
        """None: without a GPU a browser takes seconds to draw a frame with one. See `light`."""

    def add_grid(self, name: str, **options: Any) -> None:
        """A plane: endless, so one is enough for scenes side by side, and ruled to scale."""
        cell = 10.0 ** math.floor(math.log10(self._extent / 5.0))
        options |= {
            "cell_size": cell,
            "section_size": 10.0 * cell,
            "cell_color": (76, 83, 94),
            "section_color": (104, 113, 126),
            "fade_distance": 15.0 * self._extent,
            "plane_color": (60, 66, 76),
            "plane_opacity": 1.0,
            "shadow_opacity": 0.0,
        }
        if self._ground:
            self._scene.add_grid(self._root + name, **options)


_SHAPES = {
    "sphere": trimesh.creation.icosphere(subdivisions=2, radius=1.0),
    "cylinder": trimesh.creation.cylinder(radius=1.0, height=2.0, sections=24),
    "box": trimesh.creation.box(extents=(2.0, 2.0, 2.0)),
}
# What makes up a geom: shapes, and by how much of its half length each is shifted along its axis.
_PARTS = {
    mujoco.mjtGeom.mjGEOM_SPHERE: (("sphere", 0.0),),
    mujoco.mjtGeom.mjGEOM_ELLIPSOID: (("sphere", 0.0),),
    mujoco.mjtGeom.mjGEOM_CAPSULE: (("cylinder", 0.0), ("sphere", 1.0), ("sphere", -1.0)),
    mujoco.mjtGeom.mjGEOM_CYLINDER: (("cylinder", 0.0),),
    mujoco.mjtGeom.mjGEOM_BOX: (("box", 0.0),),
}


def _solid_geoms(mjm: mujoco.MjModel) -> np.ndarray:
    """The geoms that `_Solids` draws: shapes of `_PARTS` in one opaque colour, which move."""
    material = mjm.geom_matid
    plain = material < 0
    if mjm.nmat:
        plain |= (mjm.mat_texid[material] < 0).all(axis=1) & (mjm.mat_rgba[material, 3] == 1.0)
    plain &= mjm.geom_rgba[:, 3] == 1.0
    body = mjm.geom_bodyid
    moving = (mjm.body_weldid[body] > 0) | (mjm.body_mocapid[mjm.body_rootid[body]] >= 0)
    return np.flatnonzero(plain & moving & np.isin(mjm.geom_type, [int(kind) for kind in _PARTS]))


def _without(mjm: mujoco.MjModel, geoms: np.ndarray) -> mujoco.MjModel:
    """A copy, since mjviser sets colours and widths in it, in which these geoms are not seen."""
    mjm = copy.copy(mjm)
    mjm.geom_rgba[geoms, 3] = 0.0
    return mjm


class _Solids:
    """Shapes of one kind and one geom group, as one node of the page.

    mjviser makes a node of every body that looks like no other, and each of them costs the server
    80 us an update and the browser a call to its graphics. The 125 bodies of primitives.xml were
    121 nodes and 10 ms; they are three nodes and 1 ms.
    """

    def __init__(
        self, scene: ViserMujocoScene, mjm: mujoco.MjModel, shape: str, group: int
    ) -> None:
        self._scene, self._group = scene, group
        parts = [
            (geom, shift)
            for geom in _solid_geoms(mjm)
            if mjm.geom_group[geom] == group
            for part, shift in _PARTS[mujoco.mjtGeom(mjm.geom_type[geom])]
            if part == shape
        ]
        self._geoms = np.array([geom for geom, _ in parts])
        sizes = mjm.geom_size[self._geoms]
        kinds = mjm.geom_type[self._geoms]
        self._shifts = np.array([shift for _, shift in parts]) * sizes[:, 1]
        scales = sizes.copy()
        for kind in (mujoco.mjtGeom.mjGEOM_CAPSULE, mujoco.mjtGeom.mjGEOM_CYLINDER):
            chosen = kinds == kind
            scales[chosen] = sizes[chosen][:, [0, 0, 1]]
        if shape == "sphere":
            ball = kinds != mujoco.mjtGeom.mjGEOM_ELLIPSOID
            scales[ball] = sizes[ball][:, [0, 0, 0]]
        material = mjm.geom_matid[self._geoms]
        rgba = mjm.geom_rgba[self._geoms].copy()
        if mjm.nmat:
            rgba[material >= 0] = mjm.mat_rgba[material[material >= 0]]
        mesh = _SHAPES[shape]
        self._handle = scene.server.scene.add_batched_meshes_simple(
            f"/solids/{shape}{group}",
            mesh.vertices,
            mesh.faces,
            batched_wxyzs=np.tile([1.0, 0.0, 0.0, 0.0], (len(parts), 1)),
            batched_positions=np.zeros((len(parts), 3)),
            batched_scales=scales,
            batched_colors=_linear(rgba[:, :3]),
            lod="off",
            flat_shading=shape != "sphere",
            cast_shadow=False,
            receive_shadow=False,
        )

    def draw(self, mjd: mujoco.MjData) -> None:
        visible = self._group < 6 and self._scene.geom_groups_visible[self._group]
        self._handle.visible = visible
        if visible:
            turns = mjd.geom_xmat[self._geoms].reshape(-1, 3, 3)
            places = mjd.geom_xpos[self._geoms] + self._shifts[:, None] * turns[:, :, 2]
            # The frame of what is fixed moves where the camera tracks a body.
            self._handle.batched_positions = places + self._scene.fixed_bodies_frame.position
            self._handle.batched_wxyzs = vtf.SO3.from_matrix(turns).wxyz


def _linear(rgb: np.ndarray) -> np.ndarray:
    """Colours of instances, (n, 3) uint8: viser takes them as light, and not as sRGB.

    IEC 61966-2-1.
    """
    rgb = np.clip(rgb, 0.0, 1.0)
    light = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return np.rint(255.0 * light).astype(np.uint8)


def _solids(mjm: mujoco.MjModel, scene: ViserMujocoScene) -> list[_Solids]:
    """All of a model's, a node for each shape and geom group."""
    geoms = _solid_geoms(mjm)
    nodes = {
        (shape, int(mjm.geom_group[geom]))
        for geom in geoms
        for shape, _ in _PARTS[mujoco.mjtGeom(mjm.geom_type[geom])]
    }
    return [_Solids(scene, mjm, *node) for node in sorted(nodes)]


class _Flex:
    """A cloth or a soft body, which mjviser does not draw: its outer triangles."""

    def __init__(self, scene: ViserMujocoScene, number: int) -> None:
        mjm, self._frame = scene.mj_model, scene.fixed_bodies_frame
        start, count = mjm.flex_vertadr[number], mjm.flex_vertnum[number]
        self._vertices = slice(start, start + count)
        if mjm.flex_dim[number] == 2:
            start, count = mjm.flex_elemdataadr[number], mjm.flex_elemnum[number]
            corners = mjm.flex_elem[start : start + 3 * count]
        else:
            start, count = mjm.flex_shelldataadr[number], mjm.flex_shellnum[number]
            corners = mjm.flex_shell[start : start + 3 * count]
        material = mjm.flex_matid[number]
        rgba = mjm.flex_rgba[number] if material < 0 else mjm.mat_rgba[material]
        self._handle = scene.server.scene.add_mesh_simple(
            f"/flex{number}",
            scene.mj_data.flexvert_xpos[self._vertices],
            corners.reshape(-1, 3),
            color=tuple(rgba[:3]),
            side="double",
        )

    def draw(self, mjd: mujoco.MjData) -> None:
        self._handle.vertices = mjd.flexvert_xpos[self._vertices]
        self._handle.position = self._frame.position  # moves where the camera tracks a body


def light(scene: viser.SceneApi) -> None:
    """Two lamps over the shoulders and a sky, none of which casts shadows, for the same reason."""
    scene.configure_default_lights(enabled=False)
    scene.configure_environment_map(None)
    scene.add_light_hemisphere(
        "/lamp/sky", sky_color=(235, 242, 255), ground_color=(120, 110, 100), intensity=1.6
    )
    scene.add_light_directional("/lamp/key", position=(-2.0, -3.0, 5.0), intensity=2.2)
    scene.add_light_directional("/lamp/fill", position=(4.0, -2.0, 2.0), intensity=0.7)


def drawable(mjd: mujoco.MjData) -> bool:
    """Whether all is finite, and so near that it is finite in a browser's float32."""
    return bool(np.abs(mjd.xpos).max() < FAR and np.isfinite(mjd.xmat).all())
