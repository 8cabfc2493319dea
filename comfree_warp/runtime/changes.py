"""Other values for the time of a call: of the caller's own objects, and of Warp's modules.

Nothing stays changed. What belongs to Warp or MuJoCo Warp is shared by all threads of a process:
`substituted` changes it for the thread that asks alone, `shared_substitute` for as long as anybody
asks.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

_lock = threading.Lock()


@contextlib.contextmanager
def changed(target: Any, **values: Any) -> Iterator[None]:
    """Within this context the attributes of `target` have these values, for every thread.

    For objects of the caller's own, like the options of a model.
    """
    before = {name: getattr(target, name) for name in values}
    try:
        for name, value in values.items():
            setattr(target, name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(target, name, value)


class _Switch:
    """A function in the place of another one: some threads have a substitute, others the original.

    Attributes:
      original: the function that was there.
      substitutes: by the number of a thread, what it calls instead, the innermost context last.
    """

    def __init__(self, original: Callable[..., Any]):
        self.original = original
        self.substitutes: dict[int, list[Callable[..., Any]]] = {}

    def for_this_thread(self) -> Callable[..., Any]:
        own = self.substitutes.get(threading.get_ident())
        return own[-1] if own else self.original

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.for_this_thread()(*args, **kwargs)


def in_this_thread(target: Any, name: str) -> Any:
    """The attribute of `target` as this thread has it: its own substitute, or the original."""
    value = getattr(target, name)
    return value.for_this_thread() if isinstance(value, _Switch) else value


@contextlib.contextmanager
def substituted(target: Any, **functions: Callable[..., Any]) -> Iterator[None]:
    """Within this context this thread calls these functions in the place of those of `target`.

    Other threads call the originals. When no thread has a substitute any more, the attribute is the
    original again.
    """
    thread = threading.get_ident()
    with _lock:
        for name, function in functions.items():
            switch = getattr(target, name)
            if not isinstance(switch, _Switch):
                switch = _Switch(switch)
                setattr(target, name, switch)
            switch.substitutes.setdefault(thread, []).append(function)
    try:
        yield
    finally:
        with _lock:
            for name in functions:
                switch = getattr(target, name)
                switch.substitutes[thread].pop()
                if not switch.substitutes[thread]:
                    del switch.substitutes[thread]
                if not switch.substitutes:
                    setattr(target, name, switch.original)


# By the owner's id and the name of an attribute: how many contexts want the substitute, and the
# original.
_shared: dict[tuple[int, str], tuple[int, Any]] = {}


@contextlib.contextmanager
def shared_substitute(target: Any, **values: Any) -> Iterator[None]:
    """Within this context the attributes of `target` have these values, for every thread.

    For what is not called, like kernels, so that no thread can be told from another. All contexts
    must ask for the same values; the originals are back when the last of them ends.
    """
    with _lock:
        for name, value in values.items():
            count, original = _shared.get((id(target), name), (0, None))
            if not count:
                original = getattr(target, name)
                setattr(target, name, value)
            _shared[id(target), name] = count + 1, original
    try:
        yield
    finally:
        with _lock:
            for name in values:
                count, original = _shared.pop((id(target), name))
                if count > 1:
                    _shared[id(target), name] = count - 1, original
                else:
                    setattr(target, name, original)
