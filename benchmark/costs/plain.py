"""What a step takes longer where comfree_warp uses public functions of Warp and MuJoCo Warp alone.

    python -m benchmark.costs.plain                      # make bench-plain

That is so with COMFREE_PLAIN=1 and with versions that have not been tested. The two take turns,
round by round, in one process; both step from the same state, and must end in the same one, bit for
bit.
"""

from mjsim import interrupts

if __name__ == "__main__":
    interrupts.install()

import statistics
import sys
import time

import click

from mjsim.cli import variables


def _median_and_quartiles(ratios: list[float]) -> str:
    low, middle, high = statistics.quantiles(ratios, n=4)
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"


@click.command(help=__doc__.split("\n\n")[0])
@click.option("--rounds", default=15, type=click.IntRange(min=4), show_default=True)
@click.option("--nsteps", default=200, type=click.IntRange(min=1), show_default=True)
def main(rounds: int, nsteps: int) -> None:
    import numpy as np  # only here, since --help does without Warp

    from comfree_warp.runtime import private
    from comfree_warp.runtime.changes import changed
    from mjsim import engines

    print("| model | engine | plain / usual: median (quartiles) | steps agree bit for bit |")
    print("|---|---|---|---|")
    differ = False
    for model in ("primitives", "humanoid/humanoid", "hand/env_hand_cube"):
        mjm = engines.load_model(f"benchmark/test_data/{model}.xml")
        for engine, law in (("comfree", "paper"), ("comfree", "warm"), ("mjwarp", None)):
            laws = {"law": law} if law else {}
            simulations = []
            for plain in (False, True):
                with changed(private, plain=plain):
                    simulations.append(engines.make_simulation(mjm, engine, "cpu", **laws))
            ratios = []
            for _ in range(rounds + 1):
                seconds = []
                for simulation in simulations:
                    start = time.perf_counter()
                    simulation.step(nsteps)
                    seconds.append(time.perf_counter() - start)
                ratios.append(seconds[1] / seconds[0])
            usual, plain = (simulation.read("qpos") for simulation in simulations)
            agree = np.array_equal(usual, plain)
            differ |= not agree
            name = f"{engine} {law or ''}".strip()
            # The first round settles caches and clocks.
            print(f"| {model} | {name} | {_median_and_quartiles(ratios[1:])} | {agree} |")
    sys.exit(int(differ))


if __name__ == "__main__":
    variables.warn_of_unknown()
    main()
