"""Stream the state of a simulation over TCP to viewers that come and go, without waiting for them.

The sending half, in the thread of the simulation:

    with StreamServer(model_path="scene.xml", host="127.0.0.1", port=7000) as server:  # start()
        while running:
            mujoco.mj_step(mjm, mjd)
            if server.due():  # next to nothing; send_state asks the same
                server.send_state(mjd)
    # stop_connection(): every viewer gets what is due to it and `close`

The receiving half:

    client = StreamClient.connect(host, port, token=token)  # OSError, ProtocolError
    for packet in client.drain(timeout=0.1):  # ConnectionError, ProtocolError
        if packet["kind"] in MODEL_KINDS:
            mjm = load_model(packet)  # ProtocolError
        elif packet["kind"] == "state":
            apply_mjdata(mjd, packet["state"])  # ProtocolError
        elif packet["kind"] == "close":
            ...
    client.close()

`protocol.py` says what the packets look like. Beyond the documented keys a model packet has `run`
(an id of the run), `assets`, `about` (what runs, as a dict of texts) and `nworld`; a state packet
has `run`, `step`, `sent` (Unix time in s at which the state was taken), `world`, and where it is
known `step_seconds` (what a step takes).

A viewer may send `{"kind": "world", "world": int}` to see another world; all viewers see the same.
Where the model packet has `asks`: "ready", it sends `{"kind": "ready"}` when the model has come, so
that the server knows that somebody reads.

With a token set, the server first sends `{"kind": "challenge", "algorithm": "hmac-sha256",
"nonce": bytes}`, and the viewer answers with `{"kind": "response", "digest": bytes}`: the
HMAC-SHA256 of the nonce with the UTF-8 text of the token as its key, 32 bytes.

One thread does all the I/O, whatever the number of viewers. The simulation leaves the newest
state in a slot; the thread encodes it once, and hands it to a viewer when that viewer's socket has
next to nothing left to send (TCP_NOTSENT_LOWAT), so that neither we nor the kernel hold a queue of
old states. Model and close packets have a queue of their own and are never dropped.
"""

import contextlib
import ctypes
import dataclasses
import fcntl
import hashlib
import hmac
import ipaddress
import os
import secrets
import select
import selectors
import socket
import sys
import termios
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping

from mjsim.choices import MODEL_MODES
from mjsim.errors import SettingError
from mjsim.stream.bundle import MODEL_KINDS, load_model, model_packet
from mjsim.stream.protocol import (
    DEFAULT_LIMIT,
    HEADER,
    Packet,
    PacketReader,
    ProtocolError,
    Snapshot,
    State,
    apply_mjdata,
    decode_payload,
    encode_packet,
    pack_mjdata,
    payload_size,
    take_snapshot,
    unpack_snapshot,
)
from mjsim.text import exposure_warning

__all__ = [
    "DEFAULT_LIMIT",
    "MODEL_KINDS",
    "MODEL_MODES",
    "ProtocolError",
    "StreamClient",
    "StreamError",
    "StreamServer",
    "apply_mjdata",
    "decode_payload",
    "encode_packet",
    "load_model",
    "model_packet",
    "pack_mjdata",
    "recv_packet",
    "send_packet",
]

MAX_VIEWERS = 8
MAX_PENDING = 16  # connections beside them that have not answered, or of which nobody has read
PROOF_BYTES = 512 << 10  # that a connection has taken of which somebody reads: no kernel holds more
PROBE_SECONDS = 1.0  # in which a viewer takes so much
STALL_SECONDS = 10.0  # a viewer that takes nothing for so long is dropped
CLOSE_SECONDS = 2.0  # how long stop_connection waits for viewers to take what is left
MAX_UPSTREAM = 4096  # bytes that a viewer may send us in a second: it has little to say
GLANCE_WITHIN = 0.004  # s around the time a frame is due in which the thread waits for it, ...
GLANCE_SECONDS = 0.0003  # ... looking so often
REFUSALS_SECONDS = 1.0  # of refusals that are one line
UNSENT_BYTES = 16 << 10  # TCP_NOTSENT_LOWAT: what may wait in the kernel before a newer state


class StreamError(SettingError):
    """A setting of the stream cannot be used."""


@dataclasses.dataclass
class Counters:
    """What a server has done so far.

    Attributes:
      viewers: viewers that got the model, counting one again when it returns.
      refused: connections turned away: too many, or a wrong or missing token.
      dropped: viewers that stopped reading or sent what no viewer sends.
      frames: states taken from the simulation.
      frames_sent: states handed to the network, summed over the viewers.
      frames_skipped: states that a viewer did not get because a newer one came first, likewise.
      bytes_sent: bytes handed to the network.
      longest_send_seconds: the longest `send_state` so far, in the thread of the simulation.
    """

    viewers: int = 0
    refused: int = 0
    dropped: int = 0
    frames: int = 0
    frames_sent: int = 0
    frames_skipped: int = 0
    bytes_sent: int = 0
    longest_send_seconds: float = 0.0


# ------------------------------------------------------------------------ packets over a socket


def send_packet(sock: socket.socket, packet: Packet) -> None:
    """Send one packet over a blocking socket."""
    sock.sendall(encode_packet(packet))


def recv_packet(sock: socket.socket, limit: int = DEFAULT_LIMIT) -> Packet:
    """Receive one packet over a blocking socket.

    Args:
      sock: the socket.
      limit: bytes of the largest packet to take.

    Raises:
      ConnectionError: the stream ended.
      ProtocolError: what came is no packet, or larger than `limit`; nothing of it is read then.
    """
    size = payload_size(_recv_exactly(sock, HEADER.size), limit)
    return decode_payload(_recv_exactly(sock, size))


def _recv_exactly(sock: socket.socket, size: int) -> bytearray:
    data = bytearray()
    while len(data) < size:  # grows as it arrives: a declared length reserves nothing
        part = sock.recv(min(size - len(data), 1 << 20))
        if not part:
            raise ConnectionError(f"the stream was cut short: {len(data)} of {size} bytes came")
        data += part
    return data


def _tune(sock: socket.socket) -> None:
    """Send at once, and find out within half a minute that the other end is gone."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _digest(token: str, nonce: bytes) -> bytes:
    return hmac.new(token.encode(), nonce, hashlib.sha256).digest()


# ----------------------------------------------------------------------------------- the client


class StreamClient:
    """A connection to a server, ours or any that speaks the protocol.

    Attributes:
      skipped: states that arrived but were left out by `drain` for a newer one.
      received: packets that arrived.
    """

    def __init__(self, sock: socket.socket, token: str | None = None, limit: int = DEFAULT_LIMIT):
        self._sock, self._token = sock, token
        self._reader = PacketReader(limit)
        self._ended = False
        self.skipped, self.received = 0, 0
        sock.setblocking(False)

    @classmethod
    def connect(
        cls,
        host: str,
        port: int,
        token: str | None = None,
        timeout: float = 5.0,
        limit: int = DEFAULT_LIMIT,
    ) -> "StreamClient":
        """Connect to a server; the token is used when the server asks for one.

        Raises:
          OSError: there is none, or no such host.
        """
        sock = socket.create_connection((host, port), timeout=timeout)
        try:
            _tune(sock)
            return cls(sock, token, limit)
        except BaseException:
            sock.close()
            raise

    def __enter__(self) -> "StreamClient":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def fileno(self) -> int:
        """For `select`."""
        return self._sock.fileno()

    def close(self) -> None:
        """Let go of the connection."""
        self._sock.close()

    def select_world(self, world: int) -> None:
        """Ask the server for another world; one that does not know of worlds takes no notice."""
        self._say({"kind": "world", "world": world})

    def _say(self, packet: Packet) -> None:
        with contextlib.suppress(OSError):  # if it is gone, reading will tell
            send_packet(self._sock, packet)

    def drain(self, timeout: float = 0.0) -> list[Packet]:
        """What has arrived, in order: every model and close packet, and of states only the newest.

        Args:
          timeout: seconds to wait for something when nothing is there; then the list is empty.

        Raises:
          ConnectionError: the stream ended, after all that came before the end was returned.
          ProtocolError: what came is no packet of a stream, or the server wants a token.
        """
        if not self._ended:
            poller = select.poll()
            poller.register(self._sock, select.POLLIN)
            poller.poll(1000 * timeout)
        packets: list[Packet] = []
        deadline = time.monotonic() + 0.1  # a server that never pauses must not keep us here
        while not self._ended:
            try:
                data = self._sock.recv(1 << 18)
            except BlockingIOError:
                return packets
            except OSError as error:
                self._ended = True
                if not packets:
                    raise ConnectionError(f"the connection broke: {error.strerror}") from None
                return packets
            self._ended = not data
            for payload in self._reader.feed(data):
                self._take(decode_payload(payload), packets)
            if time.monotonic() > deadline:
                break
        if packets or not self._ended:
            return packets
        self._reader.end()
        raise ConnectionError("the server closed the connection")

    def _take(self, packet: Packet, packets: list[Packet]) -> None:
        self.received += 1
        if packet["kind"] == "challenge":
            self._answer(packet)
        elif packet["kind"] == "state" and packets and packets[-1]["kind"] == "state":
            packets[-1] = packet
            self.skipped += 1
        elif packet["kind"] in (*MODEL_KINDS, "state", "close"):
            packets.append(packet)
            if packet.get("asks") == "ready":
                self._say({"kind": "ready"})
        # Another kind is from a newer server: it meant us to ignore what we do not know.

    def _answer(self, challenge: Packet) -> None:
        if not self._token:
            raise ProtocolError(
                "the server asks for a token: set MJSTREAM_TOKEN as it is set there"
            )
        nonce = challenge.get("nonce")
        if not isinstance(nonce, bytes) or challenge.get("algorithm") != "hmac-sha256":
            raise ProtocolError("the server sent a challenge that is not hmac-sha256 over bytes")
        self._say({"kind": "response", "digest": _digest(self._token, nonce)})


# ----------------------------------------------------------------------------------- the server


def _byte_writer() -> Callable[[int], object]:
    """What writes a byte to a file descriptor that does not block, without letting go of the GIL.

    With os.write, or socket.send, the thread that is woken takes the GIL at once, and the
    simulation waits in `send_state` until that thread has encoded and sent: 0.4 ms were seen.
    """
    try:
        write = ctypes.PyDLL(None).write
    except (OSError, AttributeError, TypeError):  # no libc to be had so

        def os_write(fd: int) -> None:
            with contextlib.suppress(OSError):
                os.write(fd, b"\0")

        return os_write
    write.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t)
    write.restype = ctypes.c_ssize_t
    return lambda fd: write(fd, b"\0", 1)  # when it is full of wake-ups, one more is no news


_write_byte = _byte_writer()


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


# The number of the frame, its state, and the other entries of its packet.
Frame = tuple[int, Snapshot, dict[str, object]]


class _Viewer:
    """One connection, as the I/O thread sees it.

    Attributes:
      queue: what must go out, in order; the first may have gone out in part.
      fresh: the newest state has not yet been given to this one.
      admitted: it has shown the token, where there is one, and gets the stream.
      waiting: it may have the stream, and waits for a place.
      known: somebody reads there: it has said something, or taken `PROOF_BYTES`.
      probed: when it was sent as much to find that out (time.monotonic); None: it was not.
      sent: bytes that were handed to its socket.
      since: when it last took something, or had nothing to take (time.monotonic).
      upstream: bytes that it has sent us since `upstream_since` (time.monotonic).
      leaving: it is let go when the queue is empty.
    """

    def __init__(self, sock: socket.socket, name: str):
        self.sock, self.name = sock, name
        self.queue: deque[memoryview] = deque()
        self.reader = PacketReader(MAX_UPSTREAM)
        self.nonce = secrets.token_bytes(32)
        self.fresh = self.admitted = self.leaving = self.waiting = self.known = False
        self.probed: float | None = None
        self.sent = 0
        self.since = self.upstream_since = time.monotonic()
        self.upstream = 0

    @property
    def pending(self) -> bool:
        return bool(self.queue) or self.fresh

    @property
    def taken(self) -> int:
        """Bytes that its machine has acknowledged; that one may hold some unread."""
        try:
            left = fcntl.ioctl(self.sock, termios.TIOCOUTQ, bytes(4))
        except OSError:  # a system that does not tell, or a connection that is gone
            return self.sent
        return self.sent - int.from_bytes(left, sys.byteorder)

    def holds_place(self, now: float) -> bool:
        """Whether it is one of those that `MAX_VIEWERS` counts."""
        silent = self.probed is not None and now - self.probed > PROBE_SECONDS
        return self.admitted and not self.leaving and (self.known or not silent)


class StreamServer:
    """Sends a model and its states to up to 8 viewers. Use as a context manager, or `start()`.

    Args:
      model_path: MJCF or URDF file of the model; with mode "path" any file.
      host: address to listen at.
      port: port to listen at; 0 or less: no streaming, and every method does nothing.
      hz: states to send a second, at most; 0: every one that `send_state` is called with.
      wait: seconds that `start` waits for the first viewer; 0: not at all, None: for ever.
      mode: "xml": send the model itself; "path": its path, for viewers that share the disk.
      token: text that viewers must know; None or empty: anybody may watch.
      report: takes lines about the server, for people.
      about: what runs, for people: engine, device and so on; sent with the model.
      world: index of the world that is shown at first.
      nworld: number of worlds that viewers may choose from.

    Attributes:
      counters: what it has done so far.
      problem: why streaming ended before its time, or None.
      run: an id of this run, sent along.
      world: index of the world that viewers want to see: who steps the simulation sends that one.
    """

    def __init__(
        self,
        model_path: str,
        host: str = "127.0.0.1",
        port: int = 7000,
        *,
        hz: float = 60.0,
        wait: float | None = None,
        mode: str = "xml",
        token: str | None = None,
        report: Callable[[str], None] = _say,
        about: Mapping[str, str] | None = None,
        world: int = 0,
        nworld: int = 1,
    ):
        if mode not in MODEL_MODES:
            raise StreamError("mode", f"{mode!r} is none of {', '.join(MODEL_MODES)}")
        if not hz >= 0.0:
            raise StreamError("hz", f"{hz!r} is no rate: 0 (every state) or more")
        if wait is not None and not wait >= 0.0:
            raise StreamError("wait", f"{wait!r} is no time: 0 (do not wait) or more seconds")
        if port > 65535:
            raise StreamError("port", f"{port} is no port: 1 to 65535, or 0 for no streaming")
        self.model_path, self.host, self.port = model_path, host, port
        self.counters = Counters()
        self.problem: str | None = None
        self.run = secrets.token_hex(8)
        self.about, self.world, self.nworld = dict(about or {}), world, nworld
        self._period = 1.0 / hz if hz else 0.0
        self._wait, self._mode, self._token, self._report = wait, mode, token, report
        self._next_frame = 0.0  # time.perf_counter() from which a frame is due
        # The slot. Appending and taking are atomic, and a newer frame pushes out the older.
        self._slot: deque[Frame] = deque(maxlen=1)
        self._awake = False  # the thread will look at the slot: waking it would be a waste
        self._watched = 0  # viewers admitted; written by the thread
        self._first = threading.Event()
        self._stop_at: float | None = None  # time.monotonic() at which waiting for viewers ends
        self._thread: threading.Thread | None = None
        self._listener: socket.socket | None = None

    # ------------------------------------------------------------ for the simulation's thread

    @property
    def enabled(self) -> bool:
        """Whether there is a port to stream from."""
        return self.port > 0

    @property
    def connected(self) -> bool:
        """Whether somebody is watching."""
        return self._watched > 0

    def __enter__(self) -> "StreamServer":
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop_connection()

    def start(self, interrupted: Callable[[], bool] = lambda: False) -> None:
        """Listen, and wait for the first viewer as long as the `wait` of the server says.

        Args:
          interrupted: asked ten times a second whether to stop waiting.

        Raises:
          StreamError: the address, the port or the model cannot be used.
        """
        if not self.enabled or self._thread:
            return
        self.bind()
        self._stop_at, self._awake = None, False
        self._slot.clear()
        self._first.clear()
        self._wake_out, self._wake_in = socket.socketpair()
        self._wake_out.setblocking(False)
        self._wake_in.setblocking(False)
        self._thread = threading.Thread(target=_IoThread(self).run, name="stream", daemon=True)
        self._thread.start()
        self._wait_for_viewer(interrupted)

    def bind(self) -> None:
        """Take the port and make the model's packet; `start` does it too.

        So an error shows before long preparations. Viewers that come before `start` have to wait
        for it.

        Raises:
          StreamError: the host or the port cannot be used, or the model cannot be sent.
        """
        if not self.enabled or self._listener is not None:
            return
        self._listener = self._listen()
        self._listener.setblocking(False)
        try:
            model = model_packet(self.model_path, self._mode)
            described = {"about": self.about, "nworld": self.nworld, "asks": "ready"}
            self._model = encode_packet({**model, **described, "run": self.run})
        except (ValueError, OSError) as error:
            self._unbind()
            raise StreamError("model", " ".join(str(error).split())) from error
        except BaseException:
            self._unbind()
            raise

    def _unbind(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    def _listen(self) -> socket.socket:
        try:
            found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise StreamError("host", f"{self.host!r} does not resolve: {reason}") from error
        family, _, _, _, address = found[0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(MAX_PENDING)
        except OSError as error:
            listener.close()
            raise StreamError(
                "port",
                f"{self.port} at {self.host} cannot be used: {error.strerror}; choose another, "
                "or 0 for no streaming",
            ) from error
        if not ipaddress.ip_address(address[0].partition("%")[0]).is_loopback:
            self._warn_of_strangers()
        return listener

    def _warn_of_strangers(self) -> None:
        readers = "anyone who knows the token" if self._token else "anyone"
        who = f"readable by {readers} who reaches the port"
        rather = "stream from 127.0.0.1 and let viewers run"
        self._report(exposure_warning("the stream", self.host, self.port, who, rather))

    def _wait_for_viewer(self, interrupted: Callable[[], bool]) -> None:
        if self._wait == 0.0:
            self._report(f"streaming at {self.host}:{self.port}")
            return
        bound = "" if self._wait is None else f", {self._wait:g} s at most"
        self._report(
            f"waiting for a viewer at {self.host}:{self.port}{bound} "
            "(MJSTREAM_WAIT=0: do not wait, MJSTREAM_PORT=0: do not stream)"
        )
        end = None if self._wait is None else time.monotonic() + self._wait
        while not self._first.wait(0.1):
            if interrupted() or (end is not None and time.monotonic() > end):
                break

    def due(self) -> bool:
        """Whether `send_state` would send: somebody is watching, and it is time for a frame."""
        return self._watched > 0 and time.perf_counter() >= self._next_frame

    def due_in(self) -> float:
        """Seconds until the next frame is due, for somebody or nobody watching; 0.0 if it is."""
        return max(0.0, self._next_frame - time.perf_counter())

    def send_state(
        self,
        mjd: State,
        step: int = 0,
        last: bool = False,
        world: int = 0,
        step_seconds: float | None = None,
    ) -> bool:
        """Copy the state for the viewers if a frame is due; returns at once, whatever they do.

        Args:
          mjd: an MjData, or another object with the fields of it that `pack_mjdata` reads.
          step: steps taken so far.
          last: it is the last of a run: send it, due or not.
          world: index of the world whose state it is.
          step_seconds: what a step of the simulation has taken of late, s.

        Returns:
          whether it will be sent.
        """
        if not self._watched:
            return False
        now = time.perf_counter()
        if now < self._next_frame and not last:
            return False
        # Keep to the grid of the rate, but do not run after frames that are long gone.
        self._next_frame = max(self._next_frame + self._period, now + 0.5 * self._period)
        self.counters.frames += 1
        entries: dict[str, object] = {"step": step, "world": world, "sent": time.time()}
        if step_seconds is not None:
            entries["step_seconds"] = step_seconds
        self._slot.append((self.counters.frames, take_snapshot(mjd), entries))
        self._wake()
        took = time.perf_counter() - now
        if took > self.counters.longest_send_seconds:
            self.counters.longest_send_seconds = took
        return True

    def _wake(self) -> None:
        if not self._awake:
            self._awake = True
            _write_byte(self._wake_in.fileno())

    def stop_connection(self) -> None:
        """Send the newest state and `close` to every viewer, wait at most 2 s, free the port."""
        if not self._thread:
            self._unbind()
            return
        self._stop_at = time.monotonic() + CLOSE_SECONDS
        self._awake = False
        self._wake()
        self._thread.join()
        self._thread = None
        self._unbind()
        self._wake_in.close()
        self._wake_out.close()


class _IoThread:
    """Everything that touches a viewer's socket."""

    def __init__(self, server: StreamServer):
        self._server, self._counters = server, server.counters
        self._listener, self._wake_out = server._listener, server._wake_out
        self._selector = selectors.PollSelector()  # few sockets, and changing one is no syscall
        self._viewers: list[_Viewer] = []
        self._latest: Frame | None = None
        self._taken = server.counters.frames  # the number of the newest frame taken from the slot
        self._encoded: bytes | None = None  # of the latest, made when first needed
        self._close = encode_packet({"kind": "close"})
        # Of a kind that no viewer knows, which it then leaves alone.
        self._probe = encode_packet({"kind": "probe", "padding": bytes(PROOF_BYTES)})
        self._refusals: Counter[str] = Counter()  # by their reasons, not told yet
        self._tell_refusals_at = 0.0  # time.monotonic()

    def run(self) -> None:
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._selector.register(self._wake_out, selectors.EVENT_READ)
        try:
            self._loop()
        except Exception as error:  # the simulation goes on, whatever this was
            self._server.problem = f"streaming ended, after an error of its own: {error!r}"
            self._server._report(self._server.problem)
        finally:
            self._server._watched = 0
            for viewer in list(self._viewers):
                self._let_go(viewer)
            self._tell_refusals()
            self._listener.close()
            self._selector.close()

    def _loop(self) -> None:
        stopping = False
        check_at = 0.0
        while True:
            soon = stopping or any(viewer.waiting for viewer in self._viewers)
            for key, events in self._selector.select(0.05 if soon else self._patience()):
                if key.data is not None:
                    self._serve(key.data, events)
                elif key.fileobj is self._wake_out:
                    self._wake_out.recv(4096)  # what it was for, the next look at the slot tells
                elif not stopping:
                    self._accept()
            if self._server._stop_at is not None:
                if not stopping:
                    stopping = True
                    self._say_goodbye()
                if not self._viewers or time.monotonic() > self._server._stop_at:
                    return
            now = time.monotonic()
            if any(viewer.waiting for viewer in self._viewers):
                self._settle_waiting(now)
            if now >= check_at:
                check_at = now + 0.25
                self._drop_stalled(now)
                if now >= self._tell_refusals_at:
                    self._tell_refusals()

    def _patience(self) -> float:
        """Look whether there is a new frame; the seconds to wait in select after that.

        About when a frame is due, this waits for it here, with a glance at the slot now and then:
        being woken would cost the simulation more than all the rest of `send_state` (a system
        call and an interrupt of another core).
        """
        server, patience = self._server, 1.0
        if server._watched:
            wait = server._next_frame - time.perf_counter()
            if wait > GLANCE_WITHIN:
                patience = wait - 0.001
            elif wait > -GLANCE_WITHIN and any(viewer.pending for viewer in self._viewers):
                patience = 0.001
            elif wait > -GLANCE_WITHIN:
                self._glance()
        server._awake = False  # before the slot is read, so that no frame is left in it
        return 0.0 if self._take_frame() else patience

    def _glance(self) -> None:
        server = self._server
        server._awake = True
        end = server._next_frame + GLANCE_WITHIN
        while not server._slot and server._stop_at is None and time.perf_counter() < end:
            time.sleep(GLANCE_SECONDS)

    def _take_frame(self) -> bool:
        """Hand what is in the slot to the viewers; whether there was something."""
        if not self._server._slot:
            return False
        frame = self._server._slot.popleft()
        missed = frame[0] - self._taken - 1  # that a newer one pushed out of the slot
        self._latest, self._encoded, self._taken = frame, None, frame[0]
        for viewer in self._viewers:
            if viewer.admitted and not viewer.leaving:
                self._counters.frames_skipped += missed + viewer.fresh
                viewer.fresh = True
                self._watch(viewer)
        return True

    def _encode_latest(self) -> bytes:
        if self._encoded is None:
            _, snapshot, entries = self._latest
            packet = {"kind": "state", "state": unpack_snapshot(snapshot), **entries}
            self._encoded = encode_packet({**packet, "run": self._server.run})
        return self._encoded

    def _accept(self) -> None:
        try:
            sock, address = self._listener.accept()
        except OSError:
            time.sleep(0.01)  # out of files, perhaps: no busy loop
            return
        sock.setblocking(False)
        viewer = _Viewer(sock, f"{address[0]}:{address[1]}")
        self._selector.register(sock, selectors.EVENT_READ, viewer)
        self._viewers.append(viewer)
        try:
            _tune(sock)
            if hasattr(socket, "TCP_NOTSENT_LOWAT"):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)
        except OSError:  # gone already
            self._let_go(viewer)
            return
        if sum(not each.admitted for each in self._viewers) > MAX_PENDING:
            self._refuse(viewer, "too many connections that nobody has answered on")
        elif self._server._token:
            challenge = {"kind": "challenge", "algorithm": "hmac-sha256", "nonce": viewer.nonce}
            self._put(viewer, encode_packet(challenge))
        else:
            viewer.waiting = True
            self._settle_waiting(time.monotonic())

    def _settle_waiting(self, now: float) -> None:
        """Admit those that wait while there are places, and turn them away once there are none.

        What a connection takes first, its machine takes, whether a program reads it or not. So
        where a place is wanted, this finds out who is there: a viewer of our own says that it has
        the model, and any other takes more than a machine would hold unread.
        """
        for each in self._viewers:
            each.known |= each.admitted and each.taken >= PROOF_BYTES
        for viewer in [each for each in self._viewers if each.waiting]:
            holders = [each for each in self._viewers if each.holds_place(now)]
            if len(holders) < MAX_VIEWERS:
                self._admit(viewer, now)
                continue
            if all(each.known for each in holders):
                viewer.waiting, viewer.leaving = False, True
                self._put(viewer, self._close)
                self._count_refusal(viewer, f"{MAX_VIEWERS} viewers are watching")
            for each in holders:
                if not each.known and each.probed is None:
                    each.probed = now
                    self._put(each, self._probe)

    def _admit(self, viewer: _Viewer, now: float) -> None:
        silent = [each for each in self._viewers if each.admitted and not each.holds_place(now)]
        for each in silent[: max(0, len(silent) + 1 - MAX_PENDING)]:
            self._refuse(each, "nobody reads there")
        viewer.waiting, viewer.admitted = False, True
        viewer.fresh = self._latest is not None
        self._put(viewer, self._server._model)
        self._counters.viewers += 1
        self._server._watched += 1
        self._server._first.set()

    def _put(self, viewer: _Viewer, data: bytes) -> None:
        viewer.queue.append(memoryview(data))
        self._watch(viewer)

    def _watch(self, viewer: _Viewer) -> None:
        """Ask to be told when the viewer can take something, if there is something to take."""
        pending = viewer.pending
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if pending else 0)
        if self._selector.get_key(viewer.sock).events != events:
            self._selector.modify(viewer.sock, events, viewer)
            if pending:
                viewer.since = time.monotonic()

    def _serve(self, viewer: _Viewer, events: int) -> None:
        try:
            if events & selectors.EVENT_READ:
                self._read(viewer)
            if events & selectors.EVENT_WRITE and viewer in self._viewers:
                self._write(viewer)
        except OSError:  # reset, timed out: it left
            self._let_go(viewer)

    def _read(self, viewer: _Viewer) -> None:
        data = viewer.sock.recv(MAX_UPSTREAM)
        if not data:
            self._let_go(viewer)
            return
        now = time.monotonic()
        if now - viewer.upstream_since > 1.0:
            viewer.upstream, viewer.upstream_since = 0, now
        viewer.upstream += len(data)
        if viewer.upstream > MAX_UPSTREAM:
            self._refuse(viewer, "it sends more than a viewer has to say")
        elif not viewer.leaving:
            self._listen(viewer, data)

    def _listen(self, viewer: _Viewer, data: bytes) -> None:
        try:
            for payload in viewer.reader.feed(data):
                packet = decode_payload(payload)
                if viewer.leaving:
                    return
                if viewer.admitted or viewer.waiting:
                    viewer.known = True
                    self._take_wish(packet)
                elif self._is_response(viewer, packet):
                    viewer.known = viewer.waiting = True
                    self._settle_waiting(time.monotonic())
                else:
                    self._refuse(viewer, "wrong token")
                    return
        except ProtocolError:
            said = "it sends what is no packet"
            if not viewer.admitted and not viewer.waiting:
                said = "wrong token: no response to the challenge"
            self._refuse(viewer, said)

    def _is_response(self, viewer: _Viewer, packet: Packet) -> bool:
        digest, expected = packet.get("digest"), _digest(self._server._token, viewer.nonce)
        return isinstance(digest, bytes) and hmac.compare_digest(digest, expected)

    def _take_wish(self, packet: Packet) -> None:
        # Another kind is from a newer viewer, and no reason to let it go.
        world = packet.get("world")
        if packet["kind"] == "world" and type(world) is int:
            self._server.world = min(max(world, 0), self._server.nworld - 1)

    def _write(self, viewer: _Viewer) -> None:
        if not viewer.queue and viewer.fresh:
            viewer.queue.append(memoryview(self._encode_latest()))
            viewer.fresh = False
            self._counters.frames_sent += 1
        if viewer.queue:
            sent = viewer.sock.send(viewer.queue[0])
            viewer.sent += sent
            self._counters.bytes_sent += sent
            viewer.since = time.monotonic()
            if sent == len(viewer.queue[0]):
                viewer.queue.popleft()
            else:
                viewer.queue[0] = viewer.queue[0][sent:]
        if viewer.leaving and not viewer.pending:
            self._let_go(viewer)
        else:
            self._watch(viewer)

    def _say_goodbye(self) -> None:
        self._selector.unregister(self._listener)
        self._listener.close()
        self._take_frame()
        for viewer in list(self._viewers):
            if not viewer.admitted:
                self._let_go(viewer)
                continue
            if viewer.fresh:
                viewer.queue.append(memoryview(self._encode_latest()))
                viewer.fresh = False
                self._counters.frames_sent += 1
            viewer.leaving = True
            self._put(viewer, self._close)

    def _drop_stalled(self, now: float) -> None:
        for viewer in list(self._viewers):
            if now - viewer.since < STALL_SECONDS:
                continue
            if not (viewer.admitted or viewer.waiting or viewer.leaving):
                self._refuse(viewer, "it did not answer the challenge: missing token")
            elif viewer.pending:
                self._counters.dropped += 1
                self._server._report(
                    f"dropped {viewer.name}: it took nothing for {STALL_SECONDS:g} s"
                )
                self._let_go(viewer)

    def _refuse(self, viewer: _Viewer, reason: str) -> None:
        self._count_refusal(viewer, reason)
        self._let_go(viewer)

    def _count_refusal(self, viewer: _Viewer, reason: str) -> None:
        """Tell of it now, or with the others of this second: a port scanner makes hundreds."""
        self._counters.refused += 1
        now = time.monotonic()
        if self._refusals or now < self._tell_refusals_at:
            self._refusals[reason] += 1
        else:
            self._tell_refusals_at = now + REFUSALS_SECONDS
            self._server._report(f"refused {viewer.name}: {reason}")

    def _tell_refusals(self) -> None:
        if self._refusals:
            self._tell_refusals_at = time.monotonic() + REFUSALS_SECONDS
            reasons = ", ".join(f"{count} because {it}" for it, count in self._refusals.items())
            self._server._report(
                f"refused {self._refusals.total()} more in {REFUSALS_SECONDS:g} s: {reasons}"
            )
            self._refusals.clear()

    def _let_go(self, viewer: _Viewer) -> None:
        if viewer not in self._viewers:
            return
        self._viewers.remove(viewer)
        self._selector.unregister(viewer.sock)
        if viewer.admitted:
            self._server._watched = max(0, self._server._watched - 1)
        with contextlib.suppress(OSError):
            viewer.sock.shutdown(socket.SHUT_WR)
            viewer.sock.recv(MAX_UPSTREAM)  # unread bytes would turn our close into a reset
        viewer.sock.close()
