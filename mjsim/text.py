"""Texts for people."""

import reprlib
from typing import Any


def printable(text: str) -> str:
    """A text that may come from elsewhere, without what could steer a terminal, and cut short."""
    return "".join(each if each.isprintable() else "?" for each in text[:500])


class _Repr(reprlib.Repr):
    """Bounded in width and depth, since what came may be a maze of tuples."""

    def repr_ndarray(self, value: Any, level: int) -> str:
        return f"<array of shape {value.shape} and dtype {value.dtype}>"


_REPR = _Repr()
_REPR.maxlevel, _REPR.maxstring, _REPR.maxother = 2, 60, 60


def shown(value: object) -> str:
    """A value from elsewhere as an error shows it: escaped, on one line, and cut short."""
    text = ascii(value[:60]) if isinstance(value, str) else _REPR.repr(value)
    text = text.encode("ascii", "backslashreplace").decode()
    return text if len(text) <= 160 else f"{text[:157]}..."


def kind_of(value: object) -> str:
    """What a value from elsewhere is, as an error says it: "a dict"."""
    return f"a {type(value).__name__.strip('_')}"
