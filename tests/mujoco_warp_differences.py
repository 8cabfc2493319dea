"""Which of MuJoCo Warp's tests come out otherwise under comfree, and why.

What comfree refuses by name needs no entry here. An entry whose test passes is a failure.
"""

import re

# Files of parts that comfree has none of: MuJoCo's solver, and its inverse.
REPLACED_FILES = ("solver_test", "inverse_test")

# Files that look at J, vel and aref of contacts: they ask for them, with comfree_efc="full".
FULL_ROWS = ("constraint_test",)

_FORCES = "compares with the forces that MuJoCo's solver finds, where the law finds others"

DIFFERENCES: dict[str, str] = {}


def reason(name: str) -> str | None:
    """Why the test of that name, file.Class.test, comes out otherwise; None where it must not."""
    return next((why for pattern, why in DIFFERENCES.items() if re.search(pattern, name)), None)
