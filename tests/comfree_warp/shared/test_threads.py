"""Results do not depend on how many threads share the contacts, rows and trees."""

import sys

import mujoco
import numpy as np
import pytest
import scenes
import warp as wp
from engine_rows import relative_error

import comfree_warp as cfwarp
from benchmark.speed import scenes as speed_scenes
from comfree_warp.shared import bodies
from comfree_warp.shared.lanes import meet, nlane_for, sum_of_lanes
from comfree_warp.shared.threads import launch, nthread_for
from comfree_warp.warm.stacks import solve as stack_solve

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


def primitives() -> mujoco.MjModel:
    return mujoco.MjModel.from_xml_path(str(scenes.PATHS["own/primitives.xml"]))


def a_wall() -> mujoco.MjModel:
    return mujoco.MjModel.from_xml_string(speed_scenes.wall(18))


# `crossed`, of the roots: 1 where a stack touches others, and is solved once, 0 where it is twice.
@pytest.mark.parametrize(
    ("make", "nsteps", "crossed"), [(primitives, 700, {0, 1}), (a_wall, 20, {1})]
)
@pytest.mark.usefixtures("device")
def test_lanes_solve_a_stack_as_one_thread_does(make, nsteps, crossed, monkeypatch):
    mjm = make()
    mjd = mujoco.MjData(mjm)
    mujoco.mj_step(mjm, mjd, nsteps)
    m = cfwarp.put_model(mjm, comfree_law="warm")
    m.opt.deterministic = True
    found = []
    for by_lanes in (False, True):
        monkeypatch.setattr(stack_solve, "by_lanes", lambda d, answer=by_lanes: answer)
        d = cfwarp.put_data(mjm, mjd, nworld=2, nconmax=800, njmax=3200)
        stacks = d.warm.stacks
        solved = (stacks.coupling, stacks.kept, stacks.motion, stacks.wrench, stacks.between)
        for array in (*solved, stacks.work, stacks.lever, stacks.residual, stacks.D):
            array.fill_(np.nan)  # as if of the step before, and not to be read
        for _ in range(3):
            cfwarp.step(m, d)
        assert not stacks.arrived.numpy().any()  # as the next solve needs it
        parent, root = stacks.parent.numpy()[0], stacks.root.numpy()[0]
        assert set(stacks.crossed.numpy()[0, root == np.arange(m.ntree)]) == crossed
        assert np.bincount(parent[parent < m.ntree]).max() > 1  # branches meet
        nacon = int(d.nacon.numpy()[0])
        pairs = np.column_stack([d.contact.worldid.numpy(), d.contact.geom.numpy()])[:nacon]
        pairs, of_pair = np.unique(pairs, axis=0, return_inverse=True)
        forces = np.zeros((len(pairs), 6))  # of all contacts of a pair, which come in any order
        np.add.at(forces, of_pair.ravel(), d.warm.force.numpy()[:nacon])
        found.append([d.qacc.numpy(), d.qfrc_constraint.numpy(), forces])
    assert np.abs(found[0][1]).max() > 1
    for by_thread, by_lanes in zip(*found, strict=True):
        assert relative_error(by_lanes, by_thread) < 1e-4


@wp.kernel(enable_backward=False)
def _share(nlane: int, shared: wp.array2d[float], total: wp.array2d[float]):
    group, lane = wp.tid()
    for i in range(lane, 8, nlane):
        shared[group, i] = float(group + i)
    meet()
    mine = float(0.0)
    for i in range(lane, 8, nlane):
        mine += shared[group, 7 - i]
    total[group, lane] = sum_of_lanes(mine)


def test_lanes_see_what_the_others_have_written_and_add_up(device):
    nlane = nlane_for(cfwarp.make_data(mujoco.MjModel.from_xml_string("<mujoco/>")))
    shared, total = wp.zeros((100, 8), dtype=float), wp.zeros((100, nlane), dtype=float)
    launch(_share, dim=(100, nlane), inputs=[nlane], outputs=[shared, total])
    assert nlane == (1 if device == "cpu" else 8)
    np.testing.assert_array_equal(total.numpy().T, np.tile(28 + 8 * np.arange(100), (nlane, 1)))


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
