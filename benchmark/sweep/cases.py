"""What a sweep runs: cases from a TOML file or flags, each named by its whole definition."""

from __future__ import annotations

import dataclasses
import glob
import itertools
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mjsim import choices
from mjsim.choices import ENGINES, LAWS, NAMES, PASSES, engine_name, is_used, refuse_unused
from mjsim.errors import SettingError
from mjsim.model.files import REPOSITORY, find_file
from mjsim.run import settings as run_settings

if TYPE_CHECKING:  # else only where it is used, since --help does without MuJoCo
    from benchmark.fidelity.scenes.scene import FidelityScene

LAW = ("stiffness", "damping", "law", "passes")  # of comfree only
MOST = 100_000  # cases; more are a slip


@dataclasses.dataclass(frozen=True)
class Case:
    """One run: a model as test_headless.py runs it, or a scene of the fidelity suite.

    Attributes:
      model: path of a model; None for a scene.
      scene: name of a scene of benchmark/fidelity/scenes; None for a model.
      engine: one of `choices.ENGINES`.
      device: Warp's name.
      nworld: number of worlds; None: 1, or the scene's.
      timestep: s; None: the model's, or 0.002 s.
      stiffness: k of comfree's law paper; None: the default.
      damping: d of comfree's law paper, likewise.
      law: of comfree, one of `choices.LAWS`; None: paper.
      passes: of comfree's law warm, one of `choices.PASSES`; None: the default.
      ctrl_noise: as a fraction of half the control range; models only.
      seed: of the noise.
      nsteps: steps; models only.
      fixed_buffers: whether what does not fit is lost, instead of the buffers growing; models only.
    """

    model: str | None = None
    scene: str | None = None
    engine: str = "comfree"
    device: str = "cpu"
    nworld: int | None = None
    timestep: float | None = None
    stiffness: float | None = None
    damping: float | None = None
    law: str | None = None
    passes: int | None = None
    ctrl_noise: float = 0.0
    seed: int = 0
    nsteps: int = 1000
    fixed_buffers: bool = False

    @property
    def subject(self) -> str:
        """The model or the scene."""
        return self.model or self.scene or ""

    @property
    def label(self) -> str:
        """What tells it apart, in a line."""
        named = ("model", "scene", "engine", "law")
        told = [
            f"{name} {value}"
            for name, value in dataclasses.asdict(self).items()
            if name not in named and value not in (None, getattr(Case, name))
        ]
        return ", ".join([self.subject, engine_name(self.engine, self.law), *told])


KINDS: dict[str, type] = {
    "model": str,
    "scene": str,
    "engine": str,
    "device": str,
    "nworld": int,
    "timestep": float,
    "stiffness": float,
    "damping": float,
    "law": str,
    "passes": int,
    "ctrl_noise": float,
    "seed": int,
    "nsteps": int,
    "fixed_buffers": bool,
}
LEAST = {"nworld": 1, "nsteps": 0, "seed": 0, "stiffness": 0, "damping": 0, "ctrl_noise": 0}


def read_file(path: Path) -> dict[str, Any]:
    """The settings of a TOML file.

    Raises:
      SettingError: it cannot be read.
    """
    try:
        return tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingError("file", f"{str(path)!r} cannot be read: {error}") from None


def split_flag(name: str, text: str) -> list[Any]:
    """The values of a flag, between commas.

    Raises:
      SettingError: one is of another kind.
    """
    found = []
    for part in text.split(","):
        kind = _parse_bool if KINDS[name] is bool else KINDS[name]
        try:
            found.append(kind(part.strip()))
        except ValueError:
            raise SettingError(name, f"{part!r} is no {KINDS[name].__name__}") from None
    return found


def _parse_bool(text: str) -> bool:
    """As TOML has it; anything else is a ValueError."""
    if text not in ("true", "false"):
        raise ValueError
    return text == "true"


def gather(path: Path | None, flags: Mapping[str, str | None]) -> dict[str, Any]:
    """The settings of a file, with those of flags in their place."""
    given = {name: split_flag(name, text) for name, text in flags.items() if text is not None}
    settings = read_file(path) if path else {}
    if "model" in given or "scene" in given:
        settings = {name: it for name, it in settings.items() if name not in ("model", "scene")}
    return {**settings, **given}


def expand(settings: Mapping[str, Any]) -> list[Case]:
    """The product of all lists, or that of each entry of `cases` on top of the rest.

    Of a case is left out what its engine makes no use of, and then what is there twice. What no
    case makes use of is refused.

    Raises:
      SettingError: a setting is unknown, of another kind or of no use, or nothing is to be run.
    """
    base = {name: value for name, value in settings.items() if name != "cases"}
    entries = settings.get("cases", [{}])
    if not isinstance(entries, list) or not all(isinstance(it, dict) for it in entries):
        raise SettingError("cases", "is no list of tables: [[cases]]")
    cases: dict[Case, None] = {}
    for entry in entries:
        for case in _product({**base, **entry}):
            cases[case] = None
            if len(cases) > MOST:
                raise SettingError("cases", f"are more than {MOST:,}")
    names = {engine_name(case.engine, case.law) for case in cases}
    given = {name: it for entry in (base, *entries) for name, it in entry.items() if name in LAW}
    refuse_unused(given, sorted(names))
    return list(cases)


def _product(settings: Mapping[str, Any]) -> list[Case]:
    values = {name: _values(name, value) for name, value in settings.items()}
    models = [path for pattern in values.pop("model", []) for path in _find(pattern)]
    subjects = [{"model": path} for path in dict.fromkeys(models)]
    subjects += [{"scene": name} for name in values.pop("scene", [])]
    if not subjects:
        raise SettingError("model", "neither a model nor a scene is given")
    return [
        _only_known({**subject, **dict(zip(values, chosen, strict=True))})
        for subject in subjects
        for chosen in itertools.product(*values.values())
    ]


def _values(name: str, value: Any) -> list[Any]:
    if name not in KINDS:
        raise SettingError(name, f"is no setting of a sweep: {', '.join(KINDS)}")
    values = value if isinstance(value, list) else [value]
    kind = KINDS[name]
    for each in values:
        fits = isinstance(each, (int, float) if kind is float else kind)
        if not fits or (isinstance(each, bool) and kind is not bool):
            raise SettingError(name, f"{each!r} is no {kind.__name__}")
        if name in LEAST and each < LEAST[name]:
            raise SettingError(name, f"{each} is too small: at least {LEAST[name]}")
    if not values:
        raise SettingError(name, "is an empty list")
    for each in values:
        if name == "engine" and each not in (*ENGINES, *NAMES):
            raise SettingError(name, f"{each!r} is none of {', '.join((*ENGINES, *NAMES[2:]))}")
        if name == "law" and each not in LAWS:
            raise SettingError(name, f"{each!r} is none of {', '.join(LAWS)}")
        if name == "passes" and each not in PASSES:
            raise SettingError(name, f"{each} is none of {', '.join(map(str, PASSES))}")
        if name == "scene" and each not in _scenes():
            raise SettingError(name, f"{each!r} is none of {'; '.join(_scenes())}")
        if name == "timestep" and not 0 < each <= 0.1:
            raise SettingError(name, f"{each} s is not above 0 and up to 0.1")
    return [kind(each) for each in values]


def _scenes() -> dict[str, FidelityScene]:
    """The scenes of the fidelity suite by their names."""
    from benchmark.fidelity.scenes import BY_NAME

    return BY_NAME


def _find(pattern: str) -> list[str]:
    """Paths from the working directory, or else from the repository."""
    if not glob.has_magic(pattern):
        find_file(pattern)
        return [pattern]
    found = sorted(glob.glob(pattern, recursive=True))
    if not found:
        root = REPOSITORY
        found = sorted(glob.glob(pattern, root_dir=root, recursive=True))
    if not found:
        raise SettingError("model", f"{pattern!r} matches no file")
    return found


def _only_known(chosen: dict[str, Any]) -> Case:
    engine, law = choices.split_name(chosen.get("engine", Case.engine), chosen.get("law"))
    chosen = {**chosen, "engine": engine, "law": law}
    name = engine_name(engine, law)
    chosen = {setting: value for setting, value in chosen.items() if is_used(setting, name)}
    if chosen.get("engine") == "mjc":
        chosen = {**chosen, "device": "cpu"}
    if "scene" in chosen:
        unused = ("ctrl_noise", "seed", "nsteps", "fixed_buffers")
        chosen = {name: value for name, value in chosen.items() if name not in unused}
    return Case(**chosen)


# --------------------------------------------------------------------------------------- identity


class Models:
    """The compiled models of a sweep, each once: as bytes for the workers, and by their hash."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[bytes, str]] = {}

    def of(self, path: str) -> tuple[bytes, str]:
        """The MJB of a model, and what names it.

        Raises:
          SettingError: it does not compile.
        """
        if path not in self._found:
            import mujoco
            import numpy as np

            from benchmark.common.models import model_hash
            from mjsim.model.files import load_model

            mjm = load_model(path)
            saved = np.empty(mujoco.mj_sizeModel(mjm), dtype=np.uint8)
            mujoco.mj_saveModel(mjm, None, saved)
            self._found[path] = (saved.tobytes(), model_hash(mjm))
        return self._found[path]


def case_id(case: Case, models: Models) -> str:
    """16 hex digits for a case with its model and the versions: the same for the same run only."""
    from benchmark.common.measuring import definition_hash

    if case.model:
        content = models.of(case.model)[1]
    else:
        scene = _scenes()[case.scene]
        content = f"{scene.revision} {scene.model_hash()}"
    definition = {**dataclasses.asdict(case), "content": content}
    if not case.fixed_buffers:  # which older cases did not know
        del definition["fixed_buffers"]
    return definition_hash({**definition, "versions": run_settings.versions()})


def swept(cases: Sequence[Mapping[str, Any]]) -> list[str]:
    """The law and the numeric settings, where they take more than one value."""
    names = [name for name, kind in KINDS.items() if kind in (int, float) or name == "law"]
    return [name for name in names if len({case.get(name) for case in cases}) > 1]
