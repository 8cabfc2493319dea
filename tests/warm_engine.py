"""The engine's own contacts as MuJoCo C sees them, for the float64 reference of the warm law."""

import mujoco
import numpy as np
import reference
import warm_reference

import comfree_warp as cfwarp

_CONTACT = ("pair", "pos", "worldid", "normal", "friction", "torque")


def evaluated(mjm: mujoco.MjModel, d: cfwarp.Data) -> mujoco.MjData:
    """World 0 of the engine in float64: MuJoCo C's dynamics and rows, over the engine's contacts.

    Args:
      mjm: the model.
      d: after `forward` or `constraint_forces`, before the step is integrated.
    """
    mjd = mujoco.MjData(mjm)
    cfwarp.get_data_into(mjd, mjm, d)
    mjm = warm_reference.elliptic_model(mjm)
    if not mjm.nflex:  # then MuJoCo Warp leaves them as they were in memory
        mjd.contact.flex[:] = mjd.contact.elem[:] = mjd.contact.vert[:] = -1
    for stage in (
        mujoco.mj_kinematics,
        mujoco.mj_comPos,
        mujoco.mj_flex,
        mujoco.mj_tendon,
        mujoco.mj_makeM,
        mujoco.mj_factorM,
        mujoco.mj_makeConstraint,
        mujoco.mj_fwdVelocity,
    ):
        stage(mjm, mjd)
    return mjd


def reference_step(
    law: warm_reference.WarmLaw, mjm: mujoco.MjModel, d: cfwarp.Data
) -> warm_reference.Result:
    """What the reference says of the state and contacts that the engine has just evaluated."""
    mjd = evaluated(mjm, d)
    rows = warm_reference.rows_from_mujoco(mjm, mjd)
    M = reference.full_mass_matrix(mjm, mjd)
    return law.accelerate_rows(rows, M, d.qfrc_smooth.numpy()[0].astype(np.float64))


def remembered(mjm: mujoco.MjModel, d: cfwarp.Data) -> warm_reference.Memory:
    """What the engine keeps of the last step in world 0, as the reference keeps it."""
    warm = d.warm
    contacts = []
    of_world = {name: getattr(warm, f"mem_{name}").numpy() for name in _CONTACT}
    for i in range(warm.mem_count.numpy()[0]):
        kept = {name: values[i] for name, values in of_world.items()}
        if kept["worldid"] < 0:  # it did not push
            continue
        contacts.append(
            warm_reference.RememberedContact(
                geom=tuple(int(side) for side in kept["pair"]),
                pos=kept["pos"].astype(np.float64),
                normal=float(kept["normal"][0]),
                mean=float(kept["normal"][1]),
                force=kept["friction"].astype(np.float64),
                torque=kept["torque"].astype(np.float64),
            )
        )
    slots, rows = warm.mem_row.numpy()[0].astype(np.float64), {}
    types = mujoco.mjtConstraint
    adr, num = warm.eq_slotadr.numpy(), warm.eq_slotnum.numpy()
    for eq in range(mjm.neq):
        for i in range(num[eq]):
            rows[int(types.mjCNSTR_EQUALITY), eq, i] = tuple(slots[adr[eq] + i])
    first = int(num.sum())
    for kind, count, sides in (
        (types.mjCNSTR_FRICTION_DOF, mjm.nv, 1),
        (types.mjCNSTR_FRICTION_TENDON, mjm.ntendon, 1),
        (types.mjCNSTR_LIMIT_JOINT, mjm.njnt, 2),
        (types.mjCNSTR_LIMIT_TENDON, mjm.ntendon, 1),
    ):
        for i in range(count):
            for side in range(sides):
                rows[int(kind), i, side] = tuple(slots[first + sides * i + side])
        first += sides * count
    return warm_reference.Memory(
        warm.mem_alpha.numpy()[0].astype(np.float64), tuple(contacts), rows
    )
