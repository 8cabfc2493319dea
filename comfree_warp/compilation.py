"""Compile every kernel of a step before the step runs: on all cores, and with a word on screen.

Warp compiles a kernel at its first launch, one after another, up to a minute for a model.
MuJoCo Warp makes most of its kernels inside the functions that launch them, so no list of them
exists beforehand. Here a call is rehearsed on scratch data with the launches recorded instead of
executed; then the modules found are compiled by a pool of threads.
"""

import contextlib
import dataclasses
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import warp as wp

from comfree_warp.collector import collector_paused
from comfree_warp.graph import rehearse_capture
from comfree_warp.modules import name_by_content
from comfree_warp.narrowphase import SHARED_MODULES, convex_in_shared_modules


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

# Called with: modules compiled so far, modules to compile, name of the one just started ("" at the
# end of one). From several threads, never at the same time.
Progress = Callable[[int, int, str], None]


# Made of vectors and matrices that only the pass which `_lighten` leaves out puts into registers.
_VECTORIZED = ("mujoco_warp._src.solver", "comfree_warp.cholesky", "comfree_warp.warm.stacks")


def _lighten(module: wp.Module) -> None:
    """Leave out a pass of the CPU compiler, a twelfth of its time: vectors out of straight lines.

    A collision kernel runs as fast without, within 2 %; the solver and stacks would take a quarter
    longer.
    """
    if module.options["cpu_compiler_flags"] is None and not module.execs:
        flags = wp.config.cpu_compiler_flags
        flags = f"{'-march=native' if flags is None else flags} -fno-slp-vectorize"
        wp.set_module_options({"cpu_compiler_flags": flags}, module)


@contextlib.contextmanager
def _recorded_launches(found: _Found) -> Iterator[None]:
    """Within this context a launch is noted in `found`, and not executed.

    Nor is a sort by segments, since the kernels that would have made the segments did not run. It
    replaces functions of the `warp` module, so no other thread may launch meanwhile.
    """

    def launch(kernel, dim, *args, block_dim=None, **kwargs):
        # An empty launch compiles nothing; a generic kernel only when its types are known.
        if np.prod(dim) > 0 and not kernel.is_generic:
            is_cpu = wp.get_device().is_cpu
            # Every block is of one thread on a CPU. No module may be loaded by two threads at once.
            variant = (kernel.module, None if is_cpu else block_dim)
            found.setdefault(variant, set()).add(kernel)
            if is_cpu and kernel.func.__module__ not in _VECTORIZED:
                _lighten(kernel.module)

    def capture_while(condition, while_body, stream=None, **kwargs):
        while_body(**kwargs)

    def capture_if(condition, on_true=None, on_false=None, stream=None, **kwargs):
        for branch in (on_true, on_false):
            if branch is not None:
                branch(**kwargs)

    def segmented_sort_pairs(*args, **kwargs):
        pass

    recorders = {
        (wp, "launch"): launch,
        (wp, "launch_tiled"): launch,
        (wp, "capture_while"): capture_while,
        (wp, "capture_if"): capture_if,
        (wp.utils, "segmented_sort_pairs"): segmented_sort_pairs,
    }
    originals = {(module, name): getattr(module, name) for module, name in recorders}
    try:
        for (module, name), recorder in recorders.items():
            setattr(module, name, recorder)
        yield
    finally:
        for (module, name), original in originals.items():
            setattr(module, name, original)


def _in_cache(module: wp.Module, device: wp.Device, block_dim: int | None) -> bool:
    active = 1 if device.is_cpu else block_dim or module.options["block_dim"]
    return Path(wp.config.kernel_cache_dir, module.get_module_identifier(active)).is_dir()


def _with_used_kernels(module: wp.Module, kernels: set[wp.Kernel], device: wp.Device) -> wp.Module:
    """What to load for `kernels`: of a large module of MuJoCo Warp at first only these.

    A step launches half of the kernels of `smooth` and a few of `forward` and `passive`. On an
    empty cache the others are a third of all that would be compiled. Those found are moved into a
    module of their own, the others stay. Where the cache has such a part from another call, the
    whole is compiled, and is there for all calls to come.
    """
    large = module.name.startswith("mujoco_warp.") and len(kernels) < len(module.kernels)
    if not large or _in_cache(module, device, None):
        return module
    part = wp.Module(f"{module.name}.used", None)
    wp.set_module_options(module.options, part)
    for kernel in kernels:
        part.register_kernel(kernel)
    name_by_content(part)
    parts = Path(wp.config.kernel_cache_dir).glob(f"wp_{module.name}.used_*")
    if any(parts) and not _in_cache(part, device, None):
        return module
    for kernel in kernels:
        kernel.module = part
    return part


def _tasks(variants: Iterable[_Variant], device: wp.Device) -> list[list[_Variant]]:
    """What one thread after the other takes on.

    The slow ones first, so that no core idles at the end: those that pairs of geom types share,
    then ordinary modules, which hold many kernels, then the unique ones with a single one. A thread
    reads Warp's headers anew, for a second, with every set of the CPU compiler's flags: so all
    modules of the rarer set are one task.
    """

    def rank(variant: _Variant) -> tuple[bool, bool]:
        name = variant[0].name
        return not name.startswith(SHARED_MODULES), "." not in name

    order = sorted(variants, key=rank)
    if not device.is_cpu:
        return [[variant] for variant in order]
    rarer = [variant for variant in order if variant[0].options["cpu_compiler_flags"] is None]
    return [rarer] + [[variant] for variant in order if variant not in rarer]


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
      What was done. A kernel that the rehearsal did not reach is compiled at its first launch.
    """
    start = time.perf_counter()
    found: _Found = {}
    max_workers = max_workers or len(os.sched_getaffinity(0))
    # MuJoCo Warp's kernels are the same objects for every device. Those for a GPU are left alone:
    # block sizes go with their modules, and its compiler has the cores of a larger machine.
    cpu_alone = not wp.is_cuda_available()
    # Nine pairs in one module take as long as two alone: with more than two cores, more modules.
    count = max(1, max_workers // 2)
    sharing = convex_in_shared_modules(count) if cpu_alone else contextlib.nullcontext()
    with wp.ScopedDevice(device), collector_paused(), _recorded_launches(found), sharing:
        rehearsal()
        if device.is_cpu:
            rehearse_capture()
    variants = list(found)
    if cpu_alone:
        variants = [
            (_with_used_kernels(module, kernels, device), block_dim)
            for (module, block_dim), kernels in found.items()
        ]
    missing = {key for key in variants if not _in_cache(key[0], device, key[1])}
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

    def load_all(keys: list[_Variant]) -> None:
        for key in keys:
            load(key)

    pool = ThreadPoolExecutor(max_workers)
    try:
        for _ in pool.map(load_all, _tasks(variants, device)):
            pass
    finally:
        pool.shutdown(cancel_futures=True)
    return CompilationReport(len(variants), len(missing), time.perf_counter() - start)
