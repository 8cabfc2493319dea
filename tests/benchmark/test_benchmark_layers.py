"""What the packages of the benchmark import of each other, and how they are found."""

import ast
from pathlib import Path

from mjsim.model.files import REPOSITORY

BENCHMARK = REPOSITORY / "benchmark"
# From the bottom up. A package imports from the layers below its own, and from itself.
LAYERS = (
    {"common"},
    {"speed", "fidelity"},
    {"costs", "sweep", "gallery"},
    {"report"},
)


def imported_packages(path: Path) -> set[str]:
    """The packages of the benchmark that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            parts = node.module.split(".")
            if parts[0] == "benchmark":
                found |= {parts[1]} if parts[1:] else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            parts = [alias.name.split(".") for alias in node.names]
            found |= {name[1] for name in parts if name[0] == "benchmark" and name[1:]}
    return found


def test_packages_import_downwards_only():
    packages = {path.parent.name for path in BENCHMARK.glob("*/__init__.py")}
    assert packages == set().union(*LAYERS)
    for number, layer in enumerate(LAYERS):
        below = set().union(*LAYERS[:number])
        for package in layer:
            for path in (BENCHMARK / package).rglob("*.py"):
                assert imported_packages(path) <= below | {package}, path


def test_no_program_changes_where_modules_are_found():
    for path in BENCHMARK.rglob("*.py"):
        assert "sys.path" not in path.read_text(), path


def test_every_folder_with_modules_is_a_package():
    """Else tests/benchmark, which lies on the tests' path, could take the name `benchmark`."""
    for path in BENCHMARK.rglob("*.py"):
        assert (path.parent / "__init__.py").is_file(), path
