"""`mjsim doctor`: what this machine can do, and the one line that mends each lack."""

import contextlib
import dataclasses
import os
import platform
import sys
from importlib import metadata
from pathlib import Path

from mjsim import interrupts
from mjsim.errors import SettingError
from mjsim.render import opengl_probe as gl
from mjsim.text import install_line

RUN_PACKAGES = ("mujoco", "mujoco-warp", "warp-lang", "numpy", "click", "rich")
EXTRA_PACKAGES = {
    "view": ("glfw", "PyOpenGL"),
    "web": ("mjviser", "viser"),
    "record": ("mcap", "protobuf"),
    "video": ("imageio-ffmpeg",),
    "bench": ("pytest", "pytest-benchmark"),
}


@dataclasses.dataclass(frozen=True)
class Finding:
    """One line of the report: what was looked at, what was found, how to mend it ("" if fine)."""

    subject: str
    state: str
    mend: str = ""
    needed: bool = False


def python_finding() -> Finding:
    supported = (3, 11) <= sys.version_info[:2] <= (3, 13)
    mend = "" if supported else "Python 3.11 to 3.13 (in a clone: make PYTHON=python3.12 venv)"
    return Finding("Python", f"{platform.python_version()} at {sys.executable}", mend, needed=True)


def package_finding(name: str, extra: str, needed: bool) -> Finding:
    try:
        return Finding(name, metadata.version(name))
    except metadata.PackageNotFoundError:
        return Finding(name, "missing", install_line(extra), needed)


def warp_findings() -> list[Finding]:
    try:
        import warp as wp

        from mjsim.engines.device import warp_device

        warp_device("cpu")
    except SettingError as error:
        mend = f"set {error.setting} to another folder"
        return [Finding("Warp", f"does not start: {error.problem}", mend, needed=True)]
    except Exception as error:
        mend = "pip install --force-reinstall warp-lang (in a clone: make clean venv)"
        return [
            Finding(
                "Warp",
                f"does not start: {error}",
                mend,
                needed=True,
            )
        ]
    findings = [Finding(f"device {device.alias}", device.name) for device in wp.get_devices()]
    if not wp.is_cuda_available():
        mend = "install the NVIDIA driver (nvidia-smi tells); without it the CPU does everything"
        findings.append(Finding("device cuda", "no CUDA device", mend))
    assert wp.config.kernel_cache_dir is not None  # chosen where Warp started
    return [*findings, cache_finding(Path(wp.config.kernel_cache_dir))]


def cache_finding(cache: Path) -> Finding:
    """Count Warp's compiled modules, while others may be compiling.

    Warp compiles in a folder of another name and renames it, so what is listed may be gone when it
    is looked at.
    """
    modules, size = 0, 0
    # os.walk, unlike Path.rglob, passes over a folder that has gone.
    for folder, folders, files in os.walk(cache):
        if Path(folder) == cache:
            modules = len(folders)
        for file in files:
            with contextlib.suppress(FileNotFoundError):
                size += Path(folder, file).stat().st_size
    state = f"{modules} modules, {size / 1e6:.0f} MB in {cache}"
    mend = "" if modules else "mjsim run --port 0 (compiles for up to a minute)"
    return Finding("kernel cache", state, mend)


def gl_finding(name: str) -> Finding:
    tried = gl.probe(name)
    if tried.renderer:
        return Finding(f"GL {name}", tried.renderer)
    return Finding(f"GL {name}", f"no: {tried.reason[:120]}", gl.WAYS[name].mend)


def main() -> int:
    """Print the report; the exit status."""
    findings = [python_finding()]
    findings += [package_finding(name, "run", needed=True) for name in RUN_PACKAGES]
    findings += [
        package_finding(name, extra, needed=False)
        for extra, names in EXTRA_PACKAGES.items()
        for name in names
    ]
    findings += warp_findings()
    findings += [gl_finding(name) for name in gl.WAYS]
    findings.append(Finding("MUJOCO_GL", interrupts.MUJOCO_GL or "not set"))

    width = max(len(finding.subject) for finding in findings)
    for finding in findings:
        print(f"{'lack' if finding.mend else 'ok':4}  {finding.subject:{width}}  {finding.state}")
        if finding.mend:
            print(f"{'':6}{'':{width}}  -> {finding.mend}")
    return int(any(finding.mend and finding.needed for finding in findings))
