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

REPOSITORY = Path(__file__).resolve().parents[2]  # the clone; where this is installed, its folder
# A link to benchmark/test_data in a clone; where this is installed, a folder.
MODELS = (Path(__file__).parent / "test_data").resolve()
_CLONED = Path("benchmark", "test_data")  # where a clone has them
SUFFIXES = (".xml", ".mjcf", ".urdf", ".mjb")
CUTOFF = 0.6  # of likeness, from which on one name may be a slip for another (see `difflib`)


def find_file(path: str | os.PathLike[str]) -> Path:
    """Find a file in the working directory, or one of the models that come with this package.

    Args:
      path: of the file. A model of the package may be called as in a clone,
        "benchmark/test_data/humanoid/humanoid.xml", or by its last part, "humanoid/humanoid.xml".

    Raises:
      SettingError: there is no such file.
    """
    candidates = dict.fromkeys([Path.cwd() / path, *_shipped(Path(path))])
    for candidate in candidates:
        if os.path.isfile(candidate):  # which knows no OSError, as of a name that is too long
            return candidate
    tried = " or ".join(str(candidate) for candidate in candidates)
    nearest = _nearest(Path(path))
    meant = f"; did you mean {nearest}?" if nearest else ""
    raise SettingError("model", f"{str(path)!r} is no file; looked for {tried}{meant}")


def _shipped(path: Path) -> list[Path]:
    """Where a model of the package may be that is called by this path."""
    name = path.relative_to(_CLONED) if path.is_relative_to(_CLONED) else path
    return [*([REPOSITORY / path] if _in_clone() else []), MODELS / name]


def _in_clone() -> bool:
    return MODELS == REPOSITORY / _CLONED


def _nearest(path: Path) -> Path | None:
    """The model that a wrong path most likely means, as it would have to be given; or None.

    Of the files where the path leads to if a misspelt folder or file is read as the nearest one
    there, and of those that come with this package, by their names alone.
    """
    home = REPOSITORY if _in_clone() else MODELS
    bases = [Path(path.anchor)] if path.is_absolute() else [Path(), home]
    for base in bases:
        found: Path | None = base
        for part in path.parts[1:] if path.is_absolute() else path.parts:
            found = found and _nearest_entry(found, part)
        if found and found.suffix in SUFFIXES and os.path.isfile(found):
            return found.relative_to(home) if base == home else found
    shipped = _closest(path, MODELS.rglob("*.xml"))
    return shipped and shipped.relative_to(home)


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
