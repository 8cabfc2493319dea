"""The error that every module raises for a setting that cannot be used."""


class SettingError(ValueError):
    """A setting has a value that cannot be used. Attributes: `setting`, its name; `problem`."""

    def __init__(self, setting: str, problem: str):
        super().__init__(f"{setting}: {problem}")
        self.setting = setting
        self.problem = problem
