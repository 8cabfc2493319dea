"""What a level of the fidelity suite runs, and what it leaves out."""

import dataclasses
from collections.abc import Iterable

from benchmark.common.contenders import Contender
from benchmark.fidelity.scenes import BY_NAME, SCENES
from benchmark.fidelity.scenes.scene import TIMESTEPS, FidelityScene
from mjsim.errors import SettingError

QUICK_TIMESTEPS = (0.002, 0.01)  # s


@dataclasses.dataclass(frozen=True)
class Run:
    """One scene on one contender at one timestep."""

    scene: FidelityScene
    contender: Contender
    timestep: float
    nworld: int


@dataclasses.dataclass(frozen=True)
class Skip:
    """What a level leaves out, and why."""

    scene: str
    contender: str
    timestep: float
    reason: str


def make_plan(
    scenes: Iterable[FidelityScene],
    compared: Iterable[Contender],
    level: str,
    timesteps: tuple[float, ...] = (),
) -> tuple[list[Run], list[Skip]]:
    """The runs of a level, contenders taking turns, and what it leaves out.

    Args:
      scenes: what to run.
      compared: on what.
      level: one of `levels.FIDELITY`.
      timesteps: s; the level's own when empty.
    """
    runs, skips = [], []
    for scene in scenes:
        nworld = scene.nworld
        if level != "full" and scene.nworld_standard:
            nworld = scene.nworld_standard
        for timestep in timesteps or (QUICK_TIMESTEPS if level == "quick" else TIMESTEPS):
            for contender in compared:
                reason = _why_left_out(scene, contender.engine, timestep, level)
                if reason:
                    skips.append(Skip(scene.name, contender.name, timestep, reason))
                else:
                    runs.append(Run(scene, contender, timestep, nworld))
    return runs, skips


def _why_left_out(scene: FidelityScene, engine: str, timestep: float, level: str) -> str:
    if level == "quick" and not scene.quick:
        return "takes longer than level quick has: --level standard"
    finest = scene.finest.get(engine, 0.0)
    if level == "standard" and timestep < finest:
        return f"{engine} takes too long below {finest} s: --level full"
    return ""


def parse_scenes(text: str | None) -> tuple[FidelityScene, ...]:
    """Scenes whose names contain one of the words between semicolons; all without any.

    Raises:
      SettingError: a word is in no name.
    """
    if not text:
        return SCENES
    words = [word.strip() for word in text.split(";")]
    for word in words:
        if not any(word in name for name in BY_NAME):
            raise SettingError("scenes", f"{word!r} is in none of {'; '.join(BY_NAME)}")
    return tuple(scene for scene in SCENES if any(word in scene.name for word in words))


def parse_timesteps(text: str | None) -> tuple[float, ...]:
    """Comma-separated timesteps in s.

    Raises:
      SettingError: one is no number above 0 and up to 0.1 s.
    """
    try:
        timesteps = tuple(float(part) for part in text.split(",")) if text else ()
    except ValueError:
        raise SettingError(
            "timesteps", f"{text!r} is no list of numbers like 0.001,0.002"
        ) from None
    for timestep in timesteps:
        if not 0 < timestep <= 0.1:
            raise SettingError("timesteps", f"{timestep:g} s is not above 0 and up to 0.1")
    return timesteps
