"""Result rows of the fidelity suite: a row per quantity of a run, with its whole definition."""

import hashlib
import json
import math
import platform

import mujoco
import numpy as np

from benchmark.common import machine
from benchmark.common.measuring import ResultRow
from benchmark.fidelity.measures import EXACT, NEWTON, Quantity
from benchmark.fidelity.plan import Run
from benchmark.fidelity.record import RecordedRun
from mjsim.cores import usable_cores
from mjsim.engines.device import warp_device
from mjsim.run import settings as run_settings


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def definition(run: Run, mjm: mujoco.MjModel, integrator: str, device: str) -> ResultRow:
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


def series_of(described: ResultRow) -> str:
    """The same for what may be compared over time, whatever its contender is called."""
    decisive = {name: value for name, value in described.items() if name != "contender"}
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:16]


def make_rows(
    described: ResultRow,
    quantities: list[Quantity],
    newton: dict[tuple[str, str], float],
    recording: RecordedRun,
    provenance: ResultRow,
) -> list[ResultRow]:
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


def describe_machine(device: str) -> ResultRow:
    wp_device = warp_device(device)
    return {
        "cpu": machine.cpu_name(),
        "cores": usable_cores(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "device": wp_device.name,
    }


def describe_provenance() -> ResultRow:
    """With what the rows of this command were made."""
    return {"versions": run_settings.versions(), **machine.describe_provenance()}
