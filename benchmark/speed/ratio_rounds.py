"""The engines against each other, and the scripts against the bare engine, in rounds."""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path

import mujoco
import mujoco_warp
import warp as wp
from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table

import comfree_warp as cfwarp
from benchmark.common.contenders import KINDS, parse
from benchmark.common.machine import cpu_name
from benchmark.common.measuring import interleaved_times, median_and_quartiles, round_ratios
from benchmark.common.models import HUMANOID
from benchmark.speed.measure import Entry, PointBudget, measure_group
from benchmark.speed.scenes import BY_NAME, SpeedScene
from mjsim import engines
from mjsim.cores import usable_cores
from mjsim.engines.buffers import size_buffers
from mjsim.run import divergence_dump as dump
from mjsim.run import headless
from mjsim.run import terminal as display
from mjsim.stop_signals import StopSignals

SHIPPED = Path(mujoco_warp.__file__).parent / "test_data"
FAST = "comfree-paper"  # what the others are held against
SLOW = [name for name in KINDS if name != FAST]
LOOP_STEPS = 10_000  # of test_headless.py unless told otherwise
COMPARED = (
    BY_NAME["primitives, settled"],
    dataclasses.replace(
        BY_NAME["primitives, settled"],
        name="mujoco_warp's primitives, settled",
        model=str(SHIPPED / "primitives.xml"),
    ),
    *(BY_NAME[name] for name in ("humanoid, standing", "humanoid, fallen", "hand holding a cube")),
)


def compare_engines(scene: SpeedScene, device: str, nworld: int, rounds: int) -> list[str]:
    """A row of the table: the ratios, the contacts, and what makes the row invalid, if anything."""
    entries = [Entry(it, it.device(device)) for it in map(parse, KINDS)]
    found = measure_group(scene, nworld, entries, rounds, PointBudget(math.inf))
    measured = {entry.contender.name: found[entry.name] for entry in entries}
    fast = measured[FAST]
    contacts = [f"{name} {it.row['contacts']['mean']:.0f}" for name, it in measured.items()]
    sick = [
        f"INVALID: {name} {it.row['invalid']}" for name, it in measured.items() if it.row["invalid"]
    ]
    return [
        f"{1e6 * fast.row['time_per_step']['median']:,.0f}",
        *(median_and_quartiles(round_ratios(measured[slow].times, fast.times)) for slow in SLOW),
        "; ".join([", ".join(contacts), *sick]),
    ]


class BareLoop:
    """The captured step of comfree_warp, with nothing around it."""

    def __init__(self, model: str, device: str):
        self.mjm = engines.load_model(model)
        self.mjd = engines.initial_data(self.mjm)
        with wp.ScopedDevice(device):
            m = cfwarp.put_model(self.mjm)
            self.d = cfwarp.put_data(self.mjm, self.mjd, **size_buffers(self.mjm))
            self.graph = cfwarp.capture(lambda: cfwarp.step(m, self.d))
        self.device = device

    def step(self, nsteps: int) -> None:
        self.graph.launch(nsteps)
        wp.synchronize_device(self.device)

    def step_and_copy_all(self, nsteps: int) -> None:
        for _ in range(nsteps):
            self.graph.launch()
            cfwarp.get_data_into(self.mjd, self.mjm, self.d)


def headless_loop(simulation: engines.Simulation, nsteps: int) -> Callable[[], None]:
    def run() -> None:
        headless.run_steps(simulation, simulation.nstep + nsteps, StopSignals())

    return run


def compare_loops(device: str, rounds: int, nsteps: int) -> Table:
    """test_headless.py's loop against the bare engine and against the loop that copies it all."""
    bare, copying = BareLoop(HUMANOID, device), BareLoop(HUMANOID, device)
    mjm = engines.load_model(HUMANOID)
    simulation = engines.make_simulation(mjm, "comfree", device, remember=dump.SECONDS)
    few = max(1, nsteps // 50)
    display.console.quiet = True
    times = interleaved_times(
        {
            "bare": lambda: bare.step(nsteps),
            "headless": headless_loop(simulation, nsteps),
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
        ratios = round_ratios(times[slow], times[fast])
        table.add_row(text, median_and_quartiles(ratios))
    return table


def show(device: str, nworld: int, rounds: int) -> None:
    """Measure and print both tables."""
    console = Console(width=220)  # Markdown tables do not wrap
    console.print(
        f"{rounds} interleaved rounds, each from the same state, on {usable_cores()} CPU core(s) "
        f"of {cpu_name()}: median (quartiles); "
        f"mujoco {mujoco.__version__}, warp {wp.__version__}"
    )
    others = (f"{name} / {FAST}" for name in SLOW)
    columns = (f"{FAST}, us/step", *others, "contacts per world")
    table = Table(f"{nworld} world(s) on {device}", *columns, box=MARKDOWN)
    for scene in COMPARED:
        table.add_row(scene.name, *compare_engines(scene, device, nworld, rounds))
    console.print(table)
    console.print(compare_loops(device, rounds, LOOP_STEPS))
