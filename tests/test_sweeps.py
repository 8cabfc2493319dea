"""Results do not depend on how many threads share the contacts, rows and trees."""

import sys

import mujoco
import numpy as np
import pytest
import scenes
from engine_rows import relative_error

import comfree_warp as cfwarp
from comfree_warp import bodies
from comfree_warp.sweeps import nthread_for
from comfree_warp.warm import stack_solve

pytestmark = pytest.mark.engine

# Steps until there are stacks of bodies, contacts of a tree, rows, contacts with a Jacobian.
MODELS = {
    "own/primitives.xml": 700,
    "own/humanoid/humanoid.xml": 400,
    "own/constraints.xml": 20,
    "own/flex/floppy.xml": 300,
    "theirs/actuation/adhesion.xml": 100,
}


def qacc_with(
    most: int, m: cfwarp.Model, d: cfwarp.Data, monkeypatch: pytest.MonkeyPatch
) -> np.ndarray:
    """Acceleration of the third step, with at most so many threads on each kind of item."""
    users = [
        module
        for name, module in list(sys.modules.items())
        if name.startswith("comfree_warp.") and hasattr(module, "nthread_for")
    ]
    assert len(users) > 5
    for module in users:
        monkeypatch.setattr(module, "nthread_for", lambda d, items: min(items, most))
    for _ in range(3):
        cfwarp.step(m, d)
    return d.qacc.numpy()


@pytest.mark.parametrize("law", ["paper", "warm"])
@pytest.mark.parametrize("name", MODELS)
def test_any_number_of_threads_gives_the_same(name, law, monkeypatch):
    mjm = mujoco.MjModel.from_xml_path(str(scenes.PATHS[name]))
    mjd = mujoco.MjData(mjm)
    mujoco.mj_step(mjm, mjd, MODELS[name])
    m = cfwarp.put_model(mjm, comfree_law=law)
    m.opt.deterministic = True  # else the order of the sums would tell
    results = [
        qacc_with(
            most,
            m,
            cfwarp.put_data(mjm, mjd, nworld=2, nconmax=800, njmax=3200),
            monkeypatch,
        )
        for most in (1, 3, 10**9)
    ]
    assert np.isfinite(results[0]).all()
    assert results[0].any()
    for other in results[1:]:
        np.testing.assert_array_equal(other, results[0])


@pytest.mark.parametrize("deterministic", [False, True], ids=["", "deterministic"])
@pytest.mark.parametrize("law", ["paper", "warm"])
@pytest.mark.parametrize("name", ["humanoid/humanoid.xml", "hand/env_hand_cube.xml"])
@pytest.mark.usefixtures("device")
def test_a_thread_for_every_body_gives_what_one_for_every_tree_does(
    name, law, deterministic, monkeypatch
):
    mjm = mujoco.MjModel.from_xml_path(str(scenes.PATHS[f"own/{name}"]))
    mjd = mujoco.MjData(mjm)
    mujoco.mj_step(mjm, mjd, 400)
    m = cfwarp.put_model(mjm, comfree_law=law, comfree_passes=2 if law == "warm" else 1)
    m.opt.deterministic = deterministic
    found = []
    for by_body in (False, True):
        monkeypatch.setattr(bodies, "by_body", lambda m, d, answer=by_body: answer)
        d = cfwarp.put_data(mjm, mjd, nworld=2, nconmax=100, njmax=800)
        d.qfrc_constraint.fill_(np.nan)  # which has to be cleared, as has what is accumulated
        d.cfrc_contact.fill_(np.nan)
        for _ in range(3):
            cfwarp.step(m, d)
        names = ["qacc", "qvel", "qfrc_constraint", "qfrc_total", "cfrc_contact"]
        names += ["cvel_smooth_pred", "qvel_smooth_pred"] if law == "paper" else []
        found.append({name: getattr(d, name).numpy() for name in names})
        found[-1]["cfrc_contact"] = found[-1]["cfrc_contact"][:, m.body_treeid.numpy() >= 0]
    by_tree, by_body = found
    assert np.abs(by_tree["qfrc_constraint"]).max() > 0.1
    for name, values in by_tree.items():
        assert relative_error(by_body[name], values) < 1e-4, name


@pytest.mark.usefixtures("device")
def test_a_thread_for_every_body_of_a_stack_gives_what_one_for_all_of_it_does(monkeypatch):
    mjm = mujoco.MjModel.from_xml_path(str(scenes.PATHS["own/primitives.xml"]))
    mjd = mujoco.MjData(mjm)
    mujoco.mj_step(mjm, mjd, 700)
    m = cfwarp.put_model(mjm, comfree_law="warm")
    m.opt.deterministic = True
    found = []
    for by_body in (False, True):
        monkeypatch.setattr(stack_solve, "by_body", lambda d, answer=by_body: answer)
        d = cfwarp.put_data(mjm, mjd, nworld=2, nconmax=800, njmax=3200)
        cfwarp.allocate_memory(m, d)
        stacks = d.warm.stacks
        for name in ("coupling", "kept", "motion", "wrench", "between", "work", "scale", "D"):
            getattr(stacks, name).fill_(np.nan)  # as if of the step before, and not to be read
        for _ in range(3):
            cfwarp.step(m, d)
        roots = np.flatnonzero(stacks.root.numpy()[0] == np.arange(m.ntree))
        assert set(stacks.crossed.numpy()[0, roots]) == {0, 1}  # one is solved once, one twice
        found.append([array.numpy() for array in (d.qacc, d.qfrc_constraint, d.warm.force)])
    assert np.abs(found[0][1]).max() > 1
    for by_stack, by_body in zip(*found, strict=True):
        assert relative_error(by_body, by_stack) < 1e-4


def test_a_cpu_gets_one_thread_and_nothing_to_do_none():
    mjm = mujoco.MjModel.from_xml_string("<mujoco/>")
    d = cfwarp.make_data(mjm)
    assert d.qpos.device.is_cpu == (nthread_for(d, 100) == 1)
    assert nthread_for(d, 0) == 0


def test_a_tree_of_very_many_bodies_is_swept_by_one_thread():
    def by_body(nbody: int) -> bool:
        links = "<body pos='.1 0 0'><joint/><geom size='.1'/>" * nbody
        mjcf = f"<mujoco><worldbody>{links}{'</body>' * nbody}</worldbody></mujoco>"
        return cfwarp.put_model(mujoco.MjModel.from_xml_string(mjcf)).by_body

    assert [by_body(nbody) for nbody in (0, 1, 2, 128, 129)] == [False, False, True, True, False]
