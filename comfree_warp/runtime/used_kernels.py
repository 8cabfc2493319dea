"""Copies of the kernels of MuJoCo Warp that a call uses, in modules of their own.

A step launches half of the kernels of `smooth` and a few of `forward` and `passive`. On an empty
cache the others are a third of all that would be compiled. So a kernel that is used gets a copy in
a module that has nothing else, and `capture` launches the copy. MuJoCo Warp's own kernels and
modules stay as they are: whoever launches them compiles them as ever.
"""

import contextlib
import copy
from collections.abc import Iterable, Iterator
from typing import Any

import warp as wp

from comfree_warp.runtime.changes import in_this_thread, substituted

_copies: dict[wp.Kernel, wp.Kernel] = {}


def copy_of(kernel: wp.Kernel) -> wp.Kernel:
    """The copy of a kernel that was used before; the kernel itself where there is none."""
    return _copies.get(kernel, kernel)


def module_of_copies(module: wp.Module, kernels: Iterable[wp.Kernel]) -> wp.Module:
    """A module with copies of some kernels of a module, which `use_copies` makes `copy_of` find."""
    part = wp.Module(f"{module.name}.used", None)
    wp.set_module_options(module.options, part)
    for kernel in kernels:
        duplicate = copy.copy(kernel)
        duplicate.module = part
        part.register_kernel(duplicate)
    # Warp finds what it loaded on a CPU by the module's name alone: of two with one name it runs
    # the first for both. So the name goes with the content, the same in every process.
    part.name = part.get_module_identifier(block_dim=1).removeprefix("wp_")
    return part


def use_copies(part: wp.Module, kernels: Iterable[wp.Kernel]) -> None:
    """Let `copy_of` find the copies of these kernels that `module_of_copies` made."""
    _copies.update((kernel, part.kernels[kernel.key]) for kernel in kernels)


@contextlib.contextmanager
def launching_copies() -> Iterator[None]:
    """Within this context this thread launches the copy of a kernel where there is one."""
    launch, launch_tiled = in_this_thread(wp, "launch"), in_this_thread(wp, "launch_tiled")

    def launch_copy(kernel: wp.Kernel, *args: Any, **kwargs: Any) -> Any:
        return launch(copy_of(kernel), *args, **kwargs)

    def launch_copy_tiled(kernel: wp.Kernel, *args: Any, **kwargs: Any) -> Any:
        return launch_tiled(copy_of(kernel), *args, **kwargs)

    with substituted(wp, launch=launch_copy, launch_tiled=launch_copy_tiled):
        yield
