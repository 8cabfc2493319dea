"""`mjsim view`: run a model in front of a person; `test_viewer.py` is the same."""

from mjsim import options
from mjsim.view.interactive_settings import InteractiveSettings

__all__ = ["InteractiveSettings", "main"]


def main(chosen: InteractiveSettings) -> int:
    """Run until the person has seen enough; the exit status."""
    from mjsim.console import show_log  # only here, since --help and wrong use do without MuJoCo
    from mjsim.view import interactive

    show_log()
    return interactive.main(chosen, options.command_name())
