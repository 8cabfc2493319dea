"""The warm law: a few preconditioned passes over MuJoCo's dual problem, from the last forces.

    acc = M^-1 (qfrc_smooth + J^T f)      f: what the last step left, by contact and row
    normals   up to four times            f += s d,  acc += s M^-1 J^T d
    acc again, friction in its new cones
    friction  once                        likewise

../README.md has the equations and where they come from.
"""

import mujoco_warp

from comfree_warp.contacts import has_contacts
from comfree_warp.rows import has_contact_rows, max_rows
from comfree_warp.types import Data, Model
from comfree_warp.warm import contact_rows, contacts, memory, rows, trees
from comfree_warp.warm.stages import CONJUGATE_STEP, PLAIN_STEP, PROPOSAL

allocate_memory = memory.allocate_memory
remember = memory.remember
forget = memory.forget


def warm_forces(m: Model, d: Data) -> None:
    """Constraint forces of the warm law and the acceleration that they lead to.

    As `comfree_warp.constraint_forces`, which calls it. What is remembered does not change.

    Raises:
      RuntimeError: the memory is not there and cannot be made, inside a captured graph.
    """
    if d.warm is None:
        if d.qpos.device.is_capturing:
            raise RuntimeError(
                "comfree_law='warm' needs its memory before a graph is captured: "
                "call comfree_warp.allocate_memory(m, d), or step once, before the capture"
            )
        allocate_memory(m, d)
    trees.begin(m, d)
    _prepare(m, d)
    _accelerate(m, d)

    for index in range(m.comfree_passes):
        trees.accelerate_bodies(m, d, apply=index > 0, renew=True)
        if index > 0:
            _step(m, d, rows.NORMAL, PROPOSAL)
        _step(m, d, rows.NORMAL, CONJUGATE_STEP if index > 0 else PLAIN_STEP)
        _choose_scale(m, d, rows.NORMAL)

    _reclip(m, d)
    _accelerate(m, d)

    trees.accelerate_bodies(m, d, apply=False, renew=False)
    _step(m, d, rows.FRICTION, PLAIN_STEP)
    _choose_scale(m, d, rows.FRICTION)
    _finish(m, d)


# Each of these over rows with a Jacobian and over contacts, whichever there can be.


def _prepare(m: Model, d: Data) -> None:
    if max_rows(m, d):
        rows.prepare_rows(m, d)
    if not has_contacts(m):
        memory.index_no_contacts(d)
        return
    memory.index_contacts(m, d)
    if has_contact_rows(m):
        contact_rows.prepare_contacts(m, d)
    else:
        contacts.prepare_contacts(m, d)


def _step(m: Model, d: Data, kind: int, stage: int) -> None:
    if max_rows(m, d):
        rows.step_rows(m, d, kind, stage)
    if not has_contacts(m):
        return
    if has_contact_rows(m):
        contact_rows.step_contacts(m, d, friction=kind == rows.FRICTION, stage=stage)
    elif kind == rows.FRICTION:
        contacts.step_friction(m, d)
    else:
        contacts.step_normals(m, d, stage)


def _reclip(m: Model, d: Data) -> None:
    if max_rows(m, d):
        rows.collect_rows(m, d)
    if not has_contacts(m):
        return
    if has_contact_rows(m):
        contact_rows.reclip(m, d)
    else:
        contacts.reclip(m, d)


def _finish(m: Model, d: Data) -> None:
    trees.take_step(m, d)
    if max_rows(m, d):
        rows.finish_rows(m, d)
    if has_contacts(m):
        contacts.finish_contacts(m, d)


def _accelerate(m: Model, d: Data) -> None:
    """The acceleration of the present forces: M^-1 (qfrc_smooth + J^T f)."""
    trees.gather_total(m, d)
    mujoco_warp.solve_m(m, d, d.qacc, d.qfrc_total)


def _choose_scale(m: Model, d: Data, kind: int) -> None:
    """How far to go along the step, from M^-1 J^T d."""
    trees.gather_step(m, d)
    mujoco_warp.solve_m(m, d, d.warm.qacc_step, d.warm.qfrc_step)
    trees.choose_scale(m, d, kind)
