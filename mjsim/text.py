"""Texts for people."""


def printable(text: str) -> str:
    """A text that may come from elsewhere, without what could steer a terminal, and cut short."""
    return "".join(each if each.isprintable() else "?" for each in text[:500])


def install_line(extra: str) -> str:
    """How to install what an extra of this package brings, such as "web"."""
    return f"pip install 'comfree-warp[{extra}]' (in a clone: make venv)"
