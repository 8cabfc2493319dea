"""What the fidelity suite runs and leaves out, what its rows say, and how the program ends."""

import dataclasses
import json
import math
import re
import signal
import subprocess
import sys
import time

import pytest
from measured_scenes import MJC, run

from benchmark.common import contenders, levels
from benchmark.fidelity.plan import QUICK_TIMESTEPS, Run, make_plan, parse_scenes, parse_timesteps
from benchmark.fidelity.rows import definition, series_of
from benchmark.fidelity.scenes import BY_NAME, SCENES
from benchmark.fidelity.scenes.scene import TIMESTEPS
from mjsim import engines
from mjsim.errors import SettingError

# ----------------------------------------------------------------------------- plan and rows


@pytest.mark.parametrize("level", levels.FIDELITY)
def test_a_level_says_all_that_it_leaves_out(level):
    compared = contenders.parse_all(contenders.DEFAULT)
    runs, skips = make_plan(SCENES, compared, level)
    timesteps = QUICK_TIMESTEPS if level == "quick" else TIMESTEPS
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
    runs, _ = make_plan([BY_NAME["dense pile"]], compared, "standard")
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
    runs, skips = make_plan([BY_NAME["hand"]], compared, "full")
    assert not skips
    assert {each.nworld for each in runs} == {64}


def test_timesteps_and_scenes_can_be_chosen():
    chosen = parse_scenes("pile; incline")
    assert [scene.name for scene in chosen] == [
        "dense pile",
        "incline, pyramidal",
        "incline, elliptic",
    ]
    runs, _ = make_plan(chosen, [MJC], "standard", parse_timesteps("0.004"))
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
        (lambda: parse_scenes("pyramid;moon"), "'moon' is in none of resting box;"),
        (lambda: parse_timesteps("0.002,x"), "no list of numbers"),
        (lambda: parse_timesteps("2"), "2 s is not above 0 and up to 0.1"),
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
        return series_of(definition(Run(quick, contender, 0.01, 1), mjm, "implicitfast", "cpu"))

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
