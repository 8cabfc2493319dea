"""Simulated time against wall time."""

import numpy as np
import pytest

from mjsim import pacing
from mjsim.pacing import MAX_PIECE, Pacer, Rates, RealTime
from mjsim.view.controls import SPEEDS

TIMESTEP = 0.002


@pytest.mark.parametrize("speed", SPEEDS)
@pytest.mark.parametrize("timestep", [0.0005, 0.002, 0.03])
def test_simulated_time_follows_wall_time_times_the_speed(speed: float, timestep: float) -> None:
    pacer = Pacer(timestep)
    frames = np.random.default_rng(0).uniform(0.01, 0.03, 600)
    taken = sum(pacer.steps(elapsed, speed, 1e-9) for elapsed in frames)
    assert taken * timestep == pytest.approx(frames.sum() * speed, abs=timestep)


def test_a_slow_engine_is_given_no_more_than_it_can_do_between_two_pictures() -> None:
    pacer = Pacer(TIMESTEP)
    step_seconds = 0.005  # 2.5 times slower than real time
    taken = [pacer.steps(0.04, 1.0, step_seconds) for _ in range(50)]
    assert set(taken) == {int(MAX_PIECE / step_seconds)}


def test_a_step_longer_than_a_frame_is_taken_alone() -> None:
    assert Pacer(TIMESTEP).steps(0.2, 32.0, 1.0) == 1


def test_what_a_slow_engine_missed_is_not_caught_up_with() -> None:
    pacer = Pacer(TIMESTEP)
    for _ in range(100):
        pacer.steps(0.1, 32.0, 0.005)
    assert pacer.steps(0.01, 1.0, 1e-9) == 5


def test_the_achieved_speed_is_that_of_the_last_seconds() -> None:
    rates = Rates(shortest=0.5)
    assert rates.per_second(0.0) is None
    for frame in range(600):
        now = frame / 60
        rates.note(now, 0.5 * min(now, 5.0) + 2.0 * max(now - 5.0, 0.0))
    assert rates.per_second(now) == pytest.approx((2.0,))
    rates.restart()
    assert rates.per_second(0.0) is None


def test_the_rate_of_the_last_seconds_falls_to_none_where_nothing_comes() -> None:
    rates = Rates()
    for second in range(5):
        rates.note(float(second), 3.0 * second, 60.0 * second)
    assert rates.per_second(4.0) == pytest.approx((3.0, 60.0))
    assert rates.per_second(10.0) is None


def test_real_time_is_waited_for_and_a_lag_is_not_caught_up_with(monkeypatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(pacing.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(
        pacing.time, "sleep", lambda seconds: clock.__setitem__(0, clock[0] + seconds)
    )
    real_time = RealTime()
    real_time.wait(0.0)
    real_time.wait(0.5)
    assert clock[0] == pytest.approx(100.5)
    clock[0] += 60.0
    real_time.wait(0.6)  # far behind: real time begins anew here
    real_time.wait(0.8)
    assert clock[0] == pytest.approx(160.7)
    real_time.restart()
    real_time.wait(9.0)
    assert clock[0] == pytest.approx(160.7)
