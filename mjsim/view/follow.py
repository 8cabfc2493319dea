"""Follow a server from connection to connection, and show what it sends on a display."""

import logging
import threading
import time
from typing import NamedTuple

import mujoco

from mjsim.model.compare import same_model
from mjsim.record import RunsRecorder
from mjsim.stop_signals import StopSignals
from mjsim.stream import MODEL_KINDS, Packet, ProtocolError, StreamClient, apply_mjdata, load_model
from mjsim.text import printable
from mjsim.view.controls import Controls
from mjsim.view.display import Display, Status
from mjsim.view.meter import Meter
from mjsim.view.watch_settings import WatchSettings

log = logging.getLogger(__name__)

# What MuJoCo makes of a model or a state that is well-formed and still more than it can take.
MUJOCO_ERRORS = (mujoco.FatalError, mujoco.UnexpectedError, RuntimeError, MemoryError)

LOOK_SECONDS = 0.02  # how often to look whether the window was closed while nothing arrives
ONCE_SECONDS = 5.0  # in which a server must be found, where only one stream is to be shown
MAX_WORLDS = 1 << 30
MAX_TEXT = 200  # characters of what a server says of itself


class Arrival(NamedTuple):
    """A packet that has come.

    Attributes:
      packet: it.
      nframes: states that have come since the last one that was taken, it included.
      at: when it did (time.monotonic).
    """

    packet: Packet
    nframes: int
    at: float


class Reader:
    """Reads a connection in a thread of its own, until it ends, whatever its taker is busy with.

    So the server does not take for stalled, and drop, a viewer that compiles a large model or opens
    a window. What is not taken in time is pushed out by what is newer: a state by the next, and all
    by another model. So never more than a model, two states and the end wait to be taken.

    Args:
      client: the connection; closed at the end of this context, and read by nobody else.
    """

    def __init__(self, client: StreamClient) -> None:
        self.client = client
        self._arrivals: list[Arrival] = []
        self._error: Exception | None = None
        self._left = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._read, name="viewer", daemon=True)

    def __enter__(self) -> "Reader":
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._left = True
        self._thread.join()
        self.client.close()

    def take(self, timeout: float) -> list[Arrival]:
        """What has come, in order; waits so many seconds for something where nothing has.

        Raises:
          ConnectionError: the stream has ended, after all that came before that was taken.
          ProtocolError: likewise, something came that is no packet of a stream.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._arrivals or self._error, timeout)
            arrivals, self._arrivals = self._arrivals, []
            if not arrivals and self._error:
                raise self._error
            return arrivals

    def _read(self) -> None:
        try:
            while not self._left:
                packets = self.client.drain(LOOK_SECONDS)
                skipped, self.client.skipped = self.client.skipped, 0
                if packets:
                    self._put(packets, skipped)
        except Exception as error:  # for the one who takes, as if it had read itself
            with self._changed:
                self._error = error
                self._changed.notify()

    def _put(self, packets: list[Packet], skipped: int) -> None:
        now = time.monotonic()
        with self._changed:
            for packet in packets:
                nframes = int(packet["kind"] == "state")
                if packet["kind"] in MODEL_KINDS:
                    self._arrivals.clear()
                elif nframes:
                    nframes, skipped = 1 + skipped, 0
                    if self._arrivals and self._arrivals[-1].nframes:
                        nframes += self._arrivals.pop().nframes
                self._arrivals.append(Arrival(packet, nframes, now))
            self._changed.notify()


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
        chosen: WatchSettings,
        display: Display,
        signals: StopSignals,
        token: str | None = None,
    ) -> None:
        self._chosen, self._display, self._signals = chosen, display, signals
        self._token = token
        self._mjm: mujoco.MjModel | None = None
        self._mjd: mujoco.MjData | None = None  # what is shown
        self._unseen: mujoco.MjData | None = None  # where states go while the picture is held
        self._run: object = None
        self._about: dict[str, str] = {}
        self._controls = Controls()
        self._world = 0  # that the server was last heard to send
        self._awaited: int | None = None  # that it was asked for since
        self._step_seconds: float | None = None
        self._meter = Meter()
        self._told = ""
        self._have_model = False  # of the connection that there is
        self._recorder: RunsRecorder | None = None
        if chosen.record:
            server = {"server": f"{chosen.host}:{chosen.port}"}
            self._recorder = RunsRecorder(chosen.record, server, self._tell)

    @property
    def _over(self) -> bool:
        return self._signals.received is not None or self._display.closed

    def follow(self) -> bool:
        """Connect, show, and again, until the user or (with `once`) the end of a stream says so.

        Returns:
          False if it was to show one stream and found none within `ONCE_SECONDS`.
        """
        try:
            return self._follow()
        finally:
            if self._recorder:
                self._recorder.close()

    def _follow(self) -> bool:
        once, last_shown = self._chosen.once, time.monotonic()
        while not self._over:
            self._have_model = False
            try:
                with Reader(self._connect()) as reader:
                    self._meter = Meter()
                    ended = self._show_stream(reader)
                    if self._over or (ended and once):
                        return True
                    reason = "the run has ended"
            except (OSError, ProtocolError, *MUJOCO_ERRORS) as error:
                reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            if self._have_model:
                last_shown = time.monotonic()
            if once and time.monotonic() - last_shown > ONCE_SECONDS:
                self._tell(f"{reason}; given up after {ONCE_SECONDS:g} s")
                return False
            if not self._over:
                self._tell(f"{reason}; trying every {self._chosen.retry_delay:g} s")
                self._pause()
        return True

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

    def _show_stream(self, reader: Reader) -> bool:
        """Show a connection; True when the server has closed the stream, False on user's wish."""
        while not self._over:
            try:
                arrivals = reader.take(LOOK_SECONDS)
            except ConnectionError as error:
                hint = ", before a model came: is MJSTREAM_TOKEN the same?"
                hint = "" if self._have_model else hint
                raise ConnectionError(f"{error}{hint}") from None
            moved = False
            for arrival in arrivals:
                packet = arrival.packet
                if packet["kind"] in MODEL_KINDS:
                    self._load(packet)
                    self._have_model = True
                elif packet["kind"] == "close":
                    if not self._have_model:
                        raise ConnectionError("the server takes no more viewers")
                    return True
                elif not self._have_model:
                    raise ProtocolError("the server sent a state before its model")
                else:
                    moved |= self._take(arrival)
            if self._have_model:
                self._choose_world(reader.client)
                self._display.show(self._status(), moved)
        return False

    def _load(self, packet: dict) -> None:
        mjm = load_model(packet)
        same_run = packet.get("run") is not None and packet["run"] == self._run
        opening = "the same run goes on" if same_run else "a new run" if self._mjm else "connected"
        name = mjm.names.partition(b"\0")[0].decode(errors="replace")
        self._tell(f"{opening}: {name or 'a model'}, {mjm.nbody} bodies")
        self._run = packet.get("run")
        self._about, self._awaited = _about(packet), None
        if self._recorder and not same_run:
            self._recorder.begin(packet, self._about)
        nworld = _nworld(packet)
        same = self._mjm is not None and same_model(self._mjm, mjm)
        if same and nworld == self._controls.nworld:
            return  # what shows it stays, camera and all
        mjd = mujoco.MjData(mjm)
        mujoco.mj_forward(mjm, mjd)
        self._mjm, self._mjd, self._unseen = mjm, mjd, mujoco.MjData(mjm)
        offers = ("pause", "world") if nworld > 1 else ("pause",)
        self._controls, self._world = Controls(offers, nworld), 0
        self._display.load(mjm, [mjd], self._controls)

    def _take(self, arrival: Arrival) -> bool:
        """Take a state; whether it is to be seen."""
        packet = arrival.packet
        held = self._controls.paused
        mjd = self._unseen if held else self._mjd
        assert mjd is not None  # the model came first
        apply_mjdata(mjd, packet.get("state"))
        if self._recorder:
            step = packet.get("step")
            self._recorder.write(mjd, step if isinstance(step, int) else 0)
        sent, took, world = (packet.get(key) for key in ("sent", "step_seconds", "world"))
        sent = sent if isinstance(sent, float) else None
        self._meter.note(mjd.time, sent, arrival.nframes, arrival.at)
        self._step_seconds = took if isinstance(took, float) else None
        if isinstance(world, int) and 0 <= world < self._controls.nworld:
            self._follow_world(world)
        if not held:
            mujoco.mj_forward(self._mjm, mjd)
        return not held

    def _follow_world(self, world: int) -> None:
        """Take note of the world that came: chosen here, or by another viewer."""
        if world != self._world:
            if self._controls.world in (self._world, self._awaited):  # else one was chosen since
                self._controls.world = world
            self._world, self._awaited = world, None

    def _choose_world(self, client: StreamClient) -> None:
        wanted = self._controls.world
        if wanted not in (self._world, self._awaited):
            self._awaited = wanted
            client.select_world(wanted)

    def _status(self, connected: bool = True) -> Status:
        assert self._mjd is not None  # the model came first
        rows, plots = {}, {"contacts": float(self._mjd.ncon)}
        if "engine" in self._about:
            rows["engine"] = f"{self._about['engine']} on {self._about.get('device', '?')}"
        figures = self._meter.figures()
        rows |= figures.rows
        notice = ""
        if not connected:
            rows |= {"rate": "no connection", "delay": "unknown"}
            notice = self._told
        elif figures.stalled:
            notice = "nothing comes from the server; this is the last that it sent"
        elif self._controls.paused:
            rows["rate"] = "paused"
        if self._controls.nworld > 1:
            rows["world"] = f"{self._world} of 0 to {self._controls.nworld - 1}"
        if self._step_seconds is not None:
            rows["step"] = f"{1e6 * self._step_seconds:,.0f} us"
            plots["step time, ms"] = 1e3 * self._step_seconds
        rows["contacts"] = f"{self._mjd.ncon:,}"
        return Status(rows, plots, notice=notice)

    def _pause(self) -> None:
        """Wait before the next attempt, with the window alive."""
        until = time.monotonic() + self._chosen.retry_delay
        while not self._over and time.monotonic() < until:
            if self._mjd is not None:
                self._display.show(self._status(connected=False), moved=False)
            time.sleep(min(LOOK_SECONDS, self._chosen.retry_delay))

    def _tell(self, text: str) -> None:
        """Log it, once: a server that is away for an hour is one line."""
        text = printable(text)
        if text != self._told:
            self._told = text
            log.info(text)


def _about(packet: dict) -> dict[str, str]:
    """What the server says of itself; it may say anything."""
    about = packet.get("about")
    if not isinstance(about, dict):
        return {}
    return {
        name: printable(value)[:MAX_TEXT] for name, value in about.items() if type(value) is str
    }


def _nworld(packet: dict) -> int:
    nworld = packet.get("nworld")
    return nworld if type(nworld) is int and 1 <= nworld <= MAX_WORLDS else 1
