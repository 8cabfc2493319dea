"""The speed of engines on devices, models and numbers of worlds, as pytest-benchmark's rows.

    make bench
    python -m pytest -c benchmark/speed/pytest.ini benchmark/speed --level quick

All contenders of a scene and a number of worlds take turns, so the first test of such a group
measures it, and each hands its own rounds to pytest-benchmark. Times are of one step of all worlds.
"""

import dataclasses
from collections.abc import Iterator

import pytest
import warp as wp
from pytest_benchmark.fixture import BenchmarkFixture

from benchmark.common import contenders as contending
from benchmark.common.machine import versions
from benchmark.common.measuring import (
    RecordedClock,
    ResultRow,
    definition_hash,
    round_ratios,
    spread,
)
from benchmark.common.models import HUMANOID, model_hash
from benchmark.speed.audiences import AUDIENCES, RECORDED, WARM_UP, audience_times
from benchmark.speed.measure import Entry, Measured, PointBudget, Skipped, measure_group
from benchmark.speed.scenes import SCENES, SpeedScene
from mjsim import engines
from mjsim.engines.device import warp_device
from mjsim.errors import SettingError
from mjsim.run import terminal as display

STREAM_STEPS = 3000
STREAM_SCENE = "humanoid on mjc, watched"
PARAMS = ("scene", "nworld", "device", "contender")
CLOCK = RecordedClock()


# ---------------------------------------------------------------------------------------- the plan


@dataclasses.dataclass(frozen=True)
class PlannedRow:
    """A row to be: a contender on a device, with a scene in so many worlds."""

    scene: SpeedScene
    nworld: int
    entry: Entry

    @property
    def params(self) -> tuple[str, int, str, str]:
        """As pytest-benchmark stores and groups them: scene, nworld, device, contender."""
        return (self.scene.name, self.nworld, self.entry.device, self.entry.contender.name)


def cuda_devices() -> list[str]:
    """Every CUDA device; where there is none, the one that is missed."""
    warp_device("cpu")
    return [device.alias for device in wp.get_cuda_devices()] or ["cuda:0"]


def why_missing(device: str) -> str | None:
    """Why there can be no rows of a device, or None."""
    try:
        warp_device(device)
    except SettingError as error:
        return str(error)
    return None


def wanted(scene: SpeedScene, words: str) -> bool:
    return any(word.strip() in scene.name for word in words.split(";"))


def make_plan(level: str, contenders: str, words: str) -> list[PlannedRow]:
    """The rows of a level, group by group; on CUDA, MuJoCo C is the only one on the CPU."""
    compared = contending.parse_all(contenders)
    entries = [Entry(it, "cpu") for it in compared if level != "cuda" or it.engine == "mjc"]
    entries += [
        Entry(it, device) for device in cuda_devices() for it in compared if it.engine != "mjc"
    ]
    return [
        PlannedRow(scene, nworld, entry)
        for scene in SCENES
        if wanted(scene, words)
        for nworld in scene.at_level(level)
        for entry in entries
    ]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    option = metafunc.config.option
    if "scene" in metafunc.fixturenames:
        plan = make_plan(option.level, option.contenders, option.scenes)
        ids = ["-".join(map(str, planned.params)) for planned in plan]
        metafunc.parametrize(PARAMS, [planned.params for planned in plan], ids=ids)
    if "audience" in metafunc.fixturenames:
        streamed = option.level != "cuda" and not option.scenes
        metafunc.parametrize("audience", [*AUDIENCES, RECORDED] if streamed else [])


# --------------------------------------------------------------------------------------- measuring


class Groups:
    """Measures a group when its first row is asked for, and keeps it until the next."""

    def __init__(self, config: pytest.Config):
        option = config.option
        plan = make_plan(option.level, option.contenders, option.scenes)
        self._plan = {planned.params: planned for planned in plan}
        self._rounds, self._points = option.rounds, PointBudget(option.budget)
        self._key: tuple[SpeedScene, int] | None = None
        self._found: dict[str, Measured | Skipped] = {}

    def row(self, *params: str | int) -> Measured | Skipped:
        """Measure, or look up what was measured."""
        planned = self._plan[params]
        missing = why_missing(planned.entry.device)
        if missing:
            return Skipped(missing)
        key = (planned.scene, planned.nworld)
        if key != self._key:
            all_entries = [it.entry for it in self._plan.values() if (it.scene, it.nworld) == key]
            here = [entry for entry in all_entries if not why_missing(entry.device)]
            self._found = measure_group(*key, here, self._rounds, self._points)
            self._key = key
        return self._found[planned.entry.name]


@pytest.fixture(scope="session")
def groups(request: pytest.FixtureRequest) -> Groups:
    return Groups(request.config)


@pytest.fixture(scope="session")
def stream_times(request: pytest.FixtureRequest) -> Iterator[dict[str, list[float]]]:
    """Seconds of each round with each audience."""
    before, display.console.quiet = display.console.quiet, True
    rounds = request.config.option.rounds
    times = audience_times(rounds, STREAM_STEPS)
    yield {name: [wall for wall, _ in both] for name, both in times.items()}
    display.console.quiet = before


def hand_over(benchmark: BenchmarkFixture, times: list[float], nsteps: int, row: ResultRow) -> None:
    """Give pytest-benchmark the rounds measured before, as seconds per step, and the row."""
    CLOCK.load(times)
    benchmark.group = row["scene"] if row["valid"] else f"INVALID: {row['scene']}"
    benchmark.extra_info.update(row)
    benchmark.pedantic(lambda: None, rounds=len(times), iterations=nsteps)


@pytest.mark.benchmark(timer=CLOCK)
def test_step(
    scene: str,
    nworld: int,
    device: str,
    contender: str,
    groups: Groups,
    benchmark: BenchmarkFixture,
    described: ResultRow,
    skipped: list[ResultRow],
) -> None:
    params = (scene, nworld, device, contender)
    measured = groups.row(*params)
    if isinstance(measured, Skipped):
        skipped.append(dict(zip(PARAMS, params, strict=True)) | {"reason": measured.reason})
        pytest.skip(measured.reason)
    row = {**measured.row, **described}
    hand_over(benchmark, measured.times, row["definition"]["steps"], row)


@pytest.mark.benchmark(timer=CLOCK)
def test_stream(
    audience: str,
    stream_times: dict[str, list[float]],
    benchmark: BenchmarkFixture,
    described: ResultRow,
) -> None:
    times = stream_times[audience]
    definition = {
        "scene": STREAM_SCENE,
        "contender": audience,
        "engine": "mjc",
        "device": "cpu",
        "nworld": 1,
        "steps": STREAM_STEPS,
        "warm_up": WARM_UP,
        "hz": 60.0,
        "model": HUMANOID,
        "model_hash": model_hash(engines.load_model(HUMANOID)),
        "versions": versions(),
    }
    row = {
        "kind": "stream",
        **{key: definition[key] for key in ("scene", "contender", "engine", "device", "nworld")},
        "valid": True,
        "invalid": None,
        "time_per_step": spread([seconds / STREAM_STEPS for seconds in times]),
        "yardstick": None,
        "over_none": spread(round_ratios(times, stream_times["none"])),
        "series": definition_hash(definition),
        "definition": definition,
        **described,
    }
    hand_over(benchmark, times, STREAM_STEPS, row)
