"""A simulation that runs in front of a person, or several, in a window, on a page or as lines."""

import contextlib
import functools
import itertools
import logging
import time
from collections.abc import Iterator

from mjsim import interrupts
from mjsim.console import say
from mjsim.engines import Simulation
from mjsim.record import Recorder, check_path, missing_packages
from mjsim.run import divergence_dump as dump
from mjsim.run.terminal import CompilationDisplay, list_problems
from mjsim.stop_signals import StopSignals
from mjsim.view.interactive_settings import InteractiveSettings
from mjsim.view.session import Session

log = logging.getLogger(__name__)


def make_simulations(chosen: InteractiveSettings) -> list[Simulation]:
    """Build the simulation, or one for each engine to compare.

    Raises:
      SettingError: a setting cannot be used on this machine or with this model.
    """
    remember = dump.SECONDS if chosen.dump and not missing_packages() else 0.0
    simulations = []
    for run in chosen.runs:
        with CompilationDisplay() as compilation:
            simulations.append(run.make_simulation(compilation.update, remember, log.info))
    return simulations


@contextlib.contextmanager
def make_recorders(
    chosen: InteractiveSettings, simulations: list[Simulation]
) -> Iterator[list[Recorder]]:
    """What records each of the simulations, if they are to be."""
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(run.make_recorder(run.record, simulation, log.info))
            for run, simulation in zip(chosen.runs, simulations, strict=True)
            if run.record
        ]


def keep_dump(chosen: InteractiveSettings, simulation: Simulation) -> str:
    """Keep what led to a divergence; a sentence on where it is, which is logged as well."""
    run = next(run for run in chosen.runs if run.name == simulation.name)
    kept = dump.write_divergence(run, simulation) if chosen.dump else ""
    log.info(f"{simulation.name}: {simulation.health().divergence}{kept and '; '}{kept}")
    return kept


def main(chosen: InteractiveSettings, name: str) -> int:
    """Open the display, run until it is closed, and say what was run; the exit status.

    Args:
      chosen: the settings.
      name: of the command, for its last line.
    """
    for run in chosen.runs:
        if run.record:
            check_path(run.record)
    with contextlib.ExitStack() as stack:
        signals = stack.enter_context(StopSignals())
        with interrupts.Closing():
            display = stack.enter_context(chosen.open_display())
            simulations = make_simulations(chosen)
        recorders = stack.enter_context(make_recorders(chosen, simulations))
        session = Session(simulations, display, recorders, functools.partial(keep_dump, chosen))
        start = time.perf_counter()
        session.run(lambda: signals.received is not None, chosen.nsteps)
        seconds = time.perf_counter() - start
    say(f"{session.nstep:,} steps in {seconds:.2f} s of watching")
    for line in session.summary():
        say(line)
    for recorder in recorders:
        say(f"recorded: {recorder.nstates:,} states in {recorder.path}")
    problems = [
        f"{simulation.name}: {problem}"
        for simulation, recorder in itertools.zip_longest(simulations, recorders)
        for problem in list_problems(simulation.health(), recorder)
    ]
    if problems:  # as the last line, since what was said during the run has scrolled away
        say(f"{name}: {'; '.join(problems)}")
    return 0
