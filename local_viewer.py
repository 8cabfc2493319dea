"""Watch a simulation that streams its state, in MuJoCo's window, a browser or as lines of text.

    python local_viewer.py                    # a server on this machine, or behind ssh -L
    python local_viewer.py --backend web      # a page at http://127.0.0.1:8080
    python local_viewer.py --backend none     # a line a second on stdout

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
from stop_signals import StopSignals
from streaming import MODEL_KINDS, ProtocolError, StreamClient, apply_mjdata, load_model
from view_settings import ViewSettings
from viewing import Controls, Display, Meter, Status, same_model

# What MuJoCo makes of a model or a state that is well-formed and still more than it can take.
MUJOCO_ERRORS = (mujoco.FatalError, mujoco.UnexpectedError, RuntimeError, MemoryError)

LOOK_SECONDS = 0.02  # how often to look whether the window was closed while nothing arrives


@dataclasses.dataclass(frozen=True)
class ViewerSettings(ViewSettings):
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
    once: bool = settings.setting(
        False,
        "--once",
        "MJSTREAM_ONCE",
        "End with the stream instead of waiting for the next run.",
        is_flag=True,
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
        self._controls = Controls(offers=["pause"])
        self._meter = Meter()
        self._told = ""

    @property
    def _over(self) -> bool:
        return self._signals.received is not None or self._display.closed

    def follow(self) -> None:
        """Connect, show, and again, until the user or (with `once`) the end of a stream says so."""
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
                elif not self._controls.paused:
                    self._apply(packet, 1 + client.skipped)
                    client.skipped = 0
                    moved = True
            if have_model:
                self._display.show(self._status(), moved)
        return False

    def _load(self, packet: dict) -> None:
        mjm = load_model(packet)
        same_run = packet.get("run") is not None and packet["run"] == self._run
        opening = "the same run goes on" if same_run else "a new run" if self._mjm else "connected"
        name = mjm.names.partition(b"\0")[0].decode(errors="replace")
        self._tell(f"{opening}: {name or 'a model'}, {mjm.nbody} bodies")
        self._run = packet.get("run")
        if self._mjm is not None and same_model(self._mjm, mjm):
            return  # what shows it stays, camera and all
        mjd = mujoco.MjData(mjm)
        mujoco.mj_forward(mjm, mjd)
        self._mjm, self._mjd = mjm, mjd
        self._display.load(mjm, [mjd], self._controls)

    def _apply(self, packet: dict, nframes: int) -> None:
        apply_mjdata(self._mjd, packet.get("state"))
        sent, step = packet.get("sent"), packet.get("step")
        self._meter.note(
            self._mjd.time,
            sent if isinstance(sent, float) else None,
            nframes,
            step if isinstance(step, int) else None,
        )
        mujoco.mj_forward(self._mjm, self._mjd)

    def _status(self, connected: bool = True) -> Status:
        figures = self._meter.figures()
        rows = {**figures.rows, "contacts": f"{self._mjd.ncon:,}"}
        plots = {"contacts": float(self._mjd.ncon)}
        if figures.step_time is not None:
            plots["wall time per step, ms"] = 1e3 * figures.step_time
        if not connected:
            rows["rate"] = "no connection"
        elif self._controls.paused:
            rows["rate"] = "paused"
        return Status(rows, plots, notice="" if connected else self._told)

    def _pause(self) -> None:
        """Wait before the next attempt, with the window alive."""
        until = time.monotonic() + self._chosen.retry_delay
        while not self._over and time.monotonic() < until:
            if self._mjd is not None:
                self._display.show(self._status(connected=False), moved=False)
            time.sleep(min(LOOK_SECONDS, self._chosen.retry_delay))

    def _tell(self, text: str) -> None:
        """Say it on stderr, once: a server that is away for an hour is one line.

        Parts of it may come from the wire: what could steer a terminal does not get there.
        """
        shown = "".join(each if each.isprintable() else "?" for each in text[:500])
        if shown == self._told:
            return
        self._told = shown
        print(f"local_viewer.py: {shown}", file=sys.stderr, flush=True)


def main(chosen: ViewerSettings) -> int:
    try:
        with StopSignals() as signals, chosen.open_display() as display:
            token = os.environ.get("MJSTREAM_TOKEN")
            Watch(chosen, display, signals, token).follow()
    except KeyboardInterrupt:
        pass
    return 0


if __name__ == "__main__":
    settings.run(ViewerSettings, main, description=__doc__.split("\n\n")[0])
