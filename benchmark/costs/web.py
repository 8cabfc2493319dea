"""What a browser's view costs a simulation, and how often it is brought up to date.

    python -m benchmark.costs.web

test_headless.py runs the 125 bodies of primitives.xml on MuJoCo C and streams them to
local_viewer.py --backend web, each in a process of its own, as users run them. The page is open
nowhere, in a client that reads what a browser reads and draws nothing, or in a headless Chromium,
which draws with the CPU here. Short runs of each take turns, so that a machine that drifts hits all
alike; a ratio is a median over rounds with its quartiles.
"""

from mjsim import interrupts

if __name__ == "__main__":
    interrupts.install()

import click

from mjsim.cli import variables
from mjsim.errors import SettingError


@click.command(help=__doc__.split("\n\n")[0])
@click.option("--rounds", default=8, type=click.IntRange(min=2), show_default=True)
@click.option("--nsteps", default=3000, type=click.IntRange(min=1), help="Steps in a round.")
def main(rounds: int, nsteps: int) -> None:
    from benchmark.costs import web_rounds  # only here, since --help does without viser

    try:
        with interrupts.Unwinding():
            web_rounds.show(rounds, nsteps)
    except SettingError as error:
        raise click.UsageError(str(error)) from error


if __name__ == "__main__":
    variables.warn_of_unknown()
    main()
