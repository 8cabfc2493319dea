"""Recordings for tests: small ones to replay, and one of a scene that has every kind of field."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import mujoco
import numpy as np

from mjsim.model.files import REPOSITORY
from mjsim.record import Recorder
from mjsim.stream import pack_mjdata

SWINGING = """
<mujoco model="swinging">
  <option timestep="0.01"/>
  <visual><quality shadowsize="256" offsamples="0"/></visual>
  <worldbody>
    <light pos="0 -2 4"/>
    <camera name="side" pos="0 -4 1" xyaxes="1 0 0 0 0 1"/>
    <geom type="plane" size="3 3 .1" rgba=".2 .3 .4 1"/>
    <body pos="0 0 1.6">
      <joint type="hinge" axis="0 1 0"/>
      <geom type="capsule" fromto="0 0 0 1.2 0 0" size=".15" rgba=".9 .2 .1 1"/>
    </body>
  </worldbody>
</mujoco>
"""


def record_swinging(path: Path, seconds: float, xml: str = SWINGING) -> Path:
    """A recording of every step of a pendulum on MuJoCo C; step k is at 0.01 k seconds."""
    mjm = mujoco.MjModel.from_xml_string(xml)
    mjd = mujoco.MjData(mjm)
    model = {"kind": "xml", "xml": xml, "assets": {}}
    with Recorder(path, model, {"engine": "mjc", "device": "cpu"}) as recorder:
        for step in range(round(seconds / mjm.opt.timestep) + 1):
            recorder.write(mjd, step)
            mujoco.mj_step(mjm, mjd)
    return path


MODELS = REPOSITORY / "benchmark" / "test_data"
SCENE = """
<mujoco>
  <worldbody>
    <body><freejoint/><geom size=".1"/></body>
    <body pos="1 0 0"><joint name="hinge" axis="0 1 0"/><geom size=".1" pos=".1 0 0"/></body>
    <body mocap="true" pos="0 0 1"/>
  </worldbody>
  <actuator><general joint="hinge" dyntype="integrator"/></actuator>
</mujoco>
"""
PACKET = {"kind": "xml", "xml": SCENE, "assets": {}}
ABOUT = {"engine": "mjc", "world": "0"}


def scene_states(n: int, seed: int = 0) -> Iterator[mujoco.MjData]:
    """The scene as it moves, n states, 0.1 s from one to the next."""
    mjm = mujoco.MjModel.from_xml_string(SCENE)
    mjd = mujoco.MjData(mjm)
    rng = np.random.default_rng(seed)
    for step in range(n):
        mjd.time = 0.1 * step
        for field in ("qpos", "qvel", "act", "ctrl", "xfrc_applied", "mocap_pos", "mocap_quat"):
            values = getattr(mjd, field)
            values[:] = rng.normal(size=values.shape)
        yield mjd


def record(path: Path, n: int = 100, packet: dict = PACKET) -> list[dict]:
    """Record the moving scene; what it went through."""
    states = []
    with Recorder(path, packet, ABOUT) as recorder:
        for step, mjd in enumerate(scene_states(n)):
            recorder.write(mjd, step)
            states.append(pack_mjdata(mjd))
    return states


def check_equal(recorded: dict, state: dict) -> None:
    """The same state, bit for bit."""
    assert recorded.keys() == state.keys()
    for field, values in state.items():
        assert np.array(recorded[field]).tobytes() == np.array(values).tobytes(), field
        assert np.shape(recorded[field]) == np.shape(values)


def headless(*arguments: str, cwd: Path = REPOSITORY, port: int = 0) -> list[str]:
    script = str(REPOSITORY / "test_headless.py")
    return [sys.executable, script, "--engine=mjc", f"--port={port}", *arguments]


def run_headless(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(headless(*arguments), capture_output=True, text=True, timeout=300)
