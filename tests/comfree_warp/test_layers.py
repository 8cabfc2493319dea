"""The laws of contact lie side by side, and what both use lies below them."""

import ast
from pathlib import Path

import pytest

import comfree_warp

PACKAGE = Path(comfree_warp.__file__).parent


def imported(room: str) -> set[str]:
    """The modules of comfree_warp that those of a room import, at any level of it."""
    names = set()
    for path in (PACKAGE / room).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:
                names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
            elif isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
    return {name for name in names if name.startswith("comfree_warp.")}


@pytest.mark.parametrize(
    ("room", "forbidden"),
    [
        ("runtime", ("shared", "paper", "warm", "collision", "pipeline")),
        ("warm", ("paper", "pipeline")),
        ("paper", ("warm", "pipeline")),
        ("shared", ("paper", "warm", "collision", "pipeline")),
        ("collision", ("paper", "warm", "pipeline")),
    ],
)
def test_a_room_imports_none_beside_or_above_it(room, forbidden):
    names = imported(room)
    assert names
    assert not [name for name in names if name.split(".")[1] in forbidden]
