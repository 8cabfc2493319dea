"""The states that a simulation remembers, of the last second or of the one before a divergence."""

import mujoco
import numpy as np
import pytest
from scenes import UNSTABLE

from mjsim import engines
from mjsim.engines.history import MEMORY, NSPARSE, SPEC, RecentState, Rings, choose_rings

NOISE = engines.ControlNoise(0.5, seed=3)
FIELDS = ("time", "qpos", "qvel", "act", "ctrl")

EVERY_ENGINE = pytest.mark.parametrize(
    "engine",
    ["mjc", *(pytest.param(name, marks=pytest.mark.engine) for name in ("mjwarp", "comfree"))],
)


def make(engine: str, xml: str = UNSTABLE, **settings: object) -> engines.Simulation:
    settings = {"nworld": 2, "noise": NOISE, "remember": 1.0, **settings}
    return engines.make_simulation(mujoco.MjModel.from_xml_string(xml), engine, **settings)


def state(simulation: engines.Simulation, world: int) -> list[np.ndarray]:
    return [simulation.read(field, world) for field in FIELDS]


def check_recalled(recalled: list[RecentState], history: list[list[np.ndarray]]) -> None:
    for each in recalled:
        for field, values in zip(FIELDS, history[each.step], strict=True):
            np.testing.assert_array_equal(getattr(each, field), values)


# -------------------------------------------------------------------------------- which states


def test_rings_reach_back_for_the_time_asked_for() -> None:
    for timestep in (0.0001, 0.002, 0.004, 0.01, 0.05, 0.7):
        mjm = mujoco.MjModel.from_xml_string(UNSTABLE)
        mjm.opt.timestep = timestep
        rings = choose_rings(mjm, nworld=1, seconds=1.0, itemsize=4)
        assert rings.nsparse <= NSPARSE
        for last in (100_000, 100_001, 123_456):
            steps = [step for step, _ in rings.slots(last)]
            assert min(steps) <= last - 1.0 / timestep
            assert max(steps) == last


def test_every_state_has_a_slot_of_its_own() -> None:
    """What is in a slot after `last` steps is what was put there last."""
    for rings in (Rings(9, 57, 16), Rings(1, 3, 1), Rings(4, 2, 5)):
        filled: dict[int, int] = {}
        for last in range(200):
            for step, slot in rings.slots(last):
                if step == last:
                    filled[slot] = step
            assert {slot: step for step, slot in rings.slots(last)} == filled


def test_many_worlds_are_remembered_in_bounded_memory() -> None:
    mjm = engines.load_model("benchmark/test_data/humanoid/humanoid.xml")
    size = mujoco.mj_stateSize(mjm, SPEC)
    few, many = (choose_rings(mjm, nworld, 1.0, itemsize=4) for nworld in (64, 16384))
    assert few.nslots > 70
    assert 4 <= many.nslots < few.nslots
    assert 4 * many.nslots * size * 16384 <= MEMORY
    assert min(step for step, _ in many.slots(5000)) <= 4500


# ------------------------------------------------------------------------------ on each engine


@EVERY_ENGINE
def test_a_simulation_recalls_the_last_second_of_each_world(engine: str) -> None:
    steady = UNSTABLE.replace("1.0025e6", "100")
    simulation, reference = make(engine, steady), make(engine, steady, remember=0.0)
    assert simulation.recall() == []
    history: list[list[list[np.ndarray]]] = [[state(reference, world)] for world in (0, 1)]
    for _ in range(1300):
        reference.step()
        for world in (0, 1):
            history[world].append(state(reference, world))
    for n in (1, 2, 600, 1, 696):
        simulation.step(n)
        for world in (0, 1):
            recalled = simulation.recall(world)
            steps = [each.step for each in recalled]
            assert steps == sorted(set(steps))
            assert steps[0] <= max(0, simulation.nstep - 500)
            assert steps[-1] == simulation.nstep
            check_recalled(recalled, history[world])
    assert len(recalled) > 60
    assert steps[-16:] == list(range(1285, 1301))


@EVERY_ENGINE
def test_of_a_world_that_diverged_the_second_before_is_recalled_long_after(engine: str) -> None:
    simulation, reference = make(engine), make(engine, remember=0.0)
    simulation.write("qpos", [[0.0], [1e-9]])
    reference.write("qpos", [[0.0], [1e-9]])
    history = [state(reference, world=1)]
    simulation.step(1000)
    simulation.step(1000)
    divergence = simulation.health().divergence
    assert 20 < divergence.step < 900
    while reference.nstep < divergence.step:
        reference.step()
        history.append(state(reference, divergence.world))
    recalled = simulation.recall(divergence.world)
    assert recalled[-1].step == divergence.step
    assert not abs(recalled[-1].qvel) <= engines.VELOCITY_LIMIT
    assert abs(recalled[-2].qvel) <= engines.VELOCITY_LIMIT
    check_recalled(recalled[1:], history)
    other = simulation.recall(1 - divergence.world)
    assert other[-1].step != divergence.step


@EVERY_ENGINE
def test_a_world_that_does_not_diverge_goes_on_being_remembered(engine: str) -> None:
    simulation = make(engine, noise=engines.ControlNoise())
    simulation.write("qpos", [[0.0], [0.1]])
    simulation.step(2000)
    assert simulation.health().ndiverged == 1
    assert simulation.recall(0)[-1].step == 2000
    assert simulation.recall(1)[-1].step == simulation.health().divergence.step


def test_nothing_is_remembered_unless_asked_for() -> None:
    simulation = make("mjc", remember=0.0)
    simulation.step(10)
    assert simulation.recall() == []
