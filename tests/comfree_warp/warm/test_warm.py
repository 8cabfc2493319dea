"""The warm law in the engine: against its float64 reference, and what it remembers and forgets."""

import mujoco
import mujoco_warp
import numpy as np
import pytest
import scenes
import warm_engine
import warm_reference
import warp as wp
from contact_scenes import BELT, HANGING, shuffle_contacts
from engine_rows import relative_error

import comfree_warp as cfwarp
from benchmark.fidelity import scenes as fidelity_scenes
from mjsim import engines
from mjsim.engines.buffers import size_buffers

pytestmark = pytest.mark.engine

CONES = {"pyramidal": mujoco.mjtCone.mjCONE_PYRAMIDAL, "elliptic": mujoco.mjtCone.mjCONE_ELLIPTIC}

# Of the largest component, at every step, from the same state and memory.
TOLERANCE = 1e-4
# MuJoCo Warp's own aref of connect and weld rows is that far from MuJoCo C's.
TOLERANCES = {"constraints.xml": 2e-2}


@pytest.fixture(params=[1, 2], ids=["one pass", "two passes"])
def passes(request: pytest.FixtureRequest) -> int:
    return request.param


def put(
    mjm: mujoco.MjModel, mjd: mujoco.MjData, passes: int = 1, nworld: int = 1
) -> tuple[cfwarp.Model, cfwarp.Data]:
    m = cfwarp.put_model(mjm, comfree_law="warm", comfree_passes=passes)
    return m, cfwarp.put_data(mjm, mjd, nworld=nworld, **size_buffers(mjm))


def under_way(mjm: mujoco.MjModel, nstep: int) -> mujoco.MjData:
    """A state that MuJoCo C reaches after so many steps."""
    mjd = engines.initial_data(mjm)
    mujoco.mj_step(mjm, mjd, nstep)
    return mjd


def largest_error(mjm: mujoco.MjModel, mjd: mujoco.MjData, passes: int, nstep: int) -> float:
    """Of `qfrc_constraint` and of what is kept, relative, over so many steps of the engine."""
    m, d = put(mjm, mjd, passes)
    law, worst, largest, kept = warm_reference.WarmLaw(mjm, passes), 0.0, 0.0, 0.0
    for step in range(nstep):
        cfwarp.forward(m, d)
        if step:
            law.memory = warm_engine.remembered(mjm, d)
        result = warm_engine.reference_step(law, mjm, d)
        expected, found = result.qfrc_constraint, d.qfrc_constraint.numpy()[0]
        largest = max(largest, np.abs(expected).max(initial=0.0))
        # Relative to what the forces are in this run: in a step without any, rounding is all.
        worst = max(worst, np.abs(found - expected).max(initial=0.0))
        cfwarp.step(m, d)
        kept = max(kept, memory_error(warm_engine.remembered(mjm, d), result.memory))
    assert int(d.overflow.numpy()[0]) == 0
    return max(kept, worst / largest if largest else worst)


def memory_error(found: warm_reference.Memory, expected: warm_reference.Memory) -> float:
    """Of the forces and means that are kept, in whatever order, relative to the largest of them."""

    def kept(memory: warm_reference.Memory) -> np.ndarray:
        contacts = [
            [*it.geom, *np.float32(it.pos), it.mean, it.normal, *it.force, *it.torque]
            for it in memory.contacts
            # MuJoCo C makes rows of what does not touch, too; what cannot move has any force.
            # A point may be told twice: then the means say which is which.
            if (it.normal or it.mean) and it.normal < 1e12
        ]
        return np.array(sorted(contacts), dtype=float).reshape(len(contacts), 13)

    one, other = kept(found), kept(expected)
    assert one.shape == other.shape
    largest = np.abs(other[:, 5:]).max(initial=1.0)
    contacts = (one - other)[:, 5:] / largest
    rows = [
        np.subtract(found.rows[key], force) / np.maximum(1.0, np.abs(force))
        for key, force in expected.rows.items()
    ]
    return max(np.abs(contacts).max(initial=0.0), np.abs(rows).max(initial=0.0))


# ------------------------------------------------------------------------- against the reference


# Of 100, since the reference takes a second or more for a step with so many rows.
FEWER_STEPS = {"primitives.xml": 8, "collision.xml": 40, "flex/floppy.xml": 25}


@pytest.mark.parametrize("name", scenes.OWN)
def test_steps_agree_with_the_float64_reference(name, passes, device):
    mjm = mujoco.MjModel.from_xml_path(str(scenes.OWN_FOLDER / name))
    mjm.opt.cone = CONES["pyramidal" if passes == 1 else "elliptic"]
    error = largest_error(mjm, under_way(mjm, 100), passes, FEWER_STEPS.get(name, 100))
    assert error < TOLERANCES.get(name, TOLERANCE)


# A column that leans on a wall, with a part welded on; a box across two; a column on a hinged tray.
STACKS = """
<mujoco>
  <option cone="{cone}" jacobian="{jacobian}" integrator="implicitfast"/>
  <default><geom type="box" size=".05 .05 .05" mass="1"/></default>
  <worldbody>
    <geom type="plane" size="5 5 1"/>
    <geom pos="-.1 0 .15" size=".05 .1 .15"/>
    <body pos="0 0 .15" euler="0 -1 5"><freejoint/><geom/></body>
    <body pos="0 .002 .05" euler="0 0 2"><freejoint/><geom/></body>
    <body pos=".15 0 .05"><freejoint/><geom/></body>
    <body pos=".07 0 .12"><freejoint/><geom size=".14 .03 .02" mass="3"/>
      <body pos=".05 0 .05"><geom type="sphere" size=".03" mass=".2"/></body></body>
    <body pos="1 0 .5"><joint axis="0 1 0" stiffness="50" damping="2"/>
      <geom size=".2 .2 .01"/></body>
    <body pos="1 0 .559" euler="3 0 0"><freejoint/><geom/></body>
    <body pos="1 .003 .66"><freejoint/><geom/></body>
  </worldbody>
</mujoco>
"""


@pytest.mark.parametrize("cone", CONES)
@pytest.mark.parametrize("jacobian", ["dense", "sparse"])
@pytest.mark.parametrize("xml", [BELT, HANGING, STACKS], ids=["belt", "hanging", "stacks"])
def test_both_cones_and_layouts_agree_with_the_reference(xml, jacobian, cone, passes, device):
    mjm = mujoco.MjModel.from_xml_string(xml.format(cone=cone, jacobian=jacobian))
    mjm.opt.jacobian = getattr(mujoco.mjtJacobian, f"mjJAC_{jacobian.upper()}")
    assert largest_error(mjm, under_way(mjm, 5), passes, 40) < TOLERANCE


@pytest.mark.parametrize("cone", CONES)
@pytest.mark.parametrize("name", ["flex/floppy.xml", "actuation/adhesion.xml"])
def test_contacts_that_have_a_jacobian_agree_with_the_reference(name, cone, passes, device):
    mjm = mujoco.MjModel.from_xml_path(str(scenes.THEIR_FOLDER / name))
    mjm.opt.cone = CONES[cone]
    mjm.opt.integrator = mujoco.mjtIntegrator.mjINT_EULER
    assert largest_error(mjm, under_way(mjm, 150), passes, 20) < TOLERANCE


def test_the_strain_rows_of_a_flex_agree_with_the_reference(passes, device):
    mjm = mujoco.MjModel.from_xml_path(str(scenes.THEIR_FOLDER / "flex/moving_base_strain.xml"))
    mjm.opt.integrator = mujoco.mjtIntegrator.mjINT_EULER
    assert largest_error(mjm, scenes.random_state(mjm, 0), passes, 20) < TOLERANCE


def test_contact_forces_read_the_same_from_rows_of_either_cone(device):
    forces = {}
    for rows in CONES:
        mjm = mujoco.MjModel.from_xml_string(BELT.format(cone=rows))
        m, d = put(mjm, engines.initial_data(mjm))
        cfwarp.forward(m, d)
        ncon = int(d.nacon.numpy()[0])
        ids, out = wp.array(np.arange(ncon), dtype=int), wp.zeros(ncon, dtype=wp.spatial_vector)
        mujoco_warp.contact_force(m, d, ids, False, out)
        forces[rows] = out.numpy()
    assert np.count_nonzero(forces["elliptic"][:, 0]) > 8
    assert relative_error(forces["pyramidal"], forces["elliptic"]) < 1e-4


@pytest.mark.parametrize("timestep", [0.001, 0.002, 0.005, 0.01])
def test_a_column_of_ten_boxes_stands(timestep, passes, device):
    mjm = fidelity_scenes.BY_NAME["stack of 10"].model(timestep, "implicitfast")
    m, d = put(mjm, engines.initial_data(mjm), passes)
    with wp.ScopedCapture() as capture:
        cfwarp.step(m, d)
    for _ in range(round(2.0 / timestep)):
        wp.capture_launch(capture.graph)
    moved = np.abs(d.qpos.numpy()[0] - mjm.qpos0).reshape(10, 7)
    assert moved[:, :3].max() < 0.02
    depths = -d.contact.dist.numpy()[: int(d.nacon.numpy()[0])]
    assert 0.0006 < depths.max() < 0.002  # Newton's: 0.9 mm


def test_a_box_carries_a_hundred_times_its_mass_at_a_long_step(passes, device):
    mjm = fidelity_scenes.BY_NAME["mass ratios"].model(0.01, "implicitfast")
    m, d = put(mjm, engines.initial_data(mjm), passes)
    with wp.ScopedCapture() as capture:
        cfwarp.step(m, d)
    for _ in range(300):
        wp.capture_launch(capture.graph)
    heavy = mjm.jnt_qposadr[mjm.body("heavy100").jntadr[0]] + np.arange(3)
    moved = d.qpos.numpy()[0, heavy] - mjm.qpos0[heavy]
    assert np.abs(moved[:2]).max() < 0.0015  # it was put 0.1 mm askew; Newton's: 1.8 mm
    assert moved[2] == pytest.approx(-0.0099, abs=3e-4)  # Newton's: 9.9 mm


# ------------------------------------------------------------------------------------- memory

STACK = """
<mujoco>
  <option timestep="0.002" integrator="implicitfast"/>
  <worldbody>
    <geom type="plane" size="5 5 1"/>
    <body pos="0 0 .0999"><freejoint/><geom type="box" size=".1 .1 .1" mass="1"/></body>
    <body pos="0 0 .2997"><freejoint/><geom type="box" size=".1 .1 .1" mass="2"/></body>
    <body pos="2 0 .0999"><freejoint/><geom type="box" size=".1 .1 .1" mass="3"/></body>
  </worldbody>
  <keyframe><key qpos="0 0 .0999 1 0 0 0  0 0 .2997 1 0 0 0  2 0 .0999 1 0 0 0"/></keyframe>
</mujoco>
"""


def stack(nworld: int = 1) -> tuple[mujoco.MjModel, cfwarp.Model, cfwarp.Data]:
    mjm = mujoco.MjModel.from_xml_string(STACK)
    return mjm, *put(mjm, engines.initial_data(mjm), nworld=nworld)


def run(m: cfwarp.Model, d: cfwarp.Data, nstep: int = 10) -> np.ndarray:
    for _ in range(nstep):
        cfwarp.step(m, d)
    return d.qvel.numpy().copy()


def weights(d: cfwarp.Data) -> np.ndarray:
    """Vertical constraint force on the three boxes, (nworld, 3) N."""
    return d.qfrc_constraint.numpy()[:, 2::6]


def test_a_resting_stack_keeps_its_forces_from_step_to_step(device):
    _, m, d = stack()
    run(m, d, 300)
    np.testing.assert_allclose(weights(d)[0], 9.81 * np.array([1, 2, 3]), rtol=0.02)


def test_forward_can_be_called_any_number_of_times(passes, device):
    mjm = mujoco.MjModel.from_xml_string(STACK)
    results = []
    for again in (0, 3):
        m, d = put(mjm, engines.initial_data(mjm), passes)
        run(m, d)
        for _ in range(again):
            cfwarp.forward(m, d)
        results.append(run(m, d))
    np.testing.assert_array_equal(*results)


def test_reset_data_forgets(device):
    mjm, m, d = stack()
    cfwarp.reset_data(m, d)
    first = run(m, d)
    # As if the last step had ended in the very state that follows.
    d.warm.mem_time.zero_()
    d.warm.mem_qpos.assign(mjm.qpos0[None].astype(np.float32))
    cfwarp.reset_data(m, d)
    np.testing.assert_array_equal(run(m, d), first)


def test_reset_data_forgets_in_the_chosen_worlds_only(device):
    mjm, m, d = stack(nworld=2)
    start = mjm.key_qpos[0].astype(np.float32)
    first = run(m, d)[0]
    kept = d.warm.mem_time.numpy()[0]
    cfwarp.reset_data(m, d, wp.array([False, True], dtype=bool))
    assert d.warm.mem_time.numpy()[0] == kept
    assert np.isnan(d.warm.mem_time.numpy()[1])
    qpos = d.qpos.numpy()
    qpos[1] = start
    d.qpos.assign(qpos)
    np.testing.assert_array_equal(run(m, d)[1], first)


def test_a_state_that_the_caller_writes_back_starts_as_the_first_one_did(device):
    mjm, m, d = stack()
    first = run(m, d)
    d.qpos.assign(mjm.key_qpos.astype(np.float32))
    d.qvel.zero_()
    d.time.zero_()
    np.testing.assert_array_equal(run(m, d), first)


def test_a_written_state_voids_the_memory_of_its_own_tree_alone(device):
    _, m, d = stack()
    run(m, d)
    qpos = d.qpos.numpy()
    qpos[0, 14] += 1e-4  # the box beside the stack
    d.qpos.assign(qpos)
    cfwarp.forward(m, d)
    np.testing.assert_array_equal(d.warm.valid.numpy()[0], [1, 1, 0])


def test_another_time_voids_the_memory(device):
    _, m, d = stack()
    run(m, d)
    d.time.fill_(7.0)
    cfwarp.forward(m, d)
    assert not d.warm.valid.numpy().any()


def test_an_impulse_does_not_void_the_memory(device):
    _, m, d = stack()
    run(m, d)
    d.qvel.fill_(0.1)
    cfwarp.forward(m, d)
    assert d.warm.valid.numpy().all()


@pytest.mark.parametrize("bit", ["CONTACT", "CONSTRAINT"])
def test_disabled_contacts_push_nothing_and_are_forgotten(bit, device):
    _, m, d = stack()
    run(m, d)
    assert d.qfrc_constraint.numpy().any()
    flags = m.opt.disableflags
    m.opt.disableflags |= mujoco_warp.DisableBit[bit]
    run(m, d, 1)
    assert not d.qfrc_constraint.numpy().any()
    m.opt.disableflags = flags
    cfwarp.forward(m, d)
    assert not d.warm.mean.numpy().any()


def test_every_world_remembers_its_own(passes, device):
    mjm = mujoco.MjModel.from_xml_string(STACK)
    speeds = np.random.default_rng(0).normal(0, 0.3, (3, mjm.nv)).astype(np.float32)
    m, d = put(mjm, engines.initial_data(mjm), passes, nworld=3)
    d.qvel.assign(speeds)
    together = run(m, d, 50)
    for world in range(3):
        m, d = put(mjm, engines.initial_data(mjm), passes)
        d.qvel.assign(speeds[world : world + 1])
        np.testing.assert_allclose(run(m, d, 50)[0], together[world], atol=1e-5)


def test_the_order_of_contacts_does_not_matter(passes, device):
    mjm = mujoco.MjModel.from_xml_path(str(scenes.PATHS["own/primitives.xml"]))
    m, d = put(mjm, under_way(mjm, 700), passes)
    run(m, d, 5)
    found = {}
    for deterministic in (False, True):
        m.opt.deterministic = deterministic
        cfwarp.forward(m, d)
        found[deterministic] = []
        for seed in range(3):
            shuffle_contacts(d, seed)
            cfwarp.constraint_forces(m, d)
            found[deterministic].append(d.qfrc_constraint.numpy().copy())
    assert d.nacon.numpy()[0] > 100
    for other in found[False]:
        assert relative_error(other, found[False][0]) < 1e-4
    for other in found[True]:
        np.testing.assert_array_equal(other, found[True][0])


def test_which_geom_of_a_contact_is_told_first_does_not_matter(passes, device):
    """MuJoCo Warp's sorting broad phase tells two geoms of a type in the order of the sweep."""
    mjm = mujoco.MjModel.from_xml_string(STACK)
    m, d = put(mjm, engines.initial_data(mjm), passes)
    d.qvel.fill_(0.05)
    run(m, d, 100)
    cfwarp.forward(m, d)
    expected = d.qfrc_constraint.numpy().copy()
    ncon = int(d.nacon.numpy()[0])
    geom, frame = d.contact.geom.numpy(), d.contact.frame.numpy()
    geom[:ncon] = geom[:ncon, ::-1].copy()
    frame[:ncon, :2] *= -1.0
    d.contact.geom.assign(geom)
    d.contact.frame.assign(frame)
    cfwarp.constraint_forces(m, d)
    assert np.abs(d.warm.force.numpy()[:ncon, 1:3]).max() > 0.01
    assert relative_error(d.qfrc_constraint.numpy(), expected) < 1e-4


def test_a_contact_of_bodies_that_cannot_move_has_no_force(device):
    mjm = mujoco.MjModel.from_xml_string("""<mujoco><worldbody>
      <geom type="plane" size="3 3 .1"/>
      <geom name="a" size=".1" pos="1 0 1"/><geom name="b" size=".1" pos="1.15 0 1"/>
      <body pos="0 0 .0999"><freejoint/><geom type="box" size=".1 .1 .1" mass="1"/></body>
      </worldbody><contact><pair geom1="a" geom2="b"/></contact></mujoco>""")
    m, d = put(mjm, engines.initial_data(mjm))
    run(m, d, 20)
    d.qpos.assign(d.qpos.numpy() + np.array([0, 0, 1, 0, 0, 0, 0], dtype=np.float32))
    cfwarp.forward(m, d)
    assert d.nacon.numpy()[0] == 1
    ids, out = wp.zeros(1, dtype=int), wp.zeros(1, dtype=wp.spatial_vector)
    mujoco_warp.contact_force(m, d, ids, False, out)
    assert not out.numpy().any()


def test_two_runs_are_the_same_bit_for_bit(passes, device):
    if device != "cpu":
        pytest.skip("MuJoCo Warp does not order contacts on CUDA")
    mjm = mujoco.MjModel.from_xml_path(str(scenes.PATHS["own/primitives.xml"]))
    mjd = under_way(mjm, 700)
    results = [run(*put(mjm, mjd, passes), 30) for _ in range(2)]
    np.testing.assert_array_equal(*results)


def test_a_captured_graph_steps_as_the_calls_do(passes, device):
    mjm = mujoco.MjModel.from_xml_string(STACK)
    called = run(*put(mjm, engines.initial_data(mjm), passes), 20)
    m, d = put(mjm, engines.initial_data(mjm), passes)
    with wp.ScopedCapture() as capture:
        cfwarp.step(m, d)
    for _ in range(20):
        wp.capture_launch(capture.graph)
    np.testing.assert_array_equal(d.qvel.numpy(), called)


# ----------------------------------------------------------------------------------- invariants


def test_momentum_of_colliding_bodies_is_kept(passes, device):
    xml = """<mujoco><option gravity="0 0 0" timestep="0.002"/><worldbody>
      <body><freejoint/><geom size=".1" mass="1" condim="6"/></body>
      <body pos=".25 .05 0"><freejoint/><geom type="box" size=".1 .1 .1" mass="3"/></body>
      <body pos=".5 -.03 .02"><freejoint/><geom type="capsule" size=".08 .1" mass="2"/></body>
    </worldbody></mujoco>"""
    mjm = mujoco.MjModel.from_xml_string(xml)
    mjd = mujoco.MjData(mjm)
    mjd.qvel[:3], mjd.qvel[12:15] = [2, 0.1, 0], [-1, 0, 0.2]
    m = cfwarp.put_model(mjm, comfree_law="warm", comfree_passes=passes)
    d = cfwarp.put_data(mjm, mjd, nconmax=32, njmax=128)
    masses = np.array([1, 3, 2])[:, None]

    def momentum() -> np.ndarray:
        return (masses * d.qvel.numpy()[0].reshape(3, 6)[:, :3]).sum(axis=0)

    before, touched = momentum(), 0
    for _ in range(150):
        cfwarp.step(m, d)
        touched = max(touched, int(d.nacon.numpy()[0]))
    assert touched >= 2
    np.testing.assert_allclose(momentum(), before, atol=1e-5)


def energy(mjm: mujoco.MjModel, qpos: np.ndarray, qvel: np.ndarray) -> float:
    """Kinetic and potential, J."""
    mjd = mujoco.MjData(mjm)
    mjd.qpos[:], mjd.qvel[:] = qpos, qvel
    mujoco.mj_fwdPosition(mjm, mjd)
    mujoco.mj_fwdVelocity(mjm, mjd)
    mujoco.mj_energyPos(mjm, mjd)
    mujoco.mj_energyVel(mjm, mjd)
    return float(mjd.energy.sum())


def test_energy_never_grows_in_a_pile_that_falls(passes, device):
    mjm = mujoco.MjModel.from_xml_path(str(scenes.PATHS["own/primitives.xml"]))
    mjm.opt.timestep = 0.002
    mjd = engines.initial_data(mjm)
    m, d = put(mjm, mjd, passes)
    levels = [energy(mjm, mjd.qpos, mjd.qvel)]
    for _ in range(40):
        run(m, d, 25)
        levels.append(energy(mjm, d.qpos.numpy()[0], d.qvel.numpy()[0]))
    assert d.nacon.numpy()[0] > 100
    assert max(np.diff(levels)) < 1e-4 * (levels[0] - levels[-1])


@pytest.mark.parametrize("name", scenes.OWN)
def test_a_long_timestep_leads_to_no_nan(name, passes, device):
    mjm = mujoco.MjModel.from_xml_path(str(scenes.OWN_FOLDER / name))
    mjm.opt.timestep, mjm.opt.integrator = 0.01, mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    m, d = put(mjm, engines.initial_data(mjm), passes)
    assert np.isfinite(run(m, d, 200)).all()


@pytest.mark.parametrize("timestep", [0.002, 0.01])
@pytest.mark.parametrize("mass", [1, 100, 1000])
def test_deep_starts_and_heavy_loads_lead_to_no_nan(mass, timestep, passes, device):
    mjm = mujoco.MjModel.from_xml_string(STACK)
    mjm.opt.timestep = timestep
    mjm.body_mass[2] *= mass
    mjm.body_inertia[2] *= mass
    mujoco.mj_setConst(mjm, mujoco.MjData(mjm))
    mjd = engines.initial_data(mjm)
    mjd.qpos[2::7] -= 0.05
    m, d = put(mjm, mjd, passes)
    assert np.isfinite(run(m, d, 200)).all()
    assert np.abs(d.qvel.numpy()).max() < 20.0  # m/s: thrown perhaps, but not shot away


# ---------------------------------------------------------------------------------- what it takes


@pytest.mark.parametrize("name", ["comfree_stiffness", "comfree_damping"])
def test_the_warm_law_refuses_parameters_that_it_does_not_have(name):
    mjm = mujoco.MjModel.from_xml_string(STACK)
    with pytest.raises(ValueError, match=f"{name}=0.1 with comfree_law='warm'.*no such parameter"):
        cfwarp.put_model(mjm, comfree_law="warm", **{name: 0.1})


@pytest.mark.parametrize(
    ("law", "passes", "told"),
    [
        ("cold", 1, "comfree_law='cold': expected one of paper, warm"),
        ("warm", 5, "comfree_passes=5: expected 1, 2, 3, 4 with comfree_law='warm'"),
        ("paper", 2, "comfree_passes=2: expected 1 with comfree_law='paper'"),
    ],
)
def test_a_law_or_number_of_passes_that_does_not_exist_is_refused(law, passes, told):
    mjm = mujoco.MjModel.from_xml_string(STACK)
    with pytest.raises(ValueError, match=told):
        cfwarp.put_model(mjm, comfree_law=law, comfree_passes=passes)


def test_data_for_the_paper_law_alone_has_no_memory(device):
    mjm = mujoco.MjModel.from_xml_string(STACK)
    m, d = cfwarp.put_model(mjm), cfwarp.make_data(mjm, comfree_law="paper")
    cfwarp.step(m, d)
    assert d.warm is None
    assert m.comfree_law == "paper"
