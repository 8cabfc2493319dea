"""The scenes whose speed is measured: models, the state that a round starts from, and for how long.

Bodies keep moving: actuators get random controls, what has none is shaken at every start, so that
no engine is timed on a scene that has gone to sleep.
"""

import dataclasses
import math
from collections.abc import Callable

import mujoco
import numpy as np

from benchmark.common.models import DATA, HUMANOID
from mjsim import engines

# Families of scenes that grow: how many boxes, and how many contacts those have, more or less.
LAYERS = {3: 12, 8: 32, 25: 100, 75: 300, 250: 1000, 750: 3000, 2500: 10000}
WALLS = {2: 8, 5: 30, 18: 100, 42: 300, 135: 1000, 390: 3000}
GROWN_STEPS = 40  # of all sizes: the longer ago a scene was shaken, the less a solver has to do


@dataclasses.dataclass(frozen=True)
class SpeedScene:
    """A model, the state that every round starts from, and how long a round is.

    Attributes:
      name: of the scene.
      model: path, relative to the repository, or MJCF.
      settle: steps of MuJoCo C from the model's initial state to that state, under the noise.
      noise: on the controls, as a fraction of half their range.
      shake: standard deviation of what every world's velocities get on top, m/s or rad/s.
      steps: in a round of one world.
      fewest: steps in a round of many worlds, which else has as many as one world shared out.
      worlds: numbers of worlds at level standard.
      quick: those at level quick.
      cuda: those at level cuda.
      probe: steps from which the buffers are sized.
      family: of scenes that grow, or "".
      size: of this one in its family, in contacts, nominally.
    """

    name: str
    model: str
    settle: int = 0
    noise: float = 0.0
    shake: float = 0.05
    steps: int = 1000
    fewest: int = 10
    worlds: tuple[int, ...] = (1, 16, 64)
    quick: tuple[int, ...] = ()
    cuda: tuple[int, ...] = ()
    probe: int = 500
    family: str = ""
    size: int = 0

    def load(self) -> mujoco.MjModel:
        """Compile the model."""
        if self.generated:
            return mujoco.MjModel.from_xml_string(self.model)
        return engines.load_model(self.model)

    @property
    def generated(self) -> bool:
        return self.model.startswith("<")

    def nsteps(self, nworld: int) -> int:
        """Steps in a round."""
        return max(self.fewest, self.steps // nworld)

    def at_level(self, level: str) -> tuple[int, ...]:
        """Numbers of worlds to measure; none where the level leaves the scene out."""
        return {"quick": self.quick, "standard": self.worlds, "cuda": self.cuda}[level]


def layer(nbox: int) -> str:
    """MJCF of boxes side by side on a plane, no one touching another, all sliding."""
    columns = math.ceil(math.sqrt(nbox))
    bodies = "".join(
        f'<body pos="{0.3 * (i % columns):.1f} {0.3 * (i // columns):.1f} 0.04999"><freejoint/>'
        '<geom type="box" size="0.05 0.05 0.05" friction="0.1"/></body>'
        for i in range(nbox)
    )
    rng = np.random.default_rng(0)
    qvel = np.zeros((nbox, 6))
    qvel[:, :2] = rng.uniform(-0.5, 0.5, (nbox, 2))
    return _mjcf(bodies, qvel)


def wall(nbox: int) -> str:
    """MJCF of boxes in courses, each on two of the course below, so that all hang together."""
    courses = max(1, round(math.sqrt(nbox / 2)))
    bodies = []
    for i in range(nbox):
        course, column = i % courses, i // courses
        x, z = 0.204 * column + 0.102 * (course % 2), 0.0499 + 0.0999 * course
        bodies.append(
            f'<body pos="{x:.4f} 0 {z:.4f}"><freejoint/>'
            '<geom type="box" size="0.1 0.05 0.05"/></body>'
        )
    return _mjcf("".join(bodies), np.zeros((nbox, 6)))


def _mjcf(bodies: str, qvel: np.ndarray) -> str:
    start = " ".join(f"{value:.3g}" for value in qvel.ravel())
    return (
        '<mujoco><option timestep="0.002"/><size memory="1G"/>'
        f'<worldbody><geom type="plane" size="0 0 1"/>{bodies}</worldbody>'
        f'<keyframe><key qvel="{start}"/></keyframe></mujoco>'
    )


def _grown(
    family: str, make: Callable[[int], str], sizes: dict[int, int], shake: float
) -> list[SpeedScene]:
    return [
        SpeedScene(
            f"{family}, {contacts:,} contacts",
            make(nbox),
            settle=60,
            shake=shake,
            steps=GROWN_STEPS,
            worlds=(1,),
            cuda=(1,),
            probe=20,
            family=family,
            size=contacts,
        )
        for nbox, contacts in sizes.items()
    ]


MANY = (1, 16, 256, 1024, 4096, 8192)
SCENES = (
    SpeedScene(
        "primitives, settled",
        DATA + "primitives.xml",
        settle=2500,
        steps=10,
        fewest=5,
        worlds=(1, 4),
        quick=(1,),
        cuda=(1, 16, 256, 1024, 4096),
    ),
    SpeedScene("humanoid, standing", HUMANOID, noise=1.0, cuda=MANY),
    SpeedScene(
        "humanoid, fallen",
        HUMANOID,
        settle=2500,
        noise=1.0,
        worlds=(1, 4, 16, 64),
        quick=(1, 64),
        cuda=(4096,),
    ),
    SpeedScene(
        "hand holding a cube",
        DATA + "hand/env_hand_cube.xml",
        noise=0.1,
        steps=400,
        quick=(1, 16),
        cuda=MANY,
    ),
    SpeedScene(
        "arm and cube", DATA + "franka_cube_grasp/scene.xml", noise=0.1, steps=800, cuda=MANY
    ),
    SpeedScene("pendula", DATA + "pendula.xml", steps=2000, quick=(1, 64), cuda=MANY),
    SpeedScene("constraints", DATA + "constraints.xml", cuda=MANY),
    SpeedScene("collision", DATA + "collision.xml", settle=300, steps=150),
    SpeedScene("height field", DATA + "hfield/hfield.xml", settle=500, steps=300),
    SpeedScene("cloth", DATA + "flex/floppy.xml", settle=400, steps=100, worlds=(1, 16)),
    *_grown("layer", layer, LAYERS, shake=0.0),
    *_grown("wall", wall, WALLS, shake=0.02),
)
BY_NAME = {scene.name: scene for scene in SCENES}
