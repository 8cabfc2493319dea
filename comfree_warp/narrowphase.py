"""MuJoCo Warp's narrow phase on the CPU, with fewer threads and fewer modules.

MuJoCo Warp makes a kernel for each pair of geom types that meet as convex bodies, nine on
`primitives`, and one for all others. What they compute does not change here, bit by bit.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import mujoco_warp as mjw
import warp as wp
from mujoco_warp._src import collision_convex

from comfree_warp.changes import changed
from comfree_warp.graph import trimmed_launches
from comfree_warp.modules import name_by_content

SHARED_MODULES = f"{__name__}_"  # how the names of the modules begin that pairs share
_PRIMITIVES_KEY = "_primitive_narrowphase__locals__primitive_narrowphase"
_grid_size_of_mujoco_warp = collision_convex._ccd_grid_size


def _grid_size(kernel: wp.Kernel, naconmax: int, device: wp.Device) -> int:
    return 1 if device.is_cpu else _grid_size_of_mujoco_warp(kernel, naconmax, device)


@contextlib.contextmanager
def narrow_phase_on_few_threads(d: mjw.Data) -> Iterator[None]:
    """Within this context collision detection launches hardly an idle thread on a CPU.

    MuJoCo Warp launches naconmax threads of every kernel, and each clears its local variables, for
    up to half of the time of a whole step, before it finds that nothing is left to do. The convex
    kernels stride over the candidates, in the same order whatever the number of threads: they get
    one. `primitive_narrowphase` has a thread per candidate: in what `capture` makes it gets these.
    """
    with (
        changed(collision_convex, _ccd_grid_size=_grid_size),
        trimmed_launches({_PRIMITIVES_KEY: d.ncollision}),
    ):
        yield


@contextlib.contextmanager
def convex_in_shared_modules(count: int) -> Iterator[None]:
    """Within this context the kernels of all pairs are made in `count` modules, not in one each.

    Most of such a module are functions that all pairs call, and they are compiled once in each.
    """
    modules = [wp.Module(f"{SHARED_MODULES}{i}", None) for i in range(count)]
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
