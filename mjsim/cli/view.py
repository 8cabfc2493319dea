"""Run a model in front of a person, as `test_viewer.py` does."""

from mjsim.view.interactive_settings import InteractiveSettings

__all__ = ["InteractiveSettings", "main"]


def main(chosen: InteractiveSettings) -> int:
    from mjsim.view import interactive  # only here, since --help and wrong use do without MuJoCo

    return interactive.main(chosen)
