"""What a scene is shown on, and what the person who watches asks for.

A display takes a model and its data with `load`, then `show` as often as the state in that data,
or what stands beside the picture, has changed. It does not know where the states come from: a
stream, a recording or a simulation. What a person asks for, with a key or a button, it leaves in
the `Controls` that came with the model, for whoever makes the states.
"""

import abc
import dataclasses
from collections.abc import Mapping, Sequence

import mujoco

from mjsim.view.controls import Controls


@dataclasses.dataclass(frozen=True)
class Status:
    """What stands beside the picture.

    Attributes:
      rows: names and values for people, in the order in which they are shown.
      plots: numbers to plot over time, by their names with units.
      position: where in what can be sought in, s.
      notice: why what is shown does not go on, where that is not as the person wanted it; else "".
    """

    rows: Mapping[str, str]
    plots: Mapping[str, float] = dataclasses.field(default_factory=dict)
    position: float = 0.0
    notice: str = ""


class Display(abc.ABC):
    """Where a scene is shown, from the first model until `close`."""

    @property
    @abc.abstractmethod
    def closed(self) -> bool:
        """Whether the person who watches wants no more."""

    @abc.abstractmethod
    def load(
        self,
        mjm: mujoco.MjModel,
        mjds: Sequence[mujoco.MjData],
        controls: Controls,
        labels: Sequence[str] = (),
    ) -> None:
        """Show this model from now on.

        Args:
          mjm: the model.
          mjds: its states, to be shown side by side; they change under the display's eyes.
          controls: where to leave what a person asks for.
          labels: what to call each state, where there are several.
        """

    @abc.abstractmethod
    def show(self, status: Status, moved: bool) -> None:
        """Bring what stands beside the picture up to date and, if it `moved`, the picture.

        A window also sets `xfrc_applied` and the mocap poses of the first data to what the mouse
        does there, moved or not.
        """

    @abc.abstractmethod
    def close(self) -> None: ...

    def __enter__(self) -> "Display":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
