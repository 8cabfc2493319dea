"""The repository around the code: its targets, its layers, its distribution."""

import ast
import itertools
import os
import re
import shutil
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import warp as wp

from mjsim import engines
from mjsim.cli import doctor
from mjsim.model.files import REPOSITORY


def run(
    command: list[str], folder: Path = REPOSITORY, **variables: str
) -> subprocess.CompletedProcess:
    return subprocess.run(
        command,
        cwd=folder,
        env=os.environ | variables,
        capture_output=True,
        text=True,
        timeout=600,
    )


def test_make_alone_lists_the_targets_with_a_line_each():
    listed = run(["make"]).stdout
    for target in ("venv", "run", "test", "doctor", "lint", "clean"):
        assert re.search(rf"^  {target} +\S", listed, re.MULTILINE)


def test_pytest_never_collects_the_programs():
    done = run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", "."]
    )
    assert "tests/comfree_warp/test_io.py" in done.stdout
    assert not re.search(r"^(test_(headless|viewer)\.py|benchmark/)", done.stdout, re.MULTILINE)


def test_the_distribution_holds_the_package_alone(tmp_path):
    done = run([sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(tmp_path), "."])
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("comfree_warp-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        tops = {name.split("/")[0] for name in archive.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"comfree_warp"}


# From the bottom up. A module imports from layers below its own, never from its own.
LAYERS = (
    {"comfree_warp"},
    {"mjsim"},
    {"gl", "protocol", "settings", "stop_signals", "viewing"},
    {"stream_model", "offscreen", "side_by_side", "watch_settings"},
    {"streaming", "recording", "window", "web_page"},
    {"broadcast", "display", "view_settings", "replay_settings", "run_settings", "replay"},
    {"watch", "session", "dump", "video", "headless_settings", "interactive_settings"},
    {"headless", "interactive", "variables"},
    {"test_headless", "test_viewer", "local_viewer", "doctor"},
)


def test_modules_import_downwards_only():
    modules = {path.stem for path in REPOSITORY.glob("*.py")} - {"conftest"}
    assert modules | {"comfree_warp", "mjsim"} == set().union(*LAYERS)
    for number, layer in enumerate(LAYERS):
        below = set().union(*LAYERS[:number])
        for module in layer:
            for path in sources(module):
                assert imports(path) & (set().union(*LAYERS) - {module}) <= below, path


def sources(module: str) -> list[Path]:
    package = REPOSITORY / module
    return list(package.rglob("*.py")) if package.is_dir() else [package.with_suffix(".py")]


def imports(path: Path) -> set[str]:
    """The names of the modules that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add(node.module.partition(".")[0])
    return found


def test_a_machine_that_only_watches_needs_no_warp():
    code = "import sys, watch, replay, window; sys.exit('warp' in sys.modules)"
    assert run([sys.executable, "-c", code]).returncode == 0


def test_doctor_reports_what_this_machine_can_do():
    done = run([sys.executable, "doctor.py"])
    assert done.returncode == 0
    for subject in ("Python", "mujoco-warp", "warp-lang", "device cpu", "kernel cache", "GL EGL"):
        assert subject in done.stdout
    if "cuda:0" not in [device.alias for device in wp.get_devices()]:
        assert "-> install the NVIDIA driver" in done.stdout


def test_doctor_names_the_variable_of_a_cache_that_cannot_be_written():
    done = run([sys.executable, "doctor.py"], WARP_CACHE_PATH="/proc/none")
    assert done.returncode == 1
    assert "-> set WARP_CACHE_PATH to another folder" in done.stdout


def test_doctor_reports_that_warp_cannot_be_imported(tmp_path):
    (tmp_path / "warp.py").write_text("raise ImportError('no wheel for this machine')")
    done = run([sys.executable, "doctor.py"], PYTHONPATH=str(tmp_path))
    assert done.returncode == 1
    assert "does not start: no wheel for this machine" in done.stdout


def test_doctor_counts_the_modules_of_a_cache_in_which_others_compile(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "kernel.o").write_bytes(bytes(1_000_000))
    ended = threading.Event()

    def compile_on() -> None:
        for number in itertools.count():
            if ended.is_set():
                break
            module = tmp_path / f"three_p1_t{number}"
            module.mkdir()
            (module / "kernel.o").write_bytes(b"")
            shutil.rmtree(module)

    compiler = threading.Thread(target=compile_on)
    compiler.start()
    try:
        for _ in range(300):
            found = doctor.cache_finding(tmp_path)
            assert found.state[1:] == f" modules, 2 MB in {tmp_path}"
            assert found.state[0] in "23"
    finally:
        ended.set()
        compiler.join()


def test_the_models_compile():
    for path in (REPOSITORY / "benchmark" / "test_data").rglob("*.xml"):
        engines.load_model(path)
