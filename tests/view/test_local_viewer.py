"""local_viewer.py: the program, with and without a window, and what it records."""

import re
import signal
from pathlib import Path

import numpy as np
import pytest
from screen import Screen
from watching import (
    ViewerProcess,
    answering,
    free_port,
    streaming_scene,
    swinging_packets,
    wait_until,
)

from mjsim.record import Recording

# --------------------------------------------------------------------- the program, no window


def test_prints_a_line_a_second_and_ends_with_the_stream(swinging: Path, tmp_path: Path) -> None:
    """On a machine without glfw, which only the window needs."""
    (tmp_path / "glfw.py").write_text("raise ImportError('no glfw on this machine')\n")
    port = free_port()
    with ViewerProcess(
        tmp_path, port, "--backend", "none", "--once", PYTHONPATH=str(tmp_path)
    ) as viewer:
        with streaming_scene(swinging, port, wait=None):
            wait_until(lambda: viewer.output.count("\n") >= 2, "there are two lines")
        assert viewer.status() == 0
    lines = viewer.output.splitlines()
    assert all("s  " in line and "frames/s" in line and "delay" in line for line in lines)
    first, second = (float(re.match(r"time ([0-9.]+) s", line)[1]) for line in lines[:2])
    assert second - first == pytest.approx(1.0, abs=0.5)


def test_once_without_a_server_ends_with_a_word_and_status_1(tmp_path: Path) -> None:
    port = free_port()
    arguments = ("--backend=none", "--once", "--retry-delay=0.1")
    with ViewerProcess(tmp_path, port, *arguments) as viewer:
        assert viewer.status() == 1
    told = viewer.errors.splitlines()[-1]
    assert told.startswith(f"local_viewer.py: no server at 127.0.0.1:{port}: Connection refused")
    assert told.endswith("given up after 5 s")


def test_a_signal_while_it_waits_for_a_server_ends_it(tmp_path: Path) -> None:
    with ViewerProcess(tmp_path, free_port(), "--backend", "none") as viewer:
        viewer.wait_for("no server at")
        viewer.send_signal(signal.SIGTERM)
        assert viewer.status() == 0
    assert "Traceback" not in viewer.errors


def test_without_a_display_it_names_the_backend_without_one(tmp_path: Path) -> None:
    with ViewerProcess(tmp_path, free_port(), DISPLAY="", WAYLAND_DISPLAY="") as viewer:
        assert viewer.status() == 2
    (line,) = viewer.errors.splitlines()
    assert "native cannot open a window here" in line
    assert "--backend none" in line


# ---------------------------------------------------------------------- the program's window


def test_window_draws_a_moving_scene(screen: Screen, swinging: Path, tmp_path: Path) -> None:
    port = free_port()
    with (
        streaming_scene(swinging, port),
        ViewerProcess(tmp_path, port, DISPLAY=screen.name) as viewer,
    ):
        viewer.wait_for("connected")
        wait_until(screen.drawn, "there is a picture")
        before = screen.pixels()
        wait_until(lambda: screen.moved_since(before), "the capsule is elsewhere")


@pytest.mark.parametrize("way", ["the user closes it", "Ctrl-C"])
def test_window_ends_with_status_0(
    way: str, screen: Screen, swinging: Path, tmp_path: Path
) -> None:
    port = free_port()
    with (
        streaming_scene(swinging, port),
        ViewerProcess(tmp_path, port, DISPLAY=screen.name) as viewer,
    ):
        viewer.wait_for("connected")
        wait_until(screen.drawn, "there is a picture")
        if way == "Ctrl-C":
            viewer.send_signal(signal.SIGINT)
        else:
            screen.press("ctrl+q")
        assert viewer.status() == 0
    (line,) = viewer.errors.splitlines()
    assert "connected: swinging, 2 bodies" in line


def test_window_shows_the_next_run_with_another_model(
    screen: Screen, swinging: Path, falling: Path, tmp_path: Path
) -> None:
    port = free_port()
    with ViewerProcess(tmp_path, port, "--retry-delay", "0.1", DISPLAY=screen.name) as viewer:
        with streaming_scene(swinging, port):
            viewer.wait_for("swinging")
            wait_until(screen.drawn, "there is a picture")
        with streaming_scene(falling, port):
            viewer.wait_for("a new run: falling, 3 bodies")
            wait_until(screen.drawn, "there is a picture again")
        viewer.wait_for("the run has ended")
        viewer.send_signal(signal.SIGINT)
        assert viewer.status() == 0


# ---------------------------------------------------------------------------------- recording


def test_records_what_it_shows_run_by_run(tmp_path: Path) -> None:
    """A dropped connection goes on in the same file, another run begins the next free one."""
    (tmp_path / "seen-2.mcap").write_text("precious")
    runs = [("one", 0.0), ("one", 1.0), ("two", np.nan), ("three", 3.0)]
    streams = [swinging_packets(run, time) for run, time in runs]
    arguments = ("--backend=none", "--retry-delay=0.05", "--record=seen.mcap")
    with answering(*streams) as port, ViewerProcess(tmp_path, port, *arguments) as viewer:
        wait_until(lambda: viewer.errors.count("trying every") == 4, "all four have hung up")
        assert "recording to seen-4.mcap" in viewer.errors
        viewer.send_signal(signal.SIGTERM)
        assert viewer.status() == 0
    assert (tmp_path / "seen-2.mcap").read_text() == "precious"
    for name, times in (("seen", [0.0, 1.0]), ("seen-3", [np.nan]), ("seen-4", [3.0])):
        with Recording(tmp_path / f"{name}.mcap") as run:
            assert run.complete
            assert run.about["server"] == f"127.0.0.1:{port}"
            assert run.about["engine"] == "mjc"
            assert run.model().nbody == 2
            recorded = [each.state["time"] for each in run.states()]
        np.testing.assert_array_equal(recorded, times)


def test_does_not_record_over_a_file(tmp_path: Path) -> None:
    (tmp_path / "seen.mcap").write_text("precious")
    with ViewerProcess(tmp_path, free_port(), "--backend=none", "--record=seen.mcap") as viewer:
        assert viewer.status() == 2
        assert "--record: 'seen.mcap' is there already and is kept" in viewer.errors
        assert viewer.errors.count("\n") == 1
