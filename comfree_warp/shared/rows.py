"""Which rows have a Jacobian, how many there may be, and what a row's force may be."""

import mujoco
import numpy as np
import warp as wp

from comfree_warp.types import Data, Model

_EQUALITY = wp.constant(int(mujoco.mjtConstraint.mjCNSTR_EQUALITY))
_FRICTION_DOF = wp.constant(int(mujoco.mjtConstraint.mjCNSTR_FRICTION_DOF))
_FRICTION_TENDON = wp.constant(int(mujoco.mjtConstraint.mjCNSTR_FRICTION_TENDON))
_CONTACT_ELLIPTIC = wp.constant(int(mujoco.mjtConstraint.mjCNSTR_CONTACT_ELLIPTIC))

SATISFIED = wp.constant(int(mujoco.mjtConstraintState.mjCNSTRSTATE_SATISFIED))
QUADRATIC = wp.constant(int(mujoco.mjtConstraintState.mjCNSTRSTATE_QUADRATIC))
_LINEARNEG = wp.constant(int(mujoco.mjtConstraintState.mjCNSTRSTATE_LINEARNEG))
_LINEARPOS = wp.constant(int(mujoco.mjtConstraintState.mjCNSTRSTATE_LINEARPOS))
CONE = wp.constant(int(mujoco.mjtConstraintState.mjCNSTRSTATE_CONE))


@wp.func
def project_row(row_type: int, frictionloss: float, force: float):
    """P_i of every row that stands alone: its force and its `mjtConstraintState`."""
    if row_type == _EQUALITY:
        return force, QUADRATIC
    if row_type == _FRICTION_DOF or row_type == _FRICTION_TENDON:
        if force >= frictionloss:
            return frictionloss, _LINEARNEG
        if force <= -frictionloss:
            return -frictionloss, _LINEARPOS
        return force, QUADRATIC
    if row_type == _CONTACT_ELLIPTIC:
        return force, QUADRATIC  # project_cone has the last word, over the contact as a whole
    if force > 0.0:
        return force, QUADRATIC
    return 0.0, SATISFIED


def has_contact_rows(m: Model | mujoco.MjModel, efc: str | None = None) -> bool:
    """Whether contacts get a Jacobian.

    Those of flex touch as many bodies as an element has, and MuJoCo Warp reads the moments of
    actuators with body transmission (adhesion) off the rows of contacts. Those of other models get
    one where it is asked for.

    Args:
      m: the model.
      efc: `comfree_efc`, where the model is MuJoCo's own.
    """
    if isinstance(m, mujoco.MjModel):
        adheres = bool((m.actuator_trntype == mujoco.mjtTrn.mjTRN_BODY).any())
    else:
        efc, adheres = m.comfree_efc, m.nacttrnbody > 0
    return efc == "full" or m.nflex > 0 or adheres


def max_rows(m: Model | mujoco.MjModel, d: Data) -> int:
    """No world has more rows with a Jacobian."""
    if has_contact_rows(m, d.comfree_efc):
        return d.njmax
    if isinstance(m, mujoco.MjModel):
        nlimited = int((m.jnt_limited != 0).sum())
    else:
        nlimited = len(m.jnt_limited_slide_hinge_adr) + len(m.jnt_limited_ball_adr)
    # Every dof and tendon may lose energy to friction: the arrays may say so at any time.
    return min(d.njmax, 6 * m.neq + nlimited + m.nv + 2 * m.ntendon)


def max_nonzeros(mjm: mujoco.MjModel) -> int:
    """No world has more non-zeros in the rows that get a Jacobian, where contacts get none."""
    ndof = np.zeros(mjm.nbody, dtype=int)  # that move each body
    for bodyid in range(1, mjm.nbody):
        ndof[bodyid] = ndof[mjm.body_parentid[bodyid]] + mjm.body_dofnum[bodyid]
    tendons = int(mjm.ten_J_rownnz.sum())
    total = 3 * mjm.nv + 2 * tendons  # friction loss and limits
    for eq in range(mjm.neq):
        ends = np.array([mjm.eq_obj1id[eq], mjm.eq_obj2id[eq]])
        match mujoco.mjtEq(mjm.eq_type[eq]):
            case mujoco.mjtEq.mjEQ_TENDON:
                total += tendons
            case mujoco.mjtEq.mjEQ_JOINT:
                total += 2
            case _:  # connect and weld
                if mjm.eq_objtype[eq] == mujoco.mjtObj.mjOBJ_SITE:
                    ends = mjm.site_bodyid[ends]
                total += 6 * int(ndof[ends].sum())
    return total
