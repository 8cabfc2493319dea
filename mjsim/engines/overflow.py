"""Buffers of an engine on Warp that were too small: what is said of it, and how large they become.

The sizes are per world, by the names that `put_data` has for them: nconmax, njmax and nccdmax; and
where MuJoCo Warp's own choice was too small, njmax_nnz and contact_sensor_maxmatch.
"""

import dataclasses
import math

import comfree_warp  # noqa: F401  before MuJoCo Warp, which it imports in half the time

# isort: split
import mujoco_warp
from mujoco_warp import OverflowType

from mjsim.engines.buffers import share_convex_collisions

# Of buffers that may grow. With fewer rows MuJoCo Warp sums a dense Hessian in smaller tiles, and
# so in another order; with no room for contacts it looks for none, and tells of none that is lost.
LEAST_ROWS = 16
LEAST_CONTACTS = 1

_MARGIN = 1.25  # beyond what was needed, since what touches may touch in more points yet
_MOST_MATCHES = 1024  # of a contact sensor, since they are sorted in one tile of memory

_CONTACTS = OverflowType.BROADPHASE | OverflowType.NARROWPHASE
# Of these the motion becomes another one; of all others only sensors and a contact's exactness.
LOST = int(
    _CONTACTS | OverflowType.NEFC | OverflowType.NJMAX_NNZ | OverflowType.CCD | OverflowType.HFIELD
)
GROWABLE = int((LOST & ~OverflowType.HFIELD) | OverflowType.CONTACT_MATCH)


@dataclasses.dataclass(frozen=True)
class Need:
    """What the steps so far asked for.

    Attributes:
      overflow: bits of `OverflowType`, for what did not fit.
      step: the first one in which something did not fit, counted from 1.
      rows: most constraint rows of a world.
      contacts: most contacts of all worlds together.
      pairs: most pairs of geoms that were close, likewise.
    """

    overflow: int
    step: int
    rows: int
    contacts: int
    pairs: int


def larger(
    sizes: dict[str, int], need: Need, m: mujoco_warp.Model, d: mujoco_warp.Data
) -> tuple[dict[str, int], str]:
    """Sizes for the steps that did not fit, and a sentence on them.

    Twice what there was, or `_MARGIN` times what was needed where that is more. Of contacts that
    were never looked for nobody knows the number, so that it may take several rounds. The sizes
    are the same ones, and the sentence is empty, where nothing can grow any further.

    Args:
      sizes: the present ones.
      need: what the steps asked for.
      m: the model that was stepped.
      d: the data that was too small.
    """
    new, grown = dict(sizes), {}
    contacts, pairs = need.contacts / d.naconmax, need.pairs / d.naconmax
    # The contacts that were lost have rows, too; of close pairs few may turn out to touch.
    rows = need.rows * max(1.0, contacts, min(2.0, pairs))

    def grow(name: str, what: str, before: int, least: float) -> None:
        new[name] = max(2 * before, math.ceil(_MARGIN * least))
        grown[name] = f"{what} than {name}={before:,}"

    lacks = need.overflow
    if lacks & OverflowType.NEFC:
        grow("njmax", "more constraint rows", sizes["njmax"], rows)
    elif rows > sizes["njmax"]:
        new["njmax"] = math.ceil(_MARGIN * rows)
    if "njmax_nnz" in sizes:
        new["njmax_nnz"] = sizes["njmax_nnz"] * new["njmax"] // sizes["njmax"]
    if lacks & OverflowType.NJMAX_NNZ:
        grow("njmax_nnz", "more non-zeros in the Jacobian", d.njmax_nnz, 0)
    if lacks & _CONTACTS:
        most = max(contacts, pairs) * sizes["nconmax"]
        grow("nconmax", "more contacts or close pairs of geoms", sizes["nconmax"], most)
    if lacks & OverflowType.CCD:
        before = d.naccdmax // d.nworld
        if before >= new["nconmax"]:
            new["nconmax"] = 2 * sizes["nconmax"]  # which it cannot exceed
        grow("nccdmax", "more convex collisions", sizes["nccdmax"], 0)
    if lacks & OverflowType.CONTACT_MATCH and m.opt.contact_sensor_maxmatch < _MOST_MATCHES:
        before = int(m.opt.contact_sensor_maxmatch)
        grow("contact_sensor_maxmatch", "more contacts of a sensor", before, 0)
    new["nccdmax"] = share_convex_collisions(new, d.nworld)
    told = " and ".join(f"{what} (now {new[name]:,})" for name, what in grown.items())
    return new, told and f"step {need.step:,} has {told}"


def sentences(need: Need, sizes: dict[str, int], nworld: int) -> tuple[str, ...]:
    """A sentence per kind of buffer that was too small and did not grow."""
    njmax, nconmax = sizes["njmax"], sizes["nconmax"]
    close, touching = -(-need.pairs // nworld), -(-need.contacts // nworld)
    told = {
        OverflowType.NEFC: f"constraint rows are lost: njmax={njmax}, needed at least {need.rows}; "
        "raise --njmax",
        OverflowType.NJMAX_NNZ: "constraint rows are lost: their non-zeros do not fit "
        f"njmax={njmax}; raise --njmax",
        OverflowType.BROADPHASE: f"contacts are lost: nconmax={nconmax}, needed at least {close} "
        "for pairs of geoms that are close; raise --nconmax",
        OverflowType.NARROWPHASE: f"contacts are lost: nconmax={nconmax}, needed at least "
        f"{touching}; raise --nconmax",
        OverflowType.CCD: "contacts are lost: more convex collisions than "
        f"nccdmax={sizes['nccdmax']}; give --nconmax, which they follow then, or raise it",
        OverflowType.HFIELD: "contacts are lost: a geom spans more cells of a height field than "
        "MuJoCo Warp considers; use a coarser field or a smaller geom",
        OverflowType.EPA_HORIZON: "a convex collision was approximated: EPA's horizon buffer is "
        "full",
        OverflowType.CONTACT_MATCH: "a contact sensor missed contacts: raise <numeric "
        "name='contact_sensor_maxmatch'> in the model",
        OverflowType.TACTILE: "a tactile sensor missed collisions",
    }
    return tuple(text for kind, text in told.items() if need.overflow & kind)
