"""The constraint forces of a step, and the acceleration that they lead to."""

from comfree_warp.paper.contacts import force_contacts, predict_velocity
from comfree_warp.paper.rows import add_rows, force_rows
from comfree_warp.shared.acceleration import accelerate
from comfree_warp.shared.contacts import has_contacts
from comfree_warp.shared.rows import has_contact_rows, max_rows
from comfree_warp.types import Data, Model
from comfree_warp.warm import warm_forces


def constraint_forces(m: Model, d: Data) -> None:
    """Closed-form constraint forces and the acceleration that they lead to.

    Takes the place of `mujoco_warp.solve`; the solver options have no meaning here. Reads `qvel`,
    `qacc_smooth`, `qfrc_smooth` (nworld, nv), `cdof`, `subtree_com`, the factor of M, the contacts
    of `collision` and the rows of `make_constraint`; those of contacts it makes itself, but for
    their J, vel and aref, unless `has_contact_rows`. Writes `efc.force` and `efc.state`
    (nworld, njmax), `qvel_smooth_pred`, `qfrc_constraint`, `qfrc_total` (= `efc.Ma`) and `qacc`
    (nworld, nv).
    """
    if m.comfree_law == "warm":
        warm_forces(m, d)
        return
    predict_velocity(m, d)
    if max_rows(m, d):
        force_rows(m, d)
        add_rows(m, d)
    if not has_contact_rows(m) and has_contacts(m):
        force_contacts(m, d)
    accelerate(m, d, d.qfrc_constraint, d.qacc, total=True, consume=False)
