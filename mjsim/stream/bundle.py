"""A model as a packet, complete enough for a viewer that does not have its files."""

import warnings
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path

import mujoco
import numpy as np

from mjsim.choices import MODEL_MODES
from mjsim.model.arena import with_ample_arena
from mjsim.stream.unpickle import Packet, ProtocolError

MODEL_KINDS = ("xml", "model_path")

# What must be the same at the viewer for a state to mean the same there. MJCF is written with
# seven digits, so the numbers are only nearly the same.
_SIZES = ("nq", "nv", "nu", "na", "nbody", "njnt", "ngeom", "nmocap", "nmeshvert", "nhfielddata")
_LAYOUT = ("jnt_type", "jnt_qposadr", "body_parentid", "body_mocapid", "geom_type", "geom_bodyid")
# By their boxes, since a sphere may have been given three sizes of which one counts.
_SHAPES = ("geom_aabb", "mesh_vert", "hfield_data")


def model_packet(model_path: str, mode: str = "xml") -> Packet:
    """The packet that tells a viewer which model it is watching.

    Args:
      model_path: MJCF or URDF file; in mode "path" any file that MuJoCo loads.
      mode: "xml": the whole model, includes and attached models resolved, with the files that it
        refers to (meshes, textures, height fields, skins) under `assets`; "path": its absolute
        path.

    Raises:
      ValueError: the model cannot be sent in this mode.
      OSError: it cannot be read.
    """
    if mode not in MODEL_MODES:
        raise ValueError(f"mode {mode!r} is none of {', '.join(MODEL_MODES)}")
    path = Path(model_path).resolve(strict=True)
    if mode == "path":
        return {"kind": "model_path", "path": str(path)}
    if path.suffix == ".mjb":
        raise ValueError(f"{path.name} has no XML to send: use MJSTREAM_MODEL=path")
    with warnings.catch_warnings():
        # About the model, and said already where the simulation loaded it.
        warnings.simplefilter("ignore")
        try:
            packet = _packet_of_spec(path)
            _check_same(mujoco.MjModel.from_xml_path(str(path)), load_model(packet))
        except (ValueError, mujoco.FatalError) as error:
            reason = " ".join(str(error).split())
            raise ValueError(
                f"{path.name} cannot be sent as XML ({reason}): use MJSTREAM_MODEL=path"
            ) from error
    return packet


def _packet_of_spec(path: Path) -> Packet:
    spec = mujoco.MjSpec.from_file(str(path))
    spec.compile()  # resolves what the asset elements refer to; an attached model has its own
    folders = list(dict.fromkeys(_folders(path, set())))
    assets: dict[str, bytes] = {}

    def collect(file: str, folder: str) -> str:
        """Take a file along; the name that it has on the way, unique and without folders."""
        found = _find(file, folder, folders)
        data = found.read_bytes()
        same = (name for name, other in assets.items() if other == data)
        name = next(same, f"{len(assets)}_{found.name}")
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
    yield path.parent
    if path in seen:
        return
    seen.add(path)
    for element in ElementTree.parse(path).iter():
        if element.tag in ("include", "model") and element.get("file"):
            referred = path.parent / element.get("file")
            if referred.is_file():
                yield from _folders(referred.resolve(), seen)


def _find(file: str, folder: str, folders: list[Path]) -> Path:
    for each in folders:
        for candidate in (each / folder / file, each / file, each / folder / Path(file).name):
            if candidate.is_file():
                return candidate
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
