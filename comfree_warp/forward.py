"""The pipeline: MuJoCo Warp's public stages with the contact law in the place of the solver."""

import mujoco_warp as mjw
import warp as wp
from mujoco_warp import DisableBit, EnableBit, IntegratorType, OverflowType

from comfree_warp.broadphase import collision
from comfree_warp.changes import changed
from comfree_warp.cholesky import euler, fwd_acceleration
from comfree_warp.constraint import constraint_forces
from comfree_warp.rows import has_contact_rows
from comfree_warp.sweeps import index, launch, nthread_for
from comfree_warp.types import Data, Model
from comfree_warp.warm import remember


def fwd_position(m: Model, d: Data, factorize: bool = True) -> None:
    """All that depends on positions only, contacts and rows too. As `mujoco_warp.fwd_position`.

    But contacts get their rows later, from `constraint_forces`; `nefc` is without them until then.
    """
    flags = m.opt.disableflags
    if not m.has_frictionloss:
        flags |= DisableBit.FRICTIONLOSS  # make_constraint need not look for any
    if has_contact_rows(m):
        with changed(m.opt, disableflags=flags):
            mjw.fwd_position(m, d, factorize=factorize)
        return
    detect = m.opt.run_collision_detection
    # With this flag make_constraint makes no rows of contacts.
    with changed(m.opt, run_collision_detection=False, disableflags=flags | DisableBit.CONTACT):
        mjw.fwd_position(m, d, factorize=factorize)
    if detect:
        collision(m, d)


def _position(m: Model, d: Data) -> None:
    # fwd_acceleration factorizes M together with its first solve.
    fwd_position(m, d, factorize=False)
    d.sensordata.zero_()
    mjw.sensor_pos(m, d)
    if not m.opt.enableflags & EnableBit.ENERGY:
        d.energy.zero_()
    elif m.sensor_e_potential == 0:  # otherwise the sensor has computed it
        mjw.energy_pos(m, d)


# MuJoCo Warp's own is not public.
@wp.kernel(enable_backward=False)
def _actuator_velocity(
    nactuator: int,
    nthread: int,
    moment_rownnz_in: wp.array2d[int],
    moment_rowadr_in: wp.array2d[int],
    moment_colind_in: wp.array2d[int],
    actuator_moment_in: wp.array2d[float],
    qvel_in: wp.array2d[float],
    actuator_velocity_out: wp.array2d[float],
):
    worldid, first = wp.tid()
    item = wp.int32(first)
    while item < nactuator:
        actid = index(item)
        item += nthread
        velocity = float(0.0)
        rowadr = moment_rowadr_in[worldid, actid]
        for i in range(rowadr, rowadr + moment_rownnz_in[worldid, actid]):
            dofid = moment_colind_in[worldid, i]
            velocity += actuator_moment_in[worldid, i] * qvel_in[worldid, dofid]
        actuator_velocity_out[worldid, actid] = velocity


def _fwd_velocity(m: Model, d: Data) -> None:
    """`mujoco_warp.fwd_velocity`, without its pass over nbody x nv where no body needs it."""
    if m.has_gravcomp or m.ntendon or m.callback.passive:
        mjw.fwd_velocity(m, d)
        return
    nthread = nthread_for(d, m.nactuator)
    launch(
        _actuator_velocity,
        dim=(d.nworld, nthread),
        inputs=[
            m.nactuator,
            nthread,
            d.moment_rownnz,
            d.moment_rowadr,
            d.moment_colind,
            d.actuator_moment,
            d.qvel,
        ],
        outputs=[d.actuator_velocity],
    )
    mjw.com_vel(m, d)
    # All that `passive` does with gravity is to compensate it.
    with changed(m.opt, disableflags=m.opt.disableflags | DisableBit.GRAVITY):
        mjw.passive(m, d)
    mjw.rne(m, d)


def _velocity(m: Model, d: Data) -> None:
    _fwd_velocity(m, d)
    mjw.sensor_vel(m, d)
    if m.opt.enableflags & EnableBit.ENERGY and m.sensor_e_kinetic == 0:
        mjw.energy_vel(m, d)
    if m.callback.control and not m.opt.disableflags & DisableBit.ACTUATION:
        m.callback.control(m, d)


def _acceleration(m: Model, d: Data) -> None:
    mjw.fwd_actuation(m, d)
    fwd_acceleration(m, d)
    constraint_forces(m, d)
    sensors = not m.opt.disableflags & DisableBit.SENSOR
    if m.opt.run_rne_postconstraint or (sensors and m.sensor_rne_postconstraint):
        mjw.rne_postconstraint(m, d)
    mjw.sensor_acc(m, d, skip_rne_postconstraint=True)


def _integrate(m: Model, d: Data) -> None:
    if m.opt.integrator == IntegratorType.EULER:
        euler(m, d)
    else:
        mjw.implicit(m, d)
    if m.comfree_law == "warm":
        remember(m, d)
    launch(
        _tell_overflow,
        dim=d.nworld,
        inputs=[
            d.nworld,
            d.naconmax,
            d.njmax,
            d.njmax_nnz,
            d.nefc,
            d.nacon,
            d.ncollision,
            d.overflow,
        ],
        outputs=[d.overflow_told],
    )


def forward(m: Model, d: Data) -> None:
    """Everything that a step computes, without integrating: from qpos, qvel and ctrl to qacc.

    As `mujoco_warp.forward`, with `efc.force` from the closed-form contact law. Energy, sensors
    and callbacks are evaluated at the same places.
    """
    _position(m, d)
    _velocity(m, d)
    _acceleration(m, d)


def step(m: Model, d: Data) -> None:
    """`forward`, then the model's integrator (Euler, implicit or implicitfast).

    Advances `qpos`, `qvel`, `act` and `time` of every world by one timestep. Can be captured, with
    `capture` or `wp.ScopedCapture`, on the CPU and on CUDA. When `nconmax` or `njmax` is too small,
    one line says so, once per kind and per `Data`; `d.overflow` (nworld,) keeps the bits.
    """
    forward(m, d)
    _integrate(m, d)


def step1(m: Model, d: Data) -> None:
    """First half of `step`: all that does not depend on ctrl. As `mujoco_warp.step1`.

    But for `nefc`, which is without the rows of contacts until `step2`.
    """
    _position(m, d)
    _velocity(m, d)


def step2(m: Model, d: Data) -> None:
    """Second half of `step`, after the caller has set ctrl. As `mujoco_warp.step2`."""
    _acceleration(m, d)
    _integrate(m, d)


_NEFC = wp.constant(int(OverflowType.NEFC))
_NJMAX_NNZ = wp.constant(int(OverflowType.NJMAX_NNZ))
_BROADPHASE = wp.constant(int(OverflowType.BROADPHASE))
_NARROWPHASE = wp.constant(int(OverflowType.NARROWPHASE))
_CCD = wp.constant(int(OverflowType.CCD))
_HFIELD = wp.constant(int(OverflowType.HFIELD))


@wp.func
def _first_to_tell(bit: int, overflow: int, told: wp.array[int]) -> bool:
    if (overflow & bit) == 0 or (told[0] & bit) != 0:
        return False
    return (wp.atomic_or(told, 0, bit) & bit) == 0


@wp.kernel(enable_backward=False)
def _tell_overflow(
    nworld: int,
    naconmax: int,
    njmax: int,
    njmax_nnz: int,
    nefc_in: wp.array[int],
    nacon_in: wp.array[int],
    ncollision_in: wp.array[int],
    overflow_in: wp.array[int],
    overflow_told_out: wp.array[int],
):
    worldid = wp.tid()
    overflow = overflow_in[worldid]
    if overflow == 0:
        return
    if _first_to_tell(_NEFC, overflow, overflow_told_out):
        wp.printf(
            "comfree_warp: world %d has %d constraint rows, njmax=%d holds fewer: rows are lost; "
            "raise njmax (put_data, make_data; --njmax)\n",
            worldid,
            nefc_in[worldid],
            njmax,
        )
    if _first_to_tell(_NJMAX_NNZ, overflow, overflow_told_out):
        wp.printf(
            "comfree_warp: world %d needs more non-zeros in its Jacobian than njmax_nnz=%d: rows "
            "are lost; raise njmax_nnz or njmax (put_data, make_data; --njmax)\n",
            worldid,
            njmax_nnz,
        )
    if _first_to_tell(_BROADPHASE, overflow, overflow_told_out):
        wp.printf(
            "comfree_warp: %d geom pairs are close over all worlds, naconmax=%d holds fewer: "
            "contacts are lost; raise nconmax beyond %d (put_data, make_data; --nconmax)\n",
            ncollision_in[0],
            naconmax,
            ncollision_in[0] / nworld,
        )
    if _first_to_tell(_NARROWPHASE, overflow, overflow_told_out):
        wp.printf(
            "comfree_warp: %d contacts over all worlds, naconmax=%d holds fewer: contacts are "
            "lost; raise nconmax beyond %d (put_data, make_data; --nconmax)\n",
            nacon_in[0],
            naconmax,
            nacon_in[0] / nworld,
        )
    if _first_to_tell(_CCD, overflow, overflow_told_out):
        wp.printf(
            "comfree_warp: more convex collisions than naccdmax holds: "
            "contacts are lost; raise nccdmax or nconmax (put_data, make_data; --nconmax)\n"
        )
    if _first_to_tell(_HFIELD, overflow, overflow_told_out):
        wp.printf(
            "comfree_warp: a geom touches more prisms of a height field than MuJoCo Warp "
            "considers: contacts are lost; use a coarser field or a smaller geom\n"
        )
