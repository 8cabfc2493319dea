"""Run many cases, on the cores of this machine or on a Ray cluster, into one table.

    python -m benchmark.sweep benchmark/sweeps/stiffness_damping.toml       # make sweep
    python -m benchmark.sweep --model "benchmark/test_data/*.xml" --engine mjc,comfree --seed 0,1
    RAY_ADDRESS=head:6379 python -m benchmark.sweep FILE                    # on a cluster

A file is TOML: settings with a value or a list each, of which the product is run, and perhaps
tables `[[cases]]` on top. Flags add to it or take the place of what it says. A row per case goes to
the table as soon as the case ends; the same command again runs what is missing.

Exit status: 0 all cases are in the table, 2 wrong use, 130 or 143 interrupted.
"""

import contextlib
import dataclasses
import importlib.util
import os
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from benchmark.common.machine import RESULTS, describe_provenance
from benchmark.sweep.cases import KINDS, Case, Models, case_id, expand, read_file, split_flag
from benchmark.sweep.table import Table, read_rows
from mjsim import interrupts
from mjsim.cores import usable_cores
from mjsim.errors import SettingError
from mjsim.model.files import REPOSITORY
from mjsim.run.settings import versions
from mjsim.stop_signals import StopSignals

SHIPPED = (
    *("*.py", "comfree_warp/**/*.py", "mjsim/**/*.py"),
    *("benchmark/**/*.py", "benchmark/test_data/**/*"),
)
ATTEMPTS = 3  # of a case whose process or node died
POLL = 0.2  # s between two looks at the cluster


def require_ray(address: str | None) -> Any:
    """Ray, imported without a word to its makers; without an address it keeps to 127.0.0.1.

    Raises:
      SettingError: it is not installed.
    """
    if importlib.util.find_spec("ray") is None:
        raise SettingError("ray", "is not installed: pip install 'comfree-warp[sweep]'")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if not address:  # by its name for systems on which it does so anyway
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    import ray

    return ray


@contextlib.contextmanager
def shipped_code() -> Iterator[str]:
    """A folder with what a worker runs, to be sent to the nodes."""
    with tempfile.TemporaryDirectory(prefix="comfree-sweep-code-") as folder:
        for pattern in SHIPPED:
            for source in REPOSITORY.glob(pattern):
                if source.is_file():
                    target = Path(folder) / source.relative_to(REPOSITORY)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(source, target)
        yield folder


def check_answers(address: str) -> None:
    """Raises SettingError: nobody listens there, which Ray would take minutes to say."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host:
        return  # "auto" and its like
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, ValueError) as error:
        raise SettingError("RAY_ADDRESS", f"nothing answers at {address!r}: {error}") from None


@contextlib.contextmanager
def cluster(ray: Any, address: str | None, cores: int | None) -> Iterator[None]:
    """The cluster at an address, or one of this machine's cores that ends with the sweep.

    Raises:
      SettingError: nothing answers there.
    """
    if address:
        check_answers(address)
    with shipped_code() as code:
        # Else Ray would count the cores of the machine, and not those that this process may use.
        here = {"num_cpus": cores or usable_cores(), "include_dashboard": False}
        try:
            ray.init(
                address=address,
                runtime_env={"working_dir": code},
                logging_level="ERROR",
                log_to_driver=False,
                **({} if address else here),
            )
        except (ConnectionError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
            told = " ".join(str(error).split())
            raise SettingError("RAY_ADDRESS", f"{address!r}: {told}") from None
        try:
            yield
        finally:
            ray.shutdown()


# --------------------------------------------------------------------------------------- the tasks


def make_board(ray: Any) -> Any:
    """An actor on the driver's node, at which workers tell what they have begun."""

    @ray.remote(num_cpus=0, max_concurrency=1)
    class Board:
        def __init__(self) -> None:
            self._begun: dict[str, tuple[str, int]] = {}

        def begin(self, case: str, node: str, pid: int) -> None:
            self._begun[case] = (node, pid)

        def read(self) -> dict[str, tuple[str, int]]:
            begun, self._begun = self._begun, {}
            return begun

    here = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
        ray.get_runtime_context().get_node_id(), soft=False
    )
    return Board.options(scheduling_strategy=here).remote()


def _task(board: Any, case_id: str, *arguments: Any) -> dict[str, Any]:
    """Runs in a worker, which has the shipped code in its working directory."""
    import platform

    from benchmark.sweep.worker import run_case

    # A task that waits in `ray.get` lends its core to another, which then runs beside it.
    board.begin.remote(case_id, platform.node(), os.getpid()).future().result()
    return run_case(*arguments)


@dataclasses.dataclass
class Job:
    """A case on its way; `begun` is when it was seen running, s."""

    id: str
    case: Case
    attempts: int = 0
    begun: float | None = None
    cancelled: bool = False


class Driver:
    """Hands cases to Ray and takes what comes back.

    Args:
      ray: the module.
      table: where rows go.
      models: of the cases.
      limit: s that a case may run; None: for ever.
      watched: the job that viewers see, by its case's id, and at which port; or None.
    """

    def __init__(
        self,
        ray: Any,
        table: Table,
        models: Models,
        limit: float | None,
        watched: tuple[str, int] | None = None,
    ):
        self._ray, self._table, self._models, self._limit = ray, table, models, limit
        self._watched = watched
        self._board = make_board(ray)
        self._function = ray.remote(max_retries=0)(_task)
        self._objects: dict[str, Any] = {}
        self._jobs: dict[Any, Job] = {}
        self._by_id: dict[str, Job] = {}
        resources = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        self._cores = int(max(it.get("CPU", 0) for it in resources))  # of the largest node
        self._gpus = sum(it.get("GPU", 0) for it in resources)
        self._versions = versions()
        self._provenance = describe_provenance()

    @property
    def pending(self) -> int:
        """Cases that are not in the table yet."""
        return len(self._jobs)

    @property
    def running(self) -> int:
        """Cases that a worker has begun."""
        return sum(job.begun is not None for job in self._jobs.values())

    def submit(self, job: Job) -> None:
        """Ask for a worker with what the case needs."""
        case, watched, model = job.case, None, None
        if case.model:
            content, key = self._models.of(case.model)
            if key not in self._objects:
                self._objects[key] = self._ray.put(content)
            model = self._objects[key]
            if self._watched and self._watched[0] == job.id:
                from mjsim.stream.bundle import (
                    model_packet,  # only here: --help does without MuJoCo
                )

                watched = (self._watched[1], dict(model_packet(case.model)))
        else:
            key = case.scene.replace(" ", "-")
        gpus = int(case.device != "cpu")
        if gpus and not self._gpus:
            raise SettingError("device", f"{case.device!r}: no node of the cluster has a GPU")
        # MuJoCo C steps its worlds on as many cores as there are.
        cpus = min(case.nworld or 1, self._cores) if case.engine == "mjc" else 1
        parts = (case.engine, case.law, case.passes, key)
        compiled = "-".join(str(part) for part in parts if part is not None)
        reference = self._function.options(num_cpus=cpus, num_gpus=gpus).remote(
            self._board, job.id, case, compiled, model, self._versions, watched
        )
        job.attempts += 1
        job.begun, job.cancelled = None, False
        self._jobs[reference] = self._by_id[job.id] = job

    def poll(self, timeout: float) -> list[dict[str, Any]]:
        """Wait a little; the rows that came, which are in the table already."""
        done, _ = self._ray.wait(
            list(self._jobs), num_returns=len(self._jobs), timeout=timeout, fetch_local=False
        )
        now = time.monotonic()
        for case in self._ray.get(self._board.read.remote()):
            if case in self._by_id:
                self._by_id[case].begun = self._by_id[case].begun or now
        rows = [row for reference in done if (row := self._take(reference))]
        for reference, job in self._jobs.items():
            over = self._limit is not None and job.begun and now - job.begun > self._limit
            if over and not job.cancelled:
                job.cancelled = True
                self._ray.cancel(reference, force=True)
        return rows

    def _take(self, reference: Any) -> dict[str, Any] | None:
        job = self._jobs.pop(reference)
        lost = self._ray.exceptions
        try:
            found = self._ray.get(reference)
        except lost.RayTaskError as error:
            # Our code catches what a case does wrong, so this is about the node.
            raise SettingError("cluster", str(error.cause)) from None
        except (lost.RayError, OSError) as error:
            if not job.cancelled and job.attempts < ATTEMPTS:
                self.submit(job)
                return None
            told = f"its process or node died ({job.attempts} times): {type(error).__name__}"
            if job.cancelled:
                told = f"stopped after {self._limit:g} s"
            found = {
                "status": "timeout" if job.cancelled else "crashed",
                "error": told,
                "measured": {},
                "summary": {},
            }
        del self._by_id[job.id]
        row = {
            "case": job.id,
            **dataclasses.asdict(job.case),
            **found,
            "attempts": job.attempts,
            "versions": self._versions,
            **self._provenance,
        }
        self._table.append(row)
        return row

    def cancel(self) -> None:
        """Stop what runs."""
        for reference in self._jobs:
            self._ray.cancel(reference, force=True)


# ---------------------------------------------------------------------------------------- the tool


def missing(by_id: Mapping[str, Case], rows: list[dict[str, Any]]) -> list[Job]:
    """What has no row yet."""
    there = {row["case"] for row in rows}
    return [Job(name, case) for name, case in by_id.items() if name not in there]


def show_cases(console: Console, jobs: list[Job], there: int) -> None:
    for number, job in enumerate(jobs, start=1):
        console.print(f"{number:5} {job.id} {job.case.label}", markup=False, soft_wrap=True)
    console.print(f"{len(jobs)} cases to run, {there} in the table already")


def run_jobs(console: Console, driver: Driver, jobs: list[Job], total: int) -> int | None:
    """Run all; the signal that ended it, if one did."""
    bar = Progress(
        MofNCompleteColumn(),
        BarColumn(bar_width=20),
        TextColumn("{task.description}"),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )
    bad = 0
    with StopSignals() as signals, bar:
        task = bar.add_task("", total=total, completed=total - len(jobs))
        for job in jobs:
            driver.submit(job)
        while driver.pending and signals.received is None:
            for row in driver.poll(POLL):
                bar.advance(task)
                if row["status"] != "done":
                    bad += 1
                    told = f"{row['case']} {row['status']}: {row['error']}"
                    bar.console.print(told, markup=False, highlight=False, soft_wrap=True)
            bar.update(task, description=f"{driver.running} running, {bad} not done")
        if signals.received:
            driver.cancel()
        return signals.received


def choose(jobs: list[Job], wanted: str) -> Job:
    """The job with a number of --dry-run, or whose id begins so.

    Raises:
      SettingError: there is none, or several, or it is a scene.
    """
    found = [job for number, job in enumerate(jobs, 1) if str(number) == wanted]
    found = found or [job for job in jobs if job.id.startswith(wanted)]
    if len(found) != 1 or not found[0].case.model:
        raise SettingError("watch", f"{wanted!r} is not one case of a model: see --dry-run")
    return found[0]


def gather(path: Path | None, flags: Mapping[str, str | None]) -> dict[str, Any]:
    """The settings of a file, with those of flags in their place."""
    given = {name: split_flag(name, text) for name, text in flags.items() if text is not None}
    settings = read_file(path) if path else {}
    if "model" in given or "scene" in given:
        settings = {name: it for name, it in settings.items() if name not in ("model", "scene")}
    return {**settings, **given}


def _flags(command: Any) -> Any:
    for name in reversed(KINDS):
        flag = f"--{name.replace('_', '-')}"
        command = click.option(flag, name, metavar="A,B,...", help="As in a file.")(command)
    return command


@click.command(help=__doc__.split("\n\n")[0])
@click.argument("file", required=False, type=click.Path(path_type=Path))
@_flags
@click.option("--table", type=click.Path(path_type=Path), help="Rows.  [default: by FILE]")
@click.option("--dry-run", is_flag=True, help="List the cases, and run none.")
@click.option("--time-limit", type=click.FloatRange(min=0.0, min_open=True), help="s per case.")
@click.option("--cores", type=click.IntRange(min=1), help="Of this machine.  [default: all it has]")
@click.option("--watch", metavar="CASE", help="Stream a case: its number, or its id's beginning.")
@click.option("--port", default=7000, type=click.IntRange(1, 65535), help="To stream it at.")
@click.pass_context
def main(
    ctx: click.Context,
    file: Path | None,
    table: Path | None,
    dry_run: bool,
    time_limit: float | None,
    cores: int | None,
    watch: str | None,
    port: int,
    **flags: str | None,
) -> None:
    console = Console(highlight=False)
    address = os.environ.get("RAY_ADDRESS")
    try:
        models, started = Models(), time.perf_counter()
        cases = expand(gather(file, flags))
        path = table or RESULTS / f"sweep-{file.stem if file else 'flags'}.jsonl"
        by_id = {case_id(case, models): case for case in cases}
        if dry_run:
            jobs = missing(by_id, read_rows(path) if path.exists() else [])
            show_cases(console, jobs, len(by_id) - len(jobs))
            return
        with Table(path) as opened:
            jobs = missing(by_id, opened.rows)
            watched = None
            if watch:
                watched = (choose(jobs, watch).id, port)
                console.print(f"case {watched[0]} waits for a viewer at port {port} of its node")
            ended_by = None
            if jobs:
                ray = require_ray(address)
                with interrupts.Unwinding(), cluster(ray, address, cores):
                    setup = time.perf_counter() - started
                    console.print(
                        f"{len(jobs)} cases on {ray.cluster_resources().get('CPU', 0):g} cores of "
                        f"{len(ray.nodes())} node(s); {setup:.1f} s to get there"
                    )
                    started = time.perf_counter()
                    driver = Driver(ray, opened, models, time_limit, watched)
                    ended_by = run_jobs(console, driver, jobs, len(by_id))
                    wall = time.perf_counter() - started
                    new = {job.id for job in jobs}
                    work = sum(it.get("seconds", 0.0) for it in opened.rows if it["case"] in new)
                    console.print(f"{wall:.1f} s for {work:.1f} s of work")
            rows = [row for row in opened.rows if row["case"] in by_id]
    except SettingError as error:
        raise click.UsageError(str(error), ctx) from error
    done = sum(row["status"] == "done" for row in rows)
    console.print(
        f"{len(rows)} of {len(by_id)} cases in {path}, {len(rows) - done} of them not done",
        soft_wrap=True,
    )
    if ended_by:
        console.print("the same command goes on from here")
        sys.exit(128 + ended_by)
