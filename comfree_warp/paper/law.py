"""The complementarity-free contact law, row by row. docs/contact_laws.md derives it.

No iteration, and no row waits for another:

    v_s = qvel + h * qacc_smooth
    u_i = J_i v_s
    a_i = -(k / h) * (h * u_i + phi_i) - (d / h) * u_i
    f_i = P_i(D_i * a_i)
    qfrc_constraint = J^T f,  qacc = M^-1 (qfrc_smooth + qfrc_constraint)

Source: arXiv 2603.12185 and arXiv 2408.07855 for the law, MuJoCo's "Computation" chapter for J,
phi, D and the friction cone.
"""

import warp as wp

from comfree_warp.shared.rows import CONE, QUADRATIC, SATISFIED


@wp.func
def row_acceleration(k: float, d: float, h: float, u: float, phi: float) -> float:
    """Acceleration that the law asks of a row: spring on the predicted gap, damper on the speed."""
    return -(k / h) * (h * u + phi) - (d / h) * u


@wp.func
def cone_scale(normal: float, tangent: float, mu: float):
    """Project a contact force onto the elliptic friction cone, in the metric of R = 1 / D.

    With T = sqrt(sum((f_j / mu_j)^2)), the cone is f_n >= T. MuJoCo chooses R_j of the friction
    rows such that R_j mu_j^2 = R_n mu^2 with mu = mu_1 / sqrt(impratio); in the metric of R the
    problem is then a plane one, min (n - f_n)^2 + mu^2 (t - T)^2 over n >= t, with three zones
    (the ones of MuJoCo's elliptic cost).

    Args:
      normal: f_n before projection.
      tangent: T before projection, >= 0.
      mu: friction of the contact, regularised by impratio.

    Returns:
      The normal force, the factor on the friction forces, and the row state of the contact.
    """
    if normal >= tangent:
        return normal, 1.0, QUADRATIC
    if normal + mu * mu * tangent <= 0.0:
        return 0.0, 0.0, SATISFIED
    projected = (normal + mu * mu * tangent) / (1.0 + mu * mu)
    return projected, projected / tangent, CONE
