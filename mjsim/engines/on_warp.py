"""One interface over three engines: MuJoCo C, MuJoCo Warp and the complementarity-free one.

    mjm = load_model("benchmark/test_data/primitives.xml")
    simulation = make_simulation(mjm, engine="comfree", device="cpu", nworld=1)
    simulation.step(1000)
    qpos = simulation.read("qpos", world=0)

Every script and benchmark goes through `make_simulation`, so that an engine is compared with
another on the same start, the same controls and the same checks.
"""

import abc
import contextlib
import copy
import dataclasses
import os
import re
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import comfree_warp  # before MuJoCo Warp, which it imports in half the time

# isort: split
import mujoco
import mujoco.batch
import mujoco_warp
import numpy as np
import numpy.typing as npt
import warp as wp

import recent
from comfree_warp.compilation import ROOM, begin_compiling, compile_kernels
from comfree_warp.compilation import Progress as Progress
from comfree_warp.graph import capture
from comfree_warp.io import LAWS as LAWS
from comfree_warp.io import PASSES as PASSES
from comfree_warp.narrowphase import narrow_phase_on_few_threads
from convex_pairs import ConvexPairs
from errors import SettingError as SettingError
from recent import RecentState as RecentState

ENGINES = ("mjc", "mjwarp", "comfree")
REPOSITORY = Path(__file__).resolve().parent

# No machine moves at this speed; a world that does (or is NaN) has diverged.
VELOCITY_LIMIT = 1e5  # m/s or rad/s

# What `Simulation.read` and `Simulation.write` know, by MuJoCo's names.
STATE_FIELDS = (
    "time",
    "qpos",
    "qvel",
    "act",
    "ctrl",
    "qfrc_applied",
    "xfrc_applied",
    "mocap_pos",
    "mocap_quat",
)


@dataclasses.dataclass(frozen=True)
class Counts:
    """Contacts and constraint rows of the last step, summed over all worlds."""

    contacts: int
    rows: int


@dataclasses.dataclass(frozen=True)
class WorldCounts:
    """What the last step had to do, world by world.

    Attributes:
      contacts: (nworld,) int.
      rows: constraint rows, (nworld,) int.
      iterations: of the solver, in the island that needed most, (nworld,) int; None where the
        engine does not iterate.
    """

    contacts: np.ndarray
    rows: np.ndarray
    iterations: np.ndarray | None


@dataclasses.dataclass(frozen=True)
class Divergence:
    """The first sign of a diverged world: a velocity that is NaN or beyond `VELOCITY_LIMIT`.

    Attributes:
      world: index of the world.
      step: how many steps it had taken, counted from 1.
      time: simulated time at the end of that step, s.
    """

    world: int
    step: int
    time: float

    def __str__(self) -> str:
        return (
            f"world {self.world} diverged at step {self.step} (t = {self.time:.4f} s): "
            f"a velocity is NaN or beyond {VELOCITY_LIMIT:g} m/s or rad/s"
        )


@dataclasses.dataclass(frozen=True)
class Health:
    """What went wrong so far.

    Attributes:
      divergence: the earliest one, or None.
      ndiverged: number of worlds that have diverged.
      overflow: a sentence for each buffer that was too small, with the count needed so far.
    """

    divergence: Divergence | None
    ndiverged: int
    overflow: tuple[str, ...]


# ---------------------------------------------------------------------------- models and devices


def find_file(path: str | os.PathLike[str]) -> Path:
    """Resolve a path against the working directory, then against the repository.

    Raises:
      SettingError: no such file in either.
    """
    candidates = dict.fromkeys([Path.cwd() / path, REPOSITORY / path])
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    tried = " or ".join(str(candidate) for candidate in candidates)
    raise SettingError("model", f"{str(path)!r} is no file; looked for {tried}")


def load_model(path: str | os.PathLike[str]) -> mujoco.MjModel:
    """Compile an MJCF or URDF file, or load an MJB.

    Raises:
      SettingError: the file does not exist or is no valid model; in one line, with MuJoCo's reason.
    """
    file = find_file(path)
    try:
        if file.suffix == ".mjb":
            return mujoco.MjModel.from_binary_path(str(file))
        return mujoco.MjModel.from_xml_path(str(file))
    except (ValueError, mujoco.FatalError) as error:
        reason = " ".join(str(error).split())
        raise SettingError("model", f"{str(path)!r} does not compile: {reason}") from None


def initial_data(mjm: mujoco.MjModel) -> mujoco.MjData:
    """The state that a run starts from: keyframe 0 where the model has one, else qpos0."""
    mjd = mujoco.MjData(mjm)
    if mjm.nkey:
        mujoco.mj_resetDataKeyframe(mjm, mjd, 0)
    return mjd


@contextlib.contextmanager
def _without_missing_driver_line() -> Iterator[None]:
    """Drop the line that Warp's native code prints where there is no NVIDIA driver; keep others."""
    with tempfile.TemporaryFile() as caught:
        saved = os.dup(2)
        os.dup2(caught.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(saved, 2)
            os.close(saved)
            caught.seek(0)
            for line in caught.read().splitlines(keepends=True):
                if b"Could not find or load the NVIDIA CUDA driver" not in line:
                    os.write(2, line)


@contextlib.contextmanager
def _kernel_cache_in_use() -> Iterator[None]:
    """Within this context what goes wrong with Warp's kernel cache is a `SettingError`."""
    try:
        yield
    except OSError as error:
        if error.filename is None:  # not of a file: a library, or a progress bar's terminal
            raise
        raise SettingError(
            "WARP_CACHE_PATH",
            f"kernels cannot be kept in {wp.config.kernel_cache_dir} ({error.strerror}); set it to "
            f"a folder that can be written, with {ROOM >> 20} MB to spare",
        ) from error


def warp_device(name: str) -> wp.Device:
    """The Warp device of that name ("cpu", "cuda", "cuda:0", ...), with Warp initialized quietly.

    Raises:
      SettingError: this machine has no such device, or Warp's kernel cache cannot be made.
    """
    wp.config.log_level = max(wp.config.log_level, wp.LOG_WARNING)
    with _without_missing_driver_line(), _kernel_cache_in_use():
        wp.init()
    available = [device.alias for device in wp.get_devices()]
    if name in available or (name == "cuda" and wp.is_cuda_available()):
        return wp.get_device(name)
    raise SettingError("device", f"{name!r} is not here; available: {', '.join(available)}")


# -------------------------------------------------------------------------------- the interface


class Simulation(abc.ABC):
    """Worlds of one model on one engine and device.

    Attributes:
      mjm: the model, on the host.
      engine: one of `ENGINES`.
      device: Warp's name of the device; "cpu" for mjc.
      law: of `LAWS`, for comfree; None for the others.
      nworld: number of worlds.
      nstep: steps taken since the start, per world.
      compile_seconds: time spent compiling and loading kernels and capturing the step.
      sizes: nconmax and njmax per world, where the engine has such buffers.
      rings: which recent states are kept, or None.
    """

    mjm: mujoco.MjModel
    engine: str
    device: str
    law: str | None = None
    nworld: int
    nstep: int = 0
    compile_seconds: float = 0.0
    sizes: dict[str, int]
    rings: recent.Rings | None = None

    @property
    def place(self) -> str:
        """What runs where, for people: "mjc on cpu", "comfree (warm) on cuda:0"."""
        law = "" if self.law in (None, LAWS[0]) else f" ({self.law})"
        return f"{self.engine}{law} on {self.device}"

    @abc.abstractmethod
    def step(self, n: int = 1) -> None:
        """Advance every world by n timesteps. On CUDA this returns before the work is done."""

    @abc.abstractmethod
    def read(self, field: str, world: int = 0) -> np.ndarray:
        """Copy one field (of `STATE_FIELDS`, shape as in MjData) of one world from the device."""

    @abc.abstractmethod
    def read_all(self, field: str) -> np.ndarray:
        """Copy one field of all worlds: as `read`, with a leading axis of nworld."""

    @abc.abstractmethod
    def write(self, field: str, values: npt.ArrayLike, world: int | None = None) -> None:
        """Set a field of every world: values as in MjData, or with a leading axis of nworld.

        With `world`, set that of one world, values as in MjData, and leave the others as they are.
        """

    def set_ctrl(self, ctrl: npt.ArrayLike) -> None:
        """Set the controls, (nu,) or (nworld, nu); control noise is added around them."""
        self.write("ctrl", ctrl)

    @abc.abstractmethod
    def counts(self) -> Counts:
        """Contacts and rows of the last step; waits for the device."""

    @abc.abstractmethod
    def world_counts(self) -> WorldCounts:
        """The same world by world, and the solver's iterations; waits for the device."""

    @abc.abstractmethod
    def health(self) -> Health:
        """Divergence and overflow so far; waits for the device."""

    @abc.abstractmethod
    def reset(self) -> None:
        """Put every world back to `initial_data`: on the CPU, the next run repeats the first."""

    @abc.abstractmethod
    def synchronize(self) -> None:
        """Wait until the steps asked for are done."""

    def recall(self, world: int = 0) -> list[RecentState]:
        """The states that a world went through of late, oldest first; waits for the device.

        The last one is the present state, or the one in which the world diverged. Empty before the
        first step, and without `remember`.
        """
        if self.rings is None or not self.nstep:
            return []
        diverged_step, kept = self._recent(world)
        last = self.nstep if diverged_step < 0 else diverged_step
        return recent.recall(self.rings, kept, self.mjm, last)

    @abc.abstractmethod
    def _recent(self, world: int) -> tuple[int, np.ndarray]:
        """The step at which a world diverged, or -1; and what is kept of it, slot by slot."""


def _check_field(field: str) -> None:
    if field not in STATE_FIELDS:
        raise ValueError(f"field {field!r} is none of {', '.join(STATE_FIELDS)}")


@dataclasses.dataclass(frozen=True)
class ControlNoise:
    """Uniform noise on the controls, the same sequence on every engine and device.

    ctrl = clip(base + scale * radius * U(-1, 1)), with radius half the control range, or 1 where
    an actuator has none. The number drawn depends on seed, step, world and actuator only.
    """

    scale: float = 0.0
    seed: int = 0


def _ctrl_limits(mjm: mujoco.MjModel) -> list[wp.array]:
    limited = wp.array(mjm.actuator_ctrllimited.astype(bool), dtype=bool)
    return [limited, wp.array(mjm.actuator_ctrlrange, dtype=wp.vec2)]


@wp.func
def _noisy_ctrl(
    base: float,
    limited: bool,
    ctrlrange: wp.vec2,
    scale: float,
    seed: int,
    step: int,
    world: int,
    i: int,
) -> float:
    state = wp.rand_init(wp.int32(wp.rand_init(seed, step)), world * 8191 + i)
    noise = scale * wp.randf(state, -1.0, 1.0)
    if not limited:
        return base + noise
    low, high = ctrlrange[0], ctrlrange[1]
    return wp.clamp(base + 0.5 * (high - low) * noise, low, high)


# ----------------------------------------------------------------------------------- MuJoCo C


@wp.kernel(enable_backward=False)
def _noise_block(
    limited: wp.array[bool],
    ctrlrange: wp.array[wp.vec2],
    scale: float,
    seed: int,
    first_step: int,
    base: wp.array2d[float],
    out: wp.array3d[float],
):
    world, step, i = wp.tid()
    out[world, step, i] = _noisy_ctrl(
        base[world, i], limited[i], ctrlrange[i], scale, seed, first_step + step, world, i
    )


class _MjcSimulation(Simulation):
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
        self._batch = mujoco.batch.Batch(mjm, nworld)
        self._fields = {field: self._batch.bind(field) for field in STATE_FIELDS}
        self._diverged_step = np.empty(nworld, dtype=int)
        self._ctrl = np.empty((nworld, mjm.nu), dtype=np.float32)
        with wp.ScopedDevice("cpu"):
            self._limits = _ctrl_limits(mjm)
        self._ncon, self._nefc = self._batch.bind("ncon"), self._batch.bind("nefc")
        self._niter, self._nisland = (self._batch.bind(it) for it in ("solver_niter", "nisland"))
        self._drawn, self._drawn_from = np.empty((nworld, 0, mjm.nu), dtype=np.float32), 0
        # What the rollout records: velocities, or states with them.
        self._record, self._qvel, size = "qvel", slice(None), mjm.nv
        if remember:
            self._record, self._qvel = recent.SPEC, slice(1 + mjm.nq, 1 + mjm.nq + mjm.nv)
            size = mujoco.mj_stateSize(mjm, recent.SPEC)
            self.rings = recent.choose_rings(mjm, nworld, remember, itemsize=8)
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
        recent.keep(self.rings, self._kept, states, first, last)

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
            self._drawn = self._draw(max(block, ahead))
            self._drawn_from, start = self.nstep, 0
        return np.ascontiguousarray(self._drawn[:, start : start + block])

    def _draw(self, nsteps: int) -> np.ndarray:
        with wp.ScopedDevice("cpu"):
            out = wp.empty((self.nworld, nsteps, self.mjm.nu), dtype=float)
            wp.launch(
                _noise_block,
                dim=out.shape,
                inputs=[
                    *self._limits,
                    self._noise.scale,
                    self._noise.seed,
                    self.nstep,
                    wp.array(self._ctrl, dtype=float),
                ],
                outputs=[out],
            )
            return out.numpy()

    def read(self, field: str, world: int = 0) -> np.ndarray:
        _check_field(field)
        return np.array(self._fields[field][world])

    def read_all(self, field: str) -> np.ndarray:
        _check_field(field)
        return np.array(self._fields[field])

    def write(self, field: str, values: npt.ArrayLike, world: int | None = None) -> None:
        _check_field(field)
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
        return _health(self._diverged_step, overflow, self._start_time, self.mjm.opt.timestep)

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


def _health(
    diverged_step: np.ndarray, overflow: tuple[str, ...], start_time: float, timestep: float
) -> Health:
    diverged = np.flatnonzero(diverged_step >= 0)
    if not diverged.size:
        return Health(None, 0, overflow)
    world = diverged[diverged_step[diverged].argmin()]
    step = int(diverged_step[world])
    first = Divergence(int(world), step, start_time + step * timestep)
    return Health(first, int(diverged.size), overflow)


# ------------------------------------------------------------------- MuJoCo Warp and comfree


# The words of `status`, kept on the device by every step so that none has to wait for the host.
_MAX_NEFC = wp.constant(0)
_MAX_NACON = wp.constant(1)
_MAX_NCOLLISION = wp.constant(2)
_OVERFLOW = wp.constant(3)
_STEP = wp.constant(4)
_NSTATUS = 5
_LANES = 4096  # that watch all worlds together, or 32 for each


@wp.kernel(enable_backward=False)
def _add_noise(
    limited: wp.array[bool],
    ctrlrange: wp.array[wp.vec2],
    scale: float,
    seed: int,
    status: wp.array[int],
    base: wp.array2d[float],
    ctrl_out: wp.array2d[float],
):
    world, i = wp.tid()
    ctrl_out[world, i] = _noisy_ctrl(
        base[world, i], limited[i], ctrlrange[i], scale, seed, status[_STEP], world, i
    )


@wp.kernel(enable_backward=False)
def _watch(
    limit: float,
    qvel: wp.array2d[float],
    nefc: wp.array[int],
    nacon: wp.array[int],
    ncollision: wp.array[int],
    overflow: wp.array[int],
    steps_out: wp.array2d[int],
    diverged_step_out: wp.array[int],
    status_out: wp.array[int],
):
    world, lane = wp.tid()
    # Each thread counts the steps for itself, since `status` changes while others still read it.
    step = steps_out[world, lane] + 1
    steps_out[world, lane] = step
    for dof in range(lane, qvel.shape[1], steps_out.shape[1]):
        # NaN compares false. All lanes of a world write the same number: their race is harmless.
        if not (wp.abs(qvel[world, dof]) <= limit) and diverged_step_out[world] < 0:
            diverged_step_out[world] = step
    if lane > 0:
        return
    wp.atomic_max(status_out, _MAX_NEFC, nefc[world])
    if overflow[world] != 0:
        wp.atomic_or(status_out, _OVERFLOW, overflow[world])
    if world == 0:
        wp.atomic_max(status_out, _MAX_NACON, nacon[0])
        wp.atomic_max(status_out, _MAX_NCOLLISION, ncollision[0])
        status_out[_STEP] += 1


class _WarpSimulation(Simulation):
    """MuJoCo Warp or comfree_warp, stepped by a captured graph on the CPU or CUDA."""

    def __init__(
        self,
        mjm: mujoco.MjModel,
        engine: str,
        device: wp.Device,
        nworld: int,
        sizes: dict[str, int],
        parameters: dict[str, npt.ArrayLike],
        noise: ControlNoise,
        remember: float,
        progress: Progress | None,
    ):
        self.mjm, self.engine, self.device, self.nworld = mjm, engine, device.alias, nworld
        self.sizes, self._noise = sizes, noise
        self._package = comfree_warp if engine == "comfree" else mujoco_warp
        self._wp_device = device
        mjd = initial_data(mjm)
        self._start_time = mjd.time
        with wp.ScopedDevice(device):
            self._m = self._package.put_model(mjm, **parameters)
            self.law = self._m.comfree_law if engine == "comfree" else None
            self._m.opt.warn_overflow = 0  # `health` tells instead
            self._d = self._put_data(mjd, nworld)
            self._fields = {field: getattr(self._d, field) for field in STATE_FIELDS}
            # On the CPU the arrays can be read in place, without Warp's 20 us per slice and copy.
            self._in_place = (
                {field: array.numpy() for field, array in self._fields.items()}
                if device.is_cpu
                else {}
            )
            self._ctrl = wp.clone(self._d.ctrl)
            self._limits = _ctrl_limits(mjm)
            self._status = wp.zeros(_NSTATUS, dtype=int)
            self._diverged_step = wp.full(nworld, -1, dtype=int)
            # Threads that look after a world; few worlds leave a GPU enough of them for large ones.
            self._nlane = 1 if device.is_cpu else max(32, min(mjm.nv, _LANES // nworld))
            self._steps = wp.zeros((nworld, self._nlane), dtype=int)
            if remember:
                self.rings = recent.choose_rings(mjm, nworld, remember, itemsize=4)
                size = mujoco.mj_stateSize(mjm, recent.SPEC)
                self._kept = wp.zeros((nworld, self.rings.nslots, size), dtype=float)
            self._compile(mjd, progress)

    def _put_data(self, mjd: mujoco.MjData, nworld: int) -> mujoco_warp.Data:
        d = self._package.put_data(self.mjm, mjd, nworld=nworld, **self.sizes)
        if self.engine == "comfree":
            d.overflow_told.fill_(-1)  # `health` tells instead
            comfree_warp.allocate_memory(self._m, d)
        return d

    def _compile(self, mjd: mujoco.MjData, progress: Progress | None) -> None:
        start = time.perf_counter()
        scratch = self._put_data(mjd, nworld=1)
        with _kernel_cache_in_use():
            compile_kernels(lambda: self._launch_step(scratch), self._wp_device, progress)
            self._graph = capture(lambda: self._launch_step(self._d), self._wp_device)
        self.compile_seconds = time.perf_counter() - start

    def _launch_step(self, d: mujoco_warp.Data) -> None:
        nworld, nu = d.nworld, self.mjm.nu
        if self._noise.scale:
            wp.launch(
                _add_noise,
                dim=(nworld, nu),
                inputs=[
                    *self._limits,
                    self._noise.scale,
                    self._noise.seed,
                    self._status,
                    self._ctrl,
                ],
                outputs=[d.ctrl],
            )
        with narrow_phase_on_few_threads(d):
            self._package.step(self._m, d)
        if self.rings:
            self._launch_keep(d, ahead=1)
        wp.launch(
            _watch,
            dim=(nworld, self._nlane),
            inputs=[VELOCITY_LIMIT, d.qvel, d.nefc, d.nacon, d.ncollision, d.overflow],
            outputs=[self._steps, self._diverged_step, self._status],
        )

    def _launch_keep(self, d: mujoco_warp.Data, ahead: int) -> None:
        rings, nstep = self.rings, self._status[_STEP : _STEP + 1]
        nlane = self._nlane
        wp.launch(
            recent.keep_kernel,
            dim=(d.nworld, nlane),
            inputs=[
                *(rings.every, rings.nsparse, rings.ndense, ahead, nlane),
                *(nstep, self._diverged_step, d.time, d.qpos, d.qvel, d.act, d.ctrl),
            ],
            outputs=[self._kept],
            device=self._wp_device,
        )

    def _recent(self, world: int) -> tuple[int, np.ndarray]:
        return int(self._diverged_step.numpy()[world]), self._kept[world].numpy()

    def step(self, n: int = 1) -> None:
        if self.rings and not self.nstep:
            self._launch_keep(self._d, ahead=0)
        self._graph.launch(n)
        self.nstep += n

    def read(self, field: str, world: int = 0) -> np.ndarray:
        _check_field(field)
        if field in self._in_place:
            return np.array(self._in_place[field][world])
        return self._fields[field][world : world + 1].numpy()[0]

    def read_all(self, field: str) -> np.ndarray:
        _check_field(field)
        if field in self._in_place:
            return np.array(self._in_place[field])
        return self._fields[field].numpy()

    def write(self, field: str, values: npt.ArrayLike, world: int | None = None) -> None:
        _check_field(field)
        chosen = slice(None) if world is None else slice(world, world + 1)
        # In place, since the captured step knows these arrays.
        for array in (self._fields[field], *([self._ctrl] if field == "ctrl" else [])):
            if not array.size:  # which Warp cannot slice
                continue
            part = array[chosen]
            full = np.empty(part.numpy().shape, dtype=np.float32)
            full[:] = values
            part.assign(full)

    def reset(self) -> None:
        mjd = initial_data(self.mjm)
        with wp.ScopedDevice(self._wp_device):
            _copy_arrays(self._put_data(mjd, self.nworld), self._d)
            wp.copy(self._ctrl, self._d.ctrl)
            self._status.zero_()
            self._steps.zero_()
            self._diverged_step.fill_(-1)
        self._start_time, self.nstep = mjd.time, 0

    def counts(self) -> Counts:
        return Counts(int(self._d.nacon.numpy()[0]), int(self._d.nefc.numpy().sum()))

    def world_counts(self) -> WorldCounts:
        d = self._d
        ncon = min(int(d.nacon.numpy()[0]), d.naconmax)
        contacts = np.bincount(d.contact.worldid.numpy()[:ncon], minlength=self.nworld)
        iterations = None if self.engine == "comfree" else d.solver_niter.numpy()
        # Copies, since on the CPU the arrays are those that the next step writes.
        return WorldCounts(
            contacts, d.nefc.numpy().copy(), None if iterations is None else iterations.copy()
        )

    def health(self) -> Health:
        status = self._status.numpy()
        return _health(
            self._diverged_step.numpy(),
            _describe_overflow(status, self.sizes, self.nworld),
            self._start_time,
            self.mjm.opt.timestep,
        )

    def synchronize(self) -> None:
        wp.synchronize_device(self._wp_device)


def _copy_arrays(source: object, destination: object) -> None:
    """Copy every array of a dataclass, and of those in it, into the same one of another."""
    for field in dataclasses.fields(destination):
        old, new = getattr(destination, field.name), getattr(source, field.name)
        if isinstance(old, wp.array):
            if old.size:
                wp.copy(old, new)
        elif dataclasses.is_dataclass(old):
            _copy_arrays(new, old)


def _describe_overflow(status: np.ndarray, sizes: dict[str, int], nworld: int) -> tuple[str, ...]:
    """A sentence per kind of buffer that was too small, from the words of `status`."""
    kinds = mujoco_warp.OverflowType
    per_world = {word: -(-int(status[word]) // nworld) for word in (_MAX_NACON, _MAX_NCOLLISION)}
    njmax, nconmax = sizes["njmax"], sizes["nconmax"]
    sentences = {
        kinds.NEFC: f"constraint rows are lost: njmax={njmax}, needed at least "
        f"{status[_MAX_NEFC]}; raise --njmax",
        kinds.NJMAX_NNZ: f"constraint rows are lost: their non-zeros do not fit njmax={njmax}; "
        "raise --njmax",
        kinds.BROADPHASE: f"contacts are lost: nconmax={nconmax}, needed at least "
        f"{per_world[_MAX_NCOLLISION]} for pairs of geoms that are close; raise --nconmax",
        kinds.NARROWPHASE: f"contacts are lost: nconmax={nconmax}, needed at least "
        f"{per_world[_MAX_NACON]}; raise --nconmax",
        kinds.CCD: f"contacts are lost: more convex collisions than nccdmax={sizes['nccdmax']}; "
        "give --nconmax, which they follow then, or raise it",
        kinds.HFIELD: "contacts are lost: a geom spans more cells of a height field than MuJoCo "
        "Warp considers; use a coarser field or a smaller geom",
        kinds.EPA_HORIZON: "a convex collision was approximated: EPA's horizon buffer is full",
        kinds.CONTACT_MATCH: "a contact sensor missed contacts: raise <numeric "
        "name='contact_sensor_maxmatch'> in the model",
        kinds.TACTILE: "a tactile sensor missed collisions",
    }
    return tuple(text for kind, text in sentences.items() if int(status[_OVERFLOW]) & kind)


_PAIRS_EVERY = 10  # steps, in which they hardly change


def size_buffers(mjm: mujoco.MjModel, nprobe: int = 500) -> dict[str, int]:
    """Choose nconmax, njmax and nccdmax (per world) from a short run of the model on MuJoCo C.

    Twice the largest number of contacts, of rows, and of geoms that are close to each other, seen
    in `nprobe` steps, since engines that let bodies sink deeper, or are driven otherwise, touch
    more.
    """
    probe = copy.copy(mjm)
    probe.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_AUTORESET
    mjd = initial_data(probe)
    pairs = ConvexPairs(probe)
    ncon, nefc, nccd = 0, 0, 0
    with silent_mujoco_warnings():
        for step in range(nprobe):
            mujoco.mj_step(probe, mjd)
            ncon, nefc = max(ncon, mjd.ncon), max(nefc, mjd.nefc)
            if not np.isfinite(mjd.qvel).all():
                break
            if pairs.countable and step % _PAIRS_EVERY == 0:
                nccd = max(nccd, pairs.close(mjd))
    nconmax = 2 * ncon + 32
    # An eighth of the contacts at least: those on planes may turn into others later.
    nccdmax = min(nconmax, max(2 * nccd + 32, nconmax // 8)) if pairs.countable else nconmax
    return {"nconmax": nconmax, "njmax": 2 * nefc + 64, "nccdmax": nccdmax}


# --------------------------------------------------------------------------------- the factory


def make_simulation(
    mjm: mujoco.MjModel,
    engine: str = "comfree",
    device: str = "cpu",
    nworld: int = 1,
    nconmax: int | None = None,
    njmax: int | None = None,
    nccdmax: int | None = None,
    stiffness: npt.ArrayLike | None = None,
    damping: npt.ArrayLike | None = None,
    law: str | None = None,
    passes: int | None = None,
    noise: ControlNoise = ControlNoise(),
    remember: float = 0.0,
    progress: Progress | None = None,
) -> Simulation:
    """Build worlds of a model on an engine and a device, compiled and ready to step.

    Args:
      mjm: the model.
      engine: one of `ENGINES`.
      device: Warp's name of a device; mjc runs on the CPU only.
      nworld: number of worlds, all starting from `initial_data`.
      nconmax: contacts per world to allocate; from the model when None. Not used by mjc.
      njmax: constraint rows per world to allocate, likewise.
      nccdmax: convex collisions per world to allocate, up to nconmax; from the model when both are
        None, else nconmax when None. A few worlds get as many as one of nconmax has.
      stiffness: k of the law paper, a scalar or one per world (mod len); comfree only.
      damping: d of the law paper, likewise.
      law: one of `LAWS`, paper when None; comfree only.
      passes: of the law warm, one of `PASSES`, 1 when None; comfree only.
      noise: what to add to the controls.
      remember: simulated time of which states are kept for `recall`, s; 0: none.
      progress: told what is being compiled, where something is.

    Raises:
      SettingError: the engine, the device, a size, a parameter or the model cannot be used.
    """
    if engine not in ENGINES:
        raise SettingError("engine", f"{engine!r} is none of {', '.join(ENGINES)}")
    for setting, size, least in (
        ("nworld", nworld, 1),
        ("nconmax", nconmax, 0),
        ("njmax", njmax, 0),
        ("nccdmax", nccdmax, 0),
    ):
        if size is not None and size < least:
            raise SettingError(setting, f"{size} is too small: at least {least}")
    wp_device = warp_device(device)
    if engine == "mjc":
        if not wp_device.is_cpu:
            raise SettingError("device", f"{device!r} cannot run mjc, which is CPU only; use cpu")
        return _MjcSimulation(mjm, nworld, noise, remember)

    if wp_device.is_cpu:
        begin_compiling()
    if nccdmax is None:
        nccdmax = nconmax
    sizes = {"nconmax": nconmax, "njmax": njmax, "nccdmax": nccdmax}
    if None in sizes.values():
        found = size_buffers(mjm)
        sizes = {name: found[name] if size is None else size for name, size in sizes.items()}
    # All worlds share them, and where there are few there is memory for the worst case of one.
    least = -(-sizes["nconmax"] // nworld)
    sizes["nccdmax"] = min(sizes["nconmax"], max(sizes["nccdmax"], least))
    parameters = {}
    if engine == "comfree":
        # The law last: a refusal of another parameter names the law that does not have it, too.
        given = {"stiffness": stiffness, "damping": damping, "passes": passes, "law": law}
        parameters = {f"comfree_{name}": it for name, it in given.items() if it is not None}
    try:
        return _WarpSimulation(
            mjm, engine, wp_device, nworld, sizes, parameters, noise, remember, progress
        )
    except SettingError:
        raise
    except (NotImplementedError, ValueError) as error:
        told = " ".join(str(error).split())
        named = (name for name in parameters if re.search(rf"\b{name}\b", told))
        setting = next(named, "model").removeprefix("comfree_")
        raise SettingError(setting, f"refused by {engine}: {told}") from error
