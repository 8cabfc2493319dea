"""Draws the report's plots, as SVG to put into a page.

matplotlib, because its SVG is a picture: a page with dozens of plots needs no script, and stays
under a few MB, where plotly brings 4 MB of JavaScript.
"""

import io
import math
import re
from collections.abc import Mapping, Sequence
from types import ModuleType

from benchmark.common.measuring import ResultRow
from benchmark.report.standings import Curves, label_of
from mjsim.errors import SettingError

# Okabe and Ito's colours, which the colour-blind can tell apart.
COLOURS = {
    "mjc": "#0072b2",
    "mjwarp": "#e08700",
    "comfree-paper": "#008a64",
    "comfree-warm": "#b5549b",
}
MORE_COLOURS = ("#7f3c00", "#5b5b5b", "#56b4e9", "#a3a300", "#7a4fd0")
MARKERS = {"mjc": "o", "mjwarp": "s", "comfree-paper": "D", "comfree-warm": "v"}
WIDTH = 4.6  # inches, of a panel


def colour_of(labels: Sequence[str]) -> dict[str, str]:
    """A colour per label: one per contender, whatever the device."""
    contenders = list(dict.fromkeys(label.partition(" on ")[0] for label in labels))
    others = [name for name in contenders if name not in COLOURS]
    more = {name: MORE_COLOURS[i % len(MORE_COLOURS)] for i, name in enumerate(others)}
    return {label: (COLOURS | more)[label.partition(" on ")[0]] for label in labels}


def _pyplot() -> ModuleType:
    try:
        import matplotlib
    except ImportError as error:
        raise SettingError(
            "report", f"plots want matplotlib ({error}): make venv (or pip install -e '.[bench]')"
        ) from None
    matplotlib.use("Agg")
    from matplotlib import pyplot

    pyplot.rcParams.update(
        {
            "svg.fonttype": "none",  # text that can be searched, in the page's font
            "svg.hashsalt": "report",
            "text.parse_math": False,  # a name may hold a dollar sign
            "font.family": "sans-serif",
            "font.size": 9,
            "axes.titlesize": 10,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "grid.color": "#e4e4e4",
            "figure.constrained_layout.h_pad": 0.1,
            "figure.constrained_layout.w_pad": 0.1,
        }
    )
    return pyplot


def _svg(pyplot: ModuleType, figure: object) -> str:
    """The figure as an SVG element, which refers to nothing outside itself."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    pyplot.close(figure)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    return text.replace("<svg", '<svg role="img"', 1)


def _style(label: str, colours: Mapping[str, str]) -> dict[str, object]:
    contender, _, device = label.partition(" on ")
    return {
        "color": colours[label],
        "marker": MARKERS.get(contender.partition(" ")[0], "^"),
        "linestyle": "--" if device else "-",
        "markersize": 4.5,
        "linewidth": 1.4,
    }


def _plain(axes: object) -> None:
    """Logarithmic axes whose numbers are plain: 0.01, 1, 1,000."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    for axis in (axes.xaxis, axes.yaxis):
        low, high = axis.get_view_interval()
        decades = math.log10(high / low) if low > 0 else 9
        subs = (1.0, 2.0, 5.0) if decades < 2 else (1.0,)
        axis.set_major_locator(LogLocator(subs=subs, numticks=7))
        axis.set_major_formatter(FuncFormatter(_tick))
        axis.set_minor_formatter(NullFormatter())


def _tick(value: float, _: object = None) -> str:
    return f"{value:,.0f}" if 1 <= value < 1e6 and value == round(value) else f"{value:g}"


# ---------------------------------------------------------------------------- error against cost


def draw_curves(found: Sequence[Curves], colours: Mapping[str, str]) -> str:
    """The curves of a scene: a panel per quantity that shows an error."""
    pyplot = _pyplot()
    columns = min(2, len(found))
    lines = -(-len(found) // columns)
    figure, all_axes = pyplot.subplots(
        lines, columns, squeeze=False, figsize=(WIDTH * columns, 3.5 * lines), layout="constrained"
    )
    for axes in all_axes.flat[len(found) :]:
        axes.set_axis_off()
    for axes, curve in zip(all_axes.flat, found, strict=False):
        _draw_panel(axes, curve, colours)
    return _svg(pyplot, figure)


def _draw_panel(axes: object, curve: Curves, colours: Mapping[str, str]) -> None:
    scale = 100 if curve.unit == "%" else 1
    floor = curve.floor * scale
    lowest = False
    for number, (label, points) in enumerate(curve.points.items()):
        drawn = [point for point in points if point.error is not None and point.cost]
        if not drawn:
            continue
        x = [point.cost for point in drawn]
        y = [max(point.error * scale, floor) for point in drawn]
        style = _style(label, colours)
        axes.plot(x, y, label=label, alpha=0.9, **style)
        none = [i for i, point in enumerate(drawn) if point.error * scale <= floor]
        lowest = lowest or bool(none)
        axes.plot(
            [x[i] for i in none],
            [y[i] for i in none],
            **{**style, "linestyle": "", "markerfacecolor": "white"},
        )
        for point, px, py in zip(drawn, x, y, strict=True):
            # Two engines often agree to a hair: their labels are above, below, and further off.
            axes.annotate(
                f"{1000 * point.timestep:g}",
                (px, py),
                xytext=(0, (5, -11, 13, -19)[number % 4]),
                textcoords="offset points",
                ha="center",
                fontsize=7,
                color=style["color"],
            )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.margins(0.1, 0.18)
    low, high = axes.get_ylim()
    if high / low < 10:  # else noise fills the panel
        middle = math.sqrt(low * high)
        axes.set_ylim(middle / 4, middle * 4)
    _plain(axes)
    if lowest:
        axes.axhline(floor, color="#666", linewidth=1.0, linestyle=":", zorder=0)
    unit = curve.unit or "fraction"
    axes.set_title(curve.quantity, loc="left")
    axes.set_ylabel(f"error, {unit}")
    axes.set_xlabel("cost, s of wall time per simulated s")


# ---------------------------------------------------------------------------------------- scaling


def draw_scaling(fits: Sequence[ResultRow], colours: Mapping[str, str]) -> str:
    """Time per step over contacts or worlds: a panel per scene, with the fitted slopes."""
    pyplot = _pyplot()
    contacts = fits[0]["against"] == "contacts"
    scenes = list(dict.fromkeys(fit["scene"] for fit in fits))
    columns = min(3 if len(scenes) > 4 else 2, len(scenes))
    lines = -(-len(scenes) // columns)
    width = WIDTH if columns < 3 else 3.4
    figure, all_axes = pyplot.subplots(
        lines,
        columns,
        squeeze=False,
        figsize=(width * columns, 0.75 * width * lines),
        layout="constrained",
    )
    for axes in all_axes.flat[len(scenes) :]:
        axes.set_axis_off()
    for axes, scene in zip(all_axes.flat, scenes, strict=False):
        for fit in fits:
            if fit["scene"] == scene:
                label = label_of(fit)
                x, y = zip(*fit["points"], strict=True)
                fitted = fit["fit_from_100"] or fit["fit"]
                few = contacts and not fit["fit_from_100"]
                told = f"{label}: {fitted['slope']:.2f}{' (all sizes)' if few else ''}"
                axes.plot(x, [1e3 * v for v in y], label=told, **_style(label, colours))
        axes.set_xscale("log")
        axes.set_yscale("log")
        _plain(axes)
        axes.set_title(scene, loc="left")
        axes.set_xlabel("contacts" if contacts else "worlds")
        axes.set_ylabel("ms per step")
        axes.legend(title="slope from 100 on" if contacts else "slope", frameon=False, fontsize=8)
    return _svg(pyplot, figure)
