"""Draw the README's picture: a run of comfree, rendered offscreen.

make picture        # or: MUJOCO_GL=egl python benchmark/picture.py docs/primitives.png
"""

import sys
from pathlib import Path

import click
import mujoco
import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import engines

MODEL = "benchmark/test_data/primitives.xml"
STEPS_BEFORE_EACH_FRAME = (0, 250, 1500)


def render(simulation: engines.Simulation, size: tuple[int, int]) -> np.ndarray:
    """World 0 from the model's first camera, (height, width, 3) uint8."""
    mjd = mujoco.MjData(simulation.mjm)
    mjd.qpos[:] = simulation.read("qpos")
    mujoco.mj_forward(simulation.mjm, mjd)
    with mujoco.Renderer(simulation.mjm, *size) as renderer:
        renderer.update_scene(mjd, camera=0)
        return renderer.render()


@click.command(help=__doc__.split("\n\n")[0])
@click.argument("path", type=click.Path(dir_okay=False, writable=True))
def main(path: str) -> None:
    simulation = engines.make_simulation(engines.load_model(MODEL), "comfree")
    frames = []
    for nsteps in STEPS_BEFORE_EACH_FRAME:
        simulation.step(nsteps)
        frames.append(render(simulation, (420, 560)))
    Image.fromarray(np.hstack(frames)).save(path, optimize=True)


if __name__ == "__main__":
    main()
