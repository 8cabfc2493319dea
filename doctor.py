"""Report what this machine can do, and the one line that mends each lack.

    python doctor.py

Exit status: 0 if a headless run is possible, 1 if not.
"""

import dataclasses
import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path

RUN_PACKAGES = ("mujoco", "mujoco-warp", "warp-lang", "numpy", "click", "rich")
EXTRA_PACKAGES = {
    "view": ("glfw", "PyOpenGL"),
    "record": ("mcap", "protobuf"),
    "bench": ("pytest", "pytest-benchmark"),
}

GL_BACKENDS = {
    "window": ("glfw", "set DISPLAY (ssh -X, or xvfb-run: apt-get install xvfb libgl1)"),
    "EGL": ("egl", "apt-get install libegl1 libgl1 (an NVIDIA driver brings its own)"),
    "OSMesa": ("osmesa", "apt-get install libosmesa6"),
}

# In a process of its own: MuJoCo picks its backend at import, and a broken driver may crash.
GL_PROBE = """
import mujoco
context = mujoco.GLContext(64, 64)
context.make_current()
from OpenGL import GL
renderer, version = GL.glGetString(GL.GL_RENDERER), GL.glGetString(GL.GL_VERSION)
if renderer is None:
    raise SystemExit("no display, or none with OpenGL")
print("renderer:", renderer.decode(), "OpenGL", version.decode())
"""


@dataclasses.dataclass(frozen=True)
class Finding:
    """One line of the report: what was looked at, what was found, how to mend it ("" if fine)."""

    subject: str
    state: str
    mend: str = ""
    needed: bool = False


def python_finding() -> Finding:
    supported = (3, 11) <= sys.version_info[:2] <= (3, 13)
    mend = "" if supported else "make PYTHON=python3.12 venv (3.11 to 3.13 are supported)"
    return Finding("Python", f"{platform.python_version()} at {sys.executable}", mend, needed=True)


def package_finding(name: str, extra: str, needed: bool) -> Finding:
    try:
        return Finding(name, metadata.version(name))
    except metadata.PackageNotFoundError:
        return Finding(name, "missing", f"make venv (or pip install -e '.[{extra}]')", needed)


def warp_findings() -> list[Finding]:
    try:
        import warp as wp

        import engines

        engines.warp_device("cpu")
    except Exception as error:
        return [Finding("Warp", f"does not start: {error}", "make clean venv", needed=True)]
    findings = [Finding(f"device {device.alias}", device.name) for device in wp.get_devices()]
    if not wp.is_cuda_available():
        mend = "install the NVIDIA driver (nvidia-smi tells); without it the CPU does everything"
        findings.append(Finding("device cuda", "no CUDA device", mend))
    cache = Path(wp.config.kernel_cache_dir)
    modules = [path for path in cache.iterdir() if path.is_dir()] if cache.is_dir() else []
    size = sum(file.stat().st_size for file in cache.rglob("*") if file.is_file())
    state = f"{len(modules)} modules, {size / 1e6:.0f} MB in {cache}"
    findings.append(
        Finding("kernel cache", state, "" if modules else "make run (compiles for up to a minute)")
    )
    return findings


def gl_finding(name: str) -> Finding:
    backend, mend = GL_BACKENDS[name]
    try:
        probe = subprocess.run(
            [sys.executable, "-c", GL_PROBE],
            env={**os.environ, "MUJOCO_GL": backend},
            capture_output=True,
            text=True,
            timeout=60,
        )
    except subprocess.TimeoutExpired:
        return Finding(f"GL {name}", "no answer within 60 s", mend)
    for line in probe.stdout.splitlines():
        if line.startswith("renderer: "):
            return Finding(f"GL {name}", line.removeprefix("renderer: "))
    reason = (probe.stderr.strip().splitlines() or [f"exit status {probe.returncode}"])[-1]
    return Finding(f"GL {name}", f"no: {reason[:120]}", mend)


def main() -> int:
    findings = [python_finding()]
    findings += [package_finding(name, "run", needed=True) for name in RUN_PACKAGES]
    findings += [
        package_finding(name, extra, needed=False)
        for extra, names in EXTRA_PACKAGES.items()
        for name in names
    ]
    findings += warp_findings()
    findings += [gl_finding(name) for name in GL_BACKENDS]
    findings.append(Finding("MUJOCO_GL", os.environ.get("MUJOCO_GL", "not set: MuJoCo chooses")))

    width = max(len(finding.subject) for finding in findings)
    for finding in findings:
        print(f"{'lack' if finding.mend else 'ok':4}  {finding.subject:{width}}  {finding.state}")
        if finding.mend:
            print(f"{'':6}{'':{width}}  -> {finding.mend}")
    return int(any(finding.mend and finding.needed for finding in findings))


if __name__ == "__main__":
    sys.exit(main())
