"""One world of batched data goes out, from the engines' own Data."""

from types import SimpleNamespace

import mujoco
import mujoco_warp
import numpy as np
import pytest
from recordings import SCENE
from streamed_run import at_least, collect, states, wait_until
from watching import free_port

import comfree_warp
from mjsim.errors import SettingError
from mjsim.state import SHARED_FIELDS, read_world
from mjsim.stream import StreamClient, StreamServer

ENGINES = [mujoco_warp, comfree_warp]
NWORLD = 4


def batched(engine: object) -> tuple[object, list[mujoco.MjData]]:
    """Data of four worlds, in each of which every number is another, and the same as MjData."""
    mjm = mujoco.MjModel.from_xml_string(SCENE)
    d = engine.make_data(mjm, nworld=NWORLD)
    worlds = [mujoco.MjData(mjm) for _ in range(NWORLD)]
    rng = np.random.default_rng(0)
    for field in ("time", *SHARED_FIELDS):
        array = getattr(d, field)
        values = rng.normal(size=array.numpy().shape).astype(np.float32)
        array.assign(values)
        for world, mjd in enumerate(worlds):
            if field == "time":
                mjd.time = values[world]
            else:
                getattr(mjd, field)[:] = values[world]
    return d, worlds


def server_of_scene(**options: object) -> StreamServer:
    options = {"port": free_port(), "wait": 0, "hz": 0, "report": lambda line: None} | options
    return StreamServer(SCENE, nworld=NWORLD, **options)


@pytest.mark.parametrize("engine", ENGINES, ids=["mujoco_warp", "comfree_warp"])
def test_one_world_arrives_with_all_its_fields(engine: object) -> None:
    d, worlds = batched(engine)
    server = server_of_scene()
    with server, StreamClient.connect("127.0.0.1", server.port) as client:
        wait_until(lambda: server.connected, "the viewer")
        assert server.send_world(d, 3, step=7)
        packet = states(collect(client, at_least(1)))[-1]
    assert (packet["world"], packet["step"]) == (3, 7)
    assert packet["state"]["time"] == worlds[3].time
    for field in SHARED_FIELDS:
        np.testing.assert_array_equal(packet["state"][field], getattr(worlds[3], field))


@pytest.mark.parametrize("world", [-1, NWORLD, True, "1", 1.0, None])
def test_a_world_that_is_none_is_named_even_when_nobody_watches(world: object) -> None:
    d, _ = batched(mujoco_warp)
    with server_of_scene() as server, pytest.raises(SettingError) as caught:
        server.send_world(d, world)
    assert caught.value.setting == "world"
    assert caught.value.problem == f"{world!r} is no world of this data: 0 to 3"


def test_data_that_is_not_batched_is_named() -> None:
    mjd = mujoco.MjData(mujoco.MjModel.from_xml_string(SCENE))
    with server_of_scene() as server, pytest.raises(SettingError) as caught:
        server.send_world(mjd, 0)
    assert "a MjData with qpos of shape (8,) has no worlds" in caught.value.problem


def test_nothing_is_read_where_no_frame_is_due() -> None:
    """Reading costs a copy from the device each: this data has nothing but the shape of qpos."""
    shape_alone = SimpleNamespace(qpos=np.zeros((NWORLD, 8)))
    with server_of_scene() as server:
        assert not server.send_world(shape_alone, 1)
    with server_of_scene(port=0) as server:
        assert not server.send_world(None, 1)


def test_worlds_without_some_kinds_of_state_are_read() -> None:
    """Of a model without actuators and mocap bodies: Warp slices no empty arrays."""
    mjm = mujoco.MjModel.from_xml_string("<mujoco/>")
    state = read_world(mujoco_warp.make_data(mjm, nworld=2), 1)
    mjd = mujoco.MjData(mjm)
    for field in SHARED_FIELDS:
        assert np.shape(getattr(state, field)) == np.shape(getattr(mjd, field))
