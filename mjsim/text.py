"""Texts for people."""

import reprlib
import socket
import sys
from typing import Any


def printable(text: str) -> str:
    """A text that may come from elsewhere, without what could steer a terminal, and cut short."""
    return "".join(each if each.isprintable() else "?" for each in text[:500])


def print_line(text: str) -> None:
    """Print a line on stderr at once: how a library tells who has not said how to be told."""
    print(text, file=sys.stderr, flush=True)


def install_line(extra: str) -> str:
    """How to install what an extra of this package brings, such as "web"."""
    return f"pip install 'comfree-warp[{extra}]' (in a clone: make venv)"


def exposure_warning(what: str, host: str, port: int, who: str, rather: str) -> str:
    """The warning about an address that other machines can reach.

    Args:
      what: is served there, such as "the stream".
      host: address it is served at.
      port: port of the same.
      who: may do what with it.
      rather: what to do instead, of which a tunnel is a part.
    """
    tunnel = f"ssh -N -L {port}:127.0.0.1:{port} {socket.gethostname()}"
    return f"warning: {what} at {host}:{port} is not encrypted and {who}; rather {rather}: {tunnel}"


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
