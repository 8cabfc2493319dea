"""Kernels around a step: noise on the controls, and a watch over what goes wrong in the worlds."""

import warp as wp
from mujoco_warp import OverflowType

# The words of `status`, kept on the device by every step so that none has to wait for the host.
MAX_NEFC = wp.constant(0)
MAX_NACON = wp.constant(1)
MAX_NCOLLISION = wp.constant(2)
OVERFLOW = wp.constant(3)
STEP = wp.constant(4)
OVERFLOW_STEP = wp.constant(5)  # the first in which something did not fit
_NEVER = wp.constant(2**31 - 1)
FIRST_STATUS = (0, 0, 0, 0, 0, _NEVER)

_NEFC = wp.constant(int(OverflowType.NEFC))
_BROADPHASE = wp.constant(int(OverflowType.BROADPHASE))
_NARROWPHASE = wp.constant(int(OverflowType.NARROWPHASE))


@wp.func
def _noisy_ctrl(
    base: float,
    limited: bool,
    ctrlrange: wp.vec2,
    scale: float,
    seed: int,
    step: int,
    world: int,
    i: int,
) -> float:
    state = wp.rand_init(wp.int32(wp.rand_init(seed, step)), world * 8191 + i)
    noise = scale * wp.randf(state, -1.0, 1.0)
    if not limited:
        return base + noise
    low, high = ctrlrange[0], ctrlrange[1]
    return wp.clamp(base + 0.5 * (high - low) * noise, low, high)


@wp.kernel(enable_backward=False)
def add_noise_kernel(
    limited: wp.array[bool],
    ctrlrange: wp.array[wp.vec2],
    scale: float,
    seed: int,
    status: wp.array[int],
    base: wp.array2d[float],
    ctrl_out: wp.array2d[float],
):
    world, i = wp.tid()
    ctrl_out[world, i] = _noisy_ctrl(
        base[world, i], limited[i], ctrlrange[i], scale, seed, status[STEP], world, i
    )


@wp.kernel(enable_backward=False)
def note_counts_kernel(
    naconmax: int,
    njmax: int,
    nefc: wp.array[int],
    nacon: wp.array[int],
    ncollision: wp.array[int],
    overflow_out: wp.array[int],
    status_out: wp.array[int],
):
    """Note what does not fit in the middle of a step, before it is counted anew."""
    world = wp.tid()
    lacks = 0
    if nefc[world] > njmax:
        lacks |= _NEFC
        wp.atomic_max(status_out, MAX_NEFC, nefc[world])
    if nacon[0] > naconmax:
        lacks |= _NARROWPHASE
        wp.atomic_max(status_out, MAX_NACON, nacon[0])
    if ncollision[0] > naconmax:
        lacks |= _BROADPHASE
        wp.atomic_max(status_out, MAX_NCOLLISION, ncollision[0])
    if lacks != 0:
        overflow_out[world] = overflow_out[world] | lacks


@wp.kernel(enable_backward=False)
def watch_kernel(
    limit: float,
    growable: int,
    qvel: wp.array2d[float],
    nefc: wp.array[int],
    nacon: wp.array[int],
    ncollision: wp.array[int],
    overflow: wp.array[int],
    steps_out: wp.array2d[int],
    diverged_step_out: wp.array[int],
    status_out: wp.array[int],
):
    world, lane = wp.tid()
    # Each thread counts the steps for itself, since `status` changes while others still read it.
    step = steps_out[world, lane] + 1
    steps_out[world, lane] = step
    for dof in range(lane, qvel.shape[1], steps_out.shape[1]):
        # NaN compares false. All lanes of a world write the same number: their race is harmless.
        if not (wp.abs(qvel[world, dof]) <= limit) and diverged_step_out[world] < 0:
            diverged_step_out[world] = step
    if lane > 0:
        return
    # After a step to which something was lost, all counts are of another motion.
    if status_out[OVERFLOW_STEP] >= step:
        # Once a world has diverged, what it asks for is worth no memory.
        before = diverged_step_out[world]
        if before < 0 or before == step:
            wp.atomic_max(status_out, MAX_NEFC, nefc[world])
            if overflow[world] != 0:
                wp.atomic_or(status_out, OVERFLOW, overflow[world])
            if (overflow[world] & growable) != 0:
                wp.atomic_min(status_out, OVERFLOW_STEP, step)
        if world == 0:
            wp.atomic_max(status_out, MAX_NACON, nacon[0])
            wp.atomic_max(status_out, MAX_NCOLLISION, ncollision[0])
    if world == 0:
        status_out[STEP] += 1
