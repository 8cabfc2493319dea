"""Memory on a GPU for what a captured call allocates, taken before it is captured.

Allocated in the capture it would be part of the graph: nodes that every launch has to pass, and
memory that belongs to no pool, which Warp does not count. So the call is captured twice. The first
time says what it allocates and for how long; from that follows a place for everything in one block
of memory, where what is needed at different times shares a place. The second time it gets those.
What Warp's own sorts and scans allocate is not seen here, and stays in the graph.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence

import warp as wp

from comfree_warp.runtime.collector import collector_paused

_ALIGNMENT = 256  # bytes, CUDA's own


@dataclasses.dataclass
class Lifetime:
    """What a call allocates.

    Attributes:
      size: bytes.
      start: when, in a count of all that the call allocates and frees.
      end: when it is freed; never, within the call, if infinite.
    """

    size: int
    start: int
    end: float = math.inf


def place(lifetimes: Sequence[Lifetime]) -> tuple[list[int], int]:
    """Offsets at which no two share a byte at the same time, and the bytes of all, greedily.

    The largest first, each at the lowest offset that is free all its life: within 0.2 % of the
    least for the steps of both engines on the models of the benchmark.
    """
    offsets = [0] * len(lifetimes)
    placed: list[int] = []
    total = 0
    for index in sorted(range(len(lifetimes)), key=lambda i: -lifetimes[i].size):
        it = lifetimes[index]
        beside = [i for i in placed if lifetimes[i].start < it.end and it.start < lifetimes[i].end]
        offset = 0
        for other in sorted(beside, key=offsets.__getitem__):
            if offsets[other] - offset >= it.size:
                break
            end = offsets[other] + lifetimes[other].size
            offset = max(offset, -(-end // _ALIGNMENT) * _ALIGNMENT)
        offsets[index] = offset
        placed.append(index)
        total = max(total, offset + it.size)
    return offsets, total


class _Allocator:
    """What a device allocates with while a call is captured.

    Args:
      device: where.
      planned: what the call will allocate, which gets one block of memory; all else is allocated
        as the device does.

    Attributes:
      lifetimes: of everything, in the order in which it is allocated.
    """

    def __init__(self, device: wp.Device, planned: Sequence[Lifetime] = ()):
        self.lifetimes: list[Lifetime] = []
        self._usual = device.get_allocator()
        self._now = 0
        self._alive: dict[int, Lifetime] = {}
        self._sizes = [it.size for it in planned]
        self._offsets, total = place(planned)
        shape = (-(-total // _ALIGNMENT), _ALIGNMENT)  # since an extent has 32 bits
        self._memory = wp.empty(shape, dtype=wp.uint8, device=device)

    def allocate(self, size: int) -> int:
        index = len(self.lifetimes)
        if self._sizes[index : index + 1] == [size]:
            pointer = self._memory.ptr + self._offsets[index]
        else:
            pointer = self._usual.allocate(size)
        self._now += 1
        self.lifetimes.append(Lifetime(size, self._now))
        self._alive[pointer] = self.lifetimes[-1]
        return pointer

    def deallocate(self, pointer: int, size: int) -> None:
        if pointer in self._alive:
            self._now += 1
            self._alive.pop(pointer).end = self._now
        start = self._memory.ptr or 0
        if not start <= pointer < start + self._memory.capacity:
            self._usual.deallocate(pointer, size)


def _captured(call: Callable[[], None], device: wp.Device, allocator: _Allocator) -> wp.Graph:
    with (
        wp.ScopedDevice(device),
        wp.ScopedAllocator(device, allocator),
        wp.ScopedCapture() as captured,
    ):
        call()
    return captured.graph


def capture_on_gpu(call: Callable[[], None], device: wp.Device) -> tuple[wp.Graph, object]:
    """Capture a call that finds the memory that it allocates already there.

    Returns:
      The graph, of the last capture, and what keeps its memory: None where the call does not
      allocate the same twice, so that its allocations are part of the graph.
    """
    with collector_paused():
        watching = _Allocator(device)
        _captured(call, device, watching)
        # What outlives the call may be freed later, which is none of the plan.
        planned = [dataclasses.replace(it) for it in watching.lifetimes]
        serving = _Allocator(device, planned)
        graph = _captured(call, device, serving)
        if serving.lifetimes == planned:
            return graph, serving
        return _captured(call, device, _Allocator(device)), None
