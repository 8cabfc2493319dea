"""Which rows a pass is over, and what a launch of a step kernel does.

A first pass over normals is one launch, each later one is two.
"""

import warp as wp

# Normals of contacts, limits, equalities; friction of contacts, friction loss.
NORMAL = wp.constant(0)
FRICTION = wp.constant(1)


# f - r / (P + R), projected: the step of a first pass, and of the one over friction.
PLAIN_STEP = 0
# f += s d of the pass before; z, and the sums that say how much of the old direction to keep.
PROPOSAL = 1
# The step along the conjugate direction.
CONJUGATE_STEP = 2
