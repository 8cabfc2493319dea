"""What a captured call allocates on a GPU has its place before."""

import math
from collections.abc import Callable

import hypothesis
import pytest
import warp as wp
from hypothesis import strategies

import comfree_warp as cfwarp
from comfree_warp.runtime import arena
from comfree_warp.runtime.arena import Lifetime, place


@strategies.composite
def lifetimes(draw: strategies.DrawFn) -> list[Lifetime]:
    """Of a call that allocates and frees in any order, and does not free everything."""
    found, alive = [], []
    for now in range(draw(strategies.integers(0, 40))):
        if alive and draw(strategies.booleans()):
            alive.pop(draw(strategies.integers(0, len(alive) - 1))).end = now
        else:
            found.append(Lifetime(draw(strategies.integers(0, 5000)), now))
            alive.append(found[-1])
    return found


@hypothesis.given(lifetimes())
def test_nothing_shares_a_byte_with_what_is_alive_beside_it(found):
    offsets, total = place(found)
    for i, it in enumerate(found):
        assert offsets[i] % 256 == 0
        assert offsets[i] + it.size <= total
        for j, other in enumerate(found[:i]):
            if other.end > it.start and other.size and it.size:
                apart = offsets[j] + other.size <= offsets[i] or offsets[i] + it.size <= offsets[j]
                assert apart, (it, other)


def test_what_is_needed_one_after_the_other_shares_its_place():
    times = [Lifetime(1000, 0, 1), Lifetime(4000, 2, 5), Lifetime(2000, 3, 4), Lifetime(9, 6)]
    offsets, total = place(times)
    assert offsets == [0, 0, 4096, 0]
    assert total == 4096 + 2000
    assert times[3].end == math.inf


def captures(monkeypatch: pytest.MonkeyPatch, call: Callable[[arena._Allocator], None]) -> list:
    """What `capture_on_gpu` captures of a call, which is told what to allocate with, on the CPU.

    A graph is the allocator that it was captured with.
    """
    made = []

    def captured(call, device, allocator):
        call(allocator)
        made.append(allocator)
        return allocator

    monkeypatch.setattr(arena, "_captured", captured)
    graph, memory = arena.capture_on_gpu(call, wp.get_device("cpu"))
    assert graph is made[-1], "what the call left behind is of the last capture"
    assert memory is (graph if len(made) == 2 else None)
    return made


def test_the_second_capture_gets_its_memory_from_one_block(monkeypatch):
    pointers, kept = [], []

    def call(allocator: arena._Allocator) -> None:
        first, second = allocator.allocate(1000), allocator.allocate(3000)
        allocator.deallocate(first, 1000)
        third = allocator.allocate(500)
        allocator.deallocate(third, 500)
        kept.append((allocator, second))
        if len(kept) > 1:  # what the first call left behind is replaced
            kept[0][0].deallocate(kept[0][1], 3000)
        pointers.append((first, second, third))

    *_, serving = captures(monkeypatch, call)
    assert len(pointers) == 2
    first, second, third = pointers[1]
    block = range(serving._memory.ptr, serving._memory.ptr + serving._memory.capacity)
    assert {first, second, third} <= set(block)
    assert first == third != second
    assert serving._memory.capacity == 3072 + 1024


def test_a_call_that_allocates_otherwise_the_second_time_is_captured_as_it_is(monkeypatch):
    calls = []

    def call(allocator: arena._Allocator) -> None:
        calls.append(allocator)
        size = 1000 if len(calls) == 1 else 2000
        allocator.deallocate(allocator.allocate(size), size)

    made = captures(monkeypatch, call)
    assert len(made) == 3
    assert made[-1]._memory.size == 0


@wp.kernel
def _add(values: wp.array[float], out: wp.array[float]):
    wp.atomic_add(out, 0, values[wp.tid()])


@pytest.mark.cuda
@pytest.mark.skipif(not wp.is_cuda_available(), reason="no CUDA device on this machine")
@pytest.mark.parametrize("more", [0, 1], ids=["the same", "more"])
def test_a_graph_computes_the_same_whether_or_not_a_second_capture_allocates(more):
    total = wp.zeros(1, dtype=float, device="cuda:0")
    kept = []

    def call() -> None:
        if more:
            kept.append(wp.zeros(1000 * (1 + len(kept)), dtype=float))
        for value in (1.0, 2.0):
            for size in (1000, 2000):
                values = wp.full(size, value * size, dtype=float)
                wp.launch(_add, size, inputs=[values], outputs=[total])
                del values

    graph = cfwarp.capture(call, "cuda:0")
    graph.launch(3)
    assert total.numpy()[0] == 3 * 3 * (1000**2 + 2000**2)
    assert (graph._memory is None) == bool(more)
