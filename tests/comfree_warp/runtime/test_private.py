"""Private names of Warp and MuJoCo Warp: a run does without those that are gone, and says so."""

import ast
import os
import re
import subprocess
import sys

import numpy as np
import pytest

from comfree_warp.runtime import private
from comfree_warp.runtime.changes import changed
from comfree_warp.runtime.private import Group, Name
from mjsim import engines
from mjsim.cli import variables
from mjsim.model.files import REPOSITORY

# A sphere that falls on a plane, and a captured step of it.
RUN = """
import mujoco
import comfree_warp as cfwarp

mjm = mujoco.MjModel.from_xml_string(
    "<mujoco><worldbody><geom type='plane' size='1 1 1'/>"
    "<body pos='0 0 .09'><freejoint/><geom size='.1'/></body></worldbody></mujoco>"
)
m, d = cfwarp.put_model(mjm), cfwarp.make_data(mjm)
cfwarp.capture(lambda: cfwarp.step(m, d)).launch(3)
assert d.nacon.numpy()[0] == 1
print("time", round(float(d.time.numpy()[0]), 6))
"""


def run(before: str, **environment: str) -> list[str]:
    """What a program says of comfree_warp: lines on stderr; `before` is done before the import."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", before + RUN],
        cwd=REPOSITORY,
        env=os.environ | {"COMFREE_PLAIN": "0"} | environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "time 0.006" in done.stdout
    return [line for line in done.stderr.splitlines() if line.startswith("comfree_warp:")]


@pytest.mark.shortcut
def test_nothing_is_told_of_the_versions_that_the_tests_pass_with():
    assert private._told == ""
    assert [group.faults for group in private._GROUPS if group.faults] == []


def deleted(module: str, name: str) -> str:
    return f"import {module} as module\ndel module.{name}\n"


def changed_parameters(module: str, name: str) -> str:
    return (
        f"import {module} as module\n"
        f"module.{name} = lambda *args, its=module.{name}, **kwargs: its(*args, **kwargs)\n"
    )


SENSOR, GJK = "mujoco_warp._src.sensor", "mujoco_warp._src.collision_gjk"
SDF, CONTEXT = "mujoco_warp._src.collision_sdf", "warp._src.context"


@pytest.mark.shortcut
@pytest.mark.engine
@pytest.mark.parametrize(
    ("change", "module", "name", "consequence"),
    [
        (deleted, SENSOR, "_write_scalar", "limit of the same index read each other's row"),
        (deleted, GJK, "multicontact", "contacts of convex geoms are not checked"),
        (deleted, SDF, "user_sdf_grad", "SDF plugins (torus, bowl, bolt, nut, gear) are refused"),
        (changed_parameters, "mujoco_warp._src.io", "_create_array", "cannot share a plugin"),
        (deleted, CONTEXT, "_apic_record_capture_if", "with the same results"),
        (changed_parameters, CONTEXT, "_apic_record_capture_if", "with the same results"),
    ],
)
def test_a_run_does_without_a_private_name_and_one_line_says_what_that_means(
    change, module, name, consequence
):
    told = run(change(module, name))
    assert len(told) == 1
    assert re.search(rf"{name} (is gone|has other parameters)", told[0])
    assert consequence in told[0]


@pytest.mark.shortcut
@pytest.mark.engine
def test_a_version_that_has_not_been_tested_runs_by_public_functions_and_is_told_once():
    told = run("import mujoco_warp\nmujoco_warp.__version__ = '9.9'\n")
    assert told == [
        "comfree_warp: not tested with mujoco_warp 9.9 (tested: 4.0.0): public functions are used "
        "in the place of faster ones, with the same results; take versions that are tested, or a "
        "newer comfree-warp"
    ]


@pytest.mark.shortcut
@pytest.mark.engine
def test_what_is_asked_for_is_not_told():
    untested = "import mujoco_warp\nmujoco_warp.__version__ = '9.9'\n"
    assert run(untested, COMFREE_PLAIN="1") == []
    assert run("", COMFREE_PLAIN="1") == []


def test_the_command_line_knows_the_variable():
    assert variables.PLAIN == private.VARIABLE


def test_a_name_that_is_gone_or_has_changed_makes_its_group_unusable():
    """On names of the standard library."""
    right = Name("textwrap", "indent", "text prefix predicate")
    gone = Name("textwrap", "outdent", "text")
    other = Name("textwrap", "indent", "text prefix")
    module = Name("textwarp", "indent")
    assert Group("", right).usable
    for wrong in (gone, other, module):
        group = Group("", right, wrong)
        assert not group.usable
        assert len(group.faults) == 1
    assert Group("", right, gone, other).faults == [
        "textwrap.outdent is gone",
        "textwrap.indent has other parameters",
    ]


def test_public_functions_take_the_place_of_shortcuts_and_not_of_corrections():
    names = Name("textwrap", "indent")
    with changed(private, plain=True):
        assert not Group("", names).usable
        assert Group("a consequence", names).usable


@pytest.mark.engine
@pytest.mark.parametrize("model", ["primitives", "humanoid/humanoid", "hand/env_hand_cube"])
@pytest.mark.parametrize(
    ("engine", "law"), [("comfree", "paper"), ("comfree", "warm"), ("mjwarp", None)]
)
def test_states_are_the_same_bit_for_bit_without_the_shortcuts(model, engine, law):
    mjm = engines.load_model(f"benchmark/test_data/{model}.xml")
    laws = {"law": law} if law else {}
    simulations = []
    for plain in (False, True):
        with changed(private, plain=plain):
            simulations.append(engines.make_simulation(mjm, engine, "cpu", **laws))
    for _ in range(4):
        for simulation in simulations:
            simulation.step(50)
        usual, plain = simulations
        for field in ("time", "qpos", "qvel", "act"):
            np.testing.assert_array_equal(usual.read(field), plain.read(field), field)
    assert usual.counts().contacts > 0


def test_no_other_module_imports_private_names():
    package = REPOSITORY / "comfree_warp"
    for path in package.rglob("*.py"):
        name = str(path.relative_to(package))
        if name == "runtime/private.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                modules = [f"{node.module}.{alias.name}" for alias in node.names]
            else:
                continue
            theirs = [it for it in modules if it.startswith(("warp.", "mujoco_warp."))]
            assert not [it for it in theirs if "._" in it], name
