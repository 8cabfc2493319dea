"""The repository around the code: its targets, its README, its distribution."""

import ast
import os
import re
import shlex
import subprocess
import sys
import zipfile

import pytest
import warp as wp

import engines
from engines import REPOSITORY

README = (REPOSITORY / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def run(command: list[str], **variables: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        command,
        cwd=REPOSITORY,
        env=os.environ | variables,
        capture_output=True,
        text=True,
        timeout=600,
    )


COMMANDS = [
    line.partition("#")[0].strip() for block in blocks("bash") for line in block.splitlines()
]
PROGRAMS = [command for command in COMMANDS if "python test_headless.py" in command]
TARGETS = [command for command in COMMANDS if command.startswith("make")]
# Run by test_local_viewer.py and test_tunnel.py.
WATCHING = [
    command for command in COMMANDS if command.startswith(("python local_viewer.py", "ssh -N -L"))
]


def test_every_command_of_the_readme_is_known_here():
    assert [each for each in COMMANDS if each and each not in PROGRAMS + TARGETS + WATCHING] == []
    assert len(PROGRAMS) >= 3


@pytest.mark.engine
@pytest.mark.parametrize("command", PROGRAMS)
def test_the_readmes_programs_run(command, tmp_path):
    if "cuda" in command and not wp.is_cuda_available():
        pytest.skip("no CUDA device on this machine")
    for file in ("summary.json", "run.mcap"):
        command = command.replace(file, str(tmp_path / file))
    words = shlex.split(command)
    variables = {}
    while "=" in words[0]:
        name, _, value = words.pop(0).partition("=")
        variables[name] = value
    words[0] = sys.executable
    done = run([*words, "--nsteps=2", "--port=0"], **variables)
    assert done.returncode == 0, done.stderr


@pytest.mark.engine
@pytest.mark.parametrize("program", blocks("python"), ids=["recording", "comfree_warp", "engines"])
def test_the_readmes_python_runs(program, tmp_path):
    program = program.replace("run.mcap", str(tmp_path / "run.mcap"))
    done = run([sys.executable, "-c", program])
    assert done.returncode == 0, done.stderr
    assert done.stdout


@pytest.mark.parametrize("command", TARGETS)
def test_the_readmes_make_targets_exist(command):
    assert run([*shlex.split(command), "--dry-run"]).returncode == 0


def test_make_alone_lists_the_targets_with_a_line_each():
    listed = run(["make"]).stdout
    for target in ("venv", "run", "test", "doctor", "lint", "clean"):
        assert re.search(rf"^  {target} +\S", listed, re.MULTILINE)


def test_the_readme_lists_every_setting_with_its_default():
    source = (REPOSITORY / "settings.py").read_text() + (
        REPOSITORY / "test_headless.py"
    ).read_text()
    for variable in re.findall(r'"((?:MJSIM|MJSTREAM|COMFREE|WARP)_[A-Z_]+)"', source):
        assert f"`{variable}`" in README


def test_the_readme_lists_every_model():
    for path in (REPOSITORY / "benchmark" / "test_data").rglob("*.xml"):
        if path.name != "humanoid_body.xml":  # a part of the humanoids
            assert f"`{path.relative_to(REPOSITORY / 'benchmark' / 'test_data')}`" in README


def test_pytest_never_collects_the_programs():
    done = run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", "."]
    )
    assert "tests/test_io.py" in done.stdout
    assert not re.search(r"^(test_(headless|viewer)\.py|benchmark/)", done.stdout, re.MULTILINE)


def test_the_distribution_holds_the_package_alone(tmp_path):
    done = run([sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(tmp_path), "."])
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("comfree_warp-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        tops = {name.split("/")[0] for name in archive.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"comfree_warp"}


def test_modules_import_downwards_only():
    scripts = {"test_headless", "test_viewer", "local_viewer", "doctor", "display"} | {
        "settings",
        "run_settings",
    }
    streams = {"streaming", "stream_model", "protocol", "broadcast", "viewing", "recording"}
    above = {
        "engines.py": scripts | streams | {"benchmark", "dump"},
        "recent.py": scripts | streams | {"engines", "comfree_warp", "benchmark", "dump"},
        "recording.py": scripts | {"engines", "comfree_warp", "streaming", "broadcast", "viewing"},
        "streaming.py": scripts | {"engines", "comfree_warp", "broadcast", "viewing", "benchmark"},
        "protocol.py": scripts | {"engines", "comfree_warp", "streaming", "stream_model"},
        **{
            str(path.relative_to(REPOSITORY)): scripts | streams | {"engines", "benchmark"}
            for path in (REPOSITORY / "comfree_warp").glob("*.py")
        },
    }
    for name, forbidden in above.items():
        for node in ast.walk(ast.parse((REPOSITORY / name).read_text())):
            if isinstance(node, ast.Import | ast.ImportFrom):
                modules = [alias.name for alias in node.names]
                if isinstance(node, ast.ImportFrom):
                    modules = [node.module or ""]
                assert not {module.split(".")[0] for module in modules} & forbidden


def test_doctor_reports_what_this_machine_can_do():
    done = run([sys.executable, "doctor.py"])
    assert done.returncode == 0
    for subject in ("Python", "mujoco-warp", "warp-lang", "device cpu", "kernel cache", "GL EGL"):
        assert subject in done.stdout
    if "cuda:0" not in [device.alias for device in wp.get_devices()]:
        assert "-> install the NVIDIA driver" in done.stdout


def test_the_models_compile():
    for path in (REPOSITORY / "benchmark" / "test_data").rglob("*.xml"):
        engines.load_model(path)
