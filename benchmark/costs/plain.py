"""What a step takes longer where comfree_warp uses public functions of Warp and MuJoCo Warp alone.

    python -m benchmark.costs.plain                      # make bench-plain

That is so with COMFREE_PLAIN=1 and with versions that have not been tested. The two take turns,
round by round, in one process; both step from the same state, and must end in the same one, bit for
bit.
"""

from mjsim import interrupts

if __name__ == "__main__":
    interrupts.install()

import functools
import sys

import click

from mjsim.cli import variables


@click.command(help=__doc__.split("\n\n")[0])
@click.option("--rounds", default=15, type=click.IntRange(min=4), show_default=True)
@click.option("--nsteps", default=200, type=click.IntRange(min=1), show_default=True)
def main(rounds: int, nsteps: int) -> None:
    import numpy as np  # only here, since --help does without Warp

    from benchmark.common.measuring import interleaved_times, median_and_quartiles, round_ratios
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
            simulations = {}
            for way, plain in (("usual", False), ("plain", True)):
                with changed(private, plain=plain):
                    simulations[way] = engines.make_simulation(mjm, engine, "cpu", **laws)
            steps = {
                way: functools.partial(simulation.step, nsteps)
                for way, simulation in simulations.items()
            }
            # The first round settles caches and clocks.
            times = interleaved_times(steps, rounds + 1)
            ratios = round_ratios(times["plain"], times["usual"])[1:]
            usual, plain = (simulation.read("qpos") for simulation in simulations.values())
            agree = np.array_equal(usual, plain)
            differ |= not agree
            name = f"{engine} {law or ''}".strip()
            print(f"| {model} | {name} | {median_and_quartiles(ratios)} | {agree} |")
    sys.exit(int(differ))


if __name__ == "__main__":
    variables.warn_of_unknown()
    main()
