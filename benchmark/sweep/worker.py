"""What a worker of a sweep does: the code of test_headless.py, or of the fidelity suite.

Imported on the node that runs it, from the code that the driver sent.
"""

import fcntl
import functools
import os
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import warp as wp

from benchmark.common.contenders import KINDS, Contender
from benchmark.fidelity.measures import Trajectory, penetrations
from benchmark.fidelity.plan import Run
from benchmark.fidelity.results import worst_headlines
from benchmark.fidelity.scenes import BY_NAME
from benchmark.fidelity.suite import FidelitySuite
from benchmark.sweep.cases import LAW, Case
from mjsim import engines
from mjsim.engines.device import warp_device
from mjsim.errors import SettingError
from mjsim.run import headless
from mjsim.run import settings as run_settings
from mjsim.run import terminal as display
from mjsim.run.headless_settings import HeadlessSettings

TIMESTEP = 0.002  # s, of a scene whose case names none
INTEGRATOR = "implicitfast"  # of scenes


class VersionError(Exception):
    """This node has other packages than the driver: its results would be of something else."""


def check_versions(expected: dict[str, str]) -> None:
    """Raises VersionError: a package differs here."""
    found = run_settings.versions()
    if found != expected:
        raise VersionError(f"{platform.node()} has {found}, the driver {expected}")


def _compile_once(key: str, build: Callable[[], object]) -> None:
    """Let one worker of a node compile what a key needs, and the others wait to find it cached."""
    warp_device("cpu")
    folder = Path(wp.config.kernel_cache_dir)
    folder.mkdir(parents=True, exist_ok=True)
    mark = folder / f"sweep-{key}"
    if mark.exists():
        return
    with (folder / "sweep.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not mark.exists():
            build()
            mark.touch()


def _model_file(model: bytes, key: str) -> str:
    """A file with the model, written once per node and user."""
    folder = Path(tempfile.gettempdir()) / f"comfree-sweep-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    path = folder / f"{key}.mjb"
    if not path.exists():
        partial = path.with_suffix(f".{os.getpid()}")
        partial.write_bytes(model)
        partial.replace(path)
    return str(path)


def _unpack(packet: dict[str, Any]) -> str:
    """The XML of a model in a folder with the files that it refers to."""
    folder = Path(tempfile.mkdtemp(prefix="comfree-watched-"))
    for name, content in packet["assets"].items():
        (folder / Path(name).name).write_bytes(content)
    path = folder / "model.xml"
    path.write_text(packet["xml"])
    return str(path)


def headless_settings(case: Case, path: str, port: int = 0) -> HeadlessSettings:
    """The case as test_headless.py takes it."""
    return HeadlessSettings(
        engine=case.engine,
        model=path,
        nsteps=case.nsteps,
        timestep=case.timestep,
        nworld=case.nworld or 1,
        device=case.device,
        ctrl_noise=case.ctrl_noise,
        seed=case.seed,
        port=port,
        dump=False,
        stiffness=None if case.stiffness is None else (case.stiffness,),
        damping=None if case.damping is None else (case.damping,),
        law=case.law,
        passes=case.passes,
        fixed_buffers=case.fixed_buffers,
    )


def _run_model(
    case: Case, key: str, path: str, port: int = 0, packet: dict[str, Any] | None = None
) -> dict[str, Any]:
    chosen = headless_settings(case, path, port)
    if case.engine != "mjc":
        _compile_once(key, chosen.make_simulation)
    simulation, summary = headless.run(chosen, _unpack(packet) if packet else None)
    qpos, qvel = (simulation.read(field)[None, None] for field in ("qpos", "qvel"))
    depths = 1e3 * penetrations(simulation.mjm, Trajectory(np.zeros(1), qpos, qvel))
    summary["model"] = case.model
    measured = {
        "steps_per_second": summary["steps_per_second"],
        "penetration, mean at the end, mm": float(depths.mean()),
        "penetration, largest at the end, mm": float(depths.max()),
    }
    health = simulation.health()
    status, error = "done", None
    if health.divergence:
        status, error = "diverged", str(health.divergence)
    elif health.lost:
        status, error = "overflow", "; ".join(health.overflow)
    return {
        "status": status,
        "error": error,
        "measured": _finite(measured),
        "summary": summary,
    }


def _run_scene(case: Case, key: str) -> dict[str, Any]:
    scene = BY_NAME[case.scene]
    kind = f"comfree-{case.law or engines.LAWS[0]}" if case.engine == "comfree" else case.engine
    law = {name: value for name in LAW if (value := getattr(case, name)) is not None}
    contender = Contender(kind, case.engine, {**KINDS[kind][1], **law})
    timestep = case.timestep or TIMESTEP
    nworld = case.nworld or scene.nworld_standard or scene.nworld
    if case.engine != "mjc":
        mjm, sizes = scene.model(timestep, INTEGRATOR), (scene.nconmax, scene.njmax)
        build = functools.partial(contender.make_simulation, mjm, case.device, nworld, *sizes)
        _compile_once(key, build)
    rows = FidelitySuite(INTEGRATOR, case.device, "standard", []).run(
        Run(scene, contender, timestep, nworld)
    )
    measured = {
        f"{quantity}, error{' in ' + row['unit'] if row['unit'] else ''}": row["error"]
        for (_, quantity), row in worst_headlines(rows).items()
    }
    invalid, status = rows[0]["invalid"], "done"
    if invalid:
        status = "overflow" if rows[0]["lost"] else "diverged"
    return {
        "status": status,
        "error": invalid,
        "measured": measured,
        "summary": {"cost": rows[0]["cost"], "contacts": rows[0]["contacts"]},
    }


def _finite(values: dict[str, float]) -> dict[str, float | None]:
    return {name: value if np.isfinite(value) else None for name, value in values.items()}


def run_case(
    case: Case,
    key: str,
    model: bytes | None,
    versions: dict[str, str],
    watched: tuple[int, dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """Run a case; what is known of it afterwards, whatever happened.

    Args:
      case: what to run.
      key: names the model, or the scene, with its engine and law.
      model: MJB; None for a scene.
      versions: those of the driver.
      watched: the port to stream at, and the model for viewers; None: nobody watches.

    Raises:
      VersionError: this node has other versions.
    """
    check_versions(versions)
    display.console.quiet = True
    start = time.perf_counter()
    try:
        if model is None:
            found = _run_scene(case, key)
        else:
            found = _run_model(case, key, _model_file(model, key), *(watched or ()))
    except Exception as error:
        problem = f"{error.setting}: {error.problem}" if isinstance(error, SettingError) else error
        found = {
            "status": "failed",
            "error": f"{type(error).__name__}: {' '.join(str(problem).split())}",
            "measured": {},
            "summary": {},
        }
    return {
        **found,
        "seconds": time.perf_counter() - start,
        "node": platform.node(),
        "pid": os.getpid(),
    }
