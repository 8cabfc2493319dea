"""Parts of the tests of buffers and arenas that grow."""

import mujoco
import numpy as np

from mjsim import engines

LANDING = """<mujoco><worldbody>
  <geom type="plane" size="5 5 .1"/>
  <body pos="0 0 .11"><freejoint/><geom type="box" size=".1 .1 .1"/></body>
</worldbody></mujoco>"""


def load(xml: str) -> mujoco.MjModel:
    return mujoco.MjModel.from_xml_string(xml)


def make(xml: str, engine: str, law: str | None = None, **settings) -> engines.Simulation:
    return engines.make_simulation(load(xml), engine, law=law, **settings)


def assert_same(simulation: engines.Simulation, expected: engines.Simulation) -> None:
    for field in engines.STATE_FIELDS:
        np.testing.assert_array_equal(simulation.read_all(field), expected.read_all(field))
    assert simulation.nstep == expected.nstep
    assert simulation.counts() == expected.counts()
    np.testing.assert_array_equal(
        simulation.world_counts().contacts, expected.world_counts().contacts
    )
    assert simulation.health() == expected.health()
