"""What the person who watches asks for, by keys and buttons."""

import collections
import dataclasses
from collections.abc import Callable, Sequence

SPEEDS = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)


class Controls:
    """What the person who watches asks for: written by a display, in threads of its own.

    Args:
      offers: what makes sense here, of "pause", "step", "reset", "speed", "world" and "seek".
      nworld: number of worlds to choose from.
      duration: length of what can be sought in, s.

    Attributes:
      paused: nothing is to move but by single steps.
      speed: how fast it is to go, of real time; one of `SPEEDS`.
      world: index of the world to show.
    """

    def __init__(self, offers: Sequence[str] = (), nworld: int = 1, duration: float = 0.0) -> None:
        self.offers, self.nworld, self.duration = frozenset(offers), nworld, duration
        self.paused, self.speed, self.world = False, 1.0, 0
        self._asked: collections.deque[tuple[str, float]] = collections.deque(maxlen=100)

    def toggle_pause(self) -> None:
        self.paused = not self.paused

    def step(self, count: int = 1) -> None:
        """Ask for single steps; a negative count where one can go back."""
        self.paused = True
        self._asked.append(("step", count))

    def reset(self) -> None:
        """Ask for the start."""
        self._asked.append(("reset", 0.0))

    def seek(self, position: float) -> None:
        """Ask for a place in what can be sought in, s from its beginning."""
        self._asked.append(("seek", position))

    def jump(self, seconds: float) -> None:
        """Ask to seek from where it is."""
        self._asked.append(("jump", seconds))

    def change_speed(self, steps: int) -> None:
        """Take a faster or slower one of `SPEEDS`."""
        place = min(range(len(SPEEDS)), key=lambda i: abs(SPEEDS[i] - self.speed))
        self.speed = SPEEDS[min(max(place + steps, 0), len(SPEEDS) - 1)]

    def change_world(self, steps: int) -> None:
        """Show the next world, or another from here."""
        self.world = (self.world + steps) % self.nworld

    def take(self) -> list[tuple[str, float]]:
        """What was asked for since the last look, in order: "step", "reset", "seek" or "jump"."""
        asked = []
        while self._asked:
            asked.append(self._asked.popleft())
        return asked


@dataclasses.dataclass(frozen=True)
class Key:
    """A key of the window: GLFW's code and our name, what it does, and what must be offered."""

    code: int
    name: str
    what: str
    offer: str
    press: Callable[[Controls], None]


# Those of MuJoCo's own viewer where it has them; none that it uses for something else, as it does
# the digits up to 5, most letters and most punctuation.
KEYS = (
    Key(32, "Space", "pause, go on", "pause", Controls.toggle_pause),
    Key(262, "Right", "one step", "step", lambda controls: controls.step(1)),
    Key(263, "Left", "one step back", "seek", lambda controls: controls.step(-1)),
    Key(265, "Up", "1 s on", "seek", lambda controls: controls.jump(1.0)),
    Key(264, "Down", "1 s back", "seek", lambda controls: controls.jump(-1.0)),
    Key(259, "Backspace", "back to the start", "reset", Controls.reset),
    Key(45, "-", "half the speed", "speed", lambda controls: controls.change_speed(-1)),
    Key(61, "=", "twice the speed", "speed", lambda controls: controls.change_speed(1)),
    Key(56, "8", "previous world", "world", lambda controls: controls.change_world(-1)),
    Key(57, "9", "next world", "world", lambda controls: controls.change_world(1)),
)


def offered_keys(controls: Controls) -> list[Key]:
    """The keys that do something with these controls."""
    return [key for key in KEYS if key.offer in controls.offers]
