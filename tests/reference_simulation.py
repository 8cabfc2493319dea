"""The float64 reference of the contact law, stepped: an engine of its own for small models."""

import mujoco
import numpy as np
import numpy.typing as npt
import reference

from mjsim import engines


class ReferenceSimulation(engines.Simulation):
    """One world under the law of reference.py, integrated by semi-implicit Euler.

    For models without damping and actuators, where implicitfast is the same.
    """

    def __init__(self, mjm: mujoco.MjModel, stiffness: float, damping: float):
        self.mjm, self.engine, self.device, self.nworld = mjm, "reference", "cpu", 1
        self.sizes = {}
        self._law = stiffness, damping
        self._mjd = engines.initial_data(mjm)
        self._rows = 0

    def step(self, n: int = 1) -> None:
        mjd, h = self._mjd, self.mjm.opt.timestep
        for _ in range(n):
            result = reference.step_reference(self.mjm, mjd, *self._law)
            mjd.qvel[:] += h * result.qacc
            mujoco.mj_integratePos(self.mjm, mjd.qpos, mjd.qvel, h)
            mjd.time += h
            self._rows = len(result.forces)
        self.nstep += n

    def read(self, field: str, world: int = 0) -> np.ndarray:
        return np.array(getattr(self._mjd, field))

    def read_all(self, field: str) -> np.ndarray:
        return self.read(field)[None]

    def write(self, field: str, values: npt.ArrayLike, world: int | None = None) -> None:
        getattr(self._mjd, field)[:] = np.reshape(values, -1)

    def reset(self) -> None:
        self._mjd, self.nstep = engines.initial_data(self.mjm), 0

    def world_counts(self) -> engines.WorldCounts:
        return engines.WorldCounts(np.zeros(1, int), np.array([self._rows]), None)

    def _recent(self, world: int) -> tuple[int, np.ndarray]:
        raise NotImplementedError

    def counts(self) -> engines.Counts:
        return engines.Counts(0, self._rows)

    def health(self) -> engines.Health:
        return engines.Health(None, 0, ())

    def synchronize(self) -> None:
        pass
