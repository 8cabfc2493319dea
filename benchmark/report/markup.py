"""HTML elements, in which all text is escaped that is not markup already."""

import html
from collections.abc import Iterable, Sequence


class Markup(str):
    """Text that is HTML already; all other text is escaped on its way into an element."""


def element(tag: str, *children: object, **attributes: object) -> Markup:
    """An HTML element; `class_` is the attribute class."""
    told = "".join(
        f' {name.rstrip("_")}="{html.escape(str(value))}"' for name, value in attributes.items()
    )
    return Markup(f"<{tag}{told}>{''.join(map(_escaped, children))}</{tag}>")


def _escaped(child: object) -> str:
    return child if isinstance(child, Markup) else html.escape(str(child))


def joined(parts: Iterable[object]) -> Markup:
    return Markup("".join(map(_escaped, parts)))


def table(head: Sequence[object], lines: Iterable[Sequence[object]], class_: str = "") -> Markup:
    """Cells that are no td yet become one."""
    body = joined(
        element("tr", *(it if _is_cell(it) else element("td", it) for it in line)) for line in lines
    )
    heads = [it if _is_cell(it) else element("th", it) for it in head]
    return element(
        "div",
        element(
            "table", element("thead", element("tr", *heads)), element("tbody", body), class_=class_
        ),
        class_="wide",
    )


def _is_cell(it: object) -> bool:
    return isinstance(it, Markup) and it.startswith(("<td", "<th"))


def bullets(lines: Iterable[object]) -> Markup:
    return element("ul", *(element("li", line) for line in lines))
