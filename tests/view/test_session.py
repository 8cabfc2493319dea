"""A session: what it makes of what a person asks for; without a window."""

import itertools
import re
from collections.abc import Callable, Sequence

import mujoco
import numpy as np
import pytest

from mjsim import engines
from mjsim.view.controls import Controls
from mjsim.view.display import Display, Status
from mjsim.view.session import Session

TIMESTEP = 0.002

BALL = """
<mujoco>
  <option timestep="0.002" gravity="0 0 0"/>
  <worldbody>
    <body mocap="true" pos="2 0 0"><geom size=".1" contype="0" conaffinity="0"/></body>
    <body><freejoint/><geom size=".4" mass="1" contype="0" conaffinity="0"/></body>
  </worldbody>
  <keyframe><key time="1" qpos=".1 0 0 1 0 0 0" qvel="0 0 .25 0 0 0" mpos="2 0 1"/></keyframe>
</mujoco>
"""
# A spring that is a little too stiff for its timestep: it takes some frames to diverge.
EXPLODING = """
<mujoco>
  <option timestep="0.002" gravity="0 0 0"><flag eulerdamp="disable"/></option>
  <worldbody>
    <body><joint type="slide" stiffness="1.001e6"/><geom size=".1" mass="1"/></body>
  </worldbody>
  <keyframe><key qpos="0.1"/></keyframe>
</mujoco>
"""


# ---------------------------------------------------------------------------------- the session


class Script(Display):
    """A person of whom each frame is known: what they do after it, and what they saw."""

    def __init__(self, *acts: Callable[["Script"], object]) -> None:
        self._acts = itertools.chain(acts, itertools.repeat(None))
        self.over = False
        self.statuses: list[Status] = []
        self.qpos: list[np.ndarray] = []
        self.loaded: list[tuple[int, tuple[str, ...]]] = []

    @property
    def closed(self) -> bool:
        return self.over

    def load(
        self,
        mjm: mujoco.MjModel,
        mjds: Sequence[mujoco.MjData],
        controls: Controls,
        labels: Sequence[str] = (),
    ) -> None:
        self.mjds, self.controls = mjds, controls
        self.loaded.append((len(mjds), tuple(labels)))

    def show(self, status: Status, moved: bool) -> None:
        self.statuses.append(status)
        self.qpos.append(self.mjds[0].qpos.copy())
        act = next(self._acts)
        if act:
            act(self)

    def close(self) -> None: ...


def wait(frames: int) -> list[None]:
    return [None] * frames


def end(script: Script) -> None:
    script.over = True


def simulate(xml: str = BALL, engine: str = "mjc", nworld: int = 1) -> engines.Simulation:
    return engines.make_simulation(
        mujoco.MjModel.from_xml_string(xml), engine=engine, nworld=nworld
    )


def watch(simulation: engines.Simulation, *acts: Callable[[Script], object] | None) -> Script:
    """A session until a person who does this, frame after frame, has done it all."""
    script = Script(*acts, end)
    session = Session([simulation], script)
    session.run(lambda: False)
    return script


def test_the_state_shown_is_the_state_simulated() -> None:
    simulation = simulate()
    script = watch(simulation, *wait(10))
    assert simulation.nstep > 0
    np.testing.assert_array_equal(script.mjds[0].qpos, simulation.read("qpos"))
    assert script.mjds[0].time == simulation.read("time")


def test_a_pause_stops_the_state_and_a_step_is_one_step() -> None:
    simulation = simulate()
    steps: list[int] = []
    watch(
        simulation,
        *wait(5),
        lambda script: script.controls.toggle_pause(),
        *[lambda script: steps.append(simulation.nstep)] * 5,
        lambda script: script.controls.step(),
        *[lambda script: steps.append(simulation.nstep)] * 3,
        lambda script: script.controls.toggle_pause(),
        *wait(5),
    )
    before = steps[0]
    assert before > 0
    assert steps == [before] * 5 + [before + 1] * 3
    assert simulation.nstep > before + 1


def test_a_reset_while_paused_shows_keyframe_0() -> None:
    script = watch(
        simulate(),
        *wait(5),
        lambda script: script.controls.toggle_pause(),
        lambda script: script.controls.reset(),
        *wait(2),
    )
    assert script.qpos[4][2] > 0.0
    np.testing.assert_allclose(script.qpos[-1], [0.1, 0, 0, 1, 0, 0, 0])
    assert script.statuses[-1].rows["time"] == "1.000 s"
    assert script.controls.paused


def test_it_ends_after_nsteps_through_all_resets() -> None:
    simulation, script = simulate(), Script(*wait(3), lambda script: script.controls.reset())
    session = Session([simulation], script)
    session.run(lambda: False, nsteps=100)
    assert session.nstep == 100
    assert 0 < simulation.nstep < 100


def test_each_world_can_be_shown() -> None:
    simulation = simulate(nworld=3)
    simulation.write("qpos", [[world, 0, 0, 1, 0, 0, 0] for world in range(3)])
    script = watch(
        simulation,
        lambda script: script.controls.toggle_pause(),
        lambda script: script.controls.change_world(1),
        lambda script: script.controls.change_world(1),
        lambda script: script.controls.change_world(1),
        *wait(1),
    )
    assert [qpos[0] for qpos in script.qpos[1:]] == [0, 1, 2, 0, 0]
    assert [status.rows["world"] for status in script.statuses[2:4]] == [
        "1 of 0 to 2",
        "2 of 0 to 2",
    ]


def test_one_world_has_nothing_to_choose_from() -> None:
    script = watch(simulate(), *wait(1))
    assert "world" not in script.controls.offers
    assert "world" not in script.statuses[-1].rows


def pushing(script: Script) -> None:
    """What the mouse does in MuJoCo's window."""
    script.mjds[0].xfrc_applied[2] = [0, 5, 0, 0, 0, 0]


def letting_go(script: Script) -> None:
    script.mjds[0].xfrc_applied[:] = 0.0


@pytest.mark.engine
@pytest.mark.parametrize("engine", engines.ENGINES)
def test_a_push_moves_the_shown_world_alone_and_ends_with_the_mouse(engine: str) -> None:
    simulation = simulate(engine=engine, nworld=2)
    speeds: list[float] = []
    watch(
        simulation,
        lambda script: script.controls.change_world(1),
        *wait(1),
        *[pushing] * 10,
        letting_go,
        *[lambda script: speeds.append(float(simulation.read("qvel", 1)[1]))] * 10,
    )
    assert simulation.read("qvel", 1)[1] > 0.1
    assert simulation.read("qvel", 0)[1] == 0.0
    assert speeds[1] == pytest.approx(speeds[-1], rel=1e-5)
    assert not simulation.read("xfrc_applied", 1).any()


def test_a_push_acts_on_single_steps() -> None:
    simulation = simulate()
    watch(
        simulation,
        lambda script: script.controls.toggle_pause(),
        pushing,
        lambda script: script.controls.step(),
        *wait(1),
    )
    # A force of 5 N on 1 kg, for one step.
    assert simulation.read("qvel")[1] == pytest.approx(5.0 * TIMESTEP)


def test_a_world_that_is_no_longer_shown_is_let_go() -> None:
    simulation = simulate(nworld=2)
    watch(
        simulation,
        *wait(1),
        pushing,
        lambda script: script.controls.change_world(1),
        *wait(2),
    )
    assert not simulation.read("xfrc_applied", 0).any()
    assert not simulation.read("xfrc_applied", 1).any()


def test_a_push_is_felt_no_faster_than_in_real_time() -> None:
    """MuJoCo's spring to the mouse explodes where it is told of the body too seldom."""
    script = watch(
        simulate(), *[lambda script: script.controls.change_speed(1)] * 3, pushing, *wait(2)
    )
    assert script.statuses[3].rows["speed"].startswith("8x")
    assert script.statuses[5].rows["speed"].startswith("1x")


def test_a_mocap_body_is_where_the_mouse_puts_it() -> None:
    simulation = simulate()

    def move(script: Script) -> None:
        script.mjds[0].mocap_pos[0] = [2, 0, 3]

    script = watch(simulation, *wait(1), move, *wait(3))
    np.testing.assert_allclose(simulation.read("mocap_pos")[0], [2, 0, 3])
    np.testing.assert_allclose(script.mjds[0].xpos[1], [2, 0, 3])


def test_a_divergence_is_in_plain_sight_pauses_and_a_reset_goes_on() -> None:
    simulation = simulate(EXPLODING)
    steps: list[int] = []
    script = watch(
        simulation,
        *wait(60),
        *[lambda script: steps.append(simulation.nstep)] * 2,
        lambda script: script.controls.reset(),
        *wait(1),
        *[lambda script: steps.append(simulation.nstep)] * 2,
    )
    (row,) = [value for name, value in script.statuses[60].rows.items() if "DIVERGED" in name]
    assert re.search(r"world 0 diverged at step \d+ \(t = ", row)
    assert steps[0] == steps[1]  # paused
    assert steps[2] < steps[3] < steps[0]  # goes on, from the start
    assert not any("DIVERGED" in name for name in script.statuses[-1].rows)
    assert all(np.isfinite(qpos).all() for qpos in script.qpos)


@pytest.mark.engine
def test_buffers_that_are_too_small_are_told() -> None:
    mjm = mujoco.MjModel.from_xml_path(
        str(engines.REPOSITORY / "benchmark/test_data/humanoid/humanoid.xml")
    )
    simulation = engines.make_simulation(
        mjm, engine="comfree", njmax=3, nconmax=2, fixed_buffers=True
    )
    script = watch(simulation, *wait(100))
    told = " ".join(value for name, value in script.statuses[-1].rows.items() if "WARN" in name)
    assert "raise --nconmax" in told
    assert "raise --njmax" in told


@pytest.mark.engine
def test_buffers_grow_in_front_of_a_person_too() -> None:
    mjm = mujoco.MjModel.from_xml_path(
        str(engines.REPOSITORY / "benchmark/test_data/humanoid/humanoid.xml")
    )
    told: list[str] = []
    simulation = engines.make_simulation(
        mjm, engine="comfree", njmax=3, nconmax=2, report=told.append
    )
    script = watch(simulation, *wait(100))
    assert told
    assert not any("WARN" in name for name in script.statuses[-1].rows)
    np.testing.assert_allclose(script.mjds[0].qpos, simulation.read("qpos"))


def test_a_run_that_cannot_go_on_is_paused_and_says_why() -> None:
    boxes = "".join(
        f'<body pos="0 0 {0.2 + 0.3 * i}"><freejoint/><geom type="box" size=".1 .1 .1"/></body>'
        for i in range(8)
    )
    mjm = mujoco.MjModel.from_xml_string(
        f'<mujoco><size memory="20K"/><worldbody><geom type="plane" size="1 1 .1"/>{boxes}'
        "</worldbody></mujoco>"
    )
    simulation = engines.make_simulation(mjm, "mjc", fixed_buffers=True)
    script = watch(simulation, *wait(60), lambda script: script.controls.reset(), *wait(2))
    before, after = script.statuses[60], script.statuses[-1]
    assert "arena of 20,480 bytes, which cannot grow" in before.notice
    assert before.rows["speed"].startswith("paused")
    assert after.notice == ""


def test_engines_beside_each_other_take_the_same_steps_and_pushes() -> None:
    simulations = [simulate(), simulate()]
    script = Script(*wait(2), *[pushing] * 3, *wait(3), end)
    Session(simulations, script).run(lambda: False)
    assert script.loaded == [(2, ("mjc", "mjc"))]
    assert simulations[0].nstep == simulations[1].nstep > 0
    for field in ("qpos", "qvel", "xfrc_applied"):
        np.testing.assert_array_equal(*(each.read(field) for each in simulations))
    assert simulations[1].read("qvel")[1] > 0.0
    np.testing.assert_array_equal(script.mjds[0].qpos, script.mjds[1].qpos)
