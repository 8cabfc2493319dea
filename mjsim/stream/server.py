"""The sending end of a stream: a server that never lets the simulation wait for its viewers.

    with StreamServer(mjm, port=7000, wait=0) as server:  # start()
        while running:
            mujoco.mj_step(mjm, mjd)
            if server.due():  # next to nothing; send_state asks the same
                server.send_state(mjd)
    # close(): every viewer gets the newest state and `close`

The simulation leaves its newest state in a mailbox; a thread of its own does all the rest.
"""

import ipaddress
import os
import socket
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from typing import Any

from mjsim.choices import MODEL_MODES
from mjsim.errors import SettingError
from mjsim.state import State, check_world, read_world, take_snapshot
from mjsim.stream.bundle import Model, model_packet
from mjsim.stream.io_thread import MAX_PENDING, IoThread
from mjsim.stream.mailbox import Counters, Mailbox
from mjsim.stream.packets import encode_packet
from mjsim.text import exposure_warning, print_line

CLOSE_SECONDS = 2.0  # how long closing waits for viewers to take what is left


class StreamError(SettingError):
    """A setting of the stream cannot be used."""


def _end(mailbox: Mailbox, thread: threading.Thread) -> None:
    """End the I/O thread of a server, which frees its port."""
    mailbox.stop(time.monotonic() + CLOSE_SECONDS)
    if thread is not threading.current_thread():  # where the garbage collection may run, too
        thread.join()
        mailbox.close()


class StreamServer:
    """Sends a model and its states to up to 8 viewers. Use as a context manager, or `start()`.

    A server that is deleted, as when a cell of a notebook is run again, is closed.

    Args:
      model: an `mujoco.MjSpec`, MJCF as text, or the path of an MJCF or URDF file; with mode "path"
        the path of any file that MuJoCo loads. Or an `mujoco.MjModel`, for which MuJoCo has the XML
        only while it is the one compiled last from XML, and without meshes from files.
      host: address to listen at.
      port: port to listen at; 0 or less: no streaming, and every method does nothing.
      hz: states to send a second, at most; 0: every one that `send_state` is called with.
      wait: seconds that `start` waits for the first viewer; None: for ever; 0: not at all, for a
        loop of your own that goes on whether anybody watches or not.
      mode: "xml": send the model itself; "path": its path, for viewers that share the disk.
      token: text that viewers must know; None or empty: anybody may watch.
      report: takes lines about the server, for people.
      about: what runs, for people: engine, device and so on; sent with the model.
      world: index of the world that is shown at first.
      nworld: number of worlds that viewers may choose from.
      model_path: another name of `model`, from when it was always a path.

    Attributes:
      run: an id of this run, sent along.

    Raises:
      StreamError: a setting has a value that cannot be used.
    """

    def __init__(
        self,
        model: Model | None = None,
        host: str = "127.0.0.1",
        port: int = 7000,
        *,
        hz: float = 60.0,
        wait: float | None = None,
        mode: str = "xml",
        token: str | None = None,
        report: Callable[[str], None] = print_line,
        about: Mapping[str, str] | None = None,
        world: int = 0,
        nworld: int = 1,
        model_path: str | os.PathLike[str] | None = None,
    ):
        if (model is None) == (model_path is None):
            given = "is missing" if model is None else "and model_path are both given"
            raise StreamError(
                "model", f"{given}: pass one MjSpec, MjModel, MJCF text or path as the model"
            )
        if mode not in MODEL_MODES:
            raise StreamError("mode", f"{mode!r} is none of {', '.join(MODEL_MODES)}")
        if not hz >= 0.0:
            raise StreamError("hz", f"{hz!r} is no rate: 0 (every state) or more")
        if wait is not None and not wait >= 0.0:
            raise StreamError("wait", f"{wait!r} is no time: 0 (do not wait) or more seconds")
        if port > 65535:
            raise StreamError("port", f"{port} is no port: 1 to 65535, or 0 for no streaming")
        self.host, self.port = host, port
        self.run = os.urandom(8).hex()
        self.about, self.nworld = dict(about or {}), nworld
        self._model: Model = model_path if model is None else model
        self._period = 1.0 / hz if hz else 0.0
        self._wait, self._mode, self._token, self._report = wait, mode, token, report
        self._mailbox = Mailbox(world, nworld)
        self._listener: socket.socket | None = None
        self._packet = b""  # of the model, encoded
        # What frees the port and ends the thread; called by `close`, or when the server is deleted.
        self._release: weakref.finalize | None = None
        self._thread: threading.Thread | None = None

    # ------------------------------------------------------------ for the simulation's thread

    @property
    def enabled(self) -> bool:
        """Whether there is a port to stream from."""
        return self.port > 0

    @property
    def connected(self) -> bool:
        """Whether somebody is watching."""
        return self._mailbox.watched > 0

    @property
    def counters(self) -> Counters:
        """What the server has done so far."""
        return self._mailbox.counters

    @property
    def problem(self) -> str | None:
        """Why streaming ended before its time, or None."""
        return self._mailbox.problem

    @property
    def world(self) -> int:
        """Index of the world that viewers want to see: who steps the simulation sends that one."""
        return self._mailbox.world

    def __enter__(self) -> "StreamServer":
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

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
        assert self._listener is not None  # `bind` has made it
        self._mailbox.open()
        serve = IoThread(
            self._mailbox, self._listener, self._packet, self.run, self._token, self._report
        ).run
        self._thread = threading.Thread(target=serve, name="stream", daemon=True)
        self._thread.start()
        self._release_by(_end, self._mailbox, self._thread)
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
        self._release_by(self._listener.close)
        try:
            packet = model_packet(self._model, self._mode)
            described = {"about": self.about, "nworld": self.nworld, "asks": "ready"}
            self._packet = encode_packet({**packet, **described, "run": self.run})
        except (ValueError, TypeError, OSError) as error:
            self.close()
            raise StreamError("model", " ".join(str(error).split())) from error
        except BaseException:
            self.close()
            raise

    def _release_by(self, function: Callable[..., object], *arguments: object) -> None:
        if self._release is not None:
            self._release.detach()
        self._release = weakref.finalize(self, function, *arguments)
        self._release.atexit = False  # the end of the process frees the port by itself, at once

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
        if not ipaddress.ip_address(str(address[0]).partition("%")[0]).is_loopback:
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
        while not self._mailbox.watched_once.wait(0.1):
            if interrupted() or (end is not None and time.monotonic() > end):
                break

    def due(self) -> bool:
        """Whether `send_state` would send: somebody is watching, and it is time for a frame."""
        mailbox = self._mailbox
        return mailbox.watched > 0 and time.perf_counter() >= mailbox.next_frame

    def due_in(self) -> float:
        """Seconds until the next frame is due, for somebody or nobody watching; 0.0 if it is."""
        return max(0.0, self._mailbox.next_frame - time.perf_counter())

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
        mailbox = self._mailbox
        if not mailbox.watched:
            return False
        now = time.perf_counter()
        if now < mailbox.next_frame and not last:
            return False
        # Keep to the grid of the rate, but do not run after frames that are long gone.
        mailbox.next_frame = max(mailbox.next_frame + self._period, now + 0.5 * self._period)
        entries: dict[str, object] = {"step": step, "world": world, "sent": time.time()}
        if step_seconds is not None:
            entries["step_seconds"] = step_seconds
        mailbox.put(take_snapshot(mjd), entries)
        took = time.perf_counter() - now
        if took > mailbox.counters.longest_send_seconds:
            mailbox.counters.longest_send_seconds = took
        return True

    def send_world(
        self,
        d: Any,
        world: int,
        step: int = 0,
        last: bool = False,
        step_seconds: float | None = None,
    ) -> bool:
        """Send the state of one world of batched data if a frame is due, as `send_state` does.

        Where no frame is due, nothing is copied from the device. To show the world that viewers ask
        for, pass `nworld` to the server and `server.world` here.

        Args:
          d: a `mujoco_warp.Data` or `comfree_warp.Data`.
          world: index of the world, from 0.
          step: steps taken so far.
          last: it is the last of a run: send it, due or not.
          step_seconds: what a step of the simulation has taken of late, s.

        Returns:
          whether it will be sent.

        Raises:
          SettingError: `world`: the data has no such world, or is not batched.
        """
        if not self.enabled:
            return False
        index = check_world(d, world)
        if not (self.due() or (last and self.connected)):
            return False
        return self.send_state(read_world(d, index), step, last, index, step_seconds)

    def close(self) -> None:
        """Send the newest state and `close` to every viewer, wait at most 2 s, free the port."""
        if self._release is not None:
            self._release()
        self._release = self._thread = self._listener = None

    def stop_connection(self) -> None:
        """The same as `close`."""
        self.close()
