"""A loop of somebody's own: steps plain MuJoCo, streams it and records it.

python own_loop.py PORT FILE
"""

import sys

import mujoco

from mjsim.record import Recorder
from mjsim.stream import StreamServer

port, file = int(sys.argv[1]), sys.argv[2]
spec = mujoco.MjSpec.from_string("""
<mujoco>
  <worldbody>
    <body pos="0 0 1"><freejoint/><geom size=".1"/></body>
    <geom type="plane" size="1 1 .1"/>
  </worldbody>
</mujoco>""")
mjm = spec.compile()
mjd = mujoco.MjData(mjm)

with StreamServer(spec, port=port) as server, Recorder(file, mjm, hz=50) as recorder:
    for step in range(500):
        mujoco.mj_step(mjm, mjd)
        server.send_state(mjd, step)
        recorder.write(mjd, step)
    server.send_state(mjd, step, last=True)
