"""MuJoCo C on all cores."""

import contextlib
import copy
import time
from collections.abc import Iterator

import mujoco
import mujoco.batch
import numpy as np
import numpy.typing as npt

from mjsim.cores import usable_cores
from mjsim.engines import history
from mjsim.engines.memory import available_memory
from mjsim.engines.noise import ControlNoise, draw
from mjsim.engines.simulation import (
    STATE_FIELDS,
    VELOCITY_LIMIT,
    Counts,
    Health,
    Report,
    Simulation,
    WorldCounts,
    check_field,
    describe_health,
)
from mjsim.errors import OutOfRoomError
from mjsim.model.arena import FULL, is_arena_error, with_arena
from mjsim.model.files import initial_data

_PERSISTENT = int(mujoco.mjtEnableBit.mjENBL_SLEEP | mujoco.mjtEnableBit.mjENBL_IPC)


class MjcSimulation(Simulation):
    """MuJoCo C on all cores, through the rollout of `mujoco.batch.Batch`.

    Batch is MuJoCo 4's form of `mujoco.rollout`: the same thread pool and speed, but it keeps the
    solver's warm start from call to call, so that a run does not depend on how it was cut into
    calls and equals a loop of `mj_step` bit for bit.

    Of a model whose bodies may sleep it keeps an MjData per world, since what sleeps is in no state
    that could be put back. Its arena cannot grow later, and so is large from the start.
    """

    _RECORD_BYTES = 16 << 20  # states kept per call, to find the step at which one diverged
    # Steps of noise drawn at once when few are asked for at a time, since a draw costs as much as
    # some steps; doubled from draw to draw.
    _DRAW_AHEAD = 256
    _BLOCK_SECONDS = 0.1  # of steps that are taken again when the arena was too small
    _LASTING_ARENA = (16, 64 << 20)  # times the model's, and bytes at least, where it cannot grow

    def __init__(
        self,
        mjm: mujoco.MjModel,
        nworld: int,
        noise: ControlNoise,
        remember: float,
        fixed_buffers: bool,
        report: Report,
    ):
        self.mjm, self.engine, self.device, self.nworld = mjm, "mjc", "cpu", nworld
        self.fixed_buffers, self._report = fixed_buffers, report
        self._noise = noise
        # Without this MuJoCo would silently put a diverged world back to its start.
        model = copy.copy(mjm)
        model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_AUTORESET
        self._persistent = bool(mjm.opt.enableflags & _PERSISTENT)
        if self._persistent and not fixed_buffers:
            times, least = self._LASTING_ARENA
            model = with_arena(model, max(times * model.narena, least))
        self._stopped_by: OutOfRoomError | None = None
        self._make_batch(model)
        self._before = np.empty_like(self._batch.state)  # of the block of steps in progress
        self._diverged_step = np.empty(nworld, dtype=int)
        self._ctrl = np.empty((nworld, mjm.nu), dtype=np.float32)
        self._drawn, self._drawn_from = np.empty((nworld, 0, mjm.nu), dtype=np.float32), 0
        # What the rollout records: velocities, or states with them.
        self._record: str | int = "qvel"
        self._qvel, size = slice(None), mjm.nv
        if remember:
            self._record, self._qvel = history.SPEC, slice(1 + mjm.nq, 1 + mjm.nq + mjm.nv)
            size = mujoco.mj_stateSize(mjm, history.SPEC)
            self.rings = history.choose_rings(mjm, nworld, remember, itemsize=8)
            self._kept = np.zeros((nworld, self.rings.nslots, size))
        self._most = max(1, self._RECORD_BYTES // (8 * nworld * max(1, size + mjm.nu)))
        self._block = min(16, self._most)
        self.reset()

    def _make_batch(self, model: mujoco.MjModel) -> None:
        self._model = model
        self.sizes = {"narena": int(model.narena)}
        self._batch = mujoco.batch.Batch(
            model, self.nworld, nthread=usable_cores(), persistent=self._persistent
        )
        self._fields = {field: self._batch.bind(field) for field in STATE_FIELDS}
        self._ncon, self._nefc = self._batch.bind("ncon"), self._batch.bind("nefc")
        self._niter, self._nisland = (self._batch.bind(it) for it in ("solver_niter", "nisland"))

    def reset(self) -> None:
        mjd = initial_data(self.mjm)
        # This sets what `STATE_FIELDS` leaves out too, such as the solver's warm start, and wakes
        # what sleeps.
        self._batch.reset(stage=mujoco.mjtStage.mjSTAGE_NONE.value)
        for field in STATE_FIELDS:
            self.write(field, getattr(mjd, field))
        self._batch.warning[:] = 0
        self._start_time, self.nstep = mjd.time, 0
        self._diverged_step[:] = -1
        self._lost, self._stopped_by = False, None

    def step(self, n: int = 1) -> None:
        if self._stopped_by:
            raise self._stopped_by
        if self.rings and not self.nstep:
            start = [self._fields[field] for field in ("time", "qpos", "qvel", "act", "ctrl")]
            state = np.hstack([values.reshape(self.nworld, -1) for values in start])
            self._keep(self.rings, state[:, None], first=0)
        while n > 0:
            block = min(n, self._block)
            control = self._noise_for(block) if self._noise.scale and self.mjm.nu else None
            begin = time.perf_counter()
            with silent_mujoco_warnings():
                states = self._advance(block, control)
            self._choose_block(block, time.perf_counter() - begin)
            self._watch(states)
            if self.rings:
                self._keep(self.rings, states, self.nstep + 1)
            self.nstep += block
            n -= block

    def _choose_block(self, block: int, seconds: float) -> None:
        """Steps to take at once, so that few have to be taken again; at most doubled."""
        if block == self._block:
            fits = int(block * self._BLOCK_SECONDS / max(seconds, 1e-9))
            self._block = max(1, min(2 * block, fits, self._most))

    def _advance(self, block: int, control: np.ndarray | None) -> np.ndarray:
        """Take steps in all worlds, in a larger arena where that turns out too small.

        Args:
          block: how many.
          control: of each step, (nworld, block, nu); None: as they are.

        Returns:
          What is recorded of each, (nworld, block, size).

        Raises:
          OutOfRoomError: the arena is too small for a step, and cannot grow.
        """
        self._before[:] = self._batch.state
        warned = self._batch.warning.copy()
        while True:
            try:
                states, full = self._roll(block, control)
            except mujoco.batch.SimulationError as error:
                if not is_arena_error(error):
                    raise
                told = f"a step up to {self.nstep + block:,} works on more memory"
                if not self._can_grow:
                    self._stop(told)
            else:
                if full is None or not self._can_grow:
                    self._lost |= full is not None
                    return states
                told = f"step {full:,} has more contacts or constraint rows"
            self._grow(told, warned)

    @property
    def _can_grow(self) -> bool:
        return not (self.fixed_buffers or self._persistent)

    def _roll(self, block: int, control: np.ndarray | None) -> tuple[np.ndarray, int | None]:
        """As `_advance`, in the arena that there is; and the first step at which it was full.

        After that step nothing is worth anything where the arena can grow. A rollout leaves a world
        alone for the rest of its call once MuJoCo has warned of anything in it: where that is to be
        lived with, others take it further.
        """
        item, counts = self._record, self._batch.warning[:, :, 1]
        before, start = counts.copy(), self._fields["time"].copy()
        states = self._batch.rollout(block, control, record=(item,))[item]
        if (counts == before).all():
            return states, None

        full, timestep = None, self.mjm.opt.timestep
        going = (self._diverged_step < 0) & ~self._are_bad(states).any(axis=1)
        done = np.rint((self._fields["time"] - start) / timestep).astype(int)
        rolled = np.arange(self.nworld)
        while True:
            filled = (counts[:, FULL] > before[:, FULL]).any(axis=1) & going
            if filled.any():
                full = min(self.nstep + int(done[filled].min()), full or np.iinfo(int).max)
                if self._can_grow:
                    return states, full
            late = np.flatnonzero(going & (done < block))
            if not late.size:
                return states, full
            first = int(done[late].min())
            rolled = late[done[late] == first]
            before = counts.copy()
            given = None if control is None else control[rolled, first:]
            rest = self._batch.rollout(block - first, given, record=(item,), ids=rolled)[item]
            states[rolled, first:] = rest
            going[rolled] = ~self._are_bad(rest).any(axis=1)
            done[rolled] = np.rint((self._fields["time"][rolled] - start[rolled]) / timestep)

    def _grow(self, told: str, warned: np.ndarray) -> None:
        """Go back to before the block, in an arena of twice the size."""
        old = self._model.narena
        available = available_memory()
        if available is not None and 2 * old > available:
            self._stop(told, f"there are {available:,} bytes left")
        self._make_batch(with_arena(self._model, 2 * old))
        self._batch.state[:], self._batch.warning[:] = self._before, warned
        self._tell_growth(f"{told} than an arena of {old:,} bytes (now {2 * old:,})")

    def _stop(self, told: str, why: str = "it is fixed") -> None:
        if self._persistent:
            why = "bodies may sleep, and what sleeps cannot be moved"
        else:
            self._batch.state[:] = self._before
        self._stopped_by = OutOfRoomError(
            f"{told} than MuJoCo's arena of {self._model.narena:,} bytes, which cannot grow: "
            f"{why}. {self.nstep:,} steps are done. Raise <size memory> in the "
            "model"
        )
        raise self._stopped_by

    def _keep(self, rings: history.Rings, states: np.ndarray, first: int) -> None:
        end = first + states.shape[1] - 1
        last = np.where(self._diverged_step < 0, end, self._diverged_step)
        history.keep(rings, self._kept, states, first, last)

    def _recent(self, world: int) -> tuple[int, np.ndarray]:
        return int(self._diverged_step[world]), self._kept[world]

    def _are_bad(self, states: np.ndarray) -> np.ndarray:
        """Which of recorded states have diverged, (nworld, n) bool."""
        speed = np.abs(states[:, :, self._qvel]).max(axis=2, initial=0.0)
        return ~(speed <= VELOCITY_LIMIT)  # NaN compares false

    def _watch(self, states: np.ndarray) -> None:
        bad = self._are_bad(states)
        new = bad.any(axis=1) & (self._diverged_step < 0)
        self._diverged_step[new] = self.nstep + 1 + bad[new].argmax(axis=1)

    def _noise_for(self, block: int) -> np.ndarray:
        """Controls of the next steps, (nworld, block, nu)."""
        start = self.nstep - self._drawn_from
        if not 0 <= start <= self._drawn.shape[1] - block:
            ahead = min(2 * self._drawn.shape[1], self._DRAW_AHEAD, self._most)
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
        told: tuple[str, ...] = ()
        if self._lost:
            told = ("MuJoCo's arena is full: contacts are lost; raise <size memory> in the model",)
        if self._stopped_by:
            told = (*told, str(self._stopped_by))
        lost = self._lost or self._stopped_by is not None
        timestep = self.mjm.opt.timestep
        return describe_health(self._diverged_step, told, lost, self._start_time, timestep)

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
