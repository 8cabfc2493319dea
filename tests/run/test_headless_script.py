"""test_headless.py as its users run it: in a process of its own, from flags and variables."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from mjsim import choices
from mjsim.model.files import REPOSITORY

PENDULA = "benchmark/test_data/pendula.xml"
SUMMARY_KEYS = {
    "name",
    "engine",
    "device",
    "model",
    "nworld",
    "nsteps",
    "steps_per_second",
    "realtime_factor",
    "compile_seconds",
    "run_seconds",
    "contacts",
    "diverged",
    "versions",
}

DIVERGING = """
<mujoco>
  <option><flag eulerdamp="disable"/></option>
  <worldbody>
    <body><joint type="slide" stiffness="1e9"/><geom size=".1" mass="1"/></body>
  </worldbody>
  <keyframe><key qpos="0.1"/></keyframe>
</mujoco>
"""


def environment(**variables: str) -> dict[str, str]:
    ours = ("MJSIM_", "MJSTREAM_", "COMFREE_", "WARP_DEVICE")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return kept | {"MJSTREAM_PORT": "0"} | variables


def headless(*arguments: str, cwd=REPOSITORY, **variables: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, str(REPOSITORY / "test_headless.py"), *arguments],
        cwd=cwd,
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=300,
    )


def run_with_summary(tmp_path, *arguments: str, **variables: str) -> dict:
    path = tmp_path / "summary.json"
    done = headless("--json", str(path), *arguments, **variables)
    assert done.returncode == 0, done.stderr
    return json.loads(path.read_text())


@pytest.mark.engine
@pytest.mark.parametrize("engine", ["mjc", "mjwarp", "comfree"])
def test_a_run_ends_with_status_0_and_a_summary(engine, tmp_path):
    summary = run_with_summary(tmp_path, "--engine", engine, "--model", PENDULA, "--nsteps", "50")
    assert summary.keys() >= SUMMARY_KEYS
    assert (summary["engine"], summary["nsteps"], summary["diverged"]) == (engine, 50, 0)
    assert summary["name"] == choices.engine_name(engine)
    assert summary["steps_per_second"] > 0


ON_A_TABLE = """
<mujoco>
  <worldbody>
    <geom type="box" size=".4 .4 .025"/>
    <body><freejoint/><geom type="ellipsoid" size=".03 .03 .05"/></body>
  </worldbody>
  <keyframe><key qpos="0 0 0.05482526 .70710677 .70710677 0 0"/></keyframe>
</mujoco>
"""


@pytest.mark.engine
def test_the_summary_tells_of_convex_collisions_that_were_done_again(tmp_path):
    model, path = tmp_path / "egg.xml", tmp_path / "summary.json"
    model.write_text(ON_A_TABLE)
    arguments = ("--engine", "mjwarp", "--model", str(model), "--nsteps", "1")
    done = headless("--json", str(path), *arguments)
    assert done.returncode == 0, done.stderr
    assert json.loads(path.read_text())["repairs"] == 1
    assert "done again because MuJoCo Warp's answer was impossible: 1\n" in done.stderr


@pytest.mark.engine
@pytest.mark.parametrize("engine", ["mjwarp", "comfree"])
def test_a_model_that_mujoco_warp_would_get_wrong_ends_in_one_line_and_status_2(engine, tmp_path):
    model = tmp_path / "model.xml"
    model.write_text("""
      <mujoco>
        <option actuatorgroupdisable="3"/>
        <worldbody><body><joint name="j"/><geom size=".1"/></body></worldbody>
        <actuator><motor name="drive" joint="j" group="3"/></actuator>
      </mujoco>""")
    done = headless("--engine", engine, "--model", str(model))
    assert done.returncode == 2
    assert "disables actuator 'drive'" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_flag_wins_over_a_variable_and_a_variable_over_the_default(tmp_path):
    variables = {"MJSIM_ENGINE": "0", "MJSIM_MODEL": PENDULA, "MJSIM_NSTEPS": "7"}
    summary = run_with_summary(tmp_path, **variables)
    assert (summary["engine"], summary["model"], summary["nsteps"]) == ("mjc", PENDULA, 7)
    assert run_with_summary(tmp_path, "--nsteps", "3", **variables)["nsteps"] == 3


@pytest.mark.engine
@pytest.mark.parametrize(
    ("arguments", "variables", "law"),
    [
        (["--law=paper"], {"COMFREE_STIFFNESS": "0.1"}, "paper"),
        (["--law=warm", "--passes=2"], {}, "warm"),
        (["--law=warm"], {"COMFREE_LAW": "paper", "COMFREE_PASSES": "2"}, "warm"),
        (["--engine=comfree:warm"], {}, "warm"),
        (["--engine=comfree:warm"], {"MJSIM_ENGINE": "mjc", "COMFREE_LAW": "warm"}, "warm"),
        ([], {"MJSIM_ENGINE": "comfree:paper"}, "paper"),
    ],
)
def test_the_law_is_chosen_by_flags_and_variables(arguments, variables, law, tmp_path):
    arguments = ["--model", PENDULA, "--nsteps=5", *arguments]
    assert run_with_summary(tmp_path, *arguments, **variables)["law"] == law


def test_several_worlds_of_mjc_run_at_once(tmp_path):
    summary = run_with_summary(
        tmp_path, "--engine=mjc", "--model", PENDULA, "--nsteps=20", "--nworld=8"
    )
    assert summary["nworld"] == 8
    rate = summary["nsteps"] * 8 / summary["run_seconds"]
    assert summary["steps_per_second"] == pytest.approx(rate)


@pytest.mark.parametrize(
    ("arguments", "variables", "told"),
    [
        (["--engine", "bullet"], {}, "--engine: 'bullet' is no engine; allowed: mjc (0), "),
        (["--model", "no/such.xml"], {}, "--model: 'no/such.xml' is no file; looked for "),
        ([], {"MJSIM_MODEL": "no/such.xml"}, "MJSIM_MODEL: 'no/such.xml' is no file"),
        (["--device", "cuda:77"], {}, "--device: 'cuda:77' is not here; available: cpu"),
        (["--nsteps", "many"], {}, "--nsteps: 'many' is not a valid integer"),
        ([], {"MJSIM_NWORLD": "0"}, "MJSIM_NWORLD: 0 is not in the range x>=1"),
        (["--stiffness", "0.2,x"], {}, "--stiffness: '0.2,x' is no number or comma-separated"),
        ([], {"COMFREE_DAMPING": "-1"}, "COMFREE_DAMPING: refused by comfree: comfree_damping"),
        (["--law", "cold"], {}, "--law: 'cold' is not one of 'paper', 'warm'"),
        ([], {"COMFREE_PASSES": "5"}, "COMFREE_PASSES: 5 is not in the range 1<=x<=4"),
        (["--passes", "2"], {}, "--passes: 2 is of no use to comfree:paper, only to comfree:warm"),
        (["--law=warm", "--stiffness=1"], {}, "--stiffness: 1.0 is of no use to comfree:warm"),
        (["--damping=1"], {"COMFREE_LAW": "warm"}, "--damping: 1.0 is of no use to comfree:warm"),
        (["--engine=mjc", "--law=warm"], {}, "--law: warm is of no use to mjc, only to comfree:"),
        (["--engine=mjc"], {"COMFREE_LAW": "warm"}, "COMFREE_LAW: warm is of no use to mjc"),
        (["--engine=mjc", "--nconmax=9"], {}, "--nconmax: 9 is of no use to mjc, only to mjwarp,"),
        (["--engine=1"], {"COMFREE_STIFFNESS": ".1,.2"}, "COMFREE_STIFFNESS: 0.1,0.2 is of no use"),
        (["--engine=comfree:warm", "--law=paper"], {}, "--law: 'paper', and the engine is comfree"),
        (["--engine=comfree:warm"], {"COMFREE_LAW": "paper"}, "COMFREE_LAW: 'paper', and the"),
        (["--engine=comfree:cold"], {}, "--engine: 'comfree:cold' is no engine; allowed: mjc (0)"),
        (["--json", "/no/such/x.json"], {}, "--json: '/no/such/x.json' cannot be written"),
        ([], {"WARP_CACHE_PATH": "/proc/none"}, "WARP_CACHE_PATH: kernels cannot be kept in /proc"),
        (["--engin", "mjc"], {}, "No such option '--engin'"),
    ],
)
def test_wrong_use_is_one_line_that_names_the_setting_and_status_2(arguments, variables, told):
    done = headless(*arguments, **variables)
    assert done.returncode == 2
    assert done.stdout == ""
    assert told in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("test_headless.py: ")


def test_a_model_that_does_not_compile_is_wrong_use(tmp_path):
    path = tmp_path / "broken.xml"
    path.write_text("<mujoco>\n<nonsense/>\n</mujoco>")
    done = headless("--model", str(path))
    assert done.returncode == 2
    assert "does not compile: XML Error" in done.stderr
    assert done.stderr.count("\n") == 1


def test_divergence_is_status_1_and_told_with_world_step_and_time(tmp_path):
    path = tmp_path / "diverging.xml"
    path.write_text(DIVERGING)
    report = tmp_path / "summary.json"
    arguments = ("--engine=mjc", "--model", str(path), "--json", str(report), "--nworld=2")
    done = headless(*arguments, cwd=tmp_path)
    assert done.returncode == 1
    assert "world 0 diverged at step " in done.stderr.splitlines()[-1]
    summary = json.loads(report.read_text())
    assert summary["diverged"] == 2
    assert summary["first_divergence"]["step"] < 20


LANDING = """
<mujoco><worldbody>
  <geom type="plane" size="5 5 .1"/>
  <body pos="0 0 .11"><freejoint/><geom type="box" size=".1 .1 .1"/></body>
</worldbody></mujoco>
"""


@pytest.mark.engine
def test_lost_contacts_are_status_3_and_buffers_that_grow_lose_none(tmp_path):
    model, report = tmp_path / "landing.xml", tmp_path / "summary.json"
    model.write_text(LANDING)
    arguments = ["--model", str(model), "--nsteps=100", "--json", str(report), "--nconmax=2"]
    done = headless(*arguments)
    assert done.returncode == 0, done.stderr
    line = "comfree:paper on cpu: step 24 has more contacts or close pairs of geoms than nconmax=2 "
    assert done.stderr.count(line) == 1
    summary = json.loads(report.read_text())
    assert len(summary["grown"]) == 1
    assert summary["overflow"] == []

    done = headless(*arguments, MJSIM_FIXED_BUFFERS="1")
    assert done.returncode == 3
    last = done.stderr.splitlines()[-1]
    assert last.startswith("test_headless.py: contacts are lost: nconmax=2, needed at least 4")
    summary = json.loads(report.read_text())
    assert summary["grown"] == []
    assert len(summary["overflow"]) >= 1


def test_the_last_line_repeats_what_went_wrong(small_disk, tmp_path):
    """A recording that a full disk ended, and a summary that did not fit either."""
    report = small_disk / "summary.json"
    arguments = ("--engine=mjc", "--model", PENDULA, "--nsteps=3000", "--record-hz=0")
    done = headless("--record", str(small_disk / "run.mcap"), "--json", str(report), *arguments)
    told = done.stderr.splitlines()
    assert done.returncode == 1
    assert told[-1].startswith(
        f"test_headless.py: the recording '{small_disk}/run.mcap' ends after "
    )
    assert f"; the summary is not in '{report}': No space left on device" in told[-1]
    assert not list(small_disk.glob("summary*"))


def test_the_summary_has_what_went_wrong(small_disk, tmp_path):
    arguments = ("--engine=mjc", "--model", PENDULA, "--nsteps=3000", "--record-hz=0")
    summary = run_with_summary(tmp_path, "--record", str(small_disk / "run.mcap"), *arguments)
    (problem,) = summary["problems"]
    assert problem.endswith("No space left on device")
    assert summary["recording"]["problem"] == "No space left on device"


@pytest.mark.engine
def test_the_last_line_repeats_that_contacts_were_lost():
    model = "benchmark/test_data/primitives.xml"
    done = headless(
        "--model", model, "--nsteps=20", "--nconmax=4", "--njmax=600", "--fixed-buffers"
    )
    assert done.returncode == 3
    assert done.stderr.splitlines()[-1].startswith("test_headless.py: contacts are lost: nconmax=4")


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_run_with_the_summary_of_what_was_run(signum, tmp_path):
    report = tmp_path / "summary.json"
    arguments = ["--engine=mjc", "--model", PENDULA, "--nsteps=2000000000", "--json", str(report)]
    process = subprocess.Popen(
        [sys.executable, "test_headless.py", *arguments],
        cwd=REPOSITORY,
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr.readline().startswith("mjc on cpu: 2,000,000,000 steps of 1 world of ")
    time.sleep(1)
    process.send_signal(signum)
    _, told = process.communicate(timeout=30)
    assert process.returncode == 128 + signum
    assert "Traceback" not in told
    assert f"ended by {signum.name}" in told
    summary = json.loads(report.read_text())
    assert 0 < summary["nsteps"] < 2000000000
    assert summary["stopped_by"] == signum.name


@pytest.mark.engine
def test_ctrl_c_while_kernels_compile_ends_without_a_traceback(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "test_headless.py", "--model", PENDULA],
        cwd=REPOSITORY,
        env=environment(WARP_CACHE_PATH=str(tmp_path)),
        stderr=subprocess.PIPE,
        text=True,
    )
    first = process.stderr.readline()
    assert first.startswith("compiling kernels, first run only: ")
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=120)
    assert process.returncode == 130
    assert told.strip() == "interrupted"


@pytest.mark.engine
def test_a_disk_that_is_too_full_for_kernels_is_wrong_use(small_disk):
    done = headless("--model", PENDULA, WARP_CACHE_PATH=str(small_disk))
    assert done.returncode == 2
    assert f"WARP_CACHE_PATH: kernels cannot be kept in {small_disk}" in done.stderr
    assert "16 MB to spare" in done.stderr
    assert done.stderr.count("\n") == 1


def test_help_lists_every_flag_with_its_variable():
    told = headless("--help").stdout
    for flag, variable in (
        ("--engine", "MJSIM_ENGINE"),
        ("--model", "MJSIM_MODEL"),
        ("--nsteps", "MJSIM_NSTEPS"),
        ("--nworld", "MJSIM_NWORLD"),
        ("--njmax", "MJSIM_NJMAX"),
        ("--nconmax", "MJSIM_NCONMAX"),
        ("--fixed-buffers", "MJSIM_FIXED_BUFFERS"),
        ("--device", "WARP_DEVICE"),
        ("--stiffness", "COMFREE_STIFFNESS"),
        ("--damping", "COMFREE_DAMPING"),
        ("--law", "COMFREE_LAW"),
        ("--passes", "COMFREE_PASSES"),
        ("--ctrl-noise", "MJSIM_CTRL_NOISE"),
        ("--seed", "MJSIM_SEED"),
        ("--host", "MJSTREAM_HOST"),
        ("--port", "MJSTREAM_PORT"),
        ("--json", "--json FILE"),
        ("--record FILE", "MJSIM_RECORD"),
        ("--record-hz", "MJSIM_RECORD_HZ"),
        ("--no-dump", "MJSIM_DUMP"),
    ):
        assert flag in told
        assert variable in told


def test_the_script_runs_from_any_directory(tmp_path):
    done = headless("--engine=mjc", "--nsteps=1", "--model", PENDULA, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
