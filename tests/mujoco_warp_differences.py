"""Which of MuJoCo Warp's tests come out otherwise under comfree, and why.

What comfree refuses by name needs no entry here. An entry whose test passes is a failure.
"""

import re

# Files of parts that comfree has none of: MuJoCo's solver.
REPLACED_FILES = ("solver_test",)

# Files that look at J, vel and aref of contacts: they ask for them, with comfree_efc="full".
FULL_ROWS = ("constraint_test", "passive_test")

_FORCES = "compares with what the forces of MuJoCo's solver lead to, where the law finds others"
_SOLVER = "looks for a kernel of MuJoCo's solver, which does not run"
_JAX = "holds Model and Data to what MJX can wrap, and comfree's have fields that it cannot"

DIFFERENCES = {
    r"derivative_test.*dcmotor_saturation_derivative[01]$": _FORCES,
    r"determinism_test.*test_contact_elliptic_dense$": _SOLVER,
    r"flex_test.FlexConstraintTest.test_trilinear_(element_)?contact_qfrc_constraint": _FORCES,
    r"flex_test.FlexContactParityTest.test_contact_1d_flex_capsule_elem": _FORCES,
    r"flex_test.FlexContactParityTest.test_contact_multiflex_local_elem_id": _FORCES,
    r"flex_test.FlexDynamicsTest.test_(drape_dynamics|dynamics_parity[01]$|multiflex)": _FORCES,
    r"flex_test.FlexDynamicsTest.test_trilinear_contact_dynamics": _FORCES,
    r"forward_test.DCMotorTest.test_surfacevel_step": _FORCES,
    r"forward_test.ForwardTest.test_euler[0-3]$": _FORCES,
    r"forward_test.ForwardTest.test_run_qacc_smooth([0-367]|12|13)$": _FORCES,
    r"forward_test.ForwardTest.test_step(10|11|20|22|23)$": _FORCES,
    r"history_test.*test_delayed_(joint|tendon)_limit_force": _FORCES,
    r"io_jax_test.IOTest.test_(public_api_jax_compat|put_data_nworld_array|types_match)": _JAX,
    r"passive_test.PassiveTest.test_adhesion_resting_penetration_equivalence": _FORCES,
    r"sensor_test.SensorTest.test_contact_sensor_(netforce_empty|stage|velocity)1$": _FORCES,
    r"smooth_test.SmoothTest.test_rne_post_weld_force_torque_lever": _FORCES,
    r"unroll_test.UnrollTest.test_aloha_lifts_pot0$": _FORCES,
}


def reason(name: str) -> str | None:
    """Why the test of that name, file.Class.test, comes out otherwise; None where it must not."""
    return next((why for pattern, why in DIFFERENCES.items() if re.search(pattern, name)), None)
