"""The reference of the warm law itself, against hand calculation, Newton's solver and mechanics."""

import copy
import dataclasses
import math

import mujoco
import numpy as np
import pytest
import reference
from warm_reference import (
    Contact,
    Memory,
    RememberedContact,
    Result,
    WarmLaw,
    WarmReferenceSimulation,
    into_cone,
    nearest_in_cone,
    parents_of,
    stacks_of,
)

from benchmark.fidelity import measures as measures
from benchmark.fidelity.scenes import boxes as box_scenes
from benchmark.fidelity.scenes import conservation
from benchmark.fidelity.scenes import friction as friction_scenes

TYPE = mujoco.mjtConstraint
GRAVITY = 9.81
MM = 1e3

# One body of 2 kg and radius 0.1 m, 0.01 m deep in the floor. imp = 0.95 makes D = 19 x 2 kg;
# dmax = 0.95 and a time constant of 0.02 s make K = 1 / 0.019^2 and B = 2 / 0.019.
SPHERE = """
<mujoco>
  <option timestep="0.002" cone="{cone}"/>
  <worldbody>
    <geom type="plane" size="1 1 1" condim="1" friction="0 0 0"/>
    <body pos="0 0 0.09">
      <freejoint/>
      <geom size="0.1" mass="2" condim="{condim}" friction="0.5 0.02 0.003"/>
    </body>
  </worldbody>
</mujoco>
"""

# Rows that are no contacts, all of them under load: the limit and the friction loss of a joint and
# of a cord, and an equality.
ARM = """
<mujoco>
  <option timestep="0.002"/>
  <default><geom contype="0" conaffinity="0"/></default>
  <worldbody>
    <site name="hook"/>
    <body>
      <joint name="shoulder" axis="0 1 0" limited="true" range="-90 10" frictionloss="0.5"/>
      <geom size="0.1" pos="0.5 0 0" mass="2"/>
      <body pos="0.5 0 0">
        <joint name="elbow" axis="0 1 0"/>
        <geom size="0.1" pos="0.5 0 0" mass="1"/>
      </body>
    </body>
    <body pos="0 0 -1">
      <joint type="slide" axis="0 0 1"/>
      <geom size="0.1" mass="2"/>
      <site name="end"/>
    </body>
  </worldbody>
  <tendon>
    <spatial limited="true" range="0 1" frictionloss="3">
      <site site="hook"/><site site="end"/>
    </spatial>
  </tendon>
  <equality><joint joint1="elbow"/></equality>
</mujoco>
"""

# A flat box on a plane that leans about y.
SLIDER = """
<mujoco>
  <option timestep="0.002"/>
  <worldbody>
    <geom type="plane" size="9 9 1" euler="0 {lean} 0"/>
    <body pos="{x} 0 {z}" euler="0 {lean} 0">
      <freejoint/>
      <geom type="box" size="0.1 0.1 0.02" mass="1" priority="1" friction="0.5 0 0"/>
    </body>
  </worldbody>
</mujoco>
"""

SPHERE_AND_BOX = """
<mujoco>
  <option timestep="0.002"/>
  <default><geom condim="1"/></default>
  <worldbody>
    <geom type="plane" size="1 1 1"/>
    {bodies}
  </worldbody>
</mujoco>
"""
BALL = '<body pos="0 1 0.099"><freejoint/><geom size="0.1" mass="2"/></body>'
# Four contacts on one body, whose steps together are 1.6 times too long.
BOX = '<body pos="0 0 0.149"><freejoint/><geom type="box" size="0.1 0.07 0.15" mass="3"/></body>'


# Boxes of 1 kg and radius 0.1 m, each 1 mm deep in what is under it, without friction.
TOWERS = """
<mujoco>
  <option timestep="0.002"/>
  <default><geom condim="1"/></default>
  <worldbody>
    {bodies}
  </worldbody>
  <actuator>{actuators}</actuator>
</mujoco>
"""
FLOOR = '<geom name="floor" type="plane" size="9 9 1"/>'
TRAY = """<body name="tray" pos="0 0 -0.1">
  <joint axis="0 1 0"/><geom name="tray" type="box" size="0.3 0.3 0.1" mass="5"/>
</body>"""
CLOTH = """<flexcomp name="cloth" type="grid" dim="2" count="2 2 1" spacing="1 1 1" pos="5 5 5">
  <contact contype="0" conaffinity="0"/>
</flexcomp>"""


def load(xml: str, **fields) -> mujoco.MjModel:
    return mujoco.MjModel.from_xml_string(xml.format(**fields))


def sphere(condim: int = 1, cone: str = "elliptic") -> mujoco.MjModel:
    return load(SPHERE, condim=condim, cone=cone)


def slider(degrees: float = 0.0) -> mujoco.MjModel:
    angle = math.radians(degrees)
    return load(SLIDER, lean=degrees, x=0.02 * math.sin(angle), z=0.02 * math.cos(angle))


def scene(xml: str) -> mujoco.MjModel:
    mjm = mujoco.MjModel.from_xml_string(xml)
    mjm.opt.timestep = 0.002
    return mjm


def boxes(centres: list[tuple[float, float]]) -> mujoco.MjModel:
    return scene(box_scenes.boxes_xml(centres))


def tower(names: str, x: float = 0.0, bottom: float = 0.0, joint: str = "<freejoint/>") -> str:
    """Boxes on top of each other, by one letter each, lowest first."""
    return "\n    ".join(
        f'<body name="{name}" pos="{x} 0 {bottom + 0.099 + 0.199 * i}">{joint}'
        f'<geom name="{name}" type="box" size="0.1 0.1 0.1" mass="1"/></body>'
        for i, name in enumerate(names)
    )


def towers(*bodies: str, actuators: str = "") -> mujoco.MjModel:
    return load(TOWERS, bodies="\n    ".join(bodies), actuators=actuators)


def newton(mjm: mujoco.MjModel) -> mujoco.MjModel:
    """Return the model for MuJoCo's own solver on the rows that the law reads."""
    mjm = copy.copy(mjm)
    mjm.opt.cone, mjm.opt.solver = mujoco.mjtCone.mjCONE_ELLIPTIC, mujoco.mjtSolver.mjSOL_NEWTON
    mjm.opt.iterations, mjm.opt.tolerance = 200, 0
    return mjm


def state_of(mjm: mujoco.MjModel, **fields) -> mujoco.MjData:
    mjd = mujoco.MjData(mjm)
    for name, values in fields.items():
        getattr(mjd, name)[:] = values
    return mjd


def follow(simulation: WarmReferenceSimulation, seconds: float) -> measures.Trajectory:
    """Every state from now on, as the fidelity suite records them."""
    states = [[simulation.read(name) for name in ("time", "qpos", "qvel")]]
    for _ in range(round(seconds / simulation.mjm.opt.timestep)):
        simulation.step()
        states.append([simulation.read(name) for name in ("time", "qpos", "qvel")])
    time, qpos, qvel = (np.array(values) for values in zip(*states, strict=True))
    return measures.Trajectory(time.reshape(-1), qpos[:, None], qvel[:, None])


def residual(mjm: mujoco.MjModel, result: Result) -> np.ndarray:
    """J acc + a + R f at the law's answer, on contacts: a = K I pos + max(B, 1/h) vel."""
    rows = result.rows
    a = -rows.aref + (np.maximum(rows.damping, 1 / mjm.opt.timestep) - rows.damping) * rows.vel
    return rows.J @ result.qacc + a + result.forces / rows.D


def after_support(mjm: mujoco.MjModel, mjd: mujoco.MjData, result: Result) -> Result:
    """The forces and acceleration of a result as they were after its support pass."""
    mjd = copy.copy(mjd)
    mujoco.mj_forward(mjm, mjd)
    M, qfrc = reference.full_mass_matrix(mjm, mjd), result.rows.J.T @ result.support_forces
    return dataclasses.replace(
        result,
        forces=result.support_forces,
        qfrc_constraint=qfrc,
        qacc=np.linalg.solve(M, mjd.qfrc_smooth + qfrc),
    )


def normals_between(mjm: mujoco.MjModel, result: Result, one: str, other: str) -> np.ndarray:
    """The normal rows of the contacts between two geoms."""
    pair = {mjm.geom(one).id, mjm.geom(other).id}
    rows = [contact.rows[0] for contact in result.rows.contacts if set(contact.geom) == pair]
    assert rows
    return np.array(rows)


def curvature(mjm: mujoco.MjModel, mjd: mujoco.MjData, result: Result) -> np.ndarray:
    """A + R, the Hessian of the dual cost."""
    mujoco.mj_forward(mjm, mjd)
    J, M = result.rows.J, reference.full_mass_matrix(mjm, mjd)
    return J @ np.linalg.solve(M, J.T) + np.diag(1 / result.rows.D)


each_passes = pytest.mark.parametrize("passes", [1, 2])


# ------------------------------------------------------------------------------ by hand

# K I phi = 2631.579 x -0.01, and 1/h = 500 is more than B. P + R = 1/2 + 1/38. One row: the step
# along it is exact, f = -(a - g) / (P + R).


@each_passes
@pytest.mark.parametrize(
    ("speed", "force"),
    [(0.0, (26.315789 + 9.81) / 0.5263158), (-0.1, (26.315789 + 50 + 9.81) / 0.5263158)],
)
def test_one_contact_is_solved_at_once(speed, force, passes):
    mjm = sphere()
    result = WarmLaw(mjm, passes).accelerate(state_of(mjm, qvel=[0, 0, speed, 0, 0, 0]))
    np.testing.assert_allclose(result.forces, [force], rtol=1e-6)
    np.testing.assert_allclose(result.qfrc_constraint[2], force, rtol=1e-6)
    np.testing.assert_allclose(result.qacc[2], force / 2 - GRAVITY, rtol=1e-6)


def test_normal_force_decays_towards_its_slow_mean():
    mjm = sphere()
    law, mjd = WarmLaw(mjm), state_of(sphere())
    first = law.accelerate(mjd).forces[0]
    law.commit()
    mean = 0.02 * first
    kept = 1 - 0.002 * 2631.579 / 500
    np.testing.assert_allclose(
        law.accelerate(mjd).warm_forces, [mean + kept * (first - mean)], rtol=1e-6
    )


def test_separating_contact_pushes_no_more():
    mjm = sphere()
    law = WarmLaw(mjm)
    assert law.accelerate(state_of(mjm)).forces > 0
    law.commit()
    assert law.accelerate(state_of(mjm, qvel=[0, 0, 5, 0, 0, 0])).forces == 0


def test_without_rows_the_acceleration_is_the_smooth_one():
    mjm = sphere()
    mjd = state_of(mjm, qpos=[0, 0, 1, 1, 0, 0, 0], qfrc_applied=[1, 2, 3, 0, 0, 0])
    result = WarmLaw(mjm).accelerate(mjd)
    assert len(result.forces) == 0
    np.testing.assert_allclose(result.qacc, [0.5, 1, 1.5 - GRAVITY, 0, 0, 0], atol=1e-12)


def test_pyramidal_option_changes_nothing():
    results = []
    for cone in ("elliptic", "pyramidal"):
        mjm = sphere(condim=6, cone=cone)
        results.append(WarmLaw(mjm).accelerate(state_of(mjm, qvel=[0.1, 0, 0, 0, 0.2, 0.3])))
    assert len(results[0].forces) == len(results[1].forces) == 6
    np.testing.assert_array_equal(results[0].forces, results[1].forces)


def test_law_leaves_the_data_and_the_model_alone():
    mjm = sphere(condim=3, cone="pyramidal")
    mjd = state_of(mjm, qvel=[1, 0, 0, 0, 0, 0])
    WarmLaw(mjm).accelerate(mjd)
    assert mjd.nefc == 0
    np.testing.assert_array_equal(mjd.qvel, [1, 0, 0, 0, 0, 0])
    assert mjm.opt.cone == mujoco.mjtCone.mjCONE_PYRAMIDAL


# ------------------------------------------------------------------------------ the passes


def hit_box() -> tuple[mujoco.MjModel, mujoco.MjData]:
    """Four frictionless contacts of one body, each with another force."""
    mjm = load(SPHERE_AND_BOX, bodies=BOX)
    return mjm, state_of(mjm, qvel=[0, 0, -0.1, 0.1, 0.2, 0])


def test_step_is_as_long_as_costs_least():
    mjm, mjd = hit_box()
    result = WarmLaw(mjm, passes=1).accelerate(mjd)
    step, slope = result.forces - result.warm_forces, residual(mjm, result)
    assert np.abs(slope).max() > 1  # not solved: it is along the step that nothing is left
    assert abs(slope @ step) < 1e-9 * np.linalg.norm(slope) * np.linalg.norm(step)


def test_second_step_is_conjugate_to_the_first():
    mjm, mjd = hit_box()
    once, twice = (WarmLaw(mjm, passes).accelerate(mjd) for passes in (1, 2))
    first, second = once.forces, twice.forces - once.forces
    assert (twice.forces > 0).all()
    assert np.linalg.norm(second) > 0.01 * np.linalg.norm(first)
    H = curvature(mjm, mjd, once)
    assert abs(second @ H @ first) < 1e-9 * np.sqrt((second @ H @ second) * (first @ H @ first))


def test_each_tree_learns_its_own_part_of_a_step():
    alone, together = load(SPHERE_AND_BOX, bodies=BOX), load(SPHERE_AND_BOX, bodies=BALL + BOX)
    learned = [WarmLaw(mjm).accelerate(state_of(mjm)).memory.alpha for mjm in (alone, together)]
    assert 0.5 < learned[0][0, 0] < 1
    np.testing.assert_allclose(learned[1], [[1, 1], learned[0][0]], rtol=1e-12)


def test_step_follows_what_the_trees_have_learned():
    mjm = load(SPHERE_AND_BOX, bodies=BALL + BOX)
    mjd = state_of(mjm)
    law = WarmLaw(mjm)
    law.memory = Memory(alpha=np.array([[0.02, 1], [1, 1]]))
    ball, *box = law.accelerate(mjd).forces
    law.memory = Memory(alpha=np.array([[1.0, 1], [1, 1]]))
    whole_ball, *whole_box = law.accelerate(mjd).forces
    assert box[0] > 0
    np.testing.assert_allclose(ball / box[0], 0.02 * whole_ball / whole_box[0], rtol=1e-9)


def test_contact_touches_the_trees_of_both_its_bodies():
    mjm = boxes(box_scenes.column(2))
    mjd = state_of(mjm)
    mjd.qpos[[2, 9]] -= [0.001, 0.002]
    result = WarmLaw(mjm).accelerate(mjd)
    on_floor, between = (
        [result.rows.trees[c.rows] for c in result.rows.contacts if (0 in c.geom) == floor]
        for floor in (True, False)
    )
    assert len(on_floor) == len(between) == 4
    np.testing.assert_array_equal(on_floor, np.tile([True, False], (4, 3, 1)))
    np.testing.assert_array_equal(between, np.ones((4, 3, 2)))


# ------------------------------------------------------------------------------ support


def test_support_pass_solves_the_normals_of_a_column_that_starts_cold():
    mjm = boxes(box_scenes.column(5))
    mjd = state_of(mjm)
    mjd.qpos[2::7] -= 1e-4 * np.arange(1, 6)
    law = WarmLaw(mjm)
    result = law.accelerate(mjd)
    normals, supported = result.rows.normals, after_support(mjm, mjd, result)
    assert not result.warm_forces.any()
    assert normals.sum() == 20
    np.testing.assert_array_equal(result.rows.stacks, np.where(normals, 0, -1))
    assert (supported.forces[normals] > 1).all()
    assert not supported.forces[~normals].any()
    assert np.abs(residual(mjm, supported)[normals]).max() < 1e-9 * GRAVITY
    # So the normal pass finds nothing to do, and nothing to learn.
    np.testing.assert_allclose(result.forces[normals], supported.forces[normals], rtol=1e-9)
    np.testing.assert_array_equal(result.memory.alpha[:, 0], 1)


def test_support_pass_does_not_ask_what_the_trees_have_learned():
    mjm = towers(FLOOR, tower("abc"))
    law, mjd = WarmLaw(mjm), state_of(mjm)
    first = law.accelerate(mjd).support_forces
    law.memory = Memory(alpha=np.full((3, 2), 0.02))
    np.testing.assert_array_equal(law.accelerate(mjd).support_forces, first)


def test_support_pass_goes_as_far_as_costs_least_where_a_contact_lets_go():
    mjm = towers(FLOOR, tower("abc"))
    mjd = state_of(mjm)
    mjd.qvel[9:12] = [0.05, 0.1, 0.02]  # b turns
    result = WarmLaw(mjm).accelerate(mjd)
    step = result.support_forces - result.warm_forces
    slope = residual(mjm, after_support(mjm, mjd, result))
    assert (step == 0).any()
    assert np.abs(slope[step > 0]).max() > 0.1
    assert abs(slope @ step) < 1e-9 * np.linalg.norm(slope) * np.linalg.norm(step)


def test_support_pass_lets_go_of_contacts_that_no_longer_push():
    """Of those below it, too, which the normal pass brings back: the solution may not pull."""
    mjm = towers(FLOOR, tower("ab"))
    law, mjd = WarmLaw(mjm), state_of(mjm)
    law.accelerate(mjd)
    law.commit()
    mjd.qvel[8] = 5  # b is thrown up
    result = law.accelerate(mjd)
    between, below = (normals_between(mjm, result, "a", other) for other in ("b", "floor"))
    assert (result.warm_forces[between] > 1).all()
    assert (result.support_forces >= 0).all()
    assert (result.support_forces[between] == 0).all()
    assert (result.forces[below] > 1).all()


@each_passes
def test_lowest_contact_of_a_column_soon_carries_the_weight_of_all(passes):
    mjm = boxes(box_scenes.column(10))
    simulation = WarmReferenceSimulation(mjm, passes)
    simulation.step(40)
    result = simulation.law.accelerate(simulation._mjd)
    on_floor = [contact.rows[0] for contact in result.rows.contacts if 0 in contact.geom]
    assert len(on_floor) == 4
    assert result.forces[on_floor].sum() == pytest.approx(10 * GRAVITY, rel=0.03)


@pytest.mark.parametrize("timestep", [0.005, 0.01])
def test_column_of_ten_stands_at_long_steps(timestep):
    mjm = boxes(box_scenes.column(10))
    mjm.opt.timestep, mjm.opt.cone = timestep, mujoco.mjtCone.mjCONE_ELLIPTIC
    mjm.opt.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    stood, *_ = box_scenes.measure_boxes(mjm, follow(WarmReferenceSimulation(mjm), 2.0))
    assert stood.name == "stood for"
    assert stood.value == pytest.approx(2)


def touch(trees: tuple[int, int], normal: tuple[float, float, float] = (0, 0, 1)) -> Contact:
    """A contact of which only its trees and its normal are told."""
    frame = np.array([normal, (0, 0, 0), (0, 0, 0)], dtype=float)
    return Contact(np.array([0]), np.zeros(0), (0, 1), trees, np.zeros(3), frame)


def parents(*contacts: Contact, loose: tuple[bool, ...] = (True,) * 4) -> list[int]:
    """The parents of four trees, each higher than the one before it but for the last two."""
    return list(
        parents_of(np.array(loose), np.array([1, 2, 3, 3.0]), np.array([0, 0, 1]), contacts)
    )


def test_tree_stands_on_the_lower_one_that_pushes_it_up_in_either_order():
    assert parents(touch((0, 1)), touch((3, 1), (0, 0, -1))) == [-1, 0, -1, 1]


def test_tree_stands_on_the_first_of_those_that_support_it():
    assert parents(touch((1, 2)), touch((0, 2))) == [-1, -1, 0, -1]
    assert parents(touch((0, 2)), touch((1, 2))) == [-1, -1, 0, -1]


@pytest.mark.parametrize(
    "contact",
    [
        touch((0, 1), (0, 0, -1)),
        touch((1, 0)),
        touch((0, 1), (1, 0, 0)),
        touch((0, 1), (math.sqrt(1 - 0.099**2), 0, 0.099)),
        touch((2, 3)),
        touch((-1, 1)),
        touch((1, -1), (0, 0, -1)),
        touch((1, 1)),
    ],
    ids=[
        "hangs",
        "hangs, told first",
        "beside",
        "nearly beside",
        "level",
        "static",
        "on it",
        "own",
    ],
)
def test_tree_stands_on_nothing_that_does_not_push_it_up(contact):
    assert parents(contact) == [-1] * 4


def test_steep_contact_supports():
    assert parents(touch((0, 1), (math.sqrt(1 - 0.101**2), 0, 0.101))) == [-1, 0, -1, -1]


@pytest.mark.parametrize("bound", [0, 1])
def test_only_loose_trees_stand_on_each_other(bound):
    loose = tuple(tree != bound for tree in range(4))
    assert parents(touch((0, 1)), loose=loose) == [-1] * 4


def test_stack_is_all_that_stands_on_one_tree():
    assert list(stacks_of(np.array([2, -1, -1, 0, 0, -1, 1]))) == [2, 1, 2, 2, 2, -1, 1]
    assert list(stacks_of(np.array([-1, -1]))) == [-1, -1]


def test_of_two_supporters_one_is_in_the_stack():
    """The other, and what it stands on, are left to the normal passes."""
    mjm = towers(FLOOR, tower("a"), tower("b", x=0.25), tower("c", x=0.125, bottom=0.199))
    result = WarmLaw(mjm).accelerate(state_of(mjm))
    np.testing.assert_array_equal(result.rows.parents, [-1, -1, 0])
    stack = result.rows.stacks
    assert (stack[normals_between(mjm, result, "a", "floor")] == 0).all()
    assert (stack[normals_between(mjm, result, "a", "c")] == 0).all()
    for other in ("floor", "c"):
        rows = normals_between(mjm, result, "b", other)
        assert (stack[rows] == -1).all()
        assert (result.support_forces[rows] == 0).all()
    assert (result.forces[normals_between(mjm, result, "b", "floor")] > 1).all()


@pytest.mark.parametrize("moved", [False, True], ids=["static", "mocap"])
def test_stack_that_leans_on_a_wall_is_solved_with_the_wall(moved):
    wall = '<geom name="wall" type="box" size="0.1 1 1" pos="0.199 0 1.05"/>'
    if moved:
        wall = f'<body mocap="true">{wall}</body>'
    mjm = towers(FLOOR, wall, tower("abc"))
    result = WarmLaw(mjm).accelerate(state_of(mjm))
    np.testing.assert_array_equal(result.rows.parents, [-1, 0, 1])
    np.testing.assert_array_equal(result.rows.stacks, np.zeros(len(result.forces)))
    for name in "abc":
        assert (result.support_forces[normals_between(mjm, result, name, "wall")] > 0.1).any()
    assert (result.support_forces[normals_between(mjm, result, "a", "floor")] > 1).any()


def test_stack_on_an_articulated_tree_is_solved_without_that_contact():
    mjm = towers(TRAY, tower("ab"))
    result = WarmLaw(mjm).accelerate(state_of(mjm))
    np.testing.assert_array_equal(result.rows.parents, [-1, -1, 1])
    on_tray, between = (normals_between(mjm, result, "a", other) for other in ("tray", "b"))
    assert (result.rows.stacks[on_tray] == -1).all()
    assert (result.rows.stacks[between] == 1).all()
    assert not result.support_forces[on_tray].any()
    assert (result.support_forces[between] > 0.1).all()
    assert (result.forces[on_tray] > 1).all()


def test_contact_of_two_stacks_is_left_to_the_normal_passes():
    mjm = towers(FLOOR, tower("ab"), tower("cd", x=0.1995))
    result = WarmLaw(mjm).accelerate(state_of(mjm))
    np.testing.assert_array_equal(result.rows.parents, [-1, 0, -1, 2])
    beside = normals_between(mjm, result, "b", "d")
    assert (result.rows.stacks[beside] == -1).all()
    assert not result.support_forces[beside].any()
    assert result.forces[beside].any()


def test_each_of_two_stacks_gets_what_it_would_get_alone():
    spin, found = {"b": [0.05, 0.1, 0.02], "e": [1, 0.5, 0.0]}, []
    columns = [tower("abc"), tower("defg", x=1.0)]
    for chosen in ([columns[0]], [columns[1]], columns):
        mjm = towers(FLOOR, *chosen)
        mjd = state_of(mjm)
        for name, rate in spin.items():
            if f'"{name}"' in "".join(chosen):
                mjd.qvel[mjm.body(name).dofadr[0] + 3 :][:3] = rate
        result = WarmLaw(mjm).accelerate(mjd)
        after = after_support(mjm, mjd, result)
        step = after.forces > 0
        assert np.abs(residual(mjm, after)[step]).max() > 0.01  # s is not 1
        found.append(after.qfrc_constraint)
    assert np.abs(found[2]).max() > 1
    np.testing.assert_allclose(found[2], np.concatenate(found[:2]), rtol=1e-9, atol=1e-9)


def without_gravity() -> mujoco.MjModel:
    mjm = towers(FLOOR, tower("abc"))
    mjm.opt.gravity[:] = 0
    return mjm


def with_gravity_disabled() -> mujoco.MjModel:
    mjm = towers(FLOOR, tower("abc"))
    mjm.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_GRAVITY
    return mjm


NO_SUPPORT = {
    "no gravity": without_gravity,
    "gravity disabled": with_gravity_disabled,
    "adhesion": lambda: towers(
        FLOOR, tower("abc"), actuators='<adhesion body="a" ctrlrange="0 1" gain="1"/>'
    ),
    "flex": lambda: towers(FLOOR, tower("abc"), CLOTH),
    "armature": lambda: towers(FLOOR, tower("abc", joint='<joint type="free" armature="1e-6"/>')),
    "slides": lambda: towers(
        FLOOR,
        tower(
            "abc",
            joint='<joint type="slide" axis="1 0 0"/><joint type="slide" axis="0 1 0"/>'
            '<joint type="slide" axis="0 0 1"/><joint type="ball"/>',
        ),
    ),
    "bodies alone": lambda: towers(FLOOR, tower("a"), tower("b", x=1)),
}


@pytest.mark.parametrize("build", NO_SUPPORT.values(), ids=NO_SUPPORT)
def test_there_is_no_support_pass(build):
    mjm = build()
    result = WarmLaw(mjm).accelerate(state_of(mjm))
    assert (result.rows.parents == -1).all()
    assert (result.rows.stacks == -1).all()
    np.testing.assert_array_equal(result.support_forces, result.warm_forces)
    assert result.forces.any()


def test_stack_stands_against_gravity_wherever_that_points():
    mjm = towers(FLOOR, tower("abc"))
    mjm.opt.gravity[:] = [0, 0, 3]
    assert list(WarmLaw(mjm).accelerate(state_of(mjm)).rows.parents) == [1, 2, -1]
    mjm.opt.gravity[:] = [-3, 0, -0.2]  # 0.067 of a normal along up
    assert list(WarmLaw(mjm).accelerate(state_of(mjm)).rows.parents) == [-1, -1, -1]


def test_order_in_which_the_boxes_are_told_changes_nothing():
    names, found = "abc", []
    bodies = tower(names).split("\n")
    for order in (bodies, bodies[::-1]):
        mjm = towers(FLOOR, *order)
        mjd = state_of(mjm)
        result = WarmLaw(mjm).accelerate(mjd)
        after = after_support(mjm, mjd, result)
        upwards = [
            contact.frame[0, 2] for contact in result.rows.contacts if min(contact.trees) >= 0
        ]
        found.append((upwards, [after.qfrc_constraint[mjm.body(n).dofadr[0] :][:6] for n in names]))
    (upwards, forces), (downwards, turned) = found
    np.testing.assert_allclose(upwards, 1, rtol=1e-12)
    np.testing.assert_allclose(downwards, -1, rtol=1e-12)
    assert np.array(forces)[:, 2].max() > 1
    np.testing.assert_allclose(turned, forces, rtol=1e-9, atol=1e-9)


def test_stack_in_the_air_keeps_its_momentum():
    mjm = towers(tower("abc"))
    mjd = state_of(mjm)
    mjd.qvel[9:12] = [0.05, 0.1, 0.02]
    result = WarmLaw(mjm).accelerate(mjd)
    mujoco.mj_forward(mjm, mjd)
    assert (result.rows.stacks >= 0).all()
    push = (result.rows.J.T @ result.support_forces).reshape(3, 6)
    force, torque = push[:, :3], push[:, 3:]  # the torque in the body's own frame, level here
    assert np.abs(force[:, 2]).max() > 1
    tolerance = 1e-12 * np.abs(push).max()
    np.testing.assert_allclose(force.sum(axis=0), 0, atol=tolerance)
    about_origin = (torque + np.cross(mjd.xpos[1:], force)).sum(axis=0)
    np.testing.assert_allclose(about_origin, 0, atol=tolerance)


# ------------------------------------------------------------------------------ friction's cone

CONES = {
    "sliding": ([0.5, 0.5], [3.0, 5.0]),
    "very uneven": ([0.5, 0.5], [1.0, 20.0]),
    "torsion": ([0.8, 0.8, 0.02], [2.0, 3.0, 500.0]),
    "rolling": ([0.8, 0.4, 0.02, 0.003, 0.003], [2.0, 3.0, 500.0, 4e4, 7e4]),
}
each_cone = pytest.mark.parametrize(("friction", "weights"), CONES.values(), ids=CONES)


@each_cone
def test_nothing_that_a_contact_may_exert_is_nearer(friction, weights):
    friction, weights = np.array(friction), np.array(weights)
    rng = np.random.default_rng(0)
    normal = 2.0
    for _ in range(30):
        asked = 3 * normal * friction * rng.normal(size=len(friction))
        nearest = nearest_in_cone(asked, friction, normal, weights)
        assert np.linalg.norm(nearest / friction) <= normal * (1 + 1e-12)
        least = weights @ (nearest - asked) ** 2
        for spread in (1.0, 0.1, 0.01, 0.001):
            trial = nearest + spread * normal * friction * rng.normal(size=(300, len(friction)))
            for point in trial:
                other = into_cone(point, friction, normal)
                assert weights @ (other - asked) ** 2 > least * (1 - 1e-6)


@each_cone
def test_friction_that_a_contact_may_exert_is_left_alone(friction, weights):
    friction, weights = np.array(friction), np.array(weights)
    asked = 1.99 * friction / np.sqrt(len(friction))
    np.testing.assert_allclose(nearest_in_cone(asked, friction, 2.0, weights), asked, rtol=1e-14)


def test_contact_that_does_not_push_has_no_friction():
    asked, friction, weights = np.array([1.0, 0]), np.array([0.5, 0.5]), np.array([3.0, 5])
    assert not nearest_in_cone(asked, friction, 0.0, weights).any()
    assert not into_cone(asked, friction, 0.0).any()


def test_friction_is_within_the_new_cone_however_short_the_step_of_friction():
    mjm = sphere(condim=3)
    law, mjd = WarmLaw(mjm), state_of(mjm, qvel=[5, 0, 0, 0, 0, 0])
    law.accelerate(mjd)
    law.commit()
    law.memory = dataclasses.replace(law.memory, alpha=np.array([[1, 0.02]]))
    mjd.qpos[2] += 0.005  # half as deep
    result = law.accelerate(mjd)
    (contact,) = result.rows.contacts
    lengths = [
        np.linalg.norm(forces[1:] / contact.friction)
        for forces in (result.warm_forces, result.forces)
    ]
    assert lengths[0] > 1.1 * result.forces[0] > 0
    assert lengths[1] <= result.forces[0] * (1 + 1e-12)


# ------------------------------------------------------------------------------ memory


def rolling_sphere() -> tuple[WarmLaw, mujoco.MjData, Result]:
    """A law that has just evaluated a contact with all six forces, inside its cone."""
    mjm = sphere(condim=6)
    mjd = state_of(mjm, qvel=[0.01, 0.02, 0, 0.003, 0.005, 0.03])
    law = WarmLaw(mjm)
    result = law.accelerate(mjd)
    (contact,) = result.rows.contacts
    assert result.forces.all()
    assert np.linalg.norm(result.forces[1:] / contact.friction) < 0.9 * result.forces[0]
    return law, mjd, result


def test_evaluating_again_gives_the_same_until_it_is_committed():
    law, mjd, first = rolling_sphere()
    np.testing.assert_array_equal(law.accelerate(mjd).forces, first.forces)
    assert not first.warm_forces.any()
    law.commit()
    assert law.accelerate(mjd).warm_forces.all()
    law.forget()
    assert not law.accelerate(mjd).warm_forces.any()


def test_commit_wants_something_evaluated():
    law, _, _ = rolling_sphere()
    law.commit()
    with pytest.raises(ValueError, match="nothing was evaluated"):
        law.commit()


def test_contact_keeps_its_force_when_it_moves():
    law, mjd, last = rolling_sphere()
    law.commit()
    mjd.qpos[0] += 0.05
    warm = law.accelerate(mjd).warm_forces
    assert warm[0] == pytest.approx(last.forces[0], rel=0.02)
    np.testing.assert_allclose(warm[1:], last.forces[1:], rtol=1e-12)


def test_friction_keeps_its_direction_in_the_world_when_the_contact_frame_turns():
    law, mjd, last = rolling_sphere()
    law.commit()
    (contact,) = last.rows.contacts
    turn = np.zeros(9)
    mujoco.mju_quat2Mat(turn, np.array([math.cos(0.6), math.sin(0.6), 0, 0]))
    turned = dataclasses.replace(contact, frame=turn.reshape(3, 3) @ contact.frame)
    np.testing.assert_allclose(turned.frame[0], contact.frame[0], atol=1e-12)
    rows = dataclasses.replace(last.rows, contacts=(turned,))
    mujoco.mj_forward(law.mjm, mjd)
    M = reference.full_mass_matrix(law.mjm, mjd)
    warm = law.accelerate_rows(rows, M, np.zeros(6)).warm_forces
    for entries in (slice(0, 3), slice(3, 6)):
        before, after = last.forces[entries].copy(), warm[entries].copy()
        if entries.start == 0:
            before[0] = after[0] = 0  # the normal force has its own law
        np.testing.assert_allclose(turned.frame.T @ after, contact.frame.T @ before, rtol=1e-9)
    assert abs(warm[1] - last.forces[1]) > 0.1 * abs(last.forces[1])


def test_contact_takes_the_forces_of_all_that_the_same_two_geoms_had_near_it():
    law, mjd, last = rolling_sphere()
    (contact,) = last.rows.contacts

    def remembered(geom: tuple[int, int], aside: float, force: float) -> RememberedContact:
        pos = contact.pos + np.array([aside, 0, 0])
        return RememberedContact(geom, pos, force, force, np.zeros(3), np.zeros(3))

    law.memory = Memory(
        law.memory.alpha,
        contacts=(
            remembered(contact.geom, 0.01, 5.0),
            remembered(contact.geom, -0.005, 7.0),
            remembered((1, 9), 0.0, 9.0),
            remembered((0, 9), 0.0, 11.0),
        ),
    )
    np.testing.assert_allclose(law.accelerate(mjd).warm_forces, [12, 0, 0, 0, 0, 0])


def test_every_force_goes_to_the_nearest_contact_and_none_is_doubled():
    """Of a box on a plane, which now has one corner less than in the last step."""
    mjm = load(f'<mujoco><worldbody><geom type="plane" size="3 3 .1"/>{BOX}</worldbody></mujoco>')
    law, mjd = WarmLaw(mjm), state_of(mjm)
    last = law.accelerate(mjd)
    law.commit()
    mujoco.mj_forward(law.mjm, mjd)
    corners = last.rows.contacts
    assert len(corners) == 4
    rows = dataclasses.replace(last.rows, contacts=corners[1:])
    M = reference.full_mass_matrix(law.mjm, mjd)
    warm = law.accelerate_rows(rows, M, np.zeros(mjm.nv)).warm_forces
    before = np.array([last.forces[corner.rows[0]] for corner in corners])
    after = np.array([warm[corner.rows[0]] for corner in corners[1:]])
    assert after.sum() == pytest.approx(before.sum(), rel=0.1)
    assert sorted(after / before[1:]) == pytest.approx([1, 1, 2], rel=0.1)


def test_other_rows_keep_their_forces_when_their_places_change():
    mjm = load(ARM)
    law, mjd = WarmLaw(mjm), state_of(load(ARM), qpos=[math.radians(11), 0.1, -0.01])
    last = law.accelerate(mjd)
    law.commit()
    mjd.qpos[0] = 0  # off its limit, whose row goes
    warm = law.accelerate(mjd)
    assert len(warm.forces) == len(last.forces) - 1
    gone = {int(kind) for kind in set(last.rows.type) - set(warm.rows.type)}
    assert gone == {int(TYPE.mjCNSTR_LIMIT_JOINT)}
    for kind in warm.rows.type:
        before = last.forces[last.rows.type == kind]
        assert before != 0
        np.testing.assert_allclose(warm.warm_forces[warm.rows.type == kind], before, rtol=0.1)


# ------------------------------------------------------------------------------ in motion


RESTING = {
    "box": (lambda: boxes(box_scenes.column(1)), 1.0),
    "box on a slope": (lambda: slider(20), 1.0),
    "pyramid": (lambda: boxes(box_scenes.pyramid(2)), 1.5),
    "limits, equality and friction loss": (lambda: load(ARM), 2.0),
}
each_resting = pytest.mark.parametrize(("build", "seconds"), RESTING.values(), ids=RESTING)


@each_passes
@each_resting
def test_what_rests_rests_on_the_forces_of_newtons_solver(build, seconds, passes):
    mjm = build()
    simulation = WarmReferenceSimulation(mjm, passes)
    simulation.step(round(seconds / mjm.opt.timestep))
    found = simulation.law.accelerate(simulation._mjd)
    expected = copy.copy(simulation._mjd)
    mujoco.mj_forward(newton(mjm), expected)
    assert np.abs(found.forces).max() > 1
    largest = np.abs(expected.efc_force).max()
    np.testing.assert_allclose(found.forces, expected.efc_force, atol=1e-3 * largest)
    np.testing.assert_allclose(found.qacc, expected.qacc, atol=1e-3 * GRAVITY)


@each_passes
def test_bodies_that_collide_keep_their_momentum(passes):
    mjm = scene(conservation.collision_xml())
    simulation = WarmReferenceSimulation(mjm, passes)
    for name, values in conservation.collision_start(mjm, 1).items():
        simulation.write(name, values)
    kept = measures.invariants(mjm, follow(simulation, 0.8))
    assert kept.energy[-1] < 0.9 * kept.energy[0]
    start = conservation.collision_start(mjm, 1)["qvel"]
    speeds = np.linalg.norm(start.reshape(-1, 6)[:, :3], axis=1)
    assert measures.largest_change(kept.momentum) < 1e-12 * (mjm.body_mass[1:] @ speeds)


def dropped() -> WarmReferenceSimulation:
    simulation = WarmReferenceSimulation(boxes([(0, 1.5)]))
    simulation.write("qvel", [0, 0, 0, 1, 2, 3])
    return simulation


def colliding() -> WarmReferenceSimulation:
    mjm = scene(conservation.collision_xml())
    simulation = WarmReferenceSimulation(mjm)
    for name, values in conservation.collision_start(mjm, 1).items():
        simulation.write(name, values)
    return simulation


def resting() -> WarmReferenceSimulation:
    return WarmReferenceSimulation(boxes(box_scenes.pyramid(2)))


@each_passes
@pytest.mark.parametrize("start", [dropped, colliding, resting])
def test_energy_is_never_more_than_at_the_start(start, passes):
    simulation = start()
    simulation.law.passes = passes
    energy = measures.invariants(simulation.mjm, follow(simulation, 0.8)).energy
    assert energy[-1] < energy[0]
    assert energy.max() <= energy[0] * (1 + 1e-12)


def distance_downhill(degrees: float, trajectory: measures.Trajectory) -> np.ndarray:
    angle = math.radians(degrees)
    return trajectory.qpos[:, 0, :3] @ [math.cos(angle), 0, -math.sin(angle)]


@each_passes
def test_box_that_friction_holds_creeps_less_than_1_mm_per_s(passes):
    trajectory = follow(WarmReferenceSimulation(slider(20), passes), 1.0)
    late = trajectory.since(0.5)
    speed = measures.mean_velocity(late.time, distance_downhill(20, late))
    assert 0 < MM * speed < 1


@each_passes
def test_box_that_friction_cannot_hold_accelerates_as_coulomb_says(passes):
    late = follow(WarmReferenceSimulation(slider(35), passes), 0.8).since(0.4)
    found = measures.mean_acceleration(late.time, distance_downhill(35, late))
    angle = math.radians(35)
    exact = GRAVITY * (math.sin(angle) - 0.5 * math.cos(angle))
    assert found == pytest.approx(exact, rel=0.02)


@each_passes
@pytest.mark.parametrize("turned", [0, 45])
@pytest.mark.parametrize("direction", [0, 45])
def test_sliding_box_stops_where_coulomb_says(direction, turned, passes):
    simulation = WarmReferenceSimulation(slider(), passes)
    angle, half = math.radians(direction), math.radians(turned) / 2
    simulation.write("qpos", [0, 0, 0.02, math.cos(half), 0, 0, math.sin(half)])
    simulation.write("qvel", [2 * math.cos(angle), 2 * math.sin(angle), 0, 0, 0, 0])
    trajectory = follow(simulation, 0.6)
    distance = measures.distance_travelled(trajectory.qpos[:, 0, :3])
    assert distance == pytest.approx(2.0**2 / (2 * 0.5 * GRAVITY), rel=0.02)


@each_passes
def test_spinning_and_rolling_spheres_stop_when_their_torques_say(passes):
    mjm = scene(friction_scenes.spinning_xml())
    simulation = WarmReferenceSimulation(mjm, passes)
    simulation.write("qvel", friction_scenes.spinning_start(mjm, 1)["qvel"])
    times = [
        quantity
        for quantity in friction_scenes.measure_spinning(mjm, follow(simulation, 1.0))
        if quantity.relative
    ]
    assert len(times) == 6
    for quantity in times:
        assert quantity.value == pytest.approx(quantity.reference, rel=0.05), quantity


def test_second_pass_comes_closer_to_newtons_solver_on_a_stack_that_gets_no_support():
    mjm = boxes(box_scenes.column(5))
    mjm.dof_armature[:] = 1e-9  # so that the support pass leaves it alone
    solver = newton(mjm)

    def overlap(qpos: np.ndarray) -> float:
        return box_scenes.EDGE - np.diff([-box_scenes.EDGE / 2, *qpos[2::7]]).min()

    exact, deepest, off = mujoco.MjData(solver), [], []
    largest = 0.0
    for _ in range(300):
        mujoco.mj_step(solver, exact)
        largest = max(largest, overlap(exact.qpos))
    for passes in (1, 2):
        simulation = WarmReferenceSimulation(mjm, passes)
        deepest.append(0.0)
        for _ in range(300):
            simulation.step()
            deepest[-1] = max(deepest[-1], overlap(simulation.read("qpos")))
        forces = simulation.law.accelerate(simulation._mjd).forces
        here = copy.copy(simulation._mjd)
        mujoco.mj_forward(solver, here)
        off.append(np.abs(forces - here.efc_force).max())
    assert abs(deepest[1] - largest) < 0.5 * abs(deepest[0] - largest)
    assert 0 < off[1] < 0.5 * off[0]


@pytest.mark.parametrize("integrator", ["EULER", "IMPLICIT", "IMPLICITFAST"])
def test_simulation_integrates_as_mujoco_does(integrator):
    mjm = load(ARM)
    mjm.dof_damping[:] = [0.5, 0.2, 3]
    mjm.opt.integrator = getattr(mujoco.mjtIntegrator, f"mjINT_{integrator}")
    exact = state_of(mjm, qpos=[-0.5, 0, 0.1], qvel=[1, 2, 3])
    simulation = WarmReferenceSimulation(mjm)
    for name in ("qpos", "qvel"):
        simulation.write(name, getattr(exact, name))
    simulation.write("qfrc_applied", [1, 2, 3])
    exact.qfrc_applied[:] = [1, 2, 3]
    result = simulation.law.accelerate(exact)
    assert result.qfrc_constraint.all()
    simulation.step()
    np.testing.assert_array_equal(simulation.read("qfrc_applied"), [1, 2, 3])

    mjm.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_CONSTRAINT
    exact.qfrc_applied += result.qfrc_constraint
    mujoco.mj_step(mjm, exact)
    for name in ("time", "qpos", "qvel"):
        np.testing.assert_allclose(simulation.read(name), getattr(exact, name), rtol=1e-12)


def test_reset_repeats_the_run():
    simulation = dropped()
    start = simulation.read("qvel")
    runs = []
    for _ in range(2):
        simulation.reset()
        simulation.write("qvel", start)
        runs.append(follow(simulation, 0.3).qpos)
    assert simulation.law.memory.contacts
    np.testing.assert_array_equal(*runs)
