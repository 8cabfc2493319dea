"""The contacts of one world on one core are those that MuJoCo Warp finds among all pairs.

In the same order, bit for bit.
"""

import mujoco
import mujoco_warp
import numpy as np
import pytest
import scenes
import warp as wp
from mujoco_warp import BroadphaseFilter, BroadphaseType, DisableBit, OverflowType

import comfree_warp as cfwarp
from comfree_warp.collision.broadphase import collision
from comfree_warp.collision.narrowphase import checked_narrow_phase

pytestmark = pytest.mark.engine


@pytest.fixture(autouse=True)
def one_core():
    with wp.ScopedDevice("cpu"):
        yield


def heap(ngeom: int, seed: int, *, extra: str = "") -> mujoco.MjModel:
    """Spheres, capsules and boxes, small and huge, thrown together over a floor and a ramp."""
    rng = np.random.default_rng(seed)
    bodies = []
    for i in range(ngeom):
        kind = ("sphere", "capsule", "box")[i % 3]
        size = rng.uniform(0.02, 0.1, 3) * (5 if i % 17 == 0 else 1)
        pos, turn = rng.uniform(0, 1, 3) * (3, 1, 0.5), rng.uniform(-180, 180, 3)
        words = [" ".join(f"{value:.4f}" for value in each) for each in (pos, turn, size)]
        bodies.append(
            f'<body pos="{words[0]}" euler="{words[1]}"><freejoint/>'
            f'<geom name="g{i}" type="{kind}" size="{words[2]}" margin="{0.02 * (i % 2)}"/></body>'
        )
    bodies.insert(ngeom // 2, '<geom type="plane" size="0 0 1" euler="0 10 0" gap="0.03"/>')
    return mujoco.MjModel.from_xml_string(
        f'<mujoco><worldbody>{"".join(bodies)}<geom type="plane" size="0 0 1" margin="0.01"/>'
        f"</worldbody>{extra}</mujoco>"
    )


def contacts_of(find, m: cfwarp.Model, d: cfwarp.Data) -> np.ndarray:
    """One line per contact: geoms, distance and position."""
    find(m, d)
    count = int(d.nacon.numpy()[0])
    assert 0 < count <= d.naconmax
    fields = (d.contact.worldid, d.contact.geom, d.contact.dist, d.contact.pos)
    return np.column_stack([field.numpy()[:count] for field in fields])


def collision_of_all_pairs(m: cfwarp.Model, d: cfwarp.Data) -> None:
    with checked_narrow_phase(d, d.repairs):  # which `collision` has, too
        mujoco_warp.collision(m, d)


def check_against_all_pairs(m: cfwarp.Model, d: cfwarp.Data) -> None:
    found, pairs = contacts_of(collision, m, d), int(d.ncollision.numpy()[0])
    m.opt.broadphase = BroadphaseType.NXN
    np.testing.assert_array_equal(found, contacts_of(collision_of_all_pairs, m, d))
    assert pairs == d.ncollision.numpy()[0]


def room_for_all(m: cfwarp.Model) -> int:
    """An nconmax that all pairs of geoms could fill."""
    return len(m.nxn_geom_pair_filtered)


@pytest.mark.parametrize("ngeom", [9, 15, 16, 17, 33, 150])
def test_no_pair_is_missed_and_none_told_twice(ngeom):
    for seed in range(3):
        mjm = heap(ngeom, seed)
        m = cfwarp.put_model(mjm)
        d = cfwarp.make_data(mjm, nconmax=room_for_all(m), njmax=1)
        cfwarp.kinematics(m, d)
        check_against_all_pairs(m, d)


def test_the_order_of_contacts_does_not_depend_on_how_many_there_is_room_for():
    mjm = heap(33, 0)
    m, found = cfwarp.put_model(mjm), []
    for nconmax in (300, len(m.nxn_geom_pair_filtered) - 1, 5 * len(m.nxn_geom_pair_filtered)):
        d = cfwarp.make_data(mjm, nconmax=nconmax, njmax=1)
        cfwarp.kinematics(m, d)
        collision(m, d)
        count = int(d.nacon.numpy()[0])
        assert 20 < count <= nconmax
        found.append(d.contact.geom.numpy()[:count])
    for other in found[1:]:
        np.testing.assert_array_equal(other, found[0])


@pytest.mark.parametrize("name", ["primitives", "humanoid/n_humanoid", "hfield/hfield"])
def test_on_models_of_the_benchmark_too(name):
    mjm = mujoco.MjModel.from_xml_path(str(scenes.PATHS[f"own/{name}.xml"]))
    mjd = mujoco.MjData(mjm)
    for _ in range(300):
        mujoco.mj_step(mjm, mjd)
    m = cfwarp.put_model(mjm)
    d = cfwarp.put_data(mjm, mjd, nconmax=room_for_all(m), njmax=3000)
    cfwarp.kinematics(m, d)
    check_against_all_pairs(m, d)


@pytest.mark.parametrize(
    "extra",
    [
        '<contact><pair geom1="g1" geom2="g7" margin="9"/></contact>',
        '<sensor><distance geom1="g1" geom2="g7" cutoff="9"/></sensor>',
    ],
    ids=["pair", "distance"],
)
def test_a_pair_that_the_model_names_is_never_left_out(extra):
    mjm = heap(30, 0, extra=extra)
    m, d = cfwarp.put_model(mjm), cfwarp.make_data(mjm, nconmax=250, njmax=1)
    cfwarp.kinematics(m, d)
    check_against_all_pairs(m, d)


@pytest.mark.parametrize("left_out", [BroadphaseFilter.SPHERE, BroadphaseFilter.PLANE])
def test_other_filters_are_left_to_mujoco_warp(left_out):
    mjm = heap(30, 0)
    m, d = cfwarp.put_model(mjm), cfwarp.make_data(mjm, nconmax=250, njmax=1)
    m.opt.broadphase_filter &= ~left_out
    cfwarp.kinematics(m, d)
    check_against_all_pairs(m, d)


def test_every_world_has_its_own_pairs():
    mjm = heap(30, 0)
    m, d = cfwarp.put_model(mjm), cfwarp.make_data(mjm, nworld=2, nconmax=100, njmax=1)
    qpos = d.qpos.numpy()
    qpos[1] = heap(30, 1).qpos0
    d.qpos.assign(qpos)
    cfwarp.kinematics(m, d)
    assert set(contacts_of(collision, m, d)[:, 0]) == {0.0, 1.0}
    check_against_all_pairs(m, d)


def test_a_body_that_is_nowhere_touches_nothing_and_takes_no_room():
    mjm = heap(40, 0)
    m = cfwarp.put_model(mjm)
    qpos = mjm.qpos0.reshape(-1, 7).copy()
    qpos[[3, 17, 30]] = np.nan
    nconmax = room_for_all(m)
    for _ in range(2):
        d = cfwarp.make_data(mjm, nconmax=nconmax, njmax=1)
        d.qpos.assign(qpos.reshape(1, -1))
        cfwarp.kinematics(m, d)
        check_against_all_pairs(m, d)
        nconmax = int(max(d.nacon.numpy()[0], d.ncollision.numpy()[0]))  # as few as will do


def test_too_many_pairs_are_told():
    mjm = heap(60, 0)
    m, d = cfwarp.put_model(mjm), cfwarp.make_data(mjm, nconmax=20, njmax=100)
    d.overflow_told.fill_(-1)
    cfwarp.step(m, d)
    assert d.overflow.numpy()[0] & OverflowType.BROADPHASE
    told = d.ncollision.numpy()[0]
    m.opt.broadphase = BroadphaseType.NXN
    mujoco_warp.collision(m, d)
    assert told == d.ncollision.numpy()[0] > 21


@pytest.mark.parametrize("flag", [DisableBit.CONTACT, DisableBit.CONSTRAINT])
def test_no_pair_is_looked_for_where_contacts_are_disabled(flag):
    mjm = heap(60, 0)
    mjm.opt.disableflags |= int(flag)
    m, d = cfwarp.put_model(mjm), cfwarp.make_data(mjm, nconmax=20, njmax=100)
    cfwarp.step(m, d)
    assert d.ncollision.numpy()[0] == d.nacon.numpy()[0] == 0
    assert d.overflow.numpy()[0] == 0
