"""test_viewer.py: the program, and its window under real keys and a real mouse."""

import contextlib
import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import pytest
from screen import Screen
from watching import SWINGING, Program, wait_until

from mjsim import choices, engines
from mjsim.record import Recording
from mjsim.view.controls import KEYS

# A body in the middle of the window, drifting: from keyframe 0, which is not qpos0.
DRIFTING = """
<mujoco model="drifting">
  <option timestep="0.002" gravity="0 0 0"/>
  <statistic center="0 0 0" extent="2"/>
  <worldbody>
    <light pos="0 -2 4"/>
    <body mocap="true" pos=".8 0 .6">
      <geom type="box" size=".3 .2 .2" rgba=".2 .8 .3 1" contype="0" conaffinity="0"/>
    </body>
    <body name="ball">
      <freejoint/>
      <geom size=".5" mass="1" rgba=".9 .2 .1 1" contype="0" conaffinity="0"/>
    </body>
  </worldbody>
  <keyframe><key time="1" qpos="0 0 -.1 1 0 0 0" qvel="0 0 .02 0 0 0" mpos=".8 0 .5"/></keyframe>
</mujoco>
"""
STIFF = """
<mujoco model="stiff">
  <option timestep="0.01"/>
  <worldbody>
    <body>
      <joint type="slide" axis="0 0 1" stiffness="50000"/>
      <geom size=".1" mass="1"/>
    </body>
  </worldbody>
</mujoco>
"""
EVERY_ENGINE = pytest.mark.parametrize(
    "engine",
    ["mjc", *(pytest.param(name, marks=pytest.mark.engine) for name in ("mjwarp", "comfree"))],
)


def viewer(folder: Path, *arguments: str, **environment: str) -> Program:
    return Program(folder, "test_viewer.py", *arguments, **environment)


# ----------------------------------------------------------------------------------- the program


@EVERY_ENGINE
def test_a_window_shows_a_moving_scene_and_ends_with_status_0(
    engine: str, screen: Screen, swinging: Path, tmp_path: Path
) -> None:
    with viewer(
        tmp_path, "--engine", engine, "--model", str(swinging), DISPLAY=screen.name
    ) as program:
        wait_until(screen.drawn, "there is a picture", 300.0)
        before = screen.pixels()
        wait_until(lambda: screen.moved_since(before), "the capsule is elsewhere")
        screen.save(f"test_viewer-{engine}")
        screen.press("ctrl+q")
        assert program.status() == 0
    assert f"{choices.engine_name(engine)} on cpu: " in program.errors
    assert "no world diverged" in program.errors
    assert "Traceback" not in program.errors


def test_it_records_what_it_shows(swinging: Path, tmp_path: Path) -> None:
    arguments = ("--engine=mjc", "--model", str(swinging), "--backend=none", "--record=run.mcap")
    with viewer(tmp_path, *arguments, "--nsteps=200") as program:
        assert program.status() == 0
    with Recording(tmp_path / "run.mcap") as recording:
        states = list(recording.states())
        assert recording.complete
    assert f"recorded: {len(states):,} states in run.mcap" in program.errors
    assert (states[0].step, states[-1].step) == (0, 200)
    mjm = mujoco.MjModel.from_xml_string(SWINGING)
    mjd = mujoco.MjData(mjm)
    for step in range(1, 201):
        mujoco.mj_step(mjm, mjd)
        for recorded in states:
            if recorded.step == step:
                assert recorded.state["qpos"] == mjd.qpos


def test_what_diverges_in_view_is_kept(tmp_path: Path) -> None:
    """A spring that is too stiff for its timestep; the person may go on to look at it."""
    path = tmp_path / "stiff.xml"
    path.write_text(STIFF)
    arguments = ("--engine=mjc", "--model", str(path), "--backend=none")
    with viewer(tmp_path, *arguments) as program:
        program.wait_for("the last second before it is in")
        program.send_signal(signal.SIGINT)
        assert program.status() == 0
    (dump,) = tmp_path.glob("diverged-stiff-mjc-world0-*.mcap")
    assert "mjc: world 0 diverged at step" in program.errors
    assert dump.name in program.errors
    with Recording(dump) as recording:
        assert abs(list(recording.states())[-1].state["qvel"]) > engines.VELOCITY_LIMIT


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_with_status_0(
    signum: int, screen: Screen, swinging: Path, tmp_path: Path
) -> None:
    with viewer(tmp_path, "--engine=mjc", "--model", str(swinging), DISPLAY=screen.name) as program:
        wait_until(screen.drawn, "there is a picture")
        program.send_signal(signum)
        assert program.status() == 0
    assert "steps in" in program.errors
    assert "Traceback" not in program.errors


@pytest.mark.engine
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_kernels_compile_ends_it_with_status_0(
    signum: int, screen: Screen, swinging: Path, tmp_path: Path
) -> None:
    with viewer(
        tmp_path, "--model", str(swinging), DISPLAY=screen.name, WARP_CACHE_PATH=str(tmp_path)
    ) as program:
        program.wait_for("compiling kernels, first run only: ")
        program.send_signal(signum)
        assert program.status(300.0) == 0  # when the kernels that were begun are done
    assert "Traceback" not in program.errors


def test_windows_open_and_close_again_and_again(
    screen: Screen, swinging: Path, tmp_path: Path
) -> None:
    """Closed by the user at any moment, no window leaves a crash at exit."""
    for number in range(3):
        with viewer(
            tmp_path, "--engine=mjc", "--model", str(swinging), DISPLAY=screen.name
        ) as program:
            wait_until(screen.drawn, "there is a picture")
            if number % 2:
                before = screen.pixels()
                wait_until(lambda before=before: screen.moved_since(before), "it moves")
            screen.press("ctrl+q")
            assert program.status() == 0
        wait_until(lambda: not screen.drawn(), "the window is gone")


def test_the_end_of_the_x_server_is_one_line(
    screen: Screen, swinging: Path, tmp_path: Path
) -> None:
    with viewer(tmp_path, "--engine=mjc", "--model", str(swinging), DISPLAY=screen.name) as program:
        wait_until(screen.drawn, "there is a picture")
        screen.close()
        assert program.status() == 1
    (line,) = program.errors.splitlines()
    assert f"X connection to {screen.name} broken" in line


def test_without_a_window_it_prints_a_line_a_second_until_nsteps_are_taken(
    swinging: Path, tmp_path: Path
) -> None:
    arguments = ("--engine=mjc", "--model", str(swinging), "--backend=none", "--nsteps=1200")
    with viewer(tmp_path, *arguments, DISPLAY="") as program:
        assert program.status() == 0
    lines = program.output.splitlines()
    assert len(lines) >= 2
    assert all("engine mjc on cpu  time " in line and "speed 1x" in line for line in lines)
    assert "1,200 steps in " in program.errors


def test_a_divergence_does_not_end_it(tmp_path: Path) -> None:
    path = tmp_path / "diverging.xml"
    path.write_text(
        '<mujoco><option><flag eulerdamp="disable"/></option><worldbody><body>'
        '<joint type="slide" stiffness="1e9"/><geom size=".1" mass="1"/></body></worldbody>'
        '<keyframe><key qpos="0.1"/></keyframe></mujoco>'
    )
    with viewer(tmp_path, "--engine=mjc", "--model", str(path), "--backend=none") as program:
        program.wait_for("DIVERGED world 0 diverged at step")
        program.send_signal(signal.SIGINT)
        assert program.status() == 0
    assert "world 0 diverged" in program.errors
    assert not (tmp_path / "MUJOCO_LOG.TXT").exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--compare", "mjc,bullet"], "--compare: 'bullet' is no engine; allowed: mjc (0), "),
        (["--compare", "mjc"], "--compare: 'mjc' is not two engines or more"),
        (["--compare", "mjc,0"], "--compare: mjc is there twice: name each engine once"),
        (["--compare", "comfree,comfree:paper"], "--compare: comfree:paper is there twice"),
        (["--compare", "comfree,comfree:warm", "--law=warm"], "--compare: comfree:warm is there"),
        (
            ["--compare", "mjc,mjwarp", "--law=warm"],
            "--law: warm is of no use to mjc, mjwarp",
        ),
        (
            ["--compare", "mjc,comfree:warm", "--law=warm"],
            "--law: 'warm', and --compare names",
        ),
        (
            ["--compare", "mjc,comfree:warm", "--damping=1"],
            "--damping: 1.0 is of no use to mjc",
        ),
        (["--model", "no/such.xml"], "--model: 'no/such.xml' is no file"),
        (["--backend", "x11"], "--backend: 'x11' is not one of"),
        (["--backend", "native"], "--backend: native cannot open a window here"),
        (["--nsteps", "-1"], "--nsteps: -1 is not in the range x>=0"),
    ],
)
def test_wrong_use_is_one_line_that_names_the_setting_and_status_2(
    arguments: list[str], told: str, tmp_path: Path
) -> None:
    arguments = ["--backend=none", *arguments]
    with viewer(tmp_path, *arguments, DISPLAY="", WAYLAND_DISPLAY="") as program:
        assert program.status() == 2
    assert program.output == ""
    assert told in program.errors
    assert program.errors.count("\n") == 1
    assert program.errors.startswith("test_viewer.py: ")


@pytest.mark.engine
def test_laws_are_compared_each_with_what_it_makes_use_of(swinging: Path, tmp_path: Path) -> None:
    compared = "--compare=mjc,comfree:paper,comfree:warm"
    used = ("--stiffness=.1", "--passes=2", "--njmax=64", "--nsteps=40", "--record=run.mcap")
    with viewer(tmp_path, compared, *used, "--model", str(swinging), "--backend=none") as program:
        assert program.status(300.0) == 0
    for name in ("mjc", "comfree:paper", "comfree:warm"):
        assert f"{name} on cpu: " in program.errors
        with Recording(tmp_path / f"run-{choices.file_name(name)}.mcap") as recording:
            about = recording.about
        assert about["engine"] == name
        assert ("stiffness" in about, "passes" in about) == (
            name[8:] == "paper",
            name[8:] == "warm",
        )


# -------------------------------------------------------------------- keys and mouse, for real


class Watched:
    """A session in a window on the screen, and the state of its simulation, frame by frame."""

    def __init__(self, program: Program, screen: Screen) -> None:
        self._program, self.screen = program, screen

    @property
    def states(self) -> list[dict[str, Any]]:
        whole, _, _ = self._program.output.rpartition("\n")
        return [json.loads(line) for line in whole.splitlines()]

    @property
    def now(self) -> dict[str, Any]:
        return self.states[-1]

    def frames(self, count: int) -> list[dict[str, Any]]:
        """The states of so many frames from now on."""
        before = len(self.states)
        self.wait(lambda: len(self.states) >= before + count, f"{count} frames pass")
        return self.states[before:]

    def wait(self, condition: Callable[[], Any], what: str) -> None:
        wait_until(condition, what)

    def press(self, key: str, condition: Callable[[dict[str, Any]], Any]) -> None:
        """Press a key and wait for what it brings about."""
        self.screen.press(key)
        self.wait(lambda: condition(self.now), f"{key} does what it should")


@contextlib.contextmanager
def watched(
    screen: Screen, folder: Path, xml: str = DRIFTING, engines: str = "mjc", nworld: int = 1
) -> Iterator[Watched]:
    model = folder / "model.xml"
    model.write_text(xml)
    with Program(
        folder,
        "tests/watched_session.py",
        str(model),
        engines,
        str(nworld),
        DISPLAY=screen.name,
    ) as program:
        wait_until(screen.drawn, "there is a picture", 300.0)
        wait_until(lambda: program.output.count("\n") > 5, "it runs")
        yield Watched(program, screen)
        screen.press("ctrl+q")
        assert program.status() == 0, program.errors
    assert program.errors == ""


def test_keys_pause_step_reset_and_change_the_speed(screen: Screen, tmp_path: Path) -> None:
    with watched(screen, tmp_path) as session:
        assert session.now["time"][0] > 1.0

        session.press("space", lambda state: state["paused"])
        still = session.frames(10)
        assert {state["nstep"] for state in still} == {still[0]["nstep"]}
        assert {tuple(state["qpos"][0]) for state in still} == {tuple(still[0]["qpos"][0])}
        assert still[0]["nstep"] > 0
        screen.save("paused")

        for count in (1, 2, 3):
            expected = still[0]["nstep"] + count
            session.press("Right", lambda state, n=expected: state["nstep"] >= n)
            assert {state["nstep"] for state in session.frames(5)} == {expected}

        session.press("BackSpace", lambda state: state["nstep"] == 0)
        for state in session.frames(5):
            assert state["time"] == [1.0]
            np.testing.assert_allclose(state["qpos"][0], [0, 0, -0.1, 1, 0, 0, 0])
            np.testing.assert_allclose(state["mocap_pos"][0], [[0.8, 0, 0.5]])
        assert session.now["paused"]

        session.press("space", lambda state: not state["paused"])
        session.press("equal", lambda state: state["speed"] == 2.0)
        session.press("equal", lambda state: state["speed"] == 4.0)
        session.wait(lambda: "achieved" in session.now["rows"]["speed"], "the speed is measured")
        session.frames(60)
        screen.save("four times the speed")
        for expected in (2.0, 1.0, 0.5, 0.25):
            session.press("minus", lambda state, x=expected: state["speed"] == x)


def test_the_speed_is_that_of_simulated_time(screen: Screen, tmp_path: Path) -> None:
    """Fast by the frame and slow by the clock: what a busy machine's long frames do not change."""

    def simulated_and_wall_time() -> tuple[float, float]:
        frames = session.frames(60)
        first, last = frames[0], frames[-1]
        return last["time"][0] - first["time"][0], last["wall"] - first["wall"]

    with watched(screen, tmp_path) as session:
        normal, _ = simulated_and_wall_time()
        for expected in (2.0, 4.0, 8.0):
            session.press("equal", lambda state, x=expected: state["speed"] == x)
        fast, _ = simulated_and_wall_time()
        assert fast > 3 * normal
        for _ in range(6):
            screen.press("minus")
        session.wait(lambda: session.now["speed"] == 0.125, "it is slow")
        slow, wall = simulated_and_wall_time()
        assert 0 < slow < wall / 4


def test_keys_choose_the_world(screen: Screen, tmp_path: Path) -> None:
    with watched(screen, tmp_path, nworld=3) as session:
        session.press("9", lambda state: state["world"] == 1)
        session.wait(
            lambda: session.now["rows"]["world"] == "1 of 0 to 2", "the second world shows"
        )
        session.press("9", lambda state: state["world"] == 2)
        session.press("9", lambda state: state["world"] == 0)
        session.press("8", lambda state: state["world"] == 2)
        session.frames(60)
        screen.save("three worlds")


def test_no_key_of_ours_means_something_else_to_mujoco(screen: Screen, tmp_path: Path) -> None:
    names = {"-": "minus", "=": "equal", "Backspace": "BackSpace", "Space": "space"}
    with watched(screen, tmp_path, nworld=2) as session:
        before = session.now["drawing"]
        screen.press("c")  # contact points
        session.wait(lambda: session.now["drawing"] != before, "MuJoCo's own key is told")
        before = session.now["drawing"]
        for key in KEYS:
            screen.press(names.get(key.name, key.name))
            assert all(state["drawing"] == before for state in session.frames(5)), key.name


@EVERY_ENGINE
def test_the_mouse_pushes_the_body_and_lets_it_go(
    engine: str, screen: Screen, tmp_path: Path
) -> None:
    with watched(screen, tmp_path, engines=engine, nworld=2) as session:
        session.press("9", lambda state: state["world"] == 1)
        height, width = screen.window_size()
        screen.double_click(width // 2, height // 2)
        screen.start_drag(width // 2, height // 2)
        for _ in range(5):
            screen.drag(15, 0)
        session.wait(lambda: np.any(session.now["xfrc_applied"][1]), "a force acts")
        screen.save(f"pushed-{engine}")
        session.wait(lambda: session.now["qvel"][1][0] > 0.05, "the body is pushed to the right")
        screen.end_drag()
        session.wait(lambda: not np.any(session.now["xfrc_applied"][1]), "the force ends")
        first, *_, last = session.frames(20)
        assert last["qvel"][1][0] == pytest.approx(first["qvel"][1][0], rel=1e-4)
        # Nobody pushed the other world.
        for state in session.states:
            assert not np.any(state["xfrc_applied"][0])
            assert state["qvel"][0][0] == 0.0


def test_the_mouse_pushes_single_steps_of_a_paused_run(screen: Screen, tmp_path: Path) -> None:
    with watched(screen, tmp_path) as session:
        session.press("space", lambda state: state["paused"])
        height, width = screen.window_size()
        screen.double_click(width // 2, height // 2)
        screen.start_drag(width // 2, height // 2)
        screen.drag(60, 0)
        # Taking hold of the body applies rounding errors; the drag itself is newtons.
        session.wait(lambda: session.now["xfrc_applied"][0][2][0] > 1.0, "a force acts")
        before = session.now
        assert before["qvel"][0][0] == 0.0
        session.press("Right", lambda state: state["nstep"] > before["nstep"])
        force = before["xfrc_applied"][0][2][0]
        assert session.now["qvel"][0][0] == pytest.approx(0.002 * force, rel=1e-3)
        screen.end_drag()
        session.wait(lambda: not np.any(session.now["xfrc_applied"]), "the force ends")


def test_the_mouse_moves_a_mocap_body(screen: Screen, tmp_path: Path) -> None:
    centred = DRIFTING.replace('qpos="0 0 -.1', 'qpos="0 5 -.1').replace(
        'mpos=".8 0 .5', 'mpos="0 0 0'
    )
    with watched(screen, tmp_path, xml=centred) as session:
        height, width = screen.window_size()
        screen.double_click(width // 2, height // 2)
        screen.start_drag(width // 2, height // 2)
        for _ in range(5):
            screen.drag(15, 0)
        session.wait(lambda: session.now["mocap_pos"][0][0][0] > 0.1, "it is further right")
        screen.end_drag()
        session.press("BackSpace", lambda state: state["mocap_pos"][0][0][0] == 0.0)


@pytest.mark.engine
def test_engines_are_shown_side_by_side(screen: Screen, tmp_path: Path) -> None:
    """Each has its colours on the screen, and none is drawn over another."""
    with watched(screen, tmp_path, engines="mjc,comfree:paper,comfree:warm") as session:
        session.frames(30)
        screen.save("compare")
        for name in ("mjc", "comfree:paper", "comfree:warm"):
            assert f"{name} on cpu" in session.now["rows"]
        height, width = screen.window_size()
        picture = screen.pixels()[:height, :width].astype(int)
        red = (picture[..., 2] > 100) & (picture[..., 1] < 60) & (picture[..., 0] < 60)
        columns = np.flatnonzero(red.sum(axis=0) > 5)
        groups = np.split(columns, np.flatnonzero(np.diff(columns) > 1) + 1)
        assert len([group for group in groups if len(group) > 10]) == 3
        times = np.array(session.now["time"])
        assert times[0] > 1.0
        np.testing.assert_allclose(times, times[0], rtol=1e-4)
