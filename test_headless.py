"""Run a MuJoCo model headless on one of three engines; print how fast and whether it held.

    python test_headless.py --engine comfree --model benchmark/test_data/primitives.xml
    MJSIM_ENGINE=mjwarp WARP_DEVICE=cuda:0 MJSIM_NWORLD=1024 python test_headless.py

Exit status: 0 done, 1 a world diverged, 2 wrong use, 130 or 143 interrupted (Ctrl-C, SIGTERM).
"""

import dataclasses
import json
import os
import signal
import sys
import time
from importlib import metadata
from pathlib import Path

import engines
import settings
from display import CompilationDisplay, RunDisplay, console, pace, show_start, show_summary

BLOCK_SECONDS = 0.1  # how often the run looks at its clock, its health and its progress bar


@dataclasses.dataclass(frozen=True)
class HeadlessSettings(settings.RunSettings):
    """A run, and where its state and its summary go."""

    host: str = settings.setting(
        "127.0.0.1", "--host", "MJSTREAM_HOST", "Address to stream the state from."
    )
    port: int = settings.setting(
        7000, "--port", "MJSTREAM_PORT", "Port to stream the state from; 0 or less: no streaming."
    )
    json: str | None = settings.setting(
        None,
        "--json",
        "MJSIM_JSON",
        "Write the summary to a file, for other programs.",
        metavar="FILE",
    )


class StopSignals:
    """SIGINT and SIGTERM ask a run to end after the block of steps it is in; a second one kills."""

    def __init__(self) -> None:
        self.received: signal.Signals | None = None

    def __enter__(self) -> "StopSignals":
        self._previous = {
            signum: signal.signal(signum, self._note) for signum in (signal.SIGINT, signal.SIGTERM)
        }
        return self

    def __exit__(self, *exception: object) -> None:
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)

    def _note(self, signum: int, frame: object) -> None:
        self.received = signal.Signals(signum)
        signal.signal(signum, self._previous[signum])


def run_steps(simulation: engines.Simulation, nsteps: int, signals: StopSignals) -> float:
    """Step until `nsteps` are done, all worlds have diverged or a signal came; seconds taken."""
    told: set[str] = set()
    block, start = 1, time.perf_counter()
    with RunDisplay(simulation, nsteps) as display:
        while simulation.nstep < nsteps and signals.received is None:
            block_start = time.perf_counter()
            simulation.step(min(block, nsteps - simulation.nstep))
            health = simulation.health()
            now = time.perf_counter()
            # At most doubled, since the first blocks may be slow for reasons that do not last.
            block = max(1, min(2 * block, int(block * BLOCK_SECONDS / (now - block_start))))
            for sentence in health.overflow:
                kind = sentence.partition(":")[0]
                if kind not in told:
                    told.add(kind)
                    console.print(f"warning: {sentence}")
            display.update(now - start)
            if health.ndiverged == simulation.nworld:
                break
    return time.perf_counter() - start


def summarize(
    simulation: engines.Simulation, model: str, run_seconds: float, stopped_by: str | None
) -> dict[str, object]:
    """The summary of a run, as `--json` writes it."""
    health, counts = simulation.health(), simulation.counts()
    speed = pace(simulation.nstep, simulation.nworld, simulation.mjm.opt.timestep, run_seconds)
    return {
        "engine": simulation.engine,
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
        "diverged": health.ndiverged,
        "first_divergence": health.divergence and dataclasses.asdict(health.divergence),
        "overflow": list(health.overflow),
        "stopped_by": stopped_by,
        "versions": {
            name: metadata.version(name) for name in ("mujoco", "mujoco-warp", "warp-lang", "numpy")
        },
    }


def check_json_path(path: str) -> None:
    """Find out before the run, not after it, that the summary cannot be written."""
    folder = Path(path).absolute().parent
    if Path(path).is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK):
        raise engines.SettingError("json", f"{path!r} cannot be written: no writable file there")


def write_json(path: str, summary: dict[str, object]) -> None:
    """Write the summary whole or not at all."""
    partial = Path(f"{path}.partial")
    partial.write_text(json.dumps(summary, indent=2) + "\n")
    partial.replace(path)


def main(chosen: HeadlessSettings) -> int:
    if chosen.json:
        check_json_path(chosen.json)
    with CompilationDisplay() as compilation:
        simulation = chosen.make_simulation(progress=compilation.update)
    if chosen.port > 0:
        console.print(f"streaming is not built yet: port {chosen.port} stays closed")

    with StopSignals() as signals:
        show_start(simulation, chosen.model, chosen.nsteps)
        run_seconds = run_steps(simulation, chosen.nsteps, signals)
        stopped_by = signals.received.name if signals.received else None
        summary = summarize(simulation, chosen.model, run_seconds, stopped_by)
        show_summary(summary)
        if chosen.json:
            write_json(chosen.json, summary)

    divergence = simulation.health().divergence
    if divergence:
        print(f"test_headless.py: {divergence}", file=sys.stderr)
        return 1
    return 128 + signals.received if signals.received else 0


if __name__ == "__main__":
    settings.run(HeadlessSettings, main, description=__doc__.split("\n\n")[0])
