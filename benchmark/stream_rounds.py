"""Runs that are streamed to no, one and eight viewers, in rounds that take turns."""

import contextlib
import multiprocessing
import platform
import selectors
import socket
import statistics
import tempfile
import time
from collections.abc import Iterator
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection

import mujoco
from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table

from benchmark.measuring import median_and_quartiles, turns
from benchmark.speed_scenes import HUMANOID
from mjsim import engines, interrupts
from mjsim.cores import usable_cores
from mjsim.record import Recorder
from mjsim.run import headless
from mjsim.run import terminal as display
from mjsim.run.broadcast import Broadcast, RecordedSimulation
from mjsim.stop_signals import StopSignals
from mjsim.stream import StreamClient, StreamServer, apply_mjdata, load_model

WARM_UP = 2  # rounds
RECORDED = "none, recorded"
AUDIENCES = {"none": 0, "one viewer": 1, "eight viewers": 8, "one that has stopped reading": -1}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return sock.getsockname()[1]


# ------------------------------------------------------------------------ in the viewers' process


def read_all(port: int, viewers: int, pipe: Connection) -> None:
    """So many viewers that only read, since showing what came is work of other machines."""
    with contextlib.ExitStack() as stack, selectors.DefaultSelector() as selector:
        for _ in range(viewers):
            sock = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            selector.register(sock, selectors.EVENT_READ)
        while selector.get_map():
            for key, _ in selector.select():
                if not key.fileobj.recv(1 << 18):
                    selector.unregister(key.fileobj)


def stall(port: int, pipe: Connection) -> None:
    """One viewer that never reads, and comes back before the server drops it."""
    enough = False
    while not enough:
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            with contextlib.suppress(ConnectionRefusedError):  # the server has closed meanwhile
                sock.connect(("127.0.0.1", port))
            enough = pipe.poll(8.0)
    pipe.recv()


def watch(port: int, pipe: Connection) -> None:
    """One real viewer; tells in the end how old each state was when it was applied, in s."""
    ages: list[float] = []
    mjd = None
    with StreamClient.connect("127.0.0.1", port) as client, contextlib.suppress(ConnectionError):
        while True:
            for packet in client.drain(1.0):
                if packet["kind"] == "state":
                    apply_mjdata(mjd, packet["state"])
                    ages.append(time.time() - packet["sent"])
                elif packet["kind"] == "xml":
                    mjd = mujoco.MjData(load_model(packet))
    pipe.send(ages)


def crowd(pipe: Connection) -> None:
    """Watch as told, one audience after the other, as long as somebody is there to tell."""
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            port, viewers = pipe.recv()
            if viewers is None:
                watch(port, pipe)
            elif viewers < 0:
                stall(port, pipe)
            else:
                read_all(port, viewers, pipe)
            pipe.send("gone")


class Crowd:
    """The process with the viewers."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=crowd, args=(theirs,), daemon=True)
        resource_tracker.ensure_running()  # which would take the mask away again
        # Ctrl-C reaches all processes of a terminal: this one is ended by the one that started it.
        try:
            with interrupts.Deferred():
                self._process.start()
        except KeyboardInterrupt:  # that came meanwhile
            self.close()
            raise
        self.ages: list[float] = []

    @contextlib.contextmanager
    def watching(self, viewers: int | None, hz: float = 60.0) -> Iterator[StreamServer]:
        """A server with so many viewers; -1: one that never reads, None: one that shows."""
        server = StreamServer(
            str(engines.find_file(HUMANOID)),
            port=free_port(),
            hz=hz,
            wait=0.0,
            report=lambda line: None,
        )
        with server:
            self._pipe.send((server.port, viewers))
            while server.counters.viewers < (1 if viewers is None else abs(viewers)):
                time.sleep(0.01)
            time.sleep(0.3)  # let them take the model
            yield server
        if viewers is None:
            self.ages = self._pipe.recv()
        elif viewers < 0:
            self._pipe.send("enough")
        self._pipe.recv()

    def close(self) -> None:
        self._process.kill()  # it has nothing to put in order
        self._process.join()


# ------------------------------------------------------------------------------ what is measured


def run_times(
    simulation: engines.Simulation, broadcast: Broadcast, nsteps: int
) -> tuple[float, float]:
    """Seconds that test_headless.py's loop takes for so many steps, and those of CPU in them."""
    mjd = engines.initial_data(simulation.mjm)
    for field in ("qpos", "qvel", "act", "ctrl"):
        simulation.write(field, getattr(mjd, field))
    start = time.thread_time()
    wall = headless.run_steps(simulation, simulation.nstep + nsteps, StopSignals(), broadcast)
    return wall, time.thread_time() - start


@contextlib.contextmanager
def audiences(simulation: engines.Simulation) -> Iterator[dict[str, Broadcast]]:
    """By name, what steps the simulation for each audience, unpaced; and what records it too."""
    with contextlib.ExitStack() as stack:
        broadcasts = {}
        for name, viewers in AUDIENCES.items():
            crowd = stack.enter_context(contextlib.closing(Crowd()))
            server = stack.enter_context(crowd.watching(viewers))
            broadcasts[name] = Broadcast(simulation, server, realtime=False)
            if name == "none":
                folder = stack.enter_context(tempfile.TemporaryDirectory())
                model = {"kind": "model_path", "path": str(engines.find_file(HUMANOID))}
                recorder = stack.enter_context(Recorder(f"{folder}/run.mcap", model, about={}))
                recorded = RecordedSimulation(simulation, recorder, world=0, hz=60.0)
                broadcasts[RECORDED] = Broadcast(recorded, server, realtime=False)
        yield broadcasts


def audience_times(rounds: int, nsteps: int) -> dict[str, list[tuple[float, float]]]:
    """What `run_times` tells for each audience, in rounds that take turns."""
    simulation = engines.make_simulation(engines.load_model(HUMANOID), "mjc")
    times: dict[str, list[tuple[float, float]]] = {}
    with audiences(simulation) as broadcasts:
        for order in turns(list(broadcasts), WARM_UP + rounds):
            for name in order:
                took = run_times(simulation, broadcasts[name], nsteps)
                times.setdefault(name, []).append(took)
    return {name: all_rounds[WARM_UP:] for name, all_rounds in times.items()}


def throughput(rounds: int, nsteps: int) -> Table:
    """Steps per second with each audience, over that with none in the same round.

    By the clock, which is what counts, and by the CPU time of the simulating thread, which says
    more on a machine that has other things to do.
    """
    times = audience_times(rounds, nsteps)
    table = Table(
        "watched by", "throughput, over that with none", "by CPU time", "at least", box=MARKDOWN
    )
    for name in times:
        ratios = [
            median_and_quartiles([one[i] / other[i] for one, other in zip(*pair, strict=True)], 3)
            for i, pair in enumerate([(times["none"], times[name])] * 2)
        ]
        table.add_row(name, *ratios, "0.97" if AUDIENCES.get(name) else "")
    return table


def send_costs(crowd: Crowd, seconds: float, hz: float) -> tuple[list[float], list[float]]:
    """Seconds of each call of `send_state` after a step: of those that send, and of the others."""
    mjm = engines.load_model(HUMANOID)
    mjd = engines.initial_data(mjm)
    costs: tuple[list[float], list[float]] = ([], [])
    with crowd.watching(1, hz) as server:
        end = time.perf_counter() + seconds
        while (start := time.perf_counter()) < end:
            mujoco.mj_step(mjm, mjd)
            start = time.perf_counter()
            sent = server.send_state(mjd)
            costs[not sent].append(time.perf_counter() - start)
    return costs


def microseconds(values: list[float]) -> list[str]:
    cuts = statistics.quantiles(values, n=100)
    return [f"{1e6 * value:,.1f}" for value in (cuts[49], statistics.fmean(values), cuts[98])]


def latency(crowd: Crowd, seconds: float) -> list[float]:
    """Seconds from `send_state` to the end of the viewer's `apply_mjdata`, in real time."""
    simulation = engines.make_simulation(engines.load_model(HUMANOID), "mjc")
    with crowd.watching(None) as server:
        nsteps = int(seconds / simulation.mjm.opt.timestep)
        headless.run_steps(simulation, nsteps, StopSignals(), Broadcast(simulation, server))
    return crowd.ages


def show(rounds: int, nsteps: int, seconds: float) -> None:
    """Measure and print both tables; `seconds` is the length of what is no ratio."""
    console = Console(width=120)  # Markdown tables do not wrap
    console.print(
        f"{rounds} interleaved rounds of {nsteps} steps of the humanoid on "
        f"{usable_cores()} CPU cores of {platform.processor() or platform.machine()}"
        f": median (quartiles); mujoco {mujoco.__version__}"
    )
    display.console.quiet = True
    console.print(throughput(rounds, nsteps))
    table = Table(
        "in microseconds", "median", "mean", "99th percentile", "to be at most", box=MARKDOWN
    )
    with contextlib.closing(Crowd()) as crowd:
        at_rate, between = send_costs(crowd, seconds, 60.0)
        every, _ = send_costs(crowd, seconds, 0.0)
        ages = microseconds(latency(crowd, seconds))
    table.add_row("send_state, all calls", *microseconds(at_rate + between), "15")
    table.add_row("send_state, where a frame is due, at 60 Hz", *microseconds(at_rate), "15")
    table.add_row("send_state, where every call sends", *microseconds(every), "")
    table.add_row("age of a state once applied, at 60 Hz", *ages, "median 2,000; 99th 10,000")
    console.print(table)
