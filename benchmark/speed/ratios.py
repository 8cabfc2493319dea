"""How fast the engines are against each other, and the scripts against the bare engine.

    python -m benchmark.speed.ratios                             # make bench-engine
    python -m benchmark.speed.ratios --device cuda:0 --nworld 1024

Every figure is a ratio within one run. The competitors take turns, round by round, so that a
machine that drifts hits all alike; each is compiled, captured and settled before the clock.
"""

import os

from mjsim import interrupts

if __name__ == "__main__":
    interrupts.install()

import click

from mjsim.cli import variables
from mjsim.cores import usable_cores


@click.command(help=__doc__.split("\n\n")[0])
@click.option("--device", default="cpu", envvar="WARP_DEVICE", show_default=True)
@click.option("--nworld", default=1, type=click.IntRange(min=1), show_default=True)
@click.option("--rounds", default=15, type=click.IntRange(min=4), show_default=True)
@click.option("--cores", default=1, type=click.IntRange(min=1), show_default=True)
def main(device: str, nworld: int, rounds: int, cores: int) -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    elif cores < usable_cores():
        click.echo("warning: --cores has no effect on this system: all are used", err=True)
    from benchmark.speed import ratio_rounds  # only here, since --help does without Warp

    ratio_rounds.show(device, nworld, rounds)


if __name__ == "__main__":
    variables.warn_of_unknown()
    main()
