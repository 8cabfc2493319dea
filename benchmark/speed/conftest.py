"""The suite's options, its closing tables, and what its JSON holds beside pytest-benchmark's.

pytest-benchmark writes its JSON when all is done. Until then each row is a line of a file beside
it, `.rows.jsonl`, which stays if that fails or the run is killed.
"""

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import pytest
from rich.console import Console

from benchmark.common import contenders as contending
from benchmark.common import levels
from benchmark.common.machine import (
    RESULTS,
    describe_machine,
    describe_provenance,
    describe_selection,
    file_stem,
)
from benchmark.common.measuring import ResultRow, scaling_fits
from benchmark.speed.compare import ranking_table, scaling_table

FORMAT = "speed/1"
USUAL = {"scenes": "", "contenders": contending.DEFAULT}

DESCRIBED = pytest.StashKey[ResultRow]()
SKIPPED = pytest.StashKey[list[ResultRow]]()
ROWS = pytest.StashKey[list[ResultRow]]()
ENDED = pytest.StashKey[str]()
MEASURED = pytest.StashKey[Path]()  # the rows so far


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("speed", "speed of the engines")
    group.addoption(
        "--level", choices=levels.SPEED, default="standard", help="How much to measure."
    )
    group.addoption("--contenders", default=contending.DEFAULT, help="What to compare.")
    group.addoption("--scenes", default="", help="Words of scene names, between semicolons.")
    group.addoption("--rounds", type=int, default=9, help="Rounds of each row.")
    group.addoption(
        "--budget", type=float, default=60.0, help="Seconds for a point of a growing scene."
    )


def pytest_configure(config: pytest.Config) -> None:
    config.stash[DESCRIBED] = {**describe_provenance(), "machine": describe_machine()}
    config.stash[SKIPPED] = []
    if config.option.benchmark_json is None:
        RESULTS.mkdir(parents=True, exist_ok=True)
        name = file_stem(f"speed-{config.option.level}")
        config.option.benchmark_json = Path(RESULTS / f"{name}.json")
    path = Path(config.option.benchmark_json)
    path.parent.mkdir(parents=True, exist_ok=True)
    config.stash[MEASURED] = measured = path.with_suffix(".rows.jsonl")
    if measured.exists():
        raise pytest.UsageError(
            f"--benchmark-json: {measured} has the rows of a run that was killed"
        )
    signal.signal(signal.SIGTERM, _interrupt)  # as Ctrl-C: what was measured is written


@pytest.fixture(scope="session")
def described(pytestconfig: pytest.Config) -> ResultRow:
    """What goes into every row: date, commit, command and machine."""
    return pytestconfig.stash[DESCRIBED]


def pytest_runtest_teardown(item: pytest.Item) -> None:
    benchmark = item.funcargs.get("benchmark")
    if benchmark and benchmark.extra_info:
        with item.config.stash[MEASURED].open("a") as out:
            out.write(json.dumps(benchmark.extra_info) + "\n")


@pytest.fixture(scope="session")
def skipped(pytestconfig: pytest.Config) -> list[ResultRow]:
    """What goes into the JSON of rows that could not be measured."""
    return pytestconfig.stash[SKIPPED]


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


@pytest.hookimpl(wrapper=True, tryfirst=True)  # before pytest-benchmark writes its JSON
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> Iterator[None]:
    endings = {pytest.ExitCode.OK: "complete", pytest.ExitCode.INTERRUPTED: "a signal"}
    session.config.stash[ENDED] = endings.get(exitstatus, "an error")
    done = yield
    if Path(session.config.option.benchmark_json).exists():
        session.config.stash[MEASURED].unlink(missing_ok=True)
    return done


def pytest_benchmark_update_json(
    config: pytest.Config, benchmarks: list[object], output_json: ResultRow
) -> None:
    rows = [benchmark["extra_info"] for benchmark in output_json["benchmarks"]]
    steps = [row for row in rows if row["kind"] == "step"]
    output_json |= {
        "format": FORMAT,
        "level": config.option.level,
        "selected": describe_selection(
            {name: getattr(config.option, name) for name in USUAL}, USUAL
        ),
        "ended": config.stash[ENDED],
        **config.stash[DESCRIBED],
        "skipped": config.stash[SKIPPED],
        "scaling": scaling_fits(steps),
        "overhead": max((row["overhead"] for row in steps), default=None),
    }
    config.stash[ROWS] = rows


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    rows = terminalreporter.config.stash.get(ROWS, [])
    if not rows:
        return
    console = Console(width=140, highlight=False)
    console.print(ranking_table(rows))
    steps = [row for row in rows if row["kind"] == "step"]
    fits = scaling_fits(steps)
    if fits:
        console.print(scaling_table(fits))
    if steps:
        worst = max(steps, key=lambda row: row["overhead"])
        console.print(
            f"the suite's own time in a round: at most {100 * worst['overhead']:.3f} % "
            f"({worst['scene']}, {worst['contender']}, {worst['nworld']} world(s))"
        )


def pytest_benchmark_scale_unit(
    config: pytest.Config, unit: str, benchmarks: object, best: object, worst: object, sort: str
) -> tuple[str, float] | None:
    """Microseconds throughout, since tables of several groups are read side by side."""
    return ("u", 1e6) if unit == "seconds" else None
