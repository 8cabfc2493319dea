"""What a benchmark was run on and with, and what memory it took."""

import ctypes
import gc
import os
import platform
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from mjsim.cores import usable_cores
from mjsim.model.files import REPOSITORY
from mjsim.run import settings as run_settings

RESULTS = REPOSITORY / "benchmark" / "results"


def versions() -> dict[str, str]:
    """Versions that the times depend on."""
    return {"python": platform.python_version(), **run_settings.versions()}


def _read_first(path: str, key: str) -> str:
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(key)), "")


def cpu_name() -> str:
    """The processor as its maker calls it."""
    return _read_first("/proc/cpuinfo", "model name") or platform.processor()


def describe_machine() -> dict[str, object]:
    """What a result's numbers belong to: CPU, cores, system, Warp's devices, load at the start."""
    # Only here, since programs that read results do without Warp.
    import warp as wp

    from mjsim.engines.device import warp_device

    warp_device("cpu")
    return {
        "node": platform.node(),
        "cpu": cpu_name(),
        "cores": usable_cores(),
        "system": f"{platform.system()} {platform.release()}",
        "devices": {device.alias: device.name for device in wp.get_devices()},
        "load_average": os.getloadavg()[0],
    }


def _git(*arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    return done.stdout.strip()


def describe_provenance() -> dict[str, object]:
    """With what the rows of this command are made, and when."""
    return {
        "commit": _git("rev-parse", "HEAD") + ("+" if _git("status", "--porcelain") else ""),
        "command": shlex.join(["python", *sys.orig_argv[1:]]),
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def describe_selection(chosen: Mapping[str, object], usual: Mapping[str, object]) -> str:
    """What makes a run one of a part, or "": the options that are given and not the usual ones."""
    return ", ".join(f"{name} {it!r}" for name, it in chosen.items() if it and it != usual[name])


def file_stem(prefix: str) -> str:
    """A name for a file of results, by date and machine."""
    node = re.sub(r"[^A-Za-z0-9]+", "-", platform.node()).strip("-") or "machine"
    return f"{prefix}-{time.strftime('%Y%m%d-%H%M%S')}-{node}"


def _release_freed_memory() -> None:
    """Give back what malloc holds free, so that it does not hide what comes next."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim:
        trim(0)


class HostMemory:
    """How much this process grows from here on, at its peak. Linux only: None elsewhere."""

    def __init__(self) -> None:
        _release_freed_memory()
        self._before = self._kilobytes("VmRSS")
        try:
            Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
        except OSError:
            self._before = None

    def peak(self) -> int | None:
        """Bytes above the start."""
        high = self._kilobytes("VmHWM")
        if self._before is None or high is None:
            return None
        return 1024 * max(0, high - self._before)

    def _kilobytes(self, key: str) -> int | None:
        text = _read_first("/proc/self/status", key)
        return int(text.split()[0]) if text else None


class DeviceMemory:
    """How much more of a CUDA device's pool is taken from here on; None on the CPU.

    The peak where there is a new one, else what is taken now.
    """

    def __init__(self, device: str):
        import warp as wp

        self._wp, self._device = wp, wp.get_device(device)
        if self._device.is_cuda:
            self._before = wp.get_mempool_used_mem_current(self._device)
            self._high = wp.get_mempool_used_mem_high(self._device)

    def peak(self) -> int | None:
        """Bytes above the start."""
        if not self._device.is_cuda:
            return None
        high = self._wp.get_mempool_used_mem_high(self._device)
        if high == self._high:
            high = self._wp.get_mempool_used_mem_current(self._device)
        return max(0, high - self._before)
