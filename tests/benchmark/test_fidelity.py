"""The scenes of the fidelity suite: Newton meets their references, and what is wrong is noticed."""

import dataclasses
import json
import math

import numpy as np
import pytest
from measured_scenes import MJC, by_name, errors, run
from reference_simulation import ReferenceSimulation

from benchmark.common import contenders
from benchmark.common.measuring import ResultRow
from benchmark.fidelity import measures, tables
from benchmark.fidelity.measures import Quantity
from benchmark.fidelity.plan import Run
from benchmark.fidelity.record import measure, record
from benchmark.fidelity.results import stability, worst_headlines
from benchmark.fidelity.scenes import BY_NAME, friction
from benchmark.fidelity.scenes.scene import GRAVITY, FidelityScene
from benchmark.fidelity.suite import FidelitySuite

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
_runs: dict[tuple[str, float], list[ResultRow]] = {}


@pytest.mark.parametrize(("scene", "timestep", "quantity", "allowed"), MET_BY_NEWTON)
def test_newton_meets_the_reference(scene, timestep, quantity, allowed):
    if (scene, timestep) not in _runs:
        _runs[scene, timestep] = run(scene, timestep)
    for variant, error in errors(_runs[scene, timestep], quantity).items():
        assert error <= allowed, variant


def test_the_arch_stands_at_a_fine_timestep_too():
    scene = BY_NAME["arch"]
    mjm = scene.model(0.0005, "implicitfast")
    trajectory = record(scene, MJC.make_simulation(mjm, "cpu", 1)).trajectory
    stood = by_name(scene.measure(mjm, trajectory))["stood for"]
    assert stood.value == stood.reference == 5.0


def test_a_pyramid_is_weak_between_its_axes_by_the_root_of_two():
    found = errors(run("sliding, pyramidal", 0.001), "stopping distance")
    for mu in friction.FRICTIONS:
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
    assert {row["reference_kind"] for row in speeds} == {measures.NEWTON}


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


def exploding(timestep: float) -> list[ResultRow]:
    scene = FidelityScene(
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
    sweep = FidelitySuite("euler", "cpu", "standard", [])
    return sweep.run(Run(scene, MJC, timestep, 1))


def test_a_diverging_model_is_invalid_with_the_reason_and_never_ranks():
    rows = exploding(0.002)
    for row in rows:
        assert row["error"] is None
        assert "1 world(s) diverged; world 0 diverged at step" in row["invalid"]
    assert json.loads(json.dumps(rows, allow_nan=False)) == rows
    (worst,) = worst_headlines(rows).values()
    assert tables._cell(worst) == "invalid"
    (stable,) = stability(rows)
    assert (stable["largest_timestep"], stable["died"]) == (None, [0.002])


def test_a_run_in_which_a_body_is_shot_away_is_invalid():
    scene = dataclasses.replace(
        BY_NAME["tumbling body"], start=lambda mjm, nworld: {"qvel": np.full((nworld, mjm.nv), 300)}
    )
    rows = run(scene, 0.01)
    assert all(row["error"] is None for row in rows)
    assert "ran away" in rows[0]["invalid"]


def test_the_largest_timestep_that_survives_is_below_the_first_that_does_not():
    def row(timestep: float, invalid: str | None = None) -> ResultRow:
        where = {"scene": "s", "contender": "c", "device": "cpu", "integrator": "euler"}
        return {**where, "timestep": timestep, "invalid": invalid}

    (stable,) = stability(
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
    recording = record(BY_NAME[scene], ReferenceSimulation(mjm, law["stiffness"], law["damping"]))
    expected = measure(BY_NAME[scene], mjm, recording.trajectory)
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
