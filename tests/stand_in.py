"""A client and a server of the stream, written from the protocol's description alone.

None of our code is in here, on purpose: what these two understand is what programs that other
people wrote from the description understand.
"""

import pickle
import socket
import struct
import threading

import mujoco

LENGTH = struct.Struct("!I")


def read_exactly(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = sock.recv(size - len(data))
        if not part:
            raise EOFError
        data += part
    return data


def read(sock: socket.socket) -> dict:
    (size,) = LENGTH.unpack(read_exactly(sock, LENGTH.size))
    return pickle.loads(read_exactly(sock, size))


def write(sock: socket.socket, packet: dict, protocol: int | None = None) -> None:
    payload = pickle.dumps(packet, protocol)
    sock.sendall(LENGTH.pack(len(payload)) + payload)


class Client:
    """Shows a stream: keeps an MjData at the state that came last."""

    def __init__(self, host: str, port: int) -> None:
        self.sock = socket.create_connection((host, port), timeout=10)
        self.mjm = self.mjd = None
        self.states: list[dict] = []
        self.closed = False

    def receive(self) -> str:
        """Take one packet; its kind."""
        packet = read(self.sock)
        if packet["kind"] == "xml":
            self.mjm = mujoco.MjModel.from_xml_string(packet["xml"])
            self.mjd = mujoco.MjData(self.mjm)
        elif packet["kind"] == "model_path":
            self.mjm = mujoco.MjModel.from_xml_path(packet["path"])
            self.mjd = mujoco.MjData(self.mjm)
        elif packet["kind"] == "state":
            state = packet["state"]
            self.mjd.time = state["time"]
            for field in ("qpos", "qvel", "act", "ctrl", "xfrc_applied"):
                getattr(self.mjd, field)[:] = state[field]
            mujoco.mj_forward(self.mjm, self.mjd)
            self.states.append(state)
        elif packet["kind"] == "close":
            self.closed = True
        return packet["kind"]

    def close(self) -> None:
        self.sock.close()


class Server:
    """Streams a run of a model to one viewer, then closes.

    Attributes:
      port: where it listens.
      last: the last state that it sent.
    """

    def __init__(
        self, xml: str, nsteps: int = 20, protocol: int | None = None, path: str | None = None
    ) -> None:
        self._xml, self._nsteps, self._protocol, self._path = xml, nsteps, protocol, path
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.last: dict | None = None
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        sock, _ = self._listener.accept()
        with sock:
            if self._path:
                write(sock, {"kind": "model_path", "path": self._path}, self._protocol)
            else:
                write(sock, {"kind": "xml", "xml": self._xml}, self._protocol)
            mjm = mujoco.MjModel.from_xml_string(self._xml)
            mjd = mujoco.MjData(mjm)
            for _ in range(self._nsteps):
                mujoco.mj_step(mjm, mjd)
                self.last = {
                    "time": mjd.time,
                    "qpos": mjd.qpos.copy(),
                    "qvel": mjd.qvel.copy(),
                    "act": mjd.act.copy(),
                    "ctrl": mjd.ctrl.copy(),
                    "xfrc_applied": mjd.xfrc_applied.copy(),
                }
                write(sock, {"kind": "state", "state": self.last}, self._protocol)
            write(sock, {"kind": "close"}, self._protocol)

    def join(self) -> None:
        self._thread.join(10)
        self._listener.close()
