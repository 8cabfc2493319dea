"""The rulers of the fidelity suite, on motions made by hand."""

import dataclasses
import math

import mujoco
import numpy as np
import pytest
from measured_scenes import by_name, synthetic

from benchmark.fidelity import measures
from benchmark.fidelity.measures import Trajectory
from benchmark.fidelity.record import measure
from benchmark.fidelity.scenes import BY_NAME, SCENES, at_rest, boxes, constraints, friction
from benchmark.fidelity.scenes.scene import GRAVITY
from mjsim import engines


def test_penetration_is_measured_by_mujocos_own_collision():
    mjm, trajectory = synthetic("resting box")
    trajectory.qpos[:, 0, 2] -= 0.003
    depths = measures.penetrations(mjm, trajectory)
    assert len(depths) == 4 * len(trajectory.time)
    np.testing.assert_allclose(depths, 0.003, atol=1e-12)


def test_a_box_in_the_air_has_no_penetration_rather_than_a_perfect_one():
    mjm, trajectory = synthetic("resting box")
    trajectory.qpos[1:, 0, 2] += 0.003
    found = by_name(boxes.measure_boxes(mjm, trajectory))
    assert math.isnan(found["penetration, mean while standing"].value)
    assert found["hop above the start, largest"].value == pytest.approx(3.0)
    trajectory.qpos[50:, 0, 2] += 0.06
    found = by_name(boxes.measure_boxes(mjm, trajectory))
    assert found["stood for"].value == pytest.approx(0.98)


def test_boxes_that_sink_and_stay_are_measured_and_stand():
    mjm, trajectory = synthetic("stack of 10")
    trajectory.qpos[:, 0, 2::7] -= 0.002 * np.arange(1, 11)  # every contact 2 mm deep
    found = by_name(boxes.measure_boxes(mjm, trajectory))
    assert found["stood for"].value == found["stood for"].reference == 3.0
    assert found["penetration, mean while standing"].value == pytest.approx(2.0)
    assert found["drift sideways, mean over boxes"].value == 0.0
    assert found["hop above the start, largest"].value == 0.0


def test_what_sinks_as_far_as_by_newton_has_no_error():
    mjm, trajectory = synthetic("resting box")
    trajectory.qpos[:, 0, 2] -= np.where(trajectory.time < 0.7 * 3.0 - 1e-9, 0.02, 0.003)
    found = by_name(at_rest.measure_late(mjm, trajectory))
    for name in ("penetration, mean at rest", "penetration, largest at rest"):
        assert found[name].value == pytest.approx(3.0)
        assert found[name].reference is None
        assert found[name].error(3.0) == pytest.approx(0.0)


def test_a_pot_is_lifted_when_it_is_above_where_it_stood():
    mjm, trajectory = synthetic("two arms", duration=1.0, sample=0.1)
    assert by_name(at_rest.measure_two_arms(mjm, trajectory))["pot lifted"].value == 0.0
    trajectory.qpos[5:, 0, mjm.joint(at_rest.POT).qposadr[0] + 2] += 0.06
    assert by_name(at_rest.measure_two_arms(mjm, trajectory))["pot lifted"].value == 1.0
    script = at_rest.two_arms_script(mjm)
    assert [time for time, _ in script] == [0.0, 0.25, 0.5, 0.75, 1.25, 1.5, 1.75, 2.0]


def test_files_of_a_model_are_part_of_what_names_it():
    scene = BY_NAME["humanoid"]
    files = {name: content + b" " for name, content in scene.files().items()}
    other = dataclasses.replace(scene, files=lambda: files)
    assert scene.model_hash() != other.model_hash()


def test_a_stack_that_falls_is_measured_while_it_stood():
    mjm, trajectory = synthetic("stack of 10")
    trajectory.qpos[:, 0, 2::7] -= 0.002 * np.arange(1, 11)
    trajectory.qpos[101:, 0, -7] += 0.06  # the topmost goes at 2.02 s, and through the floor
    trajectory.qpos[101:, 0, -5] = -1.0
    found = by_name(boxes.measure_boxes(mjm, trajectory))
    assert found["stood for"].value == pytest.approx(2.0)
    assert found["penetration, largest while standing"].value == pytest.approx(2.0)


@pytest.mark.parametrize("factor", [1.0, 1.1])
def test_stopping_distance_is_compared_with_coulombs(factor):
    mjm = BY_NAME["sliding, elliptic"].model(0.002, "implicitfast")
    nworld = len(friction.DIRECTIONS)
    start = friction.sliding_start(mjm, nworld)
    qpos = np.stack([start["qpos"], start["qpos"]])
    for i, mu in enumerate(friction.FRICTIONS):
        direction = start["qvel"][:, 6 * i : 6 * i + 2] / 2.0
        qpos[1, :, 7 * i : 7 * i + 2] += factor * direction * 2.0**2 / (2 * mu * GRAVITY)
    trajectory = Trajectory(np.array([0.0, 2.0]), qpos, np.zeros((2, nworld, mjm.nv)))
    qpos[1, 2, 2] += 0.005
    found = by_name(friction.measure_sliding(mjm, trajectory))
    assert found.pop("hop above the floor, largest mu=0.2").value == pytest.approx(5.0)
    assert found.pop("hop above the floor, largest mu=0.4").value == 0.0
    assert found.pop("hop above the floor, largest mu=0.8").value == 0.0
    assert len(found) == 12
    for each in found.values():
        assert each.error(each.reference) == pytest.approx(factor - 1, abs=1e-9)


def test_creep_and_acceleration_on_a_slope_are_read_along_the_slope():
    mjm, trajectory = synthetic("incline, pyramidal")
    for i, degrees in enumerate(friction.INCLINES):
        angle = math.radians(degrees)
        along = 0.004 * trajectory.time if degrees < 26 else trajectory.time**2
        trajectory.qpos[:, 0, 7 * i] += math.cos(angle) * along
        trajectory.qpos[:, 0, 7 * i + 2] -= math.sin(angle) * along
    found = by_name(friction.measure_incline(mjm, trajectory))
    assert found["creep speed angle=10"].value == pytest.approx(4.0)
    assert found["creep speed angle=20"].value == pytest.approx(4.0)
    assert found["sliding acceleration angle=40"].value == pytest.approx(2.0)
    assert found["sliding acceleration angle=30"].reference == pytest.approx(0.6571, rel=1e-3)


def test_stopping_time_does_not_wait_for_what_never_quite_stops():
    times = np.linspace(0, 10, 1001)
    assert measures.stopping_time(times, 10 - 2 * times) == pytest.approx(5.0)
    creeping = np.maximum(10 - 2 * times, 0.01)
    assert measures.stopping_time(times, creeping, 0.05) == pytest.approx(5.0)
    slow = 10 - 0.1 * times  # not half lost when the curve ends
    assert measures.stopping_time(times, slow) == pytest.approx(100.0)
    assert measures.stopping_time(times, np.full(1001, 3.0)) == math.inf


def test_rebound_is_the_height_after_the_first_bounce_over_the_one_before():
    assert measures.rebound(np.array([1, 0.5, -0.01, 0.2, 0.3, 0.1, 0.6])) == 0.6
    assert measures.rebound(np.array([1, 0.5, 0.1, 0.0, -0.1])) == 0.0
    assert math.isnan(measures.rebound(np.array([1, 0.5, np.nan])))


def test_invariants_are_those_of_rigid_body_mechanics():
    mjm, trajectory = synthetic("tumbling body", duration=0.02)
    trajectory.qvel[:] = [0, 0, 3, 0, 5, 0]
    kept = measures.invariants(mjm, trajectory)
    inertia = 2 * (0.1**2 + 0.3**2) / 12  # 2 kg, about the middle axis; edges of 0.1, 0.2, 0.3 m
    np.testing.assert_allclose(kept.momentum, [[0, 0, 6]] * 2)
    np.testing.assert_allclose(kept.angular_momentum, [[0, inertia * 5, 0]] * 2, atol=1e-12)
    np.testing.assert_allclose(kept.energy, [0.5 * 2 * 3**2 + 0.5 * inertia * 5**2] * 2)


def test_angular_momentum_is_told_in_the_worlds_frame():
    mjm, trajectory = synthetic("tumbling body", duration=0.02)
    trajectory.qvel[:] = [0, 0, 0, 0, 5, 0]
    trajectory.qpos[1, 0, 3:] = math.sqrt(0.5), 0, 0, math.sqrt(0.5)  # y is now -x
    momentum = measures.invariants(mjm, trajectory).angular_momentum
    np.testing.assert_allclose(momentum[1], [-momentum[0, 1], 0, 0], atol=1e-12)
    assert measures.largest_change(momentum) == pytest.approx(math.sqrt(2) * momentum[0, 1])


def test_drift_of_constraints_is_read_between_their_ends():
    mjm, trajectory = synthetic("constraints")
    trajectory.qpos[50, 0, :3] += [0.003, 0, 0.004]  # the swinging bar, once
    bracket = mjm.jnt_qposadr[mjm.body("bracket").jntadr[0]]
    trajectory.qpos[:, 0, bracket + 1] += 0.002
    trajectory.qpos[:, 0, mjm.joint("slide").qposadr[0]] = -0.201
    trajectory.qpos[:, 0, mjm.joint("hinge").qposadr[0]] = math.radians(47)
    trajectory.qpos[:, 0, mjm.joint("holds").qposadr[0]] = 0.005 * trajectory.time
    found = by_name(constraints.measure_constraints(mjm, trajectory))
    assert found["connect: largest gap, swinging"].value == pytest.approx(5.0)
    assert found["weld: gap under load"].value == pytest.approx(2.0)
    assert found["slide limit: violation at rest"].value == pytest.approx(1.0)
    assert found["hinge limit: overshoot"].value == pytest.approx(2.0)
    assert found["friction loss that holds: creep"].value == pytest.approx(5.0)


def test_a_cube_is_held_near_the_fingers_and_in_the_air_only():
    scene = BY_NAME["grasp"]
    mjm = scene.model(0.002, "implicitfast")
    qpos = np.tile(mjm.key_qpos[0], (2, 3, 1))
    mjd = mujoco.MjData(mjm)
    mjd.qpos[:] = mjm.key_qpos[0]
    mjd.qpos[1] -= 0.4  # the arm raised
    mujoco.mj_kinematics(mjm, mjd)
    qpos[1, :, :9] = mjd.qpos[:9]
    qpos[1, 0, -7:-4] = mjd.site("tcp").xpos  # one with it; one left on the table; one lost
    qpos[1, 2, -7:] = np.nan
    trajectory = Trajectory(np.array([0.0, 5.5]), qpos, np.zeros((2, 3, mjm.nv)))
    found = by_name(measure(scene, mjm, trajectory))
    assert found["held, fraction of starts"].value == pytest.approx(1 / 3)


def test_perturbed_starts_are_the_same_for_few_and_for_many_worlds():
    scene = BY_NAME["hand"]
    mjm = scene.model(0.002, "implicitfast")
    few, many = scene.start(mjm, 16)["qpos"], scene.start(mjm, 64)["qpos"]
    np.testing.assert_array_equal(few, many[:16])
    np.testing.assert_allclose(many[0], mjm.key_qpos[0])
    assert len(np.unique(many, axis=0)) == 64
    np.testing.assert_allclose(np.linalg.norm(many[:, -4:], axis=1), 1, atol=1e-3)


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.name)
def test_every_measure_gives_the_same_names_for_a_run_that_was_lost(scene):
    mjm = scene.model(0.002, "implicitfast")
    shape = (round(scene.duration / 0.1) + 1, scene.nworld)
    start = scene.start(mjm, scene.nworld) if scene.start else {}
    qpos, qvel = np.zeros((*shape, mjm.nq)), np.zeros((*shape, mjm.nv))
    qpos[:], qvel[:] = start.get("qpos", engines.initial_data(mjm).qpos), start.get("qvel", 0.0)
    trajectory = Trajectory(np.arange(shape[0]) * 0.1, qpos, qvel)
    kept = measure(scene, mjm, trajectory)
    qpos[3:], qvel[3:] = np.nan, np.nan
    lost = measure(scene, mjm, trajectory)
    names = [(each.name, each.variant) for each in kept]
    assert names == [(each.name, each.variant) for each in lost]
    assert len(set(names)) == len(names)
    assert any(each.headline for each in kept)
