"""Runs shown on a page that is open nowhere, in a client or in a browser, in rounds."""

import collections
import contextlib
import functools
import json
import os
import platform
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import viser
from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table
from selenium import webdriver
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from benchmark.common.chromium import HELLO, open_chromium
from benchmark.common.measuring import median_and_quartiles, turns
from benchmark.speed.audiences import free_port
from mjsim.cores import usable_cores
from mjsim.model.files import REPOSITORY

WINDOW = (900, 600)  # pixels
MODEL = "benchmark/test_data/primitives.xml"
# Counts in the page: poses that reached it of the body that moved most often, since a body at rest
# is not sent; and frames that it drew.
COUNTER = """
window.updates = 0;
window.poses = {};
window.Worker = class extends window.Worker {
  constructor(...given) {
    super(...given);
    this.addEventListener('message', event => {
      for (const each of event.data.messages ?? []) {
        if (!each.updates?.batched_positions) continue;
        window.poses[each.name] = (window.poses[each.name] ?? 0) + 1;
        window.updates = Math.max(window.updates, window.poses[each.name]);
      }
    });
  }
};
"""
COUNTS = "return [window.updates, window.__viserTestpoints?.rendererInfo.render.frame ?? 0]"


@contextlib.contextmanager
def program(*command: str, **variables: str) -> Iterator[subprocess.Popen[str]]:
    """A program of the repository, ended by SIGINT if it has not ended itself."""
    process = subprocess.Popen(
        [sys.executable, *command],
        cwd=REPOSITORY,
        env=os.environ | variables,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        process.wait()


class Reader:
    """A browser but for the drawing: it takes all that is sent, and counts the updates."""

    def __init__(self, port: int) -> None:
        self._poses: collections.Counter[str] = collections.Counter()
        self._socket = connect(
            f"ws://127.0.0.1:{port}",
            subprotocols=[f"viser-v{viser.__version__}"],
            max_size=None,
            compression=None,
        )
        self._socket.send(msgspec.msgpack.encode(HELLO))
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        import zstandard

        with contextlib.suppress(ConnectionClosed):
            for packet in self._socket:
                size = int.from_bytes(packet[8:16], "little")
                inner = zstandard.ZstdDecompressor().decompress(packet[16 : 16 + size])
                for message in msgspec.msgpack.decode(inner)["messages"]:
                    if "batched_positions" in message.get("updates", {}):
                        self._poses[message["name"]] += 1

    def counts(self) -> list[int]:
        """Poses that came of the body that moved most often, since one at rest is not sent; and 0.

        As `COUNTS` has them, whose second number is that of frames drawn.
        """
        return [max(self._poses.copy().values(), default=0), 0]

    def close(self) -> None:
        self._socket.close()
        self._thread.join()


def run_once(
    nsteps: int, paced: bool, audience: str, browser: webdriver.Chrome
) -> dict[str, float]:
    """Steps per second of one run, and updates and frames per second where somebody looks."""
    stream, http = free_port(), free_port()
    with contextlib.ExitStack() as stack:
        summary = stack.enter_context(tempfile.NamedTemporaryFile())
        viewer = ["--backend", "none" if audience == "no page" else "web"]
        stack.enter_context(
            program(
                *("local_viewer.py", "--port", str(stream), "--retry-delay", "0.1"),
                *(*viewer, "--http-port", str(http)),
            )
        )
        counts = None
        if audience in ("client", "Chromium"):
            wait_until(lambda: _answers(http), "the page is served")
        # There before the run, so that it is not slowed by a browser that starts.
        if audience == "client":
            reader = stack.enter_context(contextlib.closing(Reader(http)))
            counts = reader.counts
        elif audience == "Chromium":
            browser.get(f"http://127.0.0.1:{http}")
            counts = functools.partial(browser.execute_script, COUNTS)
        simulation = stack.enter_context(
            program(
                *("test_headless.py", "--engine", "mjc", "--model", MODEL),
                *("--port", str(stream), "--nsteps", str(nsteps), "--json", summary.name),
                "--realtime" if paced else "--no-realtime",
            )
        )
        if counts:
            wait_until(lambda: counts()[0], "an update arrives")
        before, start = counts() if counts else [0, 0], time.monotonic()
        after, end = before, start
        while simulation.poll() is None:
            time.sleep(0.5)
            if counts and simulation.poll() is None:
                after, end = counts(), time.monotonic()
        result = {"steps": json.loads(Path(summary.name).read_text())["steps_per_second"]}
        if end > start:
            result["updates"] = (after[0] - before[0]) / (end - start)
            result["frames"] = (after[1] - before[1]) / (end - start)
    if audience == "Chromium":
        browser.get("about:blank")
    return result


def wait_until(condition: Callable[[], object], what: str) -> None:
    """Raises TimeoutError: a minute went by before the condition held."""
    end = time.monotonic() + 60.0
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"waited a minute in vain until {what}")
        time.sleep(0.01)


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError):
        socket.create_connection(("127.0.0.1", port), 1.0).close()
        return True
    return False


def show(rounds: int, nsteps: int) -> None:
    """Measure and print both tables."""
    console = Console(width=120)
    console.print(
        f"{rounds} interleaved rounds of {nsteps} steps of {MODEL} on "
        f"{usable_cores()} CPU cores of {platform.processor() or platform.machine()}"
        f": median (quartiles); mjviser on viser {viser.__version__}"
    )
    audiences = ["no page", "page, nobody", "client", "Chromium"]
    with (
        tempfile.TemporaryDirectory() as folder,
        open_chromium(Path(folder), WINDOW) as browser,
    ):
        browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": COUNTER})
        for paced in (True, False):
            runs: dict[str, list[dict[str, float]]] = {name: [] for name in audiences}
            for order in turns(audiences, rounds):
                for name in order:
                    runs[name].append(run_once(nsteps, paced, name, browser))
            table = Table(
                "looked at by, paced" if paced else "looked at by, unpaced",
                "steps/s, over those with no page",
                "updates/s",
                "frames drawn/s",
                box=MARKDOWN,
            )
            for name in audiences:
                pairs = zip(runs[name], runs["no page"], strict=True)
                row = [
                    median_and_quartiles([one["steps"] / other["steps"] for one, other in pairs], 3)
                ]
                for what in ("updates", "frames"):
                    values = [run[what] for run in runs[name] if run.get(what)]
                    row.append(median_and_quartiles(values, 1) if len(values) > 1 else "")
                table.add_row(name, *row)
            console.print(table)
