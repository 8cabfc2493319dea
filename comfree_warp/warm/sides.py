"""What a contact touches, as `prepare` writes it once for all that come later in a step.

`Warm.sides` has both bodies and their trees, -1 for none; `Warm.offset` what leads to the contact
from the centre of mass of either body's root, where spatial vectors are taken.
"""

import warp as wp

from comfree_warp.shared.threads import index
from comfree_warp.types import vec6


@wp.func
def pack_offsets(offset1: wp.vec3, offset2: wp.vec3) -> vec6:
    """The offsets of both sides, (m)."""
    return vec6(offset1[0], offset1[1], offset1[2], offset2[0], offset2[1], offset2[2])


@wp.func
def unpack_offsets(offset: vec6) -> tuple[wp.vec3, wp.vec3]:
    """The offsets of both sides again."""
    return wp.vec3(offset[0], offset[1], offset[2]), wp.vec3(offset[3], offset[4], offset[5])


@wp.func
def unpack_sides(sides: wp.vec4i) -> tuple[wp.vec2i, int, int]:
    """Both bodies, the tree of the first and that of the second."""
    return wp.vec2i(index(sides[0]), index(sides[1])), sides[2], sides[3]
