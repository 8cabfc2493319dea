"""Warp's devices, found without a word that nobody asked for."""

import contextlib
import os
import tempfile
from collections.abc import Iterator

import warp as wp

from comfree_warp.runtime import compilation
from mjsim.errors import SettingError


@contextlib.contextmanager
def _without_missing_driver_line() -> Iterator[None]:
    """Drop the line that Warp's native code prints where there is no NVIDIA driver; keep others."""
    with tempfile.TemporaryFile() as caught:
        saved = os.dup(2)
        os.dup2(caught.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(saved, 2)
            os.close(saved)
            caught.seek(0)
            for line in caught.read().splitlines(keepends=True):
                if b"Could not find or load the NVIDIA CUDA driver" not in line:
                    os.write(2, line)


@contextlib.contextmanager
def kernel_cache_in_use() -> Iterator[None]:
    """Within this context what goes wrong with Warp's kernel cache is a `SettingError`."""
    try:
        yield
    except OSError as error:
        if error.filename is None:  # not of a file: a library, or a progress bar's terminal
            raise
        raise SettingError(
            "WARP_CACHE_PATH",
            f"kernels cannot be kept in {wp.config.kernel_cache_dir} ({error.strerror}); set it to "
            f"a folder that can be written, with {compilation.ROOM >> 20} MB to spare",
        ) from error


def warp_device(name: str) -> wp.Device:
    """The Warp device of that name ("cpu", "cuda", "cuda:0", ...), with Warp initialized quietly.

    Raises:
      SettingError: this machine has no such device, or Warp's kernel cache cannot be made.
    """
    wp.config.log_level = max(wp.config.log_level, wp.LOG_WARNING)
    with _without_missing_driver_line(), kernel_cache_in_use():
        wp.init()
    available = [device.alias for device in wp.get_devices()]
    if name in available or (name == "cuda" and wp.is_cuda_available()):
        return wp.get_device(name)
    raise SettingError("device", f"{name!r} is not here; available: {', '.join(available)}")
