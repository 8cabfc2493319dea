"""Programs that need a process of their own."""

import os
import subprocess
import sys

from mjsim.model.files import REPOSITORY


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
