"""Find model files, load them, and make the state that a run starts from."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from mjsim.errors import SettingError

if TYPE_CHECKING:  # else only where it is used: finding a file does without MuJoCo
    import mujoco

REPOSITORY = Path(__file__).resolve().parents[2]
MODELS = REPOSITORY / "benchmark" / "test_data"
SUFFIXES = (".xml", ".mjcf", ".urdf", ".mjb")
CUTOFF = 0.6  # of likeness, from which on one name may be a slip for another (see `difflib`)


def find_file(path: str | os.PathLike[str]) -> Path:
    """Resolve a path against the working directory, then against the repository.

    Raises:
      SettingError: no such file in either.
    """
    candidates = dict.fromkeys([Path.cwd() / path, REPOSITORY / path])
    for candidate in candidates:
        if os.path.isfile(candidate):  # which knows no OSError, as of a name that is too long
            return candidate
    tried = " or ".join(str(candidate) for candidate in candidates)
    nearest = _nearest(Path(path))
    meant = f"; did you mean {nearest}?" if nearest else ""
    raise SettingError("model", f"{str(path)!r} is no file; looked for {tried}{meant}")


def _nearest(path: Path) -> Path | None:
    """The model that a wrong path most likely means, as it would have to be given; or None.

    Of the files where the path leads to if a misspelt folder or file is read as the nearest one
    there, and of those that ship with the repository, by their names alone.
    """
    bases = [Path(path.anchor)] if path.is_absolute() else [Path(), REPOSITORY]
    for base in bases:
        found = base
        for part in path.parts[1:] if path.is_absolute() else path.parts:
            found = found and _nearest_entry(found, part)
        if found and found.suffix in SUFFIXES and os.path.isfile(found):
            return found if base != REPOSITORY else found.relative_to(REPOSITORY)
    shipped = _closest(path, MODELS.rglob("*.xml"))
    return shipped and shipped.relative_to(REPOSITORY)


def _nearest_entry(folder: Path, name: str) -> Path | None:
    if name == ".." or os.path.exists(folder / name):
        return folder / name
    try:
        return _closest(Path(name), folder.iterdir())
    except OSError:  # no folder, or one that may not be read
        return None


def _closest(name: Path, files: Iterable[Path]) -> Path | None:
    """The file whose name without its suffix, which most share, is the most like one; or None."""
    by_stem = {file.stem: file for file in sorted(files, reverse=True)}
    close = difflib.get_close_matches(name.stem, by_stem, n=1, cutoff=CUTOFF)
    return by_stem[close[0]] if close else None


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
