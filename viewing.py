"""What `local_viewer.py` shows a stream on: MuJoCo's own window, or a line of text a second.

Both take a model with `load`, then the newest state with `show`, as often as there is one or the
figures beside it have changed. Neither knows where the state came from.
"""

import abc
import collections
import contextlib
import dataclasses
import os
import subprocess
import sys
import threading
import time

import mujoco
import numpy as np
import numpy.typing as npt

from errors import SettingError

BACKENDS = ("native", "none")

# In a process of its own: without a display MuJoCo's window ends the process that opens it, and a
# broken driver may do worse.
WINDOW_PROBE = """
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
"""


@dataclasses.dataclass(frozen=True)
class Figures:
    """The numbers beside the picture.

    Attributes:
      time: simulated time, s.
      frames_per_second: states that arrived, drawn or not, per second of wall time.
      realtime_factor: simulated seconds per second of wall time.
      delay: how much later the newest state came than the quickest one of this connection, s; or
        None if the server does not say when it sends.
      connected: whether there is a connection.
    """

    time: float
    frames_per_second: float
    realtime_factor: float
    delay: float | None
    connected: bool = True

    @property
    def rate(self) -> str:
        if not self.connected:
            return "no connection"
        return f"{self.frames_per_second:.1f} frames/s, {self.realtime_factor:.2f}x real time"

    @property
    def lateness(self) -> str:
        return "unknown" if self.delay is None else f"{1e3 * self.delay:.0f} ms"


class Meter:
    """Measures a connection: rate over the last two seconds, delay of the newest state.

    The delay is counted from the quickest arrival of the connection, because the clocks of two
    machines differ by more than what is to be measured. What remains is the time that states wait
    on their way; the way itself, half a round trip, is not in it.
    """

    WINDOW = 2.0  # s

    def __init__(self) -> None:
        self._arrivals: collections.deque[tuple[float, float, int]] = collections.deque()
        self._simulated = 0.0
        self._quickest: float | None = None
        self._delay: float | None = None

    def note(self, simulated: float, sent: float | None, nframes: int) -> None:
        """Take the newest of `nframes` states: its simulated time, and the clock as it was sent."""
        self._simulated = simulated
        self._arrivals.append((time.monotonic(), simulated, nframes))
        if sent is not None:
            took = time.time() - sent
            self._quickest = took if self._quickest is None else min(took, self._quickest)
            self._delay = took - self._quickest

    def figures(self) -> Figures:
        """The figures of now; the rate falls to zero where nothing arrives."""
        now = time.monotonic()
        while self._arrivals and self._arrivals[0][0] < now - self.WINDOW:
            self._arrivals.popleft()
        if len(self._arrivals) < 2:
            return Figures(self._simulated, 0.0, 0.0, self._delay)
        start, simulated, first = self._arrivals[0]
        frames = sum(nframes for _, _, nframes in self._arrivals) - first
        span = self._arrivals[-1][0] - start
        return Figures(
            self._simulated,
            frames / span,
            (self._arrivals[-1][1] - simulated) / span,
            self._delay,
        )


class Display(abc.ABC):
    """Where a stream is shown, from the first model until `close`."""

    @property
    @abc.abstractmethod
    def closed(self) -> bool:
        """Whether the person who watches wants no more."""

    @abc.abstractmethod
    def load(self, mjm: mujoco.MjModel, mjd: mujoco.MjData) -> None:
        """Show this model from now on. The state in `mjd` changes under the display's eyes."""

    @abc.abstractmethod
    def show(self, mjd: mujoco.MjData, figures: Figures, moved: bool) -> None:
        """Bring figures up to date and, if it `moved`, the picture."""

    @abc.abstractmethod
    def close(self) -> None: ...

    def __enter__(self) -> "Display":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class Lines(Display):
    """A line a second on stdout. Whoever closes the other end of it wants no more."""

    PERIOD = 1.0  # s

    def __init__(self) -> None:
        self._due = 0.0
        self._hung_up = False

    @property
    def closed(self) -> bool:
        return self._hung_up

    def load(self, mjm: mujoco.MjModel, mjd: mujoco.MjData) -> None:
        self._due = time.monotonic() + self.PERIOD

    def show(self, mjd: mujoco.MjData, figures: Figures, moved: bool) -> None:
        if not figures.connected or time.monotonic() < self._due:
            return
        self._due = max(self._due + self.PERIOD, time.monotonic())
        try:
            print(
                f"{figures.time:.3f} s  {figures.rate}  delay {figures.lateness}  "
                f"{mjd.ncon:,} contacts",
                flush=True,
            )
        except BrokenPipeError:
            self._hung_up = True
            # Python flushes stdout once more at exit, and would report the same again.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    def close(self) -> None: ...


class Window(Display):
    """MuJoCo's passive viewer. It draws in a thread of its own, from copies that `sync` makes."""

    OVERLAY_PERIOD = 0.25  # s: how often the figures change while nothing moves
    CLOSING = 10.0  # s: how long the drawing thread may take to end

    def __init__(self) -> None:
        check_window_possible()
        # Only here: it wants glfw, which a machine without a screen need not have.
        import mujoco.viewer

        self._launch = mujoco.viewer.launch_passive
        self._handle: mujoco.viewer.Handle | None = None
        self._threads: set[threading.Thread] = set()
        self._mjm: mujoco.MjModel | None = None
        self._overlay_due = 0.0

    @property
    def closed(self) -> bool:
        return self._handle is not None and not self._handle.is_running()

    def load(self, mjm: mujoco.MjModel, mjd: mujoco.MjData) -> None:
        """Open a window on this model; one that shows the very same model stays, camera and all."""
        if self.closed or (self._mjm is not None and same_model(self._mjm, mjm)):
            return
        self.close()
        others = set(threading.enumerate())
        try:
            self._handle = self._launch(mjm, mjd, show_left_ui=False, show_right_ui=False)
        except RuntimeError as error:  # on macOS, where only mjpython may open a window
            raise window_error(str(error)) from None
        self._threads = set(threading.enumerate()) - others
        self._mjm = mjm

    def show(self, mjd: mujoco.MjData, figures: Figures, moved: bool) -> None:
        if not moved and time.monotonic() < self._overlay_due:
            return
        self._overlay_due = time.monotonic() + self.OVERLAY_PERIOD
        values = (f"{figures.time:.3f} s", figures.rate, figures.lateness)
        # Closed by its user between two looks, the viewer's C++ half is gone.
        with contextlib.suppress(mujoco.UnexpectedError):
            self._handle.set_texts(
                (
                    mujoco.mjtFontScale.mjFONTSCALE_150,
                    mujoco.mjtGridPos.mjGRID_TOPLEFT,
                    "time\nrate\ndelay",
                    "\n".join(values),
                )
            )
            self._handle.sync()

    def close(self) -> None:
        """Close the window and wait for its thread: one that still draws at exit crashes."""
        if self._handle is None:
            return
        if self._handle.is_running():
            with contextlib.suppress(mujoco.UnexpectedError):
                self._handle.close()
        for thread in self._threads:
            thread.join(self.CLOSING)
        self._handle, self._mjm = None, None


def open_display(backend: str) -> Display:
    """The display of that name, one of `BACKENDS`.

    Raises:
      SettingError: this machine cannot open a window.
    """
    return Window() if backend == "native" else Lines()


def check_window_possible() -> None:
    """Open and close an invisible window.

    Raises:
      SettingError: it did not work; in one line, with the reason.
    """
    try:
        probe = subprocess.run(
            [sys.executable, "-c", WINDOW_PROBE], capture_output=True, text=True, timeout=30.0
        )
    except subprocess.TimeoutExpired:
        raise window_error("no answer from the display within 30 s") from None
    if probe.returncode:
        said = probe.stderr.strip().splitlines() or [f"exit status {probe.returncode}"]
        raise window_error(said[-1])


def window_error(reason: str) -> SettingError:
    return SettingError(
        "backend",
        f"native cannot open a window here: {reason}; "
        "--backend none prints a line a second instead",
    )


def same_model(one: mujoco.MjModel, other: mujoco.MjModel) -> bool:
    """Whether two models are the same, byte for byte."""

    def binary(mjm: mujoco.MjModel) -> npt.NDArray[np.uint8]:
        buffer = np.zeros(mujoco.mj_sizeModel(mjm), np.uint8)
        mujoco.mj_saveModel(mjm, None, buffer)
        return buffer

    return np.array_equal(binary(one), binary(other))
