"""A scene of the fidelity suite: a model, a start, perhaps a script of controls, and a measure.

The measure is a function that turns the recorded motion into quantities, each beside what it should
be: an exact formula, the ideal of rigid bodies, or MuJoCo C's Newton solver at a tenth of the
timestep.
"""

import dataclasses
import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path

import mujoco
import numpy as np

from benchmark.fidelity.measures import Quantity, Trajectory
from mjsim import engines

TIMESTEPS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02)  # s
GRAVITY = 9.81  # m/s^2
MM = 1e3

COARSE_WARP = {"mjwarp": 0.002}  # `FidelityScene.finest` of the scenes in which its steps are slow

State = Mapping[str, np.ndarray]
Script = tuple[tuple[float, np.ndarray], ...]


@dataclasses.dataclass(frozen=True)
class FidelityScene:
    """What is simulated and measured.

    Attributes:
      name: of the scene.
      about: what it asks, in one line.
      xml: makes the MJCF, which names no timestep and no integrator.
      measure: quantities of a motion; the same names and variants whatever happened.
      duration: s.
      sample: s between recorded states; every step where steps are longer.
      nconmax: contacts per world to allocate.
      njmax: constraint rows per world to allocate.
      nworld: worlds; those of level full.
      nworld_standard: worlds at the levels below, where not the same.
      start: fields of the initial state, (nworld, n) each; from the model where not given.
      script: controls, each from its time on.
      quick: whether it is part of level quick.
      finest: by engine, the finest timestep that level standard has time for; a step of one law
        of comfree takes about as long as one of the other.
      files: gives the files that the MJCF refers to, by name.
      revision: raise it when the measure changes, so that stored results start a new series.
    """

    name: str
    about: str
    xml: Callable[[], str]
    measure: Callable[[mujoco.MjModel, Trajectory], list[Quantity]]
    duration: float
    sample: float
    nconmax: int
    njmax: int
    nworld: int = 1
    nworld_standard: int | None = None
    start: Callable[[mujoco.MjModel, int], State] | None = None
    script: Callable[[mujoco.MjModel], Script] | None = None
    quick: bool = False
    finest: Mapping[str, float] = dataclasses.field(default_factory=dict)
    files: Callable[[], Mapping[str, bytes]] = dict
    revision: int = 1

    def model(self, timestep: float, integrator: str) -> mujoco.MjModel:
        """Compile the model with a timestep in s and an integrator by MuJoCo's name."""
        mjm = mujoco.MjModel.from_xml_string(self.xml(), self.files())
        mjm.opt.timestep = timestep
        mjm.opt.integrator = getattr(mujoco.mjtIntegrator, f"mjINT_{integrator.upper()}")
        return mjm

    def model_hash(self) -> str:
        """64 hex digits, of the MJCF and its files."""
        found = hashlib.sha256(self.xml().encode())
        for name, content in sorted(self.files().items()):
            found.update(name.encode() + content)
        return found.hexdigest()


def mjcf(
    worldbody: str,
    cone: str = "pyramidal",
    gravity: float = GRAVITY,
    default: str = "",
    more: str = "",
) -> str:
    return f"""<mujoco>
  <option cone="{cone}" gravity="0 0 -{gravity:g}"/>
  <default>{default}</default>
  <worldbody>
    {worldbody}
  </worldbody>
  {more}
</mujoco>"""


def read_model(path: str | Path) -> str:
    return engines.find_file(path).read_text()


def read_files(path: str | Path, pattern: str) -> dict[str, bytes]:
    """The files beside a model whose names match, by name."""
    beside = sorted(engines.find_file(path).parent.glob(pattern))
    return {file.name: file.read_bytes() for file in beside if file.is_file()}
