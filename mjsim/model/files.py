"""Find model files, load them, and make the state that a run starts from."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from mjsim.errors import SettingError

if TYPE_CHECKING:  # else only where it is used: finding a file does without MuJoCo
    import mujoco

REPOSITORY = Path(__file__).resolve().parents[2]


def find_file(path: str | os.PathLike[str]) -> Path:
    """Resolve a path against the working directory, then against the repository.

    Raises:
      SettingError: no such file in either.
    """
    candidates = dict.fromkeys([Path.cwd() / path, REPOSITORY / path])
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    tried = " or ".join(str(candidate) for candidate in candidates)
    raise SettingError("model", f"{str(path)!r} is no file; looked for {tried}")


def load_model(path: str | os.PathLike[str]) -> mujoco.MjModel:
    """Compile an MJCF or URDF file, or load an MJB.

    Raises:
      SettingError: the file does not exist or is no valid model; in one line, with MuJoCo's reason.
    """
    import mujoco

    file = find_file(path)
    try:
        if file.suffix == ".mjb":
            return mujoco.MjModel.from_binary_path(str(file))
        return mujoco.MjModel.from_xml_path(str(file))
    except (ValueError, mujoco.FatalError) as error:
        reason = " ".join(str(error).split())
        raise SettingError("model", f"{str(path)!r} does not compile: {reason}") from None


def initial_data(mjm: mujoco.MjModel) -> mujoco.MjData:
    """The state that a run starts from: keyframe 0 where the model has one, else qpos0."""
    import mujoco

    mjd = mujoco.MjData(mjm)
    if mjm.nkey:
        mujoco.mj_resetDataKeyframe(mjm, mjd, 0)
    return mjd
