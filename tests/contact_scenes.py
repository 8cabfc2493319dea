"""Models in dense contact, and their contacts in another order."""

import dataclasses

import numpy as np

import comfree_warp as cfwarp

# Bodies of every condim on a moving belt, one of them hinged to another, all in contact.
BELT = """
<mujoco>
  <option timestep="0.002" cone="{cone}" impratio="3"/>
  <worldbody>
    <geom type="plane" size="3 3 .1" surfacevel="0.5 -0.2 0 0 0 0.7" condim="1"/>
    <body pos="0 0 .09"><freejoint/><geom type="box" size=".1 .1 .1" condim="1"/></body>
    <body pos="1 0 .09" euler="3 0 0"><freejoint/><geom type="box" size=".1 .1 .1" condim="3"/>
      <body pos=".25 0 0"><joint axis="0 1 0"/>
        <geom type="sphere" size=".105" condim="4" friction="0.4 0.03 0.01" margin="0.01"/></body>
    </body>
    <body pos="0 1 .095"><freejoint/>
      <geom size=".1" condim="6" solimp="0.8 0.95 0.02 0.3 3" friction="0.6 0.02 0.005"/></body>
    <body pos="0 1.02 .27"><freejoint/><geom size=".1" condim="6"/></body>
  </worldbody>
</mujoco>
"""

# A tree on a body that does not move, a mocap body, a body without a joint inside a tree.
HANGING = """
<mujoco>
  <option timestep="0.002" cone="{cone}" jacobian="{jacobian}"/>
  <worldbody>
    <geom type="plane" size="3 3 .1"/>
    <body pos="0 0 .2">
      <body pos="0 0 .05"><joint type="slide" axis="0 0 1"/><joint axis="0 1 0"/>
        <geom type="box" size=".1 .1 .1" pos="0 0 -.17"/>
        <body pos=".2 0 0"><geom size=".05"/>
          <body pos="0 .1 0"><joint axis="1 0 0"/><geom type="capsule" size=".04 .1"/></body>
        </body>
      </body>
    </body>
    <body mocap="true" pos="1 0 .1"><geom type="box" size=".1 .1 .1"/></body>
    <body pos="1 0 .29"><freejoint/><geom type="box" size=".1 .1 .1" condim="6"/></body>
    <body pos="1.15 0 .35"><freejoint/><geom size=".08" condim="4"/></body>
  </worldbody>
</mujoco>
"""


def shuffle_contacts(d: cfwarp.Data, seed: int) -> None:
    """Put the contacts into another order, as CUDA does from run to run."""
    ncon = int(d.nacon.numpy()[0])
    order = np.random.default_rng(seed).permutation(ncon)
    for field in dataclasses.fields(d.contact):
        array = getattr(d.contact, field.name)
        if array.size:
            values = array.numpy().copy()
            values[:ncon] = values[:ncon][order]
            array.assign(values)
