"""Where the page is served: whether that is possible, and who else can reach it."""

import ipaddress
import socket

from mjsim.console import say
from mjsim.errors import SettingError
from mjsim.text import exposure_warning


def check_address(host: str, port: int) -> bool:
    """Whether other machines can reach an address, after a test that it can be served at.

    Args:
      host: address to serve at.
      port: port of the same.

    Raises:
      SettingError: it cannot be served at, where viser would hang.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SettingError("http_host", f"{host!r} does not resolve: {reason}") from error
    for family, _, _, _, address in found:
        try:
            socket.create_server(address, family=family).close()
        except OSError as error:
            raise port_error(host, port, error.strerror or str(error)) from error
    return any(
        not ipaddress.ip_address(str(address[0]).partition("%")[0]).is_loopback
        for *_, address in found
    )


def port_error(host: str, port: int, reason: str) -> SettingError:
    return SettingError("http_port", f"{port} at {host} cannot be used: {reason}; choose another")


def report_address(host: str, port: int, strangers: bool) -> None:
    """Say where the page is, and who else may see it."""
    name = socket.gethostname()
    anywhere = host in ("0.0.0.0", "::", "")
    address = f"[{host}]" if ":" in host else host
    say(f"the page is at http://{name if anywhere else address}:{port}")
    if strangers:
        who = "open to anyone who reaches the port, buttons and all"
        rather = "serve it at 127.0.0.1 and let browsers' machines run"
        say(exposure_warning("the page", host, port, who, rather))
