"""The terminal of a command: what it says goes to stderr, so that stdout is left to its output."""

import logging

from rich.console import Console

console = Console(stderr=True, highlight=False, emoji=False)


def say(text: str) -> None:
    """Print a line on stderr as it is, however wide, above a progress bar where there is one."""
    console.print(text, markup=False, soft_wrap=True)


class _SayingHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        try:
            say(self.format(record))
        except Exception:
            self.handleError(record)


def show_log(name: str | None = None) -> None:
    """Say what the modules of mjsim log from now on, a line each.

    Args:
      name: of the command, to begin each line with; nothing when None.
    """
    prefix = f"{name}: ".replace("%", "%%") if name else ""
    handler = _SayingHandler()
    handler.setFormatter(logging.Formatter(f"{prefix}%(message)s"))
    logger = logging.getLogger("mjsim")
    logger.handlers = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False
