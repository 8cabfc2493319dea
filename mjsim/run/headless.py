"""A run without a window: stepped, streamed, recorded and summed up."""

import contextlib
import dataclasses
import hashlib
import json
import logging
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from mjsim import engines, options
from mjsim.console import say
from mjsim.errors import OutOfRoomError, SettingError
from mjsim.record import Recorder, check_path, missing_packages
from mjsim.run import divergence_dump as dump
from mjsim.run.broadcast import Broadcast, RecordedSimulation
from mjsim.run.headless_settings import HeadlessSettings
from mjsim.run.settings import versions
from mjsim.run.summary import Summary
from mjsim.run.terminal import (
    CompilationDisplay,
    RunDisplay,
    list_problems,
    pace,
    show_start,
    show_summary,
)
from mjsim.stop_signals import StopSignals
from mjsim.stream import StreamError, StreamServer

log = logging.getLogger(__name__)

BLOCK_SECONDS = 0.1  # how often the run looks at its clock, its health and its progress bar


@contextlib.contextmanager
def make_server(chosen: HeadlessSettings, stream_from: str | None = None) -> Iterator[StreamServer]:
    """The server of the run's stream, with its port taken and in the end freed."""
    if chosen.stream_world >= chosen.nworld:
        raise SettingError(
            "stream_world", f"{chosen.stream_world} is no world: 0 to {chosen.nworld - 1}"
        )
    server = StreamServer(
        model_path=stream_from or str(engines.find_file(chosen.model)),
        host=chosen.host,
        port=chosen.port,
        hz=chosen.stream_hz,
        wait=chosen.stream_wait,
        mode=chosen.stream_model,
        token=os.environ.get(options.TOKEN),
        report=log.info,
        about={"engine": chosen.name, "device": chosen.device, "model": chosen.model},
        world=chosen.stream_world,
        nworld=chosen.nworld,
    )
    server.bind()  # now, since compiling may take minutes
    try:
        yield server
    finally:
        server.stop_connection()


def run_steps(
    simulation: engines.Simulation,
    nsteps: int,
    signals: StopSignals,
    broadcast: Broadcast | None = None,
) -> float:
    """Step until `nsteps` are done or cannot be, or a signal came; seconds taken.

    They cannot be where all worlds have diverged, or there is no memory for what they need.
    """
    step = broadcast.step if broadcast else simulation.step
    told: set[str] = set()
    block, start = 1, time.perf_counter()
    with RunDisplay(simulation, nsteps) as display:
        while simulation.nstep < nsteps and signals.received is None:
            block_start = time.perf_counter()
            out_of_room = False
            try:
                step(min(block, nsteps - simulation.nstep))
                health = simulation.health()
            except OutOfRoomError:
                health, out_of_room = simulation.health(), True
            now = time.perf_counter()
            # At most doubled, since the first blocks may be slow for reasons that do not last.
            block = max(1, min(2 * block, int(block * BLOCK_SECONDS / (now - block_start))))
            for sentence in health.overflow:
                kind = sentence.partition(":")[0]
                if kind not in told:
                    told.add(kind)
                    say(f"warning: {sentence}")
            display.update(now - start)
            if out_of_room or health.ndiverged == simulation.nworld:
                break
    return time.perf_counter() - start


def summarize(
    simulation: engines.Simulation,
    model: str,
    run_seconds: float,
    stopped_by: str | None,
    server: StreamServer,
    recorder: Recorder | None = None,
) -> Summary:
    """The summary of a run, as `--json` writes it."""
    health, counts = simulation.health(), simulation.counts()
    speed = pace(simulation.nstep, simulation.nworld, simulation.mjm.opt.timestep, run_seconds)
    return {
        "name": simulation.name,
        "engine": simulation.engine,
        "law": simulation.law,
        "device": simulation.device,
        "model": model,
        "nworld": simulation.nworld,
        "nsteps": simulation.nstep,
        "steps_per_second": speed.steps_per_second,
        "realtime_factor": speed.realtime_factor,
        "compile_seconds": simulation.compile_seconds,
        "run_seconds": run_seconds,
        "contacts": counts.contacts,
        "rows": counts.rows,
        "state_sha256": hash_state(simulation),
        "diverged": health.ndiverged,
        "first_divergence": dataclasses.asdict(health.divergence) if health.divergence else None,
        "overflow": list(health.overflow),
        "grown": list(simulation.grown),
        "repairs": health.repairs,
        "stopped_by": stopped_by,
        "problems": list_problems(health, recorder) + ([server.problem] if server.problem else []),
        "stream": dataclasses.asdict(server.counters) if server.enabled else None,
        "recording": {
            "path": str(recorder.path),
            "states": recorder.nstates,
            "bytes": recorder.nbytes,
            "problem": recorder.problem,
        }
        if recorder
        else None,
        "versions": versions(),
    }


def hash_state(simulation: engines.Simulation) -> str:
    """Of qpos and qvel of all worlds: the same for runs that ended alike in every bit."""
    state = [simulation.read_all(field).tobytes() for field in ("qpos", "qvel")]
    return hashlib.sha256(b"".join(state)).hexdigest()


def check_json_path(path: str) -> None:
    """Find out before the run, not after it, that the summary cannot be written."""
    folder = Path(path).absolute().parent
    if Path(path).is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK):
        raise SettingError("json", f"{path!r} cannot be written: no writable file there")


def write_json(path: str, summary: Summary) -> None:
    """Write the summary whole or not at all."""
    partial = Path(f"{path}.partial")
    try:
        partial.write_text(json.dumps(summary, indent=2) + "\n")
        partial.replace(path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def setting_errors(model: str) -> Iterator[None]:
    """Turn an error of the stream into one that names the setting of the run."""
    try:
        yield
    except StreamError as error:
        if error.setting == "model":
            engines.load_model(model)  # what is no model at all is told as such
        setting = error.setting if error.setting in ("host", "port") else f"stream_{error.setting}"
        raise SettingError(setting, error.problem) from error


@contextlib.contextmanager
def recorded(
    chosen: HeadlessSettings, simulation: engines.Simulation
) -> Iterator[tuple[engines.Simulation | RecordedSimulation, Recorder | None]]:
    """The simulation as it is to be stepped, and what records it where that is asked for."""
    if chosen.record is None:
        yield simulation, None
        return
    world = chosen.stream_world
    with chosen.make_recorder(chosen.record, simulation, log.info, world=str(world)) as recorder:
        stepped = RecordedSimulation(simulation, recorder, world, chosen.record_hz)
        yield stepped, recorder
        stepped.record_last()


def run(
    chosen: HeadlessSettings, stream_from: str | None = None
) -> tuple[engines.Simulation, Summary]:
    """All of a run: build, stream, record, step; the simulation and its summary.

    Args:
      chosen: the settings.
      stream_from: file of the model that viewers are sent, where it is not `chosen.model`.
    """
    with setting_errors(chosen.model), make_server(chosen, stream_from) as server:
        with CompilationDisplay() as compilation:
            remember = dump.SECONDS if chosen.dump and not missing_packages() else 0.0
            simulation = chosen.make_simulation(compilation.update, remember, log.info)
        with StopSignals() as signals:
            with recorded(chosen, simulation) as (stepped, recorder):
                server.start(interrupted=lambda: signals.received is not None)
                show_start(simulation, chosen.model, chosen.nsteps)
                broadcast = Broadcast(stepped, server, chosen.realtime)
                run_seconds = run_steps(simulation, chosen.nsteps, signals, broadcast)
                broadcast.show(last=True)
            server.stop_connection()
            stopped_by = signals.received.name if signals.received else None
            summary = summarize(simulation, chosen.model, run_seconds, stopped_by, server, recorder)
            show_summary(summary)
    return simulation, summary


def main(chosen: HeadlessSettings, name: str) -> int:
    """Run, keep what led to a divergence, write the summary; the exit status.

    Args:
      chosen: the settings.
      name: of the command, for its last line.
    """
    if chosen.json:
        check_json_path(chosen.json)
    if chosen.record:
        check_path(chosen.record)
    simulation, summary = run(chosen)
    problems, status = list(summary["problems"]), 0
    if stopped_by := summary["stopped_by"]:
        status = 128 + signal.Signals[stopped_by]
    health = simulation.health()
    if health.lost:
        status = 3
    if health.divergence:
        status = 1
        if chosen.dump:
            problems[0] += f"; {dump.write_divergence(chosen, simulation)}"
    if chosen.json:
        try:
            write_json(chosen.json, summary)
        except OSError as error:
            status = status or 1
            problems.append(f"the summary is not in {chosen.json!r}: {error.strerror}")
    if problems:  # as the last line, since what was said during the run has scrolled away
        say(f"{name}: {'; '.join(problems)}")
    return status
