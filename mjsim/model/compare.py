"""Whether two models are the same."""

import mujoco
import numpy as np


def binary(mjm: mujoco.MjModel) -> np.ndarray:
    """The model as MuJoCo saves it, (nbytes,) uint8."""
    saved = np.zeros(mujoco.mj_sizeModel(mjm), dtype=np.uint8)
    mujoco.mj_saveModel(mjm, None, saved)
    return saved


def same_model(one: mujoco.MjModel, other: mujoco.MjModel) -> bool:
    """Whether two models are the same, byte for byte."""
    return np.array_equal(binary(one), binary(other))
