"""The settings of a run: each a dataclass field, and from it a flag and an environment variable.

A flag wins over its variable, the variable over the default. The scripts share this table; a
script with more settings adds fields in a subclass.
"""

import dataclasses
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import click
from click.core import ParameterSource

import engines

SettingsType = TypeVar("SettingsType")


def setting(default: Any, flag: str, variable: str, help: str, **option: Any) -> Any:
    """A dataclass field that is a command-line option and an environment variable too.

    Args:
      default: value when neither is given.
      flag: the option as click takes it, e.g. "--nsteps".
      variable: name of the environment variable.
      help: one line for --help.
      **option: more arguments of `click.option`, such as type.
    """
    option = {"help": help, "envvar": variable, "show_envvar": True, **option}
    if default is not None:
        option["show_default"] = True
    return dataclasses.field(default=default, metadata={"flag": flag, "option": option})


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

    engine: str = setting(
        "comfree",
        "--engine",
        "MJSIM_ENGINE",
        "mjc: MuJoCo C; mjwarp: MuJoCo Warp; comfree: complementarity-free contact (or 0, 1, 2).",
        type=EngineType(),
    )
    model: str = setting(
        "benchmark/test_data/primitives.xml",
        "--model",
        "MJSIM_MODEL",
        "MJCF, URDF or MJB file, relative to the working directory or to the repository.",
    )
    nsteps: int = setting(
        10000, "--nsteps", "MJSIM_NSTEPS", "Steps to run.", type=click.IntRange(min=0), metavar="N"
    )
    nworld: int = setting(
        1, "--nworld", "MJSIM_NWORLD", "Worlds to run at once.", type=click.IntRange(min=1)
    )
    njmax: int | None = setting(
        None,
        "--njmax",
        "MJSIM_NJMAX",
        "Constraint rows to allocate per world.  [default: from the model]",
        type=click.IntRange(min=0),
    )
    nconmax: int | None = setting(
        None,
        "--nconmax",
        "MJSIM_NCONMAX",
        "Contacts to allocate per world.  [default: from the model]",
        type=click.IntRange(min=0),
    )
    device: str = setting("cpu", "--device", "WARP_DEVICE", "Warp device, e.g. cpu or cuda:0.")
    stiffness: tuple[float, ...] | None = setting(
        None,
        "--stiffness",
        "COMFREE_STIFFNESS",
        "k of the comfree contact law; world w takes entry w mod length.  [default: 0.2]",
        type=VectorType(),
    )
    damping: tuple[float, ...] | None = setting(
        None,
        "--damping",
        "COMFREE_DAMPING",
        "d of the comfree contact law, likewise.  [default: 0.001]",
        type=VectorType(),
    )
    ctrl_noise: float = setting(
        0.0,
        "--ctrl-noise",
        "MJSIM_CTRL_NOISE",
        "Uniform noise on the controls, as a fraction of half their range; same on every engine.",
        type=click.FloatRange(min=0.0),
    )
    seed: int = setting(
        0, "--seed", "MJSIM_SEED", "Seed of the control noise.", type=click.IntRange(0, 2**31 - 1)
    )

    def make_simulation(self, progress: engines.Progress | None = None) -> engines.Simulation:
        """Load the model and build the simulation.

        Raises:
          engines.SettingError: a setting cannot be used on this machine or with this model.
        """
        return engines.make_simulation(
            engines.load_model(self.model),
            engine=self.engine,
            device=self.device,
            nworld=self.nworld,
            nconmax=self.nconmax,
            njmax=self.njmax,
            stiffness=self.stiffness,
            damping=self.damping,
            noise=engines.ControlNoise(self.ctrl_noise, self.seed),
            progress=progress,
        )


def _option(field: dataclasses.Field) -> click.Option:
    option = {"default": field.default, **field.metadata["option"]}
    return click.Option([field.metadata["flag"], field.name], **option)


def _describe(error: click.UsageError) -> str:
    """The message with the name of the setting as the user gave it: its flag or its variable."""
    param = getattr(error, "param", None)
    if param is None or error.ctx is None:
        return error.format_message()
    given_as = param.opts[0]
    if error.ctx.get_parameter_source(param.name) == ParameterSource.ENVIRONMENT:
        given_as = param.envvar
    return f"{given_as}: {error.message}"


def run(
    settings_type: type[SettingsType],
    main: Callable[[SettingsType], int],
    description: str,
) -> None:
    """Parse flags and variables, call `main` and exit with what it returns.

    Wrong use, and an `engines.SettingError` that `main` raises, end the program with status 2 and
    one line on stderr that names the setting.
    """

    def callback(**values: Any) -> int:
        ctx = click.get_current_context()
        try:
            return main(settings_type(**values))
        except engines.SettingError as error:
            by_name = {param.name: param for param in ctx.command.params}
            raise click.BadParameter(error.problem, ctx, by_name.get(error.setting)) from error

    command = click.Command(
        None,
        callback=callback,
        params=[_option(field) for field in dataclasses.fields(settings_type)],
        help=description,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    )
    try:
        status = command.main(standalone_mode=False)
    except click.UsageError as error:
        name = error.ctx.info_name if error.ctx else sys.argv[0]
        print(f"{name}: {_describe(error)} (see --help)", file=sys.stderr)
        status = 2
    except click.Abort:  # Ctrl-C where `main` does not handle it, such as during compilation
        print("interrupted", file=sys.stderr)
        status = 130
    sys.exit(status)
