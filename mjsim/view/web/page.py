"""A page for web browsers as a display: mjviser draws the scene, viser serves it and its panel.

mjviser is the web viewer of MuJoCo's ecosystem, viser the page, the connection and the panel
under it; both are kept, and need nothing but a browser at the watching end, nor anything from
outside this machine.
"""

import collections
import copy
import html
import ipaddress
import math
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import mujoco
import numpy as np
import rich

from mjsim.errors import SettingError
from mjsim.text import install_line
from mjsim.view.controls import SPEEDS, Controls
from mjsim.view.display import Display, Status

try:
    import trimesh
    import viser
    import viser.transforms as vtf
    from mjviser import ViserMujocoScene
except ImportError as error:
    raise SettingError("backend", f"web wants mjviser ({error}): {install_line('web')}") from error

PANEL_PERIOD = 0.25  # s: how often the rows change
PLOT_SECONDS = 30.0  # how far back a plot goes
SHARE = 0.4  # of the caller's time that drawing may take, at most; it makes for fewer updates
SLACK = 0.1  # s: how much of that time may be saved up
FIELD_OF_VIEW = 60.0  # degrees: where the slider of mjviser stands at first
FACES = 500  # triangles of a body that is not near
FAR = 1e6  # m: beyond it, browsers cannot draw
HANDS_OFF = 1.0  # s: the seek slider stays where its user moved it that long


class WebPage(Display):
    """A page that any number of browsers may look at. All of them share its panel.

    The picture goes out as often as `show` is called, or as a part of the caller's time allows: a
    scene of hundreds of bodies takes milliseconds. A browser that does not keep up gets the newest
    poses next, and those between are skipped.

    Args:
      http_host: address to serve at.
      http_port: port of the same.

    Raises:
      SettingError: the host does not resolve, or the port cannot be used.
    """

    def __init__(self, http_host: str, http_port: int) -> None:
        strangers = _check_address(http_host, http_port)
        # On stdout, viser would print a banner, and a line for every browser that comes and goes.
        rich.reconfigure(quiet=True)
        self._server = _Server(http_host, http_port, label="MuJoCo", verbose=False)
        if self._server.get_port() != http_port:  # it takes the next one if this one is lost
            self._server.stop()
            raise _port_error(http_host, http_port, "Address already in use")
        self._server.gui.configure_theme(
            dark_mode=True, show_logo=False, show_share_button=False, brand_color=(66, 135, 245)
        )
        self._server.on_client_connect(self._greet)
        self._panel: _Panel | None = None
        self._scenes: list[ViserMujocoScene] = []
        self._parts: list[list[_Solids | _Flex]] = []  # of each scene, that mjviser does not draw
        self._stale = threading.Event()  # the picture is older than the data
        self._mjds: list[mujoco.MjData] = []
        self._notice = ""
        self._due = 0.0
        _report(http_host, http_port, strangers)

    @property
    def closed(self) -> bool:
        return False

    def load(
        self,
        mjm: mujoco.MjModel,
        mjds: Sequence[mujoco.MjData],
        controls: Controls,
        labels: Sequence[str] = (),
    ) -> None:
        server = self._server
        self._mjds = list(mjds)
        camera = mujoco.MjvCamera()
        mujoco.mjv_defaultFreeCamera(mjm, camera)
        offsets = _places(mjm, self._mjds, camera)
        with server.atomic():
            server.gui.reset()
            server.gui.main_panel.dock_right()
            server.scene.reset()
            _light(server.scene)
            self._panel = _Panel(server, controls)
            self._scenes = [
                self._build_scene(mjm, number, offset) for number, offset in enumerate(offsets)
            ]
            self._parts = [
                [
                    *_solids(mjm, scene),
                    *(_Flex(scene, i) for i in range(mjm.nflex) if mjm.flex_dim[i] > 1),
                ]
                for scene in self._scenes
            ]
            above = mjm.stat.center + np.array([0.0, 0.0, 0.6 * mjm.stat.extent])
            for text, offset in zip(labels, offsets, strict=False):
                server.scene.add_label(
                    f"/label/{text}", text, position=above + offset, anchor="bottom-center"
                )
            camera.lookat += offsets.mean(axis=0)
            camera.distance += 0.5 * np.linalg.norm(offsets[-1] - offsets[0])
            self._build_tabs(camera)
            self._aim(camera)
        self._stale.set()

    def _build_scene(
        self, mjm: mujoco.MjModel, number: int, offset: np.ndarray
    ) -> ViserMujocoScene:
        stage: Any = _Stage(self._server, number, offset, mjm.stat.extent)
        scene = ViserMujocoScene(stage, _without(mjm, _solid_geoms(mjm)), num_envs=1)
        scene.camera_tracking_enabled = False
        scene.set_refresh_handler(self._stale.set)
        return scene

    def _build_tabs(self, camera: mujoco.MjvCamera) -> None:
        """The panel of mjviser, which belongs to the first scene and goes for all of them."""
        first, tabs = self._scenes[0], self._panel.tabs
        with tabs.add_tab("Show"):
            first.create_overlay_gui()
        with tabs.add_tab("Groups"):
            first.create_groups_gui()
        with tabs.add_tab("Camera"):
            first.create_scene_gui(camera.distance, camera.azimuth, -camera.elevation)
        for scene in self._scenes[1:]:
            scene.mj_model = first.mj_model
            scene.geom_groups_visible = first.geom_groups_visible
            scene.site_groups_visible = first.site_groups_visible
            scene._mjv_option = first._mjv_option  # the only home of most of what can be shown

    def _aim(self, camera: mujoco.MjvCamera) -> None:
        """Let browsers look from where MuJoCo's window would, those that come and those there."""
        azimuth, elevation = np.deg2rad([camera.azimuth, camera.elevation])
        forward = np.array(
            [
                np.cos(elevation) * np.cos(azimuth),
                np.cos(elevation) * np.sin(azimuth),
                np.sin(elevation),
            ]
        )
        initial = self._server.initial_camera
        initial.look_at = camera.lookat.copy()
        initial.position = camera.lookat - camera.distance * forward
        initial.fov = np.deg2rad(FIELD_OF_VIEW)
        for client in self._server.get_clients().values():
            with client.atomic():
                client.camera.position = initial.position
                client.camera.look_at = initial.look_at
                client.camera.fov = initial.fov

    def show(self, status: Status, moved: bool) -> None:
        if moved:
            self._stale.set()
        panel, server = self._panel, self._server
        if panel is None or not server.get_clients():
            return
        notice = status.notice
        with server.atomic():
            if self._stale.is_set():
                if all(_drawable(mjd) for mjd in self._mjds):
                    if time.monotonic() >= self._due:
                        self._stale.clear()
                        self._draw()
                else:
                    notice = notice or "diverged: this is the last state that can be drawn"
            panel.update(status, notice)
        server.flush()  # else viser waits for more, a 60th of a second each time
        if notice and notice != self._notice:
            for client in server.get_clients().values():
                client.add_notification("MuJoCo", notice, auto_close_seconds=10.0, color="orange")
        self._notice = notice

    def _draw(self) -> None:
        first, start = self._scenes[0], time.thread_time()
        for scene, parts, mjd in zip(self._scenes, self._parts, self._mjds, strict=True):
            if scene is not first:
                scene.camera_tracking_enabled = first.camera_tracking_enabled
                scene.show_convex_hull = first.show_convex_hull  # brings the groups with it
            scene.update_from_mjdata(mjd)
            for part in parts:
                part.draw(mjd)
        now, took = time.monotonic(), time.thread_time() - start
        self._due = max(self._due, now - SLACK) + took / SHARE

    def _greet(self, client: viser.ClientHandle) -> None:
        self._stale.set()  # while nobody looked, nothing was drawn

    def close(self) -> None:
        self._server.stop()


class _Server(viser.ViserServer):
    """viser's server, less what would take the page to a server of its makers' for anyone."""

    def request_share_url(self, verbose: bool = True) -> None:
        return None


# ------------------------------------------------------------------------------------- the panel


class _Panel:
    """The upper half of the panel: how the run does, buttons for what is offered, plots."""

    def __init__(self, server: viser.ViserServer, controls: Controls) -> None:
        self._gui, self._controls = server.gui, controls
        self._due = 0.0
        self._notice = self._gui.add_html("", visible=False)
        self._rows = self._gui.add_html("")
        self._follow: list[Callable[[Status], None]] = []
        for offer, build in (
            ("pause", self._build_pause),
            ("step", self._build_step),
            ("reset", self._build_reset),
            ("speed", self._build_speed),
            ("seek", self._build_seek),
            ("world", self._build_world),
        ):
            if offer in controls.offers:
                build()
        self.tabs = self._gui.add_tab_group()
        self._plots: dict[str, _Plot] = {}
        self._tab = self.tabs.add_tab("Plots")

    def _build_pause(self) -> None:
        controls = self._controls
        button = self._gui.add_button("Pause")
        button.on_click(lambda event: controls.toggle_pause())

        def follow(status: Status) -> None:
            button.label = "Go on" if controls.paused else "Pause"
            icon = viser.Icon.PLAYER_PLAY if controls.paused else viser.Icon.PLAYER_PAUSE
            if button.icon != icon:
                button.icon = icon

        self._follow.append(follow)

    def _build_step(self) -> None:
        button = self._gui.add_button("One step", icon=viser.Icon.PLAYER_TRACK_NEXT)
        button.on_click(lambda event: self._controls.step())
        if "seek" in self._controls.offers:
            button = self._gui.add_button("One step back", icon=viser.Icon.PLAYER_TRACK_PREV)
            button.on_click(lambda event: self._controls.step(-1))

    def _build_reset(self) -> None:
        button = self._gui.add_button("Back to the start", icon=viser.Icon.PLAYER_SKIP_BACK)
        button.on_click(lambda event: self._controls.reset())

    def _build_speed(self) -> None:
        controls = self._controls
        names = {
            f"{speed:g}x" if speed >= 1 else f"1/{round(1 / speed)}x": speed for speed in SPEEDS
        }
        dropdown = self._gui.add_dropdown("Speed", list(names), initial_value="1x")

        def change(event: viser.GuiEvent) -> None:
            if event.client_id is not None:
                controls.speed = names[event.target.value]

        dropdown.on_update(change)

        def follow(status: Status) -> None:
            name = min(names, key=lambda name: abs(names[name] - controls.speed))
            if dropdown.value != name:
                dropdown.value = name

        self._follow.append(follow)

    def _build_seek(self) -> None:
        controls = self._controls
        if not controls.duration > 0.0:
            return
        slider = self._gui.add_slider("Position, s", 0.0, controls.duration, 0.01, 0.0)
        moved = -math.inf

        def seek(event: viser.GuiEvent) -> None:
            nonlocal moved
            if event.client_id is not None:  # else it is `follow` that moved it
                moved = time.monotonic()
                controls.seek(event.target.value)

        slider.on_update(seek)

        def follow(status: Status) -> None:
            position = min(max(round(status.position, 2), 0.0), controls.duration)
            if time.monotonic() > moved + HANDS_OFF and slider.value != position:
                slider.value = position

        self._follow.append(follow)

    def _build_world(self) -> None:
        controls = self._controls
        if controls.nworld < 2:
            return
        slider = self._gui.add_slider("World", 0, controls.nworld - 1, 1, controls.world)

        def choose(event: viser.GuiEvent) -> None:
            if event.client_id is not None:
                controls.world = event.target.value

        slider.on_update(choose)

        def follow(status: Status) -> None:
            if slider.value != controls.world:
                slider.value = controls.world

        self._follow.append(follow)

    def update(self, status: Status, notice: str) -> None:
        """Bring all of it up to date; what has not changed is not sent."""
        for follow in self._follow:
            follow(status)
        shown = _NOTICE.format(html.escape(notice)) if notice else ""
        if self._notice.content != shown:
            self._notice.content = shown
            self._notice.visible = bool(notice)
            self._due = 0.0
        if time.monotonic() < self._due:
            return
        self._due = time.monotonic() + PANEL_PERIOD
        self._rows.content = _table(status.rows)
        for name, value in status.plots.items():
            if name not in self._plots:
                with self._tab:
                    self._plots[name] = _Plot(self._gui, name)
            self._plots[name].add(value)


class _Plot:
    """A number over the last seconds."""

    def __init__(self, gui: viser.GuiApi, name: str) -> None:
        self._values: collections.deque[tuple[float, float]] = collections.deque()
        grey = "#9aa4b2"
        axis = viser.uplot.Axis(stroke=grey, grid={"stroke": "#3a404a", "width": 1})
        self._handle = gui.add_uplot(
            (np.array([-PLOT_SECONDS, 0.0]), np.array([0.0, 0.0])),
            (viser.uplot.Series(label="s"), viser.uplot.Series(label=name, stroke="#4287f5")),
            title=name,
            scales={"x": viser.uplot.Scale(time=False, range=(-PLOT_SECONDS, 0.0))},
            axes=(axis, axis),
            legend=viser.uplot.Legend(show=False),
            height=130,
        )

    def add(self, value: float) -> None:
        now = time.monotonic()
        self._values.append((now, value))
        while self._values[0][0] < now - PLOT_SECONDS:
            self._values.popleft()
        times, values = np.array(self._values, float).T
        self._handle.data = (times - now, values)


_NOTICE = (
    '<div style="margin: 0.5em 1em; padding: 0.5em 0.75em; border-radius: 4px; '
    'background: #b35900; color: white; font-weight: 600">{}</div>'
)


def _table(rows: dict[str, str]) -> str:
    cells = "".join(
        f'<tr><td style="opacity: 0.65; padding-right: 1em">{html.escape(name)}</td>'
        f"<td>{html.escape(value)}</td></tr>"
        for name, value in rows.items()
    )
    style = "margin: 0.5em 1em; font-size: 0.85em; font-variant-numeric: tabular-nums"
    return f'<table style="{style}">{cells}</table>'


# ------------------------------------------------------------------------------------- the scene


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
        """None: without a GPU a browser takes seconds to draw a frame with one. See `_light`."""

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


def _light(scene: viser.SceneApi) -> None:
    """Two lamps over the shoulders and a sky, none of which casts shadows, for the same reason."""
    scene.configure_default_lights(enabled=False)
    scene.configure_environment_map(None)
    scene.add_light_hemisphere(
        "/lamp/sky", sky_color=(235, 242, 255), ground_color=(120, 110, 100), intensity=1.6
    )
    scene.add_light_directional("/lamp/key", position=(-2.0, -3.0, 5.0), intensity=2.2)
    scene.add_light_directional("/lamp/fill", position=(4.0, -2.0, 2.0), intensity=0.7)


def _places(
    mjm: mujoco.MjModel, mjds: Sequence[mujoco.MjData], camera: mujoco.MjvCamera
) -> np.ndarray:
    """Offsets of states side by side, as the camera sees them, shape (len(mjds), 3), m."""
    azimuth = np.deg2rad(camera.azimuth)
    right = np.array([np.sin(azimuth), -np.cos(azimuth), 0.0])
    solid = mjm.geom_type != mujoco.mjtGeom.mjGEOM_PLANE
    axes = mjds[0].geom_xmat[solid].reshape(-1, 3, 3)
    middle, half = mjm.geom_aabb[solid, :3], mjm.geom_aabb[solid, 3:]
    turned = np.einsum("i,gij->gj", right, axes)  # the direction, in each geom's frame
    along = mjds[0].geom_xpos[solid] @ right + (turned * middle).sum(axis=1)
    fixed = mjm.body_weldid[mjm.geom_bodyid[solid]] == 0  # what is not may yet turn
    reach = np.where(fixed, (np.abs(turned) * half).sum(axis=1), mjm.geom_rbound[solid])
    width = np.ptp([*(along - reach), *(along + reach)]) if solid.any() else mjm.stat.extent
    return np.arange(len(mjds))[:, None] * 1.2 * width * right


def _drawable(mjd: mujoco.MjData) -> bool:
    """Whether all is finite, and so near that it is finite in a browser's float32."""
    return bool(np.abs(mjd.xpos).max() < FAR and np.isfinite(mjd.xmat).all())


# ----------------------------------------------------------------------------------- the address


def _check_address(host: str, port: int) -> bool:
    """Whether other machines can reach it. viser would hang where it cannot serve.

    Raises:
      SettingError: it cannot be served at.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SettingError("http_host", f"{host!r} does not resolve: {reason}") from error
    for family, _, _, _, address in found:
        try:
            socket.create_server(address, family=family).close()
        except OSError as error:
            raise _port_error(host, port, error.strerror or str(error)) from error
    return any(
        not ipaddress.ip_address(address[0].partition("%")[0]).is_loopback for *_, address in found
    )


def _port_error(host: str, port: int, reason: str) -> SettingError:
    return SettingError("http_port", f"{port} at {host} cannot be used: {reason}; choose another")


def _report(host: str, port: int, strangers: bool) -> None:
    """Say where the page is, and who else may see it."""
    name = socket.gethostname()
    anywhere = host in ("0.0.0.0", "::", "")
    address = f"[{host}]" if ":" in host else host
    lines = [f"the page is at http://{name if anywhere else address}:{port}"]
    if strangers:
        lines.append(
            f"warning: the page at {host}:{port} is not encrypted and open to anyone who reaches "
            "the port, buttons and all; rather serve it at 127.0.0.1 and let browsers' machines "
            f"run: ssh -N -L {port}:127.0.0.1:{port} {name}"
        )
    print("\n".join(lines), file=sys.stderr, flush=True)
