"""Noise on the controls: the same numbers on every engine and device.

Warp's generator draws them on a device. `draw` is the same in NumPy, for MuJoCo C: the hash of
Jarzynski and Olano, "Hash Functions for GPU Rendering", JCGT 9(3), 2020, named PCG there.
"""

import dataclasses

import mujoco
import numpy as np
import numpy.typing as npt


@dataclasses.dataclass(frozen=True)
class ControlNoise:
    """Uniform noise on the controls, the same sequence on every engine and device.

    ctrl = clip(base + scale * radius * U(-1, 1)), with radius half the control range, or 1 where
    an actuator has none. The number drawn depends on seed, step, world and actuator only.
    """

    scale: float = 0.0
    seed: int = 0


def _pcg(state: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
    word = state * np.uint32(747796405) + np.uint32(2891336453)
    word = ((word >> ((word >> np.uint32(28)) + np.uint32(4))) ^ word) * np.uint32(277803737)
    return (word >> np.uint32(22)) ^ word


def _hash(seed: npt.NDArray[np.uint32], offset: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
    """As Warp's `rand_init`."""
    return _pcg(seed + _pcg(offset))


def draw(
    noise: ControlNoise, mjm: mujoco.MjModel, base: npt.NDArray[np.float32], start: int, nsteps: int
) -> npt.NDArray[np.float32]:
    """Controls with noise for consecutive steps.

    Args:
      noise: how much, and its seed.
      mjm: the model, for the ranges of its controls.
      base: what the noise is added to, (nworld, nu).
      start: steps taken before the first of them.
      nsteps: how many steps.

    Returns:
      (nworld, nsteps, nu).
    """
    nworld, nu = base.shape
    steps = np.arange(start, start + nsteps, dtype=np.uint32)
    of_step = _hash(np.array([noise.seed], dtype=np.uint32), steps)
    worlds, actuators = np.arange(nworld, dtype=np.uint32), np.arange(nu, dtype=np.uint32)
    place = np.add.outer(np.uint32(8191) * worlds, actuators)
    state = _pcg(_hash(of_step[None, :, None], place[:, None, :]))
    uniform = (state >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-23) - np.float32(1.0)
    change = np.float32(noise.scale) * uniform
    limited = mjm.actuator_ctrllimited.astype(bool)
    low, high = mjm.actuator_ctrlrange.astype(np.float32).T
    radius = np.where(limited, np.float32(0.5) * (high - low), np.float32(1.0))
    out = base[:, None, :] + radius * change
    return np.where(limited, np.clip(out, low, high), out)
