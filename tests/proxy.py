"""A slow link on loopback: a proxy that passes so many bits a second, so much later.

    with SlowLink(server_port, bits_per_second=2e6, round_trip=0.1) as link:
        connect(("127.0.0.1", link.port))

It is a network, so it holds little: `buffer` bytes at most wait for their turn in each direction,
in this process and in its sockets alike. Who sends faster is held up, as a slow link would.
"""

import contextlib
import queue
import socket
import threading
import time

SEGMENT = 1448  # bytes: what a TCP segment carries over Ethernet; loopback would take 65,483


class SlowLink:
    """Forwards connections to `127.0.0.1:target` until closed.

    Args:
      target: port of the server.
      bits_per_second: bandwidth of each direction.
      round_trip: delay of both directions together, s.
      buffer: bytes that may wait for their turn in each direction.
    """

    def __init__(
        self, target: int, bits_per_second: float, round_trip: float, buffer: int = 8192
    ) -> None:
        self._target = target
        self._bytes_per_second = bits_per_second / 8.0
        self._delay = round_trip / 2.0
        self._buffer = buffer
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._listener = self._narrow(socket.socket())
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen()
        self.port: int = self._listener.getsockname()[1]

    def __enter__(self) -> "SlowLink":
        self._start(self._accept)
        return self

    def __exit__(self, *exception: object) -> None:
        for each in [self._listener, *self._sockets]:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10.0)
        for each in [self._listener, *self._sockets]:
            each.close()

    def _narrow(self, sock: socket.socket) -> socket.socket:
        """Let the kernel hold little for us; before the connection exists, or it has no effect."""
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._buffer)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, SEGMENT)
        return sock

    def _start(self, function: object, *arguments: object) -> None:
        thread = threading.Thread(target=function, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                viewer, _ = self._listener.accept()
                self._sockets.append(viewer)
                server = self._narrow(socket.socket())
                self._sockets.append(server)
                server.connect(("127.0.0.1", self._target))
                for source, sink in ((server, viewer), (viewer, server)):
                    sink.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    on_the_way: queue.SimpleQueue[tuple[float, bytes]] = queue.SimpleQueue()
                    self._start(self._take, source, on_the_way)
                    self._start(self._deliver, on_the_way, sink)

    def _take(
        self, source: socket.socket, on_the_way: "queue.SimpleQueue[tuple[float, bytes]]"
    ) -> None:
        """Read what fits on the link and note when it arrives at the other end."""
        free_at = 0.0
        chunk = b"first"
        while chunk:
            try:
                chunk = source.recv(SEGMENT)
            except OSError:
                chunk = b""
            free_at = max(free_at, time.monotonic()) + len(chunk) / self._bytes_per_second
            on_the_way.put((free_at + self._delay, chunk))
            backlog = free_at - time.monotonic()
            time.sleep(max(0.0, backlog - self._buffer / self._bytes_per_second))

    def _deliver(
        self, on_the_way: "queue.SimpleQueue[tuple[float, bytes]]", sink: socket.socket
    ) -> None:
        with contextlib.suppress(OSError):
            while True:
                arrives_at, chunk = on_the_way.get()
                time.sleep(max(0.0, arrives_at - time.monotonic()))
                if not chunk:
                    sink.shutdown(socket.SHUT_WR)
                    return
                sink.sendall(chunk)
