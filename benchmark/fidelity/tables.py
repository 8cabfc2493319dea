"""The fidelity suite on screen: its plan, a line per run, and the summary."""

from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table

from benchmark.common.measuring import ResultRow
from benchmark.fidelity.plan import Run, Skip
from benchmark.fidelity.results import worst_headlines
from benchmark.fidelity.scenes import BY_NAME


def _cell(row: ResultRow | None) -> str:
    if row is None:
        return ""
    if row["error"] is None:
        return "invalid" if row["invalid"] else "none"
    if row["error_kind"] == "relative":
        return f"{100 * row['error']:.3g} %"
    return f"{row['error']:.3g} {row['unit']}".rstrip()


def show_run(console: Console, run: Run, rows: list[ResultRow]) -> None:
    """A line per run: the headlines and the cost."""
    told = "errors: " + ", ".join(
        f"{quantity} {_cell(row)}" for (_, quantity), row in worst_headlines(rows).items()
    )
    if rows[0]["invalid"]:
        told = f"INVALID: {rows[0]['invalid']}"
    console.print(
        f"{run.scene.name:21} {run.contender.name:13} {run.timestep:<7g} "
        f"{rows[0]['cost'] or 0:8.3f} s/s  {told}",
        soft_wrap=True,
        highlight=False,
        markup=False,
    )


def summary_table(rows: list[ResultRow]) -> Table:
    """Worst headline error, scene by scene: a line per contender, a column per timestep."""
    timesteps = sorted({row["timestep"] for row in rows})
    table = Table(
        "scene",
        "error of",
        "contender",
        *(f"h = {timestep:g} s" for timestep in timesteps),
        box=MARKDOWN,
    )
    cells: dict[tuple[str, str, str], dict[float, ResultRow]] = {}
    for timestep in timesteps:
        for contender in dict.fromkeys(row["contender"] for row in rows):
            some = [
                row for row in rows if (row["timestep"], row["contender"]) == (timestep, contender)
            ]
            for (scene, quantity), row in worst_headlines(some).items():
                cells.setdefault((scene, quantity, contender), {})[timestep] = row
    order = {name: i for i, name in enumerate(BY_NAME)}
    for key in sorted(cells, key=lambda key: (order[key[0]], key[1])):
        table.add_row(*key, *(_cell(cells[key].get(timestep)) for timestep in timesteps))
    return table


def show_plan(console: Console, runs: list[Run], skips: list[Skip]) -> None:
    """What the level leaves out: a line for all scenes with the same reason."""
    for scene, nworld in {run.scene.name: run.nworld for run in runs}.items():
        if nworld < BY_NAME[scene].nworld:
            console.print(
                f"left out: {BY_NAME[scene].nworld - nworld} of {BY_NAME[scene].nworld} starts of "
                f"{scene}: all take too long: --level full",
                highlight=False,
            )
    places: dict[tuple[str, str], dict[tuple[str, float], None]] = {}
    for skip in skips:
        places.setdefault((skip.reason, skip.scene), {})[skip.contender, skip.timestep] = None
    scenes: dict[tuple[str, tuple], list[str]] = {}
    for (reason, scene), where in places.items():
        scenes.setdefault((reason, tuple(where)), []).append(scene)
    for (reason, where), names in scenes.items():
        contenders = ", ".join(dict.fromkeys(contender for contender, _ in where))
        timesteps = ", ".join(dict.fromkeys(f"{timestep:g}" for _, timestep in where))
        console.print(
            f"left out: {'; '.join(names)} on {contenders} at h = {timesteps} s: {reason}",
            soft_wrap=True,
            highlight=False,
            markup=False,
        )
