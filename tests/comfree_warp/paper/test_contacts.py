"""Contacts without a Jacobian: the same rows and forces, and nothing that grows with njmax x nv."""

import mujoco
import mujoco_warp
import numpy as np
import pytest
import reference
import scenes
import warp as wp
from contact_scenes import BELT, HANGING, shuffle_contacts
from engine_rows import engine_rows, relative_error

import comfree_warp as cfwarp
from comfree_warp.shared.fixed_point import from_fixed, to_fixed

pytestmark = pytest.mark.engine

K, D = 0.2, 0.001


def shaken(xml: str, seed: int = 0) -> tuple[mujoco.MjModel, mujoco.MjData]:
    mjm = mujoco.MjModel.from_xml_string(xml)
    mjd = mujoco.MjData(mjm)
    mjd.qvel[:] = np.random.default_rng(seed).normal(0, 0.5, mjm.nv).astype(np.float32)
    mujoco.mj_forward(mjm, mjd)
    return mjm, mjd


@pytest.fixture(params=["pyramidal", "elliptic"])
def cone(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.mark.parametrize("seed", range(3))
def test_forces_on_a_moving_belt_are_those_of_the_reference(cone, seed, device):
    mjm, mjd = shaken(BELT.format(cone=cone), seed)
    assert mjd.ncon > 8
    m, d = (
        cfwarp.put_model(mjm, comfree_stiffness=K, comfree_damping=D),
        cfwarp.put_data(mjm, mjd, nconmax=64, njmax=512),
    )
    cfwarp.forward(m, d)
    qfrc_constraint = d.qfrc_constraint.numpy()[0]
    rows, forces = engine_rows(mjm, m, d)
    assert len(set(rows.type)) == 2  # frictionless, and those of the cone
    qacc_smooth = d.qacc_smooth.numpy()[0].astype(float)
    expected = reference.row_forces(rows, qacc_smooth, mjm.opt.timestep, K, D)
    assert relative_error(forces, expected) < 1e-4
    assert relative_error(qfrc_constraint, rows.J.T @ expected) < 1e-4


@pytest.mark.parametrize("jacobian", ["dense", "sparse"])
def test_every_world_has_the_forces_of_its_own_state_and_parameters(cone, jacobian, device):
    mjm = mujoco.MjModel.from_xml_string(HANGING.format(cone=cone, jacobian=jacobian))
    stiffness = [0.1, 0.2, 0.4]
    m = cfwarp.put_model(mjm, comfree_stiffness=stiffness, comfree_damping=D)
    d = cfwarp.make_data(mjm, 3, nconmax=64, njmax=512)
    speeds = np.random.default_rng(0).normal(0, 0.5, (3, mjm.nv)).astype(np.float32)
    d.qvel.assign(speeds)
    cfwarp.forward(m, d)
    for world in range(3):
        mjd = mujoco.MjData(mjm)
        mjd.qvel[:] = speeds[world]
        mujoco.mj_forward(mjm, mjd)
        assert mjd.ncon > 6
        expected = reference.step_reference(mjm, mjd, stiffness[world], D)
        found = d.qfrc_constraint.numpy()[world]
        assert relative_error(found, expected.qfrc_constraint) < 2e-4


def test_an_adhesion_actuator_pulls_as_mujoco_warps(cone, device):
    xml = f"""<mujoco><option cone="{cone}"/><worldbody><geom type="plane" size="1 1 .1"/>
      <body name="b" pos="0 0 .099"><freejoint/><geom type="box" size=".1 .1 .1" mass="1"/></body>
      </worldbody><actuator><adhesion body="b" ctrlrange="0 1" gain="50"/></actuator></mujoco>"""
    mjm = mujoco.MjModel.from_xml_string(xml)
    mjd = mujoco.MjData(mjm)
    mjd.ctrl[0] = 1.0
    mujoco.mj_forward(mjm, mjd)
    m, d = cfwarp.put_model(mjm), cfwarp.put_data(mjm, mjd, nconmax=32, njmax=128)
    cfwarp.step(m, d)
    np.testing.assert_allclose(d.qfrc_actuator.numpy()[0], mjd.qfrc_actuator, atol=1e-4)
    assert mjd.qfrc_actuator[2] == pytest.approx(-50)


@pytest.mark.parametrize("bit", ["CONTACT", "CONSTRAINT"])
def test_disabled_contacts_push_nothing_though_they_were_found(bit, device):
    mjm, mjd = shaken(BELT.format(cone="pyramidal"))
    m, d = cfwarp.put_model(mjm), cfwarp.put_data(mjm, mjd, nconmax=64, njmax=512)
    cfwarp.forward(m, d)
    assert d.qfrc_constraint.numpy().any()
    m.opt.run_collision_detection = False
    m.opt.disableflags |= mujoco_warp.DisableBit[bit]
    cfwarp.forward(m, d)
    assert d.nefc.numpy()[0] == 0
    assert not d.qfrc_constraint.numpy().any()


def test_stages_called_one_by_one_and_twice_are_a_forward(cone, device):
    mjm, mjd = shaken(BELT.format(cone=cone))
    m, d = cfwarp.put_model(mjm), cfwarp.put_data(mjm, mjd, nconmax=64, njmax=512)
    cfwarp.forward(m, d)
    nefc, expected = d.nefc.numpy()[0], d.qfrc_constraint.numpy().copy()
    cfwarp.fwd_position(m, d)
    cfwarp.fwd_velocity(m, d)
    cfwarp.fwd_actuation(m, d)
    cfwarp.fwd_acceleration(m, d, factorize=True)
    for _ in range(2):
        cfwarp.constraint_forces(m, d)
        assert d.nefc.numpy()[0] == nefc
        np.testing.assert_allclose(d.qfrc_constraint.numpy(), expected, rtol=1e-5, atol=1e-4)
    assert d.overflow.numpy()[0] == 0


@wp.kernel
def _round_trip(values: wp.array[float], out: wp.array[float]):
    total = wp.int64(0)
    for _ in range(1000):
        total += to_fixed(values[wp.tid()])
    out[wp.tid()] = from_fixed(total)


def test_fixed_point_sums_are_near_and_never_wrap():
    values = np.array([0.0, 1e-6, -3.3, 1e5, -1e30, np.inf, np.nan], dtype=np.float32)
    with wp.ScopedDevice("cpu"):
        out = wp.zeros(len(values), dtype=float)
        wp.launch(_round_trip, dim=len(values), inputs=[wp.array(values)], outputs=[out])
    found = out.numpy()
    np.testing.assert_allclose(found[:4], 1000 * values[:4], rtol=1e-2, atol=1e-9)
    np.testing.assert_allclose(found[1:4], 1000 * values[1:4], rtol=4e-3)
    assert found[4] == pytest.approx(-3.36e10, rel=1e-2)
    assert found[5] == found[6] == pytest.approx(3.36e10, rel=1e-2)


def test_rows_of_contacts_are_mujoco_warps(cone, device):
    mjm, mjd = shaken(BELT.format(cone=cone))
    m, d = cfwarp.put_model(mjm), cfwarp.put_data(mjm, mjd, nconmax=64, njmax=512)
    cfwarp.forward(m, d)
    ncon, ours = int(d.nacon.numpy()[0]), d.contact.efc_address.numpy().copy()
    names = ("type", "id", "pos", "margin", "D", "frictionloss")
    found = {name: getattr(d.efc, name).numpy()[0].copy() for name in names}
    mujoco_warp.make_constraint(m, d)
    theirs = d.contact.efc_address.numpy()
    np.testing.assert_array_equal(ours[:ncon] >= 0, theirs[:ncon] >= 0)
    made = theirs[:ncon] >= 0
    for name in names:
        expected = getattr(d.efc, name).numpy()[0][theirs[:ncon][made]]
        np.testing.assert_allclose(found[name][ours[:ncon][made]], expected, rtol=2e-5, atol=1e-7)


def test_memory_for_a_jacobian_does_not_grow_with_the_contacts():
    mjm = mujoco.MjModel.from_xml_path(str(scenes.PATHS["own/primitives.xml"]))
    sizes = [
        cfwarp.make_data(mjm, nconmax=nconmax, njmax=4 * nconmax).efc.J.size
        for nconmax in (100, 1000)
    ]
    assert sizes[0] == sizes[1] <= 3 * mjm.nv + 1


@pytest.mark.parametrize("scene", scenes.PATHS)
def test_the_jacobian_of_all_other_rows_fits(scene):
    mjm = mujoco.MjModel.from_xml_path(str(scenes.PATHS[scene]))
    mjm.opt.jacobian = mujoco.mjtJacobian.mjJAC_SPARSE
    try:
        m = cfwarp.put_model(mjm)
    except NotImplementedError as refusal:
        pytest.skip(str(refusal))
    for seed in range(2):
        mjd = scenes.random_state(mjm, seed)
        mujoco.mj_resetData(mjm, fresh := mujoco.MjData(mjm))
        fresh.qpos[:], fresh.qvel[:] = mjd.qpos, mjd.qvel
        d = cfwarp.put_data(mjm, fresh, nconmax=2 * mjd.ncon + 128, njmax=2 * mjd.nefc + 512)
        cfwarp.forward(m, d)
        assert not d.overflow.numpy()[0] & mujoco_warp.OverflowType.NJMAX_NNZ


def test_contacts_whose_rows_do_not_fit_push_all_the_same_and_it_is_told(cone, device):
    mjm, mjd = shaken(BELT.format(cone=cone))
    m = cfwarp.put_model(mjm)
    mjd = mujoco.MjData(mjm)
    full, short = (cfwarp.put_data(mjm, mjd, nconmax=64, njmax=njmax) for njmax in (512, 5))
    short.overflow_told.fill_(-1)
    for d in (full, short):
        cfwarp.step(m, d)
    assert short.overflow.numpy()[0] & mujoco_warp.OverflowType.NEFC
    assert full.overflow.numpy()[0] == 0
    np.testing.assert_allclose(short.qvel.numpy(), full.qvel.numpy(), rtol=1e-5, atol=1e-6)


def test_gravity_compensation_is_that_of_mujoco_warp(device):
    xml = """<mujoco><worldbody><body gravcomp=".5"><joint axis="0 1 0" actuatorgravcomp="{}"/>
      <geom type="capsule" fromto="0 0 0 .3 0 0" size=".02"/>
      <body pos=".3 0 0" gravcomp=".2"><joint axis="0 0 1"/><joint axis="0 1 0"/>
        <geom type="capsule" fromto="0 0 0 .3 .1 0" size=".02"/></body></body>
    </worldbody></mujoco>"""
    for by_actuator in ("false", "true"):
        mjm = mujoco.MjModel.from_xml_string(xml.format(by_actuator))
        m, their_m = cfwarp.put_model(mjm), mujoco_warp.put_model(mjm)
        d, their_d = cfwarp.make_data(mjm), mujoco_warp.make_data(mjm)
        cfwarp.step(m, d)
        mujoco_warp.step(their_m, their_d)
        for field in ("qfrc_gravcomp", "qfrc_passive", "qvel"):
            values, wanted = getattr(d, field).numpy(), getattr(their_d, field).numpy()
            np.testing.assert_allclose(values, wanted, rtol=1e-5, atol=1e-6)
        assert d.qfrc_gravcomp.numpy()[:, [0, 2]].all()


def test_two_runs_in_dense_contact_are_bit_identical_on_the_cpu():
    mjm = mujoco.MjModel.from_xml_path(str(scenes.PATHS["own/primitives.xml"]))
    results = []
    with wp.ScopedDevice("cpu"):
        for _ in range(2):
            m, d = cfwarp.put_model(mjm), cfwarp.make_data(mjm, nworld=2, nconmax=800, njmax=3200)
            with wp.ScopedCapture() as capture:
                cfwarp.step(m, d)
            for _ in range(700):
                wp.capture_launch(capture.graph)
            assert d.nacon.numpy()[0] > 100
            assert d.overflow.numpy().max() == 0
            results.append((d.qpos.numpy(), d.qvel.numpy(), d.efc.force.numpy()))
    for one, other in zip(*results, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("scene", ["own/humanoid/humanoid.xml", "own/constraints.xml"])
@pytest.mark.parametrize("jacobian", ["DENSE", "SPARSE"])
def test_the_determinism_option_changes_the_rounding_only(scene, jacobian, device):
    mjm = mujoco.MjModel.from_xml_path(str(scenes.PATHS[scene]))
    mjm.opt.jacobian = getattr(mujoco.mjtJacobian, f"mjJAC_{jacobian}")
    mjd, results = scenes.random_state(mjm, 0), []
    for deterministic in (False, True):
        m, d = cfwarp.put_model(mjm), cfwarp.put_data(mjm, mjd, nconmax=256, njmax=2048)
        m.opt.deterministic = deterministic
        for _ in range(5):
            cfwarp.step(m, d)
        results.append((d.qvel.numpy(), d.qfrc_constraint.numpy()))
    for one, other in zip(*results, strict=True):
        assert relative_error(other, one) < 1e-4


def test_with_the_determinism_option_the_order_of_contacts_does_not_matter(device):
    mjm = mujoco.MjModel.from_xml_path(str(scenes.PATHS["own/primitives.xml"]))
    mjd = mujoco.MjData(mjm)
    mujoco.mj_step(mjm, mjd, 700)
    m, d = cfwarp.put_model(mjm), cfwarp.put_data(mjm, mjd, nconmax=800, njmax=3200)
    found = {}
    for deterministic in (False, True):
        m.opt.deterministic = deterministic
        cfwarp.forward(m, d)
        found[deterministic] = []
        for seed in range(3):
            shuffle_contacts(d, seed)
            cfwarp.constraint_forces(m, d)
            found[deterministic].append(d.qfrc_constraint.numpy().copy())
    assert any((found[False][0] != other).any() for other in found[False])  # else it is no test
    for other in found[True]:
        np.testing.assert_array_equal(other, found[True][0])
    assert relative_error(found[True][0], found[False][0]) < 1e-4


def test_on_one_core_many_geoms_are_sorted_and_few_are_tested_in_pairs():
    kinds = mujoco_warp.BroadphaseType
    models = {name: scenes.PATHS[f"own/{name}.xml"] for name in ("primitives", "humanoid/humanoid")}
    with wp.ScopedDevice("cpu"):
        chosen = {
            name: cfwarp.put_model(mujoco.MjModel.from_xml_path(str(path))).opt.broadphase
            for name, path in models.items()
        }
    assert chosen == {"primitives": kinds.SAP_TILE, "humanoid/humanoid": kinds.NXN}


def test_rows_of_contacts_come_back_to_the_host_with_their_forces(cone, device):
    mjm, mjd = shaken(BELT.format(cone=cone))
    m, d = cfwarp.put_model(mjm), cfwarp.put_data(mjm, mjd, nconmax=64, njmax=512)
    cfwarp.forward(m, d)
    cfwarp.get_data_into(mjd, mjm, d)
    nefc = int(d.nefc.numpy()[0])
    assert mjd.nefc == nefc > 0
    np.testing.assert_allclose(np.sort(mjd.efc_force), np.sort(d.efc.force.numpy()[0, :nefc]))
