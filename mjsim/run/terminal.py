"""What a run shows on a terminal: compilation, live progress, a closing summary.

All of it goes to stderr, so that stdout stays free for what a program prints for other programs.
"""

import dataclasses

from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from mjsim import engines
from mjsim.console import console, say
from mjsim.record import Recorder
from mjsim.run.summary import Summary


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
        self._task: TaskID | None = None

    def __enter__(self) -> "CompilationDisplay":
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar.live.is_started:
            self._bar.stop()

    def update(self, done: int, total: int, started: str) -> None:
        """Take a report of `comfree_warp.runtime.compilation.compile_kernels`."""
        if self._task is None:
            self._task = self._bar.add_task("", total=total)
            if console.is_terminal:
                self._bar.start()
            else:
                say(f"compiling kernels, first run only: {total} modules")
        self._bar.update(self._task, completed=done)
        if started:
            self._bar.update(self._task, description=kernel_name(started))


class RunDisplay:
    """The live line of a run: steps, simulated time, pace, contacts."""

    def __init__(self, simulation: engines.Simulation, nsteps: int) -> None:
        self._simulation = simulation
        self._bar = Progress(
            TextColumn("{task.completed:,.0f}/{task.total:,.0f}"),
            BarColumn(bar_width=8),
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
            description=f"{simulation.nstep * simulation.mjm.opt.timestep:.2f} s  "
            f"{now.steps_per_second:,.0f} steps/s  {now.realtime_factor:.2f}x real time  "
            f"{simulation.counts().contacts:,} contacts",
        )


def _worlds(nworld: int) -> str:
    return "1 world" if nworld == 1 else f"{nworld:,} worlds"


def show_start(simulation: engines.Simulation, model: str, nsteps: int) -> None:
    """Say what is about to run."""
    say(f"{simulation.place}: {nsteps:,} steps of {_worlds(simulation.nworld)} of {model}")


def list_problems(health: engines.Health, recorder: Recorder | None = None) -> list[str]:
    """What went wrong during a run, a sentence each, to be repeated at its end."""
    problems = [str(health.divergence)] if health.divergence else []
    problems += health.overflow
    if recorder and recorder.problem:
        told = f"the recording {str(recorder.path)!r} ends after {recorder.nstates:,} states"
        problems.append(f"{told}: {recorder.problem}")
    return problems


def show_summary(summary: Summary) -> None:
    """Print the summary that `headless.summarize` makes, in four to seven lines."""
    ended = f", ended by {summary['stopped_by']}" if summary["stopped_by"] else ""
    worlds_diverged = "no world"
    if summary["diverged"]:
        worlds_diverged = f"{summary['diverged']:,} of {_worlds(summary['nworld'])}"
    lines = [
        f"{summary['name']} on {summary['device']}: "
        f"{summary['nsteps']:,} steps in {summary['run_seconds']:.2f} s{ended}: "
        f"{summary['steps_per_second']:,.0f} steps/s, {summary['realtime_factor']:.2f}x real time",
        f"{summary['compile_seconds']:.2f} s before that for compiling and loading kernels",
        f"{summary['contacts']:,} contacts and {summary['rows']:,} constraint rows at the end; "
        f"{worlds_diverged} diverged",
        ", ".join(f"{name} {version}" for name, version in summary["versions"].items()),
    ]
    if summary["repairs"]:
        lines.insert(
            -1,
            "convex collisions done again because MuJoCo Warp's answer was impossible: "
            f"{summary['repairs']:,}",
        )
    if stream := summary["stream"]:
        lines.insert(
            -1,
            f"viewers: {stream['viewers']:,}, states sent: {stream['frames_sent']:,}, skipped: "
            f"{stream['frames_skipped']:,}, {stream['bytes_sent'] / 1e6:,.1f} MB; longest send "
            f"{1e6 * stream['longest_send_seconds']:,.0f} us; {stream['refused']:,} refused, "
            f"{stream['dropped']:,} dropped",
        )
    if recording := summary["recording"]:
        lines.insert(
            -1,
            f"recorded: {recording['states']:,} states, {recording['bytes'] / 1e6:,.1f} MB, in "
            f"{recording['path']}",
        )
    for line in lines:
        say(line)
