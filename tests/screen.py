"""A virtual X screen: what is on it, and real keys and mouse events for the window on it."""

import subprocess
from pathlib import Path

import numpy as np
from PIL import Image
from watching import wait_until

from mjsim.model.files import REPOSITORY

ARTIFACTS = REPOSITORY / ".artifacts"  # screenshots, for people to look at
XWD_VERSION = 7


class Screen:
    """A virtual X screen. Its pixels are a file, in the format of xwd."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "Xvfb_screen0"
        self._server = subprocess.Popen(
            ["Xvfb", "-displayfd", "1", "-screen", "0", "1024x768x24", "-fbdir", str(folder)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.name = f":{self._server.stdout.readline().strip()}"

    def close(self) -> None:
        self._server.terminate()
        self._server.wait()
        self._server.stdout.close()

    def pixels(self) -> np.ndarray:
        """What is on the screen now, (height, width, 4)."""
        dump = b""

        def is_written() -> bool:
            # The server writes it anew, in the other byte order first, when its last client leaves.
            nonlocal dump
            dump = self._file.read_bytes()
            return np.frombuffer(dump, ">u4", 25)[1] == XWD_VERSION

        wait_until(is_written, "the screen is written")
        header = np.frombuffer(dump, ">u4", 25)
        height, bytes_per_line = int(header[5]), int(header[12])
        start = int(header[0] + 12 * header[19])  # after the header and the colour map
        return np.frombuffer(dump, np.uint8, height * bytes_per_line, start).reshape(height, -1, 4)

    def save(self, name: str) -> None:
        """Keep a screenshot among the artefacts."""
        ARTIFACTS.mkdir(exist_ok=True)
        height, width = self.window_size()
        blue_first = self.pixels()[:height, :width]
        Image.fromarray(blue_first[..., 2::-1].copy()).save(ARTIFACTS / f"{name}.png")

    def drawn(self) -> bool:
        """Whether there is a picture: many shades, where an empty screen has one."""
        return len(np.unique(self.pixels()[..., 1])) > 50

    def moved_since(self, before: np.ndarray) -> bool:
        """Whether something large is elsewhere: more has changed than some digits."""
        changed = np.abs(self.pixels().astype(int) - before.astype(int)).max(axis=2) > 30
        return changed[120:].sum() > 2000

    # ---------------------------------------------------------------------------- MuJoCo's window

    def press(self, *keys: str) -> None:
        """Press keys in the window, by their X names, such as ctrl+q."""
        self._xdotool(*self._WINDOW, "windowfocus", "key", *keys)

    def double_click(self, x: int, y: int) -> None:
        """Select the body there."""
        click = ("click", "--repeat", "2", "--delay", "60", "1")
        self._xdotool("mousemove", str(x), str(y), *click)

    def start_drag(self, x: int, y: int) -> None:
        """Take hold of the selected body: ctrl and the right button. No key works until its end."""
        self._xdotool("mousemove", str(x), str(y), "keydown", "ctrl", "sleep", "0.2")
        self._xdotool("mousedown", "3", "sleep", "0.2")

    def drag(self, x: int, y: int) -> None:
        """Go on with a drag, by so many pixels."""
        self._xdotool("mousemove_relative", "--", str(x), str(y))

    def end_drag(self) -> None:
        self._xdotool("mouseup", "3", "keyup", "ctrl")

    def window_size(self) -> tuple[int, int]:
        """Height and width of the window, which is at the top left."""
        told = self._xdotool(*self._WINDOW, "getwindowgeometry", "--shell")
        geometry = dict(line.split("=") for line in told.splitlines())
        return int(geometry["HEIGHT"]), int(geometry["WIDTH"])

    _WINDOW = ("search", "--onlyvisible", "--name", "MuJoCo")

    def _xdotool(self, *arguments: str) -> str:
        done = subprocess.run(
            ["xdotool", *arguments],
            env={"DISPLAY": self.name, "PATH": "/usr/bin:/bin"},
            check=True,
            capture_output=True,
            text=True,
            timeout=30.0,
        )
        return done.stdout
