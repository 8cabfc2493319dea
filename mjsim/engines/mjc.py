"""MuJoCo C on all cores."""

import contextlib
import copy
from collections.abc import Iterator

import mujoco
import mujoco.batch
import numpy as np
import numpy.typing as npt

from mjsim.cores import usable_cores
from mjsim.engines import history
from mjsim.engines.noise import ControlNoise, draw
from mjsim.engines.simulation import (
    STATE_FIELDS,
    VELOCITY_LIMIT,
    Counts,
    Health,
    Simulation,
    WorldCounts,
    check_field,
    describe_health,
)
from mjsim.model.files import initial_data


class MjcSimulation(Simulation):
    """MuJoCo C on all cores, through the rollout of `mujoco.batch.Batch`.

    Batch is MuJoCo 4's form of `mujoco.rollout`: the same thread pool and speed, but it keeps the
    solver's warm start from call to call, so that a run does not depend on how it was cut into
    calls and equals a loop of `mj_step` bit for bit.
    """

    _RECORD_BYTES = 16 << 20  # states kept per call, to find the step at which one diverged
    # Steps of noise drawn at once when few are asked for at a time, since a draw costs as much as
    # some steps; doubled from draw to draw.
    _DRAW_AHEAD = 256

    def __init__(self, mjm: mujoco.MjModel, nworld: int, noise: ControlNoise, remember: float):
        self.mjm, self.engine, self.device, self.nworld = mjm, "mjc", "cpu", nworld
        self.sizes = {}
        self._noise = noise
        # Without this MuJoCo would silently put a diverged world back to its start.
        mjm = copy.copy(mjm)
        mjm.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_AUTORESET
        self._batch = mujoco.batch.Batch(mjm, nworld, nthread=usable_cores())
        self._fields = {field: self._batch.bind(field) for field in STATE_FIELDS}
        self._diverged_step = np.empty(nworld, dtype=int)
        self._ctrl = np.empty((nworld, mjm.nu), dtype=np.float32)
        self._ncon, self._nefc = self._batch.bind("ncon"), self._batch.bind("nefc")
        self._niter, self._nisland = (self._batch.bind(it) for it in ("solver_niter", "nisland"))
        self._drawn, self._drawn_from = np.empty((nworld, 0, mjm.nu), dtype=np.float32), 0
        # What the rollout records: velocities, or states with them.
        self._record, self._qvel, size = "qvel", slice(None), mjm.nv
        if remember:
            self._record, self._qvel = history.SPEC, slice(1 + mjm.nq, 1 + mjm.nq + mjm.nv)
            size = mujoco.mj_stateSize(mjm, history.SPEC)
            self.rings = history.choose_rings(mjm, nworld, remember, itemsize=8)
            self._kept = np.zeros((nworld, self.rings.nslots, size))
        self._block = max(1, self._RECORD_BYTES // (8 * nworld * max(1, size + mjm.nu)))
        self.reset()

    def reset(self) -> None:
        mjd = initial_data(self.mjm)
        # This sets what `STATE_FIELDS` leaves out too, such as the solver's warm start.
        self._batch.reset(stage=mujoco.mjtStage.mjSTAGE_NONE.value)
        for field in STATE_FIELDS:
            self.write(field, getattr(mjd, field))
        self._batch.warning[:] = 0
        self._start_time, self.nstep = mjd.time, 0
        self._diverged_step[:] = -1

    def step(self, n: int = 1) -> None:
        if self.rings and not self.nstep:
            start = [self._fields[field] for field in ("time", "qpos", "qvel", "act", "ctrl")]
            state = np.hstack([values.reshape(self.nworld, -1) for values in start])
            self._keep(state[:, None], first=0)
        while n > 0:
            block = min(n, self._block)
            control = self._noise_for(block) if self._noise.scale and self.mjm.nu else None
            with silent_mujoco_warnings():
                states = self._batch.rollout(block, control, record=(self._record,))[self._record]
            self._watch(states[:, :, self._qvel])
            if self.rings:
                self._keep(states, self.nstep + 1)
            self.nstep += block
            n -= block

    def _keep(self, states: np.ndarray, first: int) -> None:
        end = first + states.shape[1] - 1
        last = np.where(self._diverged_step < 0, end, self._diverged_step)
        history.keep(self.rings, self._kept, states, first, last)

    def _recent(self, world: int) -> tuple[int, np.ndarray]:
        return int(self._diverged_step[world]), self._kept[world]

    def _watch(self, qvel: np.ndarray) -> None:
        bad = ~(np.abs(qvel).max(axis=2, initial=0.0) <= VELOCITY_LIMIT)  # NaN compares false
        new = bad.any(axis=1) & (self._diverged_step < 0)
        self._diverged_step[new] = self.nstep + 1 + bad[new].argmax(axis=1)

    def _noise_for(self, block: int) -> np.ndarray:
        """Controls of the next steps, (nworld, block, nu)."""
        start = self.nstep - self._drawn_from
        if not 0 <= start <= self._drawn.shape[1] - block:
            ahead = min(2 * self._drawn.shape[1], self._DRAW_AHEAD, self._block)
            self._drawn = draw(self._noise, self.mjm, self._ctrl, self.nstep, max(block, ahead))
            self._drawn_from, start = self.nstep, 0
        return np.ascontiguousarray(self._drawn[:, start : start + block])

    def read(self, field: str, world: int = 0) -> np.ndarray:
        check_field(field)
        return np.array(self._fields[field][world])

    def read_all(self, field: str) -> np.ndarray:
        check_field(field)
        return np.array(self._fields[field])

    def write(self, field: str, values: npt.ArrayLike, world: int | None = None) -> None:
        check_field(field)
        chosen = slice(None) if world is None else world
        self._fields[field][chosen] = values
        if field == "ctrl":
            self._ctrl[chosen] = values
            self._drawn = self._drawn[:, :0]  # it was drawn around others

    def counts(self) -> Counts:
        return Counts(int(self._ncon.sum()), int(self._nefc.sum()))

    def world_counts(self) -> WorldCounts:
        island = np.arange(self._niter.shape[1])
        # Beyond the islands that there are, the array holds what other steps left.
        used = island < np.maximum(self._nisland, 1)[:, None]
        iterations = np.where(used, self._niter, 0).max(axis=1)
        return WorldCounts(self._ncon.copy(), self._nefc.copy(), iterations)

    def health(self) -> Health:
        full = [int(mujoco.mjtWarning.mjWARN_CONTACTFULL), int(mujoco.mjtWarning.mjWARN_CNSTRFULL)]
        overflow = ()
        if self._batch.warning[:, full, 1].any():
            overflow = (
                "MuJoCo's arena is full: contacts are lost; raise <size memory> in the model",
            )
        return describe_health(
            self._diverged_step, overflow, self._start_time, self.mjm.opt.timestep
        )

    def synchronize(self) -> None:
        pass


@contextlib.contextmanager
def silent_mujoco_warnings() -> Iterator[None]:
    """Keep MuJoCo from writing a line per warning to stdout and MUJOCO_LOG.TXT: `health` tells."""
    mujoco.set_mju_user_warning(lambda message: None)
    try:
        yield
    finally:
        mujoco.set_mju_user_warning(None)
