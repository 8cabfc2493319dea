"""One interface over three engines: MuJoCo C, MuJoCo Warp and the complementarity-free one.

    mjm = load_model("benchmark/test_data/primitives.xml")
    simulation = make_simulation(mjm, engine="comfree", device="cpu", nworld=1)
    simulation.step(1000)
    qpos = simulation.read("qpos", world=0)

Every script and benchmark goes through `make_simulation`, so that an engine is compared with
another on the same start, the same controls and the same checks. Warp is imported when an engine
that runs on it is made, and not before.
"""

from mjsim.choices import ENGINES as ENGINES
from mjsim.choices import LAWS as LAWS
from mjsim.choices import PASSES as PASSES
from mjsim.engines.factory import make_simulation as make_simulation
from mjsim.engines.history import RecentState as RecentState
from mjsim.engines.noise import ControlNoise as ControlNoise
from mjsim.engines.simulation import STATE_FIELDS as STATE_FIELDS
from mjsim.engines.simulation import VELOCITY_LIMIT as VELOCITY_LIMIT
from mjsim.engines.simulation import Counts as Counts
from mjsim.engines.simulation import Divergence as Divergence
from mjsim.engines.simulation import Health as Health
from mjsim.engines.simulation import Progress as Progress
from mjsim.engines.simulation import Report as Report
from mjsim.engines.simulation import Simulation as Simulation
from mjsim.engines.simulation import WorldCounts as WorldCounts
from mjsim.engines.simulation import log_warning as log_warning
from mjsim.model.files import REPOSITORY as REPOSITORY
from mjsim.model.files import find_file as find_file
from mjsim.model.files import initial_data as initial_data
from mjsim.model.files import load_model as load_model
