"""The reference itself, against truths that can be worked out by hand."""

import mujoco
import numpy as np
import pytest
import reference
from reference import Cone, Rows

TYPE = mujoco.mjtConstraint
K, D = 0.2, 0.001

# One body of 2 kg and radius 0.1 m, 0.01 m deep in the floor: imp = 0.95, so efc_D = 19 x 2 kg.
SPHERE = """
<mujoco>
  <option timestep="0.002" cone="{cone}" impratio="{impratio}" jacobian="{jacobian}"/>
  <worldbody>
    <geom type="plane" size="1 1 1" condim="1" surfacevel="{surfacevel}"/>
    <body pos="0 0 0.09">
      <freejoint/>
      <geom size="0.1" mass="2" condim="{condim}" friction="0.5 0.02 0.003" margin="{margin}"/>
    </body>
  </worldbody>
</mujoco>
"""

# A hinge and a cord; by default nothing holds them.
ARM = """
<mujoco>
  <option timestep="0.002" gravity="0 0 0" jacobian="{jacobian}"/>
  <worldbody>
    <site name="hook"/>
    <body>
      <joint name="hinge" type="hinge" axis="0 1 0" {hinge}/>
      <geom size="0.1" pos="0.5 0 0" mass="2"/>
    </body>
    <body pos="0 0 1">
      <joint type="slide" axis="0 0 1"/>
      <geom size="0.1" mass="2" contype="0" conaffinity="0"/>
      <site name="end"/>
    </body>
  </worldbody>
  <tendon>
    <spatial {cord}><site site="hook"/><site site="end"/></spatial>
  </tendon>
  {more}
</mujoco>
"""


def load(xml, **fields):
    model = mujoco.MjModel.from_xml_string(xml.format(**fields))
    return model, mujoco.MjData(model)


def sphere(**fields):
    usual = {"cone": "pyramidal", "impratio": 1, "jacobian": "dense", "condim": 1, "margin": 0}
    return load(SPHERE, **usual | {"surfacevel": "0 0 0 0 0 0"} | fields)


def arm(**fields):
    return load(ARM, **{"jacobian": "dense", "hinge": "", "cord": "", "more": ""} | fields)


def rows_of(model, data):
    mujoco.mj_forward(model, data)
    return reference.rows_from_mujoco(model, data)


# The law, row by row.


def test_force_on_a_resting_sphere_is_the_formula_worked_by_hand():
    result = reference.step_reference(*sphere(), K, D)
    # u = -9.81 x 0.002 = -0.01962;  a = 100 x (0.01 + 0.002 x 0.01962) + 0.5 x 0.01962 = 1.013734
    np.testing.assert_allclose(result.forces, [38 * 1.013734], rtol=1e-10)


def test_force_follows_the_initial_speed():
    model, data = sphere()
    data.qvel[2] = -0.1
    # u = -0.11962;  a = 100 x (0.01 + 0.002 x 0.11962) + 0.5 x 0.11962 = 1.083734
    np.testing.assert_allclose(
        reference.step_reference(model, data, K, D).forces, [38 * 1.083734], rtol=1e-10
    )


@pytest.mark.parametrize(("angle", "force"), [(0.1, -1), (-0.1, 1)])
def test_equality_row_pulls_as_well_as_it_pushes(angle, force):
    model, data = arm(more='<equality><joint joint1="hinge"/></equality>')
    data.qpos[0] = angle
    result = reference.step_reference(model, data, K, D)
    assert list(result.rows.type) == [TYPE.mjCNSTR_EQUALITY]
    # At rest without gravity, u = 0: f = -D (k / h) phi.
    np.testing.assert_allclose(result.forces, force * result.rows.D * 100 * 0.1, rtol=1e-10)


each_friction_loss = pytest.mark.parametrize(
    "fields", [{"hinge": 'frictionloss="3"'}, {"cord": 'frictionloss="3"'}], ids=["dof", "tendon"]
)


@each_friction_loss
@pytest.mark.parametrize("speed", [100, -100])
def test_friction_loss_is_clamped_to_its_bound(fields, speed):
    model, data = arm(**fields)
    data.qvel[:] = speed
    result = reference.step_reference(model, data, K, D)
    np.testing.assert_array_equal(result.forces, -3 * np.sign(result.rows.vel))


@each_friction_loss
@pytest.mark.parametrize("speed", [1e-3, -1e-3])
def test_friction_loss_below_its_bound_damps_the_speed(fields, speed):
    model, data = arm(**fields)
    data.qvel[:] = speed
    result = reference.step_reference(model, data, K, D)
    assert abs(result.rows.vel) == pytest.approx(1e-3)
    np.testing.assert_allclose(result.forces, -result.rows.D * (0.2 + 0.5) * result.rows.vel)


@pytest.mark.parametrize(
    ("build", "fields", "kind"),
    [
        (arm, {"hinge": 'limited="true" range="10 90"'}, TYPE.mjCNSTR_LIMIT_JOINT),
        (arm, {"cord": 'limited="true" range="0 0.9"'}, TYPE.mjCNSTR_LIMIT_TENDON),
        (sphere, {}, TYPE.mjCNSTR_CONTACT_FRICTIONLESS),
    ],
    ids=["joint limit", "tendon limit", "contact"],
)
def test_limit_or_frictionless_normal_pushes_but_never_pulls(build, fields, kind):
    model, data = build(**fields)
    rows = rows_of(model, data)
    assert list(rows.type) == [kind]
    assert reference.step_reference(model, data, K, D).forces > 0
    data.qvel[:] = 100 * rows.J[0]
    assert reference.step_reference(model, data, K, D).forces == 0


@pytest.mark.parametrize(("condim", "facets"), [(3, 4), (4, 6), (6, 10)])
def test_each_pyramid_facet_is_clamped_by_itself(condim, facets):
    model, data = sphere(condim=condim)
    data.qvel[:] = [3, 0, 0, 0, 0, 0]
    result = reference.step_reference(model, data, K, D)
    rows = result.rows
    assert list(rows.type) == [TYPE.mjCNSTR_CONTACT_PYRAMIDAL] * facets
    u = rows.vel - 9.81 * 0.002
    raw = rows.D * (-100 * (0.002 * u - 0.01) - 0.5 * u)
    assert min(raw) < 0 < max(raw)
    np.testing.assert_allclose(result.forces, np.where(raw > 0, raw, 0), rtol=1e-9)


# The elliptic cone. Rows without a Jacobian that ask for a given force, so that the projection
# alone is at work: with phi = 0, k = 1 and d = 0 the law asks for -D vel.


def cone_forces(asked, D, *frictions):
    asked, D = np.asarray(asked, float), np.asarray(D, float)
    cones, start = [], 0
    for friction in frictions:
        rows = np.arange(start, start + 1 + len(friction))
        cones.append(Cone(rows, np.asarray(friction, float), np.nan))
        start += len(rows)
    kind = np.full(len(asked), int(TYPE.mjCNSTR_CONTACT_ELLIPTIC))
    zero = np.zeros(len(asked))
    rows = Rows(zero[:, None], D, zero, -asked / D, kind, zero, tuple(cones))
    return reference.row_forces(rows, np.zeros(1), 0.002, 1, 0)


CONES = {  # friction, impratio; MuJoCo gives the rows R_j mu_j^2 = R_n mu_1^2 / impratio
    "condim 3": ([0.7, 0.7], 1),
    "condim 3, anisotropic": ([1.0, 0.3], 1),
    "condim 3, impratio 10": ([1.0, 0.3], 10),
    "condim 4, impratio 0.2": ([0.8, 0.4, 0.02], 0.2),
    "condim 6, impratio 5": ([0.8, 0.4, 0.02, 0.003, 0.007], 5),
}
each_cone = pytest.mark.parametrize(("friction", "impratio"), CONES.values(), ids=CONES)


def masses(friction, impratio, normal=3.0):
    friction = np.asarray(friction)
    return normal * np.concatenate([[1], impratio * friction**2 / friction[0] ** 2])


def random_forces(friction, count=40):
    rng = np.random.default_rng(len(friction))
    return rng.normal(size=(count, 1 + len(friction))) * np.concatenate([[2], friction])


def on_boundary(directions, friction):
    """Unit vectors (m, condim - 1) as points of the cone's boundary with f_n = 1."""
    return np.hstack([np.ones((len(directions), 1)), directions * friction])


def brute_force(asked, R, friction):
    """Search the boundary's rays for the nearest point, closing in on the best ray so far."""
    if asked[0] >= np.linalg.norm(asked[1:] / friction):
        return asked
    rng = np.random.default_rng(0)
    best, spread = np.zeros(len(friction)), 1.0
    for _ in range(80):
        trial = best + spread * rng.normal(size=(300, len(friction)))
        trial /= np.linalg.norm(trial, axis=1, keepdims=True)
        if best.any():
            trial = np.vstack([best, trial])
        rays = on_boundary(trial, friction)
        along = np.maximum(rays @ (R * asked) / (rays**2 @ R), 0)  # nearest point of each ray
        costs = (along[:, None] * rays - asked) ** 2 @ R
        nearest = np.argmin(costs)
        best, spread = trial[nearest], spread * 0.8
    return along[nearest] * rays[nearest]


@each_cone
def test_cone_projection_equals_brute_force(friction, impratio):
    friction = np.asarray(friction)
    D = masses(friction, impratio)
    for asked in random_forces(friction, 12):
        force = cone_forces(asked, D, friction)
        searched = brute_force(asked, 1 / D, friction)
        scale = np.concatenate([[1], friction])
        np.testing.assert_allclose(force / scale, searched / scale, atol=1e-5)


@each_cone
def test_cone_projection_meets_the_optimality_conditions(friction, impratio):
    """The nearest f: in the cone, R (f - asked) in its dual, and the two orthogonal."""
    friction = np.asarray(friction)
    D = masses(friction, impratio)
    zones = set()
    for asked in random_forces(friction):
        force = cone_forces(asked, D, friction)
        pull = (force - asked) / D
        assert force[0] >= np.linalg.norm(force[1:] / friction) - 1e-12
        assert pull[0] >= np.linalg.norm(pull[1:] * friction) - 1e-12
        assert abs(force @ pull) < 1e-12
        zones.add("inside" if (force == asked).all() else "boundary" if force.any() else "apex")
    assert zones == {"inside", "boundary", "apex"}


def test_force_inside_the_cone_is_left_alone():
    np.testing.assert_allclose(cone_forces([2, 0.9, 0.1], [3, 3, 3], [0.5, 0.5]), [2, 0.9, 0.1])


@pytest.mark.parametrize("asked", [[-1, 0, 0], [-1, 1.9, 0], [-1, 0, -1.9]])
def test_force_in_the_polar_cone_becomes_zero(asked):
    assert not cone_forces(asked, [3, 3, 3], [0.5, 0.5]).any()


def test_force_outside_both_lands_on_the_boundary():
    # mu = 1/2, all R equal: the nearest of the points (s, s/2, 0) to (0, 5, 0) has s = 2.
    np.testing.assert_allclose(cone_forces([0, 5, 0], [3, 3, 3], [0.5, 0.5]), [2, 1, 0])
    # Four times the friction rows' D, a quarter of their R: (s, s/2) costs s^2 + (s/2 - 5)^2 / 4.
    np.testing.assert_allclose(
        cone_forces([0, 5, 0], [3, 12, 12], [0.5, 0.5]), [10 / 17, 5 / 17, 0]
    )


def test_contacts_are_projected_one_by_one():
    forces = cone_forces([0, 5, 0, 2, 0.9, 0.1], [3] * 6, [0.5, 0.5], [0.5, 0.5])
    np.testing.assert_allclose(forces, [2, 1, 0, 2, 0.9, 0.1])


def test_rows_the_closed_form_does_not_hold_for_are_refused():
    with pytest.raises(ValueError, match="same on every friction row"):
        cone_forces([0, 5, 0], [3, 3, 3], [0.5, 0.6])


@pytest.mark.parametrize("impratio", [0.3, 1, 10])
@pytest.mark.parametrize("condim", [3, 4, 6])
def test_mujoco_makes_the_cone_circular_in_the_metric_of_its_rows(condim, impratio):
    """The closed form rests on this: R_j mu_j^2 = R_n mu^2 on every friction row."""
    rows = rows_of(*sphere(cone="elliptic", condim=condim, impratio=impratio))
    (cone,) = rows.cones
    R = 1 / rows.D[cone.rows]
    np.testing.assert_allclose(R[1:] * cone.friction**2, R[0] * cone.mu**2, rtol=1e-9)


def test_elliptic_contact_slides_at_the_edge_of_its_cone():
    model, data = sphere(cone="elliptic", condim=3)
    data.qvel[0] = 5
    result = reference.step_reference(model, data, K, D)
    normal, *tangent = result.forces
    assert normal > 0
    np.testing.assert_allclose(np.linalg.norm(tangent), normal, rtol=1e-12)  # mu = 1, the plane's
    assert result.qfrc_constraint[0] < 0


# The rows.


def test_cone_has_the_contact_s_rows_and_friction():
    (cone,) = rows_of(*sphere(cone="elliptic", condim=4, impratio=4)).cones
    assert list(cone.rows) == [0, 1, 2, 3]
    np.testing.assert_allclose(cone.friction, [1, 1, 0.02])  # the larger of sphere's and plane's
    assert cone.mu == pytest.approx(1 / 2)


@pytest.mark.parametrize("fields", [{"cone": "pyramidal", "condim": 3}, {"cone": "elliptic"}])
def test_pyramidal_and_frictionless_contacts_are_no_cones(fields):
    rows = rows_of(*sphere(**fields))
    assert len(rows.type) > 0
    assert rows.cones == ()


def test_constraint_mass_is_impedance_over_inverse_weight():
    np.testing.assert_allclose(rows_of(*sphere()).D, [0.95 / 0.05 * 2], rtol=1e-10)


def test_phi_is_measured_from_the_margin():
    np.testing.assert_allclose(rows_of(*sphere(margin=0.03)).phi, [-0.01 - 0.03])


@pytest.mark.parametrize(
    ("build", "fields", "expected"),
    [
        (sphere, {"cone": "elliptic", "condim": 6}, [7, 0, 0, 0, 0, 0]),
        (sphere, {"cone": "pyramidal", "condim": 3}, [7, 7, 7, 7]),
        (arm, {"hinge": 'frictionloss="1"', "cord": 'frictionloss="1"'}, [0, 0]),
    ],
    ids=["elliptic", "pyramidal", "friction loss"],
)
def test_phi_is_zero_on_friction_rows_whatever_efc_pos_holds(build, fields, expected):
    model, data = build(**fields)
    mujoco.mj_forward(model, data)
    data.efc_pos[:] = 7
    np.testing.assert_array_equal(reference.rows_from_mujoco(model, data).phi, expected)


@pytest.mark.parametrize(
    ("build", "fields"),
    [
        (sphere, {"cone": "pyramidal", "condim": 6}),
        (sphere, {"cone": "elliptic", "condim": 6}),
        (arm, {"hinge": 'frictionloss="1"', "cord": 'frictionloss="1"'}),  # a column to each row
    ],
    ids=["pyramidal", "elliptic", "arm"],
)
def test_rows_are_the_same_from_dense_and_sparse_jacobians(build, fields):
    dense, sparse = (rows_of(*build(**fields, jacobian=kind)) for kind in ("dense", "sparse"))
    assert dense.J.any(axis=1).all()
    for name in ("J", "D", "phi", "vel", "type"):
        np.testing.assert_allclose(getattr(dense, name), getattr(sparse, name), atol=1e-14)


@pytest.mark.parametrize("cone", ["pyramidal", "elliptic"])
@pytest.mark.parametrize("jacobian", ["dense", "sparse"])
def test_velocity_of_a_row_is_its_jacobian_times_qvel(cone, jacobian):
    model, data = sphere(cone=cone, condim=6, jacobian=jacobian)
    data.qvel[:] = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
    rows = rows_of(model, data)
    np.testing.assert_allclose(rows.vel, rows.J @ data.qvel, atol=1e-14)


@pytest.mark.parametrize("cone", ["pyramidal", "elliptic"])
def test_conveyor_carries_what_rests_on_it_along(cone):
    model, data = sphere(cone=cone, condim=3, surfacevel="2 0 0 0 0 0")
    result = reference.step_reference(model, data, K, D)
    assert not data.qvel.any()
    assert np.abs(result.rows.vel).max() == pytest.approx(2)
    assert result.qacc[0] > 1
    assert abs(result.qacc[1]) < 1e-9


# From forces to acceleration.


def test_mass_matrix_of_a_free_sphere():
    model, data = sphere()
    mujoco.mj_forward(model, data)
    inertia = 0.4 * 2 * 0.1**2
    np.testing.assert_allclose(
        reference.full_mass_matrix(model, data), np.diag([2] * 3 + [inertia] * 3), atol=1e-12
    )


def test_acceleration_adds_the_contact_force_to_gravity():
    result = reference.step_reference(*sphere(), K, D)
    force = 38 * 1.013734
    np.testing.assert_allclose(result.qfrc_constraint, [0, 0, force, 0, 0, 0], atol=1e-9)
    np.testing.assert_allclose(result.qacc, [0, 0, force / 2 - 9.81, 0, 0, 0], atol=1e-9)


def test_acceleration_solves_a_coupled_mass_matrix():
    M = np.array([[2.0, 1], [1, 3]])
    rows = rows_of(*arm(hinge='frictionloss="1"'))  # J = [1, 0]
    constraint, qacc = reference.acceleration(M, np.array([1.0, 4]), rows, np.array([3.0]))
    np.testing.assert_allclose(constraint, [3, 0])
    np.testing.assert_allclose(qacc, [8 / 5, 4 / 5])


def test_without_rows_the_acceleration_is_the_smooth_one():
    model, data = arm()
    data.qvel[:] = [1, 2]
    data.qfrc_applied[:] = [3, 4]
    mujoco.mj_forward(model, data)
    result = reference.step_reference(model, data, K, D)
    assert len(result.forces) == 0
    assert data.qacc_smooth.all()
    np.testing.assert_allclose(result.qacc, data.qacc_smooth, rtol=1e-12)


def test_smooth_prediction_is_one_step_of_free_fall():
    model, data = sphere()
    data.qvel[2] = -1
    predicted = reference.step_reference(model, data, K, D).qvel_smooth_pred
    np.testing.assert_allclose(predicted, [0, 0, -1 - 0.01962, 0, 0, 0], atol=1e-12)


def test_step_reference_leaves_the_data_alone():
    model, data = sphere(condim=3)
    data.qvel[0] = 1
    whole = mujoco.mjtState.mjSTATE_INTEGRATION
    before, after = (np.empty(mujoco.mj_stateSize(model, whole)) for _ in range(2))
    mujoco.mj_getState(model, data, before, whole)
    reference.step_reference(model, data, K, D)
    mujoco.mj_getState(model, data, after, whole)
    np.testing.assert_array_equal(before, after)
    assert data.nefc == 0
