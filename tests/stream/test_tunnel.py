"""The viewer through a real SSH tunnel, as the README tells to use it."""

import getpass
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from scenes import OWN_FOLDER
from watching import ViewerProcess, free_port, streaming_scene, wait_until

SSHD = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/usr/bin:/sbin")

# Everything in one folder and nothing of the machine's own configuration. StrictModes would want
# folders that only their owner can write. Without PAM sshd refuses users with a locked password,
# as those of containers are; as root, PAM wants rights that containers do not have.
SSHD_CONFIG = """
ListenAddress 127.0.0.1:{port}
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/user_key.pub
PidFile none
UsePAM {pam}
StrictModes no
PermitRootLogin yes
PasswordAuthentication no
"""


@pytest.fixture
def ssh_port(tmp_path: Path) -> Iterator[int]:
    """An sshd on loopback that lets this user in, with keys of its own in `tmp_path`."""
    if not SSHD or not shutil.which("ssh"):
        pytest.skip("no sshd or no ssh (Debian: apt-get install openssh-server openssh-client)")
    if os.getuid() == 0:  # what the service of the package does before it starts sshd
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    for name in ("host_key", "user_key"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / name)]
        subprocess.run(command, check=True)
    port, pam = free_port(), "no" if os.getuid() == 0 else "yes"
    (tmp_path / "sshd_config").write_text(SSHD_CONFIG.format(port=port, folder=tmp_path, pam=pam))
    log = tmp_path / "sshd.log"
    with log.open("w") as output:
        server = subprocess.Popen(
            [SSHD, "-D", "-e", "-f", str(tmp_path / "sshd_config")], stderr=output
        )
    try:
        wait_until(lambda: server.poll() is not None or "listening" in log.read_text(), "it runs")
        if server.poll() is not None:
            pytest.skip(f"sshd does not run here: {log.read_text().strip()}")
        yield port
    finally:
        server.terminate()
        server.wait()


def start_tunnel(folder: Path, ssh_port: int, near: int, far: int) -> subprocess.Popen:
    """`ssh -N -L near:127.0.0.1:far`, once it accepts connections."""
    options = [
        "UserKnownHostsFile=/dev/null",
        "StrictHostKeyChecking=no",
        "IdentitiesOnly=yes",
        "BatchMode=yes",
        "ExitOnForwardFailure=yes",
    ]
    log = folder / "ssh.log"
    with log.open("w") as output:
        tunnel = subprocess.Popen(
            ["ssh", "-v", "-F", "none", "-N", "-L", f"{near}:127.0.0.1:{far}"]
            + ["-p", str(ssh_port), "-i", str(folder / "user_key")]
            + [part for option in options for part in ("-o", option)]
            + [f"{getpass.getuser()}@127.0.0.1"],
            stderr=output,
        )
    wait_until(
        lambda: tunnel.poll() is not None or "Entering interactive session" in log.read_text(),
        "the tunnel stands",
    )
    assert tunnel.poll() is None, log.read_text()
    return tunnel


def test_viewer_through_an_ssh_tunnel(ssh_port: int, tmp_path: Path) -> None:
    near, far = free_port(), free_port()
    tunnel = start_tunnel(tmp_path, ssh_port, near, far)
    try:
        with ViewerProcess(tmp_path, near, "--backend", "none", "--once") as viewer:
            with streaming_scene(OWN_FOLDER / "humanoid" / "humanoid.xml", far, wait=None):
                wait_until(lambda: viewer.output.count("\n") >= 2, "there are two lines")
            assert viewer.status() == 0
    finally:
        tunnel.terminate()
        tunnel.wait()
    times = [float(re.search(r"time ([0-9.]+) s", line)[1]) for line in viewer.output.splitlines()]
    assert times == sorted(set(times)), "simulated time goes on"
    assert "connected: humanoid" in viewer.errors
