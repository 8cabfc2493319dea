"""How fast the engines are against each other, and the scripts against the bare engine.

    python benchmark/ratios.py                                # make bench-engine
    python benchmark/ratios.py --device cuda:0 --nworld 1024

Every figure is a ratio within one run. The competitors take turns, round by round, so that a
machine that drifts hits all alike; each is compiled, captured and settled before the clock.
"""

import dataclasses
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import click
import mujoco
import mujoco_warp
import warp as wp
from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import comfree_warp as cfwarp
import display
import engines
import test_headless
from stop_signals import StopSignals


@dataclasses.dataclass(frozen=True)
class Scene:
    """A model and the state that every round starts from.

    Attributes:
      model: path, relative to the repository.
      settle: steps of MuJoCo C from the model's initial state to that state.
    """

    model: str
    settle: int


SHIPPED = Path(mujoco_warp.__file__).parent / "test_data"
HUMANOID = "benchmark/test_data/humanoid/humanoid.xml"
SCENES = {
    "primitives, settled": Scene("benchmark/test_data/primitives.xml", 2500),
    "mujoco_warp's primitives, settled": Scene(str(SHIPPED / "primitives.xml"), 2500),
    "humanoid, standing": Scene(HUMANOID, 0),
    "humanoid, fallen": Scene(HUMANOID, 2500),
    "hand holding a cube": Scene("benchmark/test_data/hand/env_hand_cube.xml", 0),
}

Competitors = dict[str, Callable[[], None]]


def interleaved_times(
    competitors: Competitors, rounds: int, prepare: Competitors | None = None
) -> dict[str, list[float]]:
    """Seconds of each competitor in each round; all take their turn in every round.

    What `prepare` holds for a competitor runs before its turn, off the clock.
    """
    times: dict[str, list[float]] = {name: [] for name in competitors}
    for _ in range(rounds):
        for name, run in competitors.items():
            if prepare:
                prepare[name]()
            start = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - start)
    return times


def median_and_spread(values: list[float], digits: int = 2) -> str:
    """Median, and the quartiles."""
    low, middle, high = statistics.quantiles(values, n=4)
    return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def round_ratios(times: dict[str, list[float]], slow: str, fast: str) -> list[float]:
    """Time of `slow` over time of `fast`, round by round."""
    return [one / other for one, other in zip(times[slow], times[fast], strict=True)]


class Start:
    """Puts a simulation into the state that every round of a scene starts from."""

    def __init__(self, scene: Scene):
        self.mjm = engines.load_model(scene.model)
        source = engines.make_simulation(self.mjm, "mjc")
        source.step(scene.settle)
        self.state = {field: source.read(field) for field in ("qpos", "qvel", "act", "ctrl")}

    def restore(self, simulation: engines.Simulation) -> None:
        for field, values in self.state.items():
            simulation.write(field, values)
        simulation.synchronize()


def advance(simulation: engines.Simulation, nsteps: int) -> None:
    simulation.step(nsteps)
    simulation.synchronize()


def compare_engines(scene: Scene, device: str, nworld: int, rounds: int, nsteps: int) -> list[str]:
    """A row of the table: the ratios, the contacts, and what makes the row invalid, if anything."""
    start = Start(scene)
    simulations = {
        engine: engines.make_simulation(
            start.mjm, engine, "cpu" if engine == "mjc" else device, nworld
        )
        for engine in engines.ENGINES
    }
    run = {name: partial(advance, each, nsteps) for name, each in simulations.items()}
    prepare = {name: partial(start.restore, each) for name, each in simulations.items()}
    interleaved_times(run, 2, prepare)  # warm up
    times = interleaved_times(run, rounds, prepare)
    contacts = ", ".join(
        f"{name} {each.counts().contacts / nworld:.0f}" for name, each in simulations.items()
    )
    sick = [
        f"INVALID: {name} {health.divergence or health.overflow}"
        for name, each in simulations.items()
        if (health := each.health()).ndiverged or health.overflow
    ]
    return [
        f"{1e6 * statistics.median(times['comfree']) / nsteps:,.0f}",
        median_and_spread(round_ratios(times, "mjwarp", "comfree")),
        median_and_spread(round_ratios(times, "mjc", "comfree")),
        "; ".join([contacts, *sick]),
    ]


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
        with StopSignals() as signals:
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
    table = Table(f"humanoid, comfree on {device}", "ratio", box=MARKDOWN)
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
@click.option("--nsteps", default=50, type=click.IntRange(min=1), help="Steps in a round.")
@click.option("--cores", default=1, type=click.IntRange(min=1), show_default=True)
def main(device: str, nworld: int, rounds: int, nsteps: int, cores: int) -> None:
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    console = Console(width=160)  # Markdown tables do not wrap
    console.print(
        f"{rounds} interleaved rounds of {nsteps} steps, each from the same state, on {cores} CPU "
        f"core(s) of {platform.processor() or platform.machine()}: median (quartiles); "
        f"mujoco {mujoco.__version__}, warp {wp.__version__}"
    )
    columns = ("comfree, us/step", "mjwarp / comfree", "mjc / comfree", "contacts per world")
    table = Table(f"{nworld} world(s) on {device}", *columns, box=MARKDOWN)
    for name, scene in SCENES.items():
        table.add_row(name, *compare_engines(scene, device, nworld, rounds, nsteps))
    console.print(table)
    console.print(compare_loops(device, rounds, 20 * nsteps))


if __name__ == "__main__":
    main()
