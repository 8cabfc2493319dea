"""Convex contacts that MuJoCo Warp gets wrong are found anew, and the others are left alone."""

import contextlib

import mujoco
import mujoco_warp
import numpy as np
import pytest
import warp as wp

import comfree_warp as cfwarp
from comfree_warp.collision.narrowphase import checked_narrow_phase
from mjsim import engines

pytestmark = pytest.mark.engine

CAN = """
<mujoco>
  <worldbody>
    <geom name="table" type="box" size=".4 .4 .025" pos="0 0 -.025"/>
    <body pos="0 0 .04"><freejoint/>
      <geom name="can" type="cylinder" size=".026 .04" density="100"/></body>
  </worldbody>
  {}
</mujoco>
"""
# MuJoCo Warp finds two contacts of 425.6 mm here.
WRONG_POSE = [
    *(5.58100364e-05, -6.7940251e-05, 0.0399844982),
    *(0.999995589, 1.07736605e-05, 5.74640108e-05, -0.00300275953),
]
RIGHT_DEPTHS = [1.2528e-05, 1.4950e-05, 1.6053e-05, 1.8491e-05]  # MuJoCo C's, m


def can(extra: str = "") -> mujoco.MjModel:
    return mujoco.MjModel.from_xml_string(CAN.format(extra))


def collide(
    mjm: mujoco.MjModel, qpos: np.ndarray, *, checked: bool = True
) -> tuple[mujoco_warp.Data, list[dict[str, np.ndarray]], np.ndarray]:
    """The data, the contacts of every world, whose qpos is a row, and its number of repairs."""
    m = mujoco_warp.put_model(mjm)
    m.opt.warn_overflow = 0
    d = mujoco_warp.make_data(mjm, nworld=len(qpos), nconmax=24, njmax=1)
    d.qpos.assign(np.asarray(qpos, dtype=np.float32))
    repairs = wp.zeros(d.nworld, dtype=int)
    mujoco_warp.kinematics(m, d)
    with checked_narrow_phase(d, repairs) if checked else contextlib.nullcontext():
        mujoco_warp.collision(m, d)
    count = int(d.nacon.numpy()[0])
    assert count <= d.naconmax
    worldid = d.contact.worldid.numpy()[:count]
    fields = {
        name: getattr(d.contact, name).numpy()[:count]
        for name in ("dist", "pos", "frame", "geom", "dim", "friction", "solref", "includemargin")
    }
    found = [{name: v[worldid == i] for name, v in fields.items()} for i in range(d.nworld)]
    return d, found, repairs.numpy()


def contacts_of_mujoco(mjm: mujoco.MjModel, qpos: np.ndarray) -> list[mujoco.MjData]:
    found = []
    for row in qpos:
        mjd = mujoco.MjData(mjm)
        mjd.qpos[:] = np.float32(row)
        mujoco.mj_kinematics(mjm, mjd)
        mujoco.mj_collision(mjm, mjd)
        found.append(mjd)
    return found


def test_a_can_on_a_table_has_the_four_contacts_of_mujoco_in_every_world(device):
    _, found, repairs = collide(can(), [WRONG_POSE] * 3)
    for contacts in found:
        np.testing.assert_allclose(np.sort(-contacts["dist"]), RIGHT_DEPTHS, atol=1e-7)
        np.testing.assert_allclose(contacts["frame"][:, 0], [[0, 0, -1]] * 4, atol=1e-4)
        assert np.abs(contacts["pos"][:, :2]).max() < 0.0265
    assert repairs.tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("engine", "law", "speed"),
    [("mjwarp", None, 0.0033), ("comfree", "paper", 0.021), ("comfree", "warm", 0.021)],
)
def test_the_can_stays_on_the_table_and_health_counts_the_repair(engine, law, speed):
    mjm = can(f'<keyframe><key qpos="{" ".join(map(str, WRONG_POSE))}"/></keyframe>')
    simulation = engines.make_simulation(mjm, engine, nworld=2, law=law)
    assert simulation.health().repairs == 0
    simulation.step()
    assert np.abs(simulation.read_all("qvel")).max() < speed  # it was 2.5, 184 and 0.84 m/s
    assert simulation.health().repairs == 2
    simulation.reset()
    assert simulation.health().repairs == 0


def test_every_function_of_comfree_that_detects_contacts_checks_them(device):
    for extra in ("", '<option cone="elliptic"/>'):
        mjm = can(extra)
        m = cfwarp.put_model(mjm, comfree_efc="full" if extra else "lean")
        d = cfwarp.make_data(mjm, nworld=2, nconmax=8, comfree_efc=m.comfree_efc)
        d.qpos.assign(np.array([WRONG_POSE, mjm.qpos0], dtype=np.float32))
        for detect in (cfwarp.fwd_position, cfwarp.collision, cfwarp.step1):
            d.repairs.zero_()
            cfwarp.kinematics(m, d)
            detect(m, d)
            assert d.contact.dist.numpy()[: d.nacon.numpy()[0]].min() > -1e-4
            assert d.repairs.numpy().tolist() == [1, 0]


def poses(seed: int, count: int, half_height: float) -> np.ndarray:
    """Poses of a body on a table: nearly level, and from 0.1 um to 1 mm deep in it.

    In all but a few the lowest point of the body is not quite half its height below its middle.
    """
    rng = np.random.default_rng(seed)
    tilt, yaw = 10.0 ** rng.uniform(-8, -3, count), rng.uniform(-np.pi, np.pi, count)
    axis = rng.uniform(-np.pi, np.pi, count)
    lean = np.stack([tilt * np.cos(axis), tilt * np.sin(axis)], axis=1) / 2
    quat = np.column_stack([np.ones(count), lean, np.zeros(count)])
    turned = np.zeros_like(quat)
    for i, angle in enumerate(yaw):
        turn = np.array([np.cos(angle / 2), 0, 0, np.sin(angle / 2)])
        mujoco.mju_mulQuat(turned[i], quat[i] / np.linalg.norm(quat[i]), turn)
    depth = 10.0 ** rng.uniform(-7, -3, count)
    sides = rng.uniform(-0.3, 0.3, (count, 2))
    return np.column_stack([sides, half_height - depth, turned])


# A body of each kind, 10 m from the next, on a plate of its own.
KINDS = {
    "cylinder": ('type="cylinder" size=".026 .04"', 0.04),
    "ellipsoid": ('type="ellipsoid" size=".03 .04 .05"', 0.05),
    "box": ('type="box" size=".03 .02 .04"', 0.04),
    "tin": ('type="cylinder" size=".05 .01"', 0.01),
}
PLATES = {
    "box": 'type="box" size=".4 .4 .025" pos="{} 0 -.025"',
    "cylinder": 'type="cylinder" size=".5 .025" pos="{} 0 -.025"',
}


def row_of(plate: str) -> mujoco.MjModel:
    bodies = "".join(
        f"<geom {PLATES[plate].format(10 * i)}/><body><freejoint/><geom {geom}/></body>"
        for i, (geom, _) in enumerate(KINDS.values())
    )
    return mujoco.MjModel.from_xml_string(f"<mujoco><worldbody>{bodies}</worldbody></mujoco>")


def poses_on(count: int) -> np.ndarray:
    columns = []
    for i, (_, height) in enumerate(KINDS.values()):
        each = poses(seed=i, count=count, half_height=height)
        each[:, 0] += 10 * i
        columns.append(each)
    return np.hstack(columns)


@pytest.mark.parametrize("plate", PLATES)
def test_of_bodies_near_rest_no_contact_is_missed_or_too_deep(plate):
    mjm, qpos = row_of(plate), poses_on(500)
    _, found, repairs = collide(mjm, qpos)
    assert repairs.sum() > 100  # MuJoCo Warp misses the first contact of these, or worse
    differ = {"missed": 0, "too deep": 0, "not deep enough": 0, "turned": 0, "beside": 0}
    for contacts, mjd in zip(found, contacts_of_mujoco(mjm, qpos), strict=True):
        for body in range(1, mjm.nbody):
            geom = mjm.body_geomadr[body]
            theirs = (mjd.contact.geom == geom).any(axis=1)
            if not theirs.any() or mjd.contact.dist[theirs].min() > -2e-6:
                continue
            ours = (contacts["geom"] == geom).any(axis=1)
            if not ours.any():
                differ["missed"] += 1
                continue
            right, depth = -mjd.contact.dist[theirs].min(), -contacts["dist"][ours].min()
            differ["too deep"] += depth > 1.1 * right + 5e-6
            differ["not deep enough"] += depth < 0.9 * right - 5e-6
            normal = contacts["frame"][ours][:, 0]
            differ["turned"] += np.abs(normal[:, 2]).min() < np.cos(0.2)
            away = contacts["pos"][ours][:, :2] - mjd.xpos[body, :2]
            differ["beside"] += np.linalg.norm(away, axis=1).max() > 1.1 * mjm.geom_rbound[geom]
    # MuJoCo C itself errs about one of a thousand cylinders on cylinders.
    assert sum(differ.values()) <= (2 if plate == "cylinder" else 0), differ


def test_contacts_that_were_not_repaired_are_bit_for_bit_those_of_mujoco_warp():
    mjm, qpos = row_of("box"), poses_on(200)
    _, ours, repairs = collide(mjm, qpos)
    _, theirs, _ = collide(mjm, qpos, checked=False)
    same = np.flatnonzero(repairs == 0)
    assert len(same) > 50
    for i in same:
        for name, values in theirs[i].items():
            np.testing.assert_array_equal(ours[i][name], values, name)


ROUND = """
<mujoco>
  <worldbody>
    <body><freejoint/><geom type="ellipsoid" size=".1 .08 .05" margin=".004"/></body>
    <body><freejoint/><geom type="{}" size=".03 .06" margin=".002"/></body>
  </worldbody>
</mujoco>
"""


@pytest.mark.parametrize("kind", ["sphere", "capsule"])
def test_a_radius_and_a_margin_are_part_of_what_is_found_anew(kind):
    mjm = mujoco.MjModel.from_xml_string(ROUND.format(kind))
    rng = np.random.default_rng(0)
    qpos = rng.normal(size=(1000, 14))
    qpos[:, :3] = 0
    qpos[:, 7:10] *= 0.04
    for quat in (slice(3, 7), slice(10, 14)):
        qpos[:, quat] /= np.linalg.norm(qpos[:, quat], axis=1, keepdims=True)
    _, found, repairs = collide(mjm, qpos)
    repaired = np.flatnonzero(repairs)
    assert len(repaired) > 5
    for i, mjd in zip(repaired, contacts_of_mujoco(mjm, qpos[repaired]), strict=True):
        np.testing.assert_allclose(found[i]["dist"], mjd.contact.dist, rtol=0.02, atol=1e-5)
        # Deep in an ellipsoid two ways out may be as short, and it is in one of two places.
        if found[i]["frame"][0, 0] @ mjd.contact.frame[0, :3] > 0.9999:
            np.testing.assert_allclose(found[i]["pos"], mjd.contact.pos, atol=2e-3)
        np.testing.assert_allclose(found[i]["includemargin"], 0.006, rtol=1e-5)


def test_a_repaired_contact_has_the_parameters_of_its_pair():
    mjm = can(
        '<contact><pair geom1="can" geom2="table" condim="4" friction=".5 .5 .1 .01 .01" '
        'solref=".03 2"/></contact>'
    )
    _, found, repairs = collide(mjm, [WRONG_POSE])
    assert repairs.tolist() == [1]
    assert found[0]["dim"].tolist() == [4] * 4
    np.testing.assert_allclose(found[0]["friction"], [[0.5, 0.5, 0.1, 0.01, 0.01]] * 4)
    np.testing.assert_allclose(found[0]["solref"], [[0.03, 2.0]] * 4)


def test_a_sensor_of_a_distance_reads_what_was_found_anew():
    mjm = can('<sensor><distance geom1="can" geom2="table" cutoff="1"/></sensor>')
    m, mjd = mujoco_warp.put_model(mjm), mujoco.MjData(mjm)
    d, _, repairs = collide(mjm, [WRONG_POSE])
    mujoco_warp.sensor_pos(m, d)
    mjd.qpos[:] = WRONG_POSE
    mujoco.mj_forward(mjm, mjd)
    assert repairs.tolist() == [1]
    np.testing.assert_allclose(d.sensordata.numpy()[0], mjd.sensordata, atol=2e-7)


def test_bodies_that_are_nowhere_touch_nothing():
    pose = np.array(WRONG_POSE)
    pose[2] = np.nan
    _, found, _ = collide(can(), [pose, WRONG_POSE])
    assert [len(contacts["dist"]) for contacts in found] == [0, 4]
