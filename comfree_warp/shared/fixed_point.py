"""Sums that do not depend on their order, for `Option.deterministic`.

On CUDA contacts and rows come in another order every time, and so does a sum of floats over them:
no two runs agree in every bit. Integers do not round, so these sums are of fixed-point numbers in
64 bits, in steps of 7.5e-9 N (N m), whatever the scale of the model. A term is cut at 3.4e7 N, so
that two thousand of them cannot wrap around.
"""

import mujoco_warp
import warp as wp
from mujoco_warp import DeterminismType

_SCALE = wp.constant(wp.float64(2.0**27))
_LARGEST = wp.constant(wp.float64(2.0**52))


def is_deterministic(m: mujoco_warp.Model) -> bool:
    """Whether the user asks for sums that are the same in every run."""
    return bool(m.opt.deterministic & DeterminismType.ATOMICS)


@wp.func
def precedes(one: wp.vec3, other: wp.vec3) -> bool:
    """An order of places, whatever is stored first: by x, then y, then z."""
    for i in range(3):
        if one[i] != other[i]:
            return one[i] < other[i]
    return False


@wp.func
def to_fixed(value: float) -> wp.int64:
    """The nearest number of steps; what is too large, or NaN, is cut, and diverges soon enough."""
    scaled = wp.float64(value) * _SCALE
    if not (wp.abs(scaled) < _LARGEST):
        scaled = wp.where(value < 0.0, -_LARGEST, _LARGEST)
    return wp.int64(wp.rint(scaled))


@wp.func
def from_fixed(steps: wp.int64) -> float:
    """The number again."""
    return float(wp.float64(steps) / _SCALE)


@wp.func
def add_to(
    value: float,
    i: int,
    deterministic: bool,
    sums: wp.array[float],
    fixed: wp.array[wp.int64],
):
    """Add to the i-th sum: to the one in fixed point where the order must not matter."""
    if deterministic:
        wp.atomic_add(fixed, i, to_fixed(value))
    else:
        wp.atomic_add(sums, i, value)


_COARSE = wp.constant(wp.float64(2.0**10))
_FINE = wp.constant(wp.float64(2.0**45))


@wp.func
def add_fixed_pair(value: float, out: wp.array[wp.int64]):
    """Add to a sum of any size, kept in steps of 2^-10 and of 2^-45: (2,) int64."""
    wide = wp.float64(value)
    if not (wp.abs(wide) * _COARSE < _LARGEST):
        wide = wp.where(value < 0.0, -_LARGEST, _LARGEST) / _COARSE
    coarse = wp.rint(wide * _COARSE)
    wp.atomic_add(out, 0, wp.int64(coarse))
    wp.atomic_add(out, 1, wp.int64(wp.rint((wide - coarse / _COARSE) * _FINE)))


@wp.func
def from_fixed_pair(pair: wp.array[wp.int64]) -> float:
    """The sum again."""
    return float(wp.float64(pair[0]) / _COARSE + wp.float64(pair[1]) / _FINE)
