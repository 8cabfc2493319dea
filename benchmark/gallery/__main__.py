"""Draw the pictures of README and docs, offscreen: a run of comfree, and the benchmark's models.

make gallery        # or: python -m benchmark.gallery docs
"""

from mjsim import interrupts

if __name__ == "__main__":
    interrupts.install()

import click

from mjsim.cli import variables


@click.command(help=__doc__.split("\n\n")[0])
@click.argument("folder", type=click.Path(file_okay=False))
def main(folder: str) -> None:
    from benchmark.gallery import pictures  # only here, since --help does without MuJoCo

    pictures.draw_all(folder)


if __name__ == "__main__":
    variables.warn_of_unknown()
    main()
