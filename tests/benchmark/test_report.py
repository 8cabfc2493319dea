"""The report: who ranks and who does not, what is said of it, and a page that stands alone."""

import copy
import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from browsing import ARTEFACTS, Browser

from benchmark.report import plots, standings
from benchmark.report.markdown import CLOSING, OPENING, summarise
from benchmark.report.page import render
from benchmark.report.results import load, merge, newest
from benchmark.report.standings import Standing
from benchmark.report.story import Story, invalid_rows, tell, worse_sentences
from mjsim.errors import SettingError
from mjsim.model.files import REPOSITORY

HOSTILE = "</title><script>alert('$x_{')</script>|<img src=x onerror=alert(1)>`*"
MACHINE = {"cpu": "a CPU <b>", "cores": 2, "system": "Linux", "python": "3.11"}
MADE = {"date": "2026-11-23", "commit": "abc", "command": "make bench", "level": "standard"}


def spread(value: float) -> dict:
    return {"median": value, "q1": value, "q3": value, "min": value, "max": value}


def step(contender: str, seconds: float, scene="heap", nworld=1, **given) -> dict:
    return {
        "kind": "step",
        "scene": scene,
        "contender": contender,
        "engine": contender.partition("-")[0],
        "device": "cpu",
        "nworld": nworld,
        "family": None,
        "valid": True,
        "invalid": None,
        "time_per_step": spread(seconds),
        "contacts": {"mean": 10.0, "p95": 12.0},
        **given,
    }


def error(contender: str, value: float | None, scene="slide", timestep=0.002, **given) -> dict:
    return {
        "scene": scene,
        "quantity": "depth",
        "variant": "",
        "unit": "mm",
        "headline": True,
        "contender": contender,
        "engine": contender.partition("-")[0],
        "device": "cpu",
        "timestep": timestep,
        "error": value,
        "error_kind": "absolute",
        "cost": 0.1 / timestep,
        "invalid": None,
        **given,
    }


def speed_run(*rows: dict, **given) -> dict:
    benchmarks = [{"extra_info": row} for row in rows]
    return {
        "format": "speed/1",
        **MADE,
        "machine": MACHINE,
        "skipped": [],
        "benchmarks": benchmarks,
        **given,
    }


def fidelity_run(*rows: dict, **given) -> dict:
    return {
        "format": "fidelity/1",
        **MADE,
        "machine": MACHINE,
        "skipped": [],
        "stability": [],
        "ended": "complete",
        "rows": list(rows),
        **given,
    }


def story_of(*documents: dict) -> Story:
    return tell(merge([("run.json", document) for document in documents]))


CONTENDERS = ("mjc", "mjwarp", "comfree-paper", "comfree-warm")
SPEED = speed_run(
    *(
        step(contender, seconds * nworld, nworld=nworld)
        for nworld in (1, 4, 16)
        for contender, seconds in zip(CONTENDERS, (1e-4, 4e-4, 2e-4, 3e-4), strict=True)
    )
)
FIDELITY = fidelity_run(
    *(
        error(contender, value * timestep, timestep=timestep)
        for timestep in (0.001, 0.002, 0.01)
        for contender, value in zip(CONTENDERS, (100.0, 100.0, 3000.0, 200.0), strict=True)
    )
)


# ----------------------------------------------------------------------------------------- ranking


def test_an_invalid_row_never_ranks_and_its_reason_is_told():
    broken = step("comfree-paper", 1e-6, valid=False, invalid="1 world(s) diverged")
    story = story_of(speed_run(broken, step("mjc", 1e-4)))
    (ranking,) = story.speed
    assert [it.label for it in ranking.ranked] == ["mjc"]
    assert ranking.ranked[0].ratio == 1.0
    assert ranking.of("comfree-paper").rank is None
    assert invalid_rows(story) == [("heap, 1 world", "comfree-paper", "1 world(s) diverged")]
    for told in (render(story), summarise(story)):
        assert "1 world(s) diverged" in told


def test_an_invalid_error_never_ranks():
    rows = [error("mjc", 1.0), error("comfree-paper", None, invalid="overflow")]
    (ranking,) = story_of(fidelity_run(*rows)).accuracy
    assert [it.label for it in ranking.ranked] == ["mjc"]


def test_contenders_closer_than_a_tie_share_a_rank():
    placed = standings.rank_standings([Standing("a", 1.04), Standing("b", 1.0), Standing("c", 1.2)])
    assert [(it.label, it.rank) for it in placed] == [("b", 1), ("a", 1), ("c", 3)]


def test_a_chain_of_near_ties_does_not_reach_the_best():
    placed = standings.rank_standings(
        [Standing("a", 1.0), Standing("b", 1.04), Standing("c", 1.08)]
    )
    assert [it.rank for it in placed] == [1, 1, 3]


def test_negligible_errors_are_alike_and_no_error_divides_by_nothing():
    rows = [error("mjc", 0.0), error("mjwarp", 1e-9), error("comfree-paper", 1.0)]
    (ranking,) = story_of(fidelity_run(*rows)).accuracy
    assert [it.rank for it in ranking.standings] == [1, 1, 3]
    assert ranking.of("comfree-paper").ratio == pytest.approx(1.0 / standings.NEGLIGIBLE["mm"])


def test_the_worst_variant_ranks():
    rows = [
        error("mjc", 1.0, variant="a"),
        error("mjc", 5.0, variant="b"),
        error("comfree-paper", 2.0),
    ]
    (ranking,) = story_of(fidelity_run(*rows)).accuracy
    assert [it.label for it in ranking.ranked] == ["comfree-paper", "mjc"]


def test_accuracy_is_ranked_at_a_timestep_that_all_have():
    rows = [error("mjc", 1.0, timestep=0.002)]
    rows += [error(contender, 2.0, timestep=0.01) for contender in ("mjc", "mjwarp")]
    (ranking,) = story_of(fidelity_run(*rows)).accuracy
    assert ranking.timestep == 0.01


def test_who_has_nobody_to_compare_with_wins_nothing():
    story = story_of(speed_run(step("mjc", 1e-4)))
    assert standings.tallies(story.speed) == []


def test_rows_of_several_runs_are_not_ranked_against_each_other():
    old = speed_run(step("mjc", 1e-4), step("comfree-paper", 1e-5), step("mjc", 1.0, scene="wall"))
    new = speed_run(step("mjc", 2e-4))
    story = story_of(old, new)
    assert {it.scene: [one.value for one in it.ranked] for it in story.speed} == {
        "heap": [2e-4],
        "wall": [1.0],
    }


def test_a_contender_on_another_device_is_another_label_of_the_same_colour():
    rows = [step("comfree-paper", 1e-4), step("comfree-paper", 1e-5, device="cuda:0")]
    story = story_of(speed_run(*rows))
    assert story.labels == ("comfree-paper", "comfree-paper on cuda:0")
    assert len(set(plots.colour_of(story.labels).values())) == 1


def test_contenders_of_one_engine_have_their_own_colours():
    labels = [*CONTENDERS, "comfree-paper k=0.1", "comfree-warm p=2", "comfree"]
    assert len(set(plots.colour_of(labels).values())) == len(labels)


# --------------------------------------------------------------------------------------- sentences


def test_where_comfree_is_worse_is_said_with_the_worst_ratio():
    slow = [step("mjc", 1e-3, scene="wall"), step("comfree-paper", 7e-3, scene="wall")]
    rows = [row["extra_info"] for row in SPEED["benchmarks"]] + slow
    told = worse_sentences(story_of(speed_run(*rows), FIDELITY))
    assert (
        "comfree-paper is slower than mjc in 4 of 4 comparisons. Worst: wall, 1 world: "
        "7.00 ms per step against 1.00 ms, 7.0 times." in told
    )
    assert (
        "comfree-paper is less accurate than mjc in 1 of 1 comparisons. Worst: slide, depth: "
        "6.00 mm of error against 0.200 mm, 30 times." in told
    )
    assert "comfree-paper is nowhere slower than mjwarp (3 comparisons)." in told
    assert (
        "comfree-warm is less accurate than mjwarp in 1 of 1 comparisons. Worst: slide, depth: "
        "0.400 mm of error against 0.200 mm, 2.0 times." in told
    )


def test_results_from_before_there_were_two_laws_are_told_under_their_own_name():
    story = story_of(fidelity_run(error("mjc", 1.0), error("comfree", 2.0)))
    assert "comfree is less accurate than mjc in 1 of 1 comparisons." in summarise(story)
    assert "comfree" in render(story)


def test_a_divergence_where_mujoco_is_well_is_said():
    rows = [error("mjc", 1.0), error("comfree-paper", None, invalid="diverged at 1 s")]
    stability = [
        {"scene": "slide", "contender": contender, "device": "cpu", "died": [], **largest}
        for contender, largest in (
            ("mjc", {"largest_timestep": 0.02}),
            ("comfree-paper", {"largest_timestep": None}),
        )
    ]
    told = worse_sentences(story_of(fidelity_run(*rows, stability=stability)))
    assert told == [
        "comfree-paper does not rank in slide, depth, where mjc does: diverged at 1 s.",
        "comfree-paper survives slide at no timestep tried, mjc up to h = 0.02 s.",
    ]


def test_figures_read_well():
    shown = [standings.quantity(value, standings.STEP_TIME) for value in (1.64e-5, 0.0407, 2.0)]
    assert shown == ["16.4 us", "40.7 ms", "2.00 s"]
    assert standings.quantity(17.2, "%") == "1,720 %"
    assert standings.quantity(9.999e-4, standings.STEP_TIME) == "1,000 us"
    assert [standings.times(ratio) for ratio in (1.04, 9.96, 4271.3)] == ["1.0", "10", "4,271"]


# ---------------------------------------------------------------------------- what is not there


@pytest.mark.parametrize(
    ("documents", "said"),
    [
        ([SPEED], "Not measured: make fidelity."),
        ([FIDELITY], "Not measured: make bench."),
        ([speed_run(step("mjc", 1e-4))], "Not measured at three sizes or more"),
        ([speed_run()], "No results of comfree beside MuJoCo."),
        ([fidelity_run(ended=None)], "ended before it was done, by a crash"),
    ],
)
def test_what_is_missing_is_said(documents, said):
    assert said in render(story_of(*documents))
    assert summarise(story_of(*documents))


def test_what_was_skipped_is_said_with_its_reason():
    skip = {"scene": "heap", "contender": "mjwarp", "device": "cuda:0", "reason": "no GPU here"}
    story = story_of(speed_run(step("mjc", 1e-4), skipped=[skip, {**skip, "scene": "wall"}]))
    for told in (render(story), summarise(story)):
        assert "mjwarp on cuda:0" in told
        assert "no GPU here" in told


# ----------------------------------------------------------------------------------- bad files


def run_report(*arguments: object) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "benchmark.report", *map(str, arguments)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_the_newest_of_each_suite_become_a_page_and_a_summary(tmp_path):
    for name, document in (("speed-a", SPEED), ("fidelity-a", FIDELITY)):
        (tmp_path / f"{name}.json").write_text(json.dumps(document))
    done = run_report("--folder", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "<h1>" in (tmp_path / "report.html").read_text()
    assert (
        "| slide: depth | **0.200 mm** | **0.200 mm** | 6.00 mm (x30) | 0.400 mm (x2.0) |"
        in (tmp_path / "summary.md").read_text()
    )


def test_the_summary_takes_the_place_of_the_one_in_another_file(tmp_path):
    (tmp_path / "speed-a.json").write_text(json.dumps(SPEED))
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{OPENING}\nof last year\n{CLOSING}\nafter\n")
    for _ in range(2):
        done = run_report("--folder", tmp_path, "--into", readme)
        assert done.returncode == 0, done.stderr
    text = readme.read_text()
    assert text.startswith(f"before\n{OPENING}\n\nSpeed: ")
    assert text.endswith(f"{CLOSING}\nafter\n")
    assert "last year" not in text
    assert text.count(OPENING) == 1
    readme.write_text("nothing to renew")
    done = run_report("--folder", tmp_path, "--into", readme)
    assert done.returncode == 2
    assert "has no <!-- made by: make report -->" in " ".join(done.stderr.split())
    assert readme.read_text() == "nothing to renew"


def test_a_newer_run_of_a_part_does_not_hide_the_whole(tmp_path):
    runs = {
        "speed-whole": SPEED,
        "speed-part": {**SPEED, "selected": "scenes 'pendula'"},
        "speed-stopped": {**SPEED, "ended": "a signal"},
        "speed-quick": {**SPEED, "level": "quick"},
        "fidelity-stopped": {**FIDELITY, "ended": "SIGINT"},
    }
    for age, (name, document) in enumerate(runs.items()):
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(document))
        os.utime(path, (age, age))
    assert [path.stem for path in newest(tmp_path)] == ["speed-whole", "fidelity-stopped"]


def test_a_file_of_another_format_is_one_line_and_status_2(tmp_path):
    path = tmp_path / "other.json"
    path.write_text('{"benchmarks": []}')
    done = run_report(path, "--folder", tmp_path)
    assert done.returncode == 2
    assert "other.json' is of neither suite: speed/1, fidelity/1" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "report.html").exists()


def altered(document: dict, change) -> str:
    made = copy.deepcopy(document)
    change(made)
    return json.dumps(made)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "cannot be read"),
        ("[]", "is of neither suite"),
        (altered(SPEED, lambda it: it.pop("skipped")), "has no 'skipped'"),
        (
            altered(SPEED, lambda it: it["benchmarks"][0]["extra_info"].pop("contacts")),
            "benchmark 0 has no 'contacts'",
        ),
        (
            altered(
                SPEED,
                lambda it: it["benchmarks"][1]["extra_info"]["time_per_step"].update(median=0.0),
            ),
            "benchmark 1 took no time",
        ),
        (altered(FIDELITY, lambda it: it["rows"][0].update(error="1")), "row 0, 'error' is '1'"),
        (altered(FIDELITY, lambda it: it["rows"][0].update(error=1e999)), "'error' is 'inf'"),
        (altered(FIDELITY, lambda it: it["rows"][0].update(timestep=-1)), "row 0: no timestep"),
    ],
)
def test_a_damaged_file_is_refused_by_what_is_wrong_with_it(tmp_path, text, said):
    path = tmp_path / "run.json"
    path.write_text(text)
    with pytest.raises(SettingError, match=re.escape(said)):
        load(path)


# ---------------------------------------------------------------------------------------- the page


def hostile_story() -> Story:
    """Every name and text that a file can bring is hostile."""
    engines = {HOSTILE: "comfree", "mjc": "mjc"}
    rows = [
        step(contender, seconds, scene=HOSTILE, nworld=nworld, engine=engine)
        for nworld in (1, 4, 16)
        for (contender, engine), seconds in zip(engines.items(), (2e-4, 1e-4), strict=True)
    ]
    rows.append(step("mjc", 1.0, scene=HOSTILE, nworld=2, valid=False, invalid=HOSTILE))
    stream = step(HOSTILE, 1.0) | {"kind": "stream", "over_none": spread(1.0)}
    errors = [
        error(contender, value, scene=HOSTILE, timestep=timestep, quantity=HOSTILE, unit=HOSTILE)
        | {"engine": engine}
        for timestep in (0.001, 0.002)
        for (contender, engine), value in zip(engines.items(), (3.0, 1.0), strict=True)
    ]
    skip = {"scene": HOSTILE, "contender": HOSTILE, "device": HOSTILE, "reason": HOSTILE}
    stability = {
        "scene": HOSTILE,
        "contender": HOSTILE,
        "device": "cpu",
        "largest_timestep": None,
        "died": [HOSTILE],
    }
    made = dict.fromkeys(("date", "commit", "command", "level"), HOSTILE)
    made["machine"] = {"cpu": HOSTILE, "cores": HOSTILE, "devices": {HOSTILE: HOSTILE}}
    scenes = {HOSTILE: HOSTILE}
    return story_of(
        speed_run(*rows, stream, skipped=[skip], **made),
        fidelity_run(*errors, stability=[stability], scenes=scenes, ended=HOSTILE, **made),
    )


class Elements(HTMLParser):
    """The elements of a page, and their attributes."""

    def __init__(self, page: str):
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str, str]] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]


def test_nothing_of_a_file_becomes_markup():
    story = hostile_story()
    found = Elements(render(story))
    assert not found.tags & {"script", "img", "iframe", "object"}
    assert not [name for _, name, _ in found.attributes if name.startswith("on")]
    summary = summarise(story)
    assert "<script>" not in summary.replace("\\<", "")
    # Every table of the summary keeps its shape: no cell holds a bare bar.
    for block in re.findall(r"(?:^\|.*\n)+", summary, re.MULTILINE):
        lines = block.splitlines()
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1


def test_the_page_refers_to_nothing_outside_itself():
    page = render(story_of(SPEED, FIDELITY))
    for _, name, value in Elements(page).attributes:
        if name.rpartition(":")[2] in ("src", "href", "srcset", "data", "action"):
            assert value.startswith(("#", "data:")), (name, value)
    assert "@import" not in page
    assert all(target.startswith("#") for target in re.findall(r"url\((.*?)\)", page))
    assert page.count("<svg") == 2  # the curves of a scene, and scaling with worlds


@pytest.fixture
def browser(tmp_path: Path):
    browser = Browser(tmp_path / "profile", (1500, 1100))
    yield browser
    browser.close()


@pytest.mark.parametrize(
    ("name", "story"),
    [("report", lambda: story_of(SPEED, FIDELITY)), ("report-hostile", hostile_story)],
)
def test_a_browser_shows_the_page_and_asks_for_nothing_else(tmp_path, browser, name, story):
    path = tmp_path / "report.html"
    path.write_text(render(story()))
    browser.driver.get(path.as_uri())
    assert "Where comfree is worse than MuJoCo" in browser.text()
    drawn = browser.driver.execute_script(
        "return [...document.querySelectorAll('svg')].map(it => it.getBoundingClientRect().width)"
    )
    assert len(drawn) == 2
    assert min(drawn) > 300
    wide = browser.driver.execute_script("return document.documentElement.scrollWidth")
    assert wide <= 1500
    assert [it for it in browser.requests() if not it.startswith("data:")] == [path.as_uri()]
    assert browser.driver.get_log("browser") == []
    ARTEFACTS.mkdir(exist_ok=True)
    browser.driver.save_screenshot(ARTEFACTS / f"{name}.png")
