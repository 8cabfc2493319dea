"""What a run shows on a terminal: compilation, live progress, a closing summary.

All of it goes to stderr, so that stdout stays free for what a program prints for other programs.
"""

import dataclasses
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

import engines

console = Console(stderr=True, highlight=False)


@dataclasses.dataclass(frozen=True)
class Pace:
    """How fast a run goes.

    Attributes:
      steps_per_second: steps of all worlds together, per second of wall time.
      realtime_factor: simulated seconds of one world per second of wall time.
    """

    steps_per_second: float
    realtime_factor: float


def pace(nsteps: int, nworld: int, timestep: float, seconds: float) -> Pace:
    """Pace of `nsteps` steps of `nworld` worlds that took `seconds`; zero if they took no time."""
    if seconds <= 0.0:
        return Pace(0.0, 0.0)
    return Pace(nsteps * nworld / seconds, nsteps * timestep / seconds)


def kernel_name(module: str) -> str:
    """A Warp module's name without what only tells its instances apart."""
    return module.partition("__locals__")[0].strip("_").removeprefix("mujoco_warp._src.")


class CompilationDisplay:
    """Tells that kernels are being compiled and which; shows nothing when all are in the cache."""

    def __init__(self) -> None:
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("compiling kernels, first run only"),
            BarColumn(),
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            TextColumn("[dim]{task.description}"),
            console=console,
        )
        self._task = None

    def __enter__(self) -> "CompilationDisplay":
        return self

    def __exit__(self, *exception: object) -> None:
        if self._task is not None:
            self._bar.stop()

    def update(self, done: int, total: int, started: str) -> None:
        """Take a report of `comfree_warp.compilation.compile_kernels`."""
        if self._task is None:
            if not console.is_terminal:
                console.print(f"compiling kernels, first run only: {total} modules")
            self._bar.start()
            self._task = self._bar.add_task("", total=total)
        self._bar.update(self._task, completed=done)
        if started:
            self._bar.update(self._task, description=kernel_name(started))


class RunDisplay:
    """The live line of a run: steps, simulated time, pace, contacts."""

    def __init__(self, simulation: engines.Simulation, nsteps: int) -> None:
        self._simulation = simulation
        self._bar = Progress(
            TextColumn("{task.completed:,.0f}/{task.total:,.0f} steps"),
            BarColumn(bar_width=24),
            TextColumn("{task.description}"),
            TimeRemainingColumn(compact=True),
            console=console,
        )
        self._task = self._bar.add_task("starting", total=nsteps)

    def __enter__(self) -> "RunDisplay":
        self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.stop()

    def update(self, seconds: float) -> None:
        """Show the state of the simulation after `seconds` of running."""
        simulation = self._simulation
        now = pace(simulation.nstep, simulation.nworld, simulation.mjm.opt.timestep, seconds)
        self._bar.update(
            self._task,
            completed=simulation.nstep,
            description=f"{simulation.nstep * simulation.mjm.opt.timestep:.2f} s simulated  "
            f"{now.steps_per_second:,.0f} steps/s  {now.realtime_factor:.2f}x real time  "
            f"{simulation.counts().contacts:,} contacts",
        )


def show_summary(summary: dict[str, Any]) -> None:
    """Print the summary that `test_headless.summarize` makes, in four lines."""
    worlds = "1 world" if summary["nworld"] == 1 else f"{summary['nworld']:,} worlds"
    console.print(
        f"{summary['engine']} on {summary['device']}: {summary['model']}, {worlds}, "
        f"{summary['nsteps']:,} steps"
        + (f", ended by {summary['stopped_by']}" if summary["stopped_by"] else "")
    )
    console.print(
        f"  {summary['steps_per_second']:,.0f} steps/s, {summary['realtime_factor']:.2f}x real time; "
        f"ran for {summary['run_seconds']:.2f} s after {summary['compile_seconds']:.1f} s of compiling "
        "and loading kernels"
    )
    console.print(
        f"  {summary['contacts']:,} contacts and {summary['rows']:,} constraint rows at the end, "
        f"{summary['diverged'] or 'no'} world{'s' if summary['diverged'] > 1 else ''} diverged"
    )
    console.print(
        "  " + ", ".join(f"{name} {version}" for name, version in summary["versions"].items())
    )
