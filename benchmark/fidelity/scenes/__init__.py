"""The scenes of the fidelity suite: small models whose right answer is known, by theme.

Many variants go into one model as bodies that do not touch, and into its worlds, since runs and
kernel compilations are what costs. Lengths in the models are metres, masses kilograms; depths and
drifts are reported in mm.
"""

from benchmark.fidelity.scenes import (
    at_rest,
    boxes,
    conservation,
    constraints,
    friction,
    grasping,
    pile,
)

SCENES = (
    *boxes.SCENES,
    *pile.SCENES,
    *at_rest.SCENES,
    *friction.SCENES,
    *conservation.SCENES,
    *constraints.SCENES,
    *grasping.SCENES,
)
BY_NAME = {scene.name: scene for scene in SCENES}
