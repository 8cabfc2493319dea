"""A real browser for the page's tests: Debian's headless Chromium, its pixels and its clicks.

Its screenshots stay in `.artifacts`, for people to look at.
"""

import io
import json
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image
from watching import TIMEOUT, wait_until

from benchmark.common.chromium import CHROMIUM, DRIVER, open_chromium
from mjsim.model.files import REPOSITORY

ARTEFACTS = REPOSITORY / ".artifacts"
SIZE = (900, 600)


class Browser:
    """A browser with one page.

    Args:
      folder: for its profile.
      size: of its window, pixels.
    """

    def __init__(self, folder: Path, size: tuple[int, int] = SIZE) -> None:
        for program, package in ((CHROMIUM, "chromium"), (DRIVER, "chromium-driver")):
            if not shutil.which(program):
                pytest.skip(f"no {program} on this machine (Debian: apt-get install {package})")
        self.driver = open_chromium(folder, size)

    def close(self) -> None:
        self.driver.quit()

    def open(self, port: int) -> None:
        """Load the page, and wait until there is a scene on it."""
        self.driver.get(f"http://127.0.0.1:{port}/")
        wait_until(lambda: self.button("Pause") or self.button("Go on"), "the panel is there")
        # viser warns of WebGL in software, over the scene; what notifications say can be read.
        self.driver.execute_script(
            "document.head.insertAdjacentHTML('beforeend', arguments[0])",
            "<style>[class*=Notifications-root] { opacity: 0 }</style>",
        )

    def text(self) -> str:
        """All that can be read on the page."""
        return self.driver.execute_script("return document.body.innerText")

    def button(self, label: str) -> bool:
        return self._find(label) is not None

    def _find(self, label: str) -> object:
        return self.driver.execute_script(
            "return [...document.querySelectorAll('button, label')]"
            ".find(each => each.innerText.trim() === arguments[0]) ?? null",
            label,
        )

    def click(self, label: str) -> None:
        """Click the button or tab of that name."""
        wait_until(lambda: self.button(label), f"there is {label!r}")
        self.driver.execute_script("arguments[0].click()", self._find(label))

    def pixels(self, name: str = "") -> np.ndarray:
        """The scene without the panel, shape (height, width, 3); the page is kept if named."""
        shot = self.driver.get_screenshot_as_png()
        if name:
            ARTEFACTS.mkdir(exist_ok=True)
            (ARTEFACTS / f"{name}.png").write_bytes(shot)
        image = np.asarray(Image.open(io.BytesIO(shot)).convert("RGB")).astype(int)
        width = self.driver.execute_script(
            "return document.querySelector('canvas').getBoundingClientRect().right"
        )
        return image[:, : int(width)]

    def centre(self, colour: str) -> tuple[float, float] | None:
        """Where on the scene a colour is, pixels from the left and top; None: not there."""
        return centre(self.pixels(), colour)

    def requests(self) -> list[str]:
        """The addresses asked for since the browser started, but for those of its own pages.

        These are at chrome:, chrome-untrusted: and the like, and come from no host.
        """
        entries = [
            json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")
        ]
        urls = [
            entry["params"]["request"]["url"]
            for entry in entries
            if entry["method"] == "Network.requestWillBeSent"
        ]
        return [url for url in urls if not is_of_chromium(url)]


def is_of_chromium(url: str) -> bool:
    """Whether an address is of a page of the browser's own."""
    return urlsplit(url).scheme.startswith("chrome")


def hosts(urls: Iterable[str]) -> set[str]:
    """The hosts that addresses name, also those within a page's own objects (blob:).

    What is written out in the address itself (data:, about:) comes from no host.
    """
    parts = [urlsplit(url.removeprefix("blob:")) for url in urls]
    return {it.hostname or it.geturl() for it in parts if it.scheme not in ("data", "about")}


def centre(pixels: np.ndarray, colour: str) -> tuple[float, float] | None:
    """Where a colour, "red" or "blue", stands out in a picture; None: nowhere."""
    main = {"red": 0, "blue": 2}[colour]
    others = [pixels[..., each] for each in range(3) if each != main]
    rows, columns = np.nonzero(pixels[..., main] > 60 + np.maximum(*others))
    return (float(columns.mean()), float(rows.mean())) if len(rows) > 100 else None


def settled(browser: Browser, condition: Callable[[np.ndarray], bool], what: str) -> np.ndarray:
    """Wait until the scene is twice the same and as it should be; that picture."""
    last = browser.pixels()

    def same() -> bool:
        nonlocal last
        before, last = last, browser.pixels()
        return np.array_equal(before, last) and condition(last)

    wait_until(same, what, 2 * TIMEOUT)
    return last
