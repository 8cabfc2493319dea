"""What a headless run streams, records and writes, beside what it simulates."""

import dataclasses

import click

from mjsim import options
from mjsim.choices import MODEL_MODES
from mjsim.run.settings import RunSettings


@dataclasses.dataclass(frozen=True)
class HeadlessSettings(RunSettings):
    """A run, and where its state and its summary go."""

    host: str = options.setting(
        "127.0.0.1", "--host", "MJSTREAM_HOST", "Address to stream the state from."
    )
    port: int = options.setting(
        7000, "--port", "MJSTREAM_PORT", "Port to stream the state from; 0 or less: no streaming."
    )
    stream_hz: float = options.setting(
        60.0,
        "--stream-hz",
        "MJSTREAM_HZ",
        "States to stream per second, at most; 0: every one there is.",
        type=click.FloatRange(min=0.0),
    )
    stream_wait: float | None = options.setting(
        None,
        "--stream-wait",
        "MJSTREAM_WAIT",
        "Seconds to wait for the first viewer; 0: do not wait.  [default: until one comes]",
        type=click.FloatRange(min=0.0),
    )
    stream_world: int = options.setting(
        0,
        "--stream-world",
        "MJSTREAM_WORLD",
        "World to record, and to stream until a viewer asks for another.",
        type=click.IntRange(min=0),
    )
    stream_model: str = options.setting(
        "xml",
        "--stream-model",
        "MJSTREAM_MODEL",
        "What viewers get: the model itself (xml), or its path where they share the disk (path).",
        type=click.Choice(MODEL_MODES),
    )
    realtime: bool = options.setting(
        True,
        "--realtime/--no-realtime",
        "MJSIM_REALTIME",
        "While somebody is watching, go no faster than real time.",
    )
    record: str | None = options.setting(
        None,
        "--record",
        "MJSIM_RECORD",
        "Record the run to a file (MCAP), which must not exist.",
        metavar="FILE",
    )
    record_hz: float = options.setting(
        60.0,
        "--record-hz",
        "MJSIM_RECORD_HZ",
        "States to record per second of simulated time; 0: every one.",
        type=click.FloatRange(min=0.0),
    )
    dump: bool = options.setting(
        True,
        "--dump/--no-dump",
        "MJSIM_DUMP",
        "When a world diverges, keep the last second before it as a recording.",
    )
    json: str | None = options.setting(
        None,
        "--json",
        "MJSIM_JSON",
        "Write the summary to a file, for other programs.",
        metavar="FILE",
    )
