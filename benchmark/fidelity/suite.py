"""Runs a plan of the fidelity suite, and writes its results after every run."""

import dataclasses
import functools
import signal
import sys
import time
from collections.abc import Callable

import mujoco
from rich.console import Console

from benchmark.common import contenders as contending
from benchmark.common import machine
from benchmark.common.measuring import ResultRow
from benchmark.fidelity.plan import Run, Skip, make_plan, parse_scenes, parse_timesteps
from benchmark.fidelity.record import RUNAWAY, NewtonReferences, StoppedError, measure, record
from benchmark.fidelity.results import stability
from benchmark.fidelity.rows import definition, describe_machine, describe_provenance, make_rows
from benchmark.fidelity.scenes import SCENES
from benchmark.fidelity.tables import show_plan, show_run, summary_table
from mjsim import engines
from mjsim.engines.device import warp_device
from mjsim.run.headless import check_json_path, write_json
from mjsim.run.terminal import CompilationDisplay
from mjsim.stop_signals import StopSignals

FORMAT = "fidelity/1"
SURVIVAL = 5.0  # s that a run must last to count as stable; shorter scenes go on, unmeasured
USUAL = {
    "scenes": None,
    "timesteps": None,
    "contenders": contending.DEFAULT,
    "integrator": "implicitfast",
}


class FidelitySuite:
    """Runs a plan and keeps its results: `document` is what goes into the JSON file."""

    def __init__(
        self, integrator: str, device: str, level: str, skips: list[Skip], selected: str = ""
    ):
        self.integrator, self.device = integrator, device
        self._signals: StopSignals | None = None
        self._newton = NewtonReferences(integrator, self._stopped)
        self._provenance = describe_provenance()
        self.document: ResultRow = {
            "format": FORMAT,
            **self._provenance,
            "machine": describe_machine(device),
            "level": level,
            "selected": selected,
            "integrator": integrator,
            "survival": SURVIVAL,
            "runaway": RUNAWAY,
            "scenes": {scene.name: scene.about for scene in SCENES},
            "ended": None,
            "skipped": [dataclasses.asdict(skip) for skip in skips],
            "stability": [],
            "rows": [],
        }

    def _stopped(self) -> bool:
        return self._signals is not None and self._signals.received is not None

    def run(self, run: Run, mjm: mujoco.MjModel | None = None) -> list[ResultRow]:
        """Run and measure; the rows are returned and kept.

        Args:
          run: what to run.
          mjm: another model than the scene's own, to find out whether the suite notices.

        Raises:
          StoppedError: a signal came.
        """
        scene = run.scene
        if mjm is None:
            mjm = scene.model(run.timestep, self.integrator)
        recording = record(scene, self._make_simulation(run, mjm), self._stopped, SURVIVAL)
        quantities = measure(scene, mjm, recording.trajectory)
        newton = {}
        if any(quantity.reference is None for quantity in quantities) and not recording.invalid:
            newton = self._newton.values(scene, run.timestep, run.nworld)
        described = definition(run, mjm, self.integrator, self.device)
        rows = make_rows(described, quantities, newton, recording, self._provenance)
        self.document["rows"] += rows
        self.document["stability"] = stability(self.document["rows"])
        return rows

    def _make_simulation(self, run: Run, mjm: mujoco.MjModel) -> engines.Simulation:
        """Compile, which may take minutes and never looks for signals."""
        if self._signals:
            self._signals.waits = True
        try:
            with CompilationDisplay() as display:
                return run.contender.make_simulation(
                    mjm,
                    self.device,
                    run.nworld,
                    run.scene.nconmax,
                    run.scene.njmax,
                    progress=display.update,
                )
        finally:
            if self._signals:
                self._signals.waits = False

    def run_all(
        self,
        runs: list[Run],
        keep: Callable[[ResultRow], None],
        show: Callable[[Run, list[ResultRow]], None],
    ) -> int | None:
        """Run a plan; the signal that ended it, if one did.

        Args:
          runs: the plan.
          keep: called with the document after every run, and at the end.
          show: called with every run and its rows.
        """
        start = time.perf_counter()
        with StopSignals() as self._signals:
            for run in runs:
                try:
                    rows = self.run(run)
                except (StoppedError, KeyboardInterrupt):
                    break
                keep(self.document)
                show(run, rows)
                if self._stopped():
                    break
            ended_by = self._signals.received
            self.document["ended"] = ended_by.name if ended_by else "complete"
            self.document["seconds"] = time.perf_counter() - start
            keep(self.document)
        return ended_by


def default_path() -> str:
    machine.RESULTS.mkdir(parents=True, exist_ok=True)
    return str(machine.RESULTS / f"{machine.file_stem('fidelity')}.json")


def keep_results(console: Console, path: str, document: ResultRow) -> None:
    """Write the results; a full disk does not end the sweep, since the next run tries again."""
    try:
        write_json(path, document)
    except OSError as error:
        console.print(f"warning: {path} is not up to date: {error}", soft_wrap=True, markup=False)


def run_suite(
    names: str,
    device: str,
    words: str | None,
    sweep: str | None,
    level: str,
    integrator: str,
    path: str | None,
) -> signal.Signals | None:
    """Run what the flags of `fidelity.py` choose, and keep the results; the signal that ended it.

    Raises:
      SettingError: a flag cannot be used.
    """
    console = Console(width=None if sys.stdout.isatty() else 200)
    path = path or default_path()
    check_json_path(path)
    warp_device(device)
    runs, skips = make_plan(
        parse_scenes(words), contending.parse_all(names), level, parse_timesteps(sweep)
    )
    show_plan(console, runs, skips)
    chosen = {"scenes": words, "timesteps": sweep, "contenders": names}
    selected = machine.describe_selection({**chosen, "integrator": integrator}, USUAL)
    work = FidelitySuite(integrator, device, level, skips, selected)
    ended_by = work.run_all(
        runs,
        keep=functools.partial(keep_results, console, path),
        show=lambda run, rows: show_run(console, run, rows),
    )
    console.print(summary_table(work.document["rows"]))
    console.print(f"{len(work.document['rows'])} rows in {path}", soft_wrap=True)
    if ended_by:
        console.print(f"ended by {ended_by.name} before all {len(runs)} runs were done")
    return ended_by
