"""A Ray cluster of two hosts on one machine, for the tests of sweeps on a cluster."""

import contextlib
import dataclasses
import os
import secrets
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from sweep_programs import RAY, environment

from mjsim.model.files import REPOSITORY

OURS = ("comfree_warp", "mjsim", "benchmark")


def python_without_ours(folder: Path) -> Path:
    """A Python with every package that this one has, but for those of this repository.

    A virtual environment whose site-packages are links to those of this Python, one by one,
    without the links and files of an installed or editable comfree-warp.
    """
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    python = folder / "bin" / "python"
    told = "import sysconfig; print(sysconfig.get_path('purelib'))"
    packages = subprocess.run(
        [python, "-c", told], check=True, capture_output=True, text=True
    ).stdout.strip()
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if not entry.name.startswith(("__editable__", *OURS)):
            (Path(packages) / entry.name).symlink_to(entry)
    return python


class Hosts:
    """Two hosts of this test's own, in network namespaces that only reach each other."""

    addresses = ("10.77.1.1", "10.77.1.2")

    def __init__(self) -> None:
        self._names = [f"sweep-{os.getpid()}-{side}" for side in "ab"]

    def __enter__(self) -> "Hosts":
        one, other = self._names
        for name in self._names:
            self._ip("netns", "add", name)
        self._ip(
            *("link", "add", "sweep0", "netns", one, "type", "veth"),
            "peer",
            "sweep0",
            "netns",
            other,
        )
        for name, address in zip(self._names, self.addresses, strict=True):
            self._ip("-n", name, "addr", "add", f"{address}/24", "dev", "sweep0")
            for device in ("lo", "sweep0"):
                self._ip("-n", name, "link", "set", device, "up")
        return self

    def __exit__(self, *exception: object) -> None:
        for name in self._names:
            self._ip("netns", "del", name)

    @staticmethod
    def _ip(*arguments: str) -> None:
        subprocess.run(["ip", *arguments], check=True, capture_output=True)

    def on(self, host: int, *arguments: object) -> list[str]:
        """A command as it runs on one of them."""
        return ["ip", "netns", "exec", self._names[host], *map(str, arguments)]


def has_namespaces() -> bool:
    """Whether this user may make network namespaces."""
    if not shutil.which("ip"):
        return False
    made = subprocess.run(["ip", "netns", "add", "sweep-probe"], capture_output=True, check=False)
    if made.returncode == 0:
        subprocess.run(["ip", "netns", "del", "sweep-probe"], check=True)
    return made.returncode == 0


def signal_all(pids: list[int], signum: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signum)


@contextlib.contextmanager
def ray_node(command: list[str], folder: Path, token: str) -> Iterator[subprocess.Popen]:
    """A node of a cluster, with a working directory of its own."""
    folder.mkdir()
    with (folder / "log").open("w") as log:
        node = subprocess.Popen(
            [*command, "--block", "--disable-usage-stats"],
            cwd=folder,
            env=cluster_environment(token),
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            yield node
        finally:
            signal_all([node.pid, *(pid for pid, _ in children(node.pid))], signal.SIGKILL)
            node.wait()


def wait_for_nodes(status: list[str], number: int, token: str) -> None:
    """Until `ray status` lists so many."""
    deadline, told = time.monotonic() + 120, None
    while told is None or told.stdout.count(" node_") < number:
        assert time.monotonic() < deadline, told
        time.sleep(1)
        told = subprocess.run(
            status,
            env=cluster_environment(token),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )


def cluster_environment(token: str, **more: str) -> dict[str, str]:
    """That of all programs of a cluster: the token keeps others out, and no path leads to us."""
    shared = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token, "RAY_USAGE_STATS_ENABLED": "0"}
    found = environment(**shared, **more)
    found.pop("PYTHONPATH", None)
    return found


def children(pid: int) -> list[tuple[int, str]]:
    """All processes below one, with their names."""
    found = []
    listed = subprocess.run(["ps", "-eo", "pid,ppid,args"], capture_output=True, text=True)
    parents = [line.split(None, 2) for line in listed.stdout.splitlines()[1:]]
    below = {pid}
    for _ in range(5):
        for child, parent, args in parents:
            if int(parent) in below and int(child) not in below:
                below.add(int(child))
                found.append((int(child), args))
    return found


@dataclasses.dataclass(frozen=True)
class TwoNodes:
    """A Ray cluster whose second node has none of our packages.

    Attributes:
      hosts: where the nodes are.
      address: of the cluster.
      token: of the cluster.
      other: the process of the second node.
      python: that of the second node.
    """

    hosts: Hosts
    address: str
    token: str
    other: subprocess.Popen
    python: Path

    def start(self, command: list[str]) -> subprocess.Popen[str]:
        """A program on the first host, in the repository."""
        return subprocess.Popen(
            self.hosts.on(0, *command),
            cwd=REPOSITORY,
            env=cluster_environment(self.token, RAY_ADDRESS=self.address),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )


@contextlib.contextmanager
def two_nodes(folder: Path, cores: tuple[int, int]) -> Iterator[TwoNodes]:
    """Start a cluster.

    Args:
      folder: for what the nodes write.
      cores: that Ray may use on the first and on the second node.
    """
    token = secrets.token_hex(32)
    python = python_without_ours(folder / "venv")
    with Hosts() as hosts, contextlib.ExitStack() as stack:
        here, there = hosts.addresses
        address = f"{here}:6399"
        head = [RAY, "start", "--head", "--port=6399", f"--node-ip-address={here}"]
        # Ray's sockets have room for a short path only.
        short = stack.enter_context(tempfile.TemporaryDirectory(prefix="ray-"))
        head += ["--include-dashboard=false", f"--temp-dir={short}", f"--num-cpus={cores[0]}"]
        stack.enter_context(ray_node(hosts.on(0, *head), folder / "head", token))
        status = hosts.on(0, RAY, "status", f"--address={address}")
        wait_for_nodes(status, 1, token)
        join = [python, "-m", "ray.scripts.scripts", "start", f"--address={address}"]
        join += [f"--node-ip-address={there}", f"--num-cpus={cores[1]}"]
        other = stack.enter_context(ray_node(hosts.on(1, *join), folder / "other", token))
        wait_for_nodes(status, 2, token)
        yield TwoNodes(hosts, address, token, other, python)
