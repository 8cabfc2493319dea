"""Run a model headless, as `test_headless.py` does."""

from mjsim.run.headless_settings import HeadlessSettings

__all__ = ["HeadlessSettings", "main"]


def main(chosen: HeadlessSettings) -> int:
    from mjsim.run import headless  # only here, since --help and wrong use do without MuJoCo

    return headless.main(chosen)
