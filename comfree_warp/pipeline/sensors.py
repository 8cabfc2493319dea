"""MuJoCo Warp's sensors, with the limits of a joint and of a tendon of the same index told apart.

MuJoCo Warp finds the row of a limit by the index of its joint or tendon alone, so that a joint and
a tendon of the same index read each other's row (`docs/upstream/limit-sensors.md`). Within
`limits_told_apart` its sensors use the kernels below in place of three of its own.
"""

import contextlib
from collections.abc import Iterator

import mujoco
import mujoco_warp as mjw
import warp as wp

from comfree_warp.runtime.changes import shared_substitute
from comfree_warp.runtime.private import LIMIT_SENSORS

_LIMIT_JOINT = wp.constant(int(mujoco.mjtConstraint.mjCNSTR_LIMIT_JOINT))
_LIMIT_TENDON = wp.constant(int(mujoco.mjtConstraint.mjCNSTR_LIMIT_TENDON))
_JOINTLIMITPOS = wp.constant(int(mujoco.mjtSensor.mjSENS_JOINTLIMITPOS))
_JOINTLIMITVEL = wp.constant(int(mujoco.mjtSensor.mjSENS_JOINTLIMITVEL))
_JOINTLIMITFRC = wp.constant(int(mujoco.mjtSensor.mjSENS_JOINTLIMITFRC))

_write_scalar = LIMIT_SENSORS["_write_scalar"]


@wp.func
def _is_limit_of(
    sensor_type: int,
    sensor_objid: int,
    efc_type: int,
    efc_id: int,
    efcid: int,
    first: int,
    num: int,
) -> bool:
    """Whether a row is that of the limit that a sensor reads."""
    if efcid < first or efcid >= first + num or efc_id != sensor_objid:
        return False
    of_joint = (
        sensor_type == _JOINTLIMITPOS
        or sensor_type == _JOINTLIMITVEL
        or sensor_type == _JOINTLIMITFRC
    )
    return efc_type == wp.where(of_joint, _LIMIT_JOINT, _LIMIT_TENDON)


@wp.kernel(enable_backward=False)
def _limit_pos(
    # Model
    sensor_type: wp.array[int],
    sensor_datatype: wp.array[int],
    sensor_objid: wp.array[int],
    sensor_adr: wp.array[int],
    sensor_cutoff: wp.array[float],
    limit_sensor_adr: wp.array[int],
    # Data in
    ne_in: wp.array[int],
    nf_in: wp.array[int],
    nl_in: wp.array[int],
    efc_type_in: wp.array2d[int],
    efc_id_in: wp.array2d[int],
    efc_pos_in: wp.array2d[float],
    efc_margin_in: wp.array2d[float],
    # Data out
    sensordata_out: wp.array2d[float],
):
    """As MuJoCo Warp's kernel of that name."""
    worldid, efcid, i = wp.tid()
    sensorid = limit_sensor_adr[i]
    if _is_limit_of(
        sensor_type[sensorid],
        sensor_objid[sensorid],
        efc_type_in[worldid, efcid],
        efc_id_in[worldid, efcid],
        efcid,
        ne_in[worldid] + nf_in[worldid],
        nl_in[worldid],
    ):
        value = efc_pos_in[worldid, efcid] - efc_margin_in[worldid, efcid]
        _write_scalar(
            sensor_type,
            sensor_datatype,
            sensor_adr,
            sensor_cutoff,
            sensorid,
            value,
            sensordata_out[worldid],
        )


@wp.kernel(enable_backward=False)
def _limit_value(
    # Model
    sensor_type: wp.array[int],
    sensor_datatype: wp.array[int],
    sensor_objid: wp.array[int],
    sensor_adr: wp.array[int],
    sensor_cutoff: wp.array[float],
    limit_sensor_adr: wp.array[int],
    # Data in
    ne_in: wp.array[int],
    nf_in: wp.array[int],
    nl_in: wp.array[int],
    efc_type_in: wp.array2d[int],
    efc_id_in: wp.array2d[int],
    efc_value_in: wp.array2d[float],
    # Data out
    sensordata_out: wp.array2d[float],
):
    """As MuJoCo Warp's `_limit_vel` and `_limit_frc`, which differ in the array alone."""
    worldid, efcid, i = wp.tid()
    sensorid = limit_sensor_adr[i]
    if _is_limit_of(
        sensor_type[sensorid],
        sensor_objid[sensorid],
        efc_type_in[worldid, efcid],
        efc_id_in[worldid, efcid],
        efcid,
        ne_in[worldid] + nf_in[worldid],
        nl_in[worldid],
    ):
        _write_scalar(
            sensor_type,
            sensor_datatype,
            sensor_adr,
            sensor_cutoff,
            sensorid,
            efc_value_in[worldid, efcid],
            sensordata_out[worldid],
        )


@contextlib.contextmanager
def limits_told_apart() -> Iterator[None]:
    """Within this context MuJoCo Warp's sensors of limits read the row of their own object.

    Where MuJoCo Warp has no such kernels, its sensors are left as they are; see `private.py`.
    """
    if not LIMIT_SENSORS.usable:
        yield
        return
    kernels = {"_limit_pos": _limit_pos, "_limit_vel": _limit_value, "_limit_frc": _limit_value}
    with shared_substitute(LIMIT_SENSORS.owner("_limit_pos"), **kernels):
        yield


def sensor_pos(m: mjw.Model, d: mjw.Data) -> None:
    """Sensors that depend on positions. As `mujoco_warp.sensor_pos`."""
    with limits_told_apart():
        mjw.sensor_pos(m, d)


def sensor_vel(m: mjw.Model, d: mjw.Data) -> None:
    """Sensors that depend on velocities. As `mujoco_warp.sensor_vel`."""
    with limits_told_apart():
        mjw.sensor_vel(m, d)


def sensor_acc(m: mjw.Model, d: mjw.Data, skip_rne_postconstraint: bool = False) -> None:
    """Sensors that depend on accelerations and forces. As `mujoco_warp.sensor_acc`."""
    with limits_told_apart():
        mjw.sensor_acc(m, d, skip_rne_postconstraint)
