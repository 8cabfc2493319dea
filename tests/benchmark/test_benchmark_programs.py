"""How the programs of the benchmark start: by their names, with little loaded, and with Ctrl-C."""

import signal

import pytest
from programs import (
    HEAVY,
    LOADED,
    MAIN,
    PENDULA,
    interrupted,
    loaded,
    run,
    seconds_to_handlers,
)

from mjsim.model.files import REPOSITORY

PROGRAMS = [
    ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__main__")
    for path in sorted((REPOSITORY / "benchmark").rglob("*.py"))
    if MAIN in path.read_text()
]


def test_all_programs_are_known_here():
    assert [
        *("benchmark.costs.memory", "benchmark.costs.plain"),
        *("benchmark.costs.stream", "benchmark.costs.web"),
        *("benchmark.fidelity", "benchmark.gallery", "benchmark.report"),
        *("benchmark.speed.compare", "benchmark.speed.ratios", "benchmark.sweep"),
    ] == PROGRAMS


@pytest.mark.parametrize("program", PROGRAMS)
def test_help_loads_next_to_nothing(program):
    status, output, errors = run("-c", LOADED, program, "--help")
    assert status == 0, errors
    assert output.startswith(f"Usage: python -m {program} ")
    assert loaded(output).isdisjoint(HEAVY)


def test_a_misspelt_variable_is_named_with_the_nearest_one():
    _, _, errors = run("-m", "benchmark.speed.compare", "--help", MJSTREAM_PROT="1")
    assert "MJSTREAM_PROT; did you mean MJSTREAM_PORT?" in errors


@pytest.mark.parametrize(
    "command",
    [
        ("benchmark.costs.memory",),
        ("benchmark.fidelity", "--level=quick", "--json=/proc/none/rows.json"),
        ("benchmark.sweep", "--model", PENDULA, "--engine=mjc", "--table=/proc/none/rows"),
    ],
    ids=lambda command: command[0],
)
def test_ctrl_c_during_the_start_is_one_word_and_status_130(command):
    """At some moments of the first second, in which modules are loaded."""
    first = seconds_to_handlers()
    for number in range(4):
        status, errors = interrupted(first + 0.2 * number, signal.SIGINT, "-m", *command)
        if status == 2:  # it found what is wrong with its command before that
            assert "/proc/none" in errors
            continue
        assert (status, errors) == (130, "interrupted\n")


def test_sigterm_during_the_start_is_status_143():
    command = ("-m", "benchmark.gallery", "/proc/none")
    status, errors = interrupted(seconds_to_handlers(), signal.SIGTERM, *command)
    assert (status, errors) == (143, "interrupted\n")
