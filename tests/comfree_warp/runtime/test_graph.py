"""A captured call: made again as Warp makes it, bit by bit, from the table of its operations."""

import contextlib
import gc

import numpy as np
import pytest
import warp as wp
from warp._src import context

import comfree_warp as cfwarp
from comfree_warp.runtime.graph import Graph, trimmed_launches
from comfree_warp.runtime.private import CPU_GRAPH
from mjsim import engines

pytestmark = pytest.mark.engine

PRIMITIVES = "benchmark/test_data/primitives.xml"
HUMANOID = "benchmark/test_data/humanoid/humanoid.xml"


@wp.kernel(enable_backward=False)
def _add(amount: int, total_out: wp.array[int]):
    total_out[wp.tid()] += amount


@wp.kernel(enable_backward=False)
def _count_down(left_out: wp.array[int], made_out: wp.array[int]):
    left_out[0] -= 1
    made_out[0] += 1


def is_table(graph: Graph) -> bool:
    return graph._make.func is not wp.capture_launch


def makes_tables(device: str) -> bool:
    return device == "cpu" and CPU_GRAPH.usable


def launch_by_warp(graph: Graph, count: int) -> None:
    for _ in range(count):
        wp.capture_launch(graph._graph)


@pytest.mark.shortcut
@pytest.mark.parametrize(
    ("model", "engine", "law", "nworld"),
    [
        (PRIMITIVES, "comfree", "paper", 1),
        (PRIMITIVES, "comfree", "warm", 1),
        (HUMANOID, "comfree", "warm", 3),
        (HUMANOID, "mjwarp", None, 3),  # a solver in `wp.capture_while`
    ],
)
def test_steps_from_the_table_equal_warps_own_bit_by_bit(model, engine, law, nworld):
    mjm = engines.load_model(model)
    laws = {"law": law} if law else {}
    one, other = (engines.make_simulation(mjm, engine, nworld=nworld, **laws) for _ in range(2))
    assert is_table(one._graph)
    one._graph.launch(200)
    launch_by_warp(other._graph, 200)
    for field in ("time", "qpos", "qvel", "qacc"):
        np.testing.assert_array_equal(
            getattr(one._d, field).numpy(), getattr(other._d, field).numpy(), field
        )
    assert one._d.nacon.numpy()[0] > 0


def test_a_captured_call_is_made_as_often_as_it_is_launched(device):
    total = wp.zeros(3, dtype=int)
    graph = cfwarp.capture(lambda: wp.launch(_add, 3, inputs=[2], outputs=[total]))
    assert total.numpy().tolist() == [0, 0, 0]
    graph.launch()
    graph.launch(40)
    graph.launch(0)
    assert total.numpy().tolist() == [82, 82, 82]


def test_copies_and_fills_are_captured_in_their_order(device):
    source = wp.array([1, 2, 3], dtype=int)
    copied, cleared, filled = (wp.full(3, 7, dtype=int) for _ in range(3))
    vectors, empty = wp.zeros(5, dtype=wp.vec3), wp.zeros(0, dtype=int)

    def call():
        wp.launch(_add, 3, inputs=[1], outputs=[source])
        wp.copy(copied, source)
        wp.launch(_add, 3, inputs=[1], outputs=[source])
        cleared.zero_()
        filled.fill_(-5)
        vectors.fill_(wp.vec3(1.0, 2.0, 3.0))
        empty.zero_()
        empty.fill_(1)

    graph = cfwarp.capture(call)
    assert is_table(graph) == makes_tables(device)
    graph.launch(2)
    assert source.numpy().tolist() == [5, 6, 7]
    assert copied.numpy().tolist() == [4, 5, 6]
    assert cleared.numpy().tolist() == [0, 0, 0]
    assert filled.numpy().tolist() == [-5, -5, -5]
    assert vectors.numpy().tolist() == [[1.0, 2.0, 3.0]] * 5


def test_a_loop_runs_until_its_condition_is_zero(device):
    start, left = wp.array([3], dtype=int), wp.zeros(1, dtype=int)
    inner, outer, after = (wp.zeros(1, dtype=int) for _ in range(3))
    rounds = wp.zeros(1, dtype=int)

    def inner_loop():
        wp.copy(left, start)
        wp.capture_while(left, lambda: wp.launch(_count_down, 1, inputs=[], outputs=[left, inner]))
        wp.launch(_count_down, 1, inputs=[], outputs=[rounds, outer])

    def call():
        rounds.fill_(2)
        wp.capture_while(rounds, inner_loop)
        wp.launch(_add, 1, inputs=[1], outputs=[after])

    graph = cfwarp.capture(call)
    assert is_table(graph) == makes_tables(device)
    graph.launch(5)
    assert [it.numpy()[0] for it in (inner, outer, after)] == [30, 10, 5]


def test_a_branch_is_taken_where_its_condition_is_not_zero(device):
    condition, taken, after = (wp.zeros(1, dtype=int) for _ in range(3))

    def call():
        wp.capture_if(condition, lambda: wp.launch(_add, 1, inputs=[1], outputs=[taken]))
        wp.launch(_add, 1, inputs=[1], outputs=[after])

    graph = cfwarp.capture(call)
    assert is_table(graph) == makes_tables(device)
    graph.launch()
    condition.fill_(1)
    graph.launch(2)
    assert [it.numpy()[0] for it in (taken, after)] == [2, 3]


@wp.kernel(enable_backward=False)
def _mark(marked_out: wp.array2d[int]):
    row, column = wp.tid()
    marked_out[row, column] += 1


@pytest.mark.shortcut
def test_a_trimmed_launch_has_as_many_threads_as_there_are_to_do():
    with wp.ScopedDevice("cpu"):
        marked, count = wp.zeros((2, 5), dtype=int), wp.zeros(1, dtype=int)
        with trimmed_launches({_mark.key: count}):
            graph = cfwarp.capture(lambda: wp.launch(_mark, (2, 5), outputs=[marked]))
        after = cfwarp.capture(lambda: wp.launch(_mark, (2, 5), outputs=[marked]))
        assert is_table(graph)
        for there_are, expected in (
            (3, [1, 1, 1, 0, 0]),
            (0, [1, 1, 1, 0, 0]),
            (9, [2, 2, 2, 1, 1]),
        ):
            count.fill_(there_are)
            graph.launch()
            assert marked.numpy().tolist() == [expected, expected]
        after.launch()
        assert marked.numpy()[0].tolist() == [3, 3, 3, 2, 2]


def test_a_loop_is_captured_by_whatever_name_it_is_reached():
    from warp import capture_while

    with wp.ScopedDevice("cpu"):
        left, made = wp.array([4], dtype=int), wp.zeros(1, dtype=int)
        graph = cfwarp.capture(
            lambda: capture_while(left, lambda: wp.launch(_count_down, 1, outputs=[left, made]))
        )
        assert is_table(graph) == makes_tables("cpu")
        graph.launch()
        assert made.numpy()[0] == 4


def test_a_loop_of_nothing_ends():
    with wp.ScopedDevice("cpu"):
        always, total = wp.ones(1, dtype=int), wp.zeros(1, dtype=int)

        def call():
            wp.capture_while(always, lambda: wp.launch(_add, 0, inputs=[1], outputs=[total]))
            wp.launch(_add, 1, inputs=[1], outputs=[total])

        graph = cfwarp.capture(call)
        graph.launch()
        assert total.numpy()[0] == 1


def scan(values: wp.array) -> None:
    wp.utils.array_scan(values, values, inclusive=True)


@pytest.mark.parametrize(
    "call",
    [
        scan,
        lambda values: wp.capture_if(values[:1], lambda: scan(values)),
        lambda values: wp.capture_if(values[3:], None, lambda: scan(values)),
    ],
    ids=["alone", "in a branch", "in the other branch"],
)
def test_what_a_table_cannot_hold_is_left_to_warp(call):
    with wp.ScopedDevice("cpu"):
        values = wp.array([1, 2, 3, 0], dtype=int)
        graph = cfwarp.capture(lambda: call(values))
        assert not is_table(graph)
        graph.launch()
        assert values.numpy().tolist() == [1, 3, 6, 6]


def test_a_graph_keeps_what_was_allocated_while_it_was_captured(device):
    result = wp.zeros(1000, dtype=int)

    def call():
        scratch = wp.full(1000, 3, dtype=int)
        wp.launch(_add, 1000, inputs=[4], outputs=[scratch])
        wp.copy(result, scratch)

    graph = cfwarp.capture(call)
    gc.collect()
    others = [wp.full(1000, -1, dtype=int) for _ in range(20)]
    graph.launch(2)
    assert (result.numpy() == 7).all()
    assert all((other.numpy() == -1).all() for other in others)


def warps_own() -> list[object]:
    core, cpu = context.runtime.core, wp.get_device("cpu")
    conditionals = [context._apic_record_capture_if, context._apic_record_capture_while]
    return [core.wp_cpu_launch_kernel, core.wp_memcpy_h2h, cpu.memset, cpu.memtile, *conditionals]


def fail() -> None:
    raise RuntimeError("on purpose")


def test_a_call_that_fails_leaves_warp_as_it_was():
    before = warps_own()
    condition = wp.zeros(1, dtype=int, device="cpu")
    for call in (fail, lambda: wp.capture_while(condition, fail)):
        with pytest.raises(RuntimeError, match="on purpose"):
            cfwarp.capture(call, "cpu")
        assert warps_own() == before


def test_a_branch_that_fails_and_is_forgiven_is_no_part_of_the_graph():
    with wp.ScopedDevice("cpu"):
        condition, total = wp.zeros(1, dtype=int), wp.zeros(1, dtype=int)

        def call():
            with contextlib.suppress(RuntimeError):
                wp.capture_while(condition, fail)
            wp.launch(_add, 1, inputs=[1], outputs=[total])

        cfwarp.capture(call).launch(2)
        assert total.numpy()[0] == 2
