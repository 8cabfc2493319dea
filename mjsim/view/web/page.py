"""A page for web browsers as a display: mjviser draws the scene, viser serves it and its panel.

mjviser is the web viewer of MuJoCo's ecosystem, viser the page, the connection and the panel
under it; both are kept, and need nothing but a browser at the watching end, nor anything from
outside this machine.
"""

import threading
import time
from collections.abc import Sequence

import mujoco
import numpy as np
import rich

from mjsim.errors import SettingError
from mjsim.text import install_line
from mjsim.view.controls import Controls
from mjsim.view.display import Display, Status
from mjsim.view.side_by_side import Layout
from mjsim.view.web.address import check_address, port_error, report_address

try:
    import viser

    from mjsim.view.web.panel import Panel
    from mjsim.view.web.scene import DrawnModel, drawable, light
except ImportError as error:
    raise SettingError("backend", f"web wants mjviser ({error}): {install_line('web')}") from error

SHARE = 0.4  # of the caller's time that drawing may take, at most; it makes for fewer updates
SLACK = 0.1  # s: how much of that time may be saved up
FIELD_OF_VIEW = 60.0  # degrees: where the slider of mjviser stands at first


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
        strangers = check_address(http_host, http_port)
        # On stdout, viser would print a banner, and a line for every browser that comes and goes.
        rich.reconfigure(quiet=True)
        self._server = _Server(http_host, http_port, label="MuJoCo", verbose=False)
        if self._server.get_port() != http_port:  # it takes the next one if this one is lost
            self._server.stop()
            raise port_error(http_host, http_port, "Address already in use")
        self._server.gui.configure_theme(
            dark_mode=True, show_logo=False, show_share_button=False, brand_color=(66, 135, 245)
        )
        self._server.on_client_connect(self._greet)
        self._panel: Panel | None = None
        self._drawn: list[DrawnModel] = []
        self._stale = threading.Event()  # the picture is older than the data
        self._mjds: list[mujoco.MjData] = []
        self._notice = ""
        self._due = 0.0
        report_address(http_host, http_port, strangers)

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
        layout = Layout(mjm, mjds[0])
        offsets = layout.offsets(len(mjds))
        with server.atomic():
            server.gui.reset()
            server.gui.main_panel.dock_right()
            server.scene.reset()
            light(server.scene)
            self._panel = Panel(server, controls)
            self._drawn = [
                DrawnModel(server, mjm, number, offset, self._stale.set)
                for number, offset in enumerate(offsets)
            ]
            above = layout.center + layout.above
            for text, offset in zip(labels, offsets, strict=False):
                server.scene.add_label(
                    f"/label/{text}", text, position=above + offset, anchor="bottom-center"
                )
            camera.lookat += offsets.mean(axis=0)
            camera.distance += 0.5 * np.linalg.norm(offsets[-1] - offsets[0])
            first, *others = self._drawn
            first.build_tabs(self._panel.tabs, camera)
            for drawn in others:
                drawn.share_tabs(first)
            self._aim(camera)
        self._stale.set()

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
                if all(drawable(mjd) for mjd in self._mjds):
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
        start = time.thread_time()
        for drawn, mjd in zip(self._drawn, self._mjds, strict=True):
            drawn.draw(mjd, self._drawn[0])
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
