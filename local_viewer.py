"""Watch a simulation that streams its state, in MuJoCo's window or as lines of text.

    python local_viewer.py                    # a server on this machine, or behind ssh -L
    python local_viewer.py --backend none     # no window: a line a second on stdout

Comes back after a dropped connection and shows the next run when the server starts again. Exit
status: 0 window closed, Ctrl-C, SIGTERM, or the stream has ended and --once was given; 2 wrong use,
or no window can be opened here.
"""

import dataclasses
import os
import sys
import time

import click
import mujoco

import settings
from recording import RunsRecorder
from stop_signals import StopSignals
from streaming import MODEL_KINDS, ProtocolError, StreamClient, apply_mjdata, load_model
from viewing import BACKENDS, Display, Meter, open_display

# What MuJoCo makes of a model or a state that is well-formed and still more than it can take.
MUJOCO_ERRORS = (mujoco.FatalError, mujoco.UnexpectedError, RuntimeError, MemoryError)

LOOK_SECONDS = 0.02  # how often to look whether the window was closed while nothing arrives


@dataclasses.dataclass(frozen=True)
class ViewerSettings:
    """Whom to watch, and how.

    MJSTREAM_TOKEN has no flag, since other users of a machine can read a command line.
    """

    host: str = settings.setting(
        "127.0.0.1", "--host", "MJSTREAM_HOST", "Address of the server, or of the tunnel to it."
    )
    port: int = settings.setting(
        7000, "--port", "MJSTREAM_PORT", "Port of it.", type=click.IntRange(1, 65535)
    )
    retry_delay: float = settings.setting(
        2.0,
        "--retry-delay",
        "MJSTREAM_RETRY_DELAY",
        "Seconds between two attempts to connect.",
        type=click.FloatRange(min=0.0),
    )
    backend: str = settings.setting(
        "native",
        "--backend",
        "MJSTREAM_BACKEND",
        "native: MuJoCo's window; none: a line a second on stdout.",
        type=click.Choice(BACKENDS),
    )
    once: bool = settings.setting(
        False,
        "--once",
        "MJSTREAM_ONCE",
        "End with the stream instead of waiting for the next run.",
        is_flag=True,
    )
    record: str | None = settings.setting(
        None,
        "--record",
        "MJSTREAM_RECORD",
        "Record what is shown to a file (MCAP), which must not exist; the next run to FILE-2.",
        metavar="FILE",
    )


class Watch:
    """Follows a server from connection to connection and shows what it sends.

    Args:
      chosen: whom to watch.
      display: where to show it.
      signals: what ends it, beside the user of the display.
      token: the secret to answer with if the server asks for one.
    """

    def __init__(
        self,
        chosen: ViewerSettings,
        display: Display,
        signals: StopSignals,
        token: str | None = None,
    ) -> None:
        self._chosen, self._display, self._signals = chosen, display, signals
        self._token = token
        self._mjm: mujoco.MjModel | None = None
        self._mjd: mujoco.MjData | None = None
        self._run: object = None
        self._meter = Meter()
        self._told = ""
        self._recorder: RunsRecorder | None = None
        if chosen.record:
            server = {"server": f"{chosen.host}:{chosen.port}"}
            self._recorder = RunsRecorder(chosen.record, server, self._tell)

    @property
    def _over(self) -> bool:
        return self._signals.received is not None or self._display.closed

    def follow(self) -> None:
        """Connect, show, and again, until the user or (with `once`) the end of a stream says so."""
        try:
            self._follow()
        finally:
            if self._recorder:
                self._recorder.close()

    def _follow(self) -> None:
        ended = False
        while not self._over and not (ended and self._chosen.once):
            try:
                with self._connect() as client:
                    self._meter = Meter()
                    ended = self._show_stream(client)
                    reason = "the run has ended"
            except (OSError, ProtocolError, *MUJOCO_ERRORS) as error:
                reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            if not self._over and not (ended and self._chosen.once):
                self._tell(f"{reason}; trying every {self._chosen.retry_delay:g} s")
                self._pause()

    def _connect(self) -> StreamClient:
        chosen, signals = self._chosen, self._signals
        signals.waits = True
        try:
            return StreamClient.connect(chosen.host, chosen.port, self._token)
        except OSError as error:
            reason = error.strerror or str(error)
            raise ConnectionError(f"no server at {chosen.host}:{chosen.port}: {reason}") from None
        finally:
            signals.waits = False

    def _show_stream(self, client: StreamClient) -> bool:
        """Show a connection; True when the server has closed the stream, False on user's wish."""
        have_model = False
        while not self._over:
            try:
                packets = client.drain(LOOK_SECONDS)
            except ConnectionError as error:
                hint = "" if have_model else ", before a model came: is MJSTREAM_TOKEN the same?"
                raise ConnectionError(f"{error}{hint}") from None
            moved = False
            for packet in packets:
                if packet["kind"] in MODEL_KINDS:
                    self._load(packet)
                    have_model = True
                elif packet["kind"] == "close":
                    if not have_model:
                        raise ConnectionError("the server takes no more viewers")
                    return True
                elif not have_model:
                    raise ProtocolError("the server sent a state before its model")
                else:
                    self._apply(packet, 1 + client.skipped)
                    client.skipped = 0
                    moved = True
            if have_model:
                self._display.show(self._mjd, self._meter.figures(), moved)
        return False

    def _load(self, packet: dict) -> None:
        mjm = load_model(packet)
        mjd = mujoco.MjData(mjm)
        mujoco.mj_forward(mjm, mjd)
        same_run = packet.get("run") is not None and packet["run"] == self._run
        opening = "the same run goes on" if same_run else "a new run" if self._mjm else "connected"
        name = mjm.names.partition(b"\0")[0].decode(errors="replace")
        self._tell(f"{opening}: {name or 'a model'}, {mjm.nbody} bodies")
        self._display.load(mjm, mjd)
        self._mjm, self._mjd, self._run = mjm, mjd, packet.get("run")
        if self._recorder and not same_run:
            self._recorder.begin(packet)

    def _apply(self, packet: dict, nframes: int) -> None:
        apply_mjdata(self._mjd, packet.get("state"))
        if self._recorder:
            step = packet.get("step")
            self._recorder.write(self._mjd, step if isinstance(step, int) else 0)
        sent = packet.get("sent")
        self._meter.note(self._mjd.time, sent if isinstance(sent, float) else None, nframes)
        mujoco.mj_forward(self._mjm, self._mjd)

    def _pause(self) -> None:
        """Wait before the next attempt, with the window alive."""
        until = time.monotonic() + self._chosen.retry_delay
        while not self._over and time.monotonic() < until:
            if self._mjd is not None:
                figures = dataclasses.replace(self._meter.figures(), connected=False)
                self._display.show(self._mjd, figures, moved=False)
            time.sleep(min(LOOK_SECONDS, self._chosen.retry_delay))

    def _tell(self, text: str) -> None:
        """Say it on stderr, once: a server that is away for an hour is one line.

        Parts of it may come from the wire: what could steer a terminal does not get there.
        """
        if text == self._told:
            return
        self._told = text
        shown = "".join(each if each.isprintable() else "?" for each in text[:500])
        print(f"local_viewer.py: {shown}", file=sys.stderr, flush=True)


def main(chosen: ViewerSettings) -> int:
    try:
        with StopSignals() as signals, open_display(chosen.backend) as display:
            token = os.environ.get("MJSTREAM_TOKEN")
            Watch(chosen, display, signals, token).follow()
    except KeyboardInterrupt:
        pass
    return 0


if __name__ == "__main__":
    settings.run(ViewerSettings, main, description=__doc__.split("\n\n")[0])
