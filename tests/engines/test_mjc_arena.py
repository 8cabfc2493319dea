"""The arena of MuJoCo C, in which contacts and rows lie: it grows, or what is lost is told."""

import numpy as np
import pytest
from growing import assert_same, load, make

from mjsim.engines.buffers import size_buffers
from mjsim.errors import OutOfRoomError
from mjsim.model.arena import with_ample_arena, with_arena


def pile(arena: str, condim: int = 3) -> str:
    boxes = "".join(
        f'<body pos="{i % 5 * 0.3} {i // 5 * 0.3} {0.3 + 0.15 * i}"><freejoint/>'
        f'<geom type="box" size=".1 .1 .1" condim="{condim}"/></body>'
        for i in range(25)
    )
    return (
        f'<mujoco><size memory="{arena}"/><worldbody>'
        f'<geom type="plane" size="5 5 .1"/>{boxes}</worldbody></mujoco>'
    )


@pytest.mark.parametrize(
    ("arena", "condim", "times"), [("16K", 6, 5), ("30K", 3, 3), ("144K", 3, 1)]
)
def test_an_arena_that_is_too_small_grows(arena, condim, times):
    """At 144 kB MuJoCo warns of lost rows and goes on; with less it ends the step by an error."""
    small, large = (
        make(pile(size, condim), "mjc", nworld=3, remember=0.5) for size in (arena, "20M")
    )
    for simulation in (small, large):
        simulation.write("qvel", simulation.read("qvel", 1) + 0.3, world=1)
        for n in (1, 1, 300, 1, 497):
            simulation.step(n)
    assert len(small.grown) >= times
    assert f"an arena of {load(pile(arena)).narena:,} bytes (now " in small.grown[0]
    assert not large.grown
    assert_same(small, large)
    for ours, theirs in zip(small.recall(1), large.recall(1), strict=True):
        np.testing.assert_array_equal(ours.qpos, theirs.qpos)


def test_a_fixed_arena_loses_contacts_and_no_steps():
    """A rollout leaves a world alone after a warning: of 800 steps 407 were taken."""
    simulation = make(pile("172K"), "mjc", fixed_buffers=True)
    simulation.step(800)
    assert simulation.nstep == 800
    assert simulation.read("time") == pytest.approx(800 * 0.002)
    health = simulation.health()
    assert health.lost
    assert "MuJoCo's arena is full" in health.overflow[0]


def test_a_fixed_arena_in_which_no_step_can_be_computed_ends_the_run():
    simulation = make(pile("30K"), "mjc", fixed_buffers=True)
    with pytest.raises(OutOfRoomError, match="arena of 30,720 bytes, which cannot grow: it is fi"):
        simulation.step(800)
    assert simulation.read("time") == pytest.approx(simulation.nstep * 0.002)
    assert simulation.health().lost


def test_a_model_with_another_arena_is_the_same_otherwise():
    mjm = load(pile("1M"))
    other = with_arena(mjm, 3_000_000)
    assert other.narena == 3_000_000
    assert mjm.narena == 1 << 20
    np.testing.assert_array_equal(other.qpos0, mjm.qpos0)
    np.testing.assert_array_equal(other.body_inertia, mjm.body_inertia)
    assert with_ample_arena(mjm).narena > 10 * mjm.narena


@pytest.mark.engine
def test_buffers_are_sized_in_a_larger_arena_than_the_model_has():
    assert size_buffers(load(pile("30K")))["nconmax"] == size_buffers(load(pile("20M")))["nconmax"]
