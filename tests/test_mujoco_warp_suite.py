"""MuJoCo Warp's own tests, with the import changed: no failure that has no reason.

Those files that are about what comfree replaces; `make test-drop-in` runs all of them.
"""

import subprocess
import sys

import pytest
from mujoco_warp_tests import FILES

from mjsim.model.files import REPOSITORY

pytestmark = pytest.mark.engine

# The whole of it takes ten minutes, half of that for parts that are MuJoCo Warp's own alone.
CHOSEN = ("forward_test", "history_test", "io_test", "island_test", "sensor_test", "types_test")


@pytest.mark.parametrize("file", CHOSEN)
def test_mujoco_warps_tests_pass_or_differ_for_a_reason(file):
    assert file in FILES
    done = subprocess.run(
        [sys.executable, "tests/mujoco_warp_tests.py", file],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
