"""Run MuJoCo Warp's own tests with the import changed, and tell what comfree does otherwise.

    python tests/mujoco_warp_tests.py history_test io_test     # or `make test-drop-in` for all

The files are read from the installed wheel. What they take from `mujoco_warp` by a public name they
get from `comfree_warp`; what they take from its private modules stays MuJoCo Warp's, but for names
that comfree_warp replaces. A test that must come out otherwise is in `differences.py`, with the
reason, or ends in an error that refuses something by name.

Exit status: 0 all passed or differed as expected, 1 there were others, 2 wrong use.
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    # Of a script the folder comes first on the path, and tests/ has one of the package's name.
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import ast
import collections
import functools
import importlib.util
import re
import time
import unittest
from types import ModuleType

import click
import mujoco_warp
import mujoco_warp_differences as differences
import warp as wp

import comfree_warp

ROOT = Path(mujoco_warp.__file__).parent
PREFIX = "of_mujoco_warp"  # of the names that the changed modules go by
FILES = sorted(path.stem for path in (ROOT / "_src").glob("*_test.py"))

REPLACED = {
    name
    for name, value in vars(comfree_warp).items()
    if not name.startswith("__") and vars(mujoco_warp).get(name, value) is not value
}
_REFUSED = re.compile(r"(\S+(?: \S+)?) is not supported by comfree|which comfree does not support")


# ---------------------------------------------------------------------------------- the imports


class _ChangedImports(ast.NodeTransformer):
    """`mujoco_warp` becomes comfree_warp wherever a public name is taken from it."""

    def visit_Import(self, node: ast.Import) -> ast.Import:
        for alias in node.names:
            if alias.name == "mujoco_warp":
                alias.name, alias.asname = f"{PREFIX}.comfree_warp", alias.asname or alias.name
        return node

    def visit_ImportFrom(self, node: ast.ImportFrom) -> list[ast.stmt]:
        return [
            ast.ImportFrom(_source(node.module or "", alias.name), [alias], node.level)
            for alias in node.names
        ]


def _source(module: str, name: str) -> str:
    """The module from which a name is to be imported."""
    if module == "mujoco_warp" and name == "test_data":
        return PREFIX
    if module == "mujoco_warp" and name != "_src":
        return f"{PREFIX}.comfree_warp"
    if module.startswith("mujoco_warp._src.") and name in REPLACED:
        return f"{PREFIX}.comfree_warp"
    return module


def _load(path: Path, name: str) -> ModuleType:
    """The module of a file of MuJoCo Warp, with the import changed."""
    tree = _ChangedImports().visit(ast.parse(path.read_text(), str(path)))
    spec = importlib.util.spec_from_file_location(f"{PREFIX}.{name}", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    exec(compile(ast.fix_missing_locations(tree), str(path), "exec"), vars(module))
    return module


def load_tests(file: str, law: str | None = None) -> ModuleType:
    """The module of a test file, by its name without the suffix; one in a process."""
    package, comfree = ModuleType(PREFIX), ModuleType(f"{PREFIX}.comfree_warp")
    vars(comfree).update({k: v for k, v in vars(comfree_warp).items() if not k.startswith("__")})
    rows = {"comfree_efc": "full"} if file in differences.FULL_ROWS else {}
    laws = {"comfree_law": law} if law else {}
    comfree.put_model = functools.partial(comfree_warp.put_model, **rows, **laws)
    comfree.put_data = functools.partial(comfree_warp.put_data, **rows)
    comfree.make_data = functools.partial(comfree_warp.make_data, **rows)
    package.__path__ = []
    package.comfree_warp = comfree
    sys.modules |= {PREFIX: package, f"{PREFIX}.comfree_warp": comfree}
    package.test_data = _load(ROOT / "test_data" / "__init__.py", "test_data")
    return _load(ROOT / "_src" / f"{file}.py", file)


# ----------------------------------------------------------------------------------- the outcome


class _Result(unittest.TestResult):
    """What came of every test of a file.

    Attributes:
      outcomes: by name of the test, "passed", "skipped", "failed" or a reason of `differences`.
      told: the traceback of every test that failed and was not expected to.
    """

    def __init__(self, file: str) -> None:
        super().__init__()
        self._file = file
        self.outcomes: dict[str, str] = {}
        self.told: dict[str, str] = {}

    def _name(self, test: unittest.TestCase) -> str:
        return f"{self._file}.{type(test).__name__}.{test._testMethodName}"

    def startTest(self, test: unittest.TestCase) -> None:
        super().startTest(test)
        self.outcomes[self._name(test)] = "passed"

    def addSkip(self, test: unittest.TestCase, reason: str) -> None:
        super().addSkip(test, reason)
        if hasattr(test, "_testMethodName"):
            self.outcomes[self._name(test)] = "skipped"

    def addError(self, test: unittest.TestCase, err: tuple) -> None:
        name = self._name(test) if hasattr(test, "_testMethodName") else f"{self._file}.{test}"
        refused = isinstance(err[1], NotImplementedError) and _REFUSED.search(str(err[1]))
        if refused:
            what = refused[1] or str(err[1]).partition(" needs ")[0]
            outcome = f"refused by name: {what}"
        else:
            outcome = differences.reason(name)
        if outcome is None:
            self.told[name] = self._exc_info_to_string(err, unittest.TestCase())
        self.outcomes[name] = outcome or "failed"

    addFailure = addError

    def addSubTest(self, test: unittest.TestCase, subtest: object, err: tuple | None) -> None:
        if err is not None:
            self.addError(test, err)

    def stopTest(self, test: unittest.TestCase) -> None:
        name = self._name(test)
        if self.outcomes[name] == "passed" and differences.reason(name) is not None:
            self.outcomes[name] = "failed"
            self.told[name] = "it passes, and is in differences.py: take it out there"
        super().stopTest(test)


def run_file(file: str, pattern: str = "", law: str | None = None) -> _Result:
    """Run the tests of a file whose names contain a pattern."""
    module, result = load_tests(file, law), _Result(file)
    suite = unittest.TestSuite()
    for cases in unittest.defaultTestLoader.loadTestsFromModule(module):
        # Those of a class one after the other, since it may set something up for them.
        chosen = [case for case in cases if pattern in result._name(case)]
        suite.addTest(unittest.TestSuite(chosen))
    suite.run(result)
    return result


@click.command(help=__doc__.split("\n\n")[0])
@click.argument("files", nargs=-1, type=click.Choice(FILES))
@click.option("-k", "pattern", default="", help="Only tests whose names contain this.")
@click.option("--law", default=None, help="Law of comfree.  [default: that of put_model]")
def main(files: tuple[str, ...], pattern: str, law: str | None) -> None:
    wp.config.log_level = wp.LOG_WARNING
    total: collections.Counter[str] = collections.Counter()
    for file in files or [each for each in FILES if each not in differences.REPLACED_FILES]:
        start = time.perf_counter()
        result = run_file(file, pattern, law)
        counts = collections.Counter(result.outcomes.values())
        total += counts
        print(f"{file}: {dict(counts)} in {time.perf_counter() - start:.0f} s", flush=True)
        for name, text in result.told.items():
            print(f"FAILED {name}\n{text}")
    for outcome, count in total.most_common():
        print(f"{count:6,} {outcome}")
    sys.exit(bool(total["failed"]))


if __name__ == "__main__":
    main()
