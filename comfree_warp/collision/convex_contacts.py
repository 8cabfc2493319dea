"""The check of convex contacts, where the installed MuJoCo Warp has what it needs.

`narrowphase.py` builds on private functions of MuJoCo Warp. It is imported only where all of them
are as expected (`runtime/private.py`), so that the package can be used without it.
"""

import contextlib
from collections.abc import Iterator

import mujoco_warp as mjw
import warp as wp

from comfree_warp.runtime.private import CONVEX_CHECK

if CONVEX_CHECK.usable:
    from comfree_warp.collision.narrowphase import checked_narrow_phase as checked_narrow_phase
else:

    @contextlib.contextmanager
    def checked_narrow_phase(d: mjw.Data, repairs: wp.array) -> Iterator[None]:
        """A context in which collision detection is as MuJoCo Warp has it."""
        yield
