"""The report as one HTML page, which refers to nothing outside itself."""

from typing import Any

from benchmark.report import plots, standings
from benchmark.report.markup import Markup, bullets, element, joined, table
from benchmark.report.results import SUITES, made_with, why_partial
from benchmark.report.standings import Curves, label_of
from benchmark.report.story import (
    BEST_HEAD,
    Story,
    best_lines,
    invalid_rows,
    lead_sentences,
    slope,
    sweep_sentence,
    worse_sentences,
)
from benchmark.report.tables import (
    error_cell,
    heat_table,
    legend,
    ranking_table,
    speed_cell,
    speed_details,
    stream_table,
    tally_table,
    worse_details,
)
from benchmark.speed.compare import TIE
from benchmark.sweep import results as sweep_results
from benchmark.sweep.results import CaseRow

STYLE = """
body { font: 14px/1.45 system-ui, sans-serif; margin: 1.5rem auto; max-width: 1500px;
  padding: 0 1rem; color: #222; background: #fff }
h1 { margin: 0; font-size: 1.5rem }
h2 { margin: 2rem 0 .5rem; border-bottom: 2px solid #ddd }
h3 { margin: .3rem 0 }
h3 small { font-weight: normal; color: #666 }
small { color: #555; font-size: .82em }
.source { color: #555; font-size: .86em }
.lead li { font-size: 1.08rem; margin: .2rem 0 }
table { border-collapse: collapse }
th, td { padding: .18rem .55rem; text-align: left; border-bottom: 1px solid #e6e6e6;
  white-space: nowrap }
th { font-size: .9em }
.wide { overflow-x: auto }
section { min-width: 0; max-width: 100%; box-sizing: border-box }
p, li, h3 { overflow-wrap: anywhere }
.tally td { font-size: 1.05rem; padding: .35rem .8rem }
.ranking { font-size: .86em }
.ranking td { min-width: 5.5em; padding: .15rem .4rem }
.ranking td.scene { font-weight: 600 }
.ranking td.about { color: #555; white-space: normal; min-width: 4em; max-width: 17em }
td.best, td.best small { color: #fff }
td.tie { background: #eee }
td.bad { color: #a00 }
.chip { color: #fff; border-radius: 1em; padding: .1em .8em; margin-right: .5em;
  font-weight: 600 }
.columns { display: flex; flex-wrap: wrap; gap: 1rem; align-items: flex-start }
.figures { display: flex; flex-wrap: wrap; gap: 1rem; align-items: flex-start }
.figure { border: 1px solid #e2e2e2; border-radius: 6px; padding: .6rem; width: min-content;
  min-width: 20rem; max-width: 100%; overflow-x: auto }
.legend { position: sticky; top: 0; background: #fff; padding: .5rem 0; z-index: 1 }
svg { max-width: 100%; height: auto }
.figure svg { max-width: none }
code { background: #f3f3f3; padding: .1em .3em; white-space: pre-wrap }
"""


def render(story: Story) -> str:
    """The page."""
    colours = plots.colour_of(story.labels)
    parts: list[object] = [
        element("h1", "Which engine, how fast, and how right"),
        _sources_line(story),
        tally_table(story, colours),
        _lead(story),
        element("h2", "Where comfree is worse than MuJoCo"),
        bullets(worse_sentences(story)),
        worse_details(story),
        *_ranking_part(story, colours),
        *_curve_part(story, colours),
        *_scaling_part(story, colours),
        *_stability_part(story),
    ]
    for name, rows in story.sweeps:
        parts += _sweep_part(name, rows)
    parts += _rest(story)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        '<link rel="icon" href="data:,"><title>Benchmark report</title>'
        f"<style>{STYLE}</style></head><body>{joined(parts)}</body></html>\n"
    )


def _sources_line(story: Story) -> Markup:
    lines = [
        f"{SUITES[document['format']]}: {made_with(document)}; {document['date']}"
        for _, document in story.results.sources
    ]
    return element("p", joined(joined([line, Markup("<br>")]) for line in lines), class_="source")


def _lead(story: Story) -> Markup:
    items = [
        element("li", element("b", f"{subject}. "), text) for subject, text in lead_sentences(story)
    ]
    return element("ul", *items, class_="lead")


def _ranking_part(story: Story, colours: dict[str, str]) -> list[Markup]:
    negligible = ", ".join(
        f"{100 * limit:g} %" if unit == "%" else f"{limit:g} {unit}".rstrip()
        for unit, limit in standings.NEGLIGIBLE.items()
    )
    text = (
        f"Filled: the best; all that are within {100 * (TIE - 1):.0f} % of it share that. "
        "Bars: how many times the best, on a logarithmic scale to 1,000. "
        "Grey: no difference, or nobody to compare with. "
        f"Errors up to {negligible} count as none. Invalid rows do not rank."
    )
    return [
        element("h2", "Who wins where"),
        element("p", text),
        element("div", *_ranking_sections(story, colours), class_="columns"),
    ]


def _rest(story: Story) -> list[object]:
    """What streaming costs, what does not rank, what was skipped, all rows, and the files."""
    results = story.results
    streams = [row for row in results.speed if row["kind"] == "stream"]
    parts: list[object] = [element("h2", "What streaming and recording cost")]
    parts += [stream_table(streams) if streams else element("p", "Not measured: make bench.")]
    unranked = invalid_rows(story)
    parts += [element("h2", "Invalid or without a value, never ranked")]
    parts += [table(("where", "who", "why"), unranked) if unranked else "Nothing."]
    skips = standings.told_skips(results.skipped)
    parts += [element("h2", "Skipped")]
    parts += [table(("why", "who", "rows", "where"), skips) if skips else element("p", "Nothing.")]
    steps = [row for row in results.speed if row["kind"] == "step"]
    if steps:
        summary = element("summary", f"All {len(steps)} rows of the speed suite")
        parts += [element("h2", "All rows"), element("details", summary, speed_details(steps))]
    return [*parts, element("h2", "Made from"), *(_source(*it) for it in results.sources)]


def _ranking_sections(story: Story, colours: dict[str, str]) -> list[Markup]:
    made = []
    for title, rankings, cell, target in (
        ("Speed: time per step of all worlds", story.speed, speed_cell, "make bench"),
        (
            f"Accuracy: error of the worst variant, {standings.timesteps(story.accuracy)}",
            story.accuracy,
            error_cell,
            "make fidelity",
        ),
    ):
        if rankings:
            made.append(
                element(
                    "section",
                    element("h3", title),
                    ranking_table(rankings, story.labels, colours, cell),
                )
            )
        else:
            made.append(
                element(
                    "section",
                    element("h3", title.partition(":")[0]),
                    element("p", f"Not measured: {target}."),
                )
            )
    return made


def _curve_part(story: Story, colours: dict[str, str]) -> list[Markup]:
    title = element("h2", "Error against cost")
    if not story.curves:
        return [title, element("p", "Not measured: make fidelity.")]
    text = (
        "Down and left is better. A point per timestep, with the timestep in ms beside it; the "
        "error is that of the worst variant. Hollow points on the dotted line: errors that count "
        "as none."
    )
    return [
        title,
        element("p", text),
        legend(story, colours),
        element("div", *curve_sections(story, colours), class_="figures"),
    ]


def _scaling_part(story: Story, colours: dict[str, str]) -> list[Markup]:
    parts = [element("h2", "Scaling")]
    for against in ("contacts", "worlds"):
        fits = [fit for fit in story.fits if fit["against"] == against]
        parts.append(element("h3", f"Time per step against {against}"))
        if not fits:
            parts.append(element("p", "Not measured at three sizes or more: make bench."))
            continue
        parts.append(Markup(plots.draw_scaling(fits, colours)))
        parts.append(
            element(
                "details",
                element("summary", "Fitted log-log slopes, with standard errors"),
                table(
                    ("scene", "contender", "slope", "from 100 on", "points"),
                    [
                        (
                            fit["scene"],
                            label_of(fit),
                            slope(fit["fit"]),
                            slope(fit["fit_from_100"]),
                            str(fit["fit"]["points"]),
                        )
                        for fit in fits
                    ],
                ),
            )
        )
    return parts


def _sweep_part(name: str, rows: list[CaseRow]) -> list[Markup]:
    maps = [
        element(
            "section",
            element("h3", it.subject, " ", element("small", it.quantity)),
            heat_table(it),
            class_="figure",
        )
        for it in sweep_results.heat_maps(rows)
    ]
    return [
        element("h2", f"Sweep {name}"),
        element("p", sweep_sentence(rows)),
        table(BEST_HEAD, best_lines(rows)),
        element("div", *maps, class_="figures"),
    ]


def _stability_part(story: Story) -> list[Markup]:
    stability = story.results.stability
    parts = [element("h2", "Largest timestep that survives")]
    if not stability:
        return [*parts, element("p", "Not measured: make fidelity.")]
    died = standings.unstable(stability)
    if not died:
        return [*parts, element("p", "All scenes survive all timesteps.")]
    lines = [
        (
            it["scene"],
            label_of(it),
            f"{it['largest_timestep']:g} s" if it["largest_timestep"] else "none tried",
            ", ".join(map(str, it["died"])),
        )
        for it in died
    ]
    survived = len(stability) - len(died)
    return [
        *parts,
        table(("scene", "contender", "survives up to", "did not survive, s"), lines),
        element(
            "p", f"The other {survived} of {len(stability)} pairs survive every timestep tried."
        ),
    ]


def _source(name: str, document: dict[str, Any]) -> Markup:
    lines = [
        ("file", name),
        ("date", document["date"]),
        ("commit", document["commit"]),
        ("command", element("code", document["command"])),
        ("level", document["level"]),
        ("machine and versions", made_with(document)),
        ("complete", why_partial(document) or "yes"),
    ]
    if isinstance(document.get("overhead"), (int, float)):
        lines.append(
            ("the suite's own time", f"at most {100 * document['overhead']:.2f} % of a round")
        )
    return table((SUITES[document["format"]], ""), lines)


def curve_sections(story: Story, colours: dict[str, str]) -> list[Markup]:
    """A figure per scene, and a line that names the quantities without an error."""
    scenes: dict[str, list[Curves]] = {}
    for curve in story.curves:
        scenes.setdefault(curve.scene, []).append(curve)
    about: dict[str, object] = {}
    for _, document in story.results.sources:
        if isinstance(document.get("scenes"), dict):
            about |= document["scenes"]
    found = []
    for scene, several in scenes.items():
        shown = [it for it in several if not it.flat and _has_points(it)]
        told: list[object] = [element("h3", scene, " ", element("small", about.get(scene, "")))]
        if shown:
            told.append(Markup(plots.draw_curves(shown, colours)))
        flat = [it.quantity for it in several if it.flat]
        if flat:
            told.append(element("p", f"No error at any timestep: {'; '.join(flat)}."))
        nothing = [it.quantity for it in several if not it.flat and not _has_points(it)]
        if nothing:
            told.append(element("p", f"Nothing valid to draw: {'; '.join(nothing)}."))
        found.append(element("section", *told, class_="figure"))
    return found


def _has_points(curve: Curves) -> bool:
    return any(
        point.error is not None and point.cost for it in curve.points.values() for point in it
    )
