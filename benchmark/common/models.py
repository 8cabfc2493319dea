"""The models of the benchmarks: where they lie, and what names a compiled one."""

import hashlib

import mujoco
import numpy as np

DATA = "benchmark/test_data/"
HUMANOID = DATA + "humanoid/humanoid.xml"


def model_hash(mjm: mujoco.MjModel) -> str:
    """16 hex digits that name a compiled model, and so all files that went into it.

    Where those files lie does not count; what is in `opt` is told apart by the definition.
    """
    digest = hashlib.sha256()
    for name in sorted(dir(mjm)):
        values = getattr(mjm, name)
        if isinstance(values, np.ndarray) and not name.endswith("pathadr"):
            digest.update(name.encode() + values.tobytes())
    return digest.hexdigest()[:16]
