"""MuJoCo Warp's convex collision on the CPU, with fewer threads and fewer modules.

MuJoCo Warp makes a kernel for each pair of geom types that meet: nine on `primitives`. What they
compute does not change here, bit by bit.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import warp as wp
from mujoco_warp._src import collision_convex

from comfree_warp.changes import changed
from comfree_warp.modules import name_by_content

_grid_size_of_mujoco_warp = collision_convex._ccd_grid_size


def _grid_size(kernel: wp.Kernel, naconmax: int, device: wp.Device) -> int:
    return 1 if device.is_cpu else _grid_size_of_mujoco_warp(kernel, naconmax, device)


def convex_on_one_thread() -> contextlib.AbstractContextManager[None]:
    """Within this context each kernel of a pair of geom types is launched in one thread on a CPU.

    The kernels stride over the candidates, in the same order whatever the number of threads. MuJoCo
    Warp launches naconmax of them on a CPU, and every one clears its local variables, for up to
    half of the time of a whole step, before it finds that nothing is left to do.
    """
    return changed(collision_convex, _ccd_grid_size=_grid_size)


@contextlib.contextmanager
def convex_in_shared_modules(count: int) -> Iterator[None]:
    """Within this context the kernels of all pairs are made in `count` modules, not in one each.

    Most of such a module are functions that all pairs call, and they are compiled once in each.
    """
    modules = [wp.Module(f"{__name__}_{i}", None) for i in range(count)]
    for module in modules:
        wp.set_module_options({"enable_backward": False}, module)
    original = wp.kernel
    made = 0

    def kernel(f: Callable | None = None, **options: Any):
        nonlocal made
        if f is None:
            return functools.partial(kernel, **options)
        if f.__module__ == collision_convex.__name__ and options.get("module") == "unique":
            options.pop("module_options", None)  # the block size on a GPU
            # A graph captured on a CPU tells the kernels of a module apart by their names alone.
            options |= {"module": modules[made % count], "name": f"{f.__name__}_{made}"}
            made += 1
        return original(f, **options)

    try:
        with changed(wp, kernel=kernel):
            yield
    finally:
        for module in modules:
            name_by_content(module)
