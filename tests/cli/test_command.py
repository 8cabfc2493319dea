"""The command `mjsim`: its help, its names in messages, and that it starts light."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from recordings import record_swinging
from watching import free_port, streaming_scene

from mjsim.cli.command import make_group
from mjsim.model.files import MODELS, REPOSITORY, find_file

SUBCOMMANDS = ("run", "view", "watch", "replay", "video", "doctor")
HEAVY = ("warp", "mujoco_warp", "comfree_warp", "mujoco", "numpy", "viser", "mcap", "rich.console")
LOADED = """
import atexit, sys
atexit.register(lambda: print("loaded:", *sys.modules))
from mjsim.__main__ import main
main()
"""


def mjsim(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mjsim", *arguments],
        cwd=folder,
        env={"PYTHONPATH": str(REPOSITORY), "PATH": "/usr/bin:/bin", **variables},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize(
    "arguments", [["--help"], ["runn"], *([name, "--help"] for name in SUBCOMMANDS)], ids=" ".join
)
def test_help_and_wrong_use_load_neither_mujoco_nor_warp(arguments, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", LOADED, *arguments],
        env={"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
    )
    loaded = done.stdout.partition("loaded: ")[2].split()
    assert "mjsim.cli.command" in loaded
    assert set(loaded).isdisjoint(HEAVY)


def test_help_lists_the_subcommands_and_how_the_shell_completes_them(tmp_path):
    done = mjsim(tmp_path, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    for name in SUBCOMMANDS:
        assert f"\n  {name} " in done.stdout
    for shell in ("bash", "zsh", "fish"):
        assert f"_MJSIM_COMPLETE={shell}_source mjsim" in done.stdout


def test_the_shell_completes_subcommands_flags_and_choices(tmp_path):
    def completed(words: str) -> set[str]:
        count = str(len(words.split(" ")) - 1)
        asked = {"_MJSIM_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": count}
        done = mjsim(tmp_path, **asked)
        return {line.partition(",")[2] for line in done.stdout.splitlines()}

    assert completed("mjsim ") >= set(SUBCOMMANDS)
    assert completed("mjsim run --nw") == {"--nworld"}
    assert completed("mjsim view --backend ") == {"native", "web", "none"}


def test_without_a_subcommand_it_shows_its_help_with_status_2(tmp_path):
    done = mjsim(tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("Usage: mjsim [OPTIONS] COMMAND [ARGS]...")


def test_its_version_is_that_of_the_distribution(tmp_path):
    version = (REPOSITORY / "comfree_warp" / "_version.py").read_text().split('"')[-2]
    assert mjsim(tmp_path, "--version").stdout == f"mjsim {version}\n"


def test_the_console_script_is_this_command():
    assert 'mjsim = "mjsim.__main__:main"' in (REPOSITORY / "pyproject.toml").read_text()
    assert set(make_group().commands) == set(SUBCOMMANDS)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["runn"], "mjsim: No such command 'runn'. Did you mean 'run'?"),
        (["run", "--model=no.xml"], "mjsim run: --model: 'no.xml' is no file; looked for "),
        (["run", "--engine=bullet"], "mjsim run: --engine: 'bullet' is no engine; allowed: "),
        (["view", "--compare=mjc"], "mjsim view: --compare: 'mjc' is not two engines or more"),
        (["watch", "--port=0"], "mjsim watch: --port: 0 is not in the range 1<=x<=65535."),
        (["watch", "--replay=x"], "mjsim watch: No such option"),
        (["replay"], "mjsim replay: Missing argument 'FILE'."),
        (["replay", "no.mcap"], "mjsim replay: FILE: no.mcap: No such file or directory"),
        (["video", "no.mcap", "no.avi"], "mjsim video: OUT: 'no.avi' is no video file"),
        (["doctor", "now"], "mjsim doctor: Got unexpected extra argument (now)"),
    ],
)
def test_wrong_use_is_one_line_with_the_names_of_command_and_setting(arguments, told, tmp_path):
    done = mjsim(tmp_path, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(told)
    assert done.stderr.endswith("(see --help)\n")
    assert done.stderr.count("\n") == 1


def test_a_file_of_the_environment_is_named_by_its_variable(tmp_path):
    done = mjsim(tmp_path, "replay", MJREPLAY_FILE="no.mcap")
    assert done.stderr.startswith("mjsim replay: MJREPLAY_FILE: no.mcap: No such file")


def test_run_takes_the_names_of_the_models_that_come_with_it(tmp_path):
    wanted = MODELS / "humanoid" / "humanoid.xml"
    for name in ("humanoid/humanoid.xml", "benchmark/test_data/humanoid/humanoid.xml"):
        assert find_file(name).resolve() == wanted
        arguments = ("--engine=mjc", "--port=0", "--nsteps=5", "--json=out.json")
        done = mjsim(tmp_path, "run", "--model", name, *arguments)
        assert done.returncode == 0, done.stderr
        assert json.loads((tmp_path / "out.json").read_text())["model"] == name


def test_the_last_line_of_a_run_begins_with_its_name(tmp_path):
    (tmp_path / "stiff.xml").write_text(
        '<mujoco><option><flag eulerdamp="disable"/></option><worldbody><body>'
        '<joint type="slide" stiffness="1e9"/><geom size=".1" mass="1"/></body></worldbody>'
        '<keyframe><key qpos="0.1"/></keyframe></mujoco>'
    )
    arguments = ("--engine=mjc", "--model=stiff.xml", "--port=0", "--no-dump")
    done = mjsim(tmp_path, "run", *arguments)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("mjsim run: world 0 diverged at step")


def test_watch_shows_a_stream_and_says_under_its_name_what_happens(tmp_path):
    (tmp_path / "ball.xml").write_text(
        '<mujoco model="ball"><worldbody><body><freejoint/><geom size=".1"/></body></worldbody>'
        "</mujoco>"
    )
    port = free_port()
    with streaming_scene(tmp_path / "ball.xml", port) as server:
        watch = subprocess.Popen(
            [sys.executable, "-m", "mjsim", "watch", f"--port={port}", "--backend=none", "--once"],
            cwd=tmp_path,
            env={"PYTHONPATH": str(REPOSITORY)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert "frames/s" in watch.stdout.readline()
        server.stop_connection()
        _, errors = watch.communicate(timeout=60)
    assert watch.returncode == 0
    assert errors == "mjsim watch: connected: ball, 2 bodies\n"


def test_replay_plays_a_recording_to_its_end(tmp_path):
    record_swinging(tmp_path / "run.mcap", 1.5)
    done = mjsim(tmp_path, "replay", "run.mcap", "--backend=none")
    assert (done.returncode, done.stderr) == (0, "")
    assert "of 1.50 s" in done.stdout


def test_video_renders_a_recording(tmp_path):
    record_swinging(tmp_path / "run.mcap", 0.2)
    done = mjsim(tmp_path, "video", "run.mcap", "run.gif", "--size=64x48", "--fps=10")
    if "cannot render here" in done.stderr:
        pytest.skip("neither EGL nor OSMesa works on this machine")
    assert done.returncode == 0, done.stderr
    assert "mjsim video: run.gif: 2 of 2 frames" in done.stderr
    assert (tmp_path / "run.gif").read_bytes().startswith(b"GIF8")
