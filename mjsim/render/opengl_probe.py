"""OpenGL on this machine: which of its ways work, found out before anything depends on them.

Each way is tried in a process of its own: MuJoCo and PyOpenGL settle on one at import, MuJoCo's
window ends the process that opens it without a display, and a broken driver may do worse.
"""

import dataclasses
import os
import subprocess
import sys

from mjsim.errors import SettingError

TIMEOUT = 60.0  # s


@dataclasses.dataclass(frozen=True)
class Way:
    """A way to OpenGL: a program that tries it, MuJoCo's name for it, and what would mend it."""

    program: str
    mujoco_gl: str
    mend: str


_REPORT = """
from OpenGL import GL
renderer, version = GL.glGetString(GL.GL_RENDERER), GL.glGetString(GL.GL_VERSION)
if renderer is None:
    raise SystemExit("no display, or none with OpenGL")
print("renderer:", renderer.decode(), "OpenGL", version.decode())
"""
_WINDOW_PROGRAM = f"""
import glfw
glfw.ERROR_REPORTING = "ignore"
def check(fine):
    if not fine:
        raise SystemExit((glfw.get_error()[1] or b"GLFW gives no reason").decode())
check(glfw.init())
glfw.window_hint(glfw.VISIBLE, False)
window = glfw.create_window(64, 64, "", None, None)
check(window)
glfw.make_context_current(window)
if not glfw.extension_supported("GL_ARB_framebuffer_object"):
    raise SystemExit("its OpenGL has no framebuffer objects")
{_REPORT}"""
_OFFSCREEN_PROGRAM = f"""
import mujoco
context = mujoco.GLContext(64, 64)
context.make_current()
{_REPORT}"""

WAYS = {
    "window": Way(
        _WINDOW_PROGRAM, "glfw", "set DISPLAY (ssh -X, or xvfb-run: apt-get install xvfb libgl1)"
    ),
    "EGL": Way(
        _OFFSCREEN_PROGRAM,
        "egl",
        "apt-get install libegl1 libgl1 libgl1-mesa-dri (an NVIDIA driver brings its own)",
    ),
    "OSMesa": Way(_OFFSCREEN_PROGRAM, "osmesa", "apt-get install libosmesa6"),
}


@dataclasses.dataclass(frozen=True)
class Probe:
    """What came of trying: the renderer, or "" and the reason why there is none."""

    renderer: str
    reason: str = ""


def probe(name: str) -> Probe:
    """Try one of `WAYS`."""
    way = WAYS[name]
    try:
        tried = subprocess.run(
            [sys.executable, "-c", way.program],
            env={**os.environ, "MUJOCO_GL": way.mujoco_gl},
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
        )
    except subprocess.TimeoutExpired:
        return Probe("", f"no answer within {TIMEOUT:g} s")
    for line in tried.stdout.splitlines():
        if line.startswith("renderer: "):
            return Probe(line.removeprefix("renderer: "))
    said = tried.stderr.strip().splitlines() or [f"exit status {tried.returncode}"]
    return Probe("", said[-1])


def choose_offscreen(setting: str) -> str:
    """MuJoCo's name of a way to render without a window that works here; EGL before OSMesa.

    Where MUJOCO_GL names one, that one is taken, and nothing else is tried.

    Args:
      setting: what asks for it, for the error.

    Raises:
      SettingError: none works; with the reasons, and what to install.
    """
    chosen = os.environ.get("MUJOCO_GL", "").lower().strip()
    names = [name for name in ("EGL", "OSMesa") if WAYS[name].mujoco_gl == chosen]
    reasons = []
    for name in names or ["EGL", "OSMesa"]:
        tried = probe(name)
        if tried.renderer:
            return WAYS[name].mujoco_gl
        reasons.append(f"{name}: {tried.reason[:120]} ({WAYS[name].mend})")
    raise SettingError(setting, f"cannot render here; {'; '.join(reasons)}")
