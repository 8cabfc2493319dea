"""How fast the engines are against each other, and the scripts against the bare engine.

    python benchmark/ratios.py                                # make bench-engine
    python benchmark/ratios.py --device cuda:0 --nworld 1024

Every figure is a ratio within one run. The competitors take turns, round by round, so that a
machine that drifts hits all alike; each is compiled, captured and settled before the clock.
"""

import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import click
import mujoco
import warp as wp
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import comfree_warp as cfwarp
import display
import engines
import test_headless

SCENES = {
    "primitives, settled": "benchmark/test_data/primitives.xml",
    "humanoid": "benchmark/test_data/humanoid/humanoid.xml",
}
HUMANOID = SCENES["humanoid"]
SETTLE_STEPS = 2000

Competitors = dict[str, Callable[[], None]]


def interleaved_times(competitors: Competitors, rounds: int) -> dict[str, list[float]]:
    """Seconds of each competitor in each round; all take their turn in every round."""
    times: dict[str, list[float]] = {name: [] for name in competitors}
    for _ in range(rounds):
        for name, run in competitors.items():
            start = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - start)
    return times


def median_and_spread(values: list[float]) -> str:
    """Median, and the quartiles in brackets."""
    low, middle, high = statistics.quantiles(values, n=4)
    return f"{middle:.2f} [{low:.2f}, {high:.2f}]"


def round_ratios(times: dict[str, list[float]], slow: str, fast: str) -> list[float]:
    """Time of `slow` over time of `fast`, round by round."""
    return [one / other for one, other in zip(times[slow], times[fast], strict=True)]


def settled(model: str, device: str, nworld: int) -> dict[str, engines.Simulation]:
    """All engines on a model, in the state that MuJoCo C comes to rest in, then let settle anew."""
    mjm = engines.load_model(model)
    rest = engines.make_simulation(mjm, "mjc")
    rest.step(SETTLE_STEPS)
    simulations = {}
    for engine in engines.ENGINES:
        where = "cpu" if engine == "mjc" else device
        simulation = engines.make_simulation(mjm, engine, where, nworld)
        for field in ("qpos", "qvel", "act"):
            simulation.write(field, rest.read(field))
        simulation.step(SETTLE_STEPS // 10)
        simulation.synchronize()
        simulations[engine] = simulation
    return simulations


def stepping(simulation: engines.Simulation, nsteps: int) -> Callable[[], None]:
    def run() -> None:
        simulation.step(nsteps)
        simulation.synchronize()

    return run


def compare_engines(device: str, nworld: int, rounds: int, nsteps: int) -> Table:
    title = f"Time per step of each engine over that of comfree, {nworld} worlds, {device}"
    table = Table("scene", "mjwarp / comfree", "mjc / comfree", "contacts", title=title)
    for scene, model in SCENES.items():
        simulations = settled(model, device, nworld)
        times = interleaved_times(
            {name: stepping(each, nsteps) for name, each in simulations.items()}, rounds
        )
        sick = [
            f"{name}: {h}"
            for name, s in simulations.items()
            if (h := s.health()).ndiverged or h.overflow
        ]
        contacts = ", ".join(
            f"{name} {each.counts().contacts / nworld:.0f}" for name, each in simulations.items()
        )
        table.add_row(
            scene,
            median_and_spread(round_ratios(times, "mjwarp", "comfree")),
            median_and_spread(round_ratios(times, "mjc", "comfree")),
            f"INVALID {sick}" if sick else contacts,
        )
    return table


class BareLoop:
    """The captured step of comfree_warp, with nothing around it."""

    def __init__(self, model: str, device: str):
        self.mjm = engines.load_model(model)
        self.mjd = engines.initial_data(self.mjm)
        with wp.ScopedDevice(device):
            m = cfwarp.put_model(self.mjm)
            self.d = cfwarp.put_data(self.mjm, self.mjd, **engines.size_buffers(self.mjm))
            with wp.ScopedCapture() as capture:
                cfwarp.step(m, self.d)
        self.graph, self.device = capture.graph, device

    def step(self, nsteps: int) -> None:
        for _ in range(nsteps):
            wp.capture_launch(self.graph)
        wp.synchronize_device(self.device)

    def step_and_copy_all(self, nsteps: int) -> None:
        for _ in range(nsteps):
            wp.capture_launch(self.graph)
            cfwarp.get_data_into(self.mjd, self.mjm, self.d)


def headless(simulation: engines.Simulation, nsteps: int) -> Callable[[], None]:
    def run() -> None:
        with test_headless.StopSignals() as signals:
            test_headless.run_steps(simulation, simulation.nstep + nsteps, signals)

    return run


def compare_loops(device: str, rounds: int, nsteps: int) -> Table:
    """test_headless.py's loop against the bare engine and against the loop that copies it all."""
    bare, copying = BareLoop(HUMANOID, device), BareLoop(HUMANOID, device)
    simulation = engines.make_simulation(engines.load_model(HUMANOID), "comfree", device)
    few = max(1, nsteps // 20)
    display.console.quiet = True
    times = interleaved_times(
        {
            "bare": lambda: bare.step(nsteps),
            "headless": headless(simulation, nsteps),
            "copying": lambda: copying.step_and_copy_all(few),
        },
        rounds,
    )
    times["copying"] = [seconds * nsteps / few for seconds in times["copying"]]
    table = Table("loop, over the other loop", "ratio", title=f"Humanoid, comfree, {device}")
    for slow, fast, text in (
        ("headless", "bare", "test_headless.py / bare captured step"),
        ("copying", "headless", "get_data_into every step / test_headless.py"),
    ):
        table.add_row(text, median_and_spread(round_ratios(times, slow, fast)))
    return table


@click.command(help=__doc__.split("\n\n")[0])
@click.option("--device", default="cpu", envvar="WARP_DEVICE", show_default=True)
@click.option("--nworld", default=1, type=click.IntRange(min=1), show_default=True)
@click.option("--rounds", default=15, type=click.IntRange(min=4), show_default=True)
@click.option("--nsteps", default=None, type=click.IntRange(min=1), help="Steps in a round.")
@click.option("--cores", default=1, type=click.IntRange(min=1), show_default=True)
def main(device: str, nworld: int, rounds: int, nsteps: int | None, cores: int) -> None:
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    console = Console()
    console.print(
        f"{rounds} interleaved rounds, {cores} CPU core(s), median [quartiles]; "
        f"mujoco {mujoco.__version__}, warp {wp.__version__}"
    )
    console.print(compare_engines(device, nworld, rounds, nsteps or 50))
    console.print(compare_loops(device, rounds, 20 * (nsteps or 100)))


if __name__ == "__main__":
    main()
