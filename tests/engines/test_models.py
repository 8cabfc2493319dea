"""Every model of benchmark/test_data runs on every engine at its own timestep."""

import numpy as np
import pytest
import scenes

from mjsim import engines

pytestmark = pytest.mark.engine

NSTEPS = 1000


@pytest.mark.parametrize("engine", engines.ENGINES)
@pytest.mark.parametrize("model", scenes.OWN)
def test_model_runs_without_divergence_or_overflow(model, engine):
    simulation = engines.make_simulation(engines.load_model(scenes.OWN_FOLDER / model), engine)
    simulation.step(NSTEPS)
    assert simulation.health() == engines.Health(None, 0, ())
    assert np.isfinite(simulation.read("qpos")).all()


@pytest.mark.parametrize("model", scenes.OWN)
def test_model_says_what_it_exercises(model):
    text = (scenes.OWN_FOLDER / model).read_text()
    assert 100 < text.index("-->") - text.index("<!--") < 1000


def test_no_model_is_left_out():
    parts = {"humanoid/humanoid_body.xml"}  # included by the humanoids, no scene by itself
    found = {str(path.relative_to(scenes.OWN_FOLDER)) for path in scenes.OWN_FOLDER.rglob("*.xml")}
    assert found - parts == set(scenes.OWN)
