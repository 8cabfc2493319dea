"""Pictures of a scene without a window: an OpenGL context of our own, and cameras."""

import dataclasses
import importlib
import os

import mujoco
import numpy as np

from mjsim.errors import SettingError
from mjsim.render import opengl_probe as gl

_MAX_GEOMS = 10_000  # drawn beside those of the model: contacts, forces


@dataclasses.dataclass(frozen=True)
class View:
    """From where to look.

    Attributes:
      camera: name or number of a camera of the model; None: a free camera.
      azimuth: of the free camera, degrees; None, as for those below: what the model says.
      elevation: likewise, degrees; negative looks down.
      distance: likewise, m.
    """

    camera: str | None = None
    azimuth: float | None = None
    elevation: float | None = None
    distance: float | None = None


def make_camera(mjm: mujoco.MjModel, view: View) -> mujoco.MjvCamera:
    """The camera of that view.

    Raises:
      SettingError: the model has no camera of that name, or it is to be free and fixed at once.
    """
    free = {name: getattr(view, name) for name in ("azimuth", "elevation", "distance")}
    free = {name: value for name, value in free.items() if value is not None}
    camera = mujoco.MjvCamera()
    if view.camera is None:
        mujoco.mjv_defaultFreeCamera(mjm, camera)
        for name, value in free.items():
            setattr(camera, name, value)
        return camera
    if free:
        name = next(iter(free))
        raise SettingError(name, f"{free[name]:g} is for the free camera: leave out --camera")
    names = [mjm.camera(i).name for i in range(mjm.ncam)]
    numbers = [str(i) for i in range(mjm.ncam)]
    for known in (names, numbers):
        if view.camera in known:
            camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
            camera.fixedcamid = known.index(view.camera)
            return camera
    has = "it has none: leave out --camera"
    if names:
        has = "it has " + ", ".join(name or numbers[i] for i, name in enumerate(names))
    raise SettingError("camera", f"{view.camera!r} is no camera of the model; {has}")


def _context_type(way: str) -> type:
    """MuJoCo's class of contexts for "egl" or "osmesa"."""
    before = os.environ.get("PYOPENGL_PLATFORM")
    try:
        return importlib.import_module(f"mujoco.{way}").GLContext
    finally:
        if before is None:  # set by that import; programs that we start may want another one
            os.environ.pop("PYOPENGL_PLATFORM", None)


class Offscreen:
    """Renders a model, through EGL or OSMesa, whichever works.

    Not `mujoco.Renderer`, since that one takes the way which MUJOCO_GL named when MuJoCo was
    imported, and no other.

    Args:
      mjm: the model.
      width: of the pictures, pixels.
      height: likewise.
      setting: what asks for it, for the error.

    Raises:
      SettingError: this machine cannot render.
    """

    def __init__(
        self, mjm: mujoco.MjModel, width: int, height: int, setting: str = "video"
    ) -> None:
        self._gl = _context_type(gl.choose_offscreen(setting))(width, height)
        self._gl.make_current()
        self._mjm = mjm
        mjm.vis.global_.offwidth, mjm.vis.global_.offheight = width, height
        self._context = mujoco.MjrContext(mjm, mujoco.mjtFontScale.mjFONTSCALE_150.value)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN.value, self._context)
        self._scene = mujoco.MjvScene(mjm, mjm.ngeom + _MAX_GEOMS)
        self._option = mujoco.MjvOption()
        self._viewport = mujoco.MjrRect(0, 0, width, height)

    def render(self, mjd: mujoco.MjData, camera: mujoco.MjvCamera) -> np.ndarray:
        """The picture of a state on which `mj_forward` was called, (height, width, 3) uint8."""
        mujoco.mjv_updateScene(
            self._mjm,
            mjd,
            self._option,
            None,
            camera,
            mujoco.mjtCatBit.mjCAT_ALL.value,
            self._scene,
        )
        mujoco.mjr_render(self._viewport, self._scene, self._context)
        pixels = np.empty((self._viewport.height, self._viewport.width, 3), np.uint8)
        mujoco.mjr_readPixels(pixels, None, self._viewport, self._context)
        return np.ascontiguousarray(pixels[::-1])  # OpenGL's first row is the lowest

    def close(self) -> None:
        self._context.free()
        self._gl.free()

    def __enter__(self) -> "Offscreen":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
