"""The settings of a run: each a dataclass field, and from it a flag and an environment variable.

A flag wins over its variable, the variable over the default. `mjsim.run.settings` has the settings
that the commands share.
"""

import dataclasses
import sys
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

import click
from click.core import ParameterSource

from mjsim.errors import SettingError

SettingsType = TypeVar("SettingsType")

# It has no flag, since other users of a machine can read a command line.
TOKEN = "MJSTREAM_TOKEN"
CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}  # click's, of a command


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
        option.setdefault("show_default", True)
    return dataclasses.field(default=default, metadata={"flag": flag, "option": option})


def argument(metavar: str, variable: str) -> Any:
    """A dataclass field that is a required file on the command line, and an environment variable.

    Args:
      metavar: what --help calls it.
      variable: name of the environment variable.
    """
    parameter = {"envvar": variable, "metavar": metavar, "type": click.Path()}
    return dataclasses.field(kw_only=True, metadata={"argument": parameter})


def variables(settings_type: type) -> set[str]:
    """The environment variables of settings."""
    parameters = _parameters(settings_type)
    return {parameter.envvar for parameter in parameters if isinstance(parameter.envvar, str)}


def _parameters(settings_type: type) -> list[click.Parameter]:
    """Click's options and arguments, in the order of the fields."""
    parameters: list[click.Parameter] = []
    for field in dataclasses.fields(settings_type):
        if "argument" in field.metadata:
            parameters.append(click.Argument([field.name], **field.metadata["argument"]))
        elif field.metadata:
            option = {"default": field.default, **field.metadata["option"]}
            parameters.append(click.Option([field.metadata["flag"], field.name], **option))
    return parameters


def _describe(error: click.UsageError) -> str:
    """The message with the name of the setting as the user gave it: its flag or its variable."""
    param = getattr(error, "param", None)
    if param is None or error.ctx is None or isinstance(error, click.MissingParameter):
        return error.format_message()
    given_as = param.opts[0] if isinstance(param, click.Option) else param.human_readable_name
    if error.ctx.get_parameter_source(param.name) == ParameterSource.ENVIRONMENT:
        given_as = param.envvar
    return f"{given_as}: {error.message}"


def make_command(
    settings_type: type[SettingsType],
    main: Callable[[SettingsType], int],
    description: str,
    name: str | None = None,
) -> click.Command:
    """A command that parses flags and variables into settings and calls `main` with them.

    A `SettingError` that `main` raises becomes click's error of that parameter.

    Args:
      settings_type: a dataclass of fields made by `setting` and `argument`.
      main: returns the exit status.
      description: what --help says.
      name: that it has in a group of commands.
    """

    def callback(**values: Any) -> int:
        ctx = click.get_current_context()
        try:
            return main(settings_type(**values))
        except SettingError as error:
            by_name = {param.name: param for param in ctx.command.params}
            if error.setting not in by_name:
                raise click.UsageError(str(error), ctx) from error
            raise click.BadParameter(error.problem, ctx, by_name[error.setting]) from error

    return click.Command(
        name,
        callback=callback,
        params=_parameters(settings_type),
        help=description,
        context_settings=CONTEXT,
    )


def command_name() -> str:
    """The running command as its user called it: "test_headless.py", "mjsim run"."""
    return click.get_current_context().command_path


def run_command(command: click.Command, name: str | None = None) -> NoReturn:
    """Parse the command line, run a command or a group of them, and exit with what it returns.

    Wrong use ends the program with status 2 and one line on stderr that names the setting.

    Args:
      command: what is run.
      name: what messages call the program; the script's file name when None.
    """
    try:
        status = command.main(prog_name=name, standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        status = 2
    except click.UsageError as error:
        name = error.ctx.command_path if error.ctx else sys.argv[0]
        print(f"{name}: {_describe(error)} (see --help)", file=sys.stderr)
        status = 2
    except click.Abort:  # Ctrl-C where `main` does not handle it, such as during compilation
        print("interrupted", file=sys.stderr)
        status = 130
    sys.exit(status)


def run(
    settings_type: type[SettingsType],
    main: Callable[[SettingsType], int],
    description: str,
) -> NoReturn:
    """Run a script that is one command; see `make_command` and `run_command`."""
    run_command(make_command(settings_type, main, description))
