"""Small recordings to replay."""

from pathlib import Path

import mujoco

from mjsim.record.reader import Recorder

SWINGING = """
<mujoco model="swinging">
  <option timestep="0.01"/>
  <visual><quality shadowsize="256" offsamples="0"/></visual>
  <worldbody>
    <light pos="0 -2 4"/>
    <camera name="side" pos="0 -4 1" xyaxes="1 0 0 0 0 1"/>
    <geom type="plane" size="3 3 .1" rgba=".2 .3 .4 1"/>
    <body pos="0 0 1.6">
      <joint type="hinge" axis="0 1 0"/>
      <geom type="capsule" fromto="0 0 0 1.2 0 0" size=".15" rgba=".9 .2 .1 1"/>
    </body>
  </worldbody>
</mujoco>
"""


def record_swinging(path: Path, seconds: float, xml: str = SWINGING) -> Path:
    """A recording of every step of a pendulum on MuJoCo C; step k is at 0.01 k seconds."""
    mjm = mujoco.MjModel.from_xml_string(xml)
    mjd = mujoco.MjData(mjm)
    model = {"kind": "xml", "xml": xml, "assets": {}}
    with Recorder(path, model, {"engine": "mjc", "device": "cpu"}) as recorder:
        for step in range(round(seconds / mjm.opt.timestep) + 1):
            recorder.write(mjd, step)
            mujoco.mj_step(mjm, mjd)
    return path
