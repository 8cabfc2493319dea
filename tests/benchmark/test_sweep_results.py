"""The table of a sweep, and what is found in it: the best cases, the best law, heat maps."""

import dataclasses
import json
import subprocess
import sys

import pytest

from benchmark.sweep import results as sweep_results
from benchmark.sweep.cases import Case
from benchmark.sweep.table import CaseTable, read_rows
from mjsim.errors import SettingError
from mjsim.model.files import REPOSITORY


def row(case: str, **given) -> dict:
    base = dataclasses.asdict(Case(scene="grasp"))
    return {
        "format": "sweep/1",
        "case": case,
        "status": "done",
        "error": None,
        "measured": {},
        **base,
        **given,
    }


def test_a_row_that_a_crash_cut_off_is_left_out_and_written_again(tmp_path):
    path = tmp_path / "table.jsonl"
    path.write_text(json.dumps(row("a")) + "\n" + json.dumps(row("b"))[:20])
    with CaseTable(path) as table:
        assert [it["case"] for it in table.rows] == ["a"]
        table.append(row("b"))
    assert [it["case"] for it in read_rows(path)] == ["a", "b"]


def test_rows_from_before_there_were_two_laws_are_read(tmp_path):
    path = tmp_path / "table.jsonl"
    old = row("a", stiffness=0.1)
    del old["law"], old["passes"]
    path.write_text(json.dumps(old) + "\n")
    assert read_rows(path) == [row("a", stiffness=0.1)]


def test_two_sweeps_never_write_one_table(tmp_path):
    with CaseTable(tmp_path / "table.jsonl"), pytest.raises(SettingError, match="in use"):
        CaseTable(tmp_path / "table.jsonl")


@pytest.mark.parametrize(
    "line",
    [
        *("{}", "[]", "nonsense", '{"format": "sweep/2"}', "[" * 100_000),
        json.dumps(row("a", stiffness="0.1")),
        json.dumps(row("a", law=1)),
        json.dumps(row("a", measured={"depth": float("nan")})),
        json.dumps(row("a", measured=[1.0])),
    ],
)
def test_a_file_that_is_no_table_is_left_as_it_is(tmp_path, line):
    path = tmp_path / "table.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(SettingError, match="line 1 is no row of a sweep"):
        CaseTable(path)
    assert path.read_text() == line + "\n"


# --------------------------------------------------------------------------------------- results


def law_row(
    k: float | None, d: float | None, depth: float | None, slip: float, **given
) -> list[dict]:
    return [
        row(f"{name}{k}{d}", scene=name, stiffness=k, damping=d, measured={"error": value}, **given)
        for name, value in (("dense pile", depth), ("grasp", slip))
    ]


LAW_ROWS = [
    *law_row(0.1, 0.01, 4.0, 8.0),
    *law_row(0.1, 0.1, 2.0, 3.0),
    *law_row(0.4, 0.01, 1.0, 9.0),
    *law_row(0.4, 0.1, None, 1.0),
]


def test_the_best_case_is_told_of_each_subject():
    found = {(it.subject, it.value, it.of) for it in sweep_results.best_cases(LAW_ROWS)}
    assert found == {("dense pile", 1.0, 3), ("grasp", 1.0, 4)}


def test_the_fastest_is_the_best_by_speed():
    rows = [row(str(v), seed=v, measured={sweep_results.FASTER: float(v)}) for v in (1, 3, 2)]
    assert [it.value for it in sweep_results.best_cases(rows)] == [3.0]


def test_a_case_that_is_not_done_never_wins():
    bad = row("bad", status="diverged", measured={"error": 0.0})
    assert [it.row["case"] for it in sweep_results.best_cases([bad, LAW_ROWS[0]])] == [
        "dense pile0.10.01"
    ]


def test_the_law_that_suits_all_best_is_done_everywhere():
    found, ratio = sweep_results.best_law(LAW_ROWS)
    assert sweep_results.told(found) == ["stiffness 0.1", "damping 0.1"]
    assert ratio == pytest.approx((2.0 * 3.0) ** 0.5)
    warm = law_row(None, None, 1.0, 2.0, law="warm", passes=2)
    found, ratio = sweep_results.best_law([*LAW_ROWS, *warm])
    assert sweep_results.told(found) == ["law warm", "passes 2"]
    assert ratio == pytest.approx(2.0**0.5)
    best = min(sweep_results.best_cases([*LAW_ROWS, *warm]), key=lambda it: it.value)
    assert sweep_results.chosen(best.row, ["stiffness", "law"]) == "comfree, stiffness 0.4"


def test_settings_that_no_case_has_both_of_make_no_heat_map():
    rows = [
        *(row(f"k{k}", stiffness=k, measured={"error": 1.0}) for k in (0.1, 0.2)),
        *(row(f"p{n}", law="warm", passes=n, measured={"error": 1.0}) for n in (1, 2)),
    ]
    assert sweep_results.heat_maps(rows) == []


def test_a_heat_map_has_the_median_of_each_pair():
    seeds = [*law_row(0.1, 0.01, 6.0, 8.0, seed=1), *law_row(0.1, 0.01, 5.0, 8.0, seed=2)]
    maps = {it.subject: it for it in sweep_results.heat_maps([*LAW_ROWS, *seeds])}
    pile = maps["dense pile"]
    assert (pile.down, pile.across) == ("stiffness", "damping")
    assert (pile.rows, pile.columns) == ((0.1, 0.4), (0.01, 0.1))
    assert pile.cells == ((5.0, 2.0), (1.0, None))


def test_the_report_shows_a_sweep(tmp_path):
    path = tmp_path / "sweep-law.jsonl"
    path.write_text("".join(json.dumps(it) + "\n" for it in LAW_ROWS))
    program = [sys.executable, "-m", "benchmark.report", "--folder", str(tmp_path)]
    done = subprocess.run(program, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    page, summary = (tmp_path / name for name in ("report.html", "summary.md"))
    assert "The law that suits all best: stiffness 0.1, damping 0.1" in page.read_text()
    assert page.read_text().count('class="figure"') == 2
    assert "stiffness 0.4, damping 0.01" in summary.read_text()
