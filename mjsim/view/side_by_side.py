"""Several states of one model in one picture: each but the first drawn beside the one before."""

import math
from collections.abc import Sequence

import mujoco
import numpy as np

_GAP = 1.15  # of the scene's width: from one state to the next
_ASPECT = 4.0 / 3.0  # of the window, for the camera to see all states
_HIDDEN_GROUP = 3  # the first group of geoms that MuJoCo does not draw unless asked to


class Layout:
    """Where states of a model stand in a row: to the right, as MuJoCo's free camera sees them.

    Args:
      mjm: the model.
      mjd: a state of it, on which `mj_forward` was called.

    Attributes:
      right: the direction of the row, along an axis of the world, (3,).
      distance: from one state to the next, m.
      width: of a state along the row, m.
      center: of the first state, (3,), m.
      above: from the center to where a label stands, (3,), m.
      floors: planes that are drawn once and go on as far as the row does, with their widths, m.
    """

    def __init__(self, mjm: mujoco.MjModel, mjd: mujoco.MjData) -> None:
        camera = mujoco.MjvCamera()
        mujoco.mjv_defaultFreeCamera(mjm, camera)
        azimuth = math.radians(camera.azimuth)
        right = np.array([math.sin(azimuth), -math.cos(azimuth), 0.0])
        axis = int(np.abs(right).argmax())
        self.right = np.sign(right[axis]) * np.eye(3)[axis]

        low, high = _box(mjm, mjd)
        self.floors: dict[int, float] = {}
        for plane in np.flatnonzero(mjm.geom_type == mujoco.mjtGeom.mjGEOM_PLANE):
            reach = _plane_reach(mjm, mjd, int(plane))
            across = mjd.geom_xmat[plane].reshape(3, 3)[axis, 2]
            if abs(across) < 1e-3 and 2.0 * reach[axis] >= (high - low)[axis]:
                self.floors[int(plane)] = float(2.0 * reach[axis])
            elif np.isfinite(reach).all():
                low = np.minimum(low, mjd.geom_xpos[plane] - reach)
                high = np.maximum(high, mjd.geom_xpos[plane] + reach)
        size = high - low
        self.width = float(size[axis])
        # A state that stands may fall over, and must not reach the next one then either.
        self.distance = float(_GAP * max(self.width, size[2]))
        self.center = 0.5 * (low + high)
        self.above = np.array([0.0, 0.0, 0.5 * size[2] + 0.08 * size.max()])

    def offsets(self, count: int) -> np.ndarray:
        """Of so many states from the first one, (count, 3), m."""
        return np.arange(count)[:, None] * self.distance * self.right


def _box(mjm: mujoco.MjModel, mjd: mujoco.MjData) -> tuple[np.ndarray, np.ndarray]:
    """The lower and upper corner of all that is drawn, but for planes."""
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


def _plane_reach(mjm: mujoco.MjModel, mjd: mujoco.MjData, plane: int) -> np.ndarray:
    """How far a plane reaches from its middle along each axis, (3,), m."""
    half = mjm.geom_size[plane, :2]
    if (half == 0.0).any():
        return np.full(3, np.inf)
    return np.abs(mjd.geom_xmat[plane].reshape(3, 3)[:, :2]) @ half


class SideBySide:
    """Draws states in a row in MuJoCo's window.

    Args:
      mjm: the model.
      mjds: its states, of which the first is drawn by whoever owns the scene.
      labels: what floats above each.
    """

    def __init__(
        self, mjm: mujoco.MjModel, mjds: Sequence[mujoco.MjData], labels: Sequence[str]
    ) -> None:
        self._mjm, self._mjds, self._labels = mjm, mjds, labels
        self._layout = Layout(mjm, mjds[0])
        self._length = (len(mjds) - 1) * self._layout.distance

    def aim(self, camera: mujoco.MjvCamera, fovy: float) -> None:
        """Let a free camera see the whole row; fovy in degrees."""
        layout = self._layout
        camera.lookat[:] = layout.center + 0.5 * self._length * layout.right
        half = np.array([0.5 * (self._length + 1.15 * layout.distance) / _ASPECT, layout.above[2]])
        nearest = half.max() / math.tan(math.radians(0.5 * fovy))
        camera.distance = nearest + 0.5 * layout.width

    def draw(self, scene: mujoco.MjvScene, option: mujoco.MjvOption) -> None:
        """Make the scene hold all states but the first, and all labels."""
        nobody = mujoco.MjvPerturb()
        scene.ngeom = 0
        offsets = self._layout.offsets(len(self._mjds))
        for number, mjd in enumerate(self._mjds):
            if number:
                before = scene.ngeom
                mujoco.mjv_addGeoms(
                    self._mjm, mjd, option, nobody, mujoco.mjtCatBit.mjCAT_ALL.value, scene
                )
                for geom in scene.geoms[before : scene.ngeom]:
                    self._move(geom, number)
                self._draw_flexes(scene, mjd, offsets[number])
            above = self._layout.center + self._layout.above + offsets[number]
            self._add(scene, mujoco.mjtGeom.mjGEOM_LABEL, above, self._labels[number])

    def _move(self, geom: mujoco.MjvGeom, number: int) -> None:
        """Move what is drawn of a state to its place in the row, or draw nothing of it."""
        layout = self._layout
        distance = number * layout.distance
        # The vertices of these are kept elsewhere, in the scene of the first state.
        fixed = geom.type in (mujoco.mjtGeom.mjGEOM_FLEX, mujoco.mjtGeom.mjGEOM_SKIN)
        if geom.objtype == mujoco.mjtObj.mjOBJ_GEOM and geom.objid in layout.floors:
            # Where it is wider than the way to the next state, it goes on where it ends.
            width = max(layout.floors[geom.objid], layout.distance)
            distance = number * width
            fixed = (number - 0.5) * width > self._length + 0.5 * layout.distance
        if fixed:
            geom.type, geom.label = mujoco.mjtGeom.mjGEOM_LABEL.value, ""
        else:
            geom.pos[:] += distance * layout.right

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
