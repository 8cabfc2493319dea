"""Programs that need a process of their own."""

import os
import subprocess
import sys
import time
from pathlib import Path

from mjsim.model.files import REPOSITORY

MAIN = 'if __name__ == "__main__":'  # in the source of every program
PENDULA = "benchmark/test_data/pendula.xml"
# What neither --help nor wrong use may load.
HEAVY = ("warp", "mujoco_warp", "comfree_warp", "mujoco", "ray", "matplotlib", "viser", "mcap")
# A script or module, named by the first argument, and then the names of what it has loaded.
LOADED = """
import atexit, runpy, sys
sys.argv = sys.argv[1:]
atexit.register(lambda: print("loaded:", *(name for name in sys.modules if "." not in name)))
if sys.argv[0].endswith(".py"):
    runpy.run_path(sys.argv[0], run_name="__main__")
else:
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


def start(*command: str, **variables: str) -> subprocess.Popen[str]:
    """Start Python in the repository, with those of our variables alone that are given."""
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
    """Status, output and errors of Python, started as by `start`."""
    with start(*command, **variables) as process:
        output, errors = process.communicate(timeout=120)
    return process.returncode, output, errors


def loaded(output: str) -> set[str]:
    """The names that `LOADED` printed."""
    return set(output.rpartition("loaded:")[2].split())


def interrupted(seconds: float, signum: int, *command: str) -> tuple[int, str]:
    """Status and errors of a program that gets a signal so many seconds after its start."""
    with start(*command) as process:
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


def finished(
    command: list[str], folder: Path = REPOSITORY, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Any command, run to its end with the variables of this process and these."""
    return subprocess.run(
        command,
        cwd=folder,
        env=os.environ | variables,
        capture_output=True,
        text=True,
        timeout=600,
    )


def printed_lines(program: str, *args: str, **variables: str) -> list[str]:
    """What a Python program prints that runs in the repository and ends well."""
    done = subprocess.run(
        [sys.executable, "-c", program, *args],
        cwd=REPOSITORY,
        env=os.environ | variables,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()
