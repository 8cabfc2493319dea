"""The page: in a real browser, with a real stream and the program that serves it."""

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import mujoco
import numpy as np
import pytest
from browsing import HELLO, Browser, centre, hosts, is_of_chromium, settled
from watching import ViewerProcess, free_port, streaming_scene, wait_until

from mjsim.errors import SettingError
from mjsim.model.compare import same_model
from mjsim.stream import StreamServer
from mjsim.view.controls import Controls
from mjsim.view.display import Status

SWINGING = """
<mujoco model="swinging">
  <statistic center="0 0 1.2" extent="2"/>
  <worldbody>
    <geom type="plane" size="3 3 .1"/>
    <body pos="0 0 1.4">
      <joint type="hinge" axis="0 1 0" damping="0"/>
      <geom type="capsule" fromto="0 0 0 1 0 0" size=".15" rgba=".9 .1 .1 1"/>
    </body>
  </worldbody>
</mujoco>
"""
RESTING = """
<mujoco model="resting">
  <statistic center="0 0 .3" extent="1"/>
  <worldbody>
    <geom type="plane" size="3 3 .1"/>
    <body pos="0 0 .2"><freejoint/><geom type="box" size=".2 .2 .2" rgba=".1 .2 .9 1"/></body>
  </worldbody>
</mujoco>
"""


@pytest.fixture
def swinging(tmp_path: Path) -> Path:
    path = tmp_path / "swinging.xml"
    path.write_text(SWINGING)
    return path


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    browser = Browser(tmp_path_factory.mktemp("browser"))
    yield browser
    browser.close()


class WebViewer(ViewerProcess):
    """`local_viewer.py --backend web`, with the port of its page."""

    def __init__(self, folder: Path, port: int, *arguments: str, **environment: str) -> None:
        self.http_port = free_port()
        web = ("--backend", "web", "--http-port", str(self.http_port), "--retry-delay", "0.2")
        super().__init__(folder, port, *web, *arguments, **environment)


@pytest.fixture
def viewer(swinging: Path, tmp_path: Path) -> Iterator[WebViewer]:
    """A viewer of the swinging capsule."""
    port = free_port()
    with streaming_scene(swinging, port), WebViewer(tmp_path, port) as viewer:
        viewer.wait_for("connected")
        yield viewer


def moving(browser: Browser) -> None:
    """Wait until the red capsule is seen far from where it was."""
    seen: list[tuple[float, float]] = []

    def moved() -> bool:
        if place := browser.centre("red"):
            seen.append(place)
        return len(seen) > 1 and bool(np.ptp(seen, axis=0).max() > 40)

    wait_until(moved, "the capsule moves")


# ------------------------------------------------------------------- a stream, as its user sees it


def test_the_page_shows_the_scene_and_it_moves(browser: Browser, viewer: WebViewer) -> None:
    browser.open(viewer.http_port)
    moving(browser)
    browser.pixels("moving")
    text = browser.text()
    assert "real time" in text
    assert "contacts" in text


def test_pause_stops_the_picture_and_going_on_moves_it(browser: Browser, viewer: WebViewer) -> None:
    browser.open(viewer.http_port)
    moving(browser)
    browser.click("Pause")
    wait_until(lambda: browser.button("Go on"), "the button says so")
    held = settled(browser, lambda pixels: centre(pixels, "red") is not None, "the picture stands")
    for _ in range(5):
        assert np.array_equal(browser.pixels("paused"), held)
    browser.click("Go on")
    wait_until(lambda: browser.button("Pause"), "the button says so")
    moving(browser)


def test_a_second_browser_sees_the_same(
    browser: Browser, viewer: WebViewer, tmp_path: Path
) -> None:
    browser.open(viewer.http_port)
    moving(browser)
    browser.click("Pause")
    first = settled(browser, lambda pixels: centre(pixels, "red") is not None, "it stands")
    other = Browser(tmp_path / "other")
    try:
        other.open(viewer.http_port)
        assert other.button("Go on")
        second = settled(other, lambda pixels: centre(pixels, "red") is not None, "it shows")
        other.pixels("second_browser")
        assert first.shape == second.shape
        # viser draws more coarsely after slow frames, so that edges may differ.
        assert np.abs(first - second).mean() < 8.0
        assert centre(first, "red") == pytest.approx(centre(second, "red"), abs=3.0)
        other.click("Go on")
        wait_until(lambda: browser.button("Pause"), "the first sees that the second went on")
        moving(browser)
    finally:
        other.close()


def test_a_reload_recovers(browser: Browser, viewer: WebViewer) -> None:
    browser.open(viewer.http_port)
    moving(browser)
    browser.driver.refresh()
    wait_until(lambda: browser.button("Pause"), "the panel is there again")
    moving(browser)


def test_the_streams_end_and_the_next_run_are_shown(
    browser: Browser, swinging: Path, tmp_path: Path
) -> None:
    resting = tmp_path / "resting.xml"
    resting.write_text(RESTING)
    port = free_port()
    with WebViewer(tmp_path, port) as viewer:
        with streaming_scene(swinging, port):
            viewer.wait_for("swinging")
            browser.open(viewer.http_port)
            moving(browser)
        wait_until(lambda: "trying every 0.2 s" in browser.text(), "the end is shown")
        assert "no connection" in browser.text()
        browser.pixels("ended")
        with streaming_scene(resting, port):
            viewer.wait_for("a new run: resting")
            wait_until(lambda: browser.centre("blue"), "the other model is shown")
            wait_until(lambda: "no connection" not in browser.text(), "the notice has gone")
            assert browser.centre("red") is None
            browser.pixels("restarted")


def test_a_stream_that_stalls_is_told_on_the_page(
    browser: Browser, swinging: Path, tmp_path: Path
) -> None:
    mjd = mujoco.MjData(mujoco.MjModel.from_xml_path(str(swinging)))
    about = {"engine": "comfree:warm", "device": "cpu"}
    server = StreamServer(
        str(swinging), port=free_port(), wait=0.0, about=about, report=lambda text: None
    )
    with server, WebViewer(tmp_path, server.port) as viewer:
        viewer.wait_for("connected")
        browser.open(viewer.http_port)
        server.send_state(mjd, 1)
        wait_until(lambda: "nothing for 4 s" in browser.text(), "the stall is told")
        assert "nothing comes from the server" in browser.text()
        assert "comfree:warm on cpu" in browser.text()
        browser.pixels("stalled")
        for step in range(2, 5):
            server.send_state(mjd, step, last=True)
        wait_until(lambda: "frames/s" in browser.text(), "it goes on")


def test_nothing_is_asked_of_other_hosts(browser: Browser, viewer: WebViewer) -> None:
    browser.open(viewer.http_port)
    moving(browser)
    asked = browser.requests()
    assert f"http://127.0.0.1:{viewer.http_port}/" in asked
    assert hosts(asked) == {"127.0.0.1"}


def test_chromium_s_own_pages_are_no_hosts() -> None:
    for url in ("chrome://newtab/", "chrome-untrusted://new-tab-page/one-google-bar"):
        assert is_of_chromium(url)
    assert not is_of_chromium("https://chrome.example.org/x")
    local = ["data:,x", "about:blank", "blob:http://127.0.0.1:8080/1-2", "ws://127.0.0.1:8080/"]
    assert hosts(local) == {"127.0.0.1"}
    assert hosts(["https://chrome.example.org/x"]) == {"chrome.example.org"}
    assert hosts(["blob:https://example.org/1-2"]) == {"example.org"}
    assert hosts(["unheard-of:thing"]) == {"unheard-of:thing"}


def test_ctrl_c_ends_it_while_a_browser_looks(browser: Browser, viewer: WebViewer) -> None:
    browser.open(viewer.http_port)
    viewer.send_signal(signal.SIGINT)
    assert viewer.status() == 0
    assert viewer.output == ""
    assert "Traceback" not in viewer.errors


# --------------------------------------------------------------------- the program, wrongly used


def test_a_port_in_use_is_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with ViewerProcess(
            tmp_path, free_port(), "--backend", "web", "--http-port", str(port)
        ) as viewer:
            assert viewer.status() == 2
    (line,) = viewer.errors.splitlines()
    assert f"--http-port: {port} at 127.0.0.1 cannot be used: Address already in use" in line


def test_a_host_that_does_not_resolve_is_one_line(tmp_path: Path) -> None:
    with WebViewer(tmp_path, free_port(), "--http-host", "no.such.host.invalid") as viewer:
        assert viewer.status() == 2
    (line,) = viewer.errors.splitlines()
    assert "--http-host: 'no.such.host.invalid' does not resolve" in line


def test_without_mjviser_it_names_the_install_line(tmp_path: Path) -> None:
    (tmp_path / "mjviser.py").write_text("raise ImportError('no mjviser on this machine')\n")
    with WebViewer(tmp_path, free_port(), PYTHONPATH=str(tmp_path)) as viewer:
        assert viewer.status() == 2
    (line,) = viewer.errors.splitlines()
    assert "--backend: web wants mjviser" in line
    assert "pip install 'comfree-warp[web]'" in line


def test_an_open_address_is_warned_about(tmp_path: Path) -> None:
    with WebViewer(tmp_path, free_port(), "--http-host", "0.0.0.0") as viewer:
        viewer.wait_for("open to anyone who reaches the port")
        viewer.send_signal(signal.SIGINT)
        assert viewer.status() == 0
    with WebViewer(tmp_path, free_port()) as viewer:
        viewer.wait_for("no server at")
        assert "warning" not in viewer.errors
        assert f"http://127.0.0.1:{viewer.http_port}" in viewer.errors


# ------------------------------------------------------------------------------- the page itself


class Page:
    """A page in this process, with a browser before it."""

    def __init__(self, browser: Browser) -> None:
        from mjsim.view.web.page import WebPage

        self.port = free_port()
        self.page = WebPage("127.0.0.1", self.port)
        self.browser = browser
        self.mjm = mujoco.MjModel.from_xml_string(SWINGING)
        self.mjds: list[mujoco.MjData] = []

    def load(self, controls: Controls, *angles: float, labels: tuple[str, ...] = ()) -> None:
        self.mjds = []
        for angle in angles:
            mjd = mujoco.MjData(self.mjm)
            mjd.qpos[0] = angle
            mujoco.mj_forward(self.mjm, mjd)
            self.mjds.append(mjd)
        self.page.load(self.mjm, self.mjds, controls, labels)
        self.show()
        self.browser.open(self.port)

    def show(self, moved: bool = True, **status: object) -> None:
        rows = {"time": "1 s", **status.pop("rows", {})}
        self.page.show(Status(rows, **status), moved)

    def until(self, condition: object, what: str, **status: object) -> None:
        def met() -> object:
            self.show(moved=False, **status)
            return condition()

        wait_until(met, what)


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    page = Page(browser)
    yield page
    page.page.close()


def test_several_states_stand_side_by_side_under_their_labels(page: Page) -> None:
    page.load(Controls(["pause"]), 1.57, 1.57, labels=("mjc", "comfree"))

    def two() -> bool:
        pixels = page.browser.pixels("side_by_side")
        columns = np.nonzero((pixels[..., 0] > 60 + pixels[..., 1:].max(axis=-1)).any(axis=0))[0]
        return len(columns) > 0 and np.diff(columns).max() > 20

    page.until(two, "two capsules stand apart")


def test_a_cloth_is_shown_where_it_is(page: Page) -> None:
    page.mjm = mujoco.MjModel.from_xml_string("""
      <mujoco>
        <statistic center="0 0 .5" extent="1"/>
        <worldbody>
          <geom type="plane" size="3 3 .1"/>
          <flexcomp type="grid" count="5 5 1" spacing=".1 .1 .1" pos="0 0 .5" dim="2" mass="1"
                    name="cloth" radius=".01" rgba=".9 .1 .1 1"/>
        </worldbody>
      </mujoco>""")
    page.load(Controls(["pause"]), 0.0)
    page.until(lambda: page.browser.centre("red"), "the cloth is shown")
    _, before = page.browser.centre("red")
    mujoco.mj_step(page.mjm, page.mjds[0], 120)
    mujoco.mj_forward(page.mjm, page.mjds[0])
    page.show()

    def fallen() -> bool:
        place = page.browser.centre("red")
        return place is not None and place[1] > before + 20

    page.until(fallen, "it has fallen")


def test_a_state_that_is_not_finite_leaves_the_last_picture_and_says_so(page: Page) -> None:
    page.load(Controls(["pause"]), 0.5)
    page.until(lambda: page.browser.centre("red"), "the capsule is shown")
    page.mjds[0].xpos[:] = np.nan
    page.show()
    page.until(lambda: "diverged" in page.browser.text(), "it is told")
    assert page.browser.centre("red")
    mujoco.mj_forward(page.mjm, page.mjds[0])
    page.show()
    page.until(lambda: "diverged" not in page.browser.text(), "the notice goes")


def test_the_model_is_left_as_it_was(page: Page) -> None:
    before = mujoco.MjModel.from_xml_string(SWINGING)
    page.load(Controls(["pause"]), 0.5)
    assert same_model(before, page.mjm)


def test_buttons_ask_for_what_they_say(page: Page) -> None:
    controls = Controls(
        ["pause", "step", "reset", "speed", "seek", "world"], nworld=3, duration=10.0
    )
    page.load(controls, 0.5)
    asked: list[tuple[str, float]] = []
    for label in ("One step", "One step back", "Back to the start"):
        page.browser.click(label)
        before = len(asked)  # viser's page sends less than 20 clicks a second

        def answered(before: int = before) -> bool:
            asked.extend(controls.take())
            return len(asked) > before

        page.until(answered, f"{label!r} is asked for")
    page.until(lambda: page.browser.button("Go on"), "single steps pause")
    assert asked == [("step", 1), ("step", -1), ("reset", 0.0)]
    assert controls.paused
    page.browser.pixels("all_controls")


def test_the_slider_that_follows_does_not_seek(page: Page) -> None:
    controls = Controls(["pause", "seek"], duration=10.0)
    page.load(controls, 0.5)
    for position in np.linspace(0.0, 12.0, 50):
        page.show(position=float(position))

    def at_the_end() -> bool:
        values = page.browser.driver.execute_script(
            "return [...document.querySelectorAll('input')].map(each => each.value)"
        )
        return "10" in values

    page.until(at_the_end, "the slider has followed", position=12.0)
    assert controls.take() == []


def test_a_browser_that_has_stopped_reading_costs_no_memory() -> None:
    """One that said hello and then never reads: what it does not take is replaced, not kept."""
    import msgspec
    import viser
    from websockets.sync.client import connect

    from mjsim.view.web.page import WebPage

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    port = free_port()
    mjm = mujoco.MjModel.from_xml_string(SWINGING)
    mjd = mujoco.MjData(mjm)
    page = WebPage("127.0.0.1", port)
    page.load(mjm, [mjd], Controls())
    with connect(
        f"ws://127.0.0.1:{port}",
        subprotocols=[f"viser-v{viser.__version__}"],
        max_queue=1,
        compression=None,
    ) as silent:
        silent.send(msgspec.msgpack.encode(HELLO))
        wait_until(lambda: page._server.get_clients(), "the page knows of it")
        sizes = []
        for number in range(6000):
            mjd.qpos[0] = 0.001 * number
            mujoco.mj_forward(mjm, mjd)
            page.show(Status({"time": str(number)}), moved=True)
            if number % 1000 == 999:
                sizes.append(resident())
    page.close()
    assert sizes[-1] - sizes[1] < 20e6


def test_a_page_that_cannot_be_served_says_which_setting() -> None:
    from mjsim.view.web.page import WebPage

    with socket.create_server(("127.0.0.1", 0)) as taken:
        with pytest.raises(SettingError) as raised:
            WebPage("127.0.0.1", taken.getsockname()[1])
        assert raised.value.setting == "http_port"
