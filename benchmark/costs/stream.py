"""What streaming costs the simulation, and how late a state reaches its viewer.

    python -m benchmark.costs.stream

Viewers run in processes of their own, as users run them. Short runs with and without them take
turns, so that a machine that drifts hits all alike; a ratio is a median over rounds with its
quartiles.
Throughput is that of test_headless.py's loop on MuJoCo C, unpaced.
"""

from mjsim import interrupts

if __name__ == "__main__":
    interrupts.install()

import click

from mjsim.cli import variables


@click.command(help=__doc__.split("\n\n")[0])
@click.option("--rounds", default=60, type=click.IntRange(min=4), show_default=True)
@click.option("--nsteps", default=2000, type=click.IntRange(min=1), help="Steps in a round.")
@click.option("--seconds", default=10.0, help="Length of the measurements that are no ratios.")
def main(rounds: int, nsteps: int, seconds: float) -> None:
    from benchmark.costs import stream_rounds  # only here, since --help does without MuJoCo

    with interrupts.Unwinding():
        stream_rounds.show(rounds, nsteps, seconds)


if __name__ == "__main__":
    variables.warn_of_unknown()
    main()
