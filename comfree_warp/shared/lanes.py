"""Lanes: threads of a GPU, part of a warp, that share a piece of work and wait for each other.

A kernel has them as its last dimension, and strides with them over parts of the work:

    for i in range(lane, 6, nlane):

All lanes of a piece must come to every `meet` and `sum_of_lanes`: none may return or go on with
something else before, unless all do. Blocks are of a multiple of as many threads. On a CPU there is
one lane, which does all of it, and none to wait for.
"""

import warp as wp

from comfree_warp.types import Data

_LANES = 8  # a power of two, up to the 32 threads of a warp
_GROUP = f"{(1 << _LANES) - 1:#x}u << (threadIdx.x & {32 - _LANES}u)"  # these lanes, of the warp


def nlane_for(d: Data) -> int:
    """How many lanes share a piece of work."""
    return 1 if d.qpos.device.is_cpu else _LANES


@wp.func_native(f"""
#if defined(__CUDA_ARCH__)
__syncwarp({_GROUP});
#endif
""")
def meet():
    """Wait for the other lanes, and see what they have written."""


@wp.func_native(f"""
#if defined(__CUDA_ARCH__)
for (int other = {_LANES // 2}; other > 0; other >>= 1)
    value += __shfl_xor_sync({_GROUP}, value, other, {_LANES});
#endif
return value;
""")
def sum_of_lanes(value: float) -> float:
    """The sum of the values of all lanes, the same in every run."""


@wp.func_native("""
#if defined(__CUDA_ARCH__)
__threadfence();
#endif
""")
def fence():
    """Let threads elsewhere see what was written before, in whatever they read after a fence."""
