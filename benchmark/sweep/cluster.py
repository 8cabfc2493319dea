"""The Ray cluster of a sweep: the one at an address, or one of this machine's cores."""

import contextlib
import importlib.util
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmark.common.machine import RESULTS
from mjsim.cores import usable_cores
from mjsim.errors import SettingError

SHIPPED = ("comfree_warp", "mjsim", "benchmark")  # packages that a worker imports


def require_ray(address: str | None) -> Any:
    """Ray, imported without a word to its makers; without an address it keeps to 127.0.0.1.

    Raises:
      SettingError: it is not installed.
    """
    if importlib.util.find_spec("ray") is None:
        raise SettingError("ray", "is not installed: pip install 'comfree-warp[sweep]'")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if not address:  # by its name for systems on which it does so anyway
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    import ray

    return ray


@contextlib.contextmanager
def shipped_code() -> Iterator[str]:
    """A folder with the packages that this process runs, whole, to be sent to the nodes.

    Nodes need what these packages depend on, but not the packages themselves. Where they are
    installed on a node all the same, what is sent comes first on its workers' path.
    """
    with tempfile.TemporaryDirectory(prefix="comfree-sweep-code-") as folder:
        for package in SHIPPED:
            source = Path(importlib.util.find_spec(package).origin).parent
            shutil.copytree(source, Path(folder, package), ignore=_left_behind)
        yield folder


def _left_behind(folder: str, names: list[str]) -> set[str]:
    """What is in a package's folder and is no part of it: caches, and results of benchmarks."""
    here = Path(folder).resolve()
    return {name for name in names if name == "__pycache__" or here / name == RESULTS}


def check_answers(address: str) -> None:
    """Raises SettingError: nobody listens there, which Ray would take minutes to say."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host:
        return  # "auto" and its like
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, ValueError) as error:
        raise SettingError("RAY_ADDRESS", f"nothing answers at {address!r}: {error}") from None


@contextlib.contextmanager
def cluster(ray: Any, address: str | None, cores: int | None) -> Iterator[None]:
    """The cluster at an address, or one of this machine's cores that ends with the sweep.

    Raises:
      SettingError: nothing answers there.
    """
    if address:
        check_answers(address)
    with shipped_code() as code:
        # Else Ray would count the cores of the machine, and not those that this process may use.
        here = {"num_cpus": cores or usable_cores(), "include_dashboard": False}
        try:
            ray.init(
                address=address,
                runtime_env={"working_dir": code},
                logging_level="ERROR",
                log_to_driver=False,
                **({} if address else here),
            )
        except (ConnectionError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
            told = " ".join(str(error).split())
            raise SettingError("RAY_ADDRESS", f"{address!r}: {told}") from None
        try:
            yield
        finally:
            ray.shutdown()
