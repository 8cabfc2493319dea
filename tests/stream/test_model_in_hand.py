"""A server takes the model as people have it: a path, text, an MjSpec, an MjModel."""

from pathlib import Path

import mujoco
import numpy as np
import pytest
from scenes import OWN, OWN_FOLDER
from streamed_run import collect
from watching import free_port

from mjsim.stream import StreamClient, StreamError, StreamServer, load_model, model_packet

BALL = """
<mujoco model="ball">
  <worldbody><body name="ball"><freejoint/><geom size=".1" mass="2"/></body></worldbody>
</mujoco>
"""
OTHER = BALL.replace('name="ball"', 'name="bull"')
TETRAHEDRON = "v 0 0 0\nv 1 0 0\nv 0 1 0\nv 0 0 1\nf 1 3 2\nf 1 2 4\nf 1 4 3\nf 2 3 4\n"
MESH = """
<mujoco>
  <asset><mesh name="rock" file="rock.obj"/></asset>
  <worldbody><geom type="mesh" mesh="rock"/></worldbody>
</mujoco>
"""


def arrived(model: object) -> mujoco.MjModel:
    """The model as a viewer has it, through a real server."""
    server = StreamServer(model, port=free_port(), wait=0, report=lambda line: None)
    with server, StreamClient.connect("127.0.0.1", server.port) as client:
        return load_model(collect(client, bool)[0])


def refused(model: object, **options: object) -> str:
    """What a server says of a model that it cannot send."""
    options = {"port": free_port(), "wait": 0} | options
    with pytest.raises(StreamError) as caught:
        StreamServer(model, **options).bind()
    assert caught.value.setting in ("model", "mode")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_each_kind_of_model_arrives(tmp_path: Path) -> None:
    path = tmp_path / "ball.xml"
    path.write_text(BALL)
    spec = mujoco.MjSpec.from_string(BALL)
    for model in (path, str(path), BALL, spec, mujoco.MjModel.from_xml_string(BALL)):
        assert arrived(model).body("ball").mass[0] == pytest.approx(2.0)


def test_the_documented_keyword_still_takes_a_path(tmp_path: Path) -> None:
    path = tmp_path / "ball.xml"
    path.write_text(BALL)
    server = StreamServer(model_path=str(path), port=free_port())
    server.bind()
    server.close()


@pytest.mark.parametrize("name", OWN)
def test_every_model_in_hand_is_the_one_that_was_loaded(name: str) -> None:
    """As an MjModel, right after it was loaded, and as an MjSpec."""
    mjm = mujoco.MjModel.from_xml_path(str(OWN_FOLDER / name))
    for model in (mjm, mujoco.MjSpec.from_file(str(OWN_FOLDER / name))):
        got = load_model(model_packet(model))
        assert got.names == mjm.names
        np.testing.assert_allclose(got.body_mass, mjm.body_mass, rtol=1e-5)
        np.testing.assert_allclose(got.geom_size, mjm.geom_size, rtol=1e-5)


def test_an_mjspec_goes_as_it_was_edited_and_stays_as_it_is() -> None:
    spec = mujoco.MjSpec.from_string(BALL)
    spec.worldbody.add_body(name="added", pos=[0, 0, 3]).add_geom(size=[0.2, 0, 0])
    before = spec.to_xml() if spec.compile() else ""
    assert arrived(spec).body("added").pos[2] == 3.0
    assert spec.to_xml() == before


def test_an_mjspec_brings_its_files_from_memory_or_from_its_folder(tmp_path: Path) -> None:
    (tmp_path / "rock.obj").write_text(TETRAHEDRON)
    (tmp_path / "scene.xml").write_text(MESH)
    in_memory = mujoco.MjSpec.from_string(MESH, assets={"rock.obj": TETRAHEDRON.encode()})
    on_disk = mujoco.MjSpec.from_file(str(tmp_path / "scene.xml"))
    for spec in (in_memory, on_disk):
        assert arrived(spec).nmeshvert == 4
    assert list(in_memory.assets) == ["rock.obj"]


def test_an_mjmodel_goes_with_what_was_changed_in_it() -> None:
    mjm = mujoco.MjModel.from_xml_string(BALL)
    mjm.body("ball").mass = 7.0
    mjm.geom_size[0, 0] = 0.3
    mjm.geom_rgba[0] = 0.25, 0.5, 0.75, 1.0
    got = arrived(mjm)
    assert got.body("ball").mass[0] == pytest.approx(7.0)
    assert got.geom_size[0, 0] == pytest.approx(0.3)
    np.testing.assert_allclose(got.geom_rgba[0], [0.25, 0.5, 0.75, 1.0])


def test_an_mjmodel_of_another_model_s_xml_is_refused_by_name() -> None:
    mjm = mujoco.MjModel.from_xml_string(BALL)
    mujoco.MjModel.from_xml_string(OTHER)
    said = refused(mjm)
    assert "other names" in said
    assert "pass the MjSpec, the MJCF text or the path that it was made from" in said


def test_an_mjmodel_with_files_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "rock.obj").write_text(TETRAHEDRON)
    (tmp_path / "scene.xml").write_text(MESH)
    said = refused(mujoco.MjModel.from_xml_path(str(tmp_path / "scene.xml")))
    assert "rock.obj" in said
    assert "pass the MjSpec, the MJCF text or the path" in said


def test_what_is_no_model_is_named() -> None:
    assert "the int is no MjSpec, MjModel, MJCF text or path" in refused(42)
    assert "cannot be sent as XML: XML Error" in refused("<mujoco><oops/></mujoco>")
    assert "pass its path" in refused(BALL, mode="path")
    assert "pass its path" in refused(mujoco.MjSpec.from_string(BALL), mode="path")
    assert "model: is missing" in refused(None)
    assert "model: and model_path are both given" in refused(BALL, model_path="scene.xml")
