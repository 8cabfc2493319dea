"""Measures the speed of contenders on a scene, and makes rows of results of it.

All contenders of a scene and a number of worlds are built first and then take turns, on whatever
devices they are. A round starts from the same state for all, with the same controls, and in caches
that hold what the contender needs, not what the one before it did.
"""

import dataclasses
import functools
import time
from collections.abc import Callable, Sequence

import mujoco
import numpy as np

from benchmark.common.contenders import Contender
from benchmark.common.machine import DeviceMemory, HostMemory, versions
from benchmark.common.measuring import (
    ResultRow,
    definition_hash,
    interleaved_times,
    mean_and_max,
    mean_and_p95,
    predict,
    spread,
    why_invalid,
)
from benchmark.common.models import model_hash
from benchmark.speed.scenes import SpeedScene
from mjsim import engines
from mjsim.engines.buffers import size_buffers
from mjsim.errors import SettingError
from mjsim.run.terminal import pace

REVISION = 2  # of the measurement: raise it when rows of before must not be compared any more
SEED = 0
SAMPLES = 40
MJWARP_MAX_NV = 10_000  # see crashes
STATE = ("qpos", "qvel", "act", "ctrl")


@dataclasses.dataclass(frozen=True)
class Entry:
    """A contender on a device."""

    contender: Contender
    device: str

    @property
    def name(self) -> str:
        return f"{self.contender.name} on {self.device}"


@dataclasses.dataclass(frozen=True)
class Measured:
    """A row of results, and the seconds of its rounds."""

    row: ResultRow
    times: list[float]


@dataclasses.dataclass(frozen=True)
class Skipped:
    """Why there is no row."""

    reason: str


# --------------------------------------------------------------------------------------- the start


@functools.lru_cache(maxsize=2)
def _settled(scene: SpeedScene) -> tuple[mujoco.MjModel, dict[str, np.ndarray], dict[str, int]]:
    """The model, the state of one world after settling on MuJoCo C, and the sizes of buffers."""
    mjm = scene.load()
    source = engines.make_simulation(mjm, "mjc", noise=engines.ControlNoise(scene.noise, SEED + 1))
    source.step(scene.settle)
    divergence = source.health().divergence
    if divergence:
        raise SettingError("scenes", f"{scene.name!r} does not settle: {divergence}")
    state = {field: source.read(field) for field in STATE}
    state["ctrl"] = engines.initial_data(mjm).ctrl.copy()
    return mjm, state, size_buffers(mjm, scene.probe)


class Start:
    """Puts simulations into the state that every round of a scene starts from.

    Attributes:
      mjm: the model.
      sizes: nconmax, njmax and nccdmax per world.
    """

    def __init__(self, scene: SpeedScene, nworld: int):
        self.mjm, state, self.sizes = _settled(scene)
        self._state = {field: np.tile(values, (nworld, 1)) for field, values in state.items()}
        shaken = np.random.default_rng(SEED).normal(0.0, scene.shake, self._state["qvel"].shape)
        self._state["qvel"] += shaken
        # Some engines know single precision only, and all start from the very same numbers.
        self._state = {field: np.float32(values) for field, values in self._state.items()}

    def restore(self, simulation: engines.Simulation) -> None:
        """Write the state to all worlds, and wait until it is there."""
        for field, values in self._state.items():
            simulation.write(field, values)
        simulation.synchronize()

    def prepare(self, simulation: engines.Simulation) -> None:
        """What comes before a round, off the clock: a step that warms the caches, and the state."""
        advance(simulation, 1)
        self.restore(simulation)


# ----------------------------------------------------------------------------------- what is timed


def advance(simulation: engines.Simulation, nsteps: int) -> None:
    """The warm step."""
    simulation.step(nsteps)
    simulation.synchronize()


def advance_copying(simulation: engines.Simulation, nsteps: int) -> None:
    """The step with the state of all worlds copied to the host after it."""
    for _ in range(nsteps):
        simulation.step()
        simulation.read_all("qpos")
        simulation.read_all("qvel")


class Idle:
    """Does nothing where a simulation steps: what it takes is the suite's own time."""

    def step(self, n: int = 1) -> None: ...
    def synchronize(self) -> None: ...


class Yardstick:
    """A fixed piece of work, bare MuJoCo C on one core: what it takes is how fast the machine is.

    Two runs of an unchanged program differ by as much, where others use the machine too.
    """

    NSTEPS = 4000
    MJCF = """<mujoco><worldbody><geom type="plane" size="1 1 1"/>
      <body pos="0 0 .3"><freejoint/><geom type="capsule" size=".05 .1"/>
        <body pos="0 0 .2"><joint/><geom size=".05"/></body></body>
    </worldbody></mujoco>"""

    def __init__(self) -> None:
        self._mjm = mujoco.MjModel.from_xml_string(self.MJCF)
        self._mjd = mujoco.MjData(self._mjm)

    def restore(self) -> None:
        mujoco.mj_resetData(self._mjm, self._mjd)

    def run(self) -> None:
        mujoco.mj_step(self._mjm, self._mjd, self.NSTEPS)


# --------------------------------------------------------------------------------------- one group


@dataclasses.dataclass
class _Competitor:
    """A contender as it is measured: its simulation, and what was seen of it."""

    entry: Entry
    simulation: engines.Simulation
    host_memory: int | None
    device_memory: int | None
    compiled: int
    build_seconds: float
    counts: list[engines.WorldCounts]


def crashes(mjm: mujoco.MjModel, entry: Entry) -> str | None:
    """Why an engine would end the whole run with an illegal instruction, or None.

    Seen with mujoco_warp 4.0.0 after its symbolic factorization of 15,000 dofs, not of 4,500.
    """
    if entry.contender.engine != "mjwarp" or entry.device != "cpu" or mjm.nv < MJWARP_MAX_NV:
        return None
    return f"its sparse factorization of {mjm.nv:,} dofs crashes on CPUs"


class PointBudget:
    """What the points of growing scenes took so far, to tell whether the next is too much.

    Args:
      budget: s that a point may take, building and rounds together.
    """

    def __init__(self, budget: float):
        self._budget = budget
        self._steps: dict[tuple[str, str], list[tuple[float, float]]] = {}
        self._builds: dict[tuple[str, str], list[tuple[float, float]]] = {}

    def too_much(self, scene: SpeedScene, entry: Entry, nsteps: int) -> str | None:
        """Why a point is left out, or None; `nsteps` are those of all its rounds."""
        key = (scene.family, entry.name)
        if not scene.family or key not in self._steps:
            return None
        seconds = predict(self._steps[key], scene.size) * nsteps
        seconds += predict(self._builds.get(key, []), scene.size) or 0.0
        if seconds <= self._budget:
            return None
        return (
            f"would take about {seconds:.0f} s, by the points before it, and a point has "
            f"{self._budget:g} s: --budget"
        )

    def note(self, scene: SpeedScene, measured: _Competitor, step_seconds: float) -> None:
        """Take what a point took."""
        key = (scene.family, measured.entry.name)
        self._steps.setdefault(key, []).append((scene.size, step_seconds))
        if not measured.compiled:  # else it says nothing of the next one
            self._builds.setdefault(key, []).append((scene.size, measured.build_seconds))


def _build(entry: Entry, scene: SpeedScene, start: Start, nworld: int, nsteps: int) -> _Competitor:
    """Build, compile, capture and warm up."""
    host, device = HostMemory(), DeviceMemory(entry.device)
    totals = [0]
    begin = time.perf_counter()
    simulation = entry.contender.make_simulation(
        start.mjm,
        entry.device,
        nworld,
        **start.sizes,
        noise=engines.ControlNoise(scene.noise, SEED),
        progress=lambda done, total, name: totals.append(total),
    )
    build_seconds = time.perf_counter() - begin
    start.restore(simulation)
    counts = _counted_round(simulation, nsteps)
    return _Competitor(
        entry, simulation, host.peak(), device.peak(), max(totals), build_seconds, counts
    )


def _counted_round(simulation: engines.Simulation, nsteps: int) -> list[engines.WorldCounts]:
    """A round off the clock, and what there was to do after `SAMPLES` of its steps, or a few more.

    What contacts there are changes within a round, and the time of a round is that of them all.
    """
    counts = []
    every = max(1, nsteps // SAMPLES)
    for done in range(0, nsteps, every):
        advance(simulation, min(every, nsteps - done))
        counts.append(simulation.world_counts())
    return counts


def measure_group(
    scene: SpeedScene,
    nworld: int,
    entries: Sequence[Entry],
    rounds: int,
    points: PointBudget,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Measured | Skipped]:
    """Rows of all entries by name, measured in rounds that take turns.

    Args:
      scene: what to measure.
      nworld: number of worlds.
      entries: what takes turns.
      rounds: of the warm step; of the step with copies a third, but three at least.
      points: what growing scenes took.
      clock: gives seconds.
    """
    start, nsteps = Start(scene, nworld), scene.nsteps(nworld)
    copied_rounds = 0 if scene.family else max(3, rounds // 3)
    found: dict[str, Measured | Skipped] = {}
    competitors: dict[str, _Competitor] = {}
    for entry in entries:
        reason = crashes(start.mjm, entry) or points.too_much(scene, entry, nsteps * (rounds + 1))
        if reason is None:
            try:
                competitors[entry.name] = _build(entry, scene, start, nworld, nsteps)
            except SettingError as error:
                if error.setting == "WARP_CACHE_PATH":  # nothing that the contender could help
                    raise
                reason = error.problem
            except RuntimeError as error:
                if "alloc" not in str(error):
                    raise
                reason = f"needs more memory than {entry.device} has: {error}"
        if reason is not None:
            found[entry.name] = Skipped(reason)
    if not competitors:
        return found

    simulations = {name: each.simulation for name, each in competitors.items()}
    prepare = {name: functools.partial(start.prepare, it) for name, it in simulations.items()}
    run = {name: functools.partial(advance, it, nsteps) for name, it in simulations.items()}
    yardstick = Yardstick()
    own = {"idle": functools.partial(advance, Idle(), nsteps), "yardstick": yardstick.run}
    before = {"idle": lambda: None, "yardstick": yardstick.restore}
    times = interleaved_times(run | own, rounds, prepare | before, clock=clock)
    copy = {
        name: functools.partial(advance_copying, it, nsteps) for name, it in simulations.items()
    }
    copied = interleaved_times(copy, copied_rounds, prepare, clock=clock)
    own_times = {name: float(np.median(times[name])) for name in own}
    for name, each in competitors.items():
        row = make_row(scene, start, each, nsteps, times[name], copied[name], own_times)
        found[name] = Measured(row, times[name])
        points.note(scene, each, row["time_per_step"]["median"])
    return found


# ------------------------------------------------------------------------------------------- rows


def _name(enumeration: type, value: int) -> str:
    return enumeration(value).name.partition("_")[2].lower()


def define(scene: SpeedScene, start: Start, entry: Entry, nworld: int, nsteps: int) -> ResultRow:
    """All that decides what a row measures, but not when, where, nor how often."""
    mjm, opt = start.mjm, start.mjm.opt
    return {
        "revision": REVISION,
        "scene": scene.name,
        "contender": entry.contender.name,
        "engine": entry.contender.engine,
        "options": dict(entry.contender.options),
        "device": entry.device,
        "nworld": nworld,
        "steps": nsteps,
        "settle": scene.settle,
        "noise": scene.noise,
        "shake": scene.shake,
        "seed": SEED,
        "model": "generated" if scene.generated else scene.model,
        "model_hash": model_hash(mjm),
        "model_options": {
            "timestep": opt.timestep,
            "integrator": _name(mujoco.mjtIntegrator, opt.integrator),
            "cone": _name(mujoco.mjtCone, opt.cone),
            "jacobian": _name(mujoco.mjtJacobian, opt.jacobian),
            "solver": _name(mujoco.mjtSolver, opt.solver),
            "iterations": opt.iterations,
            "ls_iterations": opt.ls_iterations,
            "tolerance": opt.tolerance,
            "ls_tolerance": opt.ls_tolerance,
            "impratio": opt.impratio,
            "disableflags": opt.disableflags,
            "enableflags": opt.enableflags,
        },
        "sizes": {
            **{name: int(getattr(mjm, name)) for name in ("nq", "nv", "nu", "nbody", "ngeom")},
            # Not nccdmax, which no time depends on.
            **{name: start.sizes[name] for name in ("nconmax", "njmax")},
        },
        "versions": versions(),
    }


def make_row(
    scene: SpeedScene,
    start: Start,
    measured: _Competitor,
    nsteps: int,
    times: Sequence[float],
    copied: Sequence[float],
    own: dict[str, float],
) -> ResultRow:
    """A row of results.

    Args:
      scene: what was measured.
      start: of every round.
      measured: the contender.
      nsteps: steps in a round.
      times: s of each round of the warm step.
      copied: s of each round of the step with copies.
      own: s of a round of the suite's own competitors, "idle" and "yardstick".
    """
    simulation, entry = measured.simulation, measured.entry
    nworld, health = simulation.nworld, simulation.health()
    definition = define(scene, start, entry, nworld, nsteps)
    per_step = spread(np.divide(times, nsteps))
    speed = pace(1, nworld, simulation.mjm.opt.timestep, per_step["median"])
    invalid = why_invalid(health)
    iterations = [it.iterations for it in measured.counts if it.iterations is not None]
    return {
        "kind": "step",
        "scene": scene.name,
        "contender": entry.contender.name,
        "engine": entry.contender.engine,
        "options": dict(entry.contender.options),
        "device": entry.device,
        "nworld": nworld,
        "family": scene.family,
        "valid": invalid is None,
        "invalid": invalid,
        "time_per_step": per_step,
        "time_per_step_copied": spread(np.divide(copied, nsteps)) if len(copied) else None,
        "compile_seconds": simulation.compile_seconds,
        "compiled_modules": measured.compiled,
        "steps_per_second": speed.steps_per_second,
        "realtime_factor": speed.realtime_factor,
        "contacts": mean_and_p95(np.array([it.contacts for it in measured.counts])),
        "rows": mean_and_p95(np.array([it.rows for it in measured.counts])),
        "iterations": mean_and_max(np.array(iterations)) if iterations else None,
        "host_memory": measured.host_memory,
        "device_memory": measured.device_memory,
        "diverged": health.ndiverged,
        "overflow": list(health.overflow),
        "overhead": own["idle"] / min(times),
        "yardstick": own["yardstick"],
        "series": definition_hash(definition),
        "definition": definition,
    }
