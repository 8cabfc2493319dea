"""Groups of the speed suite: rounds that take turns, rows that say what they are, statistics."""

import copy
import dataclasses
import json
import math

import mujoco
import numpy as np
import pytest

from benchmark.common import measuring
from benchmark.common.contenders import Contender, parse, parse_all
from benchmark.common.models import model_hash
from benchmark.speed import compare
from benchmark.speed import measure as speed
from benchmark.speed.scenes import BY_NAME, SCENES, SpeedScene, layer
from mjsim import engines
from mjsim.errors import SettingError

FALLING = '<mujoco><worldbody><body><freejoint/><geom size=".1"/></body></worldbody></mujoco>'
# It falls for 0.1 s.
LANDING = """<mujoco>
  <worldbody>
    <geom type="plane" size="1 1 1"/><body pos="0 0 0.149"><freejoint/><geom size=".1"/></body>
  </worldbody>
</mujoco>
"""
# A spring that no explicit step of 2 ms can follow.
EXPLODING = """<mujoco>
  <option timestep="0.002" gravity="0 0 0"><flag eulerdamp="disable"/></option>
  <worldbody>
    <body><joint type="slide" stiffness="1e7"/><geom size=".1" mass="1"/></body>
  </worldbody>
  <keyframe><key qpos="0.1"/></keyframe>
</mujoco>
"""
MJC = speed.Entry(parse("mjc"), "cpu")


def measure(scene: SpeedScene, *entries: speed.Entry, nworld: int = 1, **given) -> dict:
    given = {"rounds": 3, "points": speed.PointBudget(math.inf), **given}
    return speed.measure_group(scene, nworld, entries or (MJC,), **given)


def measure_row(scene: SpeedScene, **given) -> measuring.ResultRow:
    (measured,) = measure(scene, **given).values()
    return measured.row


def small(**changes) -> SpeedScene:
    return SpeedScene(**{"name": "falling", "model": FALLING, "steps": 20, **changes})


# --------------------------------------------------------------------------------------- measuring


def test_rounds_take_turns_and_each_begins_with_another_one():
    told: list[str] = []
    competitors = {name: lambda name=name: told.append(name) for name in "abc"}
    clock = iter(range(100))
    times = measuring.interleaved_times(competitors, 4, clock=lambda: next(clock))
    assert told == list("abc" + "bca" + "cab" + "abc")
    assert times == {"a": [1] * 4, "b": [1] * 4, "c": [1] * 4}


def test_preparing_is_off_the_clock():
    told: list[str] = []
    measuring.interleaved_times(
        {"a": lambda: told.append("run")},
        1,
        {"a": lambda: told.append("prepare")},
        clock=lambda: told.append("clock") or 0.0,
    )
    assert told == ["prepare", "clock", "run", "clock"]


def test_contenders_take_turns_from_the_same_state_with_the_same_controls():
    seen: list[tuple[str, float, float]] = []

    class Watched(Contender):
        def make_simulation(self, *args, **given) -> engines.Simulation:
            simulation = super().make_simulation(*args, **given)
            step = simulation.step

            def watched(n: int = 1) -> None:
                before = simulation.read("qpos")[2]
                step(n)
                seen.append((self.name, before, simulation.read("qpos")[2]))

            simulation.step = watched
            return simulation

    scene = dataclasses.replace(BY_NAME["humanoid, standing"], steps=10)
    entries = [speed.Entry(Watched(name, "mjc", {}), "cpu") for name in ("one", "other")]
    measure(scene, *entries, rounds=2)
    counted, rounds = seen[:20], seen[20:28]
    assert [name for name, *_ in counted] == ["one"] * 10 + ["other"] * 10
    # Each takes a step to warm its caches, goes back, and then those that count.
    assert [name for name, *_ in rounds] == ["one"] * 2 + ["other"] * 4 + ["one"] * 2
    rounds = rounds[1::2]
    assert len({before for _, before, _ in rounds}) == 1
    for turn in (rounds[:2], rounds[2:]):
        assert turn[0][2] == turn[1][2]  # the same controls within a round
    assert rounds[0][2] != rounds[2][2]  # and others in the next one


def test_every_world_starts_otherwise_and_every_engine_alike():
    start = speed.Start(small(), 3)
    simulations = [engines.make_simulation(start.mjm, "mjc", nworld=3) for _ in range(2)]
    for simulation in simulations:
        start.restore(simulation)
    one, other = (simulation.read_all("qvel") for simulation in simulations)
    np.testing.assert_array_equal(one, other)
    assert len({tuple(world) for world in one}) == 3


def test_contacts_are_counted_all_through_a_round():
    row = measure_row(small(model=LANDING, steps=100))
    assert row["contacts"]["mean"] == pytest.approx(0.5, abs=0.05)


def test_a_row_says_what_a_sceptic_asks_for():
    row = measure_row(small(model=layer(3)), nworld=2)
    assert row["valid"]
    assert row["invalid"] is None
    assert 0 < row["contacts"]["mean"] <= 12
    assert row["rows"]["mean"] == pytest.approx(4 * row["contacts"]["mean"])
    assert row["iterations"]["max"] >= 1
    step = row["time_per_step"]
    assert step["min"] <= step["q1"] <= step["median"] <= step["q3"] <= step["max"]
    assert row["steps_per_second"] == pytest.approx(2 / step["median"])
    assert row["realtime_factor"] == pytest.approx(0.002 / step["median"])
    assert row["time_per_step_copied"]["median"] > 0
    assert row["diverged"] == 0
    assert row["definition"]["model_options"]["solver"] == "newton"
    assert row["definition"]["sizes"]["nv"] == 18
    assert {"mujoco", "warp-lang", "python"} <= row["definition"]["versions"].keys()
    json.dumps(row, allow_nan=False)


def test_a_diverging_scene_is_invalid_with_the_reason_and_never_ranks():
    row = measure_row(small(name="exploding", model=EXPLODING), nworld=2)
    assert not row["valid"]
    assert "2 world(s) diverged; world 0 diverged at step" in row["invalid"]
    assert row["diverged"] == 2
    healthy = measure_row(small())
    assert list(compare.ranking([row, healthy])) == [("falling", 1)]
    (verdict,) = compare.compare([row], [row], 1.15)
    assert (verdict.kind, verdict.detail) == ("not compared", "invalid in the stored run")
    assert measuring.scaling_fits([row] * 3) == []


@pytest.mark.engine
def test_a_scene_that_overflows_is_invalid(monkeypatch):
    monkeypatch.setattr(speed, "size_buffers", lambda mjm, nprobe: {"nconmax": 1, "njmax": 1})
    speed._settled.cache_clear()
    entry = speed.Entry(parse("comfree-paper"), "cpu")
    (measured,) = measure(small(name="too small", model=layer(3)), entry).values()
    assert not measured.row["valid"]
    assert "--njmax" in measured.row["invalid"]
    assert measured.row["overflow"]


def test_a_scene_that_an_engine_refuses_is_skipped_with_the_reason():
    entry = speed.Entry(parse("comfree-paper"), "cpu")
    scene = small(name="refused", model='<mujoco><option integrator="RK4"/></mujoco>')
    (skipped,) = measure(scene, entry).values()
    assert isinstance(skipped, speed.Skipped)
    assert "refused by comfree" in skipped.reason


def test_a_point_that_would_take_too_long_is_left_out_with_the_reason():
    points = speed.PointBudget(budget=0.0)
    grown = [small(name=f"layer {n}", model=layer(n), family="layer", size=n) for n in (1, 2)]
    first, second = (measure(scene, points=points)[MJC.name] for scene in grown)
    assert isinstance(first, speed.Measured)
    assert isinstance(second, speed.Skipped)
    assert "a point has 0 s" in second.reason


def test_mjwarp_is_spared_the_scene_that_would_crash_it_on_the_cpu():
    bodies = "<body><freejoint/><geom size='.1'/></body>" * 1700
    mjm = mujoco.MjModel.from_xml_string(
        f"<mujoco><size memory='1G'/><worldbody>{bodies}</worldbody></mujoco>"
    )
    assert "crashes" in speed.crashes(mjm, speed.Entry(parse("mjwarp"), "cpu"))
    assert speed.crashes(mjm, speed.Entry(parse("mjwarp"), "cuda:0")) is None
    assert speed.crashes(mjm, speed.Entry(parse("comfree-paper"), "cpu")) is None


@pytest.mark.alone
def test_the_suites_own_time_is_below_2_percent_of_the_shortest_row():
    assert measure_row(BY_NAME["pendula"], rounds=9)["overhead"] < 0.02


# ------------------------------------------------------------------------------------- definitions


def test_a_changed_definition_starts_a_new_series():
    row = measure_row(small())
    assert measure_row(small())["series"] == row["series"]
    timestep = FALLING.replace("<mujoco>", '<mujoco><option timestep="0.001"/>')
    changed = {
        "nworld": measure_row(small(), nworld=2),
        "steps": measure_row(small(steps=21)),
        "noise": measure_row(small(noise=0.1)),
        "model_options.timestep": measure_row(small(model=timestep)),
        "sizes.nbody": measure_row(small(model=layer(2))),
    }
    for name, other in changed.items():
        assert other["series"] != row["series"]
        (detail,) = {
            verdict.detail
            for verdict in compare.compare([row | {"nworld": 0}], [other | {"nworld": 0}], 1.15)
        }
        assert detail.startswith("another series: ")
        assert name in detail


def test_other_versions_are_another_series():
    row = measure_row(small())
    newer = copy.deepcopy(row)
    newer["definition"]["versions"]["mujoco"] = "5.0.0"
    newer["series"] = measuring.definition_hash(newer["definition"])
    (verdict,) = compare.compare([row], [newer], 1.15)
    version = row["definition"]["versions"]["mujoco"]
    assert verdict.detail == f"another series: versions.mujoco {version} -> 5.0.0"


def test_a_changed_file_of_a_model_is_another_model(tmp_path):
    corners = "v 0 0 0\nv 1 0 0\nv 0 1 0\nv 0 0 {}\nf 1 3 2\nf 1 2 4\nf 2 3 4\nf 3 1 4\n"
    hashes = []
    for folder, height in (("a", 1), ("b", 2), ("c", 1)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "piece.obj").write_text(corners.format(height))
        path = tmp_path / folder / "scene.xml"
        path.write_text(
            '<mujoco><asset><mesh name="m" file="piece.obj"/></asset><worldbody>'
            '<geom type="mesh" mesh="m"/></worldbody></mujoco>'
        )
        hashes.append(model_hash(small(model=str(path)).load()))
    assert hashes[0] == hashes[2] != hashes[1]


def test_every_scene_has_its_own_name_and_a_level():
    assert len(BY_NAME) == len(SCENES)
    assert all(scene.worlds for scene in SCENES)
    assert {scene.family for scene in SCENES if scene.quick} == {""}
    assert max(nworld for scene in SCENES for nworld in scene.cuda) == 8192


def test_contenders_are_named_with_their_options():
    one, other = parse_all("mjc,comfree-paper k=0.1 d=0.01")
    assert (one.engine, dict(one.options)) == ("mjc", {})
    assert dict(other.options) == {"law": "paper", "stiffness": 0.1, "damping": 0.01}
    with pytest.raises(SettingError, match="is none of mjc, mjwarp, comfree-paper, comfree-warm"):
        parse("mujoco")


# -------------------------------------------------------------------------------------- statistics


def test_the_slope_of_a_power_law_is_its_exponent():
    x = [10, 30, 100, 300]
    fit = measuring.fit_slope(x, [0.002 * value**1.5 for value in x])
    assert fit["slope"] == pytest.approx(1.5)
    assert fit["standard_error"] == pytest.approx(0.0, abs=1e-9)
    assert measuring.fit_slope(x[:2], [1, 2]) is None
    assert measuring.fit_slope([5, 5, 5], [1, 2, 3]) is None


def test_the_standard_error_of_a_slope_is_that_of_least_squares():
    rng = np.random.default_rng(1)
    x = np.geomspace(1, 1e4, 9)
    slopes, errors = [], []
    for _ in range(2000):
        fit = measuring.fit_slope(x, x * np.exp(rng.normal(0.0, 0.3, x.size)))
        slopes.append(fit["slope"])
        errors.append(fit["standard_error"])
    assert np.mean(slopes) == pytest.approx(1.0, abs=0.01)
    assert np.sqrt(np.mean(np.square(errors))) == pytest.approx(np.std(slopes), rel=0.05)


def test_slopes_are_fitted_against_contacts_and_worlds_and_from_100_on():
    row = measure_row(small())
    rows = [
        row | {"family": "layer", "contacts": {"mean": x}, "time_per_step": {"median": max(x, 100)}}
        for x in (1, 10, 100, 1000, 10000)
    ]
    rows += [row | {"nworld": n, "time_per_step": {"median": n**0.5}} for n in (1, 4, 16)]
    contacts, worlds = measuring.scaling_fits(rows)
    assert (contacts["against"], contacts["scene"]) == ("contacts", "layer")
    assert contacts["fit"]["slope"] < 0.9
    assert contacts["fit_from_100"]["slope"] == pytest.approx(1.0)
    assert (worlds["against"], worlds["scene"]) == ("worlds", "falling")
    assert worlds["fit"]["slope"] == pytest.approx(0.5)


def test_what_a_larger_point_takes_is_told_from_those_before():
    assert measuring.predict([], 10) is None
    assert measuring.predict([(10, 1.0)], 100) == pytest.approx(10)
    assert measuring.predict([(1, 1.0), (10, 100.0)], 100) == pytest.approx(10_000)
    assert measuring.predict([(1, 1.0), (10, 1e9)], 100) == pytest.approx(1e12)
    assert measuring.predict([(1, 1.0), (10, 1.0)], 100) == pytest.approx(10)
