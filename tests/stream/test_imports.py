"""What importing the streams and recordings brings along, and the names that it offers."""

import json
import os
import subprocess
import sys

import pytest

from mjsim import stream
from mjsim.model.files import REPOSITORY

# As README.md and earlier versions have them.
DOCUMENTED = [
    *("StreamServer", "StreamClient", "StreamError", "ProtocolError", "MODEL_KINDS", "MODEL_MODES"),
    *("DEFAULT_LIMIT", "recv_packet", "send_packet", "pack_mjdata", "apply_mjdata", "load_model"),
    *("model_packet", "encode_packet", "decode_payload"),
]


def loaded_by(statement: str) -> set[str]:
    """The modules that a fresh Python has after a statement."""
    code = f"import sys, json; {statement}; print(json.dumps(list(sys.modules)))"
    # MuJoCo itself loads an OpenGL library where this variable says which.
    environment = {name: value for name, value in os.environ.items() if name != "MUJOCO_GL"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=True,
    )
    return set(json.loads(done.stdout))


@pytest.mark.parametrize("room", ["mjsim.stream", "mjsim.record", "streaming"])
def test_importing_a_room_loads_mujoco_and_nothing_large_beside_it(room: str) -> None:
    more = loaded_by(f"import {room}") - loaded_by("import mujoco")
    assert "mjsim" in more
    packages = {name.partition(".")[0] for name in more}
    assert not packages & {"warp", "mujoco_warp", "comfree_warp", "OpenGL", "viser", "matplotlib"}
    assert not packages & {"mcap", "google", "zstandard", "click", "rich"}
    rooms = {name.split(".")[1] for name in more if name.startswith("mjsim.")}
    assert not rooms & {"engines", "run", "view", "render", "cli"}


def test_every_documented_name_is_there_at_the_top_level_too() -> None:
    import streaming

    for name in DOCUMENTED:
        assert getattr(streaming, name) is getattr(stream, name)
        assert name in stream.__all__
