"""Whom to watch: settings of `mjsim watch`."""

import dataclasses
from typing import Any

import click

from mjsim import options


def once_setting() -> Any:
    """The setting `once`, which watching a stream and playing a recording have in common."""
    return options.setting(
        False,
        "--once",
        "MJSTREAM_ONCE",
        "End with the stream, or the recording, instead of waiting there.",
        is_flag=True,
    )


@dataclasses.dataclass(frozen=True)
class WatchSettings:
    """Whom to watch, and how."""

    host: str = options.setting(
        "127.0.0.1", "--host", "MJSTREAM_HOST", "Address of the server, or of the tunnel to it."
    )
    port: int = options.setting(
        7000, "--port", "MJSTREAM_PORT", "Port of it.", type=click.IntRange(1, 65535)
    )
    retry_delay: float = options.setting(
        2.0,
        "--retry-delay",
        "MJSTREAM_RETRY_DELAY",
        "Seconds between two attempts to connect.",
        type=click.FloatRange(min=0.0),
    )
    once: bool = once_setting()
    record: str | None = options.setting(
        None,
        "--record",
        "MJSTREAM_RECORD",
        "Record the stream to a file (MCAP), which must not exist; the next run to FILE-2.",
        metavar="FILE",
    )
