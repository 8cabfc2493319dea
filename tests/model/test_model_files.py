"""Finding a model's file, and what is said where there is none."""

from pathlib import Path

import pytest

from mjsim.errors import SettingError
from mjsim.model.files import MODELS, REPOSITORY, find_file, load_model

HUMANOID = "benchmark/test_data/humanoid/humanoid.xml"


def told(path: str) -> str:
    with pytest.raises(SettingError) as caught:
        find_file(path)
    assert caught.value.setting == "model"
    return str(caught.value)


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [
        ("benchmark/test_data/humanoid/humanoyd.xml", HUMANOID),
        ("benchmark/test_data/humanoyd/humanoid.xml", HUMANOID),
        ("benchmark/testdata/humanoyd/humanoid.xml", HUMANOID),
        ("benchmark/test_data/humanoid/humanoid", HUMANOID),
        ("humanoid.xml", HUMANOID),
        ("pendula", "benchmark/test_data/pendula.xml"),
        (f"{MODELS}/pendulum.xml", f"{MODELS}/pendula.xml"),
    ],
)
def test_a_misspelt_model_offers_the_nearest_file(wrong, meant):
    assert told(wrong).endswith(f"; did you mean {meant}?")
    assert find_file(meant).is_file()


def test_a_file_of_the_working_directory_is_offered_before_ours(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("models").mkdir()
    Path("models/walker.xml").write_text("<mujoco/>")
    assert told("model/walkr.xml").endswith("; did you mean models/walker.xml?")


@pytest.mark.parametrize("wrong", ["quadruped.xml", "/no/such.xml", "", "/", "..", "\0", "a" * 300])
def test_nothing_is_offered_that_is_not_alike(wrong):
    assert "did you mean" not in told(wrong)


def test_a_folder_is_no_model():
    assert "is no file" in told(str(REPOSITORY / "benchmark"))


def test_a_relative_path_is_looked_for_in_the_working_directory_then_the_repository(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    name = "benchmark/test_data/pendula.xml"
    assert find_file(name) == REPOSITORY / name
    nearer = tmp_path / name
    nearer.parent.mkdir(parents=True)
    nearer.write_text("<mujoco/>")
    assert find_file(name) == nearer


def test_a_model_that_does_not_compile_is_told_in_one_line(tmp_path):
    path = tmp_path / "broken.xml"
    path.write_text("<mujoco>\n<worldbody>\n<geom size='-1'/>\n</worldbody></mujoco>")
    with pytest.raises(SettingError, match=r"broken\.xml' does not compile: ") as caught:
        load_model(path)
    assert "\n" not in str(caught.value)
