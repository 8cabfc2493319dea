"""A headless Chromium with Debian's driver, for the page's measurements and its tests."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mjsim.errors import SettingError

if TYPE_CHECKING:  # else only where it is used, since most benchmarks do without Selenium
    from selenium import webdriver

CHROMIUM, DRIVER = "/usr/bin/chromium", "/usr/bin/chromedriver"
# Root in a container has no sandbox, a machine without a GPU draws WebGL with SwiftShader, and
# the rest keeps Chromium from talking to its makers.
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
# What a browser says first: from where it looks.
HELLO = {
    "type": "ViewerCameraMessage",
    "wxyz": (1.0, 0.0, 0.0, 0.0),
    "position": (2.0, 0.0, 1.0),
    "fov": 1.0,
    "near": 0.01,
    "far": 1000.0,
    "image_height": 600,
    "image_width": 800,
    "look_at": (0.0, 0.0, 0.0),
    "up_direction": (0.0, 0.0, 1.0),
}


def open_chromium(profile: Path, size: tuple[int, int]) -> webdriver.Chrome:
    """A browser with one empty page, which tells what it asks for in its performance log.

    Args:
      profile: a folder for its profile.
      size: of its window, pixels.

    Raises:
      SettingError: Chromium or its driver is missing.
    """
    for path, package in ((CHROMIUM, "chromium"), (DRIVER, "chromium-driver")):
        if not Path(path).exists():
            raise SettingError("browser", f"no {path} here (Debian: apt-get install {package})")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--window-size={size[0]},{size[1]}", f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    service = webdriver.ChromeService(DRIVER)
    try:
        return webdriver.Chrome(options, service)
    except BaseException:  # such as Ctrl-C in a benchmark, while the browser starts
        service.stop()
        raise
