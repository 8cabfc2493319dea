"""Several states of one model in one picture: each but the first drawn beside the one before."""

import math
from collections.abc import Sequence

import mujoco
import numpy as np

_GAP = 1.15  # of the scene's width: from one state to the next
# A plane that is so much wider than all else is a floor: there is one for all states.
_FLOOR = 3.0
_ASPECT = 4.0 / 3.0  # of the window, for the camera to see all states
_HIDDEN_GROUP = 3  # the first group of geoms that MuJoCo does not draw unless asked to


class Row:
    """Draws states in a row, to the right of the first as MuJoCo's camera sees them.

    Args:
      mjm: the model.
      mjds: its states, of which the first is drawn by whoever owns the scene.
      labels: what floats above each.
    """

    def __init__(
        self, mjm: mujoco.MjModel, mjds: Sequence[mujoco.MjData], labels: Sequence[str]
    ) -> None:
        self._mjm, self._mjds, self._labels = mjm, mjds, labels
        camera = mujoco.MjvCamera()
        mujoco.mjv_defaultFreeCamera(mjm, camera)
        azimuth = math.radians(camera.azimuth)
        right = np.array([math.sin(azimuth), -math.cos(azimuth), 0.0])
        axis = int(np.abs(right).argmax())
        self._right = np.sign(right[axis]) * np.eye(3)[axis]

        low, high = self._box()
        width = (high - low)[axis]
        planes = np.flatnonzero(mjm.geom_type == mujoco.mjtGeom.mjGEOM_PLANE)
        self._floors = {int(plane) for plane in planes if self._is_floor(plane, width)}
        for plane in set(planes) - self._floors:
            low, high = self._with_plane(plane, low, high)
        size = high - low
        self._width = size[axis]
        # What stands may fall over, and then must not reach the next state either.
        self._distance = _GAP * max(self._width, size[2])
        self._center = 0.5 * (low + high)
        self._above = np.array([0.0, 0.0, 0.5 * size[2] + 0.08 * size.max()])

    def _box(self) -> tuple[np.ndarray, np.ndarray]:
        """The lower and upper corner of all that is drawn, but for planes."""
        mjm, mjd = self._mjm, self._mjds[0]
        geoms = np.flatnonzero(
            (mjm.geom_type != mujoco.mjtGeom.mjGEOM_PLANE) & (mjm.geom_group < _HIDDEN_GROUP)
        )
        center, half = mjm.geom_aabb[geoms, :3], mjm.geom_aabb[geoms, 3:]
        rotation = mjd.geom_xmat[geoms].reshape(-1, 3, 3)
        center = mjd.geom_xpos[geoms] + (rotation @ center[..., None])[..., 0]
        half = (np.abs(rotation) @ half[..., None])[..., 0]
        corners = np.concatenate([center - half, center + half, mjd.flexvert_xpos])
        if not len(corners):
            return mjm.stat.center - 0.5 * mjm.stat.extent, mjm.stat.center + 0.5 * mjm.stat.extent
        return corners.min(axis=0), corners.max(axis=0)

    def _is_floor(self, plane: int, width: float) -> bool:
        if abs(self._mjds[0].geom_xmat[plane].reshape(3, 3)[:, 2] @ self._right) > 1e-3:
            return False  # a wall, or a slope, that the next state needs in its own place
        half = self._mjm.geom_size[plane, :2]
        return bool((half == 0.0).any() or 2.0 * half.min() > _FLOOR * width)

    def _with_plane(
        self, plane: int, low: np.ndarray, high: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        half = np.append(self._mjm.geom_size[plane, :2], 0.0)
        reach = np.abs(self._mjds[0].geom_xmat[plane].reshape(3, 3)) @ half
        position = self._mjds[0].geom_xpos[plane]
        return np.minimum(low, position - reach), np.maximum(high, position + reach)

    def aim(self, camera: mujoco.MjvCamera, fovy: float) -> None:
        """Let a free camera see the whole row; fovy in degrees."""
        reach = (len(self._mjds) - 1) * self._distance
        camera.lookat[:] = self._center + 0.5 * reach * self._right
        half = 0.5 * (reach + 1.15 * self._distance)
        distance = half / (_ASPECT * math.tan(math.radians(0.5 * fovy))) + 0.5 * self._width
        camera.distance = max(camera.distance, distance)

    def draw(self, scene: mujoco.MjvScene, option: mujoco.MjvOption) -> None:
        """Make the scene hold all states but the first, and all labels."""
        nobody = mujoco.MjvPerturb()
        scene.ngeom = 0
        for number, (mjd, label) in enumerate(zip(self._mjds, self._labels, strict=True)):
            shift = number * self._distance * self._right
            if number:
                before = scene.ngeom
                mujoco.mjv_addGeoms(
                    self._mjm, mjd, option, nobody, mujoco.mjtCatBit.mjCAT_ALL.value, scene
                )
                for geom in scene.geoms[before : scene.ngeom]:
                    self._move(geom, shift)
                self._draw_flexes(scene, mjd, shift)
            above = self._center + self._above + shift
            self._add(scene, mujoco.mjtGeom.mjGEOM_LABEL, above, label)

    def _move(self, geom: mujoco.MjvGeom, shift: np.ndarray) -> None:
        floor = geom.objtype == mujoco.mjtObj.mjOBJ_GEOM and geom.objid in self._floors
        # The vertices of these are kept elsewhere, in the scene of the first state.
        fixed = geom.type in (mujoco.mjtGeom.mjGEOM_FLEX, mujoco.mjtGeom.mjGEOM_SKIN)
        if floor or fixed:
            geom.type, geom.label = mujoco.mjtGeom.mjGEOM_LABEL.value, ""
        geom.pos[:] += shift

    def _draw_flexes(self, scene: mujoco.MjvScene, mjd: mujoco.MjData, shift: np.ndarray) -> None:
        """Draw the edges of flexes, whose faces only the first state can have."""
        mjm = self._mjm
        for flex in range(mjm.nflex):
            first = mjm.flex_edgeadr[flex]
            edges = mjm.flex_edge[first : first + mjm.flex_edgenum[flex]]
            vertices = mjd.flexvert_xpos[mjm.flex_vertadr[flex] :] + shift
            for start, end in edges:
                if geom := self._add(scene, mujoco.mjtGeom.mjGEOM_LINE, shift, ""):
                    geom.rgba[:] = mjm.flex_rgba[flex]
                    mujoco.mjv_connector(
                        geom, mujoco.mjtGeom.mjGEOM_LINE, 2.0, vertices[start], vertices[end]
                    )

    def _add(
        self, scene: mujoco.MjvScene, kind: mujoco.mjtGeom, position: np.ndarray, label: str
    ) -> mujoco.MjvGeom | None:
        if scene.ngeom >= scene.maxgeom:
            return None
        geom = scene.geoms[scene.ngeom]
        scene.ngeom += 1
        mujoco.mjv_initGeom(geom, kind, np.zeros(3), position, np.eye(3).ravel(), np.ones(4))
        geom.label = label
        return geom
