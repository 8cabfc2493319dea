"""Turn stored results into a page and a summary: who wins where, by how much, and where not.

    python -m benchmark.report                   # make report: the newest whole run of each suite
    python -m benchmark.report speed-A.json fidelity-B.json

Of a scene that is in several of the files, the last named is shown. Writes report.html, one file
that refers to nothing outside itself, and summary.md, both into benchmark/results/. With --into,
the summary takes the place of the one in another Markdown file, between the same marks.
"""

from mjsim import interrupts

if __name__ == "__main__":
    interrupts.install()

import click

from benchmark.common.machine import RESULTS
from mjsim.cli import variables
from mjsim.errors import SettingError


@click.command(help=__doc__.split("\n\n")[0])
@click.argument("files", nargs=-1, type=click.Path())
@click.option(
    "--folder",
    default=str(RESULTS),
    help="Of results, and for the report.  [default: benchmark/results]",
)
@click.option("--into", help="A Markdown file to renew the summary in.")
@click.pass_context
def main(ctx: click.Context, files: tuple[str, ...], folder: str, into: str | None) -> None:
    from benchmark.report.write import (
        write_report,  # only here, since --help does without matplotlib and MuJoCo
    )

    try:
        for path in write_report(files, folder, into):
            click.echo(path)
    except SettingError as error:
        raise click.UsageError(str(error), ctx) from error


if __name__ == "__main__":
    variables.warn_of_unknown()
    main()
