"""How many pairs of geoms MuJoCo Warp may take through GJK and EPA at once.

It keeps 4 to 9 kB for every one, whether the two touch or not: most of the memory of a world. Its
`naccdmax` is how many there may be of one pair of geom types.
"""

import mujoco
import numpy as np

_MOST_GEOMS = 450  # with 100,000 pairs, which take about 10 ms to go through
_PLANE = int(mujoco.mjtGeom.mjGEOM_PLANE)
_IN_PIECES = [int(mujoco.mjtGeom.mjGEOM_HFIELD), int(mujoco.mjtGeom.mjGEOM_SDF)]
_SENSORS = [
    int(mujoco.mjtSensor.mjSENS_GEOMDIST),
    int(mujoco.mjtSensor.mjSENS_GEOMNORMAL),
    int(mujoco.mjtSensor.mjSENS_GEOMFROMTO),
]


class ConvexPairs:
    """The pairs of geoms of a model that may meet as convex bodies.

    Attributes:
      countable: whether `close` tells all there can be. It does not with height fields, flexes and
        SDFs, which meet others in pieces, with explicit pairs and sensors of distances, which pass
        by the broad phase, or with too many geoms.
      npair: how many pairs there are, of which each is looked at by `close`.
    """

    def __init__(self, mjm: mujoco.MjModel):
        contype, conaffinity, kinds = mjm.geom_contype, mjm.geom_conaffinity, mjm.geom_type
        in_pieces = np.isin(kinds, _IN_PIECES) & ((contype | conaffinity) != 0)
        beside = mjm.npair or np.isin(mjm.sensor_type, _SENSORS).any()
        special = in_pieces.any() or mjm.nflex or beside
        self.countable = bool(mjm.ngeom <= _MOST_GEOMS and not special)
        first, second = np.triu_indices(mjm.ngeom if self.countable else 0, 1)
        meet = (contype[first] & conaffinity[second]) | (contype[second] & conaffinity[first])
        keep = (meet != 0) & (mjm.geom_bodyid[first] != mjm.geom_bodyid[second])
        keep &= (kinds[first] != _PLANE) & (kinds[second] != _PLANE)
        self._geoms = np.stack([first[keep], second[keep]])
        self.npair = self._geoms.shape[1]
        low, high = np.sort(kinds[self._geoms], axis=0)
        self._types = low * len(mujoco.mjtGeom.__members__) + high
        self._centre = mjm.geom_aabb[:, :3]
        self._half = mjm.geom_aabb[:, 3:]
        self._reach = mjm.geom_margin + mjm.geom_gap
        self._radius = mjm.geom_rbound + self._reach

    def close(self, mjd: mujoco.MjData) -> int:
        """How many pairs have overlapping boxes, of the pair of types that has most.

        MuJoCo Warp lets these through its broad phase, but not those of a body and its parent.
        """
        first, second = self._geoms
        apart = np.linalg.norm(mjd.geom_xpos[first] - mjd.geom_xpos[second], axis=1)
        near = apart <= self._radius[first] + self._radius[second]
        first, second = first[near], second[near]
        axes = mjd.geom_xmat.reshape(-1, 3, 3)
        centre = mjd.geom_xpos + np.einsum("nij,nj->ni", axes, self._centre)
        offset = centre[second] - centre[first]
        turned = np.einsum("nji,njk->nik", axes[first], axes[second])
        half, other = self._half[first], self._half[second]
        gaps = [  # along the axes of the first box, and of the second
            np.abs(np.einsum("nji,nj->ni", axes[first], offset))
            - (half + np.einsum("nij,nj->ni", np.abs(turned), other)),
            np.abs(np.einsum("nji,nj->ni", axes[second], offset))
            - (other + np.einsum("nij,ni->nj", np.abs(turned), half)),
        ]
        reach = self._reach[first] + self._reach[second]
        overlap = np.hstack(gaps).max(axis=1, initial=-np.inf) <= reach
        return int(np.bincount(self._types[near][overlap], minlength=1).max())
