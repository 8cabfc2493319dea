"""Sweeps on a cluster of two hosts, on one of which none of our packages can be imported."""

import signal
import subprocess

import pytest
from ray_hosts import (
    OURS,
    children,
    cluster_environment,
    has_namespaces,
    python_without_ours,
    signal_all,
    two_nodes,
)
from sweep_programs import HUMANOID, command, has_ray, long_sweep, wait_for_rows
from watching import wait_until

from benchmark.sweep.table import read_rows

pytestmark = [
    has_ray,
    pytest.mark.alone,
    pytest.mark.skipif(
        not has_namespaces(), reason="no network namespaces (root, Debian: iproute2)"
    ),
]


def test_the_second_node_has_what_we_depend_on_and_none_of_ours(tmp_path):
    """Else the tests below would not see what the driver fails to send."""
    python = python_without_ours(tmp_path / "venv")

    def imported(name: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [python, "-c", f"import {name}"],
            cwd=tmp_path,
            env=cluster_environment("none"),
            capture_output=True,
            text=True,
            check=False,
        )

    for name in ("ray", "mujoco", "numpy", "click", "rich"):
        assert imported(name).returncode == 0, name
    for name in OURS:
        assert f"No module named '{name}'" in imported(name).stderr


@pytest.mark.engine
def test_a_node_without_our_packages_runs_what_the_driver_sends(tmp_path):
    """Every engine and both laws, on models and on scenes of the fidelity suite."""
    path = tmp_path / "table.jsonl"
    (tmp_path / "sweep.toml").write_text(f"""
timestep = 0.005
nsteps = 40
[[cases]]
model = "{HUMANOID}"
engine = ["mjc", "mjwarp", "comfree:paper", "comfree:warm"]
[[cases]]
scene = "resting box"
engine = ["comfree:paper", "comfree:warm"]
""")
    with (
        two_nodes(tmp_path, cores=(0, 1)) as nodes,
        nodes.start(command(tmp_path / "sweep.toml", "--table", path)) as running,
    ):
        out, _ = running.communicate(timeout=500)
    assert running.returncode == 0, out
    assert "on 1 cores of 2 node(s)" in out  # those of the node without our packages
    rows = read_rows(path)
    assert [(row["engine"], row["law"], row["status"]) for row in rows if row["error"]] == []
    assert sorted((row["engine"], row["law"] or "") for row in rows) == [
        *[("comfree", "paper")] * 2,
        *[("comfree", "warm")] * 2,
        *[("mjc", ""), ("mjwarp", "")],
    ]
    assert {row["status"] for row in rows} == {"done"}


@pytest.mark.parametrize("victim", ["process", "node"])
def test_on_two_nodes_a_killed_worker_loses_and_repeats_no_case(tmp_path, victim):
    path = tmp_path / "table.jsonl"
    with two_nodes(tmp_path, cores=(1, 1)) as nodes:

        def below_other() -> list[int]:
            return [pid for pid, _ in children(nodes.other.pid)]

        def at_work() -> list[int]:
            return [pid for pid, args in children(nodes.other.pid) if "ray::run_on_node" in args]

        def held_at_work() -> list[int]:
            """A stopped process cannot end its case before it is killed; one that has, goes on."""
            signal_all(at_work(), signal.SIGSTOP)
            held = at_work()
            signal_all([pid for pid in below_other() if pid not in held], signal.SIGCONT)
            return held

        with nodes.start(command(*long_sweep(tmp_path, 12))) as running:
            try:
                wait_for_rows(path, 4, running)
                wait_until(held_at_work, "the other node works on a case", 60.0)
                signal_all(below_other() if victim == "node" else at_work(), signal.SIGKILL)
                out, _ = running.communicate(timeout=200)
            finally:
                running.kill()
    assert running.returncode == 0, out
    assert "on 2 cores of 2 node(s)" in out
    rows = read_rows(path)
    assert len(rows) == len({row["case"] for row in rows}) == 12
    assert {row["status"] for row in rows} == {"done"}
    assert max(row["attempts"] for row in rows) == 2
