"""The thread of a server that touches the sockets of its viewers, whatever their number.

It takes the newest state out of the mailbox, encodes it once, and hands it to a viewer when that
viewer's socket has next to nothing left to send, so that neither we nor the kernel hold a queue of
old states. Model and close packets have a queue of their own and are never dropped.

It holds on to the mailbox and not to the server, so that a server that nobody has any more is
deleted, which ends this thread.
"""

import contextlib
import os
import selectors
import socket
import time
from collections import Counter, deque
from collections.abc import Callable

from mjsim.errors import ProtocolError
from mjsim.state import unpack_snapshot
from mjsim.stream.mailbox import Frame, Mailbox
from mjsim.stream.packets import Packet, PacketReader, decode_payload, encode_packet
from mjsim.stream.sockets import hold_little, is_answer, tune, unacknowledged

MAX_VIEWERS = 8
MAX_PENDING = 16  # connections beside them that have not answered, or of which nobody has read
PROOF_BYTES = 512 << 10  # that a connection has taken of which somebody reads: no kernel holds more
PROBE_SECONDS = 1.0  # in which a viewer takes so much
STALL_SECONDS = 10.0  # a viewer that takes nothing for so long is dropped
MAX_UPSTREAM = 4096  # bytes that a viewer may send us in a second: it has little to say
GLANCE_WITHIN = 0.004  # s around the time a frame is due in which the thread waits for it, ...
GLANCE_SECONDS = 0.0003  # ... looking so often
REFUSALS_SECONDS = 1.0  # of refusals that are one line


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
        self.nonce = os.urandom(32)
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
        return self.sent - unacknowledged(self.sock)

    def holds_place(self, now: float) -> bool:
        """Whether it is one of those that `MAX_VIEWERS` counts."""
        silent = self.probed is not None and now - self.probed > PROBE_SECONDS
        return self.admitted and not self.leaving and (self.known or not silent)


class IoThread:
    """Serves viewers until the mailbox says to stop. `run` is what the thread runs.

    Args:
      mailbox: where the states come from, and what viewers ask for goes to.
      listener: socket that viewers connect to; closed at the end.
      model: the packet of the model, encoded.
      run: id of the run, sent along with every state.
      token: text that viewers must know, or None.
      report: takes lines about the viewers, for people.
    """

    def __init__(
        self,
        mailbox: Mailbox,
        listener: socket.socket,
        model: bytes,
        run: str,
        token: str | None,
        report: Callable[[str], None],
    ):
        self._mailbox, self._counters = mailbox, mailbox.counters
        self._listener, self._model, self._run = listener, model, run
        self._token, self._report = token, report
        self._selector = selectors.PollSelector()  # few sockets, and changing one is no syscall
        self._viewers: list[_Viewer] = []
        self._latest: Frame | None = None
        self._taken = mailbox.counters.frames  # the number of the newest frame taken
        self._encoded: bytes | None = None  # of the latest, made when first needed
        self._close = encode_packet({"kind": "close"})
        # Of a kind that no viewer knows, which it then leaves alone.
        self._probe = encode_packet({"kind": "probe", "padding": bytes(PROOF_BYTES)})
        self._refusals: Counter[str] = Counter()  # by their reasons, not told yet
        self._tell_refusals_at = 0.0  # time.monotonic()

    def run(self) -> None:
        """Serve until told to stop, and leave no socket open."""
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._selector.register(self._mailbox.wakes, selectors.EVENT_READ)
        try:
            self._loop()
        except Exception as error:  # the simulation goes on, whatever this was
            self._mailbox.problem = f"streaming ended, after an error of its own: {error!r}"
            self._report(self._mailbox.problem)
        finally:
            self._mailbox.watched = 0
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
                elif key.fileobj is self._mailbox.wakes:
                    self._mailbox.wakes.recv(4096)  # the next look at the mailbox tells why
                elif not stopping:
                    self._accept()
            stop_at = self._mailbox.stop_at
            if stop_at is not None:
                if not stopping:
                    stopping = True
                    self._say_goodbye()
                if not self._viewers or time.monotonic() > stop_at:
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
        patience = 1.0
        if self._mailbox.watched:
            wait = self._mailbox.next_frame - time.perf_counter()
            if wait > GLANCE_WITHIN:
                patience = wait - 0.001
            elif wait > -GLANCE_WITHIN and any(viewer.pending for viewer in self._viewers):
                patience = 0.001
            elif wait > -GLANCE_WITHIN:
                self._glance()
        return 0.0 if self._take_frame() else patience

    def _glance(self) -> None:
        mailbox = self._mailbox
        mailbox.stay_awake()
        end = mailbox.next_frame + GLANCE_WITHIN
        while not mailbox.filled and mailbox.stop_at is None and time.perf_counter() < end:
            time.sleep(GLANCE_SECONDS)

    def _take_frame(self) -> bool:
        """Hand what is in the mailbox to the viewers; whether there was something."""
        frame = self._mailbox.take()
        if frame is None:
            return False
        missed = frame.number - self._taken - 1  # that a newer one pushed out of the slot
        self._latest, self._encoded, self._taken = frame, None, frame.number
        for viewer in self._viewers:
            if viewer.admitted and not viewer.leaving:
                self._counters.frames_skipped += missed + viewer.fresh
                viewer.fresh = True
                self._watch(viewer)
        return True

    def _encode_latest(self) -> bytes:
        if self._encoded is None:
            assert self._latest is not None  # who asks has a viewer that is due to get it
            state = unpack_snapshot(self._latest.snapshot)
            packet = {"kind": "state", "state": state, **self._latest.entries}
            self._encoded = encode_packet({**packet, "run": self._run})
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
            tune(sock)
            hold_little(sock)
        except OSError:  # gone already
            self._let_go(viewer)
            return
        if sum(not each.admitted for each in self._viewers) > MAX_PENDING:
            self._refuse(viewer, "too many connections that nobody has answered on")
        elif self._token:
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
        self._put(viewer, self._model)
        self._counters.viewers += 1
        self._mailbox.watched += 1
        self._mailbox.watched_once.set()

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
                elif self._token and is_answer(packet.get("digest"), self._token, viewer.nonce):
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

    def _take_wish(self, packet: Packet) -> None:
        # Another kind is from a newer viewer, and no reason to let it go.
        world = packet.get("world")
        if packet["kind"] == "world" and type(world) is int:
            self._mailbox.ask_for_world(world)

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
                self._report(f"dropped {viewer.name}: it took nothing for {STALL_SECONDS:g} s")
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
            self._report(f"refused {viewer.name}: {reason}")

    def _tell_refusals(self) -> None:
        if self._refusals:
            self._tell_refusals_at = time.monotonic() + REFUSALS_SECONDS
            reasons = ", ".join(
                f"{count} because {reason}" for reason, count in self._refusals.items()
            )
            self._report(
                f"refused {self._refusals.total()} more in {REFUSALS_SECONDS:g} s: {reasons}"
            )
            self._refusals.clear()

    def _let_go(self, viewer: _Viewer) -> None:
        if viewer not in self._viewers:
            return
        self._viewers.remove(viewer)
        self._selector.unregister(viewer.sock)
        if viewer.admitted:
            self._mailbox.watched = max(0, self._mailbox.watched - 1)
        with contextlib.suppress(OSError):
            viewer.sock.shutdown(socket.SHUT_WR)
            viewer.sock.recv(MAX_UPSTREAM)  # unread bytes would turn our close into a reset
        viewer.sock.close()
