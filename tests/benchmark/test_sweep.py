"""Sweeps on this machine: what a worker does, and that every case is run once, whatever happens."""

import dataclasses
import json
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from programs import printed_lines
from sweep_programs import (
    HUMANOID,
    PENDULA,
    command,
    environment,
    has_ray,
    long_sweep,
    run_sweep,
    wait_for_rows,
)

from benchmark.sweep import cluster
from benchmark.sweep import worker as sweep_worker
from benchmark.sweep.cases import Case, Models
from benchmark.sweep.table import CaseTable, read_rows
from mjsim.errors import SettingError
from mjsim.model.files import REPOSITORY


def test_a_sweep_takes_the_cores_that_it_may_use():
    """Not those of the machine: of two, one under taskset."""
    code = (
        "import os, contextlib\n"
        "os.sched_setaffinity(0, list(os.sched_getaffinity(0))[:1])\n"
        "from benchmark.sweep import cluster\n"
        "class Ray:\n"
        "    exceptions = type('exceptions', (), {'RayError': OSError})\n"
        "    def init(self, **given): print(given['num_cpus'])\n"
        "    def shutdown(self): ...\n"
        "for cores in (None, 3):\n"
        "    with cluster.cluster(Ray(), None, cores): pass\n"
    )
    assert printed_lines(code) == ["1", "3"]


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


def test_packages_are_sent_whole_but_for_caches_and_results():
    with cluster.shipped_code() as folder:
        sent = {str(path.relative_to(folder)) for path in Path(folder).rglob("*")}
    modules = [
        str(path.relative_to(REPOSITORY))
        for package in cluster.SHIPPED
        for path in (REPOSITORY / package).rglob("*.py")
    ]
    assert sent.issuperset(modules)
    assert sent.issuperset([PENDULA, "comfree_warp/README.md"])
    assert [name for name in sent if "__pycache__" in name or "benchmark/results" in name] == []


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
    with CaseTable(tmp_path / "table.jsonl") as table:
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


def test_without_ray_the_line_that_installs_it_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(cluster.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SettingError, match=r"pip install 'comfree-warp\[sweep\]'"):
        cluster.require_ray(None)


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
