"""States beside each other in one picture: where each is drawn, and what of it."""

import mujoco
import numpy as np
import pytest
from scenes import OWN, OWN_FOLDER

from mjsim.view.side_by_side import SideBySide

LABELS = ("one", "two", "three")


def draw(mjm: mujoco.MjModel) -> tuple[list[mujoco.MjvGeom], mujoco.MjvCamera]:
    mjds = [mujoco.MjData(mjm) for _ in LABELS]
    for mjd in mjds:
        mujoco.mj_forward(mjm, mjd)
    row = SideBySide(mjm, mjds, LABELS)
    scene, camera = mujoco.MjvScene(mjm, 20000), mujoco.MjvCamera()
    mujoco.mjv_defaultFreeCamera(mjm, camera)
    row.aim(camera, mjm.vis.global_.fovy)
    for _ in range(2):  # drawing again replaces what was drawn
        row.draw(scene, mujoco.MjvOption())
    return list(scene.geoms[: scene.ngeom]), camera


def places(geoms: list[mujoco.MjvGeom], kind: mujoco.mjtGeom) -> list[float]:
    return [float(geom.pos[0]) for geom in geoms if geom.type == kind]


@pytest.mark.parametrize("name", OWN)
def test_no_state_reaches_into_the_next(name: str) -> None:
    mjm = mujoco.MjModel.from_xml_path(str(OWN_FOLDER / name))
    mjd = mujoco.MjData(mjm)
    mujoco.mj_forward(mjm, mjd)
    geoms, _ = draw(mjm)
    labels = np.array([geom.pos for geom in geoms if geom.label in LABELS])
    step = np.diff(labels, axis=0)
    np.testing.assert_allclose(step[0], step[1], atol=1e-5)
    axis = int(np.abs(step[0]).argmax())
    solid = (mjm.geom_type != mujoco.mjtGeom.mjGEOM_PLANE) & (mjm.geom_group < 3)
    reach = mjd.geom_xpos[solid][:, axis]
    assert abs(step[0][axis]) > reach.max() - reach.min()
    assert np.count_nonzero(step[0]) == 1


def test_every_state_is_labelled_and_all_but_the_first_are_drawn() -> None:
    geoms, camera = draw(
        mujoco.MjModel.from_xml_string(
            "<mujoco><worldbody><body><geom size='.5'/></body></worldbody></mujoco>"
        )
    )
    labels = {geom.label: geom.pos for geom in geoms if geom.type == mujoco.mjtGeom.mjGEOM_LABEL}
    assert tuple(labels) == LABELS
    assert all(place[2] > 0.5 for place in labels.values())
    spheres = places(geoms, mujoco.mjtGeom.mjGEOM_SPHERE)
    assert spheres == pytest.approx([labels["two"][0], labels["three"][0]])
    assert camera.lookat[0] == pytest.approx(labels["two"][0])


FLOOR = """
<mujoco><worldbody>
  <geom type="plane" size="{size} {size} .1"/><body pos="0 0 .5"><geom size=".5"/></body>
</worldbody></mujoco>
"""


@pytest.mark.parametrize(
    ("size", "drawn"),
    [
        (0, []),  # it has no end: what is drawn of the first state is enough
        (20, []),  # so wide that it ends far beyond the last state
        (1.5, [3.0]),  # goes on where it ends
        (0.55, [1.15, 2.3]),  # each has its own
        (0.2, [1.15, 2.3]),  # no floor, but a thing
    ],
)
def test_floors_are_never_drawn_over_each_other(size: float, drawn: list[float]) -> None:
    geoms, _ = draw(mujoco.MjModel.from_xml_string(FLOOR.format(size=size)))
    planes = places(geoms, mujoco.mjtGeom.mjGEOM_PLANE)
    assert planes == pytest.approx(drawn, abs=1e-4)


def test_the_faces_of_a_cloth_are_drawn_as_edges() -> None:
    mjm = mujoco.MjModel.from_xml_path(str(OWN_FOLDER / "flex/floppy.xml"))
    geoms, _ = draw(mjm)
    assert len(places(geoms, mujoco.mjtGeom.mjGEOM_LINE)) == 2 * mjm.nflexedge
    assert places(geoms, mujoco.mjtGeom.mjGEOM_FLEX) == []
