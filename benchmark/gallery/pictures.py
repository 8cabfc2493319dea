"""The pictures of README and docs: a run of comfree, and every model of the benchmark."""

from pathlib import Path

import mujoco
import numpy as np
from PIL import Image

from mjsim import engines
from mjsim.render.offscreen import Offscreen, View, make_camera

DATA = engines.REPOSITORY / "benchmark" / "test_data"
STEPS_BEFORE_EACH_FRAME = (0, 250, 1500)
SIZE = (480, 360)

# When each model is worth a look, s, and from where.
MOMENTS = {
    "primitives.xml": (1.2, View("0")),
    "collision.xml": (0.6, View()),
    "constraints.xml": (0.8, View()),
    "pendula.xml": (0.7, View()),
    "humanoid/humanoid.xml": (0.45, View(azimuth=140.0, elevation=-15.0, distance=3.6)),
    "humanoid/n_humanoid.xml": (0.45, View(azimuth=140.0, elevation=-15.0)),
    "hfield/hfield.xml": (1.5, View()),
    "flex/floppy.xml": (0.8, View()),
    "ball_rotation.xml": (0.3, View(distance=2.0)),
    "cylinder_rolling.xml": (2.5, View(elevation=-30.0, distance=4.5)),
    "hand/env_hand_cube.xml": (0.3, View(distance=0.7)),
    "franka_cube_grasp/scene.xml": (0.3, View()),
}


def picture(simulation: engines.Simulation, view: View, size: tuple[int, int]) -> np.ndarray:
    """World 0 as it is now, (height, width, 3) uint8."""
    mjm = simulation.mjm
    mjd = mujoco.MjData(mjm)
    for field in engines.STATE_FIELDS:
        value = simulation.read(field)
        if field == "time":
            mjd.time = value
        else:
            getattr(mjd, field)[:] = value
    mujoco.mj_forward(mjm, mjd)
    with Offscreen(mjm, *size, setting="pictures") as offscreen:
        return offscreen.render(mjd, make_camera(mjm, view))


def draw_run(path: Path) -> None:
    """The run at the beginning of README.md, in three pictures side by side."""
    simulation = engines.make_simulation(engines.load_model(DATA / "primitives.xml"), "comfree")
    pictures = []
    for nsteps in STEPS_BEFORE_EACH_FRAME:
        simulation.step(nsteps)
        pictures.append(picture(simulation, View("0"), (560, 420)))
    Image.fromarray(np.hstack(pictures)).save(path, optimize=True)


def draw_model(name: str, path: Path) -> None:
    seconds, view = MOMENTS[name]
    simulation = engines.make_simulation(engines.load_model(DATA / name), "mjc")
    simulation.step(round(seconds / simulation.mjm.opt.timestep))
    Image.fromarray(picture(simulation, view, SIZE)).save(path, optimize=True)


def picture_name(model: str) -> str:
    """The file of a model's picture, in the folder of the gallery."""
    return f"{model.removesuffix('.xml').replace('/', '-')}.png"


def draw_all(folder: str) -> None:
    """Draw all pictures into a folder."""
    gallery = Path(folder, "gallery")
    gallery.mkdir(parents=True, exist_ok=True)
    for name in MOMENTS:
        draw_model(name, gallery / picture_name(name))
    draw_run(Path(folder, "primitives.png"))
