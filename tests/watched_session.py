"""A session in MuJoCo's window that tells its simulation's state: a line of JSON per frame.

python tests/watched_session.py MODEL ENGINE[,ENGINE...] NWORLD
"""

import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mjsim import engines
from mjsim.view.display import Status
from mjsim.view.session import Session
from mjsim.view.window import Window


class Telling(Window):
    """MuJoCo's window, and what was simulated as it was shown."""

    def show(self, status: Status, moved: bool) -> None:
        super().show(status, moved)
        controls = self._controls
        state = {
            "wall": time.monotonic(),
            "nstep": simulations[0].nstep,
            "paused": controls.paused,
            "speed": controls.speed,
            "world": controls.world,
            "rows": dict(status.rows),
            "drawing": self._drawing(),
        }
        for field in ("time", "qpos", "qvel", "xfrc_applied", "mocap_pos"):
            state[field] = [
                simulation.read(field, world).tolist()
                for simulation in simulations
                for world in range(simulation.nworld)
            ]
        print(json.dumps(state), flush=True)

    def _drawing(self) -> list[int]:
        """What MuJoCo's own keys change."""
        option, camera = self._handle.opt, self._handle.cam
        groups = (option.geomgroup, option.sitegroup, option.jointgroup, option.tendongroup)
        return [
            *(int(flag) for flags in (option.flags, *groups) for flag in flags),
            *(option.label, option.frame, int(camera.type), camera.fixedcamid),
        ]


model, names, nworld = sys.argv[1:]
mjm = engines.load_model(model)
simulations = [
    engines.make_simulation(mjm, engine=name, nworld=int(nworld)) for name in names.split(",")
]
with Telling() as window:
    Session(simulations, window).run(lambda: False)
