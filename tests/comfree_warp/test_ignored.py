"""What MuJoCo Warp would ignore without a word is refused by name, on both Warp engines."""

import mujoco
import pytest

import comfree_warp as cfwarp
from mjsim import engines
from mjsim.errors import SettingError

pytestmark = pytest.mark.engine

WHEEL = """
<mujoco>
  <option {options}/>
  <worldbody><body><joint name="j"/><geom size=".1"/></body></worldbody>
  <actuator>
    <motor name="drive" joint="j" group="1"/>
    <general name="other" joint="j" group="2" {gain}/>
  </actuator>
</mujoco>
"""


def wheel(options: str = "", gain: str = "") -> mujoco.MjModel:
    return mujoco.MjModel.from_xml_string(WHEEL.format(options=options, gain=gain))


def assert_refused(mjm: mujoco.MjModel, message: str) -> None:
    for engine in ("mjwarp", "comfree"):
        with pytest.raises(SettingError, match=message) as error:
            engines.make_simulation(mjm, engine, nconmax=1, njmax=1)
        assert error.value.setting == "model"


def test_an_actuator_that_its_group_disables_is_refused():
    mjm = wheel('actuatorgroupdisable="2 5"')
    message = "actuatorgroupdisable.*disables actuator 'other'"
    assert_refused(mjm, message)
    with pytest.raises(NotImplementedError, match=message):
        cfwarp.put_model(mjm)


def test_groups_that_disable_no_actuator_are_not():
    cfwarp.put_model(wheel('actuatorgroupdisable="0 5"'))


def test_a_gain_that_only_a_callback_could_give_is_refused():
    mjm = wheel(gain='gaintype="user"')
    assert_refused(mjm, "gaintype='user' of actuator 'other'")
    cfwarp.put_model(mjm)  # a program may give this model a callback of MuJoCo Warp


@pytest.mark.parametrize("name", ["control", "passive", "sensor", "act_gain"])
def test_a_callback_of_mujoco_is_refused(name):
    mjm = wheel()
    getattr(mujoco, f"set_mjcb_{name}")(lambda *_: None)
    try:
        assert_refused(mjm, f"set_mjcb_{name}")
    finally:
        getattr(mujoco, f"set_mjcb_{name}")(None)
