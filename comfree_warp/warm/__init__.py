"""The warm law: a few preconditioned passes over MuJoCo's dual problem, from the last forces.

    acc = M^-1 (qfrc_smooth + J^T f)      f: what the last step left, by contact and row
    stacks    of free bodies, each solved for all its normals and the friction that holds
    normals   up to four times            f += s d,  acc += s M^-1 J^T d
    acc again, friction in its new cones
    friction  of stacks that touch nothing else, then of all, once, likewise

docs/contact_laws.md has the equations and where they come from.
"""

from types import ModuleType

from comfree_warp.shared.acceleration import accelerate
from comfree_warp.shared.contacts import has_contacts
from comfree_warp.shared.rows import has_contact_rows, max_rows
from comfree_warp.types import Data, Model
from comfree_warp.warm import contact_rows, contacts, memory, rows
from comfree_warp.warm.stacks import body as trees
from comfree_warp.warm.stacks import find as stacks
from comfree_warp.warm.stacks import solve as stack_solve
from comfree_warp.warm.stages import CONJUGATE_STEP, FRICTION, NORMAL, PLAIN_STEP, PROPOSAL

allocate_memory = memory.allocate_memory
remember = memory.remember
forget = memory.forget


def warm_forces(m: Model, d: Data) -> None:
    """Constraint forces of the warm law and the acceleration that they lead to.

    As `comfree_warp.constraint_forces`, which calls it. What is remembered does not change.
    """
    parts = _parts(m, d)
    trees.begin(m, d)
    memory.index_contacts(m, d)
    for part in parts:
        part.prepare(m, d)
    stacks.find_stacks(m, d)

    trees.accelerate(m, d, renew=True)
    stack_solve.solve_stacks(m, d, NORMAL)
    for index in range(m.comfree_passes):
        if index > 0:
            trees.accelerate_bodies(m, d, apply=True, renew=True)
        for stage in (PROPOSAL, CONJUGATE_STEP) if index > 0 else (PLAIN_STEP,):
            for part in parts:
                part.step(m, d, NORMAL, stage)
        _choose_scale(m, d, NORMAL)

    for part in parts:
        part.reclip(m, d)

    trees.accelerate(m, d, renew=False)
    stack_solve.solve_stacks(m, d, FRICTION)
    for part in parts:
        part.step(m, d, FRICTION, PLAIN_STEP)
    _choose_scale(m, d, FRICTION)

    trees.take_step(m, d)
    for part in parts:
        part.finish(m, d)


def _parts(m: Model, d: Data) -> list[ModuleType]:
    """What has forces: modules with `prepare`, `step`, `reclip` and `finish`."""
    parts = [rows] if max_rows(m, d) else []
    if has_contacts(m):
        parts.append(contact_rows if has_contact_rows(m) else contacts)
    return parts


def _choose_scale(m: Model, d: Data, kind: int) -> None:
    """How far to go along the step, from M^-1 J^T d."""
    assert d.warm is not None  # `check_supported` has looked
    accelerate(m, d, d.warm.qfrc_step, d.warm.qacc_step, total=False, consume=True)
    trees.choose_scale(m, d, kind)
