"""Other settings for the time of a call."""

import contextlib
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def changed(target: Any, **values: Any) -> Iterator[None]:
    """Within this context the attributes of `target` have these values."""
    before = {name: getattr(target, name) for name in values}
    try:
        for name, value in values.items():
            setattr(target, name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(target, name, value)
