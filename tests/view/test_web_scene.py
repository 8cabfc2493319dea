"""What the page draws of a model, and how; without a browser."""

import contextlib

import mujoco
import numpy as np
import pytest
import viser
from mjviser import ViserMujocoScene
from watching import free_port

from mjsim.view.controls import Controls
from mjsim.view.web import scene
from mjsim.view.web.page import WebPage

# Of a scene of mjviser, which promises none of its names to others.
OF_MJVISER = {
    "_mjv_option",
    "camera_tracking_enabled",
    "create_groups_gui",
    "create_overlay_gui",
    "create_scene_gui",
    "fixed_bodies_frame",
    "geom_groups_visible",
    "mj_data",
    "mj_model",
    "server",
    "set_refresh_handler",
    "show_convex_hull",
    "site_groups_visible",
    "update_from_mjdata",
}
# What mjviser calls of viser's scene, and we answer in our own way.
ANSWERED = {"add_batched_meshes_trimesh", "add_grid", "configure_environment_map"}

SOLIDS = """
<mujoco>
  <asset>
    <texture name="chequer" type="2d" builtin="checker" width="8" height="8"/>
    <material name="plain" rgba="0 0 1 1"/>
    <material name="textured" texture="chequer"/>
  </asset>
  <worldbody>
    <geom type="box" size="3 3 .1" pos="0 0 -1"/>
    <body pos="1 2 3" euler="30 40 50">
      <freejoint/>
      <geom type="capsule" size=".1 .3" rgba="1 0 0 1"/>
      <geom type="box" size=".1 .2 .3" pos=".5 0 0" material="plain" group="1"/>
      <geom type="ellipsoid" size=".1 .2 .3" pos="1 0 0"/>
      <geom type="cylinder" size=".1 .3" pos="1.5 0 0" rgba="0 1 0 .5"/>
      <geom type="sphere" size=".1" pos="2 0 0" material="textured"/>
    </body>
  </worldbody>
</mujoco>
"""


def test_plain_shapes_that_move_are_a_node_for_each_kind_and_group() -> None:
    """Where MuJoCo has them; what is fixed, textured or transparent stays with mjviser."""
    mjm = mujoco.MjModel.from_xml_string(SOLIDS)
    mjd = mujoco.MjData(mjm)
    mujoco.mj_forward(mjm, mjd)
    with contextlib.closing(WebPage("127.0.0.1", free_port())) as page:
        page.load(mjm, [mjd], Controls())
        nodes = {part._handle.name.rpartition("/")[2]: part for part in page._drawn[0].parts}
        for part in nodes.values():
            part.draw(mjd)
        handles = {name: part._handle for name, part in nodes.items()}
        assert sorted(handles) == ["box1", "cylinder0", "sphere0"]
        drawn_by_mjviser = sum(len(group.body_ids) for group in page._drawn[0].scene._mesh_groups)
        assert drawn_by_mjviser == 1  # the body, for its textured and its transparent geom
    axis = mjd.geom_xmat[1].reshape(3, 3)[:, 2]
    capsule, ellipsoid = mjd.geom_xpos[1], mjd.geom_xpos[3]
    expected = [capsule + 0.3 * axis, capsule - 0.3 * axis, ellipsoid]
    np.testing.assert_allclose(handles["sphere0"].batched_positions, expected, atol=1e-6)
    np.testing.assert_allclose(
        handles["sphere0"].batched_scales, [[0.1] * 3, [0.1] * 3, [0.1, 0.2, 0.3]], atol=1e-6
    )
    np.testing.assert_allclose(handles["cylinder0"].batched_positions, [capsule], atol=1e-6)
    np.testing.assert_allclose(handles["cylinder0"].batched_scales, [[0.1, 0.1, 0.3]], atol=1e-6)
    np.testing.assert_allclose(handles["box1"].batched_scales, [[0.1, 0.2, 0.3]], atol=1e-6)
    assert handles["box1"].batched_colors.tolist() == [[0, 0, 255]]
    quat = np.empty(4)
    mujoco.mju_mat2Quat(quat, mjd.geom_xmat[1])
    drawn = handles["cylinder0"].batched_wxyzs[0]
    assert abs(float(quat @ drawn)) == pytest.approx(1.0, abs=1e-6)


def test_a_group_that_is_hidden_is_not_drawn() -> None:
    mjm = mujoco.MjModel.from_xml_string(SOLIDS)
    mjd = mujoco.MjData(mjm)
    mujoco.mj_forward(mjm, mjd)
    with contextlib.closing(WebPage("127.0.0.1", free_port())) as page:
        page.load(mjm, [mjd], Controls())
        page._drawn[0].scene.geom_groups_visible[1] = False
        for part in page._drawn[0].parts:
            part.draw(mjd)
        visible = {part._handle.name[-1]: part._handle.visible for part in page._drawn[0].parts}
    assert visible == {"0": True, "1": False}


def test_the_insides_of_mjviser_and_viser_are_still_there() -> None:
    """A release in which one of these is gone needs another mjsim/view/web/scene.py."""
    mjm = mujoco.MjModel.from_xml_string(SOLIDS)
    with contextlib.closing(WebPage("127.0.0.1", free_port())) as page:
        page.load(mjm, [mujoco.MjData(mjm)], Controls())
        drawn = page._drawn[0].scene
    assert isinstance(drawn, ViserMujocoScene)
    assert {name for name in OF_MJVISER if not hasattr(drawn, name)} == set()
    assert {name for name in ANSWERED if not hasattr(viser.SceneApi, name)} == set()
    assert vars(scene._Branch).keys() >= ANSWERED
    assert hasattr(viser.ViserServer, "on_client_connect")
