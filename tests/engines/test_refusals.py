"""What `make_simulation` cannot use is refused, by the name of the setting."""

import mujoco
import pytest

import comfree_warp
from comfree_warp.io import ParameterError
from mjsim import engines
from mjsim.errors import SettingError

pytestmark = pytest.mark.engine

BALL = "<mujoco><worldbody><body><freejoint/><geom size='.1'/></body></worldbody></mujoco>"


def make(xml: str = BALL, **settings) -> engines.Simulation:
    return engines.make_simulation(mujoco.MjModel.from_xml_string(xml), **settings)


@pytest.mark.parametrize(
    ("settings", "setting", "told"),
    [
        ({"engine": "bullet"}, "engine", "'bullet' is no engine; allowed: mjc, mjwarp, comfree,"),
        ({"device": "tpu"}, "device", "'tpu' is not here; available: cpu"),
        ({"nworld": 0}, "nworld", "0 is too small: at least 1"),
        ({"njmax": -1}, "njmax", "-1 is too small: at least 0"),
        ({"stiffness": -1.0}, "stiffness", "comfree_stiffness contains -1.0"),
        ({"damping": []}, "damping", "comfree_damping is empty"),
        ({"law": "cold"}, "law", "'cold' is none of paper, warm"),
        ({"engine": "comfree:cold"}, "engine", "'comfree:cold' is no engine; allowed: mjc,"),
        ({"engine": "mjc:warm"}, "engine", "'mjc:warm' is no engine"),
        ({"engine": "comfree:warm", "law": "paper"}, "law", "'paper', and the engine is comfree:"),
        ({"law": "warm", "passes": 5}, "passes", "refused by comfree: .*comfree_passes"),
    ],
)
def test_a_setting_that_cannot_be_used_is_named(settings, setting, told):
    with pytest.raises(SettingError, match=told) as caught:
        make(**settings)
    assert caught.value.setting == setting


@pytest.mark.parametrize(
    ("refusal", "setting", "settings"),
    [
        (ParameterError("comfree_stiffness", ": not with comfree_law"), "stiffness", {}),
        (ParameterError("comfree_passes", ": not with comfree_law"), "passes", {"passes": 2}),
        (ParameterError("comfree_law", ": not with comfree_passes"), "law", {"passes": 2}),
        (ValueError("comfree_law and comfree_passes are fine"), "model", {"passes": 2}),
    ],
)
def test_a_refusal_is_of_the_parameter_that_it_carries(refusal, setting, settings, monkeypatch):
    given = {}

    def refuse(mjm, **parameters):
        given.update(parameters)
        raise refusal

    monkeypatch.setattr(comfree_warp, "put_model", refuse)
    with pytest.raises(SettingError, match=str(refusal)) as caught:
        make(law="warm", **settings)
    assert caught.value.setting == setting
    named = {f"comfree_{name}": value for name, value in settings.items()}
    assert given == {"comfree_law": "warm"} | named


@pytest.mark.parametrize(
    ("engine", "setting", "value"),
    [
        ("mjc", "law", "warm"),
        ("mjc", "passes", 2),
        ("mjc", "nconmax", 9),
        ("mjc", "njmax", 9),
        ("mjc", "nccdmax", 9),
        ("mjwarp", "law", "paper"),
        ("mjwarp", "stiffness", 0.1),
        ("mjwarp", "damping", [0.1, 0.2]),
        ("comfree:paper", "passes", 2),
        ("comfree:warm", "stiffness", 0.1),
        ("comfree:warm", "damping", 0.1),
    ],
)
def test_a_setting_that_the_engine_makes_no_use_of_is_refused(engine, setting, value):
    with pytest.raises(SettingError, match=f"of no use to {engine}, only to ") as caught:
        make(engine=engine, **{setting: value})
    assert caught.value.setting == setting


def test_an_unsupported_model_is_refused_as_a_setting():
    with pytest.raises(SettingError, match="refused by comfree: integrator RK4"):
        make('<mujoco><option integrator="RK4"/></mujoco>')
