"""The panel of the page: how the run does, buttons for what is offered, and plots."""

import collections
import html
import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import viser

from mjsim.view.controls import SPEEDS, Controls
from mjsim.view.display import Status

PANEL_PERIOD = 0.25  # s: how often the rows change
PLOT_SECONDS = 30.0  # how far back a plot goes
HANDS_OFF = 1.0  # s: the seek slider stays where its user moved it that long


class Panel:
    """The upper half of the panel, and the tabs in which the page puts the lower one.

    Args:
      server: of the page.
      controls: where the buttons leave what a person asks for.

    Attributes:
      tabs: the group of tabs, of which "Plots" is the first.
    """

    def __init__(self, server: viser.ViserServer, controls: Controls) -> None:
        self._gui, self._controls = server.gui, controls
        self._due = 0.0
        self._notice = self._gui.add_html("", visible=False)
        self._rows = self._gui.add_html("")
        self._follow: list[Callable[[Status], None]] = []
        for offer, build in (
            ("pause", self._build_pause),
            ("step", self._build_step),
            ("reset", self._build_reset),
            ("speed", self._build_speed),
            ("seek", self._build_seek),
            ("world", self._build_world),
        ):
            if offer in controls.offers:
                build()
        self.tabs = self._gui.add_tab_group()
        self._plots: dict[str, _Plot] = {}
        self._tab = self.tabs.add_tab("Plots")

    def _build_pause(self) -> None:
        controls = self._controls
        button = self._gui.add_button("Pause")
        button.on_click(lambda event: controls.toggle_pause())

        def follow(status: Status) -> None:
            button.label = "Go on" if controls.paused else "Pause"
            icon = viser.Icon.PLAYER_PLAY if controls.paused else viser.Icon.PLAYER_PAUSE
            if button.icon != icon:
                button.icon = icon

        self._follow.append(follow)

    def _build_step(self) -> None:
        button = self._gui.add_button("One step", icon=viser.Icon.PLAYER_TRACK_NEXT)
        button.on_click(lambda event: self._controls.step())
        if "seek" in self._controls.offers:
            button = self._gui.add_button("One step back", icon=viser.Icon.PLAYER_TRACK_PREV)
            button.on_click(lambda event: self._controls.step(-1))

    def _build_reset(self) -> None:
        button = self._gui.add_button("Back to the start", icon=viser.Icon.PLAYER_SKIP_BACK)
        button.on_click(lambda event: self._controls.reset())

    def _build_speed(self) -> None:
        controls = self._controls
        names = {
            f"{speed:g}x" if speed >= 1 else f"1/{round(1 / speed)}x": speed for speed in SPEEDS
        }
        dropdown = self._gui.add_dropdown("Speed", list(names), initial_value="1x")

        def change(event: viser.GuiEvent) -> None:
            if event.client_id is not None:
                controls.speed = names[event.target.value]

        dropdown.on_update(change)

        def follow(status: Status) -> None:
            name = min(names, key=lambda name: abs(names[name] - controls.speed))
            _set_value(dropdown, name)

        self._follow.append(follow)

    def _build_seek(self) -> None:
        controls = self._controls
        if not controls.duration > 0.0:
            return
        slider = self._gui.add_slider("Position, s", 0.0, controls.duration, 0.01, 0.0)
        moved = -math.inf

        def seek(event: viser.GuiEvent) -> None:
            nonlocal moved
            if event.client_id is not None:  # else it is `follow` that moved it
                moved = time.monotonic()
                controls.seek(event.target.value)

        slider.on_update(seek)

        def follow(status: Status) -> None:
            position = min(max(round(status.position, 2), 0.0), controls.duration)
            if time.monotonic() > moved + HANDS_OFF:
                _set_value(slider, position)

        self._follow.append(follow)

    def _build_world(self) -> None:
        controls = self._controls
        if controls.nworld < 2:
            return
        slider = self._gui.add_slider("World", 0, controls.nworld - 1, 1, controls.world)

        def choose(event: viser.GuiEvent) -> None:
            if event.client_id is not None:
                controls.world = event.target.value

        slider.on_update(choose)

        def follow(status: Status) -> None:
            _set_value(slider, controls.world)

        self._follow.append(follow)

    def update(self, status: Status, notice: str) -> None:
        """Bring all of it up to date; what has not changed is not sent."""
        for follow in self._follow:
            follow(status)
        shown = _NOTICE.format(html.escape(notice)) if notice else ""
        if self._notice.content != shown:
            self._notice.content = shown
            self._notice.visible = bool(notice)
            self._due = 0.0
        if time.monotonic() < self._due:
            return
        self._due = time.monotonic() + PANEL_PERIOD
        self._rows.content = _table(status.rows)
        for name, value in status.plots.items():
            if name not in self._plots:
                with self._tab:
                    self._plots[name] = _Plot(self._gui, name)
            self._plots[name].add(value)


def _set_value(handle: Any, value: object) -> None:
    """Let a slider or dropdown show a value; viser's types say wrongly that it can only be read."""
    if handle.value != value:
        handle.value = value


class _Plot:
    """A number over the last seconds."""

    def __init__(self, gui: viser.GuiApi, name: str) -> None:
        self._values: collections.deque[tuple[float, float]] = collections.deque()
        grey = "#9aa4b2"
        axis = viser.uplot.Axis(stroke=grey, grid={"stroke": "#3a404a", "width": 1})
        self._handle = gui.add_uplot(
            (np.array([-PLOT_SECONDS, 0.0]), np.array([0.0, 0.0])),
            (viser.uplot.Series(label="s"), viser.uplot.Series(label=name, stroke="#4287f5")),
            title=name,
            scales={"x": viser.uplot.Scale(time=False, range=(-PLOT_SECONDS, 0.0))},
            axes=(axis, axis),
            legend=viser.uplot.Legend(show=False),
            height=130,
        )

    def add(self, value: float) -> None:
        now = time.monotonic()
        self._values.append((now, value))
        while self._values[0][0] < now - PLOT_SECONDS:
            self._values.popleft()
        times, values = np.array(self._values, float).T
        self._handle.data = (times - now, values)


_NOTICE = (
    '<div style="margin: 0.5em 1em; padding: 0.5em 0.75em; border-radius: 4px; '
    'background: #b35900; color: white; font-weight: 600">{}</div>'
)


def _table(rows: Mapping[str, str]) -> str:
    cells = "".join(
        f'<tr><td style="opacity: 0.65; padding-right: 1em">{html.escape(name)}</td>'
        f"<td>{html.escape(value)}</td></tr>"
        for name, value in rows.items()
    )
    style = "margin: 0.5em 1em; font-size: 0.85em; font-variant-numeric: tabular-nums"
    return f'<table style="{style}">{cells}</table>'
