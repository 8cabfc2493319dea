"""Run many cases, on the cores of this machine or on a Ray cluster, into one table.

    python -m benchmark.sweep benchmark/sweeps/stiffness_damping.toml       # make sweep
    python -m benchmark.sweep --model "benchmark/test_data/*.xml" --engine mjc,comfree --seed 0,1
    RAY_ADDRESS=head:6379 python -m benchmark.sweep FILE                    # on a cluster

A file is TOML: settings with a value or a list each, of which the product is run, and perhaps
tables `[[cases]]` on top. Flags add to it or take the place of what it says. A row per case goes to
the table as soon as the case ends; the same command again runs what is missing.

Exit status: 0 all cases are in the table, 2 wrong use, 130 or 143 interrupted.
"""

from mjsim import interrupts

if __name__ == "__main__":
    interrupts.install()

import os
import sys
import time
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from benchmark.common.machine import RESULTS
from benchmark.sweep.cases import KINDS, Models, case_id, expand, gather
from benchmark.sweep.cluster import cluster, require_ray
from benchmark.sweep.driver import Driver, Job, missing, run_jobs
from benchmark.sweep.table import CaseTable, read_rows
from mjsim.cli import variables
from mjsim.errors import SettingError


def show_cases(console: Console, jobs: list[Job], there: int) -> None:
    for number, job in enumerate(jobs, start=1):
        console.print(f"{number:5} {job.id} {job.case.label}", markup=False, soft_wrap=True)
    console.print(f"{len(jobs)} cases to run, {there} in the table already")


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
        with CaseTable(path) as opened:
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


if __name__ == "__main__":
    variables.warn_of_unknown()
    main()
