"""Playing a recording: where it is, what it shows, what its viewer asks for, and the program."""

import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from recordings import SWINGING, record_swinging
from watching import ViewerProcess, Witness, wait_until

from mjsim.model.files import REPOSITORY
from mjsim.record import Cursor, Recording
from mjsim.stop_signals import StopSignals
from mjsim.view.replay import Replay


@pytest.fixture(scope="module")
def swinging(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds of a pendulum."""
    return record_swinging(tmp_path_factory.mktemp("replay") / "swinging.mcap", 2.0)


@pytest.fixture
def cursor(swinging: Path) -> Cursor:
    with Recording(swinging) as recording:
        yield Cursor(recording)


# ------------------------------------------------------------------------------- the cursor


def test_a_cursor_begins_at_the_first_state(cursor: Cursor) -> None:
    assert (cursor.state.at, cursor.state.step) == (0.0, 0)


def test_a_cursor_goes_on_to_the_last_state_at_or_before_a_time(cursor: Cursor) -> None:
    assert cursor.forward(1.005)
    assert cursor.state.step == 100
    assert not cursor.forward(1.009)
    assert cursor.state.step == 100


def test_a_cursor_seeks_both_ways(cursor: Cursor) -> None:
    for at, step in ((1.5, 150), (0.255, 25), (9.0, 200), (0.0, 0)):
        assert cursor.seek(at)
        assert cursor.state.step == step


def test_a_cursor_steps_back_over_what_it_stepped_on(cursor: Cursor) -> None:
    cursor.seek(1.0)
    cursor.step()
    assert cursor.state.step == 101
    assert cursor.step_back()
    assert cursor.step_back()
    assert cursor.state.step == 99
    assert cursor.step()
    assert cursor.state.step == 100


def test_a_cursor_stays_at_both_ends(cursor: Cursor) -> None:
    assert not cursor.step_back()
    assert cursor.state.step == 0
    cursor.seek(2.0)
    assert not cursor.step()
    assert cursor.state.step == 200


# -------------------------------------------------------------------------------- the replay


@pytest.fixture
def playing(swinging: Path) -> Callable[..., Witness]:
    """Plays it in a thread, from `start` to `end`, on a display that is returned."""
    started = []

    def play(**options: object) -> Witness:
        witness, recording = Witness(), Recording(swinging)
        replay = Replay(recording, witness, StopSignals(), **options)
        thread = threading.Thread(target=replay.play)
        thread.start()
        started.append((witness, thread, recording))
        wait_until(lambda: witness.statuses, "it plays")
        return witness

    yield play
    for witness, thread, recording in started:
        witness.hung_up = True
        thread.join()
        recording.close()


def test_plays_from_start_to_end_and_ends_with_once(playing: Callable[..., Witness]) -> None:
    witness = playing(start=0.5, end=1.5, speed=4.0, once=True)
    wait_until(lambda: witness.times[-1] == pytest.approx(1.5), "it is at its end")
    assert witness.times[0] == pytest.approx(0.5)
    assert witness.times == sorted(witness.times)


def test_pauses_at_its_end_and_begins_again_when_told_to_go_on(
    playing: Callable[..., Witness],
) -> None:
    witness = playing(start=1.8)
    wait_until(lambda: witness.controls.paused, "it pauses")
    assert witness.times[-1] == pytest.approx(2.0)
    shown = len(witness.times)
    witness.controls.toggle_pause()
    wait_until(lambda: len(witness.times) > shown, "it goes on")
    assert witness.times[shown] == pytest.approx(1.8)


def test_pause_holds_the_state_and_step_moves_by_one(playing: Callable[..., Witness]) -> None:
    witness = playing(speed=0.5)
    witness.controls.step()
    wait_until(lambda: "paused" in witness.statuses[-1].rows["speed"], "it has stepped")
    held, seen = witness.times[-1], len(witness.statuses)
    wait_until(lambda: len(witness.statuses) > seen + 10, "it is still shown")
    assert witness.times[-1] == held
    witness.controls.step()
    wait_until(lambda: witness.times[-1] == pytest.approx(held + 0.01), "one state on")
    witness.controls.step(-1)
    witness.controls.step(-1)
    wait_until(lambda: witness.times[-1] == pytest.approx(held - 0.01), "two states back")


def test_seeks_jumps_and_returns_to_the_start(playing: Callable[..., Witness]) -> None:
    witness = playing(start=0.25)
    witness.controls.paused = True
    for ask, expected in (
        (lambda: witness.controls.seek(1.25), 1.25),
        (lambda: witness.controls.jump(-0.5), 0.75),
        (lambda: witness.controls.jump(99.0), 2.0),
        (witness.controls.reset, 0.25),
    ):
        ask()
        wait_until(lambda at=expected: witness.times[-1] == pytest.approx(at), f"at {expected}")
        assert witness.statuses[-1].position == pytest.approx(expected)


def test_tells_engine_place_step_and_contacts(playing: Callable[..., Witness]) -> None:
    witness = playing(start=1.0)
    rows = witness.statuses[0].rows
    assert rows["engine"] == "mjc on cpu"
    assert rows["place"] == "1.00 of 2.00 s"
    assert rows["step"] == "100"
    assert rows["contacts"] == "0"


# ------------------------------------------------------------------------------- the program


def local_viewer(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, str(REPOSITORY / "local_viewer.py"), *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        env=environment or None,
    )


def test_the_program_plays_a_recording_as_lines_and_ends_with_it(swinging: Path) -> None:
    done = local_viewer("--replay", str(swinging), "--backend", "none")
    assert done.returncode == 0, done.stderr
    first = done.stdout.splitlines()[0]
    assert first.startswith("engine mjc on cpu  time 1.0")
    assert done.stderr == ""


def test_a_cut_recording_plays_and_says_what_is_missing(swinging: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.mcap"
    cut.write_bytes(swinging.read_bytes()[:-2000])
    done = local_viewer("--replay", str(cut), "--backend", "none", "--speed", "8")
    assert done.returncode == 0
    assert "cut.mcap: it was cut short" in done.stderr


def test_ctrl_c_ends_a_replay_with_status_0(swinging: Path, tmp_path: Path) -> None:
    arguments = ("--replay", str(swinging), "--backend", "none", "--speed", "0.1")
    with ViewerProcess(tmp_path, 1, *arguments) as viewer:
        viewer.wait_for("engine mjc")
        viewer.send_signal(signal.SIGINT)
        assert viewer.status() == 0
    assert viewer.errors == ""


WRONG = {
    "no such file": (["--replay", "nowhere.mcap"], "--replay: nowhere.mcap: No such file"),
    "no recording": (["--replay", __file__], "--replay: "),
    "start": (["--replay", "{swinging}", "--start", "3"], "--start: 3 is beyond the recording"),
    "end": (["--replay", "{swinging}", "--start", "1", "--end", ".5"], "--end: 0.5 comes before"),
    "speed": (["--replay", "{swinging}", "--speed", "0"], "--speed: 0.0 is not in the range"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_use_is_one_line_that_names_the_setting(case: str, swinging: Path) -> None:
    arguments, said = WRONG[case]
    arguments = [each.format(swinging=swinging) for each in arguments]
    done = local_viewer(*arguments, "--backend", "none")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert said in line


def test_a_recording_without_its_model_is_no_traceback(tmp_path: Path) -> None:
    path = record_swinging(tmp_path / "broken.mcap", 0.1)
    data = path.read_bytes()
    assert data.count(SWINGING.encode()) == 1
    path.write_bytes(data.replace(b'<mujoco model="swinging">', b'<mujoco model="swinging"!'))
    done = local_viewer("--replay", str(path), "--backend", "none")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "its model is damaged" in line
