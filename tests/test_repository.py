"""The repository around the code: its targets, its layers, its distribution."""

import ast
import graphlib
import re
import subprocess
import sys
import zipfile
from collections.abc import Collection
from pathlib import Path

import pytest
from programs import finished

from mjsim import engines
from mjsim.model.files import REPOSITORY


def test_make_alone_lists_the_targets_with_a_line_each():
    listed = finished(["make"]).stdout
    for target in ("venv", "run", "test", "doctor", "lint", "clean"):
        assert re.search(rf"^  {target} +\S", listed, re.MULTILINE)


def test_pytest_never_collects_the_programs():
    done = finished(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", "."]
    )
    assert "tests/comfree_warp/test_io.py" in done.stdout
    assert not re.search(r"^(test_(headless|viewer)\.py|benchmark/)", done.stdout, re.MULTILINE)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the wheel would install."""
    folder = tmp_path_factory.mktemp("installed")
    wheels = str(tmp_path_factory.mktemp("wheels"))
    done = finished([sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", wheels, "."])
    assert done.returncode == 0, done.stderr
    (wheel,) = Path(wheels).glob("comfree_warp-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def test_the_distribution_holds_both_packages_typed_and_the_models(installed):
    tops = {path.name for path in installed.iterdir() if path.suffix != ".dist-info"}
    assert tops == {"comfree_warp", "mjsim"}
    for package in tops:
        assert (installed / package / "py.typed").is_file()
        here = {path.relative_to(REPOSITORY) for path in (REPOSITORY / package).rglob("*.py")}
        assert {path.relative_to(installed) for path in (installed / package).rglob("*.py")} == here
    ours, theirs = REPOSITORY / "benchmark" / "test_data", installed / "mjsim/model/test_data"
    assert {path.relative_to(theirs) for path in theirs.rglob("*.xml")} == {
        path.relative_to(ours) for path in ours.rglob("*.xml")
    }


def test_what_is_installed_runs_its_models_without_a_clone(installed, tmp_path):
    def mjsim_run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "mjsim", "run", "--engine=mjc", "--port=0", "--nsteps=2"]
        return finished([*command, *arguments], tmp_path, PYTHONPATH=str(installed))

    for arguments in ([], ["--model=humanoid/humanoid.xml"]):  # the default is a model of ours
        done = mjsim_run(*arguments)
        assert done.returncode == 0, done.stderr
    done = mjsim_run("--model=humanoyd.xml")
    assert done.returncode == 2
    assert "; did you mean humanoid/humanoid.xml?" in done.stderr
    assert str(REPOSITORY) not in done.stderr


# From the bottom up: modules and rooms. Each imports from layers below its own, or within itself.
LAYERS = (
    {"comfree_warp"},
    {"mjsim.errors", "mjsim.text", "mjsim.cores", "mjsim.interrupts", "mjsim.pacing"},
    {"mjsim.choices", "mjsim.stop_signals", "mjsim.console"},
    {"mjsim.options", "mjsim.state", "mjsim.model"},
    {"mjsim.engines", "mjsim.stream"},
    {"mjsim.record"},  # a recording holds the packets of a stream
    {"mjsim.run", "mjsim.render"},
    {"mjsim.view"},
    {"mjsim.cli"},
    {"mjsim.__main__"},
    {"benchmark"},
)
SCRIPTS = {"test_headless.py", "test_viewer.py", "local_viewer.py", "streaming.py"}


def modules() -> dict[str, Path]:
    """Every module of the three rooms, in all their folders, by its dotted name."""
    found = {}
    for room in ("comfree_warp", "mjsim", "benchmark"):
        for path in (REPOSITORY / room).rglob("*.py"):
            parts = path.relative_to(REPOSITORY).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(path: Path, known: Collection[str]) -> set[str]:
    """Those of the known modules that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path} imports by a relative name: write it out"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in known else node.module for name in names}
    return found & set(known)


def layer(module: str) -> tuple[int, str]:
    """The number of a module's layer, and its room there."""
    for number, rooms in enumerate(LAYERS):
        for room in rooms:
            if module == room or module.startswith(f"{room}."):
                return number, room
    raise AssertionError(f"{module} is in no layer: give it a place in LAYERS")


def test_modules_import_downwards_only():
    known = modules()
    for module, path in known.items():
        if module == "mjsim":
            assert imports(path, known) == set()
            continue
        number, room = layer(module)
        for imported in imports(path, known) - {"mjsim"}:
            below, other = layer(imported)
            fine = below < number or other == room
            assert fine, f"{module} imports {imported}"


def test_no_module_of_mjsim_imports_itself_by_way_of_others():
    known = {name: path for name, path in modules().items() if name.startswith("mjsim.")}
    graph = {name: imports(path, known) for name, path in known.items()}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))


def test_the_top_level_has_the_documented_scripts_alone():
    assert {path.name for path in REPOSITORY.glob("*.py")} == SCRIPTS | {"conftest.py"}


def test_a_machine_that_only_watches_needs_no_warp():
    code = "import sys; from mjsim.view import follow, replay, window; print('warp' in sys.modules)"
    assert finished([sys.executable, "-c", code]).stdout == "False\n"


def test_the_models_compile():
    for path in (REPOSITORY / "benchmark" / "test_data").rglob("*.xml"):
        engines.load_model(path)
