"""Parts of the viewers' tests: a scene that streams itself, and the viewers as programs."""

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import mujoco
import numpy as np

from mjsim.model.files import REPOSITORY
from mjsim.stream import StreamServer, encode_packet, pack_mjdata
from mjsim.view.controls import Controls
from mjsim.view.display import Display, Status

TIMEOUT = 60.0  # s: for what takes a few seconds on a machine that does nothing else


SWINGING = """
<mujoco model="swinging">
  <option gravity="0 0 -9.81"/>
  <worldbody>
    <light pos="0 -2 4"/>
    <geom type="plane" size="3 3 .1" rgba=".2 .3 .4 1"/>
    <body pos="0 0 1.6">
      <joint type="hinge" axis="0 1 0" damping="0"/>
      <geom type="capsule" fromto="0 0 0 1.2 0 0" size=".15" rgba=".9 .2 .1 1"/>
    </body>
  </worldbody>
</mujoco>
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_until(condition: Callable[[], Any], what: str, seconds: float = TIMEOUT) -> None:
    """Wait for a condition, or fail saying what did not come about."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds:g} s in vain until {what}"
        time.sleep(0.01)


@contextlib.contextmanager
def streaming_scene(
    model_path: str | os.PathLike[str], port: int, **server: Any
) -> Iterator[StreamServer]:
    """MuJoCo C stepping the model in real time, or as fast as it can, and streaming it."""
    mjm = mujoco.MjModel.from_xml_path(str(model_path))
    mjd = mujoco.MjData(mjm)
    stop = threading.Event()
    server = {"wait": 0.0, "report": lambda text: None, **server}

    def run(stream: StreamServer) -> None:
        step, start = 0, time.monotonic()
        while not stop.is_set():
            if mjd.time > time.monotonic() - start:
                time.sleep(mjm.opt.timestep)
                continue
            mujoco.mj_step(mjm, mjd)
            step += 1
            stream.send_state(mjd, step, world=stream.world)

    with StreamServer(str(model_path), port=port, **server) as stream:
        thread = threading.Thread(target=run, args=(stream,))
        thread.start()
        try:
            yield stream
        finally:
            stop.set()
            thread.join()


@contextlib.contextmanager
def answering(*connections: bytes) -> Iterator[int]:
    """A server that sends each viewer in turn some bytes, and then hangs up; its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            for data in connections:
                with listener.accept()[0] as sock:
                    sock.sendall(data)
                    sock.shutdown(socket.SHUT_WR)
                    with contextlib.suppress(OSError):
                        sock.recv(1)  # until the viewer has gone

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        thread.join()


def swinging_packets(run: str, time: float) -> bytes:
    mjm = mujoco.MjModel.from_xml_string(SWINGING)
    mjd = mujoco.MjData(mjm)
    mjd.time = time
    about = {"engine": "mjc", "device": "cpu"}
    model = {"kind": "xml", "xml": SWINGING, "assets": {}, "run": run, "about": about}
    return encode_packet(model) + encode_packet({"kind": "state", "state": pack_mjdata(mjd)})


class Witness(Display):
    """A display that shows nothing and remembers everything; a test asks through its controls.

    Attributes:
      models: bodies of each model that was loaded.
      statuses: each that was shown.
      times: simulated time whenever the picture moved, s.
      positions: qpos then.
      controls: of the model that was loaded last.
      hung_up: set it to end the showing.
    """

    def __init__(self) -> None:
        self.models: list[int] = []
        self.statuses: list[Status] = []
        self.times: list[float] = []
        self.positions: list[np.ndarray] = []
        self.controls = Controls()
        self.hung_up = False

    @property
    def closed(self) -> bool:
        return self.hung_up

    def load(
        self,
        mjm: mujoco.MjModel,
        mjds: Sequence[mujoco.MjData],
        controls: Controls,
        labels: Sequence[str] = (),
    ) -> None:
        self.models.append(mjm.nbody)
        self.controls = controls
        (self._mjd,) = mjds

    def show(self, status: Status, moved: bool) -> None:
        self.statuses.append(status)
        if moved:
            self.positions.append(self._mjd.qpos.copy())
            self.times.append(self._mjd.time)

    def close(self) -> None: ...


class Program:
    """A program of Python as its user runs it. What it prints is in `output` and `errors`."""

    def __init__(self, folder: Path, script: str, *arguments: str, **environment: str) -> None:
        self._out, self._err = folder / "stdout.txt", folder / "stderr.txt"
        ours = ("MJSIM_", "MJSTREAM_", "COMFREE_", "WARP_DEVICE")
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        with self._out.open("w") as out, self._err.open("w") as err:
            self._process = subprocess.Popen(
                [sys.executable, str(REPOSITORY / script), *arguments],
                stdout=out,
                stderr=err,
                env={**inherited, **environment},
                cwd=folder,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.kill()
        self._process.wait()

    @property
    def output(self) -> str:
        return self._out.read_text()

    @property
    def errors(self) -> str:
        return self._err.read_text()

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def send_signal(self, signum: int) -> None:
        self._process.send_signal(signum)

    def wait_for(self, text: str) -> None:
        """Wait until it has printed this text, to stdout or to stderr."""
        wait_until(
            lambda: text in self.output + self.errors or self._process.poll() is not None,
            f"the program says {text!r}",
        )
        assert text in self.output + self.errors, self.errors

    def status(self, seconds: float = TIMEOUT) -> int:
        """Wait for its end; its exit status."""
        return self._process.wait(seconds)


class ViewerProcess(Program):
    """`local_viewer.py` as its user runs it."""

    def __init__(self, folder: Path, port: int, *arguments: str, **environment: str) -> None:
        super().__init__(folder, "local_viewer.py", "--port", str(port), *arguments, **environment)
