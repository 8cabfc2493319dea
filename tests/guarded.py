"""Memory of Warp's CPU device with a guard before and behind every array."""

import ctypes

import warp as wp

_GUARD = b"\xa5" * 64


class GuardedAllocator:
    """Allocates as the device does, and finds out what wrote past an array's ends."""

    deallocate_requires_context_guard = False

    def __init__(self, device: wp.Device) -> None:
        self._usual = device.get_allocator()
        self.memory_kind = self._usual.memory_kind
        self._sizes: dict[int, int] = {}
        self.broken: list[str] = []

    def allocate(self, size: int) -> int:
        start = self._usual.allocate(size + 2 * len(_GUARD))
        for guard in (start, start + len(_GUARD) + size):
            ctypes.memmove(guard, _GUARD, len(_GUARD))
        self._sizes[start + len(_GUARD)] = size
        return start + len(_GUARD)

    def deallocate(self, pointer: int, size: int) -> None:
        if pointer not in self._sizes:  # allocated before this allocator took over
            self._usual.deallocate(pointer, size)
            return
        self._check(pointer)
        del self._sizes[pointer]
        self._usual.deallocate(pointer - len(_GUARD), size + 2 * len(_GUARD))

    def check(self) -> None:
        """Look at all guards; AssertionError where one was written to."""
        for pointer in self._sizes:
            self._check(pointer)
        assert not self.broken

    def _check(self, pointer: int) -> None:
        size = self._sizes[pointer]
        for where, guard in (("before", pointer - len(_GUARD)), ("behind", pointer + size)):
            if ctypes.string_at(guard, len(_GUARD)) != _GUARD:
                self.broken.append(f"{where} an array of {size} bytes")
