"""What is compared: an engine with its options, under the name that tables and plots show.

mjc    mjwarp    comfree-paper    "comfree-paper k=0.1 d=0.01"    "comfree-warm p=2"
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING

from mjsim.errors import SettingError

if TYPE_CHECKING:  # else only where it is used, since a program's --help does without MuJoCo
    import mujoco

    from mjsim import engines

# The options of each kind of contender, all of them, so that a stored result says what it was.
# The names are those of `engines.make_simulation`.
KINDS: dict[str, tuple[str, Mapping[str, float | str]]] = {
    "mjc": ("mjc", {}),
    "mjwarp": ("mjwarp", {}),
    "comfree-paper": ("comfree", {"law": "paper", "stiffness": 0.2, "damping": 0.001}),
    "comfree-warm": ("comfree", {"law": "warm", "passes": 1}),
}
SHORT = {"k": "stiffness", "d": "damping", "p": "passes"}
DEFAULT = ",".join(KINDS)


@dataclasses.dataclass(frozen=True)
class Contender:
    """An engine with its options.

    Attributes:
      name: unique among those compared.
      engine: one of `engines.ENGINES`.
      options: the engine's parameters by their names in `engines.make_simulation`.
    """

    name: str
    engine: str
    options: Mapping[str, float | str]

    def device(self, device: str) -> str:
        """Where it runs when `device` is asked for: MuJoCo C knows the CPU only."""
        return "cpu" if self.engine == "mjc" else device

    def make_simulation(
        self,
        mjm: mujoco.MjModel,
        device: str,
        nworld: int,
        nconmax: int | None = None,
        njmax: int | None = None,
        nccdmax: int | None = None,
        noise: engines.ControlNoise | None = None,
        progress: engines.Progress | None = None,
    ) -> engines.Simulation:
        """Build the worlds, compiled and ready to step; mjc has no use for sizes.

        Their buffers are fixed: growing would be timed with the steps, and so would the snapshots
        that it goes back to. A row whose contacts did not fit is invalid.
        """
        from mjsim import engines

        sizes = {"nconmax": nconmax, "njmax": njmax, "nccdmax": nccdmax}
        return engines.make_simulation(
            mjm,
            self.engine,
            self.device(device),
            nworld,
            **({} if self.engine == "mjc" else sizes),
            noise=noise,
            progress=progress,
            fixed_buffers=True,
            **self.options,
        )


def parse(text: str) -> Contender:
    """A contender from its name and options, e.g. "comfree-paper k=0.1 d=0.01".

    Raises:
      SettingError: no such contender or option, or an option that is no number.
    """
    kind, *given = text.split() or [""]
    if kind not in KINDS:
        raise SettingError("contenders", f"{kind!r} is none of {', '.join(KINDS)}")
    engine, defaults = KINDS[kind]
    options = dict(defaults)
    for part in given:
        letter, _, value = part.partition("=")
        if SHORT.get(letter) not in defaults:
            allowed = [short for short, option in SHORT.items() if option in defaults]
            raise SettingError(
                "contenders",
                f"{part!r}: {kind} has the options {allowed}, e.g. 'comfree-paper k=0.1'",
            )
        number = type(defaults[SHORT[letter]])
        try:
            options[SHORT[letter]] = number(value)
        except ValueError:
            wanted = "whole number" if number is int else "number"
            raise SettingError("contenders", f"{part!r}: {value!r} is no {wanted}") from None
    return Contender(" ".join([kind, *given]), engine, options)


def parse_all(text: str) -> list[Contender]:
    """Contenders from a comma-separated list.

    Raises:
      SettingError: one cannot be used, or is there twice.
    """
    found = [parse(part) for part in text.split(",")]
    names = [contender.name for contender in found]
    for name in names:
        if names.count(name) > 1:
            raise SettingError("contenders", f"{name!r} is there twice")
    return found
