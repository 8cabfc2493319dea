"""The errors that several modules raise."""


class SettingError(ValueError):
    """A setting has a value that cannot be used. Attributes: `setting`, its name; `problem`."""

    def __init__(self, setting: str, problem: str):
        super().__init__(f"{setting}: {problem}")
        self.setting = setting
        self.problem = problem


class OutOfRoomError(RuntimeError):
    """A run needs larger buffers than there is memory for.

    The simulation that raises it is at the last step that lost nothing, and can be read; it takes
    no further steps.
    """


class ProtocolError(ValueError):
    """What came from elsewhere is no packet or state of ours; the message says what was refused."""
