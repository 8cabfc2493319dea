"""The last second before a divergence, as a recording in the working directory."""

import dataclasses
import time
from pathlib import Path
from types import SimpleNamespace

from mjsim import engines
from mjsim.choices import file_name
from mjsim.errors import SettingError
from mjsim.record import missing_packages
from mjsim.run.settings import RunSettings
from mjsim.state import PUSHING_FIELDS

SECONDS = 1.0  # of simulated time


def write_divergence(chosen: RunSettings, simulation: engines.Simulation) -> str:
    """Write what led to the first divergence of a run; half a sentence on where it is.

    Whatever keeps it from being written is said instead: the run has an error to tell already.

    Args:
      chosen: the settings of the run.
      simulation: one that diverged, made to remember `SECONDS`.
    """
    if missing := missing_packages():
        return f"no dump was kept: {missing}"
    divergence = simulation.health().divergence
    assert divergence is not None  # who calls this has seen it
    world = divergence.world
    states = simulation.recall(world)
    stamp = time.strftime("%Y%m%d-%H%M%S")
    engine = file_name(simulation.name)
    path = f"diverged-{Path(chosen.model).stem}-{engine}-world{world}-{stamp}.mcap"
    # What pushes a body from outside does not change while the simulation is on its own.
    pushed = {field: simulation.read(field, world) for field in PUSHING_FIELDS}
    try:
        about = {"world": str(world), "diverged": str(divergence)}
        with chosen.make_recorder(path, simulation, lambda text: None, **about) as recorder:
            for state in states:
                recorder.write(SimpleNamespace(**dataclasses.asdict(state), **pushed), state.step)
    except SettingError as error:
        return f"no dump was kept: {error.problem}"
    if recorder.problem:
        return f"the dump in {path} ends early: {recorder.problem}"
    return f"the last second before it is in {path}"
