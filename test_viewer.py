"""Run a MuJoCo model on one of three engines and watch it, in MuJoCo's window or a browser.

    python test_viewer.py --model benchmark/test_data/humanoid/humanoid.xml
    python test_viewer.py --compare mjc,mjwarp,comfree    # side by side, from the same start
    python test_viewer.py --backend web                   # a page at http://127.0.0.1:8080

Exit status: 0 window closed, Ctrl-C, SIGTERM, or --nsteps taken; 1 the X server is gone; 2 wrong
use, or no window can be opened here.
"""

import contextlib
import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path

import click

import dump
import settings
from display import CompilationDisplay, console
from mjsim import engines
from recording import Recorder, check_path, missing_packages
from run_settings import EngineType, RunSettings
from session import Session
from stop_signals import StopSignals
from view_settings import ViewSettings


class EnginesType(click.ParamType):
    """Names of engines, or their numbers."""

    name = "engine,engine[,...]"

    def convert(
        self, value: str, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        names = tuple(EngineType().convert(part, param, ctx) for part in value.split(","))
        if len(names) < 2 or len(set(names)) < len(names):
            self.fail(f"{value!r} is not two engines or more, each named once", param, ctx)
        return names


@dataclasses.dataclass(frozen=True)
class ViewerSettings(RunSettings, ViewSettings):
    """A run, and where it is shown."""

    nsteps: int | None = settings.setting(
        None,
        "--nsteps",
        "MJSIM_NSTEPS",
        "Steps after which to end.  [default: until the window is closed]",
        type=click.IntRange(min=0),
        metavar="N",
    )
    compare: tuple[str, ...] | None = settings.setting(
        None,
        "--compare",
        "MJSIM_COMPARE",
        "Engines to show side by side, from the same start, instead of one; mjc is on the CPU.",
        type=EnginesType(),
    )
    record: str | None = settings.setting(
        None,
        "--record",
        "MJSIM_RECORD",
        "Record what is shown to a file (MCAP), which must not exist; one for each engine.",
        metavar="FILE",
    )
    dump: bool = settings.setting(
        True,
        "--dump/--no-dump",
        "MJSIM_DUMP",
        "When a world diverges, keep the last second before it as a recording.",
    )

    @property
    def runs(self) -> "list[ViewerSettings]":
        """The settings of each engine's run."""
        if self.compare is None:
            return [self]
        record = Path(self.record) if self.record else None
        return [
            dataclasses.replace(
                self,
                engine=name,
                device="cpu" if name == "mjc" else self.device,
                record=record and str(record.with_stem(f"{record.stem}-{name}")),
            )
            for name in self.compare
        ]

    def make_simulations(self) -> list[engines.Simulation]:
        """Build the simulation, or one for each engine to compare.

        Raises:
          SettingError: a setting cannot be used on this machine or with this model.
        """
        remember = dump.SECONDS if self.dump and not missing_packages() else 0.0
        simulations = []
        for run in self.runs:
            with CompilationDisplay() as compilation:
                simulations.append(run.make_simulation(compilation.update, remember, say))
        return simulations

    @contextlib.contextmanager
    def make_recorders(self, simulations: list[engines.Simulation]) -> Iterator[list[Recorder]]:
        """What records each of the simulations, if they are to be."""
        with contextlib.ExitStack() as stack:
            yield [
                stack.enter_context(run.make_recorder(run.record, simulation, say))
                for run, simulation in zip(self.runs, simulations, strict=True)
                if run.record
            ]

    def keep_dump(self, simulation: engines.Simulation) -> str:
        """Keep what led to a divergence; a sentence on where it is, said on stderr as well."""
        run = next(run for run in self.runs if run.engine == simulation.engine)
        kept = dump.write_divergence(run, simulation) if self.dump else ""
        say(f"{simulation.engine}: {simulation.health().divergence}{kept and '; '}{kept}")
        return kept


def say(text: str) -> None:
    console.print(text, soft_wrap=True, markup=False)


def main(chosen: ViewerSettings) -> int:
    for run in chosen.runs:
        if run.record:
            check_path(run.record)
    try:
        with StopSignals() as signals:
            signals.waits = True
            with chosen.open_display() as display:
                simulations = chosen.make_simulations()
                signals.waits = False
                with chosen.make_recorders(simulations) as recorders:
                    session = Session(simulations, display, recorders, chosen.keep_dump)
                    start = time.perf_counter()
                    session.run(lambda: signals.received is not None, chosen.nsteps)
                    seconds = time.perf_counter() - start
    except KeyboardInterrupt:
        return 0
    say(f"{session.nstep:,} steps in {seconds:.2f} s of watching")
    for line in session.summary():
        say(line)
    for recorder in recorders:
        say(f"recorded: {recorder.nstates:,} states in {recorder.path}")
    return 0


if __name__ == "__main__":
    settings.run(ViewerSettings, main, description=__doc__.split("\n\n")[0])
