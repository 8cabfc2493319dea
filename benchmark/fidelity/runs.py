"""Runs of the fidelity suite: what is run, measured, and told of it."""

import dataclasses
import functools
import hashlib
import json
import math
import platform
import signal
import sys
import time
from collections.abc import Callable, Iterable

import mujoco
import numpy as np
from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table

from benchmark.common import contenders as contending
from benchmark.common import machine
from benchmark.common.contenders import Contender
from benchmark.common.measuring import Row, why_invalid
from benchmark.fidelity.measures import EXACT, NEWTON, Quantity, Trajectory
from benchmark.fidelity.scenes import BY_NAME, SCENES, SWEEP, Scene
from mjsim import engines
from mjsim.cores import usable_cores
from mjsim.engines.device import warp_device
from mjsim.errors import SettingError
from mjsim.run import settings as run_settings
from mjsim.run.headless import check_json_path, write_json
from mjsim.run.terminal import CompilationDisplay
from mjsim.stop_signals import StopSignals

FORMAT = "fidelity/1"
QUICK_SWEEP = (0.002, 0.01)
SURVIVAL = 5.0  # s that a run must last to count as stable; shorter scenes go on, unmeasured
RUNAWAY = 200.0  # m/s or rad/s: nothing in these scenes moves like that
USUAL = {
    "scenes": None,
    "timesteps": None,
    "contenders": contending.DEFAULT,
    "integrator": "implicitfast",
}


# ---------------------------------------------------------------------------------- what to run


@dataclasses.dataclass(frozen=True)
class Run:
    """One scene on one contender at one timestep."""

    scene: Scene
    contender: Contender
    timestep: float
    nworld: int


@dataclasses.dataclass(frozen=True)
class Skip:
    """What a level leaves out, and why."""

    scene: str
    contender: str
    timestep: float
    reason: str


def make_plan(
    scenes: Iterable[Scene],
    compared: Iterable[Contender],
    level: str,
    timesteps: tuple[float, ...] = (),
) -> tuple[list[Run], list[Skip]]:
    """The runs of a level, contenders taking turns, and what it leaves out.

    Args:
      scenes: what to run.
      compared: on what.
      level: one of `levels.FIDELITY`.
      timesteps: s; the level's own when empty.
    """
    runs, skips = [], []
    for scene in scenes:
        nworld = scene.nworld
        if level != "full" and scene.nworld_standard:
            nworld = scene.nworld_standard
        for timestep in timesteps or (QUICK_SWEEP if level == "quick" else SWEEP):
            for contender in compared:
                reason = _left_out(scene, contender.engine, timestep, level)
                if reason:
                    skips.append(Skip(scene.name, contender.name, timestep, reason))
                else:
                    runs.append(Run(scene, contender, timestep, nworld))
    return runs, skips


def _left_out(scene: Scene, engine: str, timestep: float, level: str) -> str:
    if level == "quick" and not scene.quick:
        return "takes longer than level quick has: --level standard"
    finest = scene.finest.get(engine, 0.0)
    if level == "standard" and timestep < finest:
        return f"{engine} takes too long below {finest} s: --level full"
    return ""


# ---------------------------------------------------------------------------------------- running


@dataclasses.dataclass(frozen=True)
class Recording:
    """What a run gave.

    Attributes:
      trajectory: its sampled states.
      steps: taken and timed.
      seconds: of wall time that those steps took.
      contacts: per world, mean over samples.
      rows: constraint rows, likewise.
      compile_seconds: of compiling, loading and capturing, before the clock.
      peak_speed: largest velocity in the trajectory, m/s or rad/s.
      invalid: why it must not rank, or None.
      lost: whether contacts or rows did not fit the buffers.
    """

    trajectory: Trajectory
    steps: int
    seconds: float
    contacts: float
    rows: float
    compile_seconds: float
    peak_speed: float
    invalid: str | None
    lost: bool


class StoppedError(Exception):
    """Somebody wants the program to end."""


def record(
    scene: Scene,
    simulation: engines.Simulation,
    stopped: Callable[[], bool] = lambda: False,
    survival: float = 0.0,
) -> Recording:
    """Start a simulation as the scene says, and run and sample it for the scene's duration.

    Args:
      scene: what to do.
      simulation: at its start.
      stopped: asked between samples.
      survival: s that a run lasts at least; beyond the scene's duration only its health counts.

    Raises:
      StoppedError: `stopped` returned true.
    """
    mjm, nworld, timestep = simulation.mjm, simulation.nworld, simulation.mjm.opt.timestep
    if scene.start:
        for field, values in scene.start(mjm, nworld).items():
            simulation.write(field, values)
    script = list(scene.script(mjm)) if scene.script else []

    block = max(1, round(scene.sample / timestep))
    nblock = round(scene.duration / (block * timestep))
    trajectory = Trajectory(
        time=np.arange(nblock + 1) * block * timestep,
        qpos=np.full((nblock + 1, nworld, mjm.nq), np.nan),
        qvel=np.full((nblock + 1, nworld, mjm.nv), np.nan),
    )
    seconds, contacts, rows = 0.0, [], []
    for frame in range(nblock + 1):
        for world in range(nworld):
            trajectory.qpos[frame, world] = simulation.read("qpos", world)
            trajectory.qvel[frame, world] = simulation.read("qvel", world)
        moving = np.isfinite(trajectory.qvel[frame]).all(axis=1)
        if frame == nblock or not moving.any():
            break
        if stopped():
            raise StoppedError
        while script and trajectory.time[frame] >= script[0][0] - 1e-9:
            simulation.set_ctrl(script.pop(0)[1])
        start = time.perf_counter()
        simulation.step(block)
        simulation.synchronize()
        seconds += time.perf_counter() - start
        counts = simulation.counts()
        contacts.append(counts.contacts / nworld)
        rows.append(counts.rows / nworld)
    steps = simulation.nstep
    while moving.any() and simulation.nstep * timestep < survival:
        if stopped():
            raise StoppedError
        simulation.step(block)
    speeds = np.abs(trajectory.qvel)
    peak = float(speeds[np.isfinite(speeds)].max(initial=0.0))
    health = simulation.health()
    return Recording(
        trajectory,
        steps,
        seconds,
        float(np.mean(contacts)),
        float(np.mean(rows)),
        simulation.compile_seconds,
        peak,
        why_invalid(health) or why_runaway(peak),
        health.lost,
    )


def why_runaway(peak_speed: float) -> str | None:
    """Why a run is as good as diverged though no number overflowed, or None."""
    if peak_speed <= RUNAWAY:
        return None
    return f"ran away: a body moved at {peak_speed:,.0f} m/s or rad/s, none should at {RUNAWAY:g}"


def measure(scene: Scene, mjm: mujoco.MjModel, trajectory: Trajectory) -> list[Quantity]:
    """The scene's quantities; NaN, without a word from NumPy, where the run gave none."""
    with np.errstate(all="ignore"):
        return scene.measure(mjm, trajectory)


class NewtonReferences:
    """What MuJoCo C's Newton solver finds at a tenth of a timestep; each run once."""

    def __init__(self, integrator: str, stopped: Callable[[], bool] = lambda: False):
        self._integrator, self._stopped = integrator, stopped
        self._found: dict[tuple[str, float, int], dict[tuple[str, str], float]] = {}

    def values(self, scene: Scene, timestep: float, nworld: int) -> dict[tuple[str, str], float]:
        """Value by name and variant of the scene's quantities."""
        key = (scene.name, timestep, nworld)
        if key not in self._found:
            mjm = scene.model(timestep / 10, self._integrator)
            mjm.opt.solver = mujoco.mjtSolver.mjSOL_NEWTON
            recording = record(
                scene, engines.make_simulation(mjm, "mjc", nworld=nworld), self._stopped
            )
            self._found[key] = {
                (quantity.name, quantity.variant): quantity.value
                for quantity in measure(scene, mjm, recording.trajectory)
            }
        return self._found[key]


# ----------------------------------------------------------------------------------------- rows


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def definition(run: Run, mjm: mujoco.MjModel, integrator: str, device: str) -> Row:
    """All that decides what is measured, but not when, where or with which versions."""
    scene, opt = run.scene, mjm.opt
    return {
        "scene": scene.name,
        "revision": scene.revision,
        "contender": run.contender.name,
        "engine": run.contender.engine,
        "options": dict(run.contender.options),
        "device": run.contender.device(device),
        "timestep": run.timestep,
        "integrator": integrator,
        "duration": scene.duration,
        "sample": scene.sample,
        "nworld": run.nworld,
        "nworld_full": scene.nworld,
        "nconmax": scene.nconmax,
        "njmax": scene.njmax,
        "model_hash": scene.model_hash()[:16],
        "model_options": {
            "cone": mujoco.mjtCone(opt.cone).name.removeprefix("mjCONE_").lower(),
            "impratio": opt.impratio,
            "solver": mujoco.mjtSolver(opt.solver).name.removeprefix("mjSOL_").lower(),
            "iterations": opt.iterations,
            "ls_iterations": opt.ls_iterations,
            "tolerance": opt.tolerance,
        },
    }


def series_of(described: Row) -> str:
    """The same for what may be compared over time, whatever its contender is called."""
    decisive = {name: value for name, value in described.items() if name != "contender"}
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:16]


def make_rows(
    described: Row,
    quantities: list[Quantity],
    newton: dict[tuple[str, str], float],
    recording: Recording,
    provenance: Row,
) -> list[Row]:
    """A row per quantity of a run."""
    rows = []
    timed = recording.steps * described["timestep"]
    for quantity in quantities:
        kind, reference = EXACT, quantity.reference
        if reference is None:
            kind, reference = NEWTON, newton.get((quantity.name, quantity.variant), math.nan)
        named = {"quantity": quantity.name, "variant": quantity.variant, "unit": quantity.unit}
        with np.errstate(all="ignore"):
            error = _finite(np.float64(quantity.error(reference)))
        rows.append(
            {
                **named,
                "headline": quantity.headline,
                "value": _finite(quantity.value),
                "reference": _finite(reference),
                "reference_kind": kind,
                "error": None if recording.invalid else error,
                "error_kind": "relative" if quantity.relative else "absolute",
                **described,
                "steps": recording.steps,
                "cost": recording.seconds / timed if timed else None,
                "compile_seconds": recording.compile_seconds,
                "contacts": recording.contacts,
                "rows": recording.rows,
                "peak_speed": recording.peak_speed,
                "invalid": recording.invalid,
                "lost": recording.lost,
                "series": series_of({**described, **named}),
                **provenance,
            }
        )
    return rows


def stability(rows: list[Row]) -> list[Row]:
    """Per scene and contender, the largest timestep up to which every run survived SURVIVAL s."""
    survived: dict[tuple, dict[float, bool]] = {}
    for row in rows:
        key = (row["scene"], row["contender"], row["device"], row["integrator"])
        survived.setdefault(key, {})[row["timestep"]] = row["invalid"] is None
    found = []
    for (scene, contender, device, integrator), by_timestep in survived.items():
        largest = None
        for timestep in sorted(by_timestep):
            if not by_timestep[timestep]:
                break
            largest = timestep
        found.append(
            {
                "scene": scene,
                "contender": contender,
                "device": device,
                "integrator": integrator,
                "largest_timestep": largest,
                "timesteps": sorted(by_timestep),
                "died": [timestep for timestep in sorted(by_timestep) if not by_timestep[timestep]],
            }
        )
    return found


def describe_machine(device: str) -> Row:
    wp_device = warp_device(device)
    return {
        "cpu": machine.cpu_name(),
        "cores": usable_cores(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "device": wp_device.name,
    }


def describe_provenance() -> Row:
    """With what the rows of this command were made."""
    return {"versions": run_settings.versions(), **machine.describe_provenance()}


# --------------------------------------------------------------------------------------- the sweep


class Sweep:
    """Runs a plan and keeps its results: `document` is what goes into the JSON file."""

    def __init__(
        self, integrator: str, device: str, level: str, skips: list[Skip], selected: str = ""
    ):
        self.integrator, self.device = integrator, device
        self._signals: StopSignals | None = None
        self._newton = NewtonReferences(integrator, self._stopped)
        self._provenance = describe_provenance()
        self.document: Row = {
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

    def run(self, run: Run, mjm: mujoco.MjModel | None = None) -> list[Row]:
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
        self, runs: list[Run], keep: Callable[[Row], None], show: Callable[[Run, list[Row]], None]
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


# -------------------------------------------------------------------------------------- on screen


def headlines(rows: Iterable[Row]) -> dict[tuple[str, str], Row]:
    """The worst variant of each headline quantity, by scene and quantity."""
    worst: dict[tuple[str, str], Row] = {}
    for row in rows:
        if row["headline"]:
            key = (row["scene"], row["quantity"])
            before = worst.get(key)
            if before is None or _rank(row) > _rank(before):
                worst[key] = row
    return worst


def _rank(row: Row) -> float:
    """The error to rank by: a missing one is worse than any."""
    return math.inf if row["error"] is None else row["error"]


def _cell(row: Row | None) -> str:
    if row is None:
        return ""
    if row["error"] is None:
        return "invalid" if row["invalid"] else "none"
    if row["error_kind"] == "relative":
        return f"{100 * row['error']:.3g} %"
    return f"{row['error']:.3g} {row['unit']}".rstrip()


def show_run(console: Console, run: Run, rows: list[Row]) -> None:
    """A line per run: the headlines and the cost."""
    told = "errors: " + ", ".join(
        f"{quantity} {_cell(row)}" for (_, quantity), row in headlines(rows).items()
    )
    if rows[0]["invalid"]:
        told = f"INVALID: {rows[0]['invalid']}"
    console.print(
        f"{run.scene.name:21} {run.contender.name:13} {run.timestep:<7g} "
        f"{rows[0]['cost'] or 0:8.3f} s/s  {told}",
        soft_wrap=True,
        highlight=False,
        markup=False,
    )


def summary_table(rows: list[Row]) -> Table:
    """Worst headline error, scene by scene: a line per contender, a column per timestep."""
    timesteps = sorted({row["timestep"] for row in rows})
    table = Table(
        "scene",
        "error of",
        "contender",
        *(f"h = {timestep:g} s" for timestep in timesteps),
        box=MARKDOWN,
    )
    cells: dict[tuple[str, str, str], dict[float, Row]] = {}
    for timestep in timesteps:
        for contender in dict.fromkeys(row["contender"] for row in rows):
            some = [
                row for row in rows if (row["timestep"], row["contender"]) == (timestep, contender)
            ]
            for (scene, quantity), row in headlines(some).items():
                cells.setdefault((scene, quantity, contender), {})[timestep] = row
    order = {name: i for i, name in enumerate(BY_NAME)}
    for key in sorted(cells, key=lambda key: (order[key[0]], key[1])):
        table.add_row(*key, *(_cell(cells[key].get(timestep)) for timestep in timesteps))
    return table


def show_plan(console: Console, runs: list[Run], skips: list[Skip]) -> None:
    """What the level leaves out: a line for all scenes with the same reason."""
    for scene, nworld in {run.scene.name: run.nworld for run in runs}.items():
        if nworld < BY_NAME[scene].nworld:
            console.print(
                f"left out: {BY_NAME[scene].nworld - nworld} of {BY_NAME[scene].nworld} starts of "
                f"{scene}: all take too long: --level full",
                highlight=False,
            )
    places: dict[tuple[str, str], dict[tuple[str, float], None]] = {}
    for skip in skips:
        places.setdefault((skip.reason, skip.scene), {})[skip.contender, skip.timestep] = None
    scenes: dict[tuple[str, tuple], list[str]] = {}
    for (reason, scene), where in places.items():
        scenes.setdefault((reason, tuple(where)), []).append(scene)
    for (reason, where), names in scenes.items():
        contenders = ", ".join(dict.fromkeys(contender for contender, _ in where))
        timesteps = ", ".join(dict.fromkeys(f"{timestep:g}" for _, timestep in where))
        console.print(
            f"left out: {'; '.join(names)} on {contenders} at h = {timesteps} s: {reason}",
            soft_wrap=True,
            highlight=False,
            markup=False,
        )


# ---------------------------------------------------------------------------------------- options


def parse_scenes(text: str | None) -> tuple[Scene, ...]:
    """Scenes whose names contain one of the words between semicolons; all without any.

    Raises:
      SettingError: a word is in no name.
    """
    if not text:
        return SCENES
    words = [word.strip() for word in text.split(";")]
    for word in words:
        if not any(word in name for name in BY_NAME):
            raise SettingError("scenes", f"{word!r} is in none of {'; '.join(BY_NAME)}")
    return tuple(scene for scene in SCENES if any(word in scene.name for word in words))


def parse_timesteps(text: str | None) -> tuple[float, ...]:
    """Comma-separated timesteps in s.

    Raises:
      SettingError: one is no number above 0 and up to 0.1 s.
    """
    try:
        timesteps = tuple(float(part) for part in text.split(",")) if text else ()
    except ValueError:
        raise SettingError(
            "timesteps", f"{text!r} is no list of numbers like 0.001,0.002"
        ) from None
    for timestep in timesteps:
        if not 0 < timestep <= 0.1:
            raise SettingError("timesteps", f"{timestep:g} s is not above 0 and up to 0.1")
    return timesteps


def default_path() -> str:
    machine.RESULTS.mkdir(parents=True, exist_ok=True)
    return str(machine.RESULTS / f"{machine.file_stem('fidelity')}.json")


def keep_results(console: Console, path: str, document: Row) -> None:
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
    work = Sweep(integrator, device, level, skips, selected)
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
