"""Fixtures and the closing lines of the test run."""

import collections
import os

# NumPy's BLAS would start a thread for each core in each test process: on the small matrices of the
# references they wait for each other longer than they work. Read when NumPy is imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# isort: split
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import warp as wp
from screen import Screen

from mjsim.engines.device import warp_device

NO_CUDA = "no CUDA device"  # begins the reason of the only skips that STRICT_SKIPS=1 allows


def pytest_configure(config: pytest.Config) -> None:
    warp_device("cpu")
    # In the background of a shell SIGINT is ignored, which programs that tests start would inherit.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what takes a minute or more by itself, unless -m asks for it."""
    if "slow" not in config.getoption("-m"):
        slow = [item for item in items if item.get_closest_marker("slow")]
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if item not in slow]


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """With STRICT_SKIPS=1: fail, naming each reason to skip that the machine should not have given.

    What CI installs must be there, and a test that cannot run there is no test.
    """
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or os.environ.get("STRICT_SKIPS") != "1":
        return
    reasons = collections.Counter(
        report.longrepr[2].removeprefix("Skipped: ") for report in reporter.stats.get("skipped", [])
    )
    refused = [each for each in reasons if not each.startswith(NO_CUDA)]
    for reason in refused:
        reporter.write_line(f"STRICT_SKIPS: {reasons[reason]} skipped: {reason}", red=True)
    if refused and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say on how many states the contact law was compared over which rows (see test_law.py)."""
    compared = collections.Counter(
        value
        for report in terminalreporter.stats.get("passed", [])
        for name, value in report.user_properties
        if name == "reference_rows"
    )
    if compared:
        terminalreporter.write_line(
            f"contact law: reference over MuJoCo C's rows on {compared['mujoco']} random states, "
            f"over the engine's own on {compared['engine']}, where the two collision pipelines "
            "found different contacts"
        )


@pytest.fixture(autouse=True)
def _scratch_log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Let MuJoCo write its MUJOCO_LOG.TXT elsewhere than into the repository."""
    before = os.getcwd()
    os.chdir(tmp_path_factory.getbasetemp())
    yield
    os.chdir(before)


@pytest.fixture(params=["cpu", pytest.param("cuda:0", marks=pytest.mark.cuda)])
def device(request: pytest.FixtureRequest) -> Iterator[str]:
    """Every device that the engines support, as the current one."""
    if request.param != "cpu" and not wp.is_cuda_available():
        pytest.skip(f"{NO_CUDA} on this machine")
    with wp.ScopedDevice(request.param):
        yield request.param


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 kB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def screen(tmp_path: Path) -> Iterator[Screen]:
    for program, package in (("Xvfb", "xvfb"), ("xdotool", "xdotool")):
        if not shutil.which(program):
            pytest.skip(f"no {program} on this machine (Debian: apt-get install {package})")
    folder = tmp_path / "screen"
    folder.mkdir()
    screen = Screen(folder)
    yield screen
    screen.close()
