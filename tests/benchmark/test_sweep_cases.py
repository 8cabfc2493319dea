"""What a sweep runs: the cases of a file or of flags, each named by all that decides its result."""

from pathlib import Path

import pytest

from benchmark.sweep.cases import Case, Models, case_id, expand, gather, run_settings
from mjsim import choices
from mjsim.errors import SettingError
from mjsim.model.files import REPOSITORY

PENDULA = "benchmark/test_data/pendula.xml"
HUMANOID = "benchmark/test_data/humanoid/humanoid.xml"


def test_a_sweep_is_the_product_of_its_lists():
    cases = expand({"model": PENDULA, "seed": [0, 1], "nworld": [1, 4], "stiffness": [0.1, 0.2]})
    assert len(cases) == 8
    assert cases[0] == Case(model=PENDULA, seed=0, nworld=1, stiffness=0.1)


def test_what_an_engine_does_not_know_makes_no_more_cases():
    cases = expand({"model": PENDULA, "engine": ["mjc", "comfree"], "stiffness": [0.1, 0.2]})
    assert [(case.engine, case.stiffness) for case in cases] == [
        ("mjc", None),
        ("comfree", 0.1),
        ("comfree", 0.2),
    ]


def test_what_a_law_does_not_know_makes_no_more_cases():
    settings = {"law": ["paper", "warm"], "passes": [1, 2], "stiffness": [0.1, 0.2]}
    cases = expand({"model": PENDULA, **settings})
    assert [(case.law, case.passes, case.stiffness) for case in cases] == [
        ("paper", None, 0.1),
        ("paper", None, 0.2),
        ("warm", 1, None),
        ("warm", 2, None),
    ]
    cases = expand({"model": PENDULA, "engine": ["mjwarp", "comfree"], **settings})
    assert [choices.engine_name(case.engine, case.law) for case in cases] == [
        *("mjwarp", "comfree:paper", "comfree:paper", "comfree:warm", "comfree:warm"),
    ]


def test_the_law_may_stand_in_the_engine_s_name():
    names = ["mjc", "comfree:warm", "comfree:paper"]
    cases = expand({"model": PENDULA, "engine": names, "passes": 2})
    assert cases == [
        Case(model=PENDULA, engine="mjc"),
        Case(model=PENDULA, law="warm", passes=2),
        Case(model=PENDULA, law="paper"),
    ]
    assert cases[1].label == f"{PENDULA}, comfree:warm, passes 2"
    assert Case(model=PENDULA).label == f"{PENDULA}, comfree:{choices.LAWS[0]}"


def test_cases_stand_on_the_rest():
    cases = expand({"model": PENDULA, "nsteps": 5, "cases": [{"seed": 3}, {"engine": "mjc"}]})
    assert cases == [
        Case(model=PENDULA, nsteps=5, seed=3),
        Case(model=PENDULA, nsteps=5, engine="mjc"),
    ]


def test_models_are_found_by_globs_from_the_repository():
    found = [case.model for case in expand({"model": "benchmark/test_data/*/*.xml"})]
    assert HUMANOID in found
    assert len(found) > 4


def test_a_flag_takes_the_place_of_what_the_file_says(tmp_path):
    path = tmp_path / "sweep.toml"
    path.write_text('scene = ["grasp"]\nseed = [1, 2]\nnsteps = 7\n')
    settings = gather(path, {"model": PENDULA, "seed": "5,6", "nsteps": None})
    assert settings == {"model": [PENDULA], "seed": [5, 6], "nsteps": 7}


def test_a_case_is_named_by_all_that_decides_its_result(tmp_path, monkeypatch):
    models = Models()
    base = case_id(Case(model=PENDULA), models)
    others = {
        case_id(Case(model=PENDULA, **change), models)
        for change in ({"seed": 1}, {"stiffness": 0.1}, {"engine": "mjc"}, {"law": "warm"})
    }
    changed = tmp_path / "pendula.xml"
    changed.write_text(Path(REPOSITORY, PENDULA).read_text().replace("density", "density"))
    assert base not in others
    assert len(others) == 4
    assert base == case_id(Case(model=PENDULA), Models())
    monkeypatch.setattr(run_settings, "versions", lambda: {"mujoco": "9"})
    assert base != case_id(Case(model=PENDULA), models)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"nsteps": 5}, "model: neither a model nor a scene"),
        ({"model": "nothing.xml"}, "model: 'nothing.xml' is no file"),
        ({"model": "nothing/*.xml"}, "model: 'nothing/*.xml' matches no file"),
        ({"scene": "nothing"}, "scene: 'nothing' is none of resting box"),
        ({"model": PENDULA, "egnine": "mjc"}, "egnine: is no setting of a sweep"),
        ({"model": PENDULA, "engine": "bullet"}, "engine: 'bullet' is none of mjc"),
        ({"model": PENDULA, "law": "cold"}, "law: 'cold' is none of paper, warm"),
        ({"model": PENDULA, "engine": "comfree:cold"}, "engine: 'comfree:cold' is none of mjc"),
        ({"model": PENDULA, "engine": "mjc", "law": "warm"}, "law: warm is of no use to mjc, only"),
        ({"model": PENDULA, "engine": "mjc", "cases": [{"passes": 2}]}, "passes: 2 is of no use"),
        ({"model": PENDULA, "engine": "comfree:warm", "law": "paper"}, "law: 'paper', and the"),
        ({"model": PENDULA, "passes": 5}, "passes: 5 is none of 1, 2, 3, 4"),
        ({"model": PENDULA, "nworld": 0}, "nworld: 0 is too small"),
        ({"model": PENDULA, "seed": "one"}, "seed: 'one' is no int"),
        ({"model": PENDULA, "seed": []}, "seed: is an empty list"),
        ({"model": PENDULA, "timestep": 1.0}, "timestep: 1.0 s is not above 0"),
        ({"model": PENDULA, "cases": 3}, "cases: is no list of tables"),
        ({"model": PENDULA, "seed": list(range(100_001))}, "cases: are more than 100,000"),
    ],
)
def test_what_cannot_be_run_is_named(settings, told):
    with pytest.raises(SettingError) as caught:
        expand(settings)
    assert f"{caught.value.setting}: {caught.value.problem}".startswith(told)


def test_whether_buffers_are_fixed_is_a_setting_of_a_sweep():
    given = gather(None, {"model": PENDULA, "fixed_buffers": "true,false"})
    assert [case.fixed_buffers for case in expand(given)] == [True, False]
    with pytest.raises(SettingError, match="'yes' is no bool"):
        gather(None, {"model": PENDULA, "fixed_buffers": "yes"})
    with pytest.raises(SettingError, match="fixed_buffers: 1 is no bool"):
        expand({"model": PENDULA, "fixed_buffers": 1})
    with pytest.raises(SettingError, match="nworld: True is no int"):
        expand({"model": PENDULA, "nworld": True})
    assert len(expand({"scene": "grasp", "fixed_buffers": [True, False]})) == 1
