"""Follow a server from connection to connection, and show what it sends on a display."""

import sys
import time

import mujoco

from mjsim.text import printable
from recording import RunsRecorder
from stop_signals import StopSignals
from streaming import MODEL_KINDS, ProtocolError, StreamClient, apply_mjdata, load_model
from viewing import Controls, Display, Meter, Status, same_model
from watch_settings import WatchSettings

# What MuJoCo makes of a model or a state that is well-formed and still more than it can take.
MUJOCO_ERRORS = (mujoco.FatalError, mujoco.UnexpectedError, RuntimeError, MemoryError)

LOOK_SECONDS = 0.02  # how often to look whether the window was closed while nothing arrives
MAX_WORLDS = 1 << 30
MAX_TEXT = 200  # characters of what a server says of itself


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
                    moved |= self._take(packet, 1 + client.skipped)
                    client.skipped = 0
            if have_model:
                self._choose_world(client)
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

    def _take(self, packet: dict, nframes: int) -> bool:
        """Take a state; whether it is to be seen."""
        held = self._controls.paused
        mjd = self._unseen if held else self._mjd
        apply_mjdata(mjd, packet.get("state"))
        if self._recorder:
            step = packet.get("step")
            self._recorder.write(mjd, step if isinstance(step, int) else 0)
        sent, took, world = (packet.get(key) for key in ("sent", "step_seconds", "world"))
        self._meter.note(mjd.time, sent if isinstance(sent, float) else None, nframes)
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
        rows, plots = {}, {"contacts": float(self._mjd.ncon)}
        if "engine" in self._about:
            rows["engine"] = f"{self._about['engine']} on {self._about.get('device', '?')}"
        rows |= self._meter.figures().rows
        if not connected:
            rows["rate"] = "no connection"
        elif self._controls.paused:
            rows["rate"] = "paused"
        if self._controls.nworld > 1:
            rows["world"] = f"{self._world} of 0 to {self._controls.nworld - 1}"
        if self._step_seconds is not None:
            rows["step"] = f"{1e6 * self._step_seconds:,.0f} us"
            plots["step time, ms"] = 1e3 * self._step_seconds
        rows["contacts"] = f"{self._mjd.ncon:,}"
        return Status(rows, plots, notice="" if connected else self._told)

    def _pause(self) -> None:
        """Wait before the next attempt, with the window alive."""
        until = time.monotonic() + self._chosen.retry_delay
        while not self._over and time.monotonic() < until:
            if self._mjd is not None:
                self._display.show(self._status(connected=False), moved=False)
            time.sleep(min(LOOK_SECONDS, self._chosen.retry_delay))

    def _tell(self, text: str) -> None:
        """Say it on stderr, once: a server that is away for an hour is one line."""
        text = printable(text)
        if text != self._told:
            self._told = text
            print(f"local_viewer.py: {text}", file=sys.stderr, flush=True)


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
