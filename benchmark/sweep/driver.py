"""Hands the cases of a sweep to Ray, and their rows to the table."""

import dataclasses
import os
import time
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from benchmark.common.machine import describe_provenance
from benchmark.sweep.cases import Case, Models
from benchmark.sweep.table import CaseTable
from mjsim.errors import SettingError
from mjsim.run.settings import versions
from mjsim.stop_signals import StopSignals

ATTEMPTS = 3  # of a case whose process or node died
POLL = 0.2  # s between two looks at the cluster


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


def run_on_node(board: Any, case_id: str, *arguments: Any) -> dict[str, Any]:
    """Run a case in a worker: the arguments and the result are those of `worker.run_case`."""
    import platform

    from benchmark.sweep.worker import run_case  # only here: the driver does without Warp

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
        table: CaseTable,
        models: Models,
        limit: float | None,
        watched: tuple[str, int] | None = None,
    ):
        self._ray, self._table, self._models, self._limit = ray, table, models, limit
        self._watched = watched
        self._board = make_board(ray)
        self._function = ray.remote(max_retries=0)(run_on_node)
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
            # `run_case` catches what a case does wrong, so this is about the node.
            needed = "every node needs pip install 'comfree-warp[sweep]', in the driver's versions"
            raise SettingError("cluster", f"{error.cause}; {needed}") from None
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


def missing(by_id: Mapping[str, Case], rows: list[dict[str, Any]]) -> list[Job]:
    """What has no row yet."""
    there = {row["case"] for row in rows}
    return [Job(name, case) for name, case in by_id.items() if name not in there]


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
