"""The warm law of one row and of one contact. docs/contact_laws.md derives it.

    a = B' J qvel + K I (pos - margin)             what MuJoCo's solref and solimp ask, -aref
    r = J acc + a + R f                            gradient of MuJoCo's dual problem along the row
    f -> f + s (proj(f - r / (P + R)) - f)         P = sum over dofs of J^2 / M_dd

Source: MuJoCo's "Computation" chapter for K, B, I, R and the cone. Loops over the rows of a contact
have constant bounds, so that they unroll and its vectors stay in registers.
"""

from typing import Any

import warp as wp
from mujoco_warp import DisableBit

from comfree_warp.shared.contacts import MAXIMP, MINIMP, MINVAL
from comfree_warp.types import vec5, vec6

# A share of what a force differs from its slow mean goes into that mean with every step.
MEAN_GAIN = wp.constant(0.02)
# Of a kinematic tree: the smallest part of a step that it takes, and by what that may change.
_MIN_ALPHA = wp.constant(0.02)
_MIN_RATIO = wp.constant(0.5)
_MAX_RATIO = wp.constant(1.25)
_MAX_BETA = wp.constant(0.95)
# A step is rounding below this part of what gravity and actuators do, both as q^T M^-1 q.
ROUNDING = wp.constant(1.0e-8)
_SECULAR_ITERATIONS = wp.constant(4)


@wp.func
def solref_gains(solref: wp.vec2, solimp: vec5, h: float, disableflags: int) -> wp.vec2:
    """K and B of MuJoCo's "Solver parameters", 1/s^2 and 1/s."""
    dmax = wp.clamp(solimp[1], MINIMP, MAXIMP)
    least = wp.where((disableflags & DisableBit.REFSAFE) != 0, 0.0, 2.0 * h)
    timeconst = wp.max(solref[0], least)
    # Branches, since what is not meant may divide by zero.
    K = float(0.0)
    if solref[0] <= 0.0:
        K = -solref[0] / (dmax * dmax)
    else:
        stiff = dmax * timeconst * solref[1]
        K = 1.0 / wp.max(stiff * stiff, MINVAL)
    if solref[1] <= 0.0:
        return wp.vec2(K, -solref[1] / dmax)
    return wp.vec2(K, 2.0 / wp.max(dmax * timeconst, MINVAL))


@wp.func
def kept_part(h: float, KI: float, B: float) -> float:
    """gamma: how much of a force's distance from its mean survives a step.

    A pass with the efficiency rho follows what it should be with a lag of h / rho; losing
    h K I / B of the force with every step damps that for every rho.
    """
    if KI <= 0.0:
        return 1.0
    return wp.clamp(1.0 - h * KI / wp.max(B, MINVAL), 0.0, 1.0)


@wp.func
def contact_demand(
    u: vec6,
    phi: float,
    imp: float,
    normal_R: float,
    adhesion: float,
    mu: float,
    condim: int,
    invfriction: vec5,
    solref: wp.vec2,
    solreffriction: wp.vec2,
    solimp: vec5,
    h: float,
    disableflags: int,
) -> tuple[vec6, vec6, float]:
    """What MuJoCo's solref and solimp ask of an elliptic contact: a, R and gamma.

    mu is the first friction, regularised by impratio; R_i mu_i^2 is the same for all rows.
    """
    gains = solref_gains(solref, solimp, h, disableflags)
    B = wp.max(gains[1], 1.0 / h)
    tangent_B = gains[1]
    if solreffriction[0] != 0.0 or solreffriction[1] != 0.0:
        tangent_B = solref_gains(solreffriction, solimp, h, disableflags)[1]
    bias, R = vec6(), vec6()
    R[0] = normal_R
    bias[0] = B * u[0] + gains[0] * imp * phi - normal_R * adhesion
    for i in range(1, 6):
        if i < condim:
            ratio = mu * invfriction[i - 1]
            R[i] = normal_R * ratio * ratio
            bias[i] = tangent_B * u[i]
    return bias, R, kept_part(h, gains[0] * imp, B)


@wp.func
def reciprocals(values: Any, count: int) -> Any:
    """1 over each of the first values, those of rows that a contact has; 0 for the others."""
    inverse = type(values)()
    for i in range(wp.static(len(values))):
        if i < count:
            inverse[i] = 1.0 / values[i]
    return inverse


@wp.func
def friction_sq(force: vec6, condim: int, invfriction: vec5) -> float:
    """Sum of (f_i / mu_i)^2: Coulomb's cone holds what is no more than f_n^2."""
    total = float(0.0)
    for i in range(1, 6):
        if i < condim:
            scaled = force[i] * invfriction[i - 1]
            total += scaled * scaled
    return total


@wp.func
def into_cone(force: vec6, condim: int, invfriction: vec5) -> vec6:
    """Clamp the normal force at zero and scale friction into the cone that it opens."""
    clipped = force
    clipped[0] = wp.max(force[0], 0.0)
    tangent_sq = friction_sq(force, condim, invfriction)
    if tangent_sq > clipped[0] * clipped[0]:
        factor = clipped[0] / wp.sqrt(tangent_sq)
        for i in range(1, 6):
            if i < condim:
                clipped[i] = force[i] * factor
    return clipped


@wp.func
def nearest_friction(wanted: vec6, invmetric: vec6, condim: int, invfriction: vec5) -> vec6:
    """The friction nearest to `wanted`, in the metric diag(P + R), that its normal force allows.

    With g_i = f_i / mu_i the cone is a ball of radius f_n, and the nearest point is
    g_i / (1 + lambda v_i), v_i = 1 / (mu_i^2 (P + R)_i), with lambda from |g| = f_n: Newton on
    1 / |g|, which is exact at once where all v_i are the same.
    """
    normal = wanted[0]
    if normal <= 0.0:
        return vec6()
    if friction_sq(wanted, condim, invfriction) <= normal * normal:  # it holds
        return wanted
    nearest = vec6(wanted)
    lam = float(0.0)
    length = float(0.0)
    for iteration in range(wp.static(_SECULAR_ITERATIONS + 1)):
        length_sq = float(0.0)
        slope = float(0.0)
        for i in range(1, 6):
            if i < condim:
                inverse = invfriction[i - 1]
                v = inverse * inverse * invmetric[i]
                part = 1.0 / (1.0 + lam * v)
                nearest[i] = part * wanted[i]
                g = nearest[i] * inverse
                length_sq += g * g
                slope += g * g * v * part
        length = wp.sqrt(length_sq)
        if length <= 1.000001 * normal:
            break
        if slope > 0.0 and iteration < _SECULAR_ITERATIONS:
            lam = wp.max(lam + length_sq / slope * (length - normal) / normal, 0.0)
    if length > normal:
        for i in range(1, 6):
            if i < condim:
                nearest[i] *= normal / length
    return nearest


@wp.func
def conjugate_factor(numerator: float, denominator: float) -> float:
    """Beta of a kinematic tree: how much of the last pass's direction the next one keeps."""
    if denominator > 1.0e-30:
        return wp.clamp(-numerator / denominator, 0.0, _MAX_BETA)
    return 0.0


@wp.func
def next_alpha(alpha: float, gained: float, curvature: float) -> float:
    """The part of its step that a kinematic tree takes next time, from the best it had now."""
    if not (curvature > 0.0):
        return alpha
    ratio = wp.clamp(gained / curvature, _MIN_RATIO, _MAX_RATIO)
    return wp.clamp(alpha * ratio, _MIN_ALPHA, 1.0)
