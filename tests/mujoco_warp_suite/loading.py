"""MuJoCo Warp's own test files, read from the installed wheel, with the import changed.

Whatever they take from `mujoco_warp` by a public name they get from `comfree_warp`; what they take
from its private modules stays MuJoCo Warp's, but for names that comfree_warp replaces.
"""

import ast
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import mujoco_warp

import comfree_warp

ROOT = Path(mujoco_warp.__file__).parent
PREFIX = "of_mujoco_warp"  # of the names that the changed modules go by

REPLACED = frozenset(
    name
    for name, value in vars(comfree_warp).items()
    if name in vars(mujoco_warp) and value is not vars(mujoco_warp)[name]
) - {"__name__", "__doc__", "__file__", "__path__", "__spec__", "__loader__", "__package__"}


class _ChangedImports(ast.NodeTransformer):
    """`mujoco_warp` becomes `comfree_warp` wherever a public name is taken from it."""

    def __init__(self) -> None:
        self._aliases: set[str] = set()

    def visit_Import(self, node: ast.Import) -> ast.Import:
        for alias in node.names:
            if alias.name == "mujoco_warp":
                alias.name = "comfree_warp"
                self._aliases.add(alias.asname or "comfree_warp")
        return node

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.stmt | list[ast.stmt]:
        module = node.module or ""
        if not module.startswith("mujoco_warp"):
            return node
        made: list[ast.stmt] = []
        for alias in node.names:
            source = module
            if module == "mujoco_warp" and alias.name == "test_data":
                source = PREFIX
            elif module == "mujoco_warp" and alias.name != "_src":
                source = "comfree_warp"
            elif module.startswith("mujoco_warp._src.") and alias.name in REPLACED:
                source = "comfree_warp"
            made.append(ast.ImportFrom(source, [alias], 0))
        return made

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        self.generic_visit(node)
        if (
            node.attr == "_src"
            and isinstance(node.value, ast.Name)
            and node.value.id in self._aliases
        ):
            # Private modules are reached by the installed package's own name.
            found = ast.Call(
                ast.Name("__import__", ast.Load()), [ast.Constant("mujoco_warp")], []
            )
            return ast.Attribute(found, "_src", node.ctx)
        return node


def load(path: Path, name: str) -> ModuleType:
    """The module of a file of MuJoCo Warp, with the import changed."""
    name = f"{PREFIX}.{name}"
    if name in sys.modules:
        return sys.modules[name]
    if PREFIX not in sys.modules:
        package = ModuleType(PREFIX)
        package.__path__ = []
        sys.modules[PREFIX] = package
        package.test_data = load(ROOT / "test_data" / "__init__.py", "test_data")
    tree = _ChangedImports().visit(ast.parse(path.read_text(), str(path)))
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    exec(compile(ast.fix_missing_locations(tree), str(path), "exec"), vars(module))
    return module


def load_tests(name: str) -> ModuleType:
    """The module of a test file, by its name without the suffix."""
    return load(ROOT / "_src" / f"{name}.py", name)
