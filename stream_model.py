"""A model as a packet, complete enough for a viewer that does not have its files."""

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import mujoco

from protocol import Packet, ProtocolError

MODEL_KINDS = ("xml", "model_path")
MODEL_MODES = ("xml", "path")


def model_packet(model_path: str, mode: str = "xml") -> Packet:
    """The packet that tells a viewer which model it is watching.

    Args:
      model_path: MJCF or URDF file; in mode "path" any file that MuJoCo loads.
      mode: "xml": the whole model, with the files that it refers to under `assets`; "path": its
        absolute path.

    Raises:
      ValueError: the model cannot be sent in this mode.
      OSError: it cannot be read.
    """
    path = Path(model_path).resolve(strict=True)
    if mode == "path":
        return {"kind": "model_path", "path": str(path)}
    spec = mujoco.MjSpec.from_file(str(path))
    spec.compile()
    return {"kind": "xml", "xml": spec.to_xml(), "assets": {}}


def load_model(packet: Packet) -> mujoco.MjModel:
    """The model of a received packet.

    Raises:
      ProtocolError: it does not compile, or is a path that is not on this machine.
    """
    try:
        if packet["kind"] == "model_path":
            return _load_path(packet.get("path"))
        xml, assets = packet.get("xml"), packet.get("assets") or {}
        if not isinstance(xml, str) or not isinstance(assets, dict):
            raise ProtocolError("the model came without its XML")
        if not all(isinstance(data, bytes) for data in assets.values()):
            raise ProtocolError("the model came with assets that are not bytes")
        return mujoco.MjModel.from_xml_string(xml, assets)
    except (ValueError, TypeError, mujoco.FatalError) as error:
        if isinstance(error, ProtocolError):
            raise
        reason = " ".join(str(error).split())
        raise ProtocolError(f"the model that came does not compile: {reason}") from error


def _load_path(path: object) -> mujoco.MjModel:
    if not isinstance(path, str) or "\0" in path or not Path(path).is_file():
        raise ProtocolError(
            f"the server sent the path of its model, {ascii(path)}, and there is no such file "
            "here; start the server with MJSTREAM_MODEL=xml, which sends the model itself"
        )
    if Path(path).suffix == ".mjb":
        return mujoco.MjModel.from_binary_path(path)
    return mujoco.MjModel.from_xml_path(path)
