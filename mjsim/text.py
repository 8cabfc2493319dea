"""Texts for people."""

import socket


def printable(text: str) -> str:
    """A text that may come from elsewhere, without what could steer a terminal, and cut short."""
    return "".join(each if each.isprintable() else "?" for each in text[:500])


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
