"""Complementarity-free contact on NVIDIA Warp: MuJoCo Warp's pipeline without its solver.

Code written for `mujoco_warp` runs with the import changed:

    import comfree_warp as cfwarp

    m = cfwarp.put_model(mjm, comfree_stiffness=0.2, comfree_damping=0.001)
    d = cfwarp.put_data(mjm, mjd, nworld=1024)
    cfwarp.step(m, d)

Every public name of `mujoco_warp` is here too; the ones defined below replace their namesakes.
"""

from comfree_warp.runtime.collector import collector_paused as _collector_paused

with _collector_paused():
    from mujoco_warp import *  # noqa: F403

    from comfree_warp._version import __version__ as __version__
    from comfree_warp.collision.broadphase import collision as collision
    from comfree_warp.io import make_data as make_data
    from comfree_warp.io import put_data as put_data
    from comfree_warp.io import put_model as put_model
    from comfree_warp.io import reset_data as reset_data
    from comfree_warp.io import reset_data_keyframe as reset_data_keyframe
    from comfree_warp.pipeline.forces import constraint_forces as constraint_forces
    from comfree_warp.pipeline.sensors import sensor_acc as sensor_acc
    from comfree_warp.pipeline.sensors import sensor_pos as sensor_pos
    from comfree_warp.pipeline.sensors import sensor_vel as sensor_vel
    from comfree_warp.pipeline.step import discrete as discrete
    from comfree_warp.pipeline.step import euler as euler
    from comfree_warp.pipeline.step import forward as forward
    from comfree_warp.pipeline.step import fwd_acceleration as fwd_acceleration
    from comfree_warp.pipeline.step import fwd_position as fwd_position
    from comfree_warp.pipeline.step import fwd_velocity as fwd_velocity
    from comfree_warp.pipeline.step import implicit as implicit
    from comfree_warp.pipeline.step import inverse as inverse
    from comfree_warp.pipeline.step import make_constraint as make_constraint
    from comfree_warp.pipeline.step import rungekutta4 as rungekutta4
    from comfree_warp.pipeline.step import solve as solve
    from comfree_warp.pipeline.step import step as step
    from comfree_warp.pipeline.step import step1 as step1
    from comfree_warp.pipeline.step import step2 as step2
    from comfree_warp.runtime.graph import Graph as Graph
    from comfree_warp.runtime.graph import capture as capture
    from comfree_warp.runtime.private import mujoco_warp_src as _src  # noqa: F401
    from comfree_warp.types import Data as Data
    from comfree_warp.types import Model as Model
