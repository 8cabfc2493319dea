"""What streaming costs a simulation and a call, and how old states are, as tables."""

import contextlib
import platform
import statistics
import time

import mujoco
from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table

from benchmark.common.measuring import median_and_quartiles
from benchmark.common.models import HUMANOID
from benchmark.speed.audiences import AUDIENCES, Crowd, audience_times
from mjsim import engines
from mjsim.cores import usable_cores
from mjsim.run import headless
from mjsim.run import terminal as display
from mjsim.run.broadcast import Broadcast
from mjsim.stop_signals import StopSignals


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
