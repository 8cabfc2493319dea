"""Compile every kernel of a step before the step runs: on all cores, and with a word on screen.

Warp compiles a kernel at its first launch, one after another, up to a minute for a model.
MuJoCo Warp makes most of its kernels inside the functions that launch them, so no list of them
exists beforehand. Here a call is rehearsed on scratch data with the launches recorded instead of
executed; then the modules found are compiled by a pool of threads.
"""

import contextlib
import dataclasses
import errno
import functools
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import numpy as np
import warp as wp

from comfree_warp.runtime.changes import substituted
from comfree_warp.runtime.collector import collector_paused
from comfree_warp.runtime.graph import RUNNER
from comfree_warp.runtime.private import COMPILATION, CONVEX_KEY, runtime_has
from comfree_warp.runtime.used_kernels import copy_of, module_of_copies, use_copies


@dataclasses.dataclass(frozen=True)
class CompilationReport:
    """What `compile_kernels` did.

    Attributes:
      modules: number of Warp modules that the call uses.
      compiled: how many of them were not in the kernel cache.
      seconds: wall time.
    """

    modules: int
    compiled: int
    seconds: float


# A module and the block_dim that it is compiled for.
_Variant = tuple[wp.Module, int | None]
_Found = dict[_Variant, set[wp.Kernel]]

ROOM = 16 << 20  # bytes; a model takes 3 to 4 MB of the kernel cache

# Called with: modules compiled so far, modules to compile, name of the one just started ("" at the
# end of one). From several threads, never at the same time.
Progress = Callable[[int, int, str], None]


@contextlib.contextmanager
def _recorded_launches(found: _Found) -> Iterator[None]:
    """Within this context a launch of this thread is noted in `found`, and not executed.

    Nor is a sort by segments, since the kernels that would have made the segments did not run; and
    a kernel whose best block size is asked for, by which MuJoCo Warp chooses grids on a GPU, is
    noted, while Warp would compile it there and then. Other threads launch as ever.
    """

    def note(kernel: wp.Kernel, block_dim: int | None = None) -> int | None:
        kernel = copy_of(kernel)
        # Every block is of one thread on a CPU. No variant may be loaded by two threads at once.
        usual = None if wp.get_device().is_cpu else kernel.module.options["block_dim"]
        size = usual and (block_dim or usual)
        found.setdefault((kernel.module, size), set()).add(kernel)
        return size

    def launch(kernel, dim, *args, block_dim=None, **kwargs):
        # An empty launch compiles nothing; a generic kernel only when its types are known.
        if np.prod(dim) > 0 and not kernel.is_generic:
            note(kernel, block_dim)

    def get_suggested_block_size(kernel, device=None):
        return note(kernel) or 1, 1

    def capture_while(condition, while_body, stream=None, **kwargs):
        while_body(**kwargs)

    def capture_if(condition, on_true=None, on_false=None, stream=None, **kwargs):
        for branch in (on_true, on_false):
            if branch is not None:
                branch(**kwargs)

    def segmented_sort_pairs(*args, **kwargs):
        pass

    with (
        substituted(
            wp,
            launch=launch,
            launch_tiled=launch,
            get_suggested_block_size=get_suggested_block_size,
            capture_while=capture_while,
            capture_if=capture_if,
        ),
        substituted(wp.utils, segmented_sort_pairs=segmented_sort_pairs),
    ):
        yield


def _cache() -> Path:
    """Warp's kernel cache."""
    assert wp.config.kernel_cache_dir is not None  # chosen where Warp started
    return Path(wp.config.kernel_cache_dir)


def _in_cache(module: wp.Module, device: wp.Device, block_dim: int | None) -> bool:
    active = 1 if device.is_cpu else block_dim or module.options["block_dim"]
    return (_cache() / module.get_module_identifier(active)).is_dir()


def _has_room() -> bool:
    """Whether the kernel cache can grow. Where the disk is full, the compiler ends the process."""
    return shutil.disk_usage(_cache()).free >= ROOM


def _with_used_kernels(module: wp.Module, kernels: set[wp.Kernel], device: wp.Device) -> wp.Module:
    """What to load for `kernels`: of a large module of MuJoCo Warp at first only copies of these.

    Where the cache has such a part from another call, the whole is compiled, and is there for all
    calls to come.
    """
    large = module.name.startswith("mujoco_warp.") and len(kernels) < len(module.kernels)
    if not large or _in_cache(module, device, None):
        return module
    part = module_of_copies(module, kernels)
    parts = _cache().glob(f"wp_{module.name}.used_*")
    if any(parts) and not _in_cache(part, device, None):
        return module
    use_copies(part, kernels)
    return part


def _slowest_first(variant: _Variant) -> tuple[bool, bool]:
    """A key to sort by, so that no core idles at the end.

    First the module of convex pairs, then ordinary ones, which hold many kernels, then the unique
    ones with a single one.
    """
    name = variant[0].name
    return not name.startswith(CONVEX_KEY), "." not in name


@functools.cache
def _first_headers() -> Any:
    """Warp's temporary folder for compiled headers, of the first thread that asks here."""
    runtime = COMPILATION.owner("runtime").runtime
    runtime.get_clang_pch_dir()
    return runtime._pch_dirs.get(threading.get_ident())


def _share_headers() -> Path | None:
    """Let this thread share what Warp's headers compile to on the CPU; the folder that has it.

    Warp has every thread read them, for 3 to 4 s on a slow core, and keeps them in a folder of that
    thread, of which it has a list. They are put there by renaming: two threads that happen to read
    them at once do no harm. None where this Warp keeps no such list.
    """
    if not runtime_has("_pch_dirs", "_pch_dirs_lock"):
        return None
    headers = _first_headers()
    if headers is None:
        return None
    runtime = COMPILATION.owner("runtime").runtime
    with runtime._pch_dirs_lock:
        runtime._pch_dirs.setdefault(threading.get_ident(), headers)
    return Path(headers.name)


@functools.cache
def begin_compiling() -> Future[None]:
    """Start to compile what runs every captured call on the CPU, in a thread of its own.

    With it Warp's headers are read, while Python still makes a model and its kernels. Nothing is
    done where the kernel cache has it, and where kernels are compiled at their first launch.
    """
    device = wp.get_device("cpu")
    if COMPILATION.usable:
        _share_headers()  # this thread's, before another one can ask for them

    def compile_runner() -> None:
        if not COMPILATION.usable:
            return
        _share_headers()
        if not _in_cache(RUNNER, device, None) and _has_room():
            wp.force_load(device, [RUNNER])

    pool = ThreadPoolExecutor(1)
    begun = pool.submit(compile_runner)
    pool.shutdown(wait=False)
    return begun


def _ncore() -> int:
    """Cores that this process may use, where the system says which; else all."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def compile_kernels(
    rehearsal: Callable[[], None],
    device: wp.Device,
    progress: Progress | None = None,
    max_workers: int | None = None,
) -> CompilationReport:
    """Compile and load what a call launches, before it is made or captured.

    Args:
      rehearsal: the call; its launches are recorded, not executed, but copies and fills do happen,
        so it must work on scratch data of the sizes of the real ones.
      device: where it will run.
      progress: told of each module that has to be compiled, as it starts and as it ends.
      max_workers: threads; all cores that this process may use when None.

    Returns:
      What was done. A kernel that the rehearsal did not reach is compiled at its first launch, as
      is every kernel where the shortcut is off (`private.py`).

    Raises:
      OSError: the kernel cache cannot be written, or has less than `ROOM` to spare.
    """
    start = time.perf_counter()
    if not COMPILATION.usable:
        return CompilationReport(0, 0, 0.0)
    found: _Found = {}
    # MuJoCo Warp's kernels are the same objects for every device. Those for a GPU are left alone:
    # block sizes go with their modules, and its compiler has the cores of a larger machine.
    cpu_alone = not wp.is_cuda_available()
    begun = begin_compiling() if device.is_cpu else None
    headers = _share_headers() if device.is_cpu else None
    pool = ThreadPoolExecutor(
        max_workers or _ncore(), initializer=_share_headers if headers else None
    )
    lock, done = threading.Lock(), 0

    def report(name: str, finished: int) -> None:
        nonlocal done
        with lock:
            done += finished
            if progress:
                progress(done, len(missing), name)

    def load(key: _Variant) -> None:
        module, block_dim = key
        if key in missing:
            report(module.name, finished=0)
        wp.force_load(device, [module], block_dim)
        if key in missing:
            report("", finished=1)

    try:
        with collector_paused():
            with wp.ScopedDevice(device), _recorded_launches(found):
                rehearsal()
            variants = list(found)
            if cpu_alone:
                variants = [
                    (_with_used_kernels(module, kernels, device), block_dim)
                    for (module, block_dim), kernels in found.items()
                ]
            if begun:
                wait([begun])
                if not _in_cache(RUNNER, device, None):  # it could not be compiled, as will be told
                    variants.append((RUNNER, None))
            missing = {key for key in variants if not _in_cache(key[0], device, key[1])}
            if missing and not _has_room():
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), wp.config.kernel_cache_dir)
            order = sorted(variants, key=_slowest_first)
            if missing and headers and not any(headers.glob("*.pch")):
                quickest = max(missing, key=order.index)
                order.remove(quickest)
                # With the headers, which the others then find. Not here: Python looks for Ctrl-C
                # while it waits for another thread, and not in the compiler.
                pool.submit(load, quickest).result()
            for _ in pool.map(load, order):
                pass
    finally:
        pool.shutdown(cancel_futures=True)
    return CompilationReport(len(variants), len(missing), time.perf_counter() - start)
