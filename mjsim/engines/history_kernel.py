"""What `history.keep` does, as a kernel of the captured step."""

import warp as wp


@wp.func
def _copy(
    source: wp.array2d[float], world: int, at: int, lane: int, nlane: int, out: wp.array[float]
):
    for i in range(lane, source.shape[1], nlane):
        out[at + i] = source[world, i]


@wp.func
def _copy_state(
    time: wp.array[float],
    qpos: wp.array2d[float],
    qvel: wp.array2d[float],
    act: wp.array2d[float],
    ctrl: wp.array2d[float],
    world: int,
    lane: int,
    nlane: int,
    out: wp.array[float],
):
    if lane == 0:
        out[0] = time[world]
    nq, nv, na = qpos.shape[1], qvel.shape[1], act.shape[1]
    _copy(qpos, world, 1, lane, nlane, out)
    _copy(qvel, world, 1 + nq, lane, nlane, out)
    _copy(act, world, 1 + nq + nv, lane, nlane, out)
    _copy(ctrl, world, 1 + nq + nv + na, lane, nlane, out)


@wp.kernel(enable_backward=False)
def keep_kernel(
    every: int,
    nsparse: int,
    ndense: int,
    ahead: int,
    nlane: int,
    nstep: wp.array[int],
    diverged_step: wp.array[int],
    time: wp.array[float],
    qpos: wp.array2d[float],
    qvel: wp.array2d[float],
    act: wp.array2d[float],
    ctrl: wp.array2d[float],
    kept_out: wp.array3d[float],
):
    """As `keep`, for the state after nstep[0] + ahead steps; nlane threads share a world."""
    world, lane = wp.tid()
    step = nstep[0] + ahead
    if diverged_step[world] >= 0 and step > diverged_step[world]:
        return
    dense = kept_out[world, nsparse + step % ndense]
    _copy_state(time, qpos, qvel, act, ctrl, world, lane, nlane, dense)
    if step % every == 0:
        sparse = kept_out[world, step / every % nsparse]
        _copy_state(time, qpos, qvel, act, ctrl, world, lane, nlane, sparse)
