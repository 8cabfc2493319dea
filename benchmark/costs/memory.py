"""What the warm law's memory costs: matching contacts with the last step's, and keeping them.

    python -m benchmark.costs.memory                 # make bench-memory
    python -m benchmark.costs.memory --device cuda:0

Against the whole step, in rounds that take turns, on many contacts in one world and on many worlds.
"""

from mjsim import interrupts

if __name__ == "__main__":
    interrupts.install()

import click

from mjsim.cli import variables
from mjsim.errors import SettingError


@click.command(help=__doc__.split("\n\n")[0])
@click.option("--device", default="cpu", envvar="WARP_DEVICE", show_default=True)
@click.option("--rounds", default=15, type=click.IntRange(min=4), show_default=True)
@click.pass_context
def main(ctx: click.Context, device: str, rounds: int) -> None:
    from benchmark.costs import memory_rounds  # only here, since --help does without Warp

    try:
        memory_rounds.show(device, rounds)
    except SettingError as error:
        raise click.UsageError(str(error), ctx) from error


if __name__ == "__main__":
    variables.warn_of_unknown()
    main()
