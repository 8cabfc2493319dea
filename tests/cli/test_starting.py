"""How programs start: flags, variables, imports, and Ctrl-C meanwhile."""

import signal
import time

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
    start,
)
from watching import free_port

from mjsim.cli import variables
from mjsim.model.files import REPOSITORY

PROGRAMS = [path.name for path in sorted(REPOSITORY.glob("*.py")) if MAIN in path.read_text()]


def test_all_programs_are_known_here():
    assert {"test_headless.py", "test_viewer.py", "local_viewer.py"} <= set(PROGRAMS)


@pytest.mark.parametrize("program", PROGRAMS)
def test_help_loads_next_to_nothing(program):
    status, output, errors = run("-c", LOADED, program, "--help")
    assert status == 0, errors
    assert output.lower().startswith("usage: ")
    assert loaded(output).isdisjoint(HEAVY)


def test_mjc_runs_without_warp():
    command = ("test_headless.py", "--port=0", "--engine=mjc", "--model", PENDULA, "--nsteps=10")
    status, output, errors = run("-c", LOADED, *command)
    assert status == 0, errors
    assert "mujoco" in loaded(output)
    assert loaded(output).isdisjoint({"warp", "mujoco_warp", "comfree_warp", "glfw"})


def test_wrong_use_loads_next_to_nothing():
    command = ("test_headless.py", "--engine=mjc", "--law=warm")
    status, output, _ = run("-c", LOADED, *command)
    assert status == 2
    assert loaded(output).isdisjoint(HEAVY)


# --------------------------------------------------------------------------------------- variables


def test_a_misspelt_variable_is_named_with_the_nearest_one():
    for program in ("test_headless.py", "local_viewer.py"):
        misspelt = {"MJSTREAM_PROT": "1", "MJSIM_LAW": "warm", "MJVIDEO_SIZES": "1"}
        _, _, errors = run(program, "--help", **misspelt)
        told = [line.partition("no program knows the variable ")[2] for line in errors.splitlines()]
        assert told == [
            "MJSIM_LAW; did you mean COMFREE_LAW?",
            "MJSTREAM_PROT; did you mean MJSTREAM_PORT?",
            "MJVIDEO_SIZES; did you mean MJVIDEO_SIZE?",
        ]


def test_every_program_knows_the_variables_of_all():
    known = dict.fromkeys(variables.KNOWN, "") | {"MJSTREAM_PORT": "7000"}
    assert {"MJSTREAM_TOKEN", "MJSTREAM_ONCE", "MJSIM_COMPARE", "MJREPLAY_FILE"} <= known.keys()
    assert run("test_headless.py", "--help", **known)[2] == ""


# ------------------------------------------------------------------------------------------ Ctrl-C


@pytest.mark.parametrize(
    "command",
    [
        ("test_headless.py", "--port=0", "--model", PENDULA, "--nsteps=2000000000"),
        ("-m", "mjsim", "doctor"),
        ("-m", "mjsim", "run", "--port=0", "--model", PENDULA, "--nsteps=2000000000"),
    ],
    ids=" ".join,
)
def test_ctrl_c_during_the_start_is_one_word_and_status_130(command):
    """At some moments of the first second, in which modules are loaded."""
    first = seconds_to_handlers()
    for number in range(4):
        status, errors = interrupted(first + 0.2 * number, signal.SIGINT, *command)
        assert (status, errors) == (130, "interrupted\n")


@pytest.mark.parametrize("program", ["test_viewer.py", "local_viewer.py"])
def test_sigterm_during_the_start_is_status_143(program):
    command = (program, "--backend=none")
    status, errors = interrupted(seconds_to_handlers(), signal.SIGTERM, *command)
    if status == 0:  # a viewer that was there already is closed
        assert "Traceback" not in errors
    else:
        assert (status, errors) == (143, "interrupted\n")


def test_the_second_ctrl_c_ends_what_is_busy():
    """In C code that does not come back, and after the first one was noted."""
    code = (
        "from mjsim import interrupts; interrupts.install()\n"
        "import ctypes, time; from mjsim.stop_signals import StopSignals\n"
        "with StopSignals() as signals:\n"
        "    print('here', flush=True)\n"
        "    while not signals.received: time.sleep(0.01)\n"
        "    print('noted', flush=True)\n"
        "    ctypes.CDLL(None).pause()\n"
        "    ctypes.CDLL(None).sleep(60)\n"
    )
    with start("-c", code) as process:
        for line in ("here", "noted"):
            assert process.stdout.readline() == f"{line}\n"
            time.sleep(0.2)
            process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (130, "interrupted\n")


def test_what_was_opened_is_closed_where_that_was_asked_for():
    code = (
        "from mjsim import interrupts; interrupts.install()\n"
        "import time\n"
        "with interrupts.Unwinding():\n"
        "    try:\n"
        "        print('here', flush=True)\n"
        "        time.sleep(60)\n"
        "    finally:\n"
        "        print('closed', flush=True)\n"
    )
    for signum in (signal.SIGINT, signal.SIGTERM):
        with start("-c", code) as process:
            assert process.stdout.readline() == "here\n"
            process.send_signal(signum)
            output, errors = process.communicate(timeout=30)
        assert (process.returncode, output, errors) == (128 + signum, "closed\n", "interrupted\n")


def test_a_signal_that_is_ignored_stays_so():
    """As in the background of a shell, or under nohup."""
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "from mjsim import interrupts; interrupts.install()\n"
        "signal.raise_signal(signal.SIGINT)\n"
        "print('still here')"
    )
    assert run("-c", code) == (0, "still here\n", "")


def test_a_program_that_is_imported_leaves_the_signals_alone():
    code = (
        "import signal; before = signal.getsignal(signal.SIGINT)\n"
        "import test_headless, local_viewer\n"
        "assert signal.getsignal(signal.SIGINT) is before"
    )
    status, _, errors = run("-c", code)
    assert status == 0, errors


def test_ctrl_c_while_it_waits_for_a_viewer_is_status_130():
    port = str(free_port())
    with start("test_headless.py", "--engine=mjc", "--model", PENDULA, "--port", port) as process:
        assert "waiting for a viewer" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in errors
