"""What the thread of a simulation and the I/O thread of its server hand to each other.

The simulation puts its newest state in, the I/O thread takes it out; a state that nobody took is
replaced by the next one. The other way come the number of viewers and the world that they ask for.

One lock guards the slot of the newest state, its number, the wake-up and the order to stop; it is
held for a few assignments, never while anything is encoded, sent or waited for. Every other
attribute is a plain value that one of the two threads writes and the other only reads.
"""

import dataclasses
import socket
import threading
from typing import NamedTuple

from mjsim.state import Snapshot
from mjsim.stream.sockets import byte_writer

_write_byte = byte_writer()


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


class Frame(NamedTuple):
    """A state on its way to the viewers.

    Attributes:
      number: of the frame, counted from 1.
      snapshot: the state.
      entries: the other entries of its packet.
    """

    number: int
    snapshot: Snapshot
    entries: dict[str, object]


class Mailbox:
    """The newest state, the wishes of the viewers, and the counters of a server.

    Args:
      world: index of the world that is shown at first.
      nworld: number of worlds that viewers may choose from.

    Attributes:
      counters: `frames` and `longest_send_seconds` belong to the simulation, the others to the I/O
        thread.
      next_frame: time.perf_counter() from which a frame is due; the simulation's.
      world: index of the world that viewers want to see; the I/O thread's, once it runs.
      watched: viewers that were let in; the I/O thread's.
      watched_once: set when the first of them was.
      problem: why streaming ended before its time, or None; the I/O thread's.
      stop_at: time.monotonic() at which the I/O thread ends at the latest; None: it goes on.
    """

    def __init__(self, world: int, nworld: int) -> None:
        self.counters = Counters()
        self.next_frame = 0.0
        self.world = world
        self._nworld = nworld
        self.watched = 0
        self.watched_once = threading.Event()
        self.problem: str | None = None
        self.stop_at: float | None = None
        # One that a thread may take twice: a garbage collection while it is held may stop a server.
        self._lock = threading.RLock()
        self._frame: Frame | None = None
        self._awake = False  # the I/O thread will look at the slot: waking it would be a waste

    def open(self) -> None:
        """Make ready for an I/O thread: an empty slot, and a socket that wakes it."""
        self.stop_at, self._frame, self._awake = None, None, False
        self.watched_once.clear()
        self.wakes, self._waker = socket.socketpair()
        self.wakes.setblocking(False)
        self._waker.setblocking(False)

    def close(self) -> None:
        """Let go of the socket; the I/O thread has ended."""
        self.wakes.close()
        self._waker.close()

    # ------------------------------------------------------------ for the simulation's thread

    def put(self, snapshot: Snapshot, entries: dict[str, object]) -> None:
        """Leave the newest state for the I/O thread, and wake it where it sleeps."""
        with self._lock:
            self.counters.frames += 1
            self._frame = Frame(self.counters.frames, snapshot, entries)
            asleep, self._awake = not self._awake, True
        if asleep:
            _write_byte(self._waker.fileno())

    def stop(self, stop_at: float) -> None:
        """Tell the I/O thread to say goodbye, and to end at `stop_at` (time.monotonic)."""
        with self._lock:
            self.stop_at, self._awake = stop_at, True
        _write_byte(self._waker.fileno())

    # ------------------------------------------------------------------- for the I/O thread

    @property
    def filled(self) -> bool:
        """Whether there is a state that was not taken yet."""
        return self._frame is not None

    def stay_awake(self) -> None:
        """Promise to look at the slot again without being woken."""
        with self._lock:
            self._awake = True

    def take(self) -> Frame | None:
        """The newest state, once; None where it was taken. From then on a new one wakes us."""
        with self._lock:
            frame, self._frame = self._frame, None
            self._awake = False
        return frame

    def ask_for_world(self, world: int) -> None:
        """Take the wish of a viewer; the nearest world where there is no such one."""
        self.world = min(max(world, 0), self._nworld - 1)
