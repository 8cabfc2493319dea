"""What put_model and its siblings accept, refuse and keep."""

from types import ModuleType

import mujoco
import mujoco_warp
import numpy as np
import pytest
import warp as wp

import comfree_warp as cfwarp
import comfree_warp.mujoco_warp

pytestmark = pytest.mark.engine

FALLING = """
<mujoco>
  <option {option}/>
  <worldbody>
    <geom type="plane" size="1 1 .1"/>
    <body pos="0 0 .05"><freejoint/><geom type="box" size=".1 .1 .1" mass="1"/></body>
  </worldbody>
</mujoco>
"""


def model(option: str = "") -> mujoco.MjModel:
    return mujoco.MjModel.from_xml_string(FALLING.format(option=option))


@pytest.mark.parametrize("name", ["comfree_stiffness", "comfree_damping"])
@pytest.mark.parametrize(
    ("value", "told"),
    [
        (-0.1, "-0.1"),
        (float("nan"), "nan"),
        (float("inf"), "inf"),
        ([], "empty"),
        ([0.2, -1.0], "-1.0"),
        ([[0.2]], r"shape \(1, 1\)"),
        ("stiff", "'stiff'"),
    ],
)
def test_a_bad_parameter_is_a_value_error_that_says_what_was_given(name, value, told):
    with pytest.raises(ValueError, match=f"{name}.*(?:{told}).*expected a finite number >= 0"):
        cfwarp.put_model(model(), **{name: value})


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ('integrator="RK4"', "RK4 is not supported.*implicitfast"),
        ('integrator="discrete"', "DISCRETE is not supported.*implicitfast"),
        ('noslip_iterations="3"', "noslip_iterations=3.*set it to 0"),
    ],
)
def test_an_unsupported_option_is_refused_by_name(option, told):
    with pytest.raises(NotImplementedError, match=told):
        cfwarp.put_model(model(option))


def test_sleep_is_refused_by_name():
    mjm = model()
    mjm.opt.enableflags |= mujoco.mjtEnableBit.mjENBL_SLEEP
    with pytest.raises(NotImplementedError, match="sleep is not supported"):
        cfwarp.put_model(mjm)


def test_elasticity_under_an_implicit_integrator_is_refused_before_the_step():
    mjm = mujoco.MjModel.from_xml_string(
        """<mujoco><worldbody>
        <flexcomp name="cloth" type="grid" count="3 3 1" spacing=".1 .1 .1" dim="2" mass="1">
        <elasticity young="1e4" poisson="0.2" thickness="1e-2" elastic2d="both"/></flexcomp>
        </worldbody></mujoco>"""
    )
    mjm.opt.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    with pytest.raises(NotImplementedError, match=r"elasticity.*edge equalities"):
        cfwarp.put_model(mjm)


def test_parameters_are_kept_on_the_device():
    m = cfwarp.put_model(model(), comfree_stiffness=[0.1, 0.3], comfree_damping=0.002)
    np.testing.assert_allclose(m.comfree_stiffness.numpy(), [0.1, 0.3])
    np.testing.assert_allclose(m.comfree_damping.numpy(), [0.002])


def test_of_a_free_joint_the_first_three_dofs_only_shift_the_body(device):
    mjm = mujoco.MjModel.from_xml_string(
        "<mujoco><worldbody>"
        '<body><joint type="slide"/><geom size=".1"/><body><geom size=".1"/></body></body>'
        '<body pos="1 2 3" euler="10 20 30"><freejoint/><geom size=".1" pos=".1 0 0"/>'
        '<body pos=".3 0 0"><joint/><geom size=".1"/></body></body>'
        "</worldbody></mujoco>"
    )
    m = cfwarp.put_model(mjm)
    np.testing.assert_array_equal(m.body_shiftnum.numpy(), [0, 0, 0, 3, 0])
    d = cfwarp.make_data(mjm)
    cfwarp.forward(m, d)
    first = mjm.body_dofadr[3]
    shifts = np.hstack([np.zeros((3, 3)), np.eye(3)])
    np.testing.assert_array_equal(d.cdof.numpy()[0, first : first + 3], shifts)


def test_world_w_uses_parameter_w_modulo_their_number(device):
    mjm = model()
    mjd = mujoco.MjData(mjm)
    mujoco.mj_forward(mjm, mjd)
    m = cfwarp.put_model(mjm, comfree_stiffness=[0.1, 0.4])
    d = cfwarp.put_data(mjm, mjd, nworld=5, nconmax=32, njmax=64)
    cfwarp.forward(m, d)
    force = d.qfrc_constraint.numpy()[:, 2]
    assert force[0] < 0.5 * force[1]
    np.testing.assert_array_equal(force, force[[0, 1, 0, 1, 0]])


def test_reset_data_resets_the_chosen_worlds(device):
    mjm = model()
    m = cfwarp.put_model(mjm)
    d = cfwarp.make_data(mjm, nworld=3, nconmax=32, njmax=64)
    for _ in range(5):
        cfwarp.step(m, d)
    moved = d.qpos.numpy().copy()
    cfwarp.reset_data(m, d, wp.array([False, True, False], dtype=bool))
    np.testing.assert_array_equal(d.qpos.numpy()[[0, 2]], moved[[0, 2]])
    np.testing.assert_allclose(d.qpos.numpy()[1], mjm.qpos0)
    assert not d.qvel_smooth_pred.numpy()[1].any()
    assert d.qvel_smooth_pred.numpy()[0].any()
    cfwarp.reset_data(m, d)
    assert not d.qvel_smooth_pred.numpy().any()


def test_get_data_into_copies_a_world_back_to_the_host(device):
    mjm = model()
    mjd = mujoco.MjData(mjm)
    m = cfwarp.put_model(mjm)
    d = cfwarp.put_data(mjm, mjd, nconmax=32, njmax=64)
    cfwarp.step(m, d)
    cfwarp.get_data_into(mjd, mjm, d)
    np.testing.assert_allclose(mjd.qpos, d.qpos.numpy()[0])
    nefc = d.nefc.numpy()[0]
    assert nefc > 0
    np.testing.assert_allclose(np.sort(mjd.efc_force), np.sort(d.efc.force.numpy()[0, :nefc]))


def test_a_model_without_dofs_comes_back_to_the_host():
    xml = "<mujoco><worldbody><body mocap='true'><geom size='.1'/></body></worldbody></mujoco>"
    mjm = mujoco.MjModel.from_xml_string(xml)
    mjd, m, d = mujoco.MjData(mjm), cfwarp.put_model(mjm), cfwarp.make_data(mjm)
    cfwarp.step(m, d)
    cfwarp.get_data_into(mjd, mjm, d)
    assert mjd.time == pytest.approx(mjm.opt.timestep)


def test_the_second_argument_of_make_data_is_the_number_of_worlds():
    assert cfwarp.make_data(model(), 3).nworld == mujoco_warp.make_data(model(), 3).nworld == 3


def test_every_public_name_of_mujoco_warp_is_here():
    # But for packages in it, `test_data`, which some module may have imported.
    public = [
        name
        for name, value in vars(mujoco_warp).items()
        if not name.startswith("_") and not isinstance(value, ModuleType)
    ]
    assert [name for name in public if not hasattr(cfwarp, name)] == []
    assert issubclass(cfwarp.Model, mujoco_warp.Model)
    assert issubclass(cfwarp.Data, mujoco_warp.Data)


def test_the_documented_name_is_the_installed_mujoco_warp():
    assert comfree_warp.mujoco_warp is mujoco_warp


def overflowing_output(capfd: pytest.CaptureFixture, nworld: int, **sizes: int) -> str:
    mjm = model()
    m = cfwarp.put_model(mjm)
    d = cfwarp.make_data(mjm, nworld=nworld, **sizes)
    for _ in range(5):
        cfwarp.step(m, d)
    wp.synchronize()
    return capfd.readouterr().out


def test_too_small_njmax_is_told_once_with_the_count_needed(device, capfd):
    told = overflowing_output(capfd, nworld=3, nconmax=32, njmax=5)
    assert told.count("\n") == 1
    assert "has 16 constraint rows, njmax=5" in told
    assert "raise njmax" in told


def test_too_small_nconmax_is_told_once_with_the_count_needed(device, capfd):
    told = overflowing_output(capfd, nworld=3, nconmax=2, njmax=64)
    assert told.count("\n") == 1
    assert "12 contacts over all worlds, naconmax=6" in told
    assert "raise nconmax beyond 4" in told
