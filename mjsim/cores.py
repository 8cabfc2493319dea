"""The CPU cores that this process may use."""

import os


def usable_cores() -> int:
    """Their number: fewer than the machine has under taskset, in a cpuset or in a batch job."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
