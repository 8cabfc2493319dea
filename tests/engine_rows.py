"""The constraint rows of an engine's state, for the float64 reference of the law."""

import mujoco
import mujoco_warp
import numpy as np
import reference

import comfree_warp as cfwarp


def relative_error(value: np.ndarray, expected: np.ndarray) -> float:
    if not expected.size:
        return 0.0
    scale = np.abs(expected).max()
    return (
        float(np.abs(value - expected).max() / scale) if scale > 0 else float(np.abs(value).max())
    )


def engine_rows(
    mjm: mujoco.MjModel, m: cfwarp.Model, d: cfwarp.Data
) -> tuple[reference.Rows, np.ndarray]:
    """The rows of world 0 as MuJoCo Warp makes them, in float64, and the engine's force on each.

    The engine itself never makes the Jacobian of a contact.
    """
    n = int(d.nefc.numpy()[0])
    forces = d.efc.force.numpy()[0, :n].copy()
    ours = d.contact.efc_address.numpy().copy()
    mujoco_warp.make_constraint(m, d)
    assert d.nefc.numpy()[0] == n
    theirs, contacts = d.contact.efc_address.numpy(), slice(int(d.nacon.numpy()[0]))
    made = theirs[contacts] >= 0
    forces[theirs[contacts][made]] = d.efc.force.numpy()[0, ours[contacts][made]]
    sparse = m.is_sparse
    if sparse:
        J = np.zeros((n, mjm.nv))
        nnz, adr = d.efc.J_rownnz.numpy()[0], d.efc.J_rowadr.numpy()[0]
        colind, values = d.efc.J_colind.numpy()[0, 0], d.efc.J.numpy()[0, 0]
        for i in range(n):
            entries = slice(adr[i], adr[i] + nnz[i])
            np.add.at(J[i], colind[entries], values[entries])
    else:
        J = d.efc.J.numpy()[0, :n, : mjm.nv].astype(np.float64)
    cones = []
    if mjm.opt.cone == mujoco.mjtCone.mjCONE_ELLIPTIC:
        contact = d.contact
        for conid in range(int(d.nacon.numpy()[0])):
            dim = int(contact.dim.numpy()[conid])
            address = contact.efc_address.numpy()[conid, :dim]
            if dim > 1 and address[0] >= 0:
                friction = contact.friction.numpy()[conid, : dim - 1].astype(np.float64)
                mu = friction[0] / np.sqrt(mjm.opt.impratio)
                cones.append(reference.Cone(rows=address, friction=friction, mu=mu))
    efc = {name: getattr(d.efc, name).numpy()[0, :n] for name in ("type", "D", "pos", "margin")}
    rows = reference.Rows(
        J=J,
        D=efc["D"].astype(np.float64),
        phi=(efc["pos"] - efc["margin"]).astype(np.float64),
        vel=d.efc.vel.numpy()[0, :n].astype(np.float64),
        type=efc["type"],
        frictionloss=d.efc.frictionloss.numpy()[0, :n].astype(np.float64),
        cones=tuple(cones),
    )
    return rows, forces
