"""Float64 reference of the warm contact law, in NumPy on MuJoCo C's own elliptic rows.

Written from the equations alone, to be compared with the engine. With A = J M^-1 J^T, R = 1 / D
and acc0 the acceleration without constraint forces, MuJoCo's constraint forces f minimise

    1/2 f^T (A + R) f + f^T (J acc0 + a)        over what the rows may exert,

the dual problem of the chapter "Computation" of MuJoCo's documentation. Its gradient is the
residual r = J acc + a + R f, with acc = acc0 + M^-1 J^T f. The law starts at the forces of the last
step, solves free bodies that stand on each other together, stack by stack, for their normal forces
and the friction that holds (the support pass), and takes a few preconditioned steps on the normal
forces, limits and equalities (N), then likewise one on friction (T), each of the length that
minimises the cost along it. Our own law; its projected gradient step with an exact length, and the
conjugate direction of Polak, Ribiere and Hestenes, Stiefel, are textbook (Nocedal and Wright,
"Numerical Optimization", chapters 5 and 16).

Coulomb's cone is the only one: where a model asks for pyramids, the rows are still elliptic. Units
are SI along each row: metres and newtons, or radians and newton metres where the row is an angle.
"""

import copy
import itertools
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import mujoco
import numpy as np
import reference
from reference_simulation import ReferenceSimulation

_TYPE = mujoco.mjtConstraint

NORMAL, FRICTION = 0, 1  # the classes of rows: N and T, and the columns of alpha

MEAN_RATE = 0.02  # of the slow mean of a row's force, per step
LARGEST_BETA = 0.95
SMALLEST_ALPHA = 0.02
ALPHA_FACTORS = 0.5, 1.25  # by which alpha changes in one pass, at most
SAME_PLACE = 1e-5  # m; of contacts whose distances differ by less, the first by x, y, z
NEWTON_STEPS = 4  # on the secular equation
ROUNDING = 1e-8  # of a step, against gravity and actuators, both as q^T M^-1 q
UPWARDS = 0.1  # of a unit normal along up, above which a contact supports

RowKey = tuple[int, int, int]


@dataclass(frozen=True)
class Contact:
    """What the law reads of one contact that has rows.

    Attributes:
        rows: (condim,) int, its rows in efc order, the normal first.
        friction: (condim - 1,) mu_k, one per row after the normal: two for sliding (no unit), then
            torsion and two for rolling (metres).
        geom: the two geoms in MuJoCo's order; of a flex, below -1, its vertex or element.
        trees: the kinematic trees of the two geoms, -1 where there is none or a flex.
        pos: (3,) in the world (m).
        frame: (3, 3), its rows the normal and the two tangents in the world.
    """

    rows: np.ndarray
    friction: np.ndarray
    geom: tuple[int, int]
    trees: tuple[int, int]
    pos: np.ndarray
    frame: np.ndarray


@dataclass(frozen=True)
class Rows:
    """The constraint rows at one state, elliptic, as the law reads them.

    Attributes:
        J: (nefc, nv) Jacobian, dense.
        D: (nefc,) constraint mass, MuJoCo's efc_D (kg or kg m^2).
        aref: (nefc,) reference acceleration -B vel - K I pos, MuJoCo's efc_aref (m/s^2 or rad/s^2).
        vel: (nefc,) MuJoCo's efc_vel, J qvel plus the surface velocity of conveyor geoms.
        stiffness: (nefc,) K I of MuJoCo's efc_KBIP (1/s^2).
        damping: (nefc,) B of MuJoCo's efc_KBIP (1/s).
        type: (nefc,) int, mjtConstraint.
        id: (nefc,) int, MuJoCo's efc_id: of the joint, tendon, dof or equality.
        frictionloss: (nefc,) bound on |f| of friction-loss rows, zero elsewhere (N or N m).
        trees: (nefc, ntree) bool, the kinematic trees that each row touches.
        contacts: every contact that has rows.
        parents: (ntree,) int, the tree on which each one stands, -1 where there is none.
    """

    J: np.ndarray
    D: np.ndarray
    aref: np.ndarray
    vel: np.ndarray
    stiffness: np.ndarray
    damping: np.ndarray
    type: np.ndarray
    id: np.ndarray
    frictionloss: np.ndarray
    trees: np.ndarray
    contacts: tuple[Contact, ...]
    parents: np.ndarray

    @property
    def normals(self) -> np.ndarray:
        """(nefc,) bool: contact normals, those of frictionless contacts too."""
        return self._marked([contact.rows[:1] for contact in self.contacts])

    @property
    def contact_friction(self) -> np.ndarray:
        """(nefc,) bool: sliding, torsional and rolling rows of contacts."""
        return self._marked([contact.rows[1:] for contact in self.contacts])

    @property
    def friction_loss(self) -> np.ndarray:
        """(nefc,) bool: friction loss of dofs and tendons."""
        return np.isin(self.type, [_TYPE.mjCNSTR_FRICTION_DOF, _TYPE.mjCNSTR_FRICTION_TENDON])

    @property
    def unilateral(self) -> np.ndarray:
        """(nefc,) bool: rows that push but never pull, contact normals and limits."""
        limits = [_TYPE.mjCNSTR_LIMIT_JOINT, _TYPE.mjCNSTR_LIMIT_TENDON]
        return self.normals | np.isin(self.type, limits)

    @property
    def stacks(self) -> np.ndarray:
        """(nefc,) int: the stack that solves each row in the support pass, -1 of all other rows.

        Those are the normals between a tree of the stack and its parent, or what is of no tree.
        """
        of_tree, of_row = stacks_of(self.parents), np.full(len(self.type), -1)
        for contact in self.contacts:
            one, other = contact.trees
            if max(one, other) < 0:
                continue
            if min(one, other) < 0 or self.parents[one] == other or self.parents[other] == one:
                of_row[contact.rows[0]] = of_tree[max(one, other)]
        return of_row

    def _marked(self, chosen: list[np.ndarray]) -> np.ndarray:
        mask = np.zeros(len(self.type), dtype=bool)
        for rows in chosen:
            mask[rows] = True
        return mask


@dataclass(frozen=True)
class RememberedContact:
    """The force of a contact, as it is kept from step to step.

    Attributes:
        geom: what it is between, the smaller number first.
        pos: (3,) where the contact was, in the world (m).
        normal: normal force (N).
        mean: slow mean of the normal force (N).
        force: (3,) friction force along the tangents, in the world (N).
        torque: (3,) torsional and rolling torque, in the world (N m).
    """

    geom: tuple[int, int]
    pos: np.ndarray
    normal: float
    mean: float
    force: np.ndarray
    torque: np.ndarray


@dataclass(frozen=True)
class Memory:
    """What the law keeps from step to step.

    Attributes:
        alpha: (ntree, 2) fraction of a step that each tree takes, for N and for T.
        contacts: the contacts of the last step.
        rows: force and slow mean of every other row, by type, id and index within these two.
    """

    alpha: np.ndarray
    contacts: tuple[RememberedContact, ...] = ()
    rows: Mapping[RowKey, tuple[float, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Result:
    """What the law gives at one state.

    Attributes:
        rows: the constraint rows.
        warm_forces: (nefc,) forces that the support pass started from (N or N m).
        support_forces: (nefc,) forces that the other passes started from (N or N m).
        forces: (nefc,) f (N or N m).
        qfrc_constraint: (nv,) J^T f (N or N m).
        qacc: (nv,) acceleration with the constraint forces (m/s^2 or rad/s^2).
        memory: what the next step will start from, once this one is committed.
    """

    rows: Rows
    warm_forces: np.ndarray
    support_forces: np.ndarray
    forces: np.ndarray
    qfrc_constraint: np.ndarray
    qacc: np.ndarray
    memory: Memory


# ------------------------------------------------------------------------- rows from MuJoCo C


def elliptic_model(mjm: mujoco.MjModel) -> mujoco.MjModel:
    """Copy a model so that mj_forward makes elliptic rows and spends no time on its own solver."""
    mjm = copy.copy(mjm)
    mjm.opt.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
    mjm.opt.iterations, mjm.opt.noslip_iterations = 1, 0
    # Else a state with a large acceleration would be put back to the model's start.
    mjm.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_AUTORESET
    return mjm


def rows_from_mujoco(mjm: mujoco.MjModel, mjd: mujoco.MjData) -> Rows:
    """Copy the rows of MuJoCo C, dense or sparse, after mj_forward on an elliptic model.

    Source: the efc_* arrays and mjContact; MuJoCo "Computation", "Constraint model".
    """
    J = reference.rows_from_mujoco(mjm, mjd).J
    contacts = tuple(
        Contact(
            rows=np.arange(contact.efc_address, contact.efc_address + contact.dim),
            friction=contact.friction[: contact.dim - 1].copy(),
            geom=(_side(contact, 0), _side(contact, 1)),
            trees=(_tree(mjm, contact, 0), _tree(mjm, contact, 1)),
            pos=contact.pos.copy(),
            frame=contact.frame.reshape(3, 3).copy(),
        )
        for contact in mjd.contact
        if contact.efc_address >= 0
    )
    K, B, impedance = mjd.efc_KBIP.reshape(-1, 4)[:, :3].T
    return Rows(
        J=J,
        D=mjd.efc_D.copy(),
        aref=mjd.efc_aref.copy(),
        vel=mjd.efc_vel.copy(),
        stiffness=K * impedance,
        damping=B.copy(),
        type=mjd.efc_type.copy(),
        id=mjd.efc_id.copy(),
        frictionloss=mjd.efc_frictionloss.copy(),
        trees=touched_trees(mjm, J, contacts),
        contacts=contacts,
        parents=parents_of(loose_trees(mjm), _heights(mjm, mjd), up(mjm), contacts),
    )


def _side(contact: mujoco._structs._MjContactList, side: int) -> int:
    """Name one side of a contact: its geom, or a number below -1 for a part of a flex."""
    if contact.geom[side] >= 0:
        return int(contact.geom[side])
    of_flex = -2 - (int(contact.flex[side]) << 24)
    if contact.vert[side] >= 0:
        return of_flex - int(contact.vert[side])
    return of_flex - (1 << 23) - int(contact.elem[side])


def _tree(mjm: mujoco.MjModel, contact: mujoco._structs._MjContactList, side: int) -> int:
    """Return the kinematic tree of one side of a contact, -1 if it has none or is a flex."""
    geom = contact.geom[side]
    return int(mjm.body_treeid[mjm.geom_bodyid[geom]]) if geom >= 0 else -1


def touched_trees(
    mjm: mujoco.MjModel, J: np.ndarray, contacts: tuple[Contact, ...] = ()
) -> np.ndarray:
    """Return which kinematic trees each row touches, (nefc, ntree) bool.

    Those of the dofs in the row; each row of a contact touches the trees of both bodies.
    """
    trees = np.zeros((len(J), mjm.ntree), dtype=bool)
    rows, dofs = np.nonzero(J)
    trees[rows, mjm.dof_treeid[dofs]] = True
    for contact in contacts:
        trees[contact.rows] = trees[contact.rows].any(axis=0)
        if not trees[contact.rows].any():  # of bodies that do not move against each other
            continue
        for tree in contact.trees:
            if tree >= 0:
                trees[contact.rows, tree] = True
    return trees


# --------------------------------------------------------------------- who stands on whom


def up(mjm: mujoco.MjModel) -> np.ndarray:
    """Return -gravity / |gravity|, (3,); zero if there is no gravity."""
    strength = np.linalg.norm(mjm.opt.gravity)
    if strength == 0 or mjm.opt.disableflags & mujoco.mjtDisableBit.mjDSBL_GRAVITY:
        return np.zeros(3)
    return -mjm.opt.gravity / strength


def loose_trees(mjm: mujoco.MjModel) -> np.ndarray:
    """Return which kinematic trees may stand on others, (ntree,) bool.

    Those whose only joint is a free one, without armature. None at all in a model with a flex or
    with an actuator that acts through a body's contacts.
    """
    loose = np.zeros(mjm.ntree, dtype=bool)
    if mjm.nflex or (mjm.actuator_trntype == mujoco.mjtTrn.mjTRN_BODY).any():
        return loose
    tree_of_joint = mjm.body_treeid[mjm.jnt_bodyid]
    for tree in range(mjm.ntree):
        joints = mjm.jnt_type[tree_of_joint == tree]
        free = len(joints) == 1 and joints[0] == mujoco.mjtJoint.mjJNT_FREE
        loose[tree] = free and not mjm.dof_armature[mjm.dof_treeid == tree].any()
    return loose


def _heights(mjm: mujoco.MjModel, mjd: mujoco.MjData) -> np.ndarray:
    """Return how high the centre of mass of each kinematic tree is, (ntree,) (m)."""
    roots = [np.flatnonzero(mjm.body_treeid == tree)[0] for tree in range(mjm.ntree)]
    return mjd.subtree_com[np.array(roots, dtype=int)] @ up(mjm)


def parents_of(
    loose: np.ndarray, heights: np.ndarray, up: np.ndarray, contacts: tuple[Contact, ...]
) -> np.ndarray:
    """Return the tree on which each tree stands, (ntree,) int, -1 where there is none.

    Of the lower loose trees whose contact pushes it up, the one with the smallest number.

    Args:
        loose: (ntree,) bool, the trees that count.
        heights: (ntree,) of their centres of mass along up (m).
        up: (3,) against gravity, a unit vector; zero if there is none, and nothing stands.
        contacts: every contact that has rows.
    """
    parents = np.full(len(loose), -1)
    for contact in contacts:
        if min(contact.trees) < 0 or not loose[list(contact.trees)].all():
            continue
        lower, higher = sorted(contact.trees, key=lambda tree: heights[tree])
        if not heights[lower] < heights[higher]:  # the same tree on both sides, too
            continue
        normal = contact.frame[0] if contact.trees == (lower, higher) else -contact.frame[0]
        if normal @ up > UPWARDS and (parents[higher] < 0 or lower < parents[higher]):
            parents[higher] = lower
    return parents


def stacks_of(parents: np.ndarray) -> np.ndarray:
    """Name the stack of each tree by the tree at its bottom, (ntree,) int, -1 if it is in none."""
    stacks = np.full(len(parents), -1)
    for tree in range(len(parents)):
        if parents[tree] < 0 and tree not in parents:
            continue
        root = tree
        while parents[root] >= 0:  # ends: the parent is lower
            root = parents[root]
        stacks[tree] = root
    return stacks


# ------------------------------------------------------------------ what the rows may exert


def into_cone(force: np.ndarray, friction: np.ndarray, normal: float) -> np.ndarray:
    """Shorten a contact's friction vector until sqrt(sum_k (f_k / mu_k)^2) <= f_n.

    Args:
        force: (condim - 1,) friction forces (N or N m).
        friction: (condim - 1,) mu_k.
        normal: f_n >= 0 (N).
    """
    length = np.linalg.norm(force / friction)
    return force if length <= normal else force * (normal / length)


def nearest_in_cone(
    force: np.ndarray, friction: np.ndarray, normal: float, weights: np.ndarray
) -> np.ndarray:
    """Return the nearest friction vector to one that a contact may not exert.

    It minimises sum_k weights_k (f_k - force_k)^2 over sqrt(sum_k (f_k / mu_k)^2) <= f_n. With
    g_k = f_k / mu_k and w_k = weights_k mu_k^2 that is a trust-region problem of diagonal Hessian:

        g_k = g0_k / (1 + lam / w_k)        with lam >= 0 such that |g| = f_n, or 0 if |g0| <= f_n.

    Newton's method for lam on 1 / |g| = 1 / f_n comes from below and never passes it (More and
    Sorensen 1983), so that what is missing after NEWTON_STEPS is a shortening. To shorten alone
    would be nearest only where all w_k are the same: a body that slides along no axis of its
    contact frame would come to rest elsewhere than MuJoCo's optimum.

    Args:
        force: (condim - 1,) friction forces asked for (N or N m).
        friction: (condim - 1,) mu_k.
        normal: f_n >= 0 (N).
        weights: (condim - 1,) of the metric (m/s^2 per N, or rad/s^2 per N m).
    """
    if normal <= 0:
        return np.zeros_like(force)
    w = weights * friction**2
    asked = force / friction
    lam = 0.0
    for _ in range(NEWTON_STEPS):
        g = asked / (1 + lam / w)
        square, slope = g @ g, g**2 @ (1 / (w + lam))
        if slope > 0:
            lam = max(0.0, lam + square / slope * (np.sqrt(square) - normal) / normal)
    return into_cone(friction * asked / (1 + lam / w), friction, normal)


def _admissible_normals(rows: Rows, forces: np.ndarray) -> np.ndarray:
    """Clamp contact normals and limits at zero from below; leave every other row."""
    return np.where(rows.unilateral, np.maximum(forces, 0), forces)


def _admissible_friction(
    rows: Rows, forces: np.ndarray, weights: np.ndarray | None = None
) -> np.ndarray:
    """Clip friction loss to its bound and the friction of contacts to their cones.

    Args:
        rows: the constraint rows.
        forces: (nefc,), whose normals are taken as they are (N or N m).
        weights: (nefc,) of the metric of the nearest point; radially if None.
    """
    bound = np.where(rows.friction_loss, rows.frictionloss, np.inf)
    forces = np.clip(forces, -bound, bound)
    for contact in rows.contacts:
        normal, tangent = contact.rows[0], contact.rows[1:]
        limits = contact.friction, forces[normal]
        forces[tangent] = (
            into_cone(forces[tangent], *limits)
            if weights is None
            else nearest_in_cone(forces[tangent], *limits, weights[tangent])
        )
    return forces


# ------------------------------------------------------------------------------------ memory


def _pair(contact: Contact) -> tuple[int, int]:
    """What a contact is between, in an order that does not depend on collision detection."""
    return min(contact.geom), max(contact.geom)


def _sign(contact: Contact) -> int:
    """1 or -1: a contact's force is that on its second geom, whichever that is."""
    return 1 if contact.geom == _pair(contact) else -1


def _row_keys(rows: Rows) -> dict[RowKey, int]:
    """Name the rows that belong to no contact: (type, id, index within these two) to row.

    The limits of a slide or hinge have one row, of the nearer one, and are named by that.
    """
    seen: Counter[tuple[int, int]] = Counter()
    keys = {}
    for row in np.flatnonzero(~(rows.normals | rows.contact_friction)):
        owner = int(rows.type[row]), int(rows.id[row])
        index = seen[owner]
        if owner[0] == _TYPE.mjCNSTR_LIMIT_JOINT:
            nonzero = rows.J[row][rows.J[row] != 0]
            index = int(len(nonzero) == 1 and nonzero[0] > 0)
        keys[*owner, index] = int(row)
        seen[owner] += 1
    return keys


def _recall(memory: Memory, rows: Rows) -> tuple[np.ndarray, np.ndarray]:
    """Find last step's forces and their slow means, (nefc,) each; zero on new rows.

    The force of a contact goes to the nearest one that the same two geoms have now.
    """
    forces, means = np.zeros(len(rows.type)), np.zeros(len(rows.type))
    for key, row in _row_keys(rows).items():
        forces[row], means[row] = memory.rows.get(key, (0.0, 0.0))
    for last in memory.contacts:
        heirs = [contact for contact in rows.contacts if _pair(contact) == last.geom]
        if not heirs:
            continue
        heir = min(
            heirs,
            key=lambda contact: (
                np.floor(np.linalg.norm(contact.pos - last.pos) / SAME_PLACE),
                *contact.pos,
            ),
        )
        # The rows of a contact: force along normal and tangents, then torque about the same.
        along = _sign(heir) * np.concatenate([heir.frame @ last.force, heir.frame @ last.torque])
        forces[heir.rows] += [last.normal, *along[1 : len(heir.rows)]]
        means[heir.rows[0]] += last.mean
    return forces, means


def _remember(rows: Rows, forces: np.ndarray, means: np.ndarray, alpha: np.ndarray) -> Memory:
    """Keep the forces of this step; the slow means follow them by MEAN_RATE."""
    means = means + MEAN_RATE * (forces - means)
    contacts = []
    for contact in rows.contacts:
        if not rows.trees[contact.rows[0]].any():
            continue
        along = np.zeros(6)
        along[1 : len(contact.rows)] = forces[contact.rows[1:]]
        normal = contact.rows[0]
        contacts.append(
            RememberedContact(
                geom=_pair(contact),
                pos=contact.pos,
                normal=float(forces[normal]),
                mean=float(means[normal]),
                force=_sign(contact) * contact.frame.T @ along[:3],
                torque=_sign(contact) * contact.frame.T @ along[3:],
            )
        )
    kept = {key: (float(forces[row]), float(means[row])) for key, row in _row_keys(rows).items()}
    return Memory(alpha, tuple(contacts), kept)


# -------------------------------------------------------------------------------------- the law


class _Descent:
    """The forces of one step, and the acceleration under them, on their way down the cost.

    Attributes:
        f: (nefc,) forces (N or N m).
        acc: (nv,) acceleration under them (m/s^2 or rad/s^2).
        alpha: (ntree, 2) fraction of a step that each tree takes.
    """

    def __init__(
        self,
        rows: Rows,
        M: np.ndarray,
        qfrc_smooth: np.ndarray,
        dof_treeid: np.ndarray,
        timestep: float,
        memory: Memory,
    ):
        self._rows, self._M, self._dof_treeid = rows, M, dof_treeid
        friction = rows.contact_friction | rows.friction_loss
        self._of_class = {NORMAL: ~friction, FRICTION: friction}
        self._ntouched = np.maximum(rows.trees.sum(axis=1), 1)

        damping = np.where(rows.unilateral, np.maximum(rows.damping, 1 / timestep), rows.damping)
        self._a = -rows.aref + (damping - rows.damping) * rows.vel
        self._R = 1 / rows.D
        # What gravity, actuators and the like do to each tree, as q^T M^-1 q.
        self._smooth = np.bincount(
            dof_treeid, qfrc_smooth * np.linalg.solve(M, qfrc_smooth), rows.trees.shape[1]
        )
        # Of the step's direction only: what the step is too long by, its length takes back.
        self._weights = (rows.J**2 / np.diag(M)).sum(axis=1) + self._R

        stiffness = np.where(friction, 0, rows.stiffness)
        lost = np.zeros_like(stiffness)
        np.divide(timestep * stiffness, damping, out=lost, where=stiffness > 0)
        last, self.means = _recall(memory, rows)
        kept = self.means + np.clip(1 - lost, 0, 1) * (last - self.means)
        kept = _admissible_normals(rows, np.where(friction, last, kept))
        self.f = _admissible_friction(rows, kept)
        self.acc = np.linalg.solve(M, qfrc_smooth + rows.J.T @ self.f)
        self.alpha = memory.alpha.copy()

    def support_pass(self) -> None:
        """Solve each stack of free bodies together, and go there as far as it pays.

        On its normals that push or should, and the friction of those of its contacts whose own step
        would hold, Newton's step z = -(A + R)^-1 r, clamped and clipped, of the exact length s.
        Stacks do not couple: no row that takes part touches two.
        """
        r, stacks = self._residual(), self._rows.stacks
        pushing = self._rows.normals & (stacks >= 0) & ((self.f > 0) | (r < 0))
        self._support(stacks, pushing, r)

    def friction_support_pass(self) -> None:
        """Likewise for that friction alone.

        A stack whose trees have contacts with other trees than these is left to the pass that
        follows.
        """
        rows, r = self._rows, self._residual()
        of_normal, of_tree = rows.stacks.copy(), stacks_of(rows.parents)
        crossed = {
            of_tree[tree]
            for contact in rows.contacts
            if len(set(contact.trees)) == 2 and of_normal[contact.rows[0]] < 0
            for tree in contact.trees
            if tree >= 0
        }
        of_normal[np.isin(of_normal, list(crossed))] = -1
        self._support(of_normal, np.zeros(len(r), dtype=bool), r)

    def _support(self, of_normal: np.ndarray, pushing: np.ndarray, r: np.ndarray) -> None:
        """Newton's step on chosen normals of every stack, and on the friction that holds."""
        rows, stacks, active = self._rows, np.full(len(r), -1), pushing.copy()
        for contact in rows.contacts:
            normal, tangent = contact.rows[0], contact.rows[1:]
            stacks[contact.rows] = of_normal[normal]
            asked = (self.f[tangent] - r[tangent] / self._weights[tangent]) / contact.friction
            holds = asked @ asked < self.f[normal] ** 2 and self.f[normal] > 0
            active[tangent] = of_normal[normal] >= 0 and holds
        allowed = self.f + self._solve_stacks(stacks, active, r)
        for contact in rows.contacts:
            normal, tangent = contact.rows[0], contact.rows[1:]
            allowed[normal] = max(allowed[normal], 0)
            if active[tangent].any():
                allowed[tangent] = into_cone(allowed[tangent], contact.friction, allowed[normal])
        self._move_stacks(stacks, allowed - self.f, r)

    def _solve_stacks(self, stacks: np.ndarray, active: np.ndarray, r: np.ndarray) -> np.ndarray:
        """-(A + R)^-1 r over the active rows of each stack, (nefc,); zero on all others."""
        rows, z = self._rows, np.zeros(len(r))
        for stack in np.unique(stacks[active]):
            of_stack = np.flatnonzero((stacks == stack) & active)
            J = rows.J[of_stack]
            hessian = J @ np.linalg.solve(self._M, J.T) + np.diag(self._R[of_stack])
            z[of_stack] = -np.linalg.solve(hessian, r[of_stack])
        return z

    def _move_stacks(self, stacks: np.ndarray, d: np.ndarray, r: np.ndarray) -> None:
        """Go along d, each stack to where its own cost is least: what takes part touches one."""
        for stack in np.unique(stacks[stacks >= 0]):
            self._go(np.where(stacks == stack, d, 0), r)

    def normal_passes(self, passes: int) -> None:
        """Step on normals, limits and equalities; all but the first along a conjugate direction."""
        before: tuple[np.ndarray, np.ndarray] | None = None
        for _ in range(passes):
            r = self._residual()
            z = self._towards(NORMAL, r)
            if before is not None:
                z = self._conjugate(z, r, *before)
            before = r, self._move(NORMAL, z, r)

    def clip_friction(self) -> None:
        """Shorten friction to what the new normal forces allow."""
        clipped = _admissible_friction(self._rows, self.f)
        self.acc = self.acc + self._acceleration(clipped - self.f)
        self.f = clipped

    def friction_pass(self) -> None:
        """Step on the friction of contacts and on friction loss."""
        r = self._residual()
        self._move(FRICTION, self._towards(FRICTION, r), r)

    def _residual(self) -> np.ndarray:
        """Return r = J acc + a + R f, (nefc,), the gradient of the cost (m/s^2 or rad/s^2)."""
        return self._rows.J @ self.acc + self._a + self._R * self.f

    def _towards(self, kind: int, r: np.ndarray) -> np.ndarray:
        """Direction to proj(f - r / (P + R)) on the rows of one class, zero elsewhere."""
        asked = self.f - r / self._weights
        allowed = (
            _admissible_normals(self._rows, asked)
            if kind == NORMAL
            # The cones are those of the normal forces as they are, not as another step of theirs.
            else _admissible_friction(
                self._rows, np.where(self._of_class[FRICTION], asked, self.f), self._weights
            )
        )
        return np.where(self._of_class[kind], allowed - self.f, 0)

    def _conjugate(
        self, z: np.ndarray, r: np.ndarray, r_before: np.ndarray, taken: np.ndarray
    ) -> np.ndarray:
        """Add to a direction on N what makes it conjugate to the last one, tree by tree.

        With y = r - r_before and sums over the rows of a tree, a row that touches n trees counting
        1/n, beta = -sum(z y) / sum(taken y): Hestenes and Stiefel's, where M^-1 couples no trees.
        A row takes the smallest beta of its trees. What has become slack does not go on.
        """
        rows = self._rows
        slack = rows.unilateral & (self.f + z <= 0)
        taken = np.where(slack, 0, taken)
        y = r - r_before
        down, along = self._per_tree(-z * y), self._per_tree(taken * y)
        beta = np.zeros_like(along)
        np.divide(down, along, out=beta, where=along > 1e-30)
        beta = self._smallest(np.clip(beta, 0, LARGEST_BETA))
        asked = self.f + z + beta * taken
        return np.where(self._of_class[NORMAL], _admissible_normals(rows, asked) - self.f, 0)

    def _move(self, kind: int, z: np.ndarray, r: np.ndarray) -> np.ndarray:
        """Go along z, alpha by alpha, to where the cost is least; return the step, (nefc,).

        The length is one number per world. Where the trees of a world would have gone further
        alone, or less far, their alpha learns it for the next time.
        """
        d = z * self._smallest(self.alpha[:, kind])
        s, qw = self._go(d, r)

        ntree = len(self.alpha)
        moved = np.bincount(self._dof_treeid, qw, ntree)
        curvatures = self._per_tree(self._R * d**2) + moved
        ratio = np.ones(ntree)
        # From a step that is mere rounding there is nothing to learn.
        learns = (curvatures > 0) & (moved > ROUNDING * self._smooth)
        np.divide(self._per_tree(-r * d), curvatures, out=ratio, where=learns)
        alpha = self.alpha[:, kind] * np.clip(ratio, *ALPHA_FACTORS)
        self.alpha[:, kind] = np.clip(alpha, SMALLEST_ALPHA, 1)
        return s * d

    def _go(self, d: np.ndarray, r: np.ndarray) -> tuple[float, np.ndarray]:
        """Go along d to where the cost is least; return how far, 0 to 1, and q w by dof, (nv,).

        The cost is sum(r d) s + 1/2 (d^T A d + sum(R d^2)) s^2, d^T A d = q . w, with q = J^T d and
        w = M^-1 q.
        """
        q, w = self._rows.J.T @ d, self._acceleration(d)
        curvature = q @ w + (self._R * d**2).sum()
        s = float(np.clip((-r * d).sum() / curvature, 0, 1)) if curvature > 0 else 0.0
        self.f = self.f + s * d
        self.acc = self.acc + s * w
        return s, q * w

    def _acceleration(self, forces: np.ndarray) -> np.ndarray:
        """M^-1 J^T f, (nv,)."""
        return np.linalg.solve(self._M, self._rows.J.T @ forces)

    def _per_tree(self, values: np.ndarray) -> np.ndarray:
        """Sum over the rows of each tree, (ntree,); a row that touches n trees counts 1/n."""
        return (values / self._ntouched) @ self._rows.trees

    def _smallest(self, values: np.ndarray) -> np.ndarray:
        """Smallest value of the trees that each row touches, (nefc,); zero if it touches none."""
        trees = self._rows.trees
        smallest = np.where(trees, values, np.inf).min(axis=1, initial=np.inf)
        return np.where(trees.any(axis=1), smallest, 0)


class WarmLaw:
    """The law of one model, with its memory.

    To evaluate it changes nothing; `commit` makes what was evaluated last the past of the next
    step.
    """

    def __init__(self, mjm: mujoco.MjModel, passes: int = 1):
        """Start without memory.

        Args:
            mjm: the model; its timestep is read whenever the law is evaluated.
            passes: on the normal forces per step, at least 1.
        """
        if passes < 1:
            raise ValueError(f"passes is {passes}, and must be at least 1")
        self.mjm, self.passes = mjm, passes
        self.forget()

    def forget(self) -> None:
        """Start again without memory."""
        self.memory = Memory(alpha=np.ones((self.mjm.ntree, 2)))
        self._evaluated: Memory | None = None

    def commit(self) -> None:
        """Keep the forces evaluated last for the next step."""
        if self._evaluated is None:
            raise ValueError("nothing was evaluated since the last commit")
        self.memory, self._evaluated = self._evaluated, None

    def accelerate(self, mjd: mujoco.MjData) -> Result:
        """Apply the law at the state and controls of mjd, which is left as it is.

        The acceleration is the one before the integrator's own terms.
        """
        mjm, mjd = elliptic_model(self.mjm), copy.copy(mjd)
        mujoco.mj_forward(mjm, mjd)
        M = reference.full_mass_matrix(mjm, mjd)
        return self.accelerate_rows(rows_from_mujoco(mjm, mjd), M, mjd.qfrc_smooth)

    def accelerate_rows(self, rows: Rows, M: np.ndarray, qfrc_smooth: np.ndarray) -> Result:
        """Apply the law over given rows.

        Args:
            rows: the constraint rows, elliptic.
            M: (nv, nv) mass matrix.
            qfrc_smooth: (nv,) every force but the constraints' (N or N m).
        """
        descent = _Descent(
            rows, M, qfrc_smooth, self.mjm.dof_treeid, self.mjm.opt.timestep, self.memory
        )
        warm_forces = descent.f
        descent.support_pass()
        support_forces = descent.f
        descent.normal_passes(self.passes)
        descent.clip_friction()
        descent.friction_support_pass()
        descent.friction_pass()
        self._evaluated = _remember(rows, descent.f, descent.means, descent.alpha)
        return Result(
            rows=rows,
            warm_forces=warm_forces,
            support_forces=support_forces,
            forces=descent.f,
            qfrc_constraint=rows.J.T @ descent.f,
            qacc=descent.acc,
            memory=self._evaluated,
        )


# ------------------------------------------------------------------------------------- stepped


class WarmReferenceSimulation(ReferenceSimulation):
    """One world under the warm law, integrated by MuJoCo C's own integrators."""

    def __init__(self, mjm: mujoco.MjModel, passes: int = 1):
        super().__init__(mjm, stiffness=np.nan, damping=np.nan)  # the other law's
        self.law = WarmLaw(mjm, passes)
        self._free = copy.copy(mjm)
        self._free.opt.disableflags |= (
            mujoco.mjtDisableBit.mjDSBL_CONSTRAINT | mujoco.mjtDisableBit.mjDSBL_AUTORESET
        )

    def step(self, n: int = 1) -> None:
        mjd = self._mjd
        for _ in itertools.repeat(None, n):
            result = self.law.accelerate(mjd)
            self.law.commit()
            applied = mjd.qfrc_applied.copy()
            mjd.qfrc_applied += result.qfrc_constraint
            mujoco.mj_step(self._free, mjd)
            mjd.qfrc_applied[:] = applied
            self._rows = len(result.forces)
        self.nstep += n

    def reset(self) -> None:
        super().reset()
        self.law.forget()
