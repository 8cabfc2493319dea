"""A program written for MuJoCo Warp runs with the import changed, and nothing is silently wrong."""

import inspect

import mujoco
import mujoco_warp
import numpy as np
import pytest
import warp as wp
from guarded import GuardedAllocator

import comfree_warp as cfwarp

pytestmark = pytest.mark.engine

LAWS = pytest.mark.parametrize("law", ["paper", "warm"])

# A little of everything: contacts, limits, friction loss, an equality, tendons, delays, sensors.
VARIED = """
<mujoco>
  <option timestep="0.002"><flag energy="enable"/></option>
  <worldbody>
    <geom type="plane" size="2 2 .1"/>
    <camera pos="0 -2 1"/><light pos="0 0 3"/>
    <body name="ball" pos="0 0 .095"><freejoint/><geom size=".1" condim="4"/></body>
    <body name="box" pos=".3 0 .095"><freejoint/><geom type="box" size=".1 .1 .1"/></body>
    <body name="arm" pos="1 0 1">
      <joint name="hinge" axis="0 1 0" damping=".1" range="-30 30" frictionloss=".05"/>
      <geom type="capsule" fromto="0 0 0 .3 0 0" size=".02"/>
      <body pos=".3 0 0">
        <joint name="elbow" axis="0 1 0" damping=".1"/>
        <geom type="capsule" fromto="0 0 0 .3 0 0" size=".02"/>
        <site name="tip" pos=".3 0 0"/>
      </body>
    </body>
    <body name="shown" mocap="true" pos="0 1 1"/>
  </worldbody>
  <tendon><fixed name="both" limited="true" range="-1 1"><joint joint="hinge" coef="1"/>
    <joint joint="elbow" coef="-1"/></fixed></tendon>
  <equality><joint joint1="hinge" joint2="elbow" polycoef="0 .5 0 0 0"/></equality>
  <actuator>
    <position name="servo" joint="hinge" kp="3" ctrlrange="-1 1" nsample="4" delay=".004"/>
    <general joint="elbow" dyntype="filter" dynprm=".1" gainprm="1"/>
  </actuator>
  <sensor>
    <jointpos joint="hinge" nsample="4" delay=".004"/><accelerometer site="tip"/>
    <jointlimitfrc joint="hinge"/><framelinvel objtype="site" objname="tip"/>
  </sensor>
  <keyframe><key qpos="0 0 .2 1 0 0 0 .4 0 .2 1 0 0 0 .1 .05" ctrl=".2 .1"/></keyframe>
</mujoco>
"""


def put(
    mjm: mujoco.MjModel, mjd: mujoco.MjData | None = None, nworld: int = 1, **model
) -> tuple[cfwarp.Model, cfwarp.Data]:
    m = cfwarp.put_model(mjm, **model)
    mjd = mjd or mujoco.MjData(mjm)
    efc = {"comfree_efc": model.get("comfree_efc", "lean")}
    return m, cfwarp.put_data(mjm, mjd, nworld, nconmax=32, njmax=128, **efc)


def varied(keyframe: bool = False) -> tuple[mujoco.MjModel, mujoco.MjData]:
    mjm = mujoco.MjModel.from_xml_string(VARIED)
    mjd = mujoco.MjData(mjm)
    if keyframe:
        mujoco.mj_resetDataKeyframe(mjm, mjd, 0)
    mujoco.mj_forward(mjm, mjd)
    return mjm, mjd


# ------------------------------------------------------------------------------- nothing is hidden


DELAYED = """
<mujoco>
  <option timestep="0.002" gravity="0 0 0" integrator="{integrator}"/>
  <worldbody><body><joint name="j" type="slide" axis="1 0 0"/><geom size=".1" mass="1"/></body>
    <body pos="0 1 0"><joint name="k" type="slide" axis="1 0 0"/><geom size=".1" mass="2"/></body>
  </worldbody>
  <actuator><motor joint="j" nsample="10" delay=".01"/><motor joint="k"/></actuator>
  <keyframe><key ctrl="1 1"/></keyframe>
</mujoco>
"""


@LAWS
@pytest.mark.parametrize("integrator", ["Euler", "implicitfast"])
def test_delayed_actuators_act_as_those_of_mujoco(law, integrator, device):
    mjm = mujoco.MjModel.from_xml_string(DELAYED.format(integrator=integrator))
    mjd = mujoco.MjData(mjm)
    mujoco.mj_resetDataKeyframe(mjm, mjd, 0)
    m, d = put(mjm, mjd, comfree_law=law)
    graph = cfwarp.capture(lambda: cfwarp.step(m, d))
    graph.launch(50)
    mujoco.mj_step(mjm, mjd, 50)
    assert mjd.qpos[0] == pytest.approx(0.00414)
    np.testing.assert_allclose(d.qpos.numpy()[0], mjd.qpos, rtol=1e-5)
    np.testing.assert_allclose(d.qvel.numpy()[0], mjd.qvel, rtol=1e-5)
    np.testing.assert_allclose(d.actuator_force.numpy()[0], mjd.actuator_force)
    np.testing.assert_allclose(d.history.numpy()[0], mjd.history, atol=1e-6)


PENDULUM = """
<mujoco>
  <worldbody><body pos="0 0 1" gravcomp="{gravcomp}">
    <joint axis="0 1 0" frictionloss="{loss}"/>
    <geom type="capsule" fromto="0 0 0 .3 0 0" size=".02"/>
  </body></worldbody>
  <tendon>{tendon}</tendon>
</mujoco>
"""
RANDOMIZED = [(0.0, 0.0), (1.0, 0.0), (0.0, 0.9), (0.05, 0.5)]  # frictionloss, gravcomp of a world


def pendulum(loss: float = 0.0, gravcomp: float = 0.0) -> mujoco.MjModel:
    xml = PENDULUM.format(loss=loss, gravcomp=gravcomp, tendon="")
    return mujoco.MjModel.from_xml_string(xml)


@LAWS
@pytest.mark.parametrize("written", ["before the capture", "after the capture"])
def test_friction_loss_and_gravity_compensation_follow_their_arrays(law, written, device):
    mjm = pendulum()
    m, d = put(mjm, nworld=len(RANDOMIZED), comfree_law=law)
    loss, gravcomp = (
        np.array(values, dtype=np.float32) for values in zip(*RANDOMIZED, strict=True)
    )
    m.dof_frictionloss = wp.zeros((len(RANDOMIZED), 1), dtype=float)
    m.body_gravcomp = wp.zeros((len(RANDOMIZED), 2), dtype=float)

    def write() -> None:
        m.dof_frictionloss.assign(loss[:, None])
        m.body_gravcomp.assign(np.stack([np.zeros_like(gravcomp), gravcomp], axis=1))

    if written == "before the capture":
        write()
    graph = cfwarp.capture(lambda: cfwarp.step(m, d))
    write()
    graph.launch(100)
    for world, values in enumerate(RANDOMIZED):
        expected_m, expected_d = put(pendulum(*values), comfree_law=law)
        cfwarp.capture(lambda: cfwarp.step(expected_m, expected_d)).launch(100)  # noqa: B023
        np.testing.assert_array_equal(d.qpos.numpy()[world], expected_d.qpos.numpy()[0])
        if law == "warm":  # the other one creeps
            theirs = pendulum(*values)
            mjd = mujoco.MjData(theirs)
            mujoco.mj_step(theirs, mjd, 100)
            np.testing.assert_allclose(d.qpos.numpy()[world], mjd.qpos, atol=2e-3)


@LAWS
def test_friction_loss_of_a_tendon_follows_its_array(law, device):
    tendon = '<fixed name="t" frictionloss="{}"><joint joint="j" coef="1"/></fixed>'
    xml = PENDULUM.format(loss=0, gravcomp=0, tendon=tendon).replace(
        "<joint axis", '<joint name="j" axis'
    )
    m, d = put(mujoco.MjModel.from_xml_string(xml.format(0)), comfree_law=law)
    graph = cfwarp.capture(lambda: cfwarp.step(m, d))
    m.tendon_frictionloss.fill_(0.05)
    graph.launch(50)
    expected_m, expected_d = put(mujoco.MjModel.from_xml_string(xml.format(0.05)), comfree_law=law)
    cfwarp.capture(lambda: cfwarp.step(expected_m, expected_d)).launch(50)
    np.testing.assert_array_equal(d.qpos.numpy(), expected_d.qpos.numpy())


def test_an_armature_that_a_body_of_a_stack_gets_later_is_its_own(device):
    xml = """<mujoco><worldbody><geom type="plane" size="1 1 .1"/>
      <body pos="0 0 .0999"><freejoint/><geom type="box" size=".1 .1 .1"/></body>
      <body pos="0 0 .2997"><joint type="free" armature="{}"/>
        <geom type="box" size=".1 .1 .1"/></body>
    </worldbody></mujoco>"""
    states = []
    for given, written in ((0, 0.1), (0.1, None)):
        m, d = put(mujoco.MjModel.from_xml_string(xml.format(given)), comfree_law="warm")
        if written is not None:
            armature = m.dof_armature.numpy()
            armature[:, 6:] = written
            m.dof_armature.assign(armature)
        cfwarp.capture(lambda: cfwarp.step(m, d)).launch(100)  # noqa: B023
        states.append(d.qpos.numpy())
    np.testing.assert_allclose(*states, atol=1e-6)


def test_a_medium_that_the_model_gets_later_slows_it_down(device):
    if device != "cpu":
        pytest.skip("on a GPU the host would have to wait for the arrays; MuJoCo Warp's own flag")
    xml = """<mujoco><option density="{}"/><worldbody>
      <body><freejoint/><geom type="box" size=".3 .3 .01" mass=".1"/></body></worldbody></mujoco>"""
    m, d = put(mujoco.MjModel.from_xml_string(xml.format(0)))
    m.opt.density.fill_(100.0)
    expected_m, expected_d = put(mujoco.MjModel.from_xml_string(xml.format(100)))
    for _ in range(20):
        cfwarp.step(m, d)
        cfwarp.step(expected_m, expected_d)
    np.testing.assert_array_equal(d.qvel.numpy(), expected_d.qvel.numpy())
    assert abs(d.qvel.numpy()[0, 2]) < 0.3  # in a vacuum .39


# ------------------------------------------------------------------------------ what is refused


def set_integrator(m: cfwarp.Model) -> None:
    m.opt.integrator = mujoco_warp.IntegratorType.RK4


def set_sleep(m: cfwarp.Model) -> None:
    m.opt.enableflags |= mujoco_warp.EnableBit.SLEEP


def set_noslip(m: cfwarp.Model) -> None:
    m.opt.noslip_iterations = 3


@pytest.mark.parametrize(
    "stage", ["forward", "step", "step1", "step2", "fwd_position", "solve", "euler"]
)
@pytest.mark.parametrize(
    ("change", "told"),
    [
        (set_integrator, "integrator RK4 is not supported"),
        (set_sleep, "sleep is not supported"),
        (set_noslip, "noslip_iterations=3 is not supported"),
    ],
)
def test_an_option_set_after_put_model_is_refused_by_everything_that_steps(change, told, stage):
    m, d = put(pendulum())
    change(m)
    with pytest.raises(NotImplementedError, match=told):
        getattr(cfwarp, stage)(m, d)


@pytest.mark.parametrize("name", ["inverse", "rungekutta4", "discrete"])
def test_stages_that_have_no_meaning_for_the_law_are_refused_by_name(name):
    with pytest.raises(NotImplementedError, match=f"{name} is not supported by comfree.*use"):
        getattr(cfwarp, name)(*put(pendulum()))


def test_data_made_for_the_paper_law_or_for_lean_rows_is_refused_by_a_model_of_others():
    mjm = pendulum()
    m = cfwarp.put_model(mjm, comfree_law="warm")
    with pytest.raises(ValueError, match="data was made for 'paper'"):
        cfwarp.step(m, cfwarp.make_data(mjm, comfree_law="paper"))
    m = cfwarp.put_model(mjm, comfree_efc="full")
    with pytest.raises(ValueError, match="comfree_efc='full' and the data 'lean'"):
        cfwarp.step(m, cfwarp.make_data(mjm))


@LAWS
def test_a_model_for_the_solver_pgs_runs_since_there_is_no_solver(law, device):
    mjm = mujoco.MjModel.from_xml_string(
        """<mujoco><option solver="PGS"/><worldbody><geom type="plane" size="1 1 .1"/>
        <body pos="0 0 .1"><freejoint/><geom size=".1"/></body></worldbody></mujoco>"""
    )
    m, d = put(mjm, comfree_law=law)
    for _ in range(50):
        cfwarp.step(m, d)
    assert mjm.opt.solver == mujoco.mjtSolver.mjSOL_PGS
    assert d.qpos.numpy()[0, 2] == pytest.approx(0.1, abs=0.01)


# --------------------------------------------------------------------------- the same interface


@pytest.mark.parametrize("name", ["put_model", "put_data", "make_data", "reset_data"])
def test_positional_arguments_are_mujoco_warps_and_ours_are_keyword_only(name):
    theirs = inspect.signature(getattr(mujoco_warp, name)).parameters
    ours = inspect.signature(getattr(cfwarp, name)).parameters
    assert list(ours)[: len(theirs)] == list(theirs)
    for parameter in list(ours.values())[len(theirs) :]:
        assert parameter.kind == inspect.Parameter.KEYWORD_ONLY


def stages(m: cfwarp.Model, d: cfwarp.Data) -> None:
    """A step as who writes it out with MuJoCo Warp's public functions."""
    cfwarp.fwd_position(m, d)
    cfwarp.make_constraint(m, d)
    cfwarp.sensor_pos(m, d)
    cfwarp.fwd_velocity(m, d)
    cfwarp.sensor_vel(m, d)
    cfwarp.fwd_actuation(m, d)
    cfwarp.fwd_acceleration(m, d)
    cfwarp.solve(m, d)
    cfwarp.sensor_acc(m, d)
    cfwarp.euler(m, d)


def forward_then_euler(m: cfwarp.Model, d: cfwarp.Data) -> None:
    cfwarp.forward(m, d)
    cfwarp.euler(m, d)


def halves(m: cfwarp.Model, d: cfwarp.Data) -> None:
    cfwarp.step1(m, d)
    cfwarp.step2(m, d)


@LAWS
@pytest.mark.parametrize("efc", ["lean", "full"])
@pytest.mark.parametrize("way", [stages, forward_then_euler, halves])
def test_stages_called_one_after_the_other_give_what_step_gives(way, efc, law, device):
    mjm, mjd = varied()
    settings = {"comfree_law": law, "comfree_efc": efc}
    m, d = put(mjm, mjd, **settings)
    expected_m, expected_d = put(mjm, mjd, **settings)
    graph = cfwarp.capture(lambda: way(m, d))
    expected = cfwarp.capture(lambda: cfwarp.step(expected_m, expected_d))
    for _ in range(5):
        graph.launch()
        expected.launch()
    assert d.nacon.numpy()[0] >= 5
    assert d.nefc.numpy()[0] == expected_d.nefc.numpy()[0]
    # fwd_acceleration solves with the factor that fwd_position made: another order of sums.
    for field in ("qpos", "qvel", "qacc", "qfrc_constraint"):
        values, wanted = getattr(d, field).numpy(), getattr(expected_d, field).numpy()
        np.testing.assert_allclose(values, wanted, rtol=2e-4, atol=2e-4 * np.abs(wanted).max())


@pytest.mark.parametrize("law", ["warm"])
def test_a_step_that_was_never_made_is_captured_by_warps_own_graphs(law, device):
    mjm, mjd = varied()
    m, d = put(mjm, mjd, comfree_law=law)
    with wp.ScopedCapture() as capture:
        cfwarp.step(m, d)
    expected_m, expected_d = put(mjm, mjd, comfree_law=law)
    for _ in range(10):
        wp.capture_launch(capture.graph)
        cfwarp.step(expected_m, expected_d)
    np.testing.assert_allclose(d.qpos.numpy(), expected_d.qpos.numpy(), rtol=1e-6, atol=1e-6)


@LAWS
def test_fwd_position_tells_of_the_rows_that_contacts_will_have(law, device):
    mjm, mjd = varied()
    m, d = put(mjm, mjd, comfree_law=law)
    cfwarp.fwd_position(m, d)
    before = {name: getattr(d.efc, name).numpy().copy() for name in ("type", "id", "pos", "D")}
    nefc, address = d.nefc.numpy().copy(), d.contact.efc_address.numpy().copy()
    assert nefc[0] == mjd.nefc
    cfwarp.forward(m, d)
    np.testing.assert_array_equal(d.nefc.numpy(), nefc)
    np.testing.assert_array_equal(d.contact.efc_address.numpy(), address)
    for name, values in before.items():
        np.testing.assert_allclose(getattr(d.efc, name).numpy(), values, rtol=1e-6)


@LAWS
@pytest.mark.parametrize("jacobian", ["dense", "sparse"])
def test_rows_of_contacts_read_as_nan_where_they_are_not_computed(jacobian, law, device):
    mjm = mujoco.MjModel.from_xml_string(
        VARIED.replace("<option ", f'<option jacobian="{jacobian}" ')
    )
    mjd = mujoco.MjData(mjm)
    mujoco.mj_forward(mjm, mjd)
    m, d = put(mjm, mjd, comfree_law=law)
    # With limits that come and go, rows of contacts are where others were the step before.
    for hinge in (0.0, 0.6, 0.0):
        qpos = d.qpos.numpy()
        qpos[:, 14] = hinge
        d.qpos.assign(qpos)
        cfwarp.forward(m, d)
        other = int((d.ne.numpy() + d.nf.numpy() + d.nl.numpy())[0])
        result = mujoco.MjData(mjm)
        cfwarp.get_data_into(result, mjm, d)
        J = result.efc_J
        if jacobian == "sparse":
            dense = np.zeros((result.nefc, mjm.nv))
            mujoco.mju_sparse2dense(
                dense, J, result.efc_J_rownnz, result.efc_J_rowadr, result.efc_J_colind
            )
            J = dense
        J = J.reshape(result.nefc, mjm.nv)
        assert result.nefc > other > 0
        assert np.isfinite(J[:other]).all()
        assert np.isnan(J[other:]).any(axis=1).all()
        for values in (result.efc_vel, result.efc_aref):
            assert np.isfinite(values[:other]).all()
            assert np.isnan(values[other:]).all()
        assert np.isfinite(result.efc_force).all()


@LAWS
def test_rows_of_contacts_are_full_where_that_is_asked_for(law, device):
    mjm, mjd = varied()
    m, d = put(mjm, mjd, comfree_law=law, comfree_efc="full")
    cfwarp.forward(m, d)
    result = mujoco.MjData(mjm)
    cfwarp.get_data_into(result, mjm, d)
    assert result.nefc == mjd.nefc
    np.testing.assert_allclose(result.efc_J, mjd.efc_J, atol=1e-5)
    np.testing.assert_allclose(result.efc_vel, mjd.efc_vel, atol=1e-5)
    np.testing.assert_allclose(result.efc_aref, mjd.efc_aref, rtol=1e-3, atol=1e-3)


def test_warn_overflow_chooses_what_is_told_as_in_mujoco_warp(capfd, device):
    mjm, _ = varied()
    kinds = mujoco_warp.OverflowType
    assert cfwarp.put_model(mjm).opt.warn_overflow == int(kinds.ALL)
    for warned, told in ((int(kinds.ALL), True), (int(kinds.ALL & ~kinds.NEFC), False), (0, False)):
        m = cfwarp.put_model(mjm)
        m.opt.warn_overflow = warned
        d = cfwarp.put_data(mjm, mujoco.MjData(mjm), njmax=8, nconmax=32)
        for _ in range(3):
            cfwarp.step(m, d)
        wp.synchronize()
        assert d.overflow.numpy()[0] & kinds.NEFC
        assert capfd.readouterr().out.count("raise njmax") == told


# -------------------------------------------------------------------------------- resetting


def test_a_reset_of_some_worlds_leaves_the_contacts_of_the_others_alone(device):
    mjm, mjd = varied()
    m, d = put(mjm, mjd, nworld=4)
    cfwarp.forward(m, d)
    before = [mujoco.MjData(mjm) for _ in range(4)]
    for world, each in enumerate(before):
        cfwarp.get_data_into(each, mjm, d, world)
    cfwarp.reset_data(m, d, wp.array([True, False, True, False], dtype=bool))
    assert d.nacon.numpy()[0] == before[1].ncon + before[3].ncon > 0
    for world, was in enumerate(before):
        now = mujoco.MjData(mjm)
        cfwarp.get_data_into(now, mjm, d, world)
        if world in (0, 2):
            assert now.ncon == now.nefc == 0
            np.testing.assert_array_equal(now.qpos, mjm.qpos0.astype(np.float32))
            continue
        assert now.ncon == was.ncon > 0
        for field in ("dist", "pos", "frame", "friction", "dim", "geom", "efc_address"):
            np.testing.assert_array_equal(getattr(now.contact, field), getattr(was.contact, field))
        np.testing.assert_array_equal(np.diff(now.efc_id[2:]), np.diff(was.efc_id[2:]))
        np.testing.assert_array_equal(now.efc_force, was.efc_force)
    address, world = d.contact.efc_address.numpy(), d.contact.worldid.numpy()
    for conid in range(d.nacon.numpy()[0]):
        assert d.efc.id.numpy()[world[conid], address[conid, 0]] == conid


@LAWS
def test_a_reset_to_a_keyframe_forgets_what_the_world_remembered(law, device):
    mjm, mjd = varied()
    m, d = put(mjm, mjd, nworld=2, comfree_law=law)
    graph = cfwarp.capture(lambda: cfwarp.step(m, d))
    graph.launch(30)
    cfwarp.reset_data_keyframe(m, d, wp.array([0, -1], dtype=int))
    fresh_m, fresh_d = put(*varied(keyframe=True), comfree_law=law)
    cfwarp.reset_data_keyframe(fresh_m, fresh_d, 0)
    graph.launch(5)
    cfwarp.capture(lambda: cfwarp.step(fresh_m, fresh_d)).launch(5)
    np.testing.assert_array_equal(d.qpos.numpy()[0], fresh_d.qpos.numpy()[0])
    assert d.time.numpy()[1] == pytest.approx(0.07)


# Functions that take more than a model and data.
MORE = {
    "contact_force": lambda m, d: cfwarp.contact_force(
        m, d, wp.zeros(1, dtype=int), False, wp.zeros(1, dtype=wp.spatial_vector)
    ),
    "deriv_smooth_vel": lambda m, d: cfwarp.deriv_smooth_vel(
        m, d, wp.zeros((d.nworld, m.nC), dtype=float)
    ),
    "jac": lambda m, d: cfwarp.jac(
        m,
        d,
        wp.zeros((d.nworld, 3, m.nv), dtype=float),
        wp.zeros((d.nworld, 3, m.nv), dtype=float),
        wp.zeros(d.nworld, dtype=wp.vec3),
        wp.zeros(d.nworld, dtype=int),
    ),
    "mul_m": lambda m, d: cfwarp.mul_m(m, d, wp.zeros_like(d.qvel), d.qvel),
    "solve_m": lambda m, d: cfwarp.solve_m(m, d, wp.zeros_like(d.qvel), d.qvel),
    "xfrc_accumulate": lambda m, d: cfwarp.xfrc_accumulate(m, d, wp.zeros_like(d.qvel)),
    "reset_data_keyframe": lambda m, d: cfwarp.reset_data_keyframe(
        m, d, wp.array([-1, -1, 0], dtype=int)
    ),
    "reset_data of a mask": lambda m, d: cfwarp.reset_data(
        m, d, wp.array([False, False, True], dtype=bool)
    ),
    "reset_data of numbers": lambda m, d: cfwarp.reset_data(
        m, d, wp.array([0, 0, 1], dtype=wp.int64)
    ),
}
# Not of a step: made from the host, of a camera's pictures, or with a context of their own.
LEFT_OUT = {
    *("capture", "create_render_context", "get_data_into", "get_depth", "get_rgb", "discrete"),
    *("get_segmentation", "get_state", "init_ctrl_history", "init_sensor_history", "inverse"),
    *("make_data", "nxn_broadphase", "primitive_narrowphase", "put_data", "put_model", "ray"),
    *("rays", "read_ctrl", "read_sensor", "refit_bvh", "refit_splat_bvh", "render"),
    *("rungekutta4", "sap_broadphase", "sdf_narrowphase", "set_const", "set_const_0"),
    *("set_const_fixed", "set_length_range", "set_state"),
}


def public_functions() -> dict[str, object]:
    found = {name: it for name, it in vars(cfwarp).items() if inspect.isfunction(it)}
    return {name: it for name, it in found.items() if not name.startswith("_")} | MORE


@LAWS
def test_no_public_function_writes_past_an_array_in_a_graph_of_the_cpu(law, monkeypatch):
    cpu = wp.get_device("cpu")
    guarded = GuardedAllocator(cpu)
    monkeypatch.setattr(cpu, "default_allocator", guarded)
    with wp.ScopedDevice(cpu):
        mjm, mjd = varied()
        m, d = put(mjm, mjd, nworld=3, comfree_law=law)
        cfwarp.step(m, d)
        for name, function in public_functions().items():
            if name in LEFT_OUT:
                continue
            function(m, d)  # loads all its kernels, of which a graph could take a wrong one
            with wp.ScopedCapture() as captured:
                function(m, d)
            wp.capture_launch(captured.graph)
            cfwarp.capture(lambda: function(m, d)).launch()  # noqa: B023
            guarded.check()


def test_a_reset_in_a_graph_of_the_cpu_resets_the_worlds_of_its_mask_and_no_other():
    with wp.ScopedDevice("cpu"):
        mjm, mjd = varied()
        m, d = put(mjm, mjd, nworld=3)
        mask = wp.array([False, True, False], dtype=bool)
        cfwarp.reset_data(m, d, mask)  # loads its kernels, of which a graph could take a wrong one
        with wp.ScopedCapture() as captured:
            cfwarp.reset_data(m, d, mask)
        for array in (d.qvel_smooth_pred, d.qfrc_total, d.cvel_smooth_pred, d.cfrc_contact):
            array.fill_(7.0)
        wp.capture_launch(captured.graph)
        for array in (d.qvel_smooth_pred, d.qfrc_total, d.cvel_smooth_pred, d.cfrc_contact):
            values = array.numpy()
            assert (values[[0, 2]] == 7.0).all()
            assert (values[1] == 0.0).all()
