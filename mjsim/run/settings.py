"""What is simulated, on what, and for how long: the settings that the scripts share.

A script with more settings adds fields in a subclass.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from mjsim import options
from mjsim.choices import ENGINES, LAWS, NAMES, PASSES, engine_name, refuse_unused, split_name

if TYPE_CHECKING:  # else only where they are used, since --help does without MuJoCo
    from mjsim import engines
    from mjsim.record import Recorder


def versions() -> dict[str, str]:
    """Versions of the packages that a simulation's numbers depend on."""
    from importlib import metadata

    packages = ("mujoco", "mujoco-warp", "warp-lang", "numpy")
    return {name: metadata.version(name) for name in packages}


class EngineType(click.ParamType):
    """The name of an engine, with or without its law, or its number."""

    name = "|".join(ENGINES)

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        names = {str(number): name for number, name in enumerate(ENGINES)}
        name = names.get(value, value)
        if name not in (*ENGINES, *NAMES):
            allowed = [f"{name} ({number})" for number, name in names.items()]
            allowed += [name for name in NAMES if name not in ENGINES]
            self.fail(f"{value!r} is no engine; allowed: {', '.join(allowed)}", param, ctx)
        return name


class VectorType(click.ParamType):
    """Comma-separated numbers, one for each world in turn."""

    name = "k[,k...]"

    def convert(
        self, value: str, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, ...]:
        try:
            return tuple(float(part) for part in value.split(","))
        except ValueError:
            self.fail(f"{value!r} is no number or comma-separated list of numbers", param, ctx)


@dataclasses.dataclass(frozen=True)
class RunSettings:
    """What is simulated, on what, and for how long.

    An engine's name may come with its law, which is then in `law`.

    Raises:
      SettingError: two laws are named, or a setting is given of which the engine makes no use.
    """

    engine: str = options.setting(
        "comfree",
        "--engine",
        "MJSIM_ENGINE",
        "mjc: MuJoCo C; mjwarp: MuJoCo Warp; comfree, comfree:paper, comfree:warm: "
        "complementarity-free contact (or 0, 1, 2).",
        type=EngineType(),
    )
    model: str = options.setting(
        "benchmark/test_data/primitives.xml",
        "--model",
        "MJSIM_MODEL",
        "MJCF, URDF or MJB file, or one of the models that come with this, such as pendula.xml.",
    )
    nsteps: int = options.setting(
        10000, "--nsteps", "MJSIM_NSTEPS", "Steps to run.", type=click.IntRange(min=0), metavar="N"
    )
    timestep: float | None = options.setting(
        None,
        "--timestep",
        "MJSIM_TIMESTEP",
        "Timestep in s.  [default: the model's]",
        type=click.FloatRange(min=0.0, min_open=True),
    )
    nworld: int = options.setting(
        1, "--nworld", "MJSIM_NWORLD", "Worlds to run at once.", type=click.IntRange(min=1)
    )
    njmax: int | None = options.setting(
        None,
        "--njmax",
        "MJSIM_NJMAX",
        "Constraint rows to begin with, per world.  [default: from the model]",
        type=click.IntRange(min=0),
    )
    nconmax: int | None = options.setting(
        None,
        "--nconmax",
        "MJSIM_NCONMAX",
        "Contacts to begin with, per world.  [default: from the model]",
        type=click.IntRange(min=0),
    )
    fixed_buffers: bool = options.setting(
        False,
        "--fixed-buffers/--no-fixed-buffers",
        "MJSIM_FIXED_BUFFERS",
        "Keep the sizes of buffers: what does not fit is lost and told. Else they grow.",
    )
    device: str = options.setting(
        "cpu", "--device", "WARP_DEVICE", "Warp device, e.g. cpu or cuda:0."
    )
    stiffness: tuple[float, ...] | None = options.setting(
        None,
        "--stiffness",
        "COMFREE_STIFFNESS",
        "k of comfree's law paper; world w takes entry w mod length.  [default: 0.2]",
        type=VectorType(),
    )
    damping: tuple[float, ...] | None = options.setting(
        None,
        "--damping",
        "COMFREE_DAMPING",
        "d of comfree's law paper, likewise.  [default: 0.001]",
        type=VectorType(),
    )
    law: str | None = options.setting(
        None,
        "--law",
        "COMFREE_LAW",
        "Contact law of comfree; warm honours solref and solimp.  [default: paper]",
        type=click.Choice(LAWS),
    )
    passes: int | None = options.setting(
        None,
        "--passes",
        "COMFREE_PASSES",
        "Passes of comfree's law warm over the contacts.  [default: 1]",
        type=click.IntRange(min(PASSES), max(PASSES)),
    )
    ctrl_noise: float = options.setting(
        0.0,
        "--ctrl-noise",
        "MJSIM_CTRL_NOISE",
        "Uniform noise on the controls, as a fraction of half their range; same on every engine.",
        type=click.FloatRange(min=0.0),
    )
    seed: int = options.setting(
        0, "--seed", "MJSIM_SEED", "Seed of the control noise.", type=click.IntRange(0, 2**31 - 1)
    )

    def __post_init__(self) -> None:
        engine, law = split_name(self.engine, self.law)
        object.__setattr__(self, "engine", engine)
        object.__setattr__(self, "law", law)
        refuse_unused(self.given, [self.name])

    @property
    def name(self) -> str:
        """The engine's whole name, with its law where it has one."""
        return engine_name(self.engine, self.law)

    @property
    def given(self) -> dict[str, str]:
        """What is simulated and how, as text: every setting of these that has a value."""
        chosen = {
            field.name: getattr(self, field.name) for field in dataclasses.fields(RunSettings)
        }
        return {name: _text(value) for name, value in chosen.items() if value is not None}

    def make_simulation(
        self,
        progress: engines.Progress | None = None,
        remember: float = 0.0,
        report: engines.Report | None = None,
    ) -> engines.Simulation:
        """Load the model and build the simulation.

        Args:
          progress: told what is being compiled.
          remember: simulated time of which states are kept for `Simulation.recall`, s.
          report: told when a buffer grows; by default a warning of the log.

        Raises:
          SettingError: a setting cannot be used on this machine or with this model.
        """
        from mjsim import engines

        mjm = engines.load_model(self.model)
        if self.timestep is not None:
            mjm.opt.timestep = self.timestep
        return engines.make_simulation(
            mjm,
            engine=self.engine,
            device=self.device,
            nworld=self.nworld,
            nconmax=self.nconmax,
            njmax=self.njmax,
            stiffness=self.stiffness,
            damping=self.damping,
            law=self.law,
            passes=self.passes,
            noise=engines.ControlNoise(self.ctrl_noise, self.seed),
            remember=remember,
            progress=progress,
            fixed_buffers=self.fixed_buffers,
            report=report or engines.log_warning,
        )

    def make_recorder(
        self, path: str, simulation: engines.Simulation, report: Callable[[str], None], **about: str
    ) -> Recorder:
        """A recorder of the simulation, its file begun with the model and what it is of.

        Args:
          path: the file, which must not exist.
          simulation: what `make_simulation` made.
          report: told if the recording ends early.
          **about: more to say of it, such as the world.

        Raises:
          SettingError: the file cannot be written.
        """
        from mjsim.model.files import find_file
        from mjsim.record import Recorder

        model = {"kind": "model_path", "path": str(find_file(self.model))}
        ran = {"engine": simulation.name, "timestep": str(simulation.mjm.opt.timestep)}
        if simulation.law:
            ran["law"] = simulation.law
        return Recorder(path, model, self.given | versions() | ran | about, report)


def _text(value: object) -> str:
    """A setting's value as a person would give it."""
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
