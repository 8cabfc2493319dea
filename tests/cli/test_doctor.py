"""`mjsim doctor`: what it reports, and that it works where much is missing."""

import itertools
import shutil
import subprocess
import sys
import threading

import warp as wp
from programs import finished

from mjsim.cli import doctor
from mjsim.model.files import REPOSITORY


def doctor_says(**variables: str) -> subprocess.CompletedProcess[str]:
    return finished([sys.executable, "-m", "mjsim", "doctor"], **variables)


def test_doctor_reports_what_this_machine_can_do():
    done = doctor_says()
    assert done.returncode == 0
    for subject in ("Python", "mujoco-warp", "warp-lang", "device cpu", "kernel cache", "GL EGL"):
        assert subject in done.stdout
    if "cuda:0" not in [device.alias for device in wp.get_devices()]:
        assert "-> install the NVIDIA driver" in done.stdout


def test_doctor_names_the_variable_of_a_cache_that_cannot_be_written():
    done = doctor_says(WARP_CACHE_PATH="/proc/none")
    assert done.returncode == 1
    assert "-> set WARP_CACHE_PATH to another folder" in done.stdout


def test_doctor_reports_that_warp_cannot_be_imported(tmp_path):
    (tmp_path / "warp.py").write_text("raise ImportError('no wheel for this machine')")
    done = doctor_says(PYTHONPATH=str(tmp_path))
    assert done.returncode == 1
    assert "does not start: no wheel for this machine" in done.stdout


def test_doctor_counts_the_modules_of_a_cache_in_which_others_compile(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "kernel.o").write_bytes(bytes(1_000_000))
    ended = threading.Event()

    def compile_on() -> None:
        for number in itertools.count():
            if ended.is_set():
                break
            module = tmp_path / f"three_p1_t{number}"
            module.mkdir()
            (module / "kernel.o").write_bytes(b"")
            shutil.rmtree(module)

    compiler = threading.Thread(target=compile_on)
    compiler.start()
    try:
        for _ in range(300):
            found = doctor.cache_finding(tmp_path)
            assert found.state[1:] == f" modules, 2 MB in {tmp_path}"
            assert found.state[0] in "23"
    finally:
        ended.set()
        compiler.join()


def test_where_nothing_is_installed_doctor_says_so_and_run_says_what_to_install(tmp_path):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path)], check=True)
    python = tmp_path / "bin" / "python"

    def mjsim(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [python, "-m", "mjsim", *arguments],
            cwd=tmp_path,
            env={"PYTHONPATH": str(REPOSITORY)},
            capture_output=True,
            text=True,
            timeout=600,
        )

    done = mjsim("doctor")
    assert (done.returncode, done.stderr) == (1, "")
    for package in ("click", "rich", "mujoco", "warp-lang"):
        assert f"lack  {package}" in done.stdout
    assert "-> pip install 'comfree-warp[run]' (in a clone: make venv)" in done.stdout
    assert "does not start: No module named" in done.stdout

    done = mjsim("run", "--help")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "mjsim: click and rich missing: pip install 'comfree-warp[run]' (in a clone: make venv)\n"
    )
