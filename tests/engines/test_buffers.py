"""The sizes that buffers begin with."""

from growing import LANDING, load

from mjsim import engines
from mjsim.engines.buffers import size_buffers


def test_buffers_are_sized_from_more_steps_where_those_are_cheap():
    """A ball that lands after 1.4 s."""
    ball = LANDING.replace("0 0 .11", "0 0 10")
    assert size_buffers(load(ball), 500)["nconmax"] == 32
    assert size_buffers(load(ball))["nconmax"] == 2 * 4 + 32


def test_buffers_are_sized_for_the_noise_of_the_run():
    """A finger that touches the wall only where noise drives it there."""
    finger = """<mujoco><worldbody>
      <geom type="box" size=".1 1 1" pos=".25 0 0"/>
      <body><joint name="x" type="slide" axis="1 0 0"/><geom size=".05"/></body>
    </worldbody><actuator><motor joint="x" ctrlrange="-50 50"/></actuator></mujoco>"""
    still = size_buffers(load(finger))
    driven = size_buffers(load(finger), noise=engines.ControlNoise(1.0, 3))
    assert still["njmax"] == 64 < driven["njmax"]
