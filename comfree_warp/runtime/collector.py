"""Python's garbage collector, out of the way where everything that is made stays."""

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def collector_paused() -> Iterator[None]:
    """Within this context no cycles are looked for.

    Warp parses the source of every kernel when it is made: hundreds of thousands of objects that
    stay, and that the collector would walk again and again, for half the time that it all takes.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
