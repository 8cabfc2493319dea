"""Runs a simulation through a scene and records it: its states, its cost, and why it is invalid."""

import dataclasses
import time
from collections.abc import Callable

import mujoco
import numpy as np

from benchmark.common.measuring import why_invalid
from benchmark.fidelity.measures import Quantity, Trajectory
from benchmark.fidelity.scenes.scene import FidelityScene
from mjsim import engines

RUNAWAY = 200.0  # m/s or rad/s: nothing in these scenes moves like that


@dataclasses.dataclass(frozen=True)
class RecordedRun:
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
    scene: FidelityScene,
    simulation: engines.Simulation,
    stopped: Callable[[], bool] = lambda: False,
    survival: float = 0.0,
) -> RecordedRun:
    """Start a simulation as the scene says, and run and sample it for the scene's duration.

    Args:
      scene: what to do.
      simulation: at its start.
      stopped: asked between samples.
      survival: s that a run lasts at least; beyond the scene's duration only its health counts.

    Raises:
      StoppedError: `stopped` returned true.
    """
    nworld, timestep = simulation.nworld, simulation.mjm.opt.timestep
    if scene.start:
        for field, values in scene.start(simulation.mjm, nworld).items():
            simulation.write(field, values)
    script = list(scene.script(simulation.mjm)) if scene.script else []
    block = max(1, round(scene.sample / timestep))  # steps between two samples
    trajectory = _unreached(scene, simulation, block)
    last = len(trajectory.time) - 1
    seconds, contacts, rows = 0.0, [], []
    for frame in range(last + 1):
        moving = _sample(simulation, trajectory, frame)
        if frame == last or not moving:
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
    while moving and simulation.nstep * timestep < survival:
        if stopped():
            raise StoppedError
        simulation.step(block)
    speeds = np.abs(trajectory.qvel)
    peak = float(speeds[np.isfinite(speeds)].max(initial=0.0))
    health = simulation.health()
    return RecordedRun(
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


def _unreached(scene: FidelityScene, simulation: engines.Simulation, block: int) -> Trajectory:
    """The frames that a run is to reach, `block` steps apart, their states still NaN."""
    mjm, nworld = simulation.mjm, simulation.nworld
    seconds = block * mjm.opt.timestep
    nframe = round(scene.duration / seconds) + 1
    return Trajectory(
        time=np.arange(nframe) * block * mjm.opt.timestep,
        qpos=np.full((nframe, nworld, mjm.nq), np.nan),
        qvel=np.full((nframe, nworld, mjm.nv), np.nan),
    )


def _sample(simulation: engines.Simulation, trajectory: Trajectory, frame: int) -> bool:
    """Take the state of every world as a frame; whether any world is still finite."""
    for world in range(simulation.nworld):
        trajectory.qpos[frame, world] = simulation.read("qpos", world)
        trajectory.qvel[frame, world] = simulation.read("qvel", world)
    return bool(np.isfinite(trajectory.qvel[frame]).all(axis=1).any())


def why_runaway(peak_speed: float) -> str | None:
    """Why a run is as good as diverged though no number overflowed, or None."""
    if peak_speed <= RUNAWAY:
        return None
    return f"ran away: a body moved at {peak_speed:,.0f} m/s or rad/s, none should at {RUNAWAY:g}"


def measure(scene: FidelityScene, mjm: mujoco.MjModel, trajectory: Trajectory) -> list[Quantity]:
    """The scene's quantities; NaN, without a word from NumPy, where the run gave none."""
    with np.errstate(all="ignore"):
        return scene.measure(mjm, trajectory)


class NewtonReferences:
    """What MuJoCo C's Newton solver finds at a tenth of a timestep; each run once."""

    def __init__(self, integrator: str, stopped: Callable[[], bool] = lambda: False):
        self._integrator, self._stopped = integrator, stopped
        self._found: dict[tuple[str, float, int], dict[tuple[str, str], float]] = {}

    def values(
        self, scene: FidelityScene, timestep: float, nworld: int
    ) -> dict[tuple[str, str], float]:
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
