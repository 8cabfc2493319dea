"""The settings of a run: each a dataclass field, and from it a flag and an environment variable.

A flag wins over its variable, the variable over the default. `run_settings.py` has the table that
the scripts share.
"""

import dataclasses
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from mjsim.errors import SettingError

SettingsType = TypeVar("SettingsType")

# It has no flag, since other users of a machine can read a command line.
TOKEN = "MJSTREAM_TOKEN"


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


def variables(settings_type: type) -> set[str]:
    """The environment variables of settings."""
    return {
        field.metadata["option"]["envvar"]
        for field in dataclasses.fields(settings_type)
        if field.metadata
    }


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

    Wrong use, and a `SettingError` that `main` raises, end the program with status 2 and
    one line on stderr that names the setting.
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
