"""MuJoCo Warp and comfree_warp, stepped by a captured graph on the CPU or CUDA."""

import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import comfree_warp  # before MuJoCo Warp, which it imports in half the time

# isort: split
import mujoco
import mujoco_warp
import numpy as np
import numpy.typing as npt
import warp as wp

from comfree_warp import ignored
from comfree_warp.collision.convex_contacts import checked_narrow_phase
from comfree_warp.io import ParameterError
from comfree_warp.pipeline.sensors import limits_told_apart
from comfree_warp.runtime.compilation import begin_compiling, compile_kernels
from comfree_warp.runtime.graph import Graph, capture
from mjsim.engines import history, overflow
from mjsim.engines.buffers import share_convex_collisions, size_buffers
from mjsim.engines.device import kernel_cache_in_use, warp_device
from mjsim.engines.history_kernel import keep_kernel
from mjsim.engines.memory import available_memory, is_out_of_memory
from mjsim.engines.noise import ControlNoise
from mjsim.engines.simulation import (
    STATE_FIELDS,
    VELOCITY_LIMIT,
    Counts,
    Health,
    Progress,
    Report,
    Simulation,
    WorldCounts,
    check_field,
    describe_health,
)
from mjsim.engines.snapshot import Snapshot, kept_arrays
from mjsim.engines.watch_kernels import (
    FIRST_STATUS,
    MAX_NACON,
    MAX_NCOLLISION,
    MAX_NEFC,
    OVERFLOW,
    OVERFLOW_STEP,
    STEP,
    add_noise_kernel,
    note_counts_kernel,
    watch_kernel,
)
from mjsim.errors import OutOfRoomError, SettingError
from mjsim.model.files import initial_data

_LANES = 4096  # that watch all worlds together, or 32 for each

# What is taken again at most when a buffer was too small: steps, and about that many seconds of
# them. More often a snapshot would take a part of small steps, and on a GPU wait for it.
_REDO_STEPS = 256
_REDO_SECONDS = 0.1
_FEWEST_REDO_STEPS = 8  # on a GPU, where nobody knows yet how long a step takes
_MANY_WORLDS = 100  # of which it is worth while to ask beforehand whether there is memory
_EPA_BYTES = 9_000  # of a convex collision, at most


def _ctrl_limits(mjm: mujoco.MjModel) -> list[wp.array]:
    limited: wp.array = wp.array(mjm.actuator_ctrllimited.astype(bool), dtype=bool)
    return [limited, wp.array(mjm.actuator_ctrlrange, dtype=wp.vec2)]


@dataclasses.dataclass(frozen=True)
class _Write:
    """A field that the caller has set: values as they are on the device, of some worlds."""

    field: str
    values: np.ndarray
    world: int | None


class WarpSimulation(Simulation):
    """MuJoCo Warp or comfree_warp, stepped by a captured graph on the CPU or CUDA.

    Unless its buffers are fixed, it keeps a snapshot of what the next step depends on, renewed
    every so many steps, and a journal of what it was asked for since. On the CPU it looks after
    every few steps whether all fitted. On CUDA that would be to wait for the device, so it looks
    where it waits anyway, and before it renews the snapshot.
    """

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
        fixed_buffers: bool,
        report: Report,
    ):
        self.mjm, self.engine, self.device, self.nworld = mjm, engine, device.alias, nworld
        self.sizes, self._noise = sizes, noise
        self.fixed_buffers, self._report = fixed_buffers, report
        self._package = comfree_warp if engine == "comfree" else mujoco_warp
        self._wp_device = device
        mjd = initial_data(mjm)
        self._start_time = mjd.time
        self._shapes = {field: np.shape(getattr(mjd, field)) for field in STATE_FIELDS}
        with wp.ScopedDevice(device):
            put_model: Callable[..., mujoco_warp.Model] = ignored.put_model
            if engine == "comfree":
                put_model = comfree_warp.put_model
            self._m = put_model(mjm, **parameters)
            self.law = self._m.comfree_law if engine == "comfree" else None
            self._m.opt.warn_overflow = 0  # `health` tells instead
            self._repairs = wp.zeros(nworld, dtype=int)
            if self._counts_anew():
                called = self._m.callback
                called.contactfilter = called.control = self._launch_note_counts
                called.passive = self._launch_note_counts
            if device.is_cpu and nworld >= _MANY_WORLDS:
                self._check_memory(mjd)
            self._bind(self._put_data(mjd, nworld))
            self._ctrl = wp.clone(self._d.ctrl)
            self._limits = _ctrl_limits(mjm)
            self._first_status: wp.array = wp.array(FIRST_STATUS, dtype=int)
            self._status = wp.clone(self._first_status)
            self._diverged_step = wp.full(nworld, -1, dtype=int)
            # Threads that look after a world; few worlds leave a GPU enough of them for large ones.
            self._nlane = 1 if device.is_cpu else max(32, min(mjm.nv, _LANES // nworld))
            self._steps = wp.zeros((nworld, self._nlane), dtype=int)
            self._kept = None
            if remember:
                self.rings = history.choose_rings(mjm, nworld, remember, itemsize=4)
                size = mujoco.mj_stateSize(mjm, history.SPEC)
                self._kept = wp.zeros((nworld, self.rings.nslots, size), dtype=float)
            self._growable = 0 if fixed_buffers else overflow.GROWABLE
            self._redo_steps = _REDO_STEPS if device.is_cpu else _FEWEST_REDO_STEPS
            self._forget_snapshot()
            self._status_in_place = self._status.numpy() if device.is_cpu else None
            self._stopped_by: OutOfRoomError | None = None
            self._compile(mjd, progress)
            if not fixed_buffers:
                self._snapshot = Snapshot(self._kept_arrays(), device)

    def _counts_anew(self) -> bool:
        """Whether a step counts contacts or rows several times, and tells what was last."""
        sleeps = mujoco.mjtEnableBit.mjENBL_SLEEP
        runge_kutta = self.mjm.opt.integrator == mujoco.mjtIntegrator.mjINT_RK4
        return runge_kutta or bool(self.mjm.opt.enableflags & sleeps)

    def _check_memory(self, mjd: mujoco.MjData) -> None:
        """Raises SettingError: there is no memory for all worlds, as the system would not say."""
        world = sum(array.capacity for array in _arrays(self._put_data(mjd, nworld=1)))
        available = available_memory()
        if available is not None and self.nworld * world > available:
            raise SettingError(
                "nworld",
                f"{self.nworld:,} do not fit the memory of cpu: each takes {world:,} bytes, and "
                f"{available:,} are left; take fewer, or smaller nconmax and njmax",
            )

    def _put_data(self, mjd: mujoco.MjData, nworld: int) -> mujoco_warp.Data:
        sizes = {
            name: size for name, size in self.sizes.items() if name != "contact_sensor_maxmatch"
        }
        law = {"comfree_law": self.law} if self.engine == "comfree" else {}
        d = self._package.put_data(self.mjm, mjd, nworld=nworld, **sizes, **law)
        _clear_compact(d)
        return d

    def _bind(self, d: mujoco_warp.Data) -> None:
        """Make this the data that is stepped, read and written."""
        self._d = d
        if self.engine == "comfree":  # which counts by itself
            self._repairs = d.repairs
        self._fields = {field: getattr(d, field) for field in STATE_FIELDS}
        # On the CPU the arrays can be read in place, without Warp's 20 us per slice and copy.
        self._in_place = (
            {field: array.numpy() for field, array in self._fields.items()}
            if self._wp_device.is_cpu
            else {}
        )

    def _compile(self, mjd: mujoco.MjData, progress: Progress | None) -> None:
        """Compile what the step launches, and capture it with the data that there is."""
        start = time.perf_counter()
        scratch = self._put_data(mjd, nworld=1)
        with kernel_cache_in_use():
            compile_kernels(lambda: self._launch_step(scratch), self._wp_device, progress)
        self._capture()
        self.compile_seconds += time.perf_counter() - start

    def _capture(self) -> None:
        with kernel_cache_in_use():
            self._graph: Graph | None = capture(lambda: self._launch_step(self._d), self._wp_device)

    def _kept_arrays(self) -> list[wp.array]:
        """What a step reads and changes: of the data, and of what is kept beside it."""
        beside = [self._ctrl, self._status, self._steps, self._diverged_step]
        if self.engine != "comfree":
            beside.append(self._repairs)
        if self._kept is not None:
            beside.append(self._kept)
        return kept_arrays(self._d) + [array for array in beside if array.size]

    def _launch_note_counts(self, m: mujoco_warp.Model, d: mujoco_warp.Data) -> None:
        wp.launch(
            note_counts_kernel,
            dim=d.nworld,
            inputs=[d.naconmax, d.njmax, d.nefc, d.nacon, d.ncollision],
            outputs=[d.overflow, self._status],
        )

    def _launch_step(self, d: mujoco_warp.Data) -> None:
        nworld, nu = d.nworld, self.mjm.nu
        if self._noise.scale:
            wp.launch(
                add_noise_kernel,
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
        with checked_narrow_phase(d, self._repairs), limits_told_apart():
            self._package.step(self._m, d)
        if self.rings:
            self._launch_keep(self.rings, d, ahead=1)
        wp.launch(
            watch_kernel,
            dim=(nworld, self._nlane),
            inputs=[
                *(VELOCITY_LIMIT, self._growable),
                *(d.qvel, d.nefc, d.nacon, d.ncollision, d.overflow),
            ],
            outputs=[self._steps, self._diverged_step, self._status],
        )

    def _launch_keep(self, rings: history.Rings, d: mujoco_warp.Data, ahead: int) -> None:
        nstep, nlane = self._status[STEP : STEP + 1], self._nlane
        wp.launch(
            keep_kernel,
            dim=(d.nworld, nlane),
            inputs=[
                *(rings.every, rings.nsparse, rings.ndense, ahead, nlane),
                *(nstep, self._diverged_step, d.time, d.qpos, d.qvel, d.act, d.ctrl),
            ],
            outputs=[self._kept],
            device=self._wp_device,
        )

    def _recent(self, world: int) -> tuple[int, np.ndarray]:
        self._settle()
        assert self._kept is not None  # there are rings
        return int(self._diverged_step.numpy()[world]), self._kept[world].numpy()

    def step(self, n: int = 1) -> None:
        if self._stopped_by:
            raise self._stopped_by
        if self.rings and not self.nstep:
            self._launch_keep(self.rings, self._d, ahead=0)
        if self.fixed_buffers:
            self._launch(n)
            self.nstep += n
            return
        in_place = self._status_in_place
        while n > 0:
            if self._since >= self._redo_steps or time.perf_counter() > self._redo_by:
                self._renew_snapshot()
            count = 1 if n == 1 else self._piece(n)
            self._launch(count)
            self._journal.append(count)
            self._since += count
            self.nstep += count
            n -= count
            if in_place is None:
                self._settled = False
            elif in_place.item(OVERFLOW) & self._growable:
                self._settled = False
                self._settle()

    def _launch(self, nstep: int) -> None:
        assert self._graph is not None  # but while `_reallocate` is at work
        self._graph.launch(nstep)

    def _piece(self, n: int) -> int:
        """How many of n steps to take at once: on a CPU doubling, to look soon whether all fits."""
        left = min(n, self._redo_steps - self._since)
        return min(left, max(1, self._since)) if self._wp_device.is_cpu else left

    # ---------------------------------------------------------------------- going back for room

    def _forget_snapshot(self) -> None:
        """Let the next step begin with another one."""
        self._snapshot_time: float | None = None  # when it was taken, as `time.perf_counter`
        self._journal: list[int | _Write] = []  # steps taken and fields set since
        self._since = self._redo_steps  # steps taken since
        self._redo_by = 0.0  # when the next one is due at the latest, as `time.perf_counter`
        self._settled = True  # whether the steps taken since are known to have lost nothing

    def _renew_snapshot(self) -> None:
        self._settle()
        now = time.perf_counter()
        if self._snapshot_time is not None and not self._wp_device.is_cpu:
            fit = int(self._since * _REDO_SECONDS / (now - self._snapshot_time))
            self._redo_steps = min(max(fit, _FEWEST_REDO_STEPS), _REDO_STEPS)
        self._snapshot.take()
        self._journal, self._since, self._snapshot_time = [], 0, now
        self._redo_by = now + _REDO_SECONDS if self._wp_device.is_cpu else math.inf

    def _settle(self) -> None:
        """Make sure that nothing was lost in the steps so far: else make room, and take them again.

        Waits for a GPU, if there is anything to look at.

        Raises:
          OutOfRoomError: there is no memory for it.
        """
        if self._settled:
            return
        while self._status_words()[OVERFLOW] & self._growable:
            self._make_room()
            self._take_again(self._since)
        self._settled = True

    def _take_again(self, nstep: int) -> None:
        """Go through the journal again, from the snapshot on, up to this many steps."""
        for entry in self._journal:
            if isinstance(entry, _Write):
                self._assign(entry)
                continue
            count = min(entry, nstep)
            self._launch(count)
            nstep -= count
            if count < entry:
                return

    def _status_words(self) -> np.ndarray:
        in_place = self._status_in_place
        return self._status.numpy() if in_place is None else in_place

    def _need(self) -> overflow.Need:
        words = [int(word) for word in self._status_words()]
        return overflow.Need(
            overflow=words[OVERFLOW],
            step=words[OVERFLOW_STEP],
            rows=words[MAX_NEFC],
            contacts=words[MAX_NACON],
            pairs=words[MAX_NCOLLISION],
        )

    def _make_room(self) -> None:
        """Go back to the snapshot, in larger buffers.

        Raises:
          OutOfRoomError: there is no memory for them. Then the simulation is at the last step
            before they were needed.
        """
        need, before = self._need(), self.sizes
        new, told = overflow.larger(before, need, self._m, self._d)
        if not told:  # a contact sensor that has all it can get
            self._growable &= ~need.overflow
        more = self._memory_for(new) - self._memory_for(before)
        problem = self._grow(new, more)
        if problem is None:
            if told:
                self._tell_growth(told)
            return
        done = need.step - 1
        self._take_again(done - (self.nstep - self._since))
        self.nstep, self._settled = done, True
        self._stopped_by = OutOfRoomError(
            f"{told}, and about {more:,} bytes for that cannot be had on {self.device}: {problem}. "
            f"The {done:,} steps before are done, with nothing lost. Take fewer worlds, or fixed "
            "buffers (--fixed-buffers) to go on without what does not fit"
        )
        raise self._stopped_by

    def _grow(self, sizes: dict[str, int], more: int) -> str | None:
        """Go back to the snapshot, with these sizes; or with the present ones, and say why.

        Args:
          sizes: to have.
          more: about how many bytes that takes beyond what there is.
        """
        before = self.sizes
        available = available_memory() if self._wp_device.is_cpu else None
        # Beside the buffers, what fills them takes memory for a moment, and their kernels.
        if available is not None and 2 * more > available:
            self._snapshot.put_back()
            return f"{available:,} bytes are left"
        try:
            self._reallocate(sizes)
            return None
        except SettingError as error:  # no room for a kernel on the disk
            problem = str(error)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            problem = " ".join(str(error).split())
        self._reallocate(before, again=True)
        return problem

    def _memory_for(self, sizes: dict[str, int]) -> int:
        """About how many bytes the data would have with other sizes."""
        kept = sum(array.capacity for array in kept_arrays(self._d))
        growing = sum(array.capacity for array in _arrays(self._d)) - kept
        factor = max(size / max(1, self.sizes.get(name, size)) for name, size in sizes.items())
        return kept + int(factor * growing) + _EPA_BYTES * sizes["nccdmax"] * self.nworld

    def _reallocate(self, sizes: dict[str, int], again: bool = False) -> None:
        """Take other buffers in the place of the present ones, with the state of the snapshot.

        Args:
          sizes: theirs.
          again: whether there was data of these sizes before, and so there are kernels for it.
        """
        self.sizes = sizes
        if "contact_sensor_maxmatch" in sizes:
            self._m.opt.contact_sensor_maxmatch = sizes["contact_sensor_maxmatch"]
        # First of all let go of what there is, for memory that has no room for both.
        self._d = self._graph = None
        self._fields, self._in_place = {}, {}
        self._snapshot.let_go()
        mjd = initial_data(self.mjm)
        with wp.ScopedDevice(self._wp_device):
            self._bind(self._put_data(mjd, self.nworld))
            if again:
                self._capture()
            else:
                self._compile(mjd, progress=None)
        self._snapshot.move_to(self._kept_arrays())

    # ------------------------------------------------------------------------ reading and writing

    def read(self, field: str, world: int = 0) -> np.ndarray:
        check_field(field)
        self._settle()
        if field in self._in_place:
            return np.array(self._in_place[field][world])
        return self._fields[field][world : world + 1].numpy()[0]

    def read_all(self, field: str) -> np.ndarray:
        check_field(field)
        self._settle()
        if field in self._in_place:
            return np.array(self._in_place[field])
        return self._fields[field].numpy()

    def write(self, field: str, values: npt.ArrayLike, world: int | None = None) -> None:
        check_field(field)
        if not self._fields[field].size:  # which Warp cannot slice
            return
        nworld = self.nworld if world is None else 1
        full = np.empty((nworld, *self._shapes[field]), dtype=np.float32)
        full[:] = values
        entry = _Write(field, full, world)
        self._assign(entry)
        if self._snapshot_time is not None:
            self._journal.append(entry)
            if len(self._journal) > 4 * _REDO_STEPS:  # which takes memory
                self._redo_by = 0.0

    def _assign(self, entry: _Write) -> None:
        chosen = slice(None) if entry.world is None else slice(entry.world, entry.world + 1)
        # In place, since the captured step knows these arrays.
        for array in (
            self._fields[entry.field],
            *([self._ctrl] if entry.field == "ctrl" else []),
        ):
            array[chosen].assign(entry.values)

    def reset(self) -> None:
        mjd = initial_data(self.mjm)
        with wp.ScopedDevice(self._wp_device):
            _copy_arrays(self._put_data(mjd, self.nworld), self._d)
            wp.copy(self._ctrl, self._d.ctrl)
            wp.copy(self._status, self._first_status)
            self._steps.zero_()
            self._diverged_step.fill_(-1)
            self._repairs.zero_()
        self._start_time, self.nstep = mjd.time, 0
        self._forget_snapshot()
        self._stopped_by = None

    def counts(self) -> Counts:
        self._settle()
        return Counts(int(self._d.nacon.numpy()[0]), int(self._d.nefc.numpy().sum()))

    def world_counts(self) -> WorldCounts:
        self._settle()
        d = self._d
        ncon = min(int(d.nacon.numpy()[0]), d.naconmax)
        contacts = np.bincount(d.contact.worldid.numpy()[:ncon], minlength=self.nworld)
        iterations = None if self.engine == "comfree" else d.solver_niter.numpy()
        # Copies, since on the CPU the arrays are those that the next step writes.
        return WorldCounts(
            contacts, d.nefc.numpy().copy(), None if iterations is None else iterations.copy()
        )

    def health(self) -> Health:
        self._settle()
        need = self._need()
        told = overflow.sentences(need, self.sizes, self.nworld)
        if self._stopped_by:
            told = (*told, str(self._stopped_by))
        return describe_health(
            self._diverged_step.numpy(),
            told,
            bool(need.overflow & overflow.LOST) or self._stopped_by is not None,
            self._start_time,
            self.mjm.opt.timestep,
            int(self._repairs.numpy().sum()),
        )

    def synchronize(self) -> None:
        self._settle()
        wp.synchronize_device(self._wp_device)


def _clear_compact(d: mujoco_warp.Data) -> None:
    """Zero what the solver of awake bodies works in.

    MuJoCo Warp leaves it as the allocator gives it, and reads its padding: where bodies may sleep
    a second simulation of a process was all NaN.
    """
    for field in dataclasses.fields(d):
        array = getattr(d, field.name)
        if "nvmax_pad" in (getattr(field.type, "shape", None) or ()) and array.dtype == wp.float32:
            array.zero_()


def _arrays(holder: Any) -> Iterator[wp.array]:
    """Every array of a dataclass, and of those in it."""
    for field in dataclasses.fields(holder):
        value = getattr(holder, field.name)
        if isinstance(value, wp.array):
            yield value
        elif dataclasses.is_dataclass(value):
            yield from _arrays(value)


def _copy_arrays(source: Any, destination: Any) -> None:
    """Copy every array of a dataclass, and of those in it, into the same one of another."""
    for field in dataclasses.fields(destination):
        old, new = getattr(destination, field.name), getattr(source, field.name)
        if isinstance(old, wp.array):
            if old.size:
                wp.copy(old, new)
        elif dataclasses.is_dataclass(old):
            _copy_arrays(new, old)


def make_on_warp(
    mjm: mujoco.MjModel,
    engine: str,
    device: str,
    nworld: int,
    sizes: dict[str, int | None],
    given: dict[str, npt.ArrayLike],
    noise: ControlNoise,
    remember: float,
    progress: Progress | None,
    fixed_buffers: bool,
    report: Report,
) -> WarpSimulation:
    """As `make_simulation`, for the engines on Warp.

    Args:
      mjm: the model.
      engine: mjwarp or comfree.
      device: Warp's name of a device.
      nworld: number of worlds.
      sizes: nconmax, njmax and nccdmax; None: from the model.
      given: those of comfree's stiffness, damping, passes and law that were given.
      noise: what to add to the controls.
      remember: simulated time of which states are kept, s.
      progress: told what is being compiled.
      fixed_buffers: whether the buffers keep their sizes.
      report: told when they grow.

    Raises:
      SettingError: the device, a size, a parameter or the model cannot be used.
    """
    wp_device = warp_device(device)
    try:
        ignored.check_callbacks(mjm)
    except NotImplementedError as error:
        raise SettingError("model", f"refused by {engine}: {error}") from error
    if wp_device.is_cpu:
        begin_compiling()
    if sizes["nccdmax"] is None:
        sizes = sizes | {"nccdmax": sizes["nconmax"]}
    chosen = {name: size for name, size in sizes.items() if size is not None}
    if len(chosen) < len(sizes):
        chosen = size_buffers(mjm, noise=noise) | chosen
    chosen["nconmax"] = max(chosen["nconmax"], overflow.LEAST_CONTACTS)
    chosen["njmax"] = max(chosen["njmax"], 1 if fixed_buffers else overflow.LEAST_ROWS)
    chosen["nccdmax"] = share_convex_collisions(chosen, nworld)
    parameters = {}
    if engine == "comfree":
        parameters = {f"comfree_{name}": value for name, value in given.items()}
    try:
        return WarpSimulation(
            *(mjm, engine, wp_device, nworld, chosen, parameters, noise, remember, progress),
            *(fixed_buffers, report),
        )
    except SettingError:
        raise
    except (NotImplementedError, ValueError) as error:
        refused = error.parameter if isinstance(error, ParameterError) else "model"
        told = " ".join(str(error).split())
        setting = refused.removeprefix("comfree_")
        raise SettingError(setting, f"refused by {engine}: {told}") from error
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        told = " ".join(str(error).split())
        raise SettingError(
            "nworld",
            f"{nworld:,} do not fit the memory of {device} ({told}); take fewer, or smaller "
            "nconmax and njmax",
        ) from error
