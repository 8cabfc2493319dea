"""README.md and docs/: the commands and programs in them run, the links lead somewhere.

Pages under docs/upstream are reports to the authors of MuJoCo Warp. Their programs show faults of
MuJoCo Warp, which the tests of our own remedies cover, so they are not run here.
"""

import importlib.util
import re
import shlex
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from typing import NamedTuple

import mujoco
import pytest
import warp as wp
from programs import finished
from recordings import record_swinging
from watching import free_port

from comfree_warp import __version__
from mjsim.model.files import REPOSITORY
from mjsim.render import opengl_probe

DOCS = REPOSITORY / "docs"
PAGES = [
    REPOSITORY / "README.md",
    REPOSITORY / "comfree_warp" / "README.md",
    *sorted(DOCS.rglob("*.md")),
]
ASSIGNMENTS = r"(?:\w+=\S+ +)*"  # of environment variables, before a command


class Block(NamedTuple):
    """A block of code on a page."""

    page: str
    code: str


def blocks(language: str) -> list[Block]:
    return [
        Block(str(page.relative_to(REPOSITORY)), code)
        for page in PAGES
        for code in re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.DOTALL | re.M)
    ]


def commands_like(*patterns: str) -> list[str]:
    return [each for each in COMMANDS if any(re.match(pattern, each) for pattern in patterns)]


COMMANDS = sorted(
    {
        line.partition("#")[0].strip()
        for block in blocks("bash")
        for line in block.code.splitlines()
        if line.partition("#")[0].strip()
    }
)
RUNS = commands_like(rf"{ASSIGNMENTS}(mjsim run|python test_headless\.py)( |$)")
REPLAYS = commands_like("mjsim replay ", "mjsim video ", r"python local_viewer\.py --replay ")
# test_local_viewer.py, test_test_viewer.py, test_web_page.py and test_tunnel.py run these.
WATCHING = [
    command
    for command in commands_like("mjsim (view|watch)", r"python (local|test)_viewer\.py")
    if command not in REPLAYS
]
TUNNELS = commands_like("ssh -N -L ")
TARGETS = commands_like("make( |$)")
SWEEPS = commands_like(r"python -m benchmark\.sweep ")
BENCHMARKS = [each for each in commands_like(r"python -m benchmark\.") if each not in SWEEPS]
# test_sweep.py starts a cluster and uses it.
CLUSTER = commands_like("export RAY_", "ray start", "RAY_ADDRESS=")
INSTALLS = commands_like("pip install ")
# Run by every job that builds the project, or shown by another test.
OTHERS = commands_like(r"source \.venv/bin/activate", "python -m build --wheel", "mjsim --help")

PROGRAMS = [each for each in blocks("python") if not each.page.startswith("docs/upstream/")]
CLIENTS = [each for each in PROGRAMS if re.search(r"[. _]connect(ion)?\(", each.code)]


def needs_engine(block: Block) -> bool:
    return "comfree_warp" in block.code or "engines" in block.code


def numbered(chosen: list[Block]) -> list[object]:
    """The blocks as parameters of a test, each named by its page."""
    return [
        pytest.param(
            block,
            id=f"{block.page}-{sum(other.page == block.page for other in chosen[:place])}",
            marks=pytest.mark.engine if needs_engine(block) else (),
        )
        for place, block in enumerate(chosen)
    ]


def arguments(command: str) -> list[str]:
    """A command of a page, to be run by this interpreter."""
    words = shlex.split(command)
    if words[0] == "mjsim":
        return [sys.executable, "-m", "mjsim", *words[1:]]
    return [sys.executable, str(REPOSITORY / words[1]), *words[2:]]


# -------------------------------------------------------------------------------------- commands


def test_this_file_knows_every_command_of_the_pages():
    known = RUNS + REPLAYS + WATCHING + TUNNELS + TARGETS
    known += SWEEPS + BENCHMARKS + CLUSTER + INSTALLS + OTHERS
    assert [each for each in COMMANDS if each not in known] == []


@pytest.mark.parametrize(
    "commands", [RUNS, REPLAYS, WATCHING, TUNNELS, TARGETS, SWEEPS, BENCHMARKS, CLUSTER, INSTALLS]
)
def test_the_pages_have_commands_of_every_kind(commands):
    assert commands


@pytest.mark.engine
@pytest.mark.parametrize("command", RUNS)
def test_the_runs_of_the_pages_run(command, tmp_path):
    if "cuda" in command and not wp.is_cuda_available():
        pytest.skip("no CUDA device on this machine")
    for file in ("summary.json", "run.mcap"):
        command = command.replace(file, str(tmp_path / file))
    settings = re.match(ASSIGNMENTS, command).group()
    variables = dict(each.split("=", 1) for each in settings.split())
    words = arguments(command.removeprefix(settings))
    done = finished([*words, "--nsteps=2", "--port=0"], **variables)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", REPLAYS)
def test_the_replays_of_the_pages_run(command, tmp_path):
    """Without the window and the page, which other tests open."""
    video = "video" in command
    if video and not any(opengl_probe.probe(way).renderer for way in ("EGL", "OSMesa")):
        pytest.skip("neither EGL nor OSMesa works on this machine")
    record_swinging(tmp_path / "run.mcap", 0.5)
    small = ["--size=160x120"] if video else ["--backend=none"]
    done = finished([*arguments(command), *small], tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", WATCHING)
def test_the_viewers_have_the_flags_that_the_pages_use(command):
    words = arguments(command)
    end = next((n for n, word in enumerate(words) if word.startswith("--")), len(words))
    described = finished([*words[:end], "--help"])
    assert described.returncode == 0, described.stderr
    assert [word for word in words if word.startswith("--") and word not in described.stdout] == []


@pytest.mark.parametrize("command", SWEEPS)
def test_the_sweeps_of_the_pages_have_cases(command, tmp_path):
    """test_sweep.py runs such cases, on Ray."""
    words = shlex.split(command.removesuffix("--dry-run"))
    table = tmp_path / "table"
    done = finished([sys.executable, *words[1:], "--dry-run", f"--table={table}"])
    assert done.returncode == 0, done.stderr
    assert re.search(r"\d\d cases to run, 0 in the table", done.stdout)


@pytest.mark.parametrize("command", BENCHMARKS)
def test_the_benchmarks_have_the_flags_that_the_pages_use(command):
    words = shlex.split(command)
    described = finished([sys.executable, *words[1:3], "--help"])
    assert described.returncode == 0, described.stderr
    assert [word for word in words if word.startswith("--") and word not in described.stdout] == []


@pytest.mark.parametrize("command", TARGETS)
def test_the_make_targets_of_the_pages_exist(command):
    done = finished([*shlex.split(command), "--dry-run"])
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", INSTALLS)
def test_the_pages_install_extras_and_files_that_exist(command):
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    (extras,) = re.findall(r"\[([\w,]+)\]", command)
    assert set(extras.split(",")) <= set(project["optional-dependencies"])
    for version in re.findall(r"comfree_warp-(.*?)-py3", command):
        assert version == __version__
    for file in re.findall(r"-c (\S+)", command):
        assert (REPOSITORY / file).is_file()


# -------------------------------------------------------------------------------------- programs


@pytest.mark.parametrize("program", numbered([each for each in PROGRAMS if each not in CLIENTS]))
def test_the_python_of_the_pages_runs(program, tmp_path):
    code = program.code.replace("run.mcap", str(tmp_path / "run.mcap"))
    code = code.replace("port=7000, ", "").replace("wait=0", f"wait=0, port={free_port()}")
    done = finished([sys.executable, "-c", code])
    assert done.returncode == 0, done.stderr
    assert done.stdout or "server" in code


@pytest.mark.parametrize("program", numbered(CLIENTS))
def test_the_clients_of_the_pages_follow_a_run_to_its_end(program):
    from mjsim.stream import StreamServer

    port = free_port()
    path = REPOSITORY / "benchmark" / "test_data" / "pendula.xml"
    mjm = mujoco.MjModel.from_xml_path(str(path))
    mjd = mujoco.MjData(mjm)
    with StreamServer(str(path), "127.0.0.1", port, hz=0, wait=0) as server:
        client = subprocess.Popen(
            [sys.executable, "-c", program.code.replace("7000", str(port))],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        while not server.connected and client.poll() is None:
            time.sleep(0.01)
        for step in range(100):
            mujoco.mj_step(mjm, mjd)
            server.send_state(mjd, step)
            time.sleep(0.002)
    said, complaints = client.communicate(timeout=60)
    assert client.returncode == 0, complaints
    assert f"{mjd.time:.3f}" in said


# ----------------------------------------------------------------------------------------- pages


def without_code(text: str) -> str:
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.M))


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and MkDocs make them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.M)
    headings = re.findall(r"^#+ +(.*)$", text, re.M)
    words = [re.sub(r"[^\w\s-]", "", heading).strip().lower() for heading in headings]
    return {re.sub(r"[\s-]+", "-", each) for each in words}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_the_links_of_a_page_lead_somewhere(page):
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", without_code(page.read_text())):
        if link.startswith(("https://", "http://")):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        found = target.is_file() and (not anchor or anchor in anchors(target))
        if not found:
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_the_files_that_a_page_names_exist(page):
    folders = (REPOSITORY, REPOSITORY / "comfree_warp", REPOSITORY / "benchmark" / "test_data")
    names = re.findall(r"`([\w.-]+/[\w./-]+\.(?:py|md|toml|xml))`", page.read_text())
    assert [
        name for name in names if not any((folder / name).is_file() for folder in folders)
    ] == []


def test_the_readme_is_short():
    assert len((REPOSITORY / "README.md").read_text().splitlines()) <= 200


@pytest.mark.parametrize("script", ["test_headless.py", "test_viewer.py", "local_viewer.py"])
def test_the_pages_list_every_setting(script):
    described = finished([sys.executable, script, "--help"]).stdout
    variables = re.findall(r"env var:\s+([A-Z_]+)", described)
    assert len(variables) > 10
    text = "".join(page.read_text() for page in PAGES)
    assert [each for each in variables if f"`{each}`" not in text] == []


@pytest.mark.parametrize("variable", ["MJSTREAM_TOKEN", "COMFREE_PLAIN", "WARP_CACHE_PATH"])
def test_the_pages_name_the_variables_that_have_no_flag(variable):
    assert any(f"`{variable}" in page.read_text() for page in PAGES)


def test_the_page_of_models_lists_and_shows_every_model():
    page = (DOCS / "models.md").read_text()
    for path in (REPOSITORY / "benchmark" / "test_data").rglob("*.xml"):
        if path.name != "humanoid_body.xml":  # a part of the humanoids
            name = str(path.relative_to(REPOSITORY / "benchmark" / "test_data"))
            picture = f"gallery/{name.removesuffix('.xml').replace('/', '-')}.png"
            assert f"`{name}`" in page
            assert f"({picture})" in page
            assert (DOCS / picture).is_file()


def test_make_docs_builds_a_page_for_every_page():
    """A broken link, or a name of the API that does not exist, fails it."""
    if not importlib.util.find_spec("mkdocs"):
        pytest.skip("mkdocs is not installed: make venv (or pip install -e '.[docs]')")
    # With the packages of this interpreter instead of those of .venv.
    packages = [f"BIN={Path(sys.executable).parent}", "--old-file=.venv/.installed"]
    done = finished(["make", "docs", *packages])
    assert done.returncode == 0, done.stderr
    assert "Documentation built" in done.stderr  # with --quiet it would overlook what is broken
    site = REPOSITORY / "build" / "docs"
    for page in DOCS.rglob("*.md"):
        assert (site / page.relative_to(DOCS).with_suffix(".html")).is_file()
    assert "StreamServer" in (site / "api" / "stream.html").read_text()
