"""A call captured once and launched many times, as Warp's graphs; faster on the CPU.

Warp interprets a graph on the CPU: for every launch it looks the kernel up by its name and copies
the arguments one by one, 150 ns and 20 ns per array, which is up to two thirds of the time of a
whole step of one world. Here the same kernels, with the same arguments, are called from a table of
addresses, by a kernel that does nothing else.
"""

import contextlib
import contextvars
import ctypes
import functools
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import warp as wp

from comfree_warp.runtime.arena import capture_on_gpu
from comfree_warp.runtime.changes import in_this_thread, substituted
from comfree_warp.runtime.private import ARENA, CPU_GRAPH, runtime_has
from comfree_warp.runtime.used_kernels import launching_copies

# Operations, and their operands in the columns that follow.
_LAUNCH = 0  # function, bounds, arguments
_COPY = 1  # destination, source, bytes
_SET = 2  # destination, byte, how many
_TILE = 3  # destination, source, bytes of the source, how often, Warp's function for it
_UNLESS = 4  # condition, where to go on if it is zero
_GO = 5  # where to go on
_TRIM = 6  # last extent and size of bounds, most threads in it, count, threads in the other ones
_NCOLUMN = 6


@wp.func_native(f"""
for (wp::int64 next = 0; next < table.shape[0];) {{
    const wp::int64* op = table.data + {_NCOLUMN} * next++;
    char* to = (char*)op[1];
    switch (op[0]) {{
    case {_LAUNCH}: ((void (*)(void*, void*))op[1])((void*)op[2], (void*)op[3]); break;
    case {_COPY}: __builtin_memcpy(to, (const void*)op[2], op[3]); break;
    case {_SET}: __builtin_memset(to, (int)op[2], op[3]); break;
    case {_TILE}:
        ((void (*)(void*, const void*, size_t, size_t))op[5])(to, (const void*)op[2], op[3], op[4]);
        break;
    case {_UNLESS}: if (*(const int*)to == 0) next = op[2]; break;
    case {_GO}: next = op[1]; break;
    case {_TRIM}: {{
        const int count = *(const int*)op[4];
        const wp::int64 extent = count < op[3] ? count : op[3];
        *(wp::uint32*)to = extent;
        *(wp::uint64*)op[2] = extent * op[5];
        break;
    }}
    }}
}}
""")
def _carry_out(table: wp.array2d[wp.int64]): ...


@wp.kernel(enable_backward=False)
def _run(table: wp.array2d[wp.int64]):
    """Carry the operations of a table out."""
    _carry_out(table)


RUNNER: wp.Module = _run.module  # of what runs every captured call on the CPU


def _command(operations: list[list[int]]) -> wp.Launch:
    """The launch that carries out these operations."""
    rows = np.array(operations, dtype=np.int64).reshape(-1, _NCOLUMN)
    table: wp.array = wp.array(rows, dtype=wp.int64, device="cpu")
    return wp.launch(_run, dim=1, inputs=[table], device="cpu", record_cmd=True)


# Of `trimmed_launches`; each thread has its own.
_counts: contextvars.ContextVar[Mapping[str, wp.array]] = contextvars.ContextVar(
    "counts", default=types.MappingProxyType({})
)


@contextlib.contextmanager
def trimmed_launches(counts: dict[str, wp.array]) -> Iterator[None]:
    """Within this context `capture` launches no more threads of some kernels than a count says.

    On the CPU, where the threads of a launch run one after the other; Warp's own launches and
    graphs have all.

    Args:
      counts: by the key of a kernel, an array whose only element says when the launch is made how
        many threads of its last dimension have something to do: the others would return at once.
    """
    before = _counts.set({**_counts.get(), **counts})
    try:
        yield
    finally:
        _counts.reset(before)


class _Recorder:
    """The operations of a capture on the CPU, noted as Warp records them.

    Attributes:
      operations: rows of the table.
      kept: what the addresses in them lead to, other than arrays of the graph.
      complete: whether they are all that Warp has recorded.
    """

    def __init__(self, device: wp.Device) -> None:
        self.operations: list[list[int]] = []
        self.kept: list[Any] = []
        self.complete = not wp.config.enable_cpu_blocks  # whose errors only Warp looks for
        self._noted = 0  # of what Warp has recorded in the branch that is being captured
        self._context = CPU_GRAPH.owner("runtime")
        runtime = self._context.runtime
        self._apic_state = runtime._apic_capture.apic_state
        self._device = device
        self._core = runtime.core
        self._launch = in_this_thread(self._core, "wp_cpu_launch_kernel")
        self._copy = in_this_thread(self._core, "wp_memcpy_h2h")
        self._memset = in_this_thread(device, "memset")
        self._memtile = in_this_thread(device, "memtile")
        self._if = in_this_thread(self._context, "_apic_record_capture_if")
        self._while = in_this_thread(self._context, "_apic_record_capture_while")

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Within this context what Warp records is noted."""
        with (
            substituted(
                self._core,
                wp_cpu_launch_kernel=self._note_launch,
                wp_memcpy_h2h=self._note_copy,
            ),
            substituted(self._device, memset=self._note_memset, memtile=self._note_memtile),
            substituted(
                self._context,
                _apic_record_capture_if=self._note_if,
                _apic_record_capture_while=self._note_while,
            ),
            self._all_noted(),
        ):
            yield

    def _count(self) -> int:
        return self._core.wp_apic_get_operation_count(self._apic_state)

    @contextlib.contextmanager
    def _all_noted(self) -> Iterator[None]:
        """Within this context Warp must record what is noted, and nothing else."""
        first, around = self._count(), self._noted
        self._noted = 0
        try:
            yield
            self.complete &= self._count() - first == self._noted
        finally:
            self._noted = around

    def _add(self, *operation: int) -> int:
        """Add an operation; its row."""
        self.operations.append([*operation, *[0] * (_NCOLUMN - len(operation))])
        return len(self.operations) - 1

    def _note(self, record: Callable[[], Any], *operation: int) -> Any:
        """Let Warp record an operation, and add it; of an empty copy or fill Warp records none."""
        first = self._count()
        result = record()
        if self._count() != first:
            self._add(*operation)
            self._noted += 1
        return result

    def _keep(self, value: Any) -> int:
        """The address of a value of ctypes that lives as long as this does."""
        self.kept.append(value)
        return ctypes.addressof(value)

    def _note_launch(self, function, bounds, arguments, adjoint, info) -> None:
        self.complete &= adjoint is None
        own = type(bounds._obj).from_buffer_copy(bounds._obj)  # it may be changed, by `_TRIM`
        count = _counts.get().get(info._obj.kernel_key.decode())
        if count is not None:
            self._trim(own, count)
        self._note(
            lambda: self._launch(function, bounds, arguments, adjoint, info),
            *(_LAUNCH, function.value, self._keep(own)),
            self._keep(arguments._obj),  # made for this launch alone
        )

    def _trim(self, bounds: ctypes.Structure, count: wp.array) -> None:
        kind, most = type(bounds), bounds.shape[-1]
        self.kept.append(count)
        where = ctypes.addressof(bounds)
        extent = where + kind.shape.offset + kind.shape.size - ctypes.sizeof(ctypes.c_uint32)
        self._add(_TRIM, extent, where + kind.size.offset, most, count.ptr, bounds.size // most)

    def _note_copy(self, *operands: int) -> bool:
        return self._note(lambda: self._copy(*operands), _COPY, *operands)

    def _note_memset(self, *operands: int) -> bool:
        return self._note(lambda: self._memset(*operands), _SET, *operands)

    def _note_memtile(self, destination: int, source: Any, size: int, count: int) -> None:
        value = ctypes.create_string_buffer(ctypes.string_at(source, size), size)
        function = ctypes.cast(self._memtile, ctypes.c_void_p).value or 0
        self._note(
            lambda: self._memtile(destination, source, size, count),
            *(_TILE, destination, self._keep(value), size, count, function),
        )

    def _note_if(self, condition, on_true, on_false, **kwargs) -> None:
        self.complete &= on_false is None
        with self._branch(condition, repeated=False) as inside:
            self._if(condition, inside(on_true), inside(on_false), **kwargs)

    def _note_while(self, condition, while_body, **kwargs) -> None:
        with self._branch(condition, repeated=True) as inside:
            self._while(condition, inside(while_body), **kwargs)

    @contextlib.contextmanager
    def _branch(self, condition: wp.array, repeated: bool) -> Iterator[Callable]:
        """Note what is captured in a function that this yields, and when it is carried out."""
        unless = self._add(_UNLESS, condition.ptr)

        def inside(body: Any) -> Any:
            if not callable(body):  # which Warp refuses, or nothing
                return body

            def noted_body(**kwargs: Any) -> None:
                with self._all_noted():
                    body(**kwargs)

            return noted_body

        try:
            yield inside
        except BaseException:
            self.complete = False  # the caller may go on without what Warp has dropped
            raise
        self._noted += 1  # for Warp a branch is a single operation
        if repeated:
            # Warp leaves a loop of nothing at once.
            self.complete &= len(self.operations) > unless + 1
            self._add(_GO, unless)
        self.operations[unless][2] = len(self.operations)


class Graph:
    """What `capture` makes: a call that can be made again, on the same arrays."""

    def __init__(self, graph: wp.Graph, recorder: _Recorder | None = None, memory: object = None):
        self._graph = graph  # keeps arrays and loaded code
        self._memory = memory  # of what the call allocates on a GPU
        self._make = functools.partial(wp.capture_launch, graph)
        if recorder is not None and recorder.complete:
            self._kept = recorder.kept
            self._command = command = _command(recorder.operations)
            # `Launch.launch` takes 7 us. A kernel's arguments are a struct; of one, that one.
            self._make = functools.partial(
                command.hooks.forward,
                ctypes.byref(command.bounds),
                ctypes.byref(command.params[1]),
            )

    def launch(self, count: int = 1) -> None:
        """Make the captured call `count` times; on a GPU without waiting for it.

        On the CPU it is made at once, in a capture, too, and a loop in it goes on until its
        condition is zero.
        """
        make = self._make
        for _ in range(count):
            make()


def capture(call: Callable[[], None], device: wp.DeviceLike = None) -> Graph:
    """Capture the launches of a call, without making it.

        graph = comfree_warp.capture(lambda: comfree_warp.step(m, d))
        graph.launch(1000)

    Args:
      call: what to capture: launches, copies and fills, also in `wp.capture_if` and
        `wp.capture_while`. What it allocates lives as long as the graph. On a GPU it is captured
        twice, see `arena`, and must launch on one stream.
      device: where it runs; the current one when None.

    Returns:
      The graph. On the CPU Warp's own interpreter runs it where the call has anything else, and
      where the shortcut is off (`private.py`).
    """
    device = wp.get_device(device)
    if not device.is_cpu and ARENA.usable:
        graph, memory = capture_on_gpu(call, device)
        return Graph(graph, memory=memory)
    if not device.is_cpu or not _records():
        with wp.ScopedDevice(device), wp.ScopedCapture() as captured:
            call()
        return Graph(captured.graph)
    with wp.ScopedDevice(device), wp.ScopedCapture() as captured:
        recorder = _Recorder(device)
        with launching_copies(), recorder.listening():
            call()
    return Graph(captured.graph, recorder)


def _records() -> bool:
    """Whether what Warp records on the CPU can be noted."""
    return CPU_GRAPH.usable and runtime_has(
        "_apic_capture",
        "core.wp_cpu_launch_kernel",
        "core.wp_memcpy_h2h",
        "core.wp_apic_get_operation_count",
    )
