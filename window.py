"""MuJoCo's own window as a display."""

import contextlib
import threading
import time
from collections.abc import Sequence

import mujoco

import gl
from errors import SettingError
from viewing import KEYS, Controls, Display, Status, offered_keys

_OVERLAY_PERIOD = 0.25  # s: how often the rows change while nothing moves
_CLOSING = 10.0  # s: how long the drawing thread may take to end


class Window(Display):
    """MuJoCo's passive viewer. It draws in a thread of its own, from copies that `sync` makes.

    Raises:
      SettingError: this machine cannot open a window.
    """

    def __init__(self) -> None:
        tried = gl.probe("window")
        if not tried.renderer:
            raise window_error(tried.reason)
        # Only here: it wants glfw, which a machine without a screen need not have.
        import mujoco.viewer

        self._launch = mujoco.viewer.launch_passive
        self._handle: mujoco.viewer.Handle | None = None
        self._threads: set[threading.Thread] = set()
        self._controls = Controls()
        self._overlay_due = 0.0

    @property
    def closed(self) -> bool:
        return self._handle is not None and not self._handle.is_running()

    def load(
        self,
        mjm: mujoco.MjModel,
        mjds: Sequence[mujoco.MjData],
        controls: Controls,
        labels: Sequence[str] = (),
    ) -> None:
        if self.closed:
            return
        self.close()
        self._controls = controls
        others = set(threading.enumerate())
        try:
            self._handle = self._launch(
                mjm, mjds[0], key_callback=self._press, show_left_ui=False, show_right_ui=False
            )
        except RuntimeError as error:  # on macOS, where only mjpython may open a window
            raise window_error(str(error)) from None
        self._threads = set(threading.enumerate()) - others

    def _press(self, code: int) -> None:
        for key in KEYS:
            if key.code == code and key.offer in self._controls.offers:
                key.press(self._controls)

    def show(self, status: Status, moved: bool) -> None:
        if not moved and time.monotonic() < self._overlay_due:
            return
        self._overlay_due = time.monotonic() + _OVERLAY_PERIOD
        # Closed by its user between two looks, the viewer's C++ half is gone.
        with contextlib.suppress(mujoco.UnexpectedError):
            self._handle.set_texts(self._texts(status))
            self._handle.sync()

    def _texts(self, status: Status) -> list[tuple[int, int, str, str]]:
        large, small = mujoco.mjtFontScale.mjFONTSCALE_150, mujoco.mjtFontScale.mjFONTSCALE_100
        top, bottom = mujoco.mjtGridPos.mjGRID_TOPLEFT, mujoco.mjtGridPos.mjGRID_BOTTOMLEFT
        texts = [(large, top, "\n".join(status.rows), "\n".join(status.rows.values()))]
        if keys := offered_keys(self._controls):
            names = "\n".join(key.name for key in keys)
            texts.append((small, bottom, names, "\n".join(key.what for key in keys)))
        return texts

    def close(self) -> None:
        """Close the window and wait for its thread: one that still draws at exit crashes."""
        if self._handle is None:
            return
        if self._handle.is_running():
            with contextlib.suppress(mujoco.UnexpectedError):
                self._handle.close()
        for thread in self._threads:
            thread.join(_CLOSING)
        self._handle = None


def window_error(reason: str) -> SettingError:
    return SettingError(
        "backend",
        f"native cannot open a window here: {reason}; --backend web shows it in a browser, "
        "--backend none prints a line a second",
    )
