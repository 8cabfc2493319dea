"""What is simulated, on what, and for how long: the settings that the scripts share.

A script with more settings adds fields in a subclass.
"""

import dataclasses
from collections.abc import Callable
from importlib import metadata

import click

import settings
from mjsim import engines
from recording import Recorder


def versions() -> dict[str, str]:
    """Versions of the packages that a simulation's numbers depend on."""
    packages = ("mujoco", "mujoco-warp", "warp-lang", "numpy")
    return {name: metadata.version(name) for name in packages}


class EngineType(click.ParamType):
    """The name of an engine, or its number."""

    name = "|".join(engines.ENGINES)

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        names = {str(number): name for number, name in enumerate(engines.ENGINES)}
        name = names.get(value, value)
        if name not in engines.ENGINES:
            allowed = ", ".join(f"{name} ({number})" for number, name in names.items())
            self.fail(f"{value!r} is no engine; allowed: {allowed}", param, ctx)
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
    """What is simulated, on what, and for how long."""

    engine: str = settings.setting(
        "comfree",
        "--engine",
        "MJSIM_ENGINE",
        "mjc: MuJoCo C; mjwarp: MuJoCo Warp; comfree: complementarity-free contact (or 0, 1, 2).",
        type=EngineType(),
    )
    model: str = settings.setting(
        "benchmark/test_data/primitives.xml",
        "--model",
        "MJSIM_MODEL",
        "MJCF, URDF or MJB file, relative to the working directory or to the repository.",
    )
    nsteps: int = settings.setting(
        10000, "--nsteps", "MJSIM_NSTEPS", "Steps to run.", type=click.IntRange(min=0), metavar="N"
    )
    timestep: float | None = settings.setting(
        None,
        "--timestep",
        "MJSIM_TIMESTEP",
        "Timestep in s.  [default: the model's]",
        type=click.FloatRange(min=0.0, min_open=True),
    )
    nworld: int = settings.setting(
        1, "--nworld", "MJSIM_NWORLD", "Worlds to run at once.", type=click.IntRange(min=1)
    )
    njmax: int | None = settings.setting(
        None,
        "--njmax",
        "MJSIM_NJMAX",
        "Constraint rows to begin with, per world.  [default: from the model]",
        type=click.IntRange(min=0),
    )
    nconmax: int | None = settings.setting(
        None,
        "--nconmax",
        "MJSIM_NCONMAX",
        "Contacts to begin with, per world.  [default: from the model]",
        type=click.IntRange(min=0),
    )
    fixed_buffers: bool = settings.setting(
        False,
        "--fixed-buffers/--no-fixed-buffers",
        "MJSIM_FIXED_BUFFERS",
        "Keep the sizes of buffers: what does not fit is lost and told. Else they grow.",
    )
    device: str = settings.setting(
        "cpu", "--device", "WARP_DEVICE", "Warp device, e.g. cpu or cuda:0."
    )
    stiffness: tuple[float, ...] | None = settings.setting(
        None,
        "--stiffness",
        "COMFREE_STIFFNESS",
        "k of comfree's law paper; world w takes entry w mod length.  [default: 0.2]",
        type=VectorType(),
    )
    damping: tuple[float, ...] | None = settings.setting(
        None,
        "--damping",
        "COMFREE_DAMPING",
        "d of comfree's law paper, likewise.  [default: 0.001]",
        type=VectorType(),
    )
    law: str | None = settings.setting(
        None,
        "--law",
        "COMFREE_LAW",
        "Contact law of comfree; warm honours solref and solimp.  [default: paper]",
        type=click.Choice(engines.LAWS),
    )
    passes: int | None = settings.setting(
        None,
        "--passes",
        "COMFREE_PASSES",
        "Passes of comfree's law warm over the contacts.  [default: 1]",
        type=click.IntRange(min(engines.PASSES), max(engines.PASSES)),
    )
    ctrl_noise: float = settings.setting(
        0.0,
        "--ctrl-noise",
        "MJSIM_CTRL_NOISE",
        "Uniform noise on the controls, as a fraction of half their range; same on every engine.",
        type=click.FloatRange(min=0.0),
    )
    seed: int = settings.setting(
        0, "--seed", "MJSIM_SEED", "Seed of the control noise.", type=click.IntRange(0, 2**31 - 1)
    )

    def make_simulation(
        self,
        progress: engines.Progress | None = None,
        remember: float = 0.0,
        report: engines.Report = engines.log_warning,
    ) -> engines.Simulation:
        """Load the model and build the simulation.

        Args:
          progress: told what is being compiled.
          remember: simulated time of which states are kept for `Simulation.recall`, s.
          report: told when a buffer grows.

        Raises:
          SettingError: a setting cannot be used on this machine or with this model.
        """
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
            report=report,
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
        chosen = {
            field.name: getattr(self, field.name) for field in dataclasses.fields(RunSettings)
        }
        given = {name: str(value) for name, value in chosen.items() if value is not None}
        model = {"kind": "model_path", "path": str(engines.find_file(self.model))}
        timestep = str(simulation.mjm.opt.timestep)
        return Recorder(path, model, given | versions() | {"timestep": timestep, **about}, report)
