"""A copy of all that the next step depends on, taken and put back on the device."""

import dataclasses

# isort: split
import mujoco_warp
import warp as wp

from comfree_warp.runtime.graph import Graph, capture

# Dimensions that the sizes of buffers decide, as `mujoco_warp.Data` declares them.
_GROWING = {"naconmax", "njmax", "njmax_pad", "njmax_nnz"}
_MEMORY = "mem_"  # begins the names of what the warm law remembers, up to naconmax of each


def kept_arrays(d: mujoco_warp.Data) -> list[wp.array]:
    """The arrays of the data that a step may read before it writes them, in a fixed order.

    All but those that are as long as a buffer: contacts, rows and work space are made anew by
    every step. Of the others, which ones carry something over is MuJoCo Warp's own affair, and
    differs with the model: beside MuJoCo's integration state `cvel` and `cdof_dot`, and of a
    sleeping body everything. So all of them are kept; together they are small.
    """
    found: dict[int, wp.array] = {}
    for holder in (d, d.contact, d.efc):
        for field in dataclasses.fields(holder):
            array = getattr(holder, field.name)
            if isinstance(array, wp.array) and array.size and not _grows(field):
                found.setdefault(array.ptr, array)  # some have two names
    warm = getattr(d, "warm", None)
    if warm is not None:
        for field in dataclasses.fields(warm):
            array = getattr(warm, field.name)
            if field.name.startswith(_MEMORY) and array.size:
                found.setdefault(array.ptr, array)
    return list(found.values())


def _grows(field: dataclasses.Field) -> bool:
    shape = getattr(field.type, "shape", None)  # of names, where MuJoCo Warp declares it
    return isinstance(shape, tuple) and not _GROWING.isdisjoint(shape)


class Snapshot:
    """Copies of arrays, which `take` renews in one captured call.

    Args:
      arrays: what to copy.
      device: where they are.
    """

    def __init__(self, arrays: list[wp.array], device: wp.Device):
        self._arrays, self._device = arrays, device
        self._copies = [wp.clone(array) for array in arrays]
        self._graph: Graph | None = self._capture()

    def _capture(self) -> Graph:
        pairs = list(zip(self._copies, self._arrays, strict=True))

        def copy() -> None:
            for destination, source in pairs:
                wp.copy(destination, source)

        return capture(copy, self._device)

    def take(self) -> None:
        """Copy the arrays as they are now."""
        assert self._graph is not None  # but between `let_go` and `move_to`
        self._graph.launch()

    def put_back(self) -> None:
        """Copy what was taken into the arrays, as far as they and it are long."""
        for copy, array in zip(self._copies, self._arrays, strict=True):
            wp.copy(array, copy, count=min(copy.size, array.size))

    def let_go(self) -> None:
        """Keep no hold of the arrays, so that their memory is free; `move_to` comes next."""
        self._arrays, self._graph = [], None

    def move_to(self, arrays: list[wp.array]) -> None:
        """Put what was taken into these arrays, and copy them from now on.

        They are those of other data, in the same order; what is remembered of contacts may be
        longer, or as short as it was when an attempt at that failed.
        """
        self._arrays = arrays
        self.put_back()
        for i, (copy, array) in enumerate(zip(self._copies, arrays, strict=True)):
            if copy.size != array.size:
                self._copies[i] = wp.clone(array)
        self._graph = self._capture()
