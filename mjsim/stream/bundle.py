"""A model as a packet, complete enough for a viewer that does not have its files."""

import copy
import os
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TypeAlias

import mujoco
import numpy as np

from mjsim.choices import MODEL_MODES
from mjsim.errors import ProtocolError
from mjsim.model.arena import with_ample_arena
from mjsim.stream.packets import Packet

MODEL_KINDS = ("xml", "model_path")

# A model as people have it in hand: a path, MJCF as text, or MuJoCo's own.
Model: TypeAlias = str | os.PathLike[str] | mujoco.MjSpec | mujoco.MjModel

# What must be the same at the viewer for a state to mean the same there. MJCF is written with
# seven digits, so the numbers are only nearly the same.
_SIZES = ("nq", "nv", "nu", "na", "nbody", "njnt", "ngeom", "nmocap", "nmeshvert", "nhfielddata")
_LAYOUT = ("jnt_type", "jnt_qposadr", "body_parentid", "body_mocapid", "geom_type", "geom_bodyid")
# By their boxes, since a sphere may have been given three sizes of which one counts.
_SHAPES = ("geom_aabb", "mesh_vert", "hfield_data")
_BOUNDS = ("geom_aabb", "geom_rbound", "bvh_aabb")  # which only the compiler makes of the sizes


def model_packet(model: Model, mode: str = "xml") -> Packet:
    """The packet that tells a viewer which model it is watching.

    Args:
      model: the path of an MJCF or URDF file, in mode "path" of any file that MuJoCo loads; MJCF as
        text, which begins with "<"; an `mujoco.MjSpec`; or an `mujoco.MjModel`, while it is the one
        that MuJoCo compiled last from XML and its meshes and textures need no files.
      mode: "xml": the whole model, includes and attached models resolved, with the files that it
        refers to (meshes, textures, height fields, skins) under `assets`; "path": its absolute
        path.

    Raises:
      ValueError: the model cannot be sent in this mode.
      TypeError: it is none of these.
      OSError: it cannot be read.
    """
    if mode not in MODEL_MODES:
        raise ValueError(f"mode {mode!r} is none of {', '.join(MODEL_MODES)}")
    with warnings.catch_warnings():
        # About the model, and said already where the simulation loaded it.
        warnings.simplefilter("ignore")
        if isinstance(model, (mujoco.MjModel, mujoco.MjSpec)) or is_mjcf(model):
            if mode == "path":
                raise ValueError(
                    'mode "path" sends the path of a file, and the model was given as '
                    f'{name_of(model)}: pass its path, or choose the mode "xml"'
                )
            if isinstance(model, mujoco.MjModel):
                return _packet_of_model(model)
            return _packet_of_source(model)
        if not isinstance(model, (str, os.PathLike)):
            raise TypeError(f"{name_of(model)} is no MjSpec, MjModel, MJCF text or path")
        path = Path(model).resolve(strict=True)
        if mode == "path":
            return {"kind": "model_path", "path": str(path)}
        return _packet_of_file(path)


def is_mjcf(model: object) -> bool:
    """Whether it is the text of a model, and not the path of one."""
    return isinstance(model, str) and model.lstrip("\ufeff \t\r\n").startswith("<")


def name_of(model: object) -> str:
    """What the model was given as, for an error."""
    return "MJCF text" if is_mjcf(model) else f"the {type(model).__name__}"


def _packet_of_file(path: Path) -> Packet:
    if path.suffix == ".mjb":
        raise ValueError(f"{path.name} has no XML to send: use MJSTREAM_MODEL=path")
    try:
        packet = _packet_of_spec(mujoco.MjSpec.from_file(str(path)), _folders(path, set()))
        _check_same(mujoco.MjModel.from_xml_path(str(path)), load_model(packet))
    except (ValueError, mujoco.FatalError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"{path.name} cannot be sent as XML ({reason}): use MJSTREAM_MODEL=path"
        ) from error
    return packet


def _packet_of_source(model: mujoco.MjSpec | str) -> Packet:
    """The packet of an MjSpec, which is left as it is, or of MJCF text."""
    try:
        spec = mujoco.MjSpec.from_string(model) if isinstance(model, str) else model.copy()
        wanted = spec.compile()
        packet = _packet_of_spec(spec.copy(), [Path(spec.modelfiledir or "").resolve()])
        _check_same(wanted, load_model(packet))
    except (ValueError, mujoco.FatalError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{name_of(model)} cannot be sent as XML: {reason}") from error
    return packet


def _packet_of_model(mjm: mujoco.MjModel) -> Packet:
    """The packet of a compiled model, from the XML that MuJoCo has kept of it.

    A viewer takes no MJB over a wire: what reads one in MuJoCo trusts the numbers in it. And MuJoCo
    keeps the XML of the last compilation alone, so what it writes is compiled and compared.
    """
    try:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "model.xml"
            mujoco.mj_saveLastXML(str(file), mjm)
            xml = file.read_text()
        packet = _packet_of_spec(mujoco.MjSpec.from_string(xml), [Path.cwd()])
        _check_equal(mjm, load_model(packet))
    except (ValueError, mujoco.FatalError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            "an MjModel is compiled, and MuJoCo no longer has the XML of this one with all its "
            f"files ({reason}): pass the MjSpec, the MJCF text or the path that it was made from"
        ) from error
    return packet


def _packet_of_spec(spec: mujoco.MjSpec, folders: Iterable[Path]) -> Packet:
    """The packet of a spec, which is changed for it; its files are in it or in the folders."""
    spec.compile()  # resolves what the asset elements refer to; an attached model has its own
    folders = list(dict.fromkeys(folders))
    known = dict(spec.assets)
    assets: dict[str, bytes] = {}

    def collect(file: str, folder: str) -> str:
        """Take a file along; the name that it has on the way, unique and without folders."""
        data = _read_asset(file, folder, known, folders)
        same = (name for name, other in assets.items() if other == data)
        name = next(same, f"{len(assets)}_{Path(file).name}")
        assets[name] = data
        return name

    for element in [*spec.meshes, *spec.hfields, *spec.skins]:
        if element.file:
            element.file = collect(element.file, element.compiler.meshdir)
    for texture in spec.textures:
        if texture.file:
            texture.file = collect(texture.file, texture.compiler.texturedir)
        for side, file in enumerate(texture.cubefiles):
            if file:
                texture.cubefiles[side] = collect(file, texture.compiler.texturedir)
    if assets:
        for element in [spec, *spec.meshes, *spec.hfields, *spec.skins, *spec.textures]:
            element.compiler.meshdir = element.compiler.texturedir = ""
        spec.assets = assets
        spec.compile()
    return {"kind": "xml", "xml": spec.to_xml(), "assets": assets}


def _folders(path: Path, seen: set[Path]) -> Iterator[Path]:
    """The folder of a model, and those of the files that it includes or attaches."""
    from xml.etree import ElementTree  # only here, where a file is read: 10 ms

    yield path.parent
    if path in seen:
        return
    seen.add(path)
    for element in ElementTree.parse(path).iter():
        file = element.get("file")
        if element.tag in ("include", "model") and file:
            referred = path.parent / file
            if referred.is_file():
                yield from _folders(referred.resolve(), seen)


def _read_asset(file: str, folder: str, known: Mapping[str, bytes], folders: list[Path]) -> bytes:
    """A file that a model refers to, out of those that came with it, or from the disk."""
    for name in (file, str(Path(folder, file)), Path(file).name):
        if name in known:
            return bytes(known[name])
    for each in folders:
        for candidate in (each / folder / file, each / file, each / folder / Path(file).name):
            if candidate.is_file():
                return candidate.read_bytes()
    raise ValueError(f"its file {file!r} was not found")


def _check_same(wanted: mujoco.MjModel, got: mujoco.MjModel) -> None:
    for name in _SIZES:
        if getattr(wanted, name) != getattr(got, name):
            raise ValueError(
                f"{name} would be {getattr(got, name)} there and is {getattr(wanted, name)} here"
            )
    for name in _LAYOUT:
        if not np.array_equal(getattr(wanted, name), getattr(got, name)):
            raise ValueError(f"{name} would differ there")
    for name in _SHAPES:
        if not np.allclose(getattr(wanted, name), getattr(got, name), rtol=1e-4, atol=1e-5):
            raise ValueError(f"{name} would differ there")


def _check_equal(wanted: mujoco.MjModel, got: mujoco.MjModel) -> None:
    """Compare two models in all their arrays, where one may be of another source altogether."""
    if wanted.names != got.names:
        raise ValueError("the model that was compiled last has other names")
    wanted = copy.copy(wanted)  # of which only what was set is compared, and not what follows
    mujoco.mj_setConst(wanted, mujoco.MjData(wanted))
    for name, values in _arrays(wanted):
        other = getattr(got, name)
        if values.shape != other.shape or not np.allclose(
            values, other, rtol=1e-4, atol=1e-5, equal_nan=True
        ):
            raise ValueError(f"{name} of the model that was compiled last is another")


def _arrays(mjm: mujoco.MjModel) -> Iterator[tuple[str, np.ndarray]]:
    for name in dir(mjm):
        if name.startswith("_") or name in _BOUNDS:
            continue
        if isinstance(values := getattr(mjm, name), np.ndarray):
            yield name, values


def load_model(packet: Packet) -> mujoco.MjModel:
    """The model of a received packet, with an arena for any of its states.

    Raises:
      ProtocolError: it does not compile, or is a path that is not on this machine.
    """
    try:
        if packet["kind"] == "model_path":
            return with_ample_arena(_load_path(packet.get("path")))
        xml, assets = packet.get("xml"), packet.get("assets") or {}
        if not isinstance(xml, str) or not isinstance(assets, dict):
            raise ProtocolError("the model came without its XML")
        if not all(isinstance(data, bytes) for data in assets.values()):
            raise ProtocolError("the model came with assets that are not bytes")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return with_ample_arena(mujoco.MjModel.from_xml_string(xml, assets))
    except ProtocolError:
        raise
    except (ValueError, TypeError, mujoco.FatalError) as error:
        reason = " ".join(str(error).split())
        raise ProtocolError(f"the model that came does not compile: {reason}") from error


def _load_path(path: object) -> mujoco.MjModel:
    if not isinstance(path, str) or "\0" in path or not Path(path).is_file():
        raise ProtocolError(
            f"the server sent the path of its model, {path!a}, and there is no such file here; "
            "start the server with MJSTREAM_MODEL=xml, which sends the model itself"
        )
    if Path(path).suffix == ".mjb":
        return mujoco.MjModel.from_binary_path(path)
    return mujoco.MjModel.from_xml_path(path)
