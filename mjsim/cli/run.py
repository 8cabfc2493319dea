"""`mjsim run`: run a model headless; `test_headless.py` is the same."""

from mjsim import options
from mjsim.run.headless_settings import HeadlessSettings

__all__ = ["HeadlessSettings", "main"]


def main(chosen: HeadlessSettings) -> int:
    """Run; the exit status."""
    from mjsim.console import show_log  # only here, since --help and wrong use do without MuJoCo
    from mjsim.run import headless

    show_log()
    return headless.main(chosen, options.command_name())
