"""Run a MuJoCo model on one of three engines and watch it, in MuJoCo's window or a browser.

    python test_viewer.py --model benchmark/test_data/humanoid/humanoid.xml
    python test_viewer.py --compare mjc,mjwarp,comfree    # side by side, from the same start
    python test_viewer.py --backend web                   # a page at http://127.0.0.1:8080

Exit status: 0 window closed, Ctrl-C, SIGTERM, or --nsteps taken; 1 the X server is gone; 2 wrong
use, or no window can be opened here.
"""

import dataclasses
import time

import click

import engines
import settings
from display import CompilationDisplay, console
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

    def make_simulations(self) -> list[engines.Simulation]:
        """Build the simulation, or one for each engine to compare.

        Raises:
          engines.SettingError: a setting cannot be used on this machine or with this model.
        """
        runs = [
            dataclasses.replace(self, engine=name, device="cpu" if name == "mjc" else self.device)
            for name in self.compare or ()
        ]
        simulations = []
        for run in runs or [self]:
            with CompilationDisplay() as compilation:
                simulations.append(run.make_simulation(progress=compilation.update))
        return simulations


def main(chosen: ViewerSettings) -> int:
    try:
        with StopSignals() as signals:
            signals.waits = True
            with chosen.open_display() as display:
                simulations = chosen.make_simulations()
                signals.waits = False
                session = Session(simulations, display)
                start = time.perf_counter()
                session.run(lambda: signals.received is not None, chosen.nsteps)
                seconds = time.perf_counter() - start
    except KeyboardInterrupt:
        return 0
    console.print(f"{session.nstep:,} steps in {seconds:.2f} s of watching")
    for line in session.summary():
        console.print(line, soft_wrap=True)
    return 0


if __name__ == "__main__":
    settings.run(ViewerSettings, main, description=__doc__.split("\n\n")[0])
