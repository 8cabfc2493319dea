"""Where a scene is shown: the settings that all viewers share."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import click

from mjsim import options
from mjsim.choices import BACKENDS

if TYPE_CHECKING:
    from mjsim.view.display import Display


@dataclasses.dataclass(frozen=True)
class DisplaySettings:
    """On what a scene is shown."""

    backend: str = options.setting(
        "native",
        "--backend",
        "MJSTREAM_BACKEND",
        "native: MuJoCo's window; web: a page for browsers; none: a line a second on stdout.",
        type=click.Choice(BACKENDS),
    )
    http_host: str = options.setting(
        "127.0.0.1", "--http-host", "MJSTREAM_HTTP_HOST", "Address to serve the page at (web)."
    )
    http_port: int = options.setting(
        8080,
        "--http-port",
        "MJSTREAM_HTTP_PORT",
        "Port to serve the page at (web).",
        type=click.IntRange(1, 65535),
    )

    def open_display(self) -> Display:
        """Open it.

        Raises:
          SettingError: this machine cannot open a window, or cannot serve the page.
        """
        # Only here: a machine without a screen or a browser need not have what these want.
        if self.backend == "native":
            from mjsim.view.window import Window

            return Window()
        if self.backend == "web":
            from mjsim.view.web.page import WebPage

            return WebPage(self.http_host, self.http_port)
        from mjsim.view.lines import Lines

        return Lines()
