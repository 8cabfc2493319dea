"""The pipeline: MuJoCo Warp's public stages with the contact law in the place of the solver."""

import contextlib
from collections.abc import Callable, Iterator

import mujoco_warp as mjw
import warp as wp
from mujoco_warp import DisableBit, EnableBit, IntegratorType, OverflowType, SolverType

from comfree_warp.collision.broadphase import collision
from comfree_warp.collision.convex_contacts import checked_narrow_phase
from comfree_warp.options import check_supported
from comfree_warp.paper.contacts import describe_contacts
from comfree_warp.pipeline import cholesky
from comfree_warp.pipeline.forces import constraint_forces
from comfree_warp.pipeline.sensors import sensor_acc, sensor_pos, sensor_vel
from comfree_warp.runtime.changes import changed
from comfree_warp.runtime.graph import trimmed_launches
from comfree_warp.runtime.private import FRICTION_KEY
from comfree_warp.shared.contacts import has_contacts
from comfree_warp.shared.rows import has_contact_rows
from comfree_warp.shared.threads import first_body, index, launch, nthread_for, tree_arrays
from comfree_warp.types import Data, Model
from comfree_warp.warm import remember


@wp.kernel(enable_backward=False)
def _find_friction(dof_frictionloss: wp.array2d[float], nfriction_out: wp.array[int]):
    """How many dofs there are up to the last that has friction loss, in any world."""
    last = wp.int32(dof_frictionloss.shape[1])
    found = bool(False)
    while last > 0 and not found:
        worldid = wp.int32(0)
        while worldid < dof_frictionloss.shape[0] and not found:
            found = dof_frictionloss[worldid, last - 1] > 0.0
            worldid += 1
        if not found:
            last -= 1
    nfriction_out[0] = last


@contextlib.contextmanager
def _few_friction_threads(m: Model, d: Data) -> Iterator[None]:
    """Within this context dofs without friction loss cost nothing in a call captured on the CPU."""
    if not d.qpos.device.is_cpu:
        yield
        return
    launch(_find_friction, dim=1, inputs=[m.dof_frictionloss], outputs=[d.nfriction])
    with trimmed_launches({FRICTION_KEY: d.nfriction}):
        yield


@contextlib.contextmanager
def _quiet(m: Model) -> Iterator[None]:
    """Within this context MuJoCo Warp says nothing of overflows, since a step tells each once."""
    with changed(m.opt, warn_overflow=0):
        yield


@contextlib.contextmanager
def _without_contact_rows(m: Model) -> Iterator[None]:
    """Within this context `make_constraint` makes no rows of contacts, and none of its lists."""
    flags = m.opt.disableflags | DisableBit.CONTACT
    with changed(m.opt, disableflags=flags, solver=SolverType.CG):
        yield


def _fwd_position(m: Model, d: Data, factorize: bool) -> None:
    """`fwd_position` without the rows of contacts, which `constraint_forces` makes."""
    with _few_friction_threads(m, d):
        if has_contact_rows(m):
            with checked_narrow_phase(d, d.repairs):
                mjw.fwd_position(m, d, factorize=factorize)
            return
        detect = m.opt.run_collision_detection
        with _without_contact_rows(m), changed(m.opt, run_collision_detection=False):
            mjw.fwd_position(m, d, factorize=factorize)
    if detect:
        collision(m, d)


def fwd_position(m: Model, d: Data, factorize: bool = True) -> None:
    """All that depends on positions only, contacts and rows too. As `mujoco_warp.fwd_position`.

    The rows of contacts are as `Model.comfree_efc` says.
    """
    check_supported(m, d)
    _fwd_position(m, d, factorize)
    _describe_contacts(m, d)


def make_constraint(m: Model, d: Data) -> None:
    """The rows of all constraints, without their forces. As `mujoco_warp.make_constraint`.

    The rows of contacts are as `Model.comfree_efc` says.
    """
    check_supported(m, d)
    with _few_friction_threads(m, d):
        if has_contact_rows(m):
            mjw.make_constraint(m, d)
            return
        with _without_contact_rows(m):
            mjw.make_constraint(m, d)
    _describe_contacts(m, d)


def _describe_contacts(m: Model, d: Data) -> None:
    if not has_contact_rows(m) and has_contacts(m):
        describe_contacts(m, d)


def _position(m: Model, d: Data) -> None:
    # fwd_acceleration factorizes M together with its first solve.
    _fwd_position(m, d, factorize=False)
    d.sensordata.zero_()
    sensor_pos(m, d)
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


@wp.kernel(enable_backward=False)
def _compensate_gravity(
    opt_gravity: wp.array[wp.vec3],
    body_parentid: wp.array[int],
    body_dofadr: wp.array[int],
    body_dofnum: wp.array[int],
    dof_bodyid: wp.array[int],
    tree_dofadr: wp.array[int],
    tree_bodynum: wp.array[int],
    body_rootid: wp.array[int],
    body_mass: wp.array2d[float],
    body_gravcomp: wp.array2d[float],
    jnt_actgravcomp: wp.array[int],
    dof_jntid: wp.array[int],
    ntree: int,
    nthread: int,
    xipos_in: wp.array2d[wp.vec3],
    subtree_com_in: wp.array2d[wp.vec3],
    cdof_in: wp.array2d[wp.spatial_vector],
    qfrc_gravcomp_out: wp.array2d[float],
    qfrc_passive_out: wp.array2d[float],
):
    """What the bodies of a tree that do not weigh all they should exert on its dofs."""
    worldid, first_tree = wp.tid()
    item = wp.int32(first_tree)
    while item < ntree:
        treeid = index(item)
        item += nthread
        first = first_body(treeid, tree_dofadr, dof_bodyid)
        bodyid = index(first)
        while bodyid < first + tree_bodynum[treeid]:
            gravcomp = body_gravcomp[worldid % body_gravcomp.shape[0], bodyid]
            if gravcomp != 0.0:
                mass = body_mass[worldid % body_mass.shape[0], bodyid]
                force = -gravcomp * mass * opt_gravity[worldid % opt_gravity.shape[0]]
                offset = xipos_in[worldid, bodyid] - subtree_com_in[worldid, body_rootid[bodyid]]
                wrench = wp.spatial_vector(wp.cross(offset, force), force)
                moved = wp.int32(bodyid)
                while moved >= first:
                    dofid = index(body_dofadr[moved])
                    last = dofid + body_dofnum[moved]
                    while dofid < last:
                        lifted = wp.dot(cdof_in[worldid, dofid], wrench)
                        qfrc_gravcomp_out[worldid, dofid] += lifted
                        if jnt_actgravcomp[dof_jntid[dofid]] == 0:  # else the actuator adds it
                            qfrc_passive_out[worldid, dofid] += lifted
                        dofid = index(dofid + 1)
                    moved = body_parentid[moved]
            bodyid = index(bodyid + 1)


def fwd_velocity(m: Model, d: Data) -> None:
    """All that depends on velocities, too. As `mujoco_warp.fwd_velocity`.

    Without its pass over nbody x nv for the compensation of gravity, which few bodies have.
    """
    if m.ntendon or m.callback.passive:
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
    if not m.opt.disableflags & DisableBit.GRAVITY:
        nthread = nthread_for(d, m.ntree)
        launch(
            _compensate_gravity,
            dim=(d.nworld, nthread),
            inputs=[
                *(m.opt.gravity, *tree_arrays(m), m.body_rootid, m.body_mass, m.body_gravcomp),
                *(m.jnt_actgravcomp, m.dof_jntid, m.ntree, nthread),
                *(d.xipos, d.subtree_com, d.cdof),
            ],
            outputs=[d.qfrc_gravcomp, d.qfrc_passive],
        )
    mjw.rne(m, d)


def _velocity(m: Model, d: Data) -> None:
    fwd_velocity(m, d)
    sensor_vel(m, d)
    if m.opt.enableflags & EnableBit.ENERGY and m.sensor_e_kinetic == 0:
        mjw.energy_vel(m, d)
    if m.callback.control and not m.opt.disableflags & DisableBit.ACTUATION:
        m.callback.control(m, d)


def fwd_acceleration(m: Model, d: Data, factorize: bool = False) -> None:
    """All forces but those of constraints, and `qacc_smooth`. As `mujoco_warp.fwd_acceleration`."""
    if factorize:
        cholesky.fwd_acceleration(m, d)
    else:
        mjw.fwd_acceleration(m, d)


def solve(m: Model, d: Data) -> None:
    """Constraint forces, and the acceleration with them. In the place of `mujoco_warp.solve`.

    See `constraint_forces`: it is closed-form, and the options of the solver have no meaning.
    """
    check_supported(m, d)
    constraint_forces(m, d)


def _acceleration(m: Model, d: Data) -> None:
    mjw.fwd_actuation(m, d)
    cholesky.fwd_acceleration(m, d)
    constraint_forces(m, d)
    sensors = not m.opt.disableflags & DisableBit.SENSOR
    if m.opt.run_rne_postconstraint or (sensors and m.sensor_rne_postconstraint):
        mjw.rne_postconstraint(m, d)
    sensor_acc(m, d, skip_rne_postconstraint=True)


def _advance(m: Model, d: Data, integrate: Callable[[Model, Data], None]) -> None:
    """Integrate, remember what the next step begins with, and tell of overflows."""
    with _quiet(m):
        integrate(m, d)
    if m.comfree_law == "warm":
        remember(m, d)
    if not m.opt.warn_overflow:
        return
    launch(
        _tell_overflow,
        dim=d.nworld,
        inputs=[
            *(int(m.opt.warn_overflow), d.nworld, d.naconmax, d.njmax, d.njmax_nnz),
            *(d.nefc, d.nacon, d.ncollision, d.overflow),
        ],
        outputs=[d.overflow_told],
    )


def euler(m: Model, d: Data) -> None:
    """Integrate by semi-implicit Euler. As `mujoco_warp.euler`."""
    check_supported(m, d)
    _advance(m, d, cholesky.euler)


def implicit(m: Model, d: Data) -> None:
    """Integrate, implicitly in velocity. As `mujoco_warp.implicit`."""
    check_supported(m, d)
    _advance(m, d, mjw.implicit)


def _integrate(m: Model, d: Data) -> None:
    _advance(m, d, cholesky.euler if m.opt.integrator == IntegratorType.EULER else mjw.implicit)


def forward(m: Model, d: Data) -> None:
    """Everything that a step computes, without integrating: from qpos, qvel and ctrl to qacc.

    As `mujoco_warp.forward`, with `efc.force` from the closed-form contact law. Energy, sensors
    and callbacks are evaluated at the same places.
    """
    check_supported(m, d)
    with _quiet(m):
        _position(m, d)
        _velocity(m, d)
        _acceleration(m, d)


def step(m: Model, d: Data) -> None:
    """`forward`, then the model's integrator (Euler, implicit or implicitfast).

    Advances `qpos`, `qvel`, `act` and `time` of every world by one timestep. Can be captured, with
    `capture` or `wp.ScopedCapture`, on the CPU and on CUDA. When `nconmax` or `njmax` is too small,
    one line says so, once per kind and per `Data`, for the kinds in `m.opt.warn_overflow`;
    `d.overflow` (nworld,) keeps the bits.
    """
    forward(m, d)
    _integrate(m, d)


def step1(m: Model, d: Data) -> None:
    """First half of `step`: all that does not depend on ctrl. As `mujoco_warp.step1`."""
    check_supported(m, d)
    with _quiet(m):
        _position(m, d)
        _describe_contacts(m, d)
        _velocity(m, d)


def step2(m: Model, d: Data) -> None:
    """Second half of `step`, after the caller has set ctrl. As `mujoco_warp.step2`."""
    check_supported(m, d)
    with _quiet(m):
        _acceleration(m, d)
    _integrate(m, d)


def inverse(m: Model, d: Data) -> None:
    """Refuse: the law has no inverse.

    Raises:
      NotImplementedError: always, with what to use instead.
    """
    raise NotImplementedError(
        "inverse is not supported by comfree, whose forces do not follow from qacc: use "
        "mujoco_warp.inverse, on a model and data of mujoco_warp.put_model and put_data"
    )


def rungekutta4(m: Model, d: Data) -> None:
    """Refuse the integrator.

    Raises:
      NotImplementedError: always, with what to use instead.
    """
    raise NotImplementedError("rungekutta4 is not supported by comfree: use euler or implicit")


def discrete(m: Model, d: Data) -> None:
    """Refuse the integrator.

    Raises:
      NotImplementedError: always, with what to use instead.
    """
    raise NotImplementedError("discrete is not supported by comfree: use euler or implicit")


_NEFC = wp.constant(int(OverflowType.NEFC))
_NJMAX_NNZ = wp.constant(int(OverflowType.NJMAX_NNZ))
_BROADPHASE = wp.constant(int(OverflowType.BROADPHASE))
_NARROWPHASE = wp.constant(int(OverflowType.NARROWPHASE))
_CCD = wp.constant(int(OverflowType.CCD))
_HFIELD = wp.constant(int(OverflowType.HFIELD))
_EPA_HORIZON = wp.constant(int(OverflowType.EPA_HORIZON))
_CONTACT_MATCH = wp.constant(int(OverflowType.CONTACT_MATCH))
_TACTILE = wp.constant(int(OverflowType.TACTILE))


@wp.func
def _first_to_tell(bit: int, overflow: int, told: wp.array[int]) -> bool:
    if (overflow & bit) == 0 or (told[0] & bit) != 0:
        return False
    return (wp.atomic_or(told, 0, bit) & bit) == 0


@wp.kernel(enable_backward=False)
def _tell_overflow(
    opt_warn_overflow: int,
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
    overflow = overflow_in[worldid] & opt_warn_overflow
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
    if _first_to_tell(_EPA_HORIZON, overflow, overflow_told_out):
        wp.printf(
            "comfree_warp: a convex collision is approximated: EPA's horizon buffer is full\n"
        )
    if _first_to_tell(_CONTACT_MATCH, overflow, overflow_told_out):
        wp.printf(
            "comfree_warp: a contact sensor misses contacts: raise <numeric "
            "name='contact_sensor_maxmatch'> in the model\n"
        )
    if _first_to_tell(_TACTILE, overflow, overflow_told_out):
        wp.printf("comfree_warp: a tactile sensor misses collisions\n")
