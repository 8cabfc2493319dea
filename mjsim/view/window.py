"""MuJoCo's own window as a display."""

import contextlib
import textwrap
import threading
import time
from collections.abc import Sequence

import mujoco
import numpy as np

from mjsim import interrupts
from mjsim.errors import SettingError
from mjsim.render import opengl_probe as gl
from mjsim.view.controls import KEYS, Controls, offered_keys
from mjsim.view.display import Display, Status
from mjsim.view.side_by_side import SideBySide

_SYNC_PERIOD = 0.25  # s: how often to look at the window while nothing moves
_CLOSING = 10.0  # s: how long the drawing thread may take to end
_COLUMNS = 44  # of text in a row, so that a sentence does not run out of the window
# What only the simulation may change, and what the mouse may, too.
_STATE = int(mujoco.mjtState.mjSTATE_INTEGRATION) & ~int(mujoco.mjtState.mjSTATE_XFRC_APPLIED)
_MOCAP = int(mujoco.mjtState.mjSTATE_MOCAP_POS) | int(mujoco.mjtState.mjSTATE_MOCAP_QUAT)


class _Overlay:
    """The texts over the picture, set in a thread of its own: MuJoCo waits until they are drawn."""

    def __init__(self, handle: "mujoco.viewer.Handle") -> None:
        self._handle = handle
        self._texts: list[tuple[int, int, str, str]] | None = None
        self._changed = threading.Event()
        # A daemon, since a window that is closed meanwhile may never draw them.
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def set(self, texts: list[tuple[int, int, str, str]] | None) -> None:
        """Set them before long; None ends the thread."""
        self._texts = texts
        self._changed.set()

    def _run(self) -> None:
        # Closed by its user between two looks, the viewer's C++ half is gone.
        with contextlib.suppress(mujoco.UnexpectedError):
            while True:
                self._changed.wait()
                self._changed.clear()
                if self._texts is None:
                    return
                self._handle.set_texts(self._texts)


class Window(Display):
    """MuJoCo's passive viewer. It draws in a thread of its own, from copies that `sync` makes.

    Raises:
      SettingError: this machine cannot open a window.
    """

    def __init__(self) -> None:
        tried = gl.probe("window")
        if not tried.renderer:
            raise window_error(tried.reason)
        # Only here: it wants glfw, which a machine without a screen need not have, and which looks
        # for its library in a Python of its own.
        with interrupts.Deferred():
            import mujoco.viewer

        self._launch = mujoco.viewer.launch_passive
        self._handle: mujoco.viewer.Handle | None = None
        self._threads: set[threading.Thread] = set()
        self._controls = Controls()
        self._sync_due = 0.0
        self._mjm: mujoco.MjModel | None = None
        self._mjd: mujoco.MjData | None = None
        self._row: SideBySide | None = None
        self._overlay: _Overlay | None = None
        self._pushing = False

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
        self._overlay = _Overlay(self._handle)
        self._mjm, self._mjd = mjm, mjds[0]
        self._row = SideBySide(mjm, mjds, labels) if len(mjds) > 1 else None
        if self._row:
            with self._handle.lock():
                self._row.aim(self._handle.cam, mjm.vis.global_.fovy)

    def _press(self, code: int) -> None:
        for key in KEYS:
            if key.code == code and key.offer in self._controls.offers:
                key.press(self._controls)

    def show(self, status: Status, moved: bool) -> None:
        handle, overlay = self._handle, self._overlay
        assert handle is not None  # `load` comes first
        assert overlay is not None
        pushed, self._pushing = self._pushing, bool(handle.perturb.active)
        overlay.set(self._texts(status))
        if not (moved or pushed or self._pushing) and time.monotonic() < self._sync_due:
            return
        self._sync_due = time.monotonic() + _SYNC_PERIOD
        with contextlib.suppress(mujoco.UnexpectedError):  # as above
            if self._row:
                with handle.lock():
                    self._row.draw(handle.user_scn, handle.opt)
            self._sync(handle)

    def _sync(self, handle: "mujoco.viewer.Handle") -> None:
        """Hand the state to the drawing thread, and take no other one from there.

        MuJoCo's viewer would put the state back to qpos0 on Backspace, and has sliders for it.
        """
        spec = _STATE & ~_MOCAP if self._pushing else _STATE
        before, after = (np.empty(mujoco.mj_stateSize(self._mjm, spec)) for _ in range(2))
        mujoco.mj_getState(self._mjm, self._mjd, before, spec)
        handle.sync()
        mujoco.mj_getState(self._mjm, self._mjd, after, spec)
        if not np.array_equal(before, after, equal_nan=True):
            mujoco.mj_setState(self._mjm, self._mjd, before, spec)
            mujoco.mj_forward(self._mjm, self._mjd)
            handle.sync()

    def _texts(self, status: Status) -> list[tuple[int, int, str, str]]:
        large, small = mujoco.mjtFontScale.mjFONTSCALE_150, mujoco.mjtFontScale.mjFONTSCALE_100
        top, bottom = mujoco.mjtGridPos.mjGRID_TOPLEFT, mujoco.mjtGridPos.mjGRID_BOTTOMLEFT
        names, values = [], []
        for name, value in status.rows.items():
            lines = textwrap.wrap(value, _COLUMNS) or [""]
            names += [name] + [""] * (len(lines) - 1)
            values += lines
        texts = [(large, top, "\n".join(names), "\n".join(values))]
        if keys := offered_keys(self._controls):
            what = "\n".join(key.what for key in keys)
            texts.append((small, bottom, "\n".join(key.name for key in keys), what))
        return texts

    def close(self) -> None:
        """Close the window and wait for its thread: one that still draws at exit crashes."""
        if self._handle is None or self._overlay is None:
            return
        self._overlay.set(None)
        if self._handle.is_running():
            with contextlib.suppress(mujoco.UnexpectedError):
                self._handle.close()
        for thread in (*self._threads, self._overlay.thread):
            thread.join(_CLOSING)
        self._handle = None


def window_error(reason: str) -> SettingError:
    return SettingError(
        "backend",
        f"native cannot open a window here: {reason}; --backend web shows it in a browser, "
        "--backend none prints a line a second",
    )
