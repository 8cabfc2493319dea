"""The warm law: one or two preconditioned passes over MuJoCo's dual problem, from the last forces.

    acc = M^-1 (qfrc_smooth + J^T f)      f: what the last step left, by contact and row
    normals   once or twice               f += s d,  acc += s M^-1 J^T d
    acc again, friction in its new cones
    friction  once                        likewise

../README.md has the equations and where they come from.
"""

import mujoco_warp

from comfree_warp.rows import max_rows
from comfree_warp.types import Data, Model
from comfree_warp.warm import contacts, memory, rows, trees

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
    has_rows = max_rows(m, d) > 0
    has_contacts = contacts.has_contacts(m)

    trees.begin(m, d)
    if has_rows:
        rows.prepare_rows(m, d)
    if has_contacts:
        contacts.prepare_contacts(m, d)
    trees.gather_total(m, d)
    mujoco_warp.solve_m(m, d, d.qacc, d.qfrc_total)

    for index in range(m.comfree_passes):
        conjugate = index > 0
        trees.accelerate_bodies(m, d, apply=conjugate, renew=True)
        if conjugate:
            if has_rows:
                rows.propose_rows(m, d)
            if has_contacts:
                contacts.propose_normals(m, d)
        if has_rows:
            rows.step_rows(m, d, rows.NORMAL, conjugate=conjugate)
        if has_contacts:
            contacts.step_normals(m, d, conjugate=conjugate)
        _measure_step(m, d, rows.NORMAL)

    if has_rows:
        rows.collect_rows(m, d)
    if has_contacts:
        contacts.reclip(m, d)
    trees.gather_total(m, d)
    mujoco_warp.solve_m(m, d, d.qacc, d.qfrc_total)

    trees.accelerate_bodies(m, d, apply=False, renew=False)
    if has_rows:
        rows.step_rows(m, d, rows.FRICTION)
    if has_contacts:
        contacts.step_friction(m, d)
    _measure_step(m, d, rows.FRICTION)
    trees.take_step(m, d)
    if has_rows:
        rows.finish_rows(m, d)
    if has_contacts:
        contacts.finish_contacts(m, d)


def _measure_step(m: Model, d: Data, kind: int) -> None:
    """W = M^-1 J^T d, and from that how far to go."""
    trees.gather_step(m, d)
    mujoco_warp.solve_m(m, d, d.warm.qacc_step, d.warm.qfrc_step)
    trees.choose_scale(m, d, kind)
