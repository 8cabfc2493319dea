"""The fidelity suite: its rulers, its formulas, and that it notices what is wrong."""

import dataclasses
import json
import math
import re
import signal
import subprocess
import sys
import time

import mujoco
import numpy as np
import pytest
from reference_simulation import ReferenceSimulation

from benchmark.common import contenders, levels
from benchmark.fidelity import measures as fidelity_measures
from benchmark.fidelity import runs as fidelity
from benchmark.fidelity import scenes as fidelity_scenes
from benchmark.fidelity.measures import Quantity, Trajectory
from benchmark.fidelity.runs import Run, Sweep
from benchmark.fidelity.scenes import BY_NAME, SCENES, SWEEP, Scene
from mjsim import engines
from mjsim.errors import SettingError

MJC = contenders.parse("mjc")
GRAVITY = 9.81


def synthetic(scene: str, duration: float = 3.0, sample: float = 0.02):
    """The scene's model, and a trajectory of world 0 that stays at the start."""
    mjm = BY_NAME[scene].model(0.002, "implicitfast")
    time = np.arange(round(duration / sample) + 1) * sample
    qpos = np.tile(mjm.qpos0, (len(time), 1, 1))
    return mjm, Trajectory(time, qpos, np.zeros((len(time), 1, mjm.nv)))


def by_name(quantities: list[Quantity]) -> dict[str, Quantity]:
    return {f"{each.name} {each.variant}".strip(): each for each in quantities}


def run(
    scene: str | Scene, timestep: float, contender: str = "mjc", mjm=None
) -> list[fidelity.Row]:
    scene = BY_NAME[scene] if isinstance(scene, str) else scene
    sweep = Sweep("implicitfast", "cpu", "standard", [])
    return sweep.run(Run(scene, contenders.parse(contender), timestep, scene.nworld), mjm)


def errors(rows: list[fidelity.Row], quantity: str) -> dict[str, float]:
    found = {row["variant"]: row["error"] for row in rows if row["quantity"] == quantity}
    assert found
    return found


# --------------------------------------------------------------------- the rulers, by hand


def test_penetration_is_measured_by_mujocos_own_collision():
    mjm, trajectory = synthetic("resting box")
    trajectory.qpos[:, 0, 2] -= 0.003
    depths = fidelity_measures.penetrations(mjm, trajectory)
    assert len(depths) == 4 * len(trajectory.time)
    np.testing.assert_allclose(depths, 0.003, atol=1e-12)


def test_a_box_in_the_air_has_no_penetration_rather_than_a_perfect_one():
    mjm, trajectory = synthetic("resting box")
    trajectory.qpos[1:, 0, 2] += 0.003
    found = by_name(fidelity_scenes.measure_boxes(mjm, trajectory))
    assert math.isnan(found["penetration, mean while standing"].value)
    assert found["hop above the start, largest"].value == pytest.approx(3.0)
    trajectory.qpos[50:, 0, 2] += 0.06
    found = by_name(fidelity_scenes.measure_boxes(mjm, trajectory))
    assert found["stood for"].value == pytest.approx(0.98)


def test_boxes_that_sink_and_stay_are_measured_and_stand():
    mjm, trajectory = synthetic("stack of 10")
    trajectory.qpos[:, 0, 2::7] -= 0.002 * np.arange(1, 11)  # every contact 2 mm deep
    found = by_name(fidelity_scenes.measure_boxes(mjm, trajectory))
    assert found["stood for"].value == found["stood for"].reference == 3.0
    assert found["penetration, mean while standing"].value == pytest.approx(2.0)
    assert found["drift sideways, mean over boxes"].value == 0.0
    assert found["hop above the start, largest"].value == 0.0


def test_what_sinks_as_far_as_by_newton_has_no_error():
    mjm, trajectory = synthetic("resting box")
    trajectory.qpos[:, 0, 2] -= np.where(trajectory.time < 0.7 * 3.0 - 1e-9, 0.02, 0.003)
    found = by_name(fidelity_scenes.measure_late(mjm, trajectory))
    for name in ("penetration, mean at rest", "penetration, largest at rest"):
        assert found[name].value == pytest.approx(3.0)
        assert found[name].reference is None
        assert found[name].error(3.0) == pytest.approx(0.0)


def test_a_pot_is_lifted_when_it_is_above_where_it_stood():
    mjm, trajectory = synthetic("two arms", duration=1.0, sample=0.1)
    assert by_name(fidelity_scenes.measure_two_arms(mjm, trajectory))["pot lifted"].value == 0.0
    trajectory.qpos[5:, 0, mjm.joint(fidelity_scenes.POT).qposadr[0] + 2] += 0.06
    assert by_name(fidelity_scenes.measure_two_arms(mjm, trajectory))["pot lifted"].value == 1.0
    script = fidelity_scenes.two_arms_script(mjm)
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
    found = by_name(fidelity_scenes.measure_boxes(mjm, trajectory))
    assert found["stood for"].value == pytest.approx(2.0)
    assert found["penetration, largest while standing"].value == pytest.approx(2.0)


@pytest.mark.parametrize("factor", [1.0, 1.1])
def test_stopping_distance_is_compared_with_coulombs(factor):
    mjm = BY_NAME["sliding, elliptic"].model(0.002, "implicitfast")
    nworld = len(fidelity_scenes.DIRECTIONS)
    start = fidelity_scenes.sliding_start(mjm, nworld)
    qpos = np.stack([start["qpos"], start["qpos"]])
    for i, mu in enumerate(fidelity_scenes.FRICTIONS):
        direction = start["qvel"][:, 6 * i : 6 * i + 2] / 2.0
        qpos[1, :, 7 * i : 7 * i + 2] += factor * direction * 2.0**2 / (2 * mu * GRAVITY)
    trajectory = Trajectory(np.array([0.0, 2.0]), qpos, np.zeros((2, nworld, mjm.nv)))
    qpos[1, 2, 2] += 0.005
    found = by_name(fidelity_scenes.measure_sliding(mjm, trajectory))
    assert found.pop("hop above the floor, largest mu=0.2").value == pytest.approx(5.0)
    assert found.pop("hop above the floor, largest mu=0.4").value == 0.0
    assert found.pop("hop above the floor, largest mu=0.8").value == 0.0
    assert len(found) == 12
    for each in found.values():
        assert each.error(each.reference) == pytest.approx(factor - 1, abs=1e-9)


def test_creep_and_acceleration_on_a_slope_are_read_along_the_slope():
    mjm, trajectory = synthetic("incline, pyramidal")
    for i, degrees in enumerate(fidelity_scenes.INCLINES):
        angle = math.radians(degrees)
        along = 0.004 * trajectory.time if degrees < 26 else trajectory.time**2
        trajectory.qpos[:, 0, 7 * i] += math.cos(angle) * along
        trajectory.qpos[:, 0, 7 * i + 2] -= math.sin(angle) * along
    found = by_name(fidelity_scenes.measure_incline(mjm, trajectory))
    assert found["creep speed angle=10"].value == pytest.approx(4.0)
    assert found["creep speed angle=20"].value == pytest.approx(4.0)
    assert found["sliding acceleration angle=40"].value == pytest.approx(2.0)
    assert found["sliding acceleration angle=30"].reference == pytest.approx(0.6571, rel=1e-3)


def test_stopping_time_does_not_wait_for_what_never_quite_stops():
    times = np.linspace(0, 10, 1001)
    assert fidelity_measures.stopping_time(times, 10 - 2 * times) == pytest.approx(5.0)
    creeping = np.maximum(10 - 2 * times, 0.01)
    assert fidelity_measures.stopping_time(times, creeping, 0.05) == pytest.approx(5.0)
    slow = 10 - 0.1 * times  # not half lost when the curve ends
    assert fidelity_measures.stopping_time(times, slow) == pytest.approx(100.0)
    assert fidelity_measures.stopping_time(times, np.full(1001, 3.0)) == math.inf


def test_rebound_is_the_height_after_the_first_bounce_over_the_one_before():
    assert fidelity_measures.rebound(np.array([1, 0.5, -0.01, 0.2, 0.3, 0.1, 0.6])) == 0.6
    assert fidelity_measures.rebound(np.array([1, 0.5, 0.1, 0.0, -0.1])) == 0.0
    assert math.isnan(fidelity_measures.rebound(np.array([1, 0.5, np.nan])))


def test_invariants_are_those_of_rigid_body_mechanics():
    mjm, trajectory = synthetic("tumbling body", duration=0.02)
    trajectory.qvel[:] = [0, 0, 3, 0, 5, 0]
    kept = fidelity_measures.invariants(mjm, trajectory)
    inertia = 2 * (0.1**2 + 0.3**2) / 12  # 2 kg, about the middle axis; edges of 0.1, 0.2, 0.3 m
    np.testing.assert_allclose(kept.momentum, [[0, 0, 6]] * 2)
    np.testing.assert_allclose(kept.angular_momentum, [[0, inertia * 5, 0]] * 2, atol=1e-12)
    np.testing.assert_allclose(kept.energy, [0.5 * 2 * 3**2 + 0.5 * inertia * 5**2] * 2)


def test_angular_momentum_is_told_in_the_worlds_frame():
    mjm, trajectory = synthetic("tumbling body", duration=0.02)
    trajectory.qvel[:] = [0, 0, 0, 0, 5, 0]
    trajectory.qpos[1, 0, 3:] = math.sqrt(0.5), 0, 0, math.sqrt(0.5)  # y is now -x
    momentum = fidelity_measures.invariants(mjm, trajectory).angular_momentum
    np.testing.assert_allclose(momentum[1], [-momentum[0, 1], 0, 0], atol=1e-12)
    assert fidelity_measures.largest_change(momentum) == pytest.approx(
        math.sqrt(2) * momentum[0, 1]
    )


def test_drift_of_constraints_is_read_between_their_ends():
    mjm, trajectory = synthetic("constraints")
    trajectory.qpos[50, 0, :3] += [0.003, 0, 0.004]  # the swinging bar, once
    bracket = mjm.jnt_qposadr[mjm.body("bracket").jntadr[0]]
    trajectory.qpos[:, 0, bracket + 1] += 0.002
    trajectory.qpos[:, 0, mjm.joint("slide").qposadr[0]] = -0.201
    trajectory.qpos[:, 0, mjm.joint("hinge").qposadr[0]] = math.radians(47)
    trajectory.qpos[:, 0, mjm.joint("holds").qposadr[0]] = 0.005 * trajectory.time
    found = by_name(fidelity_scenes.measure_constraints(mjm, trajectory))
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
    found = by_name(fidelity.measure(scene, mjm, trajectory))
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
    kept = fidelity.measure(scene, mjm, trajectory)
    qpos[3:], qvel[3:] = np.nan, np.nan
    lost = fidelity.measure(scene, mjm, trajectory)
    names = [(each.name, each.variant) for each in kept]
    assert names == [(each.name, each.variant) for each in lost]
    assert len(set(names)) == len(names)
    assert any(each.headline for each in kept)


# ---------------------------------------------------- the scenes and formulas, on MuJoCo C

# Scene, timestep in s, quantity, largest error allowed: relative where the quantity is, else in
# its unit. MuJoCo's contacts are soft, which is what the penetrations and creeps allowed are.
MET_BY_NEWTON = [
    ("resting box", 0.001, "stood for", 0.0),
    ("resting box", 0.001, "penetration, mean while standing", 0.2),
    ("arch", 0.002, "stood for", 0.0),
    ("arch", 0.002, "drift sideways, mean over boxes", 12.0),
    ("humanoid", 0.002, "penetration, mean at rest", 0.05),
    ("two arms", 0.002, "pot lifted", 0.0),
    ("sliding, elliptic", 0.001, "stopping distance", 0.01),
    ("incline, pyramidal", 0.001, "creep speed", 2.0),
    ("incline, pyramidal", 0.001, "sliding acceleration", 0.01),
    ("incline, elliptic", 0.001, "creep speed", 1.0),
    ("incline, elliptic", 0.001, "sliding acceleration", 0.01),
    ("spinning and rolling", 0.001, "spin-down time", 0.01),
    ("spinning and rolling", 0.001, "roll-down time", 0.01),
    ("spinning and rolling", 0.001, "spin-down time falls with the coefficient", 0.0),
    ("spinning and rolling", 0.001, "roll-down time falls with the coefficient", 0.0),
    ("collision", 0.0005, "momentum, largest change", 1e-12),
    ("collision", 0.0005, "angular momentum, largest change", 1e-4),
    ("collision", 0.0005, "kinetic energy, largest gain", 0.0),
    ("pendulum chain", 0.0005, "energy, largest change", 0.01),
    ("bouncing ball", 0.0005, "rebound over drop", 0.01),
    ("tumbling body", 0.0005, "angular momentum, largest change", 0.005),
    ("constraints", 0.001, "connect: largest gap, swinging", 1.0),
    ("constraints", 0.001, "friction loss that slips: acceleration", 1e-3),
]
_runs: dict[tuple[str, float], list[fidelity.Row]] = {}


@pytest.mark.parametrize(("scene", "timestep", "quantity", "allowed"), MET_BY_NEWTON)
def test_newton_meets_the_reference(scene, timestep, quantity, allowed):
    if (scene, timestep) not in _runs:
        _runs[scene, timestep] = run(scene, timestep)
    for variant, error in errors(_runs[scene, timestep], quantity).items():
        assert error <= allowed, variant


def test_the_arch_stands_at_a_fine_timestep_too():
    scene = BY_NAME["arch"]
    mjm = scene.model(0.0005, "implicitfast")
    trajectory = fidelity.record(scene, MJC.make_simulation(mjm, "cpu", 1)).trajectory
    stood = by_name(scene.measure(mjm, trajectory))["stood for"]
    assert stood.value == stood.reference == 5.0


def test_a_pyramid_is_weak_between_its_axes_by_the_root_of_two():
    found = errors(run("sliding, pyramidal", 0.001), "stopping distance")
    for mu in fidelity_scenes.FRICTIONS:
        assert found[f"mu={mu} direction=0"] < 0.01
        assert found[f"mu={mu} direction=45"] == pytest.approx(math.sqrt(2) - 1, abs=0.01)


@pytest.mark.parametrize("scene", ["pendulum chain", "tumbling body"])
def test_the_error_of_an_integrator_of_first_order_falls_with_the_timestep(scene):
    coarse, fine = (
        next(row["error"] for row in run(scene, timestep) if row["headline"])
        for timestep in (0.004, 0.002)
    )
    assert coarse / fine == pytest.approx(2.0, rel=0.2)


def test_where_there_is_no_formula_the_reference_is_newton_at_a_tenth_of_the_timestep():
    rows = run("deep start", 0.002)
    speeds = [row for row in rows if row["quantity"] == "peak speed upwards"]
    finer = [row for row in run("deep start", 0.0002) if row["quantity"] == "peak speed upwards"]
    assert [row["reference"] for row in speeds] == [row["value"] for row in finer]
    assert {row["reference_kind"] for row in speeds} == {fidelity_measures.NEWTON}


# --------------------------------------------------------------------- what must be noticed


@pytest.mark.parametrize("scene", ["sliding, elliptic", "incline, elliptic"])
def test_a_planted_error_in_the_friction_coefficient_is_caught(scene):
    quantity = {
        "sliding, elliptic": "stopping distance",
        "incline, elliptic": "sliding acceleration",
    }
    mjm = BY_NAME[scene].model(0.001, "implicitfast")
    assert max(errors(run(scene, 0.001, mjm=mjm), quantity[scene]).values()) < 0.01
    mjm.geom_friction[:, 0] *= 1.1
    planted = errors(run(scene, 0.001, mjm=mjm), quantity[scene])
    assert min(planted.values()) > 0.05


EXPLODING = """
<mujoco>
  <option gravity="0 0 0"><flag eulerdamp="disable"/></option>
  <worldbody>
    <body><joint type="slide" stiffness="1e7"/><geom size=".1" mass="1"/></body>
  </worldbody>
  <keyframe><key qpos="0.1"/></keyframe>
</mujoco>
"""


def exploding(timestep: float) -> list[fidelity.Row]:
    scene = Scene(
        "exploding",
        "does it blow up",
        lambda: EXPLODING,
        lambda mjm, trajectory: [
            Quantity("position", "m", trajectory.qpos[-1, 0, 0], headline=True),
            Quantity("position by Newton", "m", trajectory.qpos[-1, 0, 0], None),
        ],
        duration=0.5,
        sample=0.02,
        nconmax=4,
        njmax=8,
    )
    sweep = Sweep("euler", "cpu", "standard", [])
    return sweep.run(Run(scene, MJC, timestep, 1))


def test_a_diverging_model_is_invalid_with_the_reason_and_never_ranks():
    rows = exploding(0.002)
    for row in rows:
        assert row["error"] is None
        assert "1 world(s) diverged; world 0 diverged at step" in row["invalid"]
    assert json.loads(json.dumps(rows, allow_nan=False)) == rows
    (worst,) = fidelity.headlines(rows).values()
    assert fidelity._cell(worst) == "invalid"
    (stable,) = fidelity.stability(rows)
    assert (stable["largest_timestep"], stable["died"]) == (None, [0.002])


def test_a_run_in_which_a_body_is_shot_away_is_invalid():
    scene = dataclasses.replace(
        BY_NAME["tumbling body"], start=lambda mjm, nworld: {"qvel": np.full((nworld, mjm.nv), 300)}
    )
    rows = run(scene, 0.01)
    assert all(row["error"] is None for row in rows)
    assert "ran away" in rows[0]["invalid"]


def test_the_largest_timestep_that_survives_is_below_the_first_that_does_not():
    def row(timestep: float, invalid: str | None = None) -> fidelity.Row:
        where = {"scene": "s", "contender": "c", "device": "cpu", "integrator": "euler"}
        return {**where, "timestep": timestep, "invalid": invalid}

    (stable,) = fidelity.stability(
        [row(0.002), row(0.001), row(0.005, "diverged"), row(0.01), row(0.02, "ran away")]
    )
    assert stable["largest_timestep"] == 0.002
    assert stable["died"] == [0.005, 0.02]


@pytest.mark.engine
def test_a_run_whose_buffers_overflowed_is_invalid():
    scene = dataclasses.replace(BY_NAME["resting box"], njmax=3)
    rows = run(scene, 0.01, "comfree-paper")
    assert all(row["error"] is None for row in rows)
    assert "njmax=3, needed at least" in rows[0]["invalid"]


# ------------------------------------------------------------------------- all three engines


@pytest.mark.engine
@pytest.mark.parametrize(
    "contender", [*contenders.KINDS, "comfree-paper k=0.1 d=0.01", "comfree-warm p=2"]
)
def test_every_contender_is_measured(contender):
    rows = run("resting box", 0.005, contender)
    assert errors(rows, "stood for") == {"": 0.0}
    assert rows[0]["contender"] == contender
    assert rows[0]["invalid"] is None
    assert rows[0]["contacts"] == pytest.approx(4, abs=0.1)
    assert rows[0]["cost"] > 0


@pytest.mark.engine
@pytest.mark.parametrize(
    ("scene", "quantities"),
    [
        ("resting box", ["penetration, mean while standing"]),
        ("deep start", ["peak speed upwards", "thrown above rest"]),
        ("bouncing ball", ["rebound over drop"]),
        ("incline, pyramidal", ["creep speed"]),
        ("incline, elliptic", ["creep speed", "sliding acceleration"]),
        ("spinning and rolling", ["spin-down time", "roll-down time"]),
        (
            "constraints",
            [
                "weld: gap under load",
                "slide limit: violation at rest",
                "hinge limit: violation at rest",
                "friction loss that holds: creep",
                "friction loss that slips: acceleration",
            ],
        ),
    ],
)
def test_comfree_measures_as_the_float64_reference_of_its_law(scene, quantities):
    law = contenders.parse("comfree-paper").options
    mjm = BY_NAME[scene].model(0.002, "implicitfast")
    recording = fidelity.record(
        BY_NAME[scene], ReferenceSimulation(mjm, law["stiffness"], law["damping"])
    )
    expected = fidelity.measure(BY_NAME[scene], mjm, recording.trajectory)
    found = run(scene, 0.002, "comfree-paper")
    for quantity in quantities:
        for each in expected:
            if each.name == quantity:
                (row,) = [
                    row
                    for row in found
                    if (row["quantity"], row["variant"]) == (each.name, each.variant)
                ]
                assert row["value"] == pytest.approx(each.value, rel=0.01), (quantity, each.variant)


@pytest.mark.engine
def test_comfrees_friction_loss_is_the_damper_that_its_law_says():
    """At rest f = D (k + d / h) u with D = 9 m: the load creeps at u = g / (9 (0.2 + 0.5)).

    phi is 0 on friction rows, and dmin = 0.9 makes D = 0.9 / (1 - 0.9) m.
    """
    (row,) = [
        row
        for row in run("constraints", 0.002, "comfree-paper")
        if row["quantity"] == "friction loss that holds: creep"
    ]
    predicted = GRAVITY / (9 * (0.2 + 0.001 / 0.002))
    assert row["value"] / 1e3 == pytest.approx(predicted - 0.002 * GRAVITY, rel=1e-3)


# ----------------------------------------------------------------------------- plan and rows


@pytest.mark.parametrize("level", levels.FIDELITY)
def test_a_level_says_all_that_it_leaves_out(level):
    compared = contenders.parse_all(contenders.DEFAULT)
    runs, skips = fidelity.make_plan(SCENES, compared, level)
    timesteps = fidelity.QUICK_SWEEP if level == "quick" else SWEEP
    planned = [(each.scene.name, each.contender.name, each.timestep) for each in runs]
    left_out = [(each.scene, each.contender, each.timestep) for each in skips]
    everything = {
        (scene.name, one.name, h) for scene in SCENES for one in compared for h in timesteps
    }
    assert len(planned) + len(left_out) == len(everything)
    assert set(planned) | set(left_out) == everything
    assert all("--level" in skip.reason for skip in skips)
    assert bool(skips) == (level != "full")


def test_standard_spares_mjwarp_the_piles_and_full_spares_nobody():
    compared = contenders.parse_all(contenders.DEFAULT)
    runs, _ = fidelity.make_plan([BY_NAME["dense pile"]], compared, "standard")
    finest: dict[str, float] = {}
    for each in runs:
        name = each.contender.name
        finest[name] = min(each.timestep, finest.get(name, math.inf))
    assert finest == {
        "mjc": 0.001,
        "mjwarp": 0.002,
        "comfree-paper": 0.001,
        "comfree-warm": 0.001,
    }
    runs, skips = fidelity.make_plan([BY_NAME["hand"]], compared, "full")
    assert not skips
    assert {each.nworld for each in runs} == {64}


def test_timesteps_and_scenes_can_be_chosen():
    chosen = fidelity.parse_scenes("pile; incline")
    assert [scene.name for scene in chosen] == [
        "dense pile",
        "incline, pyramidal",
        "incline, elliptic",
    ]
    runs, _ = fidelity.make_plan(chosen, [MJC], "standard", fidelity.parse_timesteps("0.004"))
    assert {each.timestep for each in runs} == {0.004}


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (
            lambda: contenders.parse_all("mjc,bullet"),
            "'bullet' is none of mjc, mjwarp, comfree-paper",
        ),
        (lambda: contenders.parse_all("mjc k=1"), "'k=1': mjc has the options"),
        (
            lambda: contenders.parse_all("mjc,comfree"),
            "'comfree' is none of mjc, mjwarp, comfree-p",
        ),
        (lambda: contenders.parse_all("comfree-paper p=2"), "'p=2': comfree-paper has the options"),
        (lambda: contenders.parse_all("comfree-warm k=1"), "'k=1': comfree-warm has the options"),
        (lambda: contenders.parse_all("comfree-paper k=soft"), "'soft' is no number"),
        (lambda: contenders.parse_all("comfree-warm p=1.5"), "'1.5' is no whole number"),
        (lambda: contenders.parse_all("mjc,mjc"), "'mjc' is there twice"),
        (lambda: fidelity.parse_scenes("pyramid;moon"), "'moon' is in none of resting box;"),
        (lambda: fidelity.parse_timesteps("0.002,x"), "no list of numbers"),
        (lambda: fidelity.parse_timesteps("2"), "2 s is not above 0 and up to 0.1"),
    ],
)
def test_what_cannot_be_used_is_named(call, told):
    with pytest.raises(SettingError, match=told.replace("(", r"\(")):
        call()


def test_a_contender_says_all_its_options():
    plain, soft, warm, twice = contenders.parse_all(
        "comfree-paper,comfree-paper k=0.1,comfree-warm,comfree-warm p=2"
    )
    assert plain.options == {"law": "paper", "stiffness": 0.2, "damping": 0.001}
    assert (soft.name, soft.options) == ("comfree-paper k=0.1", {**plain.options, "stiffness": 0.1})
    assert warm.options == {"law": "warm", "passes": 1}
    assert (twice.name, twice.options) == ("comfree-warm p=2", {"law": "warm", "passes": 2})
    assert {it.engine for it in (plain, soft, warm, twice)} == {"comfree"}


def test_a_series_goes_by_what_a_contender_is_and_not_by_its_name():
    quick = dataclasses.replace(BY_NAME["pendulum chain"], duration=0.1)
    named = contenders.Contender("the same by another name", MJC.engine, MJC.options)
    other = contenders.Contender("mjc", MJC.engine, {"stiffness": 0.1})
    mjm = quick.model(0.01, "implicitfast")

    def series(contender: contenders.Contender) -> str:
        return fidelity.series_of(
            fidelity.definition(Run(quick, contender, 0.01, 1), mjm, "implicitfast", "cpu")
        )

    assert series(MJC) == series(named) != series(other)


def test_a_changed_definition_starts_a_new_series():
    scene = BY_NAME["pendulum chain"]
    quick = dataclasses.replace(scene, duration=0.1)
    series = {row["series"] for row in run(quick, 0.01)}
    assert series == {row["series"] for row in run(quick, 0.01)}
    for changed in (
        dataclasses.replace(quick, duration=0.2),
        dataclasses.replace(quick, revision=2),
        dataclasses.replace(quick, xml=lambda: scene.xml().replace("0.02", "0.03")),
    ):
        assert series.isdisjoint(row["series"] for row in run(changed, 0.01))
    assert series.isdisjoint(row["series"] for row in run(quick, 0.02))


def test_a_row_says_what_it_is_and_where_it_came_from():
    row = run("pendulum chain", 0.01)[0]
    assert row.keys() >= {
        *("scene", "quantity", "variant", "unit", "value", "reference", "reference_kind", "error"),
        *("error_kind", "headline", "contender", "engine", "options", "device", "timestep"),
        *("integrator", "duration", "nworld", "steps", "cost", "contacts", "rows", "invalid"),
        *("model_hash", "model_options", "series", "versions", "commit", "command", "date"),
    }
    assert row["steps"] == 500
    assert row["model_options"]["solver"] == "newton"


# ------------------------------------------------------------------------------ the program


def start(path, *arguments: str) -> subprocess.Popen:
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "benchmark.fidelity"),
            *("--contenders", "mjc", "--json", str(path), *arguments),
        ],
        cwd=engines.REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_rows(path, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 120
    while not path.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def complete_runs(document: dict) -> bool:
    """Whether every run in the document has all its rows."""
    counts: dict[tuple, int] = {}
    for row in document["rows"]:
        key = (row["scene"], row["timestep"])
        counts[key] = counts.get(key, 0) + 1
    return len({(scene, count) for (scene, _), count in counts.items()}) == len(
        {scene for scene, _ in counts}
    )


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGINT])
def test_what_was_measured_survives_the_end_of_the_program(signum, tmp_path):
    path = tmp_path / "results.json"
    with start(path, "--scenes", "sliding;incline;hand") as process:
        wait_for_rows(path, process)
        process.send_signal(signum)
        out, err = process.communicate(timeout=60)
    document = json.loads(path.read_text())
    assert document["rows"]
    assert complete_runs(document)
    if signum == signal.SIGINT:
        assert process.returncode == 130
        assert document["ended"] == "SIGINT"
        assert re.search(r"ended by SIGINT before all \d+ runs were done", out)
        assert "Traceback" not in err
    else:
        assert document["ended"] is None


def test_a_finished_sweep_says_so_and_shows_its_errors(tmp_path):
    path = tmp_path / "results.json"
    with start(path, "--scenes", "bouncing;hand", "--level", "quick") as process:
        out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    document = json.loads(path.read_text())
    assert document["ended"] == "complete"
    assert {skip["scene"] for skip in document["skipped"]} == {"hand"}
    assert "left out: hand on mjc at h = 0.002, 0.01 s" in out
    assert "| bouncing ball | energy, largest gain | mjc" in out
    assert list(tmp_path.iterdir()) == [path]


def test_wrong_use_is_told_without_a_traceback(tmp_path):
    with start(tmp_path / "results.json", "--scenes", "moon") as process:
        _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "scenes: 'moon' is in none of" in err
    assert "Traceback" not in err
