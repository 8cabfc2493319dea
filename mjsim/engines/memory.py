"""How much memory this process can still get."""

import contextlib
import resource
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")


def available_memory() -> int | None:
    """Bytes that can still be allocated on the host; None where the system does not tell.

    Linux grants more than it has, and ends the process that then uses it. So whoever needs much
    asks here first.
    """
    found = []
    with contextlib.suppress(OSError, ValueError, KeyError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        told = {name: rest for name, _, rest in (line.partition(":") for line in lines)}
        found.append(int(told["MemAvailable"].split()[0]) << 10)
    with contextlib.suppress(OSError, ValueError):
        limit = int((_CGROUP / "memory.max").read_text())  # "max" where there is none
        found.append(limit - int((_CGROUP / "memory.current").read_text()))
    with contextlib.suppress(OSError, ValueError):
        limit, _ = resource.getrlimit(resource.RLIMIT_AS)
        if limit != resource.RLIM_INFINITY:
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            found.append(limit - pages * resource.getpagesize())
    return max(0, min(found)) if found else None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of NumPy, Warp or MuJoCo says that memory could not be had."""
    told = str(error).lower()
    return isinstance(error, MemoryError) or "allocate" in told or "out of memory" in told
