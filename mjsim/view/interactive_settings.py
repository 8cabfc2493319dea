"""What a simulation in front of a person runs, and where it is shown."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import click

from mjsim import options
from mjsim.choices import engine_name, file_name, is_used, refuse_unused, split_name
from mjsim.errors import SettingError
from mjsim.run.settings import EngineType, RunSettings
from mjsim.view.display_settings import DisplaySettings


class EnginesType(click.ParamType):
    """Names of engines, with or without their laws, or their numbers."""

    name = "engine,engine[,...]"

    def convert(
        self, value: str, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        names = tuple(EngineType().convert(part, param, ctx) for part in value.split(","))
        if len(names) < 2:
            self.fail(f"{value!r} is not two engines or more", param, ctx)
        return names


@dataclasses.dataclass(frozen=True)
class InteractiveSettings(RunSettings, DisplaySettings):
    """A run, or several to compare, and where they are shown.

    Raises:
      SettingError: as `RunSettings`, and where an engine is to be compared with itself.
    """

    # None is allowed here, since a viewer may run without an end.
    nsteps: int | None = options.setting(  # type: ignore[assignment]
        None,
        "--nsteps",
        "MJSIM_NSTEPS",
        "Steps after which to end.  [default: until the window is closed]",
        type=click.IntRange(min=0),
        metavar="N",
    )
    compare: tuple[str, ...] | None = options.setting(
        None,
        "--compare",
        "MJSIM_COMPARE",
        "Engines, or laws of comfree, to show side by side from the same start; mjc is on the CPU.",
        type=EnginesType(),
    )
    record: str | None = options.setting(
        None,
        "--record",
        "MJSIM_RECORD",
        "Record what is shown to a file (MCAP), which must not exist; one for each engine.",
        metavar="FILE",
    )
    dump: bool = options.setting(
        True,
        "--dump/--no-dump",
        "MJSIM_DUMP",
        "When a world diverges, keep the last second before it as a recording.",
    )

    def __post_init__(self) -> None:
        if self.compare is None:
            super().__post_init__()
            return
        names = [engine_name(*pair) for pair in self._compared]
        for name in names:
            if names.count(name) > 1:
                raise SettingError("compare", f"{name} is there twice: name each engine once")
        if self.law and "comfree" not in self.compare and any(":" in name for name in names):
            raise SettingError("law", f"{self.law!r}, and --compare names laws: leave it out")
        refuse_unused(self.given, names)

    @property
    def _compared(self) -> list[tuple[str, str | None]]:
        """Engine and law of each that is compared; --law is that of comfree without one."""
        return [
            split_name(name, self.law if name == "comfree" else None) for name in self.compare or ()
        ]

    @property
    def runs(self) -> list[InteractiveSettings]:
        """The settings of each engine's run."""
        if self.compare is None:
            return [self]
        return [self._run(engine, law) for engine, law in self._compared]

    def _run(self, engine: str, law: str | None) -> InteractiveSettings:
        name = engine_name(engine, law)
        unused = {setting: None for setting in self.given if not is_used(setting, name)}
        record = Path(self.record) if self.record else None
        own: dict[str, Any] = {
            "engine": engine,
            "law": law,
            "device": "cpu" if engine == "mjc" else self.device,
            "record": record and str(record.with_stem(f"{record.stem}-{file_name(name)}")),
        }
        return dataclasses.replace(self, compare=None, **{**unused, **own})
