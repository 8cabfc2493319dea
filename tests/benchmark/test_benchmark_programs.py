"""How the programs of the benchmark start: by their names, with little loaded, and with Ctrl-C."""

import os
import signal
import subprocess
import sys
import time

import pytest

from mjsim.model.files import REPOSITORY

MAIN = 'if __name__ == "__main__":'
PROGRAMS = [
    ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__main__")
    for path in sorted((REPOSITORY / "benchmark").rglob("*.py"))
    if MAIN in path.read_text()
]
PENDULA = "benchmark/test_data/pendula.xml"
HEAVY = ("warp", "mujoco_warp", "comfree_warp", "mujoco", "ray", "matplotlib", "viser", "mcap")
# A program in this process, and then the names of what it has loaded.
LOADED = """
import atexit, runpy, sys
sys.argv = sys.argv[1:]
atexit.register(lambda: print("loaded:", *(name for name in sys.modules if "." not in name)))
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


def start(*command: str, **variables: str) -> subprocess.Popen[str]:
    ours = ("MJSIM_", "MJSTREAM_", "COMFREE_", "MJREPLAY_", "MJVIDEO_", "WARP_DEVICE")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return subprocess.Popen(
        [sys.executable, *command],
        cwd=REPOSITORY,
        env=inherited | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(*command: str, **variables: str) -> tuple[int, str, str]:
    """Status, output and errors of a program."""
    with start(*command, **variables) as process:
        output, errors = process.communicate(timeout=120)
    return process.returncode, output, errors


def test_all_programs_are_known_here():
    assert [
        *("benchmark.costs.memory", "benchmark.costs.plain"),
        *("benchmark.costs.stream", "benchmark.costs.web"),
        *("benchmark.fidelity", "benchmark.gallery", "benchmark.report"),
        *("benchmark.speed.compare", "benchmark.speed.ratios", "benchmark.sweep"),
    ] == PROGRAMS


@pytest.mark.parametrize("program", PROGRAMS)
def test_help_loads_next_to_nothing(program):
    status, output, errors = run("-c", LOADED, program, "--help")
    assert status == 0, errors
    assert output.startswith(f"Usage: python -m {program} ")
    assert set(output.rpartition("loaded:")[2].split()).isdisjoint(HEAVY)


def test_a_misspelt_variable_is_named_with_the_nearest_one():
    _, _, errors = run("-m", "benchmark.speed.compare", "--help", MJSTREAM_PROT="1")
    assert "MJSTREAM_PROT; did you mean MJSTREAM_PORT?" in errors


def interrupted(seconds: float, signum: int, *command: str) -> tuple[int, str]:
    """Status and errors of a program that gets a signal so many seconds after its start."""
    with start("-m", *command) as process:
        time.sleep(seconds)
        process.send_signal(signum)
        _, errors = process.communicate(timeout=60)
    return process.returncode, errors


def seconds_to_handlers() -> float:
    """Seconds until a program has its signal handlers: three times Python's own start."""
    before = time.monotonic()
    with start("-c", "from mjsim import interrupts") as process:
        process.communicate(timeout=60)
    return 3.0 * (time.monotonic() - before)


@pytest.mark.parametrize(
    "command",
    [
        ("benchmark.costs.memory",),
        ("benchmark.fidelity", "--level=quick", "--json=/proc/none/rows.json"),
        ("benchmark.sweep", "--model", PENDULA, "--engine=mjc", "--table=/proc/none/rows"),
    ],
    ids=lambda command: command[0],
)
def test_ctrl_c_during_the_start_is_one_word_and_status_130(command):
    """At some moments of the first second, in which modules are loaded."""
    first = seconds_to_handlers()
    for number in range(4):
        status, errors = interrupted(first + 0.2 * number, signal.SIGINT, *command)
        if status == 2:  # it found what is wrong with its command before that
            assert "/proc/none" in errors
            continue
        assert (status, errors) == (130, "interrupted\n")


def test_sigterm_during_the_start_is_status_143():
    command = ("benchmark.gallery", "/proc/none")
    status, errors = interrupted(seconds_to_handlers(), signal.SIGTERM, *command)
    assert (status, errors) == (143, "interrupted\n")
