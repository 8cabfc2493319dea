"""Sweeps: what is run, that it is run once, on real Ray clusters, and what is found."""

import contextlib
import dataclasses
import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from programs import printed_lines
from watching import wait_until

from benchmark.sweep import cases as sweep_cases
from benchmark.sweep import driver as sweep
from benchmark.sweep import results as sweep_results
from benchmark.sweep import worker as sweep_worker
from benchmark.sweep.cases import Case, Models, case_id, expand
from benchmark.sweep.table import Table, read_rows
from mjsim import choices
from mjsim.errors import SettingError
from mjsim.model.files import REPOSITORY

PENDULA = "benchmark/test_data/pendula.xml"
HUMANOID = "benchmark/test_data/humanoid/humanoid.xml"
RAY = Path(sys.executable).with_name("ray")
has_ray = pytest.mark.skipif(not RAY.exists(), reason="no Ray: pip install 'comfree-warp[sweep]'")


# ------------------------------------------------------------------------------------- the cases


def test_a_sweep_is_the_product_of_its_lists():
    cases = expand({"model": PENDULA, "seed": [0, 1], "nworld": [1, 4], "stiffness": [0.1, 0.2]})
    assert len(cases) == 8
    assert cases[0] == Case(model=PENDULA, seed=0, nworld=1, stiffness=0.1)


def test_what_an_engine_does_not_know_makes_no_more_cases():
    cases = expand({"model": PENDULA, "engine": ["mjc", "comfree"], "stiffness": [0.1, 0.2]})
    assert [(case.engine, case.stiffness) for case in cases] == [
        ("mjc", None),
        ("comfree", 0.1),
        ("comfree", 0.2),
    ]


def test_what_a_law_does_not_know_makes_no_more_cases():
    settings = {"law": ["paper", "warm"], "passes": [1, 2], "stiffness": [0.1, 0.2]}
    cases = expand({"model": PENDULA, **settings})
    assert [(case.law, case.passes, case.stiffness) for case in cases] == [
        ("paper", None, 0.1),
        ("paper", None, 0.2),
        ("warm", 1, None),
        ("warm", 2, None),
    ]
    cases = expand({"model": PENDULA, "engine": ["mjwarp", "comfree"], **settings})
    assert [choices.engine_name(case.engine, case.law) for case in cases] == [
        *("mjwarp", "comfree:paper", "comfree:paper", "comfree:warm", "comfree:warm"),
    ]


def test_the_law_may_stand_in_the_engine_s_name():
    names = ["mjc", "comfree:warm", "comfree:paper"]
    cases = expand({"model": PENDULA, "engine": names, "passes": 2})
    assert cases == [
        Case(model=PENDULA, engine="mjc"),
        Case(model=PENDULA, law="warm", passes=2),
        Case(model=PENDULA, law="paper"),
    ]
    assert cases[1].label == f"{PENDULA}, comfree:warm, passes 2"
    assert Case(model=PENDULA).label == f"{PENDULA}, comfree:{choices.LAWS[0]}"


def test_cases_stand_on_the_rest():
    cases = expand({"model": PENDULA, "nsteps": 5, "cases": [{"seed": 3}, {"engine": "mjc"}]})
    assert cases == [
        Case(model=PENDULA, nsteps=5, seed=3),
        Case(model=PENDULA, nsteps=5, engine="mjc"),
    ]


def test_models_are_found_by_globs_from_the_repository():
    found = [case.model for case in expand({"model": "benchmark/test_data/*/*.xml"})]
    assert HUMANOID in found
    assert len(found) > 4


def test_a_flag_takes_the_place_of_what_the_file_says(tmp_path):
    path = tmp_path / "sweep.toml"
    path.write_text('scene = ["grasp"]\nseed = [1, 2]\nnsteps = 7\n')
    settings = sweep.gather(path, {"model": PENDULA, "seed": "5,6", "nsteps": None})
    assert settings == {"model": [PENDULA], "seed": [5, 6], "nsteps": 7}


def test_a_sweep_takes_the_cores_that_it_may_use():
    """Not those of the machine: of two, one under taskset."""
    code = (
        "import os, contextlib\n"
        "os.sched_setaffinity(0, list(os.sched_getaffinity(0))[:1])\n"
        "from benchmark.sweep import driver as sweep\n"
        "class Ray:\n"
        "    exceptions = type('exceptions', (), {'RayError': OSError})\n"
        "    def init(self, **given): print(given['num_cpus'])\n"
        "    def shutdown(self): ...\n"
        "for cores in (None, 3):\n"
        "    with sweep.cluster(Ray(), None, cores): pass\n"
    )
    assert printed_lines(code) == ["1", "3"]


def test_a_case_is_named_by_all_that_decides_its_result(tmp_path, monkeypatch):
    models = Models()
    base = case_id(Case(model=PENDULA), models)
    others = {
        case_id(Case(model=PENDULA, **change), models)
        for change in ({"seed": 1}, {"stiffness": 0.1}, {"engine": "mjc"}, {"law": "warm"})
    }
    changed = tmp_path / "pendula.xml"
    changed.write_text(Path(REPOSITORY, PENDULA).read_text().replace("density", "density"))
    assert base not in others
    assert len(others) == 4
    assert base == case_id(Case(model=PENDULA), Models())
    monkeypatch.setattr(sweep_cases.run_settings, "versions", lambda: {"mujoco": "9"})
    assert base != case_id(Case(model=PENDULA), models)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"nsteps": 5}, "model: neither a model nor a scene"),
        ({"model": "nothing.xml"}, "model: 'nothing.xml' is no file"),
        ({"model": "nothing/*.xml"}, "model: 'nothing/*.xml' matches no file"),
        ({"scene": "nothing"}, "scene: 'nothing' is none of resting box"),
        ({"model": PENDULA, "egnine": "mjc"}, "egnine: is no setting of a sweep"),
        ({"model": PENDULA, "engine": "bullet"}, "engine: 'bullet' is none of mjc"),
        ({"model": PENDULA, "law": "cold"}, "law: 'cold' is none of paper, warm"),
        ({"model": PENDULA, "engine": "comfree:cold"}, "engine: 'comfree:cold' is none of mjc"),
        ({"model": PENDULA, "engine": "mjc", "law": "warm"}, "law: warm is of no use to mjc, only"),
        ({"model": PENDULA, "engine": "mjc", "cases": [{"passes": 2}]}, "passes: 2 is of no use"),
        ({"model": PENDULA, "engine": "comfree:warm", "law": "paper"}, "law: 'paper', and the"),
        ({"model": PENDULA, "passes": 5}, "passes: 5 is none of 1, 2, 3, 4"),
        ({"model": PENDULA, "nworld": 0}, "nworld: 0 is too small"),
        ({"model": PENDULA, "seed": "one"}, "seed: 'one' is no int"),
        ({"model": PENDULA, "seed": []}, "seed: is an empty list"),
        ({"model": PENDULA, "timestep": 1.0}, "timestep: 1.0 s is not above 0"),
        ({"model": PENDULA, "cases": 3}, "cases: is no list of tables"),
        ({"model": PENDULA, "seed": list(range(100_001))}, "cases: are more than 100,000"),
    ],
)
def test_what_cannot_be_run_is_named(settings, told):
    with pytest.raises(SettingError) as caught:
        expand(settings)
    assert f"{caught.value.setting}: {caught.value.problem}".startswith(told)


# ------------------------------------------------------------------------------------- the table


def row(case: str, **given) -> dict:
    base = dataclasses.asdict(Case(scene="grasp"))
    return {
        "format": "sweep/1",
        "case": case,
        "status": "done",
        "error": None,
        "measured": {},
        **base,
        **given,
    }


def test_a_row_that_a_crash_cut_off_is_left_out_and_written_again(tmp_path):
    path = tmp_path / "table.jsonl"
    path.write_text(json.dumps(row("a")) + "\n" + json.dumps(row("b"))[:20])
    with Table(path) as table:
        assert [it["case"] for it in table.rows] == ["a"]
        table.append(row("b"))
    assert [it["case"] for it in read_rows(path)] == ["a", "b"]


def test_rows_from_before_there_were_two_laws_are_read(tmp_path):
    path = tmp_path / "table.jsonl"
    old = row("a", stiffness=0.1)
    del old["law"], old["passes"]
    path.write_text(json.dumps(old) + "\n")
    assert read_rows(path) == [row("a", stiffness=0.1)]


def test_two_sweeps_never_write_one_table(tmp_path):
    with Table(tmp_path / "table.jsonl"), pytest.raises(SettingError, match="in use"):
        Table(tmp_path / "table.jsonl")


@pytest.mark.parametrize(
    "line",
    [
        *("{}", "[]", "nonsense", '{"format": "sweep/2"}', "[" * 100_000),
        json.dumps(row("a", stiffness="0.1")),
        json.dumps(row("a", law=1)),
        json.dumps(row("a", measured={"depth": float("nan")})),
        json.dumps(row("a", measured=[1.0])),
    ],
)
def test_a_file_that_is_no_table_is_left_as_it_is(tmp_path, line):
    path = tmp_path / "table.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(SettingError, match="line 1 is no row of a sweep"):
        Table(path)
    assert path.read_text() == line + "\n"


# --------------------------------------------------------------------------------------- results


def law_row(
    k: float | None, d: float | None, depth: float | None, slip: float, **given
) -> list[dict]:
    return [
        row(f"{name}{k}{d}", scene=name, stiffness=k, damping=d, measured={"error": value}, **given)
        for name, value in (("dense pile", depth), ("grasp", slip))
    ]


LAW_ROWS = [
    *law_row(0.1, 0.01, 4.0, 8.0),
    *law_row(0.1, 0.1, 2.0, 3.0),
    *law_row(0.4, 0.01, 1.0, 9.0),
    *law_row(0.4, 0.1, None, 1.0),
]


def test_the_best_case_is_told_of_each_subject():
    found = {(it.subject, it.value, it.of) for it in sweep_results.best_cases(LAW_ROWS)}
    assert found == {("dense pile", 1.0, 3), ("grasp", 1.0, 4)}


def test_the_fastest_is_the_best_by_speed():
    rows = [row(str(v), seed=v, measured={sweep_results.FASTER: float(v)}) for v in (1, 3, 2)]
    assert [it.value for it in sweep_results.best_cases(rows)] == [3.0]


def test_a_case_that_is_not_done_never_wins():
    bad = row("bad", status="diverged", measured={"error": 0.0})
    assert [it.row["case"] for it in sweep_results.best_cases([bad, LAW_ROWS[0]])] == [
        "dense pile0.10.01"
    ]


def test_the_law_that_suits_all_best_is_done_everywhere():
    found, ratio = sweep_results.best_law(LAW_ROWS)
    assert sweep_results.told(found) == ["stiffness 0.1", "damping 0.1"]
    assert ratio == pytest.approx((2.0 * 3.0) ** 0.5)
    warm = law_row(None, None, 1.0, 2.0, law="warm", passes=2)
    found, ratio = sweep_results.best_law([*LAW_ROWS, *warm])
    assert sweep_results.told(found) == ["law warm", "passes 2"]
    assert ratio == pytest.approx(2.0**0.5)
    best = min(sweep_results.best_cases([*LAW_ROWS, *warm]), key=lambda it: it.value)
    assert sweep_results.chosen(best.row, ["stiffness", "law"]) == "comfree, stiffness 0.4"


def test_settings_that_no_case_has_both_of_make_no_heat_map():
    rows = [
        *(row(f"k{k}", stiffness=k, measured={"error": 1.0}) for k in (0.1, 0.2)),
        *(row(f"p{n}", law="warm", passes=n, measured={"error": 1.0}) for n in (1, 2)),
    ]
    assert sweep_results.heat_maps(rows) == []


def test_a_heat_map_has_the_median_of_each_pair():
    seeds = [*law_row(0.1, 0.01, 6.0, 8.0, seed=1), *law_row(0.1, 0.01, 5.0, 8.0, seed=2)]
    maps = {it.subject: it for it in sweep_results.heat_maps([*LAW_ROWS, *seeds])}
    pile = maps["dense pile"]
    assert (pile.down, pile.across) == ("stiffness", "damping")
    assert (pile.rows, pile.columns) == ((0.1, 0.4), (0.01, 0.1))
    assert pile.cells == ((5.0, 2.0), (1.0, None))


def test_the_report_shows_a_sweep(tmp_path):
    path = tmp_path / "sweep-law.jsonl"
    path.write_text("".join(json.dumps(it) + "\n" for it in LAW_ROWS))
    program = [sys.executable, "-m", "benchmark.report", "--folder", str(tmp_path)]
    done = subprocess.run(program, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    page, summary = (tmp_path / name for name in ("report.html", "summary.md"))
    assert "The law that suits all best: stiffness 0.1, damping 0.1" in page.read_text()
    assert page.read_text().count('class="figure"') == 2
    assert "stiffness 0.4, damping 0.01" in summary.read_text()


# ---------------------------------------------------------------------------------------- on Ray


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "benchmark.sweep", *map(str, arguments)]


def environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return {**kept, **more}


def run_sweep(*arguments: object, **more: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        command(*arguments),
        cwd=REPOSITORY,
        env=environment(**more),
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )


def headless(case: dict, tmp_path: Path) -> dict:
    """The summary of the same run by hand."""
    path = tmp_path / "by-hand.json"
    flags = ["--engine", case["engine"], "--nsteps", case["nsteps"], "--seed", case["seed"]]
    flags += ["--ctrl-noise", case["ctrl_noise"], "--nworld", case["nworld"] or 1]
    flags += ["--timestep", case["timestep"]] if case["timestep"] else []
    flags += ["--stiffness", case["stiffness"]] if case["stiffness"] else []
    program = [sys.executable, REPOSITORY / "test_headless.py", "--port", 0, "--no-dump"]
    done = subprocess.run(
        list(map(str, [*program, "--model", case["model"], *flags, "--json", path])),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(path.read_text())


def test_a_dry_run_lists_the_cases_and_runs_none(tmp_path):
    done = run_sweep("--model", PENDULA, "--seed", "0,1", "--dry-run", "--table", tmp_path / "t")
    assert done.returncode == 0, done.stderr
    assert "2 cases to run, 0 in the table already" in done.stdout
    assert "pendula.xml" in done.stdout
    assert not (tmp_path / "t").exists()


def test_wrong_use_of_a_sweep_ends_in_one_line(tmp_path):
    done = run_sweep("--model", "nothing.xml", "--table", tmp_path / "t")
    assert done.returncode == 2
    assert "model: 'nothing.xml' is no file" in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


@has_ray
def test_a_cluster_that_is_not_there_is_told_at_once(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        flags = ["--model", PENDULA, "--table", tmp_path / "t"]
        done = run_sweep(*flags, RAY_ADDRESS=address)
    assert done.returncode == 2
    assert f"nothing answers at '{address}'" in " ".join(done.stderr.split())


def test_a_node_with_other_versions_is_refused():
    sweep_worker.check_versions(sweep_worker.run_settings.versions())
    with pytest.raises(sweep_worker.VersionError, match=r"'mujoco': '3\.0'"):
        sweep_worker.check_versions({"mujoco": "3.0"})


def test_a_case_that_cannot_run_says_why(monkeypatch):
    monkeypatch.setattr(sweep_worker.display.console, "quiet", True)  # as it was, afterwards
    case = Case(model=PENDULA, device="cuda:7")
    model, key = Models().of(PENDULA)
    found = sweep_worker.run_case(case, key, model, sweep_worker.run_settings.versions())
    assert found["status"] == "failed"
    assert found["error"].startswith("SettingError: device: 'cuda:7' is not here")


SMALL_ARENA = "".join(
    f'<body pos="{i % 5 * 0.3} {i // 5 * 0.3} {0.3 + 0.15 * i}"><freejoint/>'
    '<geom type="box" size=".1 .1 .1"/></body>'
    for i in range(25)
)
SMALL_ARENA = (
    '<mujoco><size memory="172K"/><worldbody><geom type="plane" size="5 5 .1"/>'
    f"{SMALL_ARENA}</worldbody></mujoco>"
)


@pytest.mark.parametrize(
    ("fixed_buffers", "status", "told"),
    [(False, "done", None), (True, "overflow", "arena is full")],
)
def test_a_case_that_lost_contacts_is_an_overflow(
    fixed_buffers, status, told, tmp_path, monkeypatch
):
    monkeypatch.setattr(sweep_worker.display.console, "quiet", True)
    path = tmp_path / "small_arena.xml"
    path.write_text(SMALL_ARENA)
    case = Case(model=str(path), engine="mjc", nsteps=800, fixed_buffers=fixed_buffers)
    model, key = Models().of(case.model)
    found = sweep_worker.run_case(case, key, model, sweep_worker.run_settings.versions())
    assert found["status"] == status
    assert found["error"] is None if told is None else told in found["error"]
    with Table(tmp_path / "table.jsonl") as table:
        table.append({"case": "a", **dataclasses.asdict(case), **found})
    assert read_rows(tmp_path / "table.jsonl")[0]["status"] == status


@pytest.mark.engine
def test_a_scene_that_lost_contacts_is_an_overflow_too(monkeypatch):
    monkeypatch.setattr(sweep_worker.display.console, "quiet", True)
    small = dataclasses.replace(sweep_worker.BY_NAME["resting box"], njmax=3)
    monkeypatch.setitem(sweep_worker.BY_NAME, "resting box", small)
    case = Case(scene="resting box", timestep=0.01)
    found = sweep_worker.run_case(case, "a", None, sweep_worker.run_settings.versions())
    assert found["status"] == "overflow"
    assert "njmax=3, needed at least" in found["error"]


def test_whether_buffers_are_fixed_is_a_setting_of_a_sweep():
    given = sweep.gather(None, {"model": PENDULA, "fixed_buffers": "true,false"})
    assert [case.fixed_buffers for case in expand(given)] == [True, False]
    with pytest.raises(SettingError, match="'yes' is no bool"):
        sweep.gather(None, {"model": PENDULA, "fixed_buffers": "yes"})
    with pytest.raises(SettingError, match="fixed_buffers: 1 is no bool"):
        expand({"model": PENDULA, "fixed_buffers": 1})
    with pytest.raises(SettingError, match="nworld: True is no int"):
        expand({"model": PENDULA, "nworld": True})
    assert len(expand({"scene": "grasp", "fixed_buffers": [True, False]})) == 1


def test_without_ray_the_line_that_installs_it_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(sweep.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SettingError, match=r"pip install 'comfree-warp\[sweep\]'"):
        sweep.require_ray(None)


@has_ray
@pytest.mark.alone
@pytest.mark.engine
def test_64_cases_on_two_cores_are_those_by_hand_bit_for_bit(tmp_path):
    path = tmp_path / "table.jsonl"
    seeds = ",".join(map(str, range(16)))
    flags = ["--model", f"{PENDULA},{HUMANOID}", "--engine", "mjc,comfree", "--seed", seeds]
    flags += ["--ctrl-noise", 0.5, "--nsteps", 100, "--cores", 2, "--table", path]
    done = run_sweep(*flags)
    assert done.returncode == 0, done.stderr
    rows = read_rows(path)
    assert len(rows) == len({row["case"] for row in rows}) == 64
    assert {row["status"] for row in rows} == {"done"}
    assert len({row["pid"] for row in rows}) == 2
    for engine in ("mjc", "comfree"):
        for model in (PENDULA, HUMANOID):
            case = next(it for it in rows if (it["engine"], it["model"]) == (engine, model))
            by_hand = headless(case, tmp_path)
            assert case["summary"]["state_sha256"] == by_hand["state_sha256"]
    assert len({row["summary"]["state_sha256"] for row in rows}) > 32  # seeds differ
    again = run_sweep(*flags)
    assert "64 of 64 cases" in " ".join(again.stdout.split())
    assert read_rows(path) == rows


EXPLODING = """<mujoco>
  <option timestep="0.002" gravity="0 0 0"><flag eulerdamp="disable"/></option>
  <worldbody>
    <body><joint type="slide" stiffness="1e7"/><geom size=".1" mass="1"/></body>
  </worldbody>
  <keyframe><key qpos="0.1"/></keyframe></mujoco>"""


@has_ray
@pytest.mark.alone
def test_cases_that_go_wrong_are_told_and_the_rest_carries_on(tmp_path):
    model = tmp_path / "exploding.xml"
    model.write_text(EXPLODING)
    (tmp_path / "sweep.toml").write_text(f"""
engine = "mjc"
model = "{PENDULA}"
[[cases]]
model = "{model}"
[[cases]]
device = "cuda:7"
engine = "comfree"
[[cases]]
nsteps = 100_000_000
[[cases]]
nsteps = 10
""")
    path = tmp_path / "table.jsonl"
    done = run_sweep(tmp_path / "sweep.toml", "--table", path, "--time-limit", 8, "--cores", 2)
    # A case for a GPU that the cluster lacks would wait for ever.
    assert done.returncode == 2
    assert "cuda:7" in done.stderr
    text = (tmp_path / "sweep.toml").read_text()
    (tmp_path / "sweep.toml").write_text(re.sub(r"\[\[cases\]\]\ndevice.*\nengine.*\n", "", text))
    done = run_sweep(tmp_path / "sweep.toml", "--table", path, "--time-limit", 8, "--cores", 2)
    assert done.returncode == 0, done.stderr
    found = {row["nsteps"]: row for row in read_rows(path)}
    assert found[1000]["status"] == "diverged"
    assert "diverged at step" in found[1000]["error"]
    assert found[100_000_000]["status"] == "timeout"
    assert found[100_000_000]["error"] == "stopped after 8 s"
    assert found[10]["status"] == "done"
    assert "2 of them not done" in " ".join(done.stdout.split())


def long_sweep(tmp_path: Path, ncase: int) -> list[object]:
    """Cases of about a second each."""
    seeds = ",".join(map(str, range(ncase)))
    flags = ["--model", HUMANOID, "--engine", "mjc", "--seed", seeds, "--ctrl-noise", 0.5]
    return [*flags, "--nsteps", 30_000, "--table", tmp_path / "table.jsonl"]


def wait_for_rows(path: Path, number: int, running: subprocess.Popen) -> None:
    deadline = time.monotonic() + 120
    while not path.exists() or path.read_text().count("\n") < number:
        assert running.poll() is None, running.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.1)


@has_ray
@pytest.mark.alone
@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGINT])
def test_a_sweep_that_was_stopped_goes_on_from_there(tmp_path, signum):
    flags = [*long_sweep(tmp_path, 8), "--cores", 2]
    path = tmp_path / "table.jsonl"
    with subprocess.Popen(
        command(*flags), cwd=REPOSITORY, env=environment(), stdout=subprocess.PIPE
    ) as running:
        wait_for_rows(path, 3, running)
        running.send_signal(signum)
        out, _ = running.communicate(timeout=60)
    before = read_rows(path)
    assert 3 <= len(before) < 8
    if signum == signal.SIGINT:
        assert running.returncode == 130
        assert b"the same command goes on from here" in out
    done = run_sweep(*flags)
    assert done.returncode == 0, done.stderr
    rows = read_rows(path)
    assert rows[: len(before)] == before
    assert len(rows) == len({row["case"] for row in rows}) == 8
    assert {row["status"] for row in rows} == {"done"}


class Hosts:
    """Two hosts of this test's own, in network namespaces that only reach each other."""

    addresses = ("10.77.1.1", "10.77.1.2")

    def __init__(self) -> None:
        self._names = [f"sweep-{os.getpid()}-{side}" for side in "ab"]

    def __enter__(self) -> "Hosts":
        one, other = self._names
        for name in self._names:
            self._ip("netns", "add", name)
        self._ip(
            *("link", "add", "sweep0", "netns", one, "type", "veth"),
            "peer",
            "sweep0",
            "netns",
            other,
        )
        for name, address in zip(self._names, self.addresses, strict=True):
            self._ip("-n", name, "addr", "add", f"{address}/24", "dev", "sweep0")
            for device in ("lo", "sweep0"):
                self._ip("-n", name, "link", "set", device, "up")
        return self

    def __exit__(self, *exception: object) -> None:
        for name in self._names:
            self._ip("netns", "del", name)

    @staticmethod
    def _ip(*arguments: str) -> None:
        subprocess.run(["ip", *arguments], check=True, capture_output=True)

    def on(self, host: int, *arguments: object) -> list[str]:
        """A command as it runs on one of them."""
        return ["ip", "netns", "exec", self._names[host], *map(str, arguments)]


def has_namespaces() -> bool:
    """Whether this user may make network namespaces."""
    if not shutil.which("ip"):
        return False
    made = subprocess.run(["ip", "netns", "add", "sweep-probe"], capture_output=True, check=False)
    if made.returncode == 0:
        subprocess.run(["ip", "netns", "del", "sweep-probe"], check=True)
    return made.returncode == 0


def signal_all(pids: list[int], signum: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signum)


@contextlib.contextmanager
def ray_node(command: list[str], folder: Path, token: str) -> Iterator[subprocess.Popen]:
    """A node of a cluster, with a working directory and a kernel cache of its own."""
    folder.mkdir()
    with (folder / "log").open("w") as log:
        node = subprocess.Popen(
            [*command, "--block", "--num-cpus=1", "--disable-usage-stats"],
            cwd=folder,
            env=environment(**cluster_environment(token), WARP_CACHE_PATH=str(folder / "cache")),
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            yield node
        finally:
            signal_all([node.pid, *(pid for pid, _ in children(node.pid))], signal.SIGKILL)
            node.wait()


def wait_for_nodes(status: list[str], number: int, token: str) -> None:
    """Until `ray status` lists so many."""
    deadline, told = time.monotonic() + 120, None
    while told is None or told.stdout.count(" node_") < number:
        assert time.monotonic() < deadline, told
        time.sleep(1)
        told = subprocess.run(
            status,
            env=environment(**cluster_environment(token)),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )


def cluster_environment(token: str) -> dict[str, str]:
    """What all programs of a cluster share, so that no others get in."""
    return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token, "RAY_USAGE_STATS_ENABLED": "0"}


def children(pid: int) -> list[tuple[int, str]]:
    """All processes below one, with their names."""
    found = []
    listed = subprocess.run(["ps", "-eo", "pid,ppid,args"], capture_output=True, text=True)
    parents = [line.split(None, 2) for line in listed.stdout.splitlines()[1:]]
    below = {pid}
    for _ in range(5):
        for child, parent, args in parents:
            if int(parent) in below and int(child) not in below:
                below.add(int(child))
                found.append((int(child), args))
    return found


@has_ray
@pytest.mark.alone
@pytest.mark.skipif(not has_namespaces(), reason="no network namespaces (root, Debian: iproute2)")
@pytest.mark.parametrize("victim", ["process", "node"])
def test_on_two_nodes_a_killed_worker_loses_and_repeats_no_case(tmp_path, victim):
    token = secrets.token_hex(32)
    path = tmp_path / "table.jsonl"
    with Hosts() as hosts, contextlib.ExitStack() as stack:
        here, there = hosts.addresses
        address = f"{here}:6399"
        head = [RAY, "start", "--head", "--port=6399", f"--node-ip-address={here}"]
        # Ray's sockets have room for a short path only.
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="ray-"))
        head += ["--include-dashboard=false", f"--temp-dir={folder}"]
        stack.enter_context(ray_node(hosts.on(0, *head), tmp_path / "head", token))
        status = hosts.on(0, RAY, "status", f"--address={address}")
        wait_for_nodes(status, 1, token)
        join = [RAY, "start", f"--address={address}", f"--node-ip-address={there}"]
        other = stack.enter_context(ray_node(hosts.on(1, *join), tmp_path / "other", token))
        wait_for_nodes(status, 2, token)
        running = subprocess.Popen(
            hosts.on(0, *command(*long_sweep(tmp_path, 12))),
            cwd=REPOSITORY,
            env=environment(**cluster_environment(token), RAY_ADDRESS=address),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        stack.callback(running.kill)
        wait_for_rows(path, 4, running)

        def below_other() -> list[int]:
            return [pid for pid, _ in children(other.pid)]

        def at_work() -> list[int]:
            return [pid for pid, args in children(other.pid) if "ray::_task" in args]

        def held_at_work() -> list[int]:
            """A stopped process cannot end its case before it is killed; one that has, goes on."""
            signal_all(at_work(), signal.SIGSTOP)
            held = at_work()
            signal_all([pid for pid in below_other() if pid not in held], signal.SIGCONT)
            return held

        wait_until(held_at_work, "the other node works on a case", 60.0)
        signal_all(below_other() if victim == "node" else at_work(), signal.SIGKILL)
        out, _ = running.communicate(timeout=200)
    assert running.returncode == 0, out
    assert "on 2 cores of 2 node(s)" in out
    rows = read_rows(path)
    assert len(rows) == len({row["case"] for row in rows}) == 12
    assert {row["status"] for row in rows} == {"done"}
    assert max(row["attempts"] for row in rows) == 2
