"""How many convex collisions there may be is counted as MuJoCo Warp finds them."""

import mujoco
import mujoco_warp
import numpy as np
import pytest
from mujoco_warp._src.collision_core import create_collision_context
from mujoco_warp._src.collision_driver import nxn_broadphase

from mjsim import engines
from mjsim.engines.buffers import size_buffers
from mjsim.engines.convex_pairs import ConvexPairs

PILE = """<mujoco><option timestep="0.005"/><worldbody>
  <geom type="plane" size="0 0 1"/>
  <geom type="box" size=".2 .2 .1" pos="0 0 .1" euler="0 20 0" margin=".01"/>
  {bodies}
</worldbody></mujoco>"""
SHAPES = ["box' size='.1 .05 .02", "cylinder' size='.05 .1", "ellipsoid' size='.1 .05 .03"]


def pile() -> mujoco.MjModel:
    bodies = "".join(
        f"<body pos='{i % 4 / 20} {i / 100} {0.3 + i / 33:.2f}' euler='{40 * i} 30 0'>"
        f"<freejoint/><geom type='{SHAPES[i % 3]}' margin='{0.004 * (i % 2)}'/></body>"
        for i in range(40)
    )
    return mujoco.MjModel.from_xml_string(PILE.format(bodies=bodies))


def candidates(m: mujoco_warp.Model, mjm: mujoco.MjModel, mjd: mujoco.MjData) -> int:
    """What MuJoCo Warp's broad phase lets through, of the pair of geom types that has most."""
    d = mujoco_warp.put_data(mjm, mjd, nconmax=800)
    ctx = create_collision_context(d.naconmax)
    nxn_broadphase(m, d, ctx)
    pairs = np.sort(mjm.geom_type[ctx.collision_pair.numpy()[: d.ncollision.numpy()[0]]], axis=1)
    pairs = pairs[pairs[:, 0] != mujoco.mjtGeom.mjGEOM_PLANE]
    return max(np.unique(pairs, axis=0, return_counts=True)[1], default=0)


@pytest.mark.engine
def test_as_many_are_close_as_mujoco_warp_lets_through():
    mjm = pile()
    mjd, m, pairs = mujoco.MjData(mjm), mujoco_warp.put_model(mjm), ConvexPairs(mjm)
    seen = []
    for _ in range(6):
        mujoco.mj_step(mjm, mjd, 30)
        mujoco.mj_kinematics(mjm, mjd)
        seen.append((candidates(m, mjm, mjd), pairs.close(mjd)))
    assert max(seen)[0] >= 10
    assert all(theirs == ours for theirs, ours in seen), seen


@pytest.mark.parametrize(
    ("countable", "name"),
    [(True, "primitives.xml"), (False, "hfield/hfield.xml"), (False, "flex/floppy.xml")],
)
def test_buffers_hold_as_many_as_contacts_where_pairs_cannot_be_counted(countable, name):
    mjm = engines.load_model(f"benchmark/test_data/{name}")
    sizes = size_buffers(mjm, 150)
    assert ConvexPairs(mjm).countable == countable
    assert (sizes["nccdmax"] < sizes["nconmax"]) == countable


def test_what_passes_by_the_broad_phase_or_is_too_much_cannot_be_counted():
    spheres = "".join(f"<geom name='{i}' size='.1' pos='{i} 0 0'/>" for i in range(500))
    many = f"<mujoco><worldbody>{spheres}</worldbody></mujoco>"
    paired = (
        "<mujoco><worldbody><geom name='a' size='.1'/><geom name='b' size='.1'/></worldbody>"
        "<contact><pair geom1='a' geom2='b'/></contact></mujoco>"
    )
    measured = (
        "<mujoco><worldbody><geom name='a' size='.1'/><geom name='b' size='.1'/></worldbody>"
        "<sensor><distance geom1='a' geom2='b'/></sensor></mujoco>"
    )
    for mjcf in (many, paired, measured):
        assert not ConvexPairs(mujoco.MjModel.from_xml_string(mjcf)).countable


BOXES = "".join(
    f"<body pos='{i % 12} {i // 12} .1'><freejoint/><geom type='box' size='.1 .1 .1'/></body>"
    for i in range(144)
)
APART = f"<mujoco><worldbody><geom type='plane' size='0 0 1'/>{BOXES}</worldbody></mujoco>"


def test_what_is_apart_may_meet_later():
    sizes = size_buffers(mujoco.MjModel.from_xml_string(APART), 20)
    assert sizes["nccdmax"] == sizes["nconmax"] // 8 == 148


@pytest.mark.engine
@pytest.mark.parametrize(
    ("given", "nworld", "naccdmax"),
    [
        ({"nconmax": 40, "nccdmax": 10}, 1, 40),  # of one world: as many as may be
        ({"nconmax": 40, "nccdmax": 10}, 2, 40),
        ({"nconmax": 40, "nccdmax": 10}, 5, 50),
        ({"nconmax": 40, "nccdmax": 99}, 5, 200),
        ({"nconmax": 40}, 5, 200),
        ({"nconmax": 0}, 5, 5),  # or none would be looked for, and none be told to be lost
    ],
)
def test_worlds_share_room_for_convex_collisions(given, nworld, naccdmax):
    mjm = mujoco.MjModel.from_xml_string(
        "<mujoco><worldbody><body><joint/><geom size='.1'/></body></worldbody></mujoco>"
    )
    simulation = engines.make_simulation(mjm, nworld=nworld, njmax=8, **given)
    assert simulation._d.naccdmax == naccdmax
