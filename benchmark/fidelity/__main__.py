"""How right the engines are: small scenes with known answers, over a sweep of timesteps.

    python -m benchmark.fidelity                                    # make fidelity
    python -m benchmark.fidelity --level quick --contenders "comfree-paper,comfree-paper k=0.1"
    python -m benchmark.fidelity --scenes "dense pile" --timesteps 0.002 --json pile.json

Every engine gets the same model, start, controls and integrator, and is measured with the same
ruler (measures.py). The scenes are in scenes/. The results are written after
every run: Ctrl-C, or a crash, keeps what was done.

The JSON file has `rows`, one per contender, scene, timestep, quantity and variant. A row holds what
was measured (`value`, `reference`, `reference_kind`, `error`, `error_kind`, `unit`), what it cost
(`cost`: s of wall time per simulated second, all `nworld` worlds together), why it must not rank
(`invalid`, with `error` null; or null), its whole definition, and with what it was made. Scenes are
ranked by the quantities with `headline` true, by the error of their worst variant. Rows of the same
`series` may be compared over time. Beside the rows: `stability`, the largest timestep that survives
per scene and contender; `skipped`, what the level left out; `ended`, which is "complete", the name
of a signal, or null after a crash.
"""

import sys

from mjsim import interrupts

if __name__ == "__main__":
    interrupts.install()

import click

from benchmark.common import contenders as contending
from benchmark.common import levels
from mjsim.cli import variables
from mjsim.errors import SettingError


@click.command(help=__doc__.split("\n\n")[0])
@click.option("--contenders", "names", default=contending.DEFAULT, show_default=True)
@click.option("--device", default="cpu", envvar="WARP_DEVICE", show_default=True)
@click.option("--scenes", "words", help="Words of scene names, between semicolons.  [default: all]")
@click.option("--timesteps", "sweep", help="In s, between commas.  [default: the level's]")
@click.option("--level", type=click.Choice(levels.FIDELITY), default="standard", show_default=True)
@click.option(
    "--integrator",
    type=click.Choice(["implicitfast", "euler", "implicit"]),
    default="implicitfast",
    show_default=True,
)
@click.option("--json", "path", help="Results.  [default: benchmark/results/fidelity-DATE.json]")
@click.pass_context
def main(
    ctx: click.Context,
    names: str,
    device: str,
    words: str | None,
    sweep: str | None,
    level: str,
    integrator: str,
    path: str | None,
) -> None:
    from benchmark.fidelity import suite  # only here, since --help does without Warp

    try:
        ended_by = suite.run_suite(names, device, words, sweep, level, integrator, path)
    except SettingError as error:
        raise click.UsageError(str(error), ctx) from error
    if ended_by:
        sys.exit(128 + ended_by)


if __name__ == "__main__":
    variables.warn_of_unknown()
    main()
