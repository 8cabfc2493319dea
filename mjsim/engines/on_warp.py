"""MuJoCo Warp and comfree_warp, stepped by a captured graph on the CPU or CUDA."""

import dataclasses
import re
import time

import comfree_warp  # before MuJoCo Warp, which it imports in half the time

# isort: split
import mujoco
import mujoco_warp
import numpy as np
import numpy.typing as npt
import warp as wp

from comfree_warp import ignored
from comfree_warp.compilation import begin_compiling, compile_kernels
from comfree_warp.graph import capture
from comfree_warp.narrowphase import checked_narrow_phase
from comfree_warp.sensors import limits_told_apart
from mjsim.engines import history
from mjsim.engines.buffers import size_buffers
from mjsim.engines.device import kernel_cache_in_use, warp_device
from mjsim.engines.history_kernel import keep_kernel
from mjsim.engines.noise import ControlNoise
from mjsim.engines.simulation import (
    STATE_FIELDS,
    VELOCITY_LIMIT,
    Counts,
    Health,
    Progress,
    Simulation,
    WorldCounts,
    check_field,
    describe_health,
)
from mjsim.errors import SettingError
from mjsim.model.files import initial_data

# The words of `status`, kept on the device by every step so that none has to wait for the host.
_MAX_NEFC = wp.constant(0)
_MAX_NACON = wp.constant(1)
_MAX_NCOLLISION = wp.constant(2)
_OVERFLOW = wp.constant(3)
_STEP = wp.constant(4)
_NSTATUS = 5
_LANES = 4096  # that watch all worlds together, or 32 for each


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


class WarpSimulation(Simulation):
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
            put_model = comfree_warp.put_model if engine == "comfree" else ignored.put_model
            self._m = put_model(mjm, **parameters)
            self.law = self._m.comfree_law if engine == "comfree" else None
            self._m.opt.warn_overflow = 0  # `health` tells instead
            self._d = self._put_data(mjd, nworld)
            self._repairs = self._d.repairs if engine == "comfree" else wp.zeros(nworld, dtype=int)
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
                self.rings = history.choose_rings(mjm, nworld, remember, itemsize=4)
                size = mujoco.mj_stateSize(mjm, history.SPEC)
                self._kept = wp.zeros((nworld, self.rings.nslots, size), dtype=float)
            self._compile(mjd, progress)

    def _put_data(self, mjd: mujoco.MjData, nworld: int) -> mujoco_warp.Data:
        law = {"comfree_law": self.law} if self.engine == "comfree" else {}
        return self._package.put_data(self.mjm, mjd, nworld=nworld, **self.sizes, **law)

    def _compile(self, mjd: mujoco.MjData, progress: Progress | None) -> None:
        start = time.perf_counter()
        scratch = self._put_data(mjd, nworld=1)
        with kernel_cache_in_use():
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
        with checked_narrow_phase(d, self._repairs), limits_told_apart():
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
        return int(self._diverged_step.numpy()[world]), self._kept[world].numpy()

    def step(self, n: int = 1) -> None:
        if self.rings and not self.nstep:
            self._launch_keep(self._d, ahead=0)
        self._graph.launch(n)
        self.nstep += n

    def read(self, field: str, world: int = 0) -> np.ndarray:
        check_field(field)
        if field in self._in_place:
            return np.array(self._in_place[field][world])
        return self._fields[field][world : world + 1].numpy()[0]

    def read_all(self, field: str) -> np.ndarray:
        check_field(field)
        if field in self._in_place:
            return np.array(self._in_place[field])
        return self._fields[field].numpy()

    def write(self, field: str, values: npt.ArrayLike, world: int | None = None) -> None:
        check_field(field)
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
            self._repairs.zero_()
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
        return describe_health(
            self._diverged_step.numpy(),
            _describe_overflow(status, self.sizes, self.nworld),
            self._start_time,
            self.mjm.opt.timestep,
            int(self._repairs.numpy().sum()),
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
    if None in sizes.values():
        found = size_buffers(mjm)
        sizes = {name: found[name] if size is None else size for name, size in sizes.items()}
    # All worlds share them, and where there are few there is memory for the worst case of one.
    least = -(-sizes["nconmax"] // nworld)
    sizes["nccdmax"] = min(sizes["nconmax"], max(sizes["nccdmax"], least))
    parameters = {}
    if engine == "comfree":
        # The law last: a refusal of another parameter names the law that does not have it, too.
        parameters = {f"comfree_{name}": value for name, value in given.items()}
    try:
        return WarpSimulation(
            mjm, engine, wp_device, nworld, sizes, parameters, noise, remember, progress
        )
    except SettingError:
        raise
    except (NotImplementedError, ValueError) as error:
        told = " ".join(str(error).split())
        named = (name for name in parameters if re.search(rf"\b{name}\b", told))
        setting = next(named, "model").removeprefix("comfree_")
        raise SettingError(setting, f"refused by {engine}: {told}") from error
