"""MuJoCo Warp's narrow phase with its convex contacts checked, on fewer threads of a CPU.

MuJoCo Warp makes a kernel for each pair of geom types that meet as convex bodies, nine on
`primitives`, of which every one holds the same functions, and one for all others. Here a kernel
holds MuJoCo Warp's functions and a check of what they find (`convex_check.py`). What passes is bit
for bit what MuJoCo Warp writes. What does not is left to `convex_repair.py`, which writes it anew.
On the CPU one kernel takes all pairs.
"""

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

import mujoco_warp as mjw
import warp as wp
from mujoco_warp import GeomType, OverflowType

from comfree_warp.collision.convex_check import are_doubtful, is_doubtful, mark_doubtful
from comfree_warp.collision.convex_repair import repair_convex_contacts
from comfree_warp.runtime.changes import substituted
from comfree_warp.runtime.graph import trimmed_launches
from comfree_warp.runtime.private import CONVEX_CHECK
from comfree_warp.types import vec5

mat43 = CONVEX_CHECK["mat43"]
contact_margin_gap = CONVEX_CHECK["contact_margin_gap"]
contact_material_params = CONVEX_CHECK["contact_material_params"]
epa_phase = CONVEX_CHECK["epa_phase"]
geom_collision_pair_from_types = CONVEX_CHECK["geom_collision_pair_from_types"]
gjk_phase = CONVEX_CHECK["gjk_phase"]
gjk_simplex_to_epa = CONVEX_CHECK["_gjk_simplex_to_epa"]
make_frame = CONVEX_CHECK["make_frame"]
multicontact = CONVEX_CHECK["multicontact"]
supports_multiccd = CONVEX_CHECK["_supports_multiccd"]
upper_trid_index = CONVEX_CHECK["upper_trid_index"]
write_contact = CONVEX_CHECK["write_contact"]

_PRIMITIVES_KEY = "_primitive_narrowphase__locals__primitive_narrowphase"
_SDF_KEY = "_sdf_narrowphase"
_BOX = wp.constant(int(GeomType.BOX))
_MESH = wp.constant(int(GeomType.MESH))
_CCD_OVERFLOW = wp.constant(int(OverflowType.CCD))
_FAR = wp.constant(1.0e32)  # a sensor measures as far as this


@wp.func
def _index(geomtype1: int, geomtype2: int) -> int:
    """The number of a pair of geom types, in MuJoCo Warp's order; below 64 for convex ones."""
    return 8 * geomtype1 + geomtype2


@wp.func
def _reserve_buffers(
    pair: int,
    worldid: int,
    naccdmax: int,
    warn: bool,
    nccd_out: wp.array[int],
    overflow_out: wp.array[int],
) -> int:
    """Which of the buffers that EPA and clipping need a candidate gets; -1 where none is left."""
    ccdid = wp.atomic_add(nccd_out, pair, 1)
    if ccdid < naccdmax:
        return ccdid
    if warn:
        wp.printf("CCD overflow - please increase naccdmax beyond %u\n", naccdmax)
    wp.atomic_or(overflow_out, worldid, _CCD_OVERFLOW)
    return -1


@functools.cache
def _collide_convex(
    pairs: int,
    block_dim: int | None,
    gjk_iterations: int,
    epa_iterations: int,
    multiccd: bool,
    warn_overflow: int,
) -> wp.Kernel:
    """A kernel for all pairs of geom types whose bit, by `_index`, is set in `pairs`.

    GJK tells how far two bodies are apart, EPA how deep they are in each other, both MuJoCo Warp's
    (`collision_gjk.py`); faces that meet are clipped for up to four contacts. On the CPU one thread
    takes the pairs in turn, as MuJoCo Warp launches its kernels of them, and so finds contacts in
    that order. On a GPU there is a kernel for each pair, launched and compiled as MuJoCo Warp's.

    Args:
      pairs: which pairs; on a GPU a single one.
      block_dim: threads of a block on a GPU; None on the CPU.
      gjk_iterations: of GJK, at most.
      epa_iterations: of EPA, at most.
      multiccd: whether other bodies than boxes have more contacts than one.
      warn_overflow: of which overflows to print a line, bits of `OverflowType`.
    """
    warn_ccd = bool(warn_overflow & OverflowType.CCD)
    warn_horizon = bool(warn_overflow & OverflowType.EPA_HORIZON)
    on_cpu = block_dim is None
    # A loop over a single pair is unrolled, so that the compiler knows the types of its geoms.
    first, last = (0, 64) if on_cpu else (pairs.bit_length() - 1, pairs.bit_length())

    def collide_convex(
        opt_ccd_tolerance: wp.array[float],
        geom_type: wp.array[int],
        geom_condim: wp.array[int],
        geom_dataid: wp.array2d[int],
        geom_priority: wp.array[int],
        geom_solmix: wp.array2d[float],
        geom_solref: wp.array2d[wp.vec2],
        geom_solimp: wp.array2d[vec5],
        geom_size: wp.array2d[wp.vec3],
        geom_friction: wp.array2d[wp.vec3],
        geom_margin: wp.array2d[float],
        geom_gap: wp.array2d[float],
        geom_adhesion: wp.array2d[float],
        mesh_vertadr: wp.array[int],
        mesh_vertnum: wp.array[int],
        mesh_graphadr: wp.array[int],
        mesh_vert: wp.array[wp.vec3],
        mesh_graph: wp.array[int],
        mesh_polynum: wp.array[int],
        mesh_polyadr: wp.array[int],
        mesh_polynormal: wp.array[wp.vec3],
        mesh_polyvertadr: wp.array[int],
        mesh_polyvertnum: wp.array[int],
        mesh_polyvert: wp.array[int],
        mesh_polymapadr: wp.array[int],
        mesh_polymapnum: wp.array[int],
        mesh_polymap: wp.array[int],
        pair_dim: wp.array[int],
        pair_solref: wp.array2d[wp.vec2],
        pair_solreffriction: wp.array2d[wp.vec2],
        pair_solimp: wp.array2d[vec5],
        pair_margin: wp.array2d[float],
        pair_gap: wp.array2d[float],
        pair_adhesion: wp.array2d[float],
        pair_friction: wp.array2d[vec5],
        geom_xpos_in: wp.array2d[wp.vec3],
        geom_xmat_in: wp.array2d[wp.mat33],
        naconmax_in: int,
        naccdmax_in: int,
        ncollision_in: wp.array[int],
        grid_stride_in: int,
        collision_pair_in: wp.array[wp.vec2i],
        collision_pairid_in: wp.array[wp.vec2i],
        collision_worldid_in: wp.array[int],
        epa_vert_in: wp.array2d[wp.vec3],
        epa_vert_index_in: wp.array2d[int],
        epa_face_in: wp.array2d[int],
        epa_pr_in: wp.array2d[wp.vec3],
        epa_norm2_in: wp.array2d[float],
        epa_horizon_in: wp.array2d[int],
        multiccd_polygon_in: wp.array2d[wp.vec3],
        multiccd_clipped_in: wp.array2d[wp.vec3],
        multiccd_pnormal_in: wp.array2d[wp.vec3],
        multiccd_pdist_in: wp.array2d[float],
        multiccd_idx1_in: wp.array2d[int],
        multiccd_idx2_in: wp.array2d[int],
        multiccd_n1_in: wp.array2d[wp.vec3],
        multiccd_n2_in: wp.array2d[wp.vec3],
        multiccd_endvert_in: wp.array2d[wp.vec3],
        multiccd_face1_in: wp.array2d[wp.vec3],
        multiccd_face2_in: wp.array2d[wp.vec3],
        nccd_in: wp.array[int],
        contact_dist_out: wp.array[float],
        contact_pos_out: wp.array[wp.vec3],
        contact_frame_out: wp.array[wp.mat33],
        contact_includemargin_out: wp.array[float],
        contact_friction_out: wp.array[vec5],
        contact_solref_out: wp.array[wp.vec2],
        contact_solreffriction_out: wp.array[wp.vec2],
        contact_solimp_out: wp.array[vec5],
        contact_dim_out: wp.array[int],
        contact_geom_out: wp.array[wp.vec2i],
        contact_efc_address_out: wp.array2d[int],
        contact_worldid_out: wp.array[int],
        contact_type_out: wp.array[int],
        contact_geomcollisionid_out: wp.array[int],
        contact_adhesion_out: wp.array[float],
        nacon_out: wp.array[int],
        overflow_out: wp.array[int],
    ):
        ncollision = wp.min(ncollision_in[0], naconmax_in)
        if wp.static(on_cpu):
            present = wp.uint64(0)
            for collisionid in range(ncollision):
                geoms = collision_pair_in[collisionid]
                index = _index(geom_type[geoms[0]], geom_type[geoms[1]])
                if index < 64:
                    present |= wp.uint64(1) << wp.uint64(index)
            present &= wp.uint64(wp.static(pairs))
        for pair in range(wp.static(first), wp.static(last)):
            if wp.static(on_cpu):  # noqa: SIM102
                if (present >> wp.uint64(pair)) & wp.uint64(1) == wp.uint64(0):
                    continue
            for collisionid in range(wp.tid(), ncollision, grid_stride_in):
                geoms = collision_pair_in[collisionid]
                if _index(geom_type[geoms[0]], geom_type[geoms[1]]) != pair:
                    continue
                geomtype1, geomtype2 = pair / 8, pair % 8
                worldid = collision_worldid_in[collisionid]
                pairid = collision_pairid_in[collisionid]
                margin, gap = contact_margin_gap(
                    geom_margin, geom_gap, pair_margin, pair_gap, geoms, pairid[0], worldid
                )
                geom1, geom2 = geom_collision_pair_from_types(
                    geom_dataid,
                    geom_size,
                    mesh_vertadr,
                    mesh_vertnum,
                    mesh_graphadr,
                    mesh_vert,
                    mesh_graph,
                    mesh_polynum,
                    mesh_polyadr,
                    mesh_polynormal,
                    mesh_polyvertadr,
                    mesh_polyvertnum,
                    mesh_polyvert,
                    mesh_polymapadr,
                    mesh_polymapnum,
                    mesh_polymap,
                    geom_xpos_in,
                    geom_xmat_in,
                    geomtype1,
                    geomtype2,
                    geoms,
                    worldid,
                )
                geom1.margin = margin
                geom2.margin = margin
                origin = geom1.pos  # as exact far from the world's origin as near it
                geom1.pos = wp.vec3(0.0)
                geom2.pos -= origin
                tolerance = opt_ccd_tolerance[worldid % opt_ccd_tolerance.shape[0]]
                measured = pairid[1] >= 0
                overlap, dist, ncontact, point1, point2, result, geom1, geom2 = gjk_phase(
                    tolerance,
                    wp.where(measured, _FAR, gap),
                    wp.static(gjk_iterations),
                    geom1,
                    geom2,
                    geomtype1,
                    geomtype2,
                    geom1.pos,
                    geom2.pos,
                )
                touching = wp.int32(-1)  # the face of the polytope that contacts are clipped from
                ccdid = wp.int32(-1)
                if overlap:
                    ccdid = _reserve_buffers(
                        pair, worldid, naccdmax_in, wp.static(warn_ccd), nccd_in, overflow_out
                    )
                    if ccdid < 0:
                        continue
                    dist, ncontact, point1, point2, touching = epa_phase(
                        tolerance,
                        wp.static(epa_iterations),
                        result,
                        geom1,
                        geom2,
                        geomtype1,
                        geomtype2,
                        epa_vert_in[ccdid],
                        epa_vert_index_in[ccdid],
                        epa_face_in[ccdid],
                        epa_pr_in[ccdid],
                        epa_norm2_in[ccdid],
                        epa_horizon_in[ccdid],
                        wp.static(warn_horizon),
                        worldid,
                        overflow_out,
                    )
                near = measured or dist < gap
                if is_doubtful(
                    overlap, near, dist, point1, point2, geom1, geom2, geomtype1, geomtype2
                ):
                    mark_doubtful(collisionid, near, collision_pairid_in)
                    continue
                if not near:
                    continue
                inflated = wp.float32(dist)
                dist += margin  # of what `margin` has not inflated
                points1, points2, dists = mat43(), mat43(), wp.vec4()
                points1[0] = point1
                points2[0] = point2
                boxes = geomtype1 == _BOX and geomtype2 == _BOX  # clipped always, others by a flag
                if boxes or (
                    wp.static(multiccd) and supports_multiccd(geom1, geom2, geomtype1, geomtype2)
                ):
                    if not overlap and dist < margin and result.dim > 0:
                        ccdid = _reserve_buffers(
                            pair, worldid, naccdmax_in, wp.static(warn_ccd), nccd_in, overflow_out
                        )
                        if ccdid < 0:
                            continue
                        touching = gjk_simplex_to_epa(
                            result, epa_vert_in[ccdid], epa_vert_index_in[ccdid], epa_face_in[ccdid]
                        )
                    without_faces = geomtype1 == _MESH and geom1.mesh_polyadr < 0
                    if without_faces or (geomtype2 == _MESH and geom2.mesh_polyadr < 0):
                        touching = -1
                    if touching > -1:
                        ncontact, points1, points2, dists = multicontact(
                            multiccd_polygon_in[ccdid],
                            multiccd_clipped_in[ccdid],
                            multiccd_pnormal_in[ccdid],
                            multiccd_pdist_in[ccdid],
                            multiccd_idx1_in[ccdid],
                            multiccd_idx2_in[ccdid],
                            multiccd_n1_in[ccdid],
                            multiccd_n2_in[ccdid],
                            multiccd_endvert_in[ccdid],
                            multiccd_face1_in[ccdid],
                            multiccd_face2_in[ccdid],
                            epa_vert_in[ccdid],
                            epa_vert_index_in[ccdid],
                            epa_face_in[ccdid, touching],
                            point1,
                            point2,
                            geom1,
                            geom2,
                            geomtype1,
                            geomtype2,
                        )
                        if ncontact < 1:  # nothing is left of the face: the deepest point
                            ncontact = 1
                            points1[0] = point1
                            points2[0] = point2
                condim, friction, solref, solreffriction, solimp, adhesion = (
                    contact_material_params(
                        geom_condim,
                        geom_priority,
                        geom_solmix,
                        geom_solref,
                        geom_solimp,
                        geom_friction,
                        geom_adhesion,
                        pair_dim,
                        pair_solref,
                        pair_solreffriction,
                        pair_solimp,
                        pair_adhesion,
                        pair_friction,
                        geoms,
                        pairid[0],
                        worldid,
                    )
                )
                normal = points2[0] - points1[0]
                if dist <= margin:  # inside each other, so the points are the other way round
                    normal = points1[0] - points2[0]
                frame = make_frame(normal)
                if are_doubtful(
                    ncontact,
                    inflated,
                    dists,
                    point1,
                    point2,
                    frame[0],
                    geom1,
                    geom2,
                    geomtype1,
                    geomtype2,
                ):
                    mark_doubtful(collisionid, True, collision_pairid_in)
                    continue
                for i in range(ncontact):
                    contact_dist = dist
                    if ncontact > 1:
                        contact_dist = dists[i] + margin
                    write_contact(
                        naconmax_in,
                        i,
                        contact_dist,
                        0.5 * (points1[i] + points2[i]) + origin,
                        frame,
                        margin,
                        gap,
                        condim,
                        friction,
                        solref,
                        solreffriction,
                        solimp,
                        adhesion,
                        geoms,
                        pairid,
                        worldid,
                        contact_dist_out,
                        contact_pos_out,
                        contact_frame_out,
                        contact_includemargin_out,
                        contact_friction_out,
                        contact_solref_out,
                        contact_solreffriction_out,
                        contact_solimp_out,
                        contact_dim_out,
                        contact_geom_out,
                        contact_efc_address_out,
                        contact_worldid_out,
                        contact_type_out,
                        contact_geomcollisionid_out,
                        contact_adhesion_out,
                        nacon_out,
                    )

    options = {"module": "unique", "enable_backward": False}
    if not on_cpu:
        options |= {
            "module_options": {"block_dim": block_dim},
            "grid_stride": False,
            "launch_bounds": (block_dim, CONVEX_CHECK["_CCD_MIN_BLOCKS"]),
        }
    return wp.kernel(collide_convex, **options)


def _convex_narrowphase(
    repairs: wp.array,
    m: mjw.Model,
    d: mjw.Data,
    ctx: Any,
    collision_table: list[tuple[GeomType, GeomType]],
) -> None:
    """As MuJoCo Warp's function of that name, which is told of other kernels."""
    convex = [pair for pair in collision_table if GeomType.HFIELD not in pair]
    on_cpu = d.qpos.device.is_cpu
    launched = False

    def builder(geomtype1, geomtype2, *options) -> wp.Kernel:
        gjk_iterations, epa_iterations, multiccd, _, block_dim, warn_overflow = options
        pairs = convex if on_cpu else [(geomtype1, geomtype2)]
        return _collide_convex(
            sum(1 << _index(*map(int, pair)) for pair in pairs),
            None if on_cpu else block_dim,
            gjk_iterations,
            epa_iterations,
            multiccd,
            warn_overflow,
        )

    def one_thread(*_) -> int:
        nonlocal launched
        first, launched = not launched, True
        return int(first)

    changes = {"ccd_kernel_builder": builder}
    if on_cpu:
        changes["_ccd_grid_size"] = one_thread
    with substituted(CONVEX_CHECK.owner("ccd_kernel_builder"), **changes):
        CONVEX_CHECK["convex_narrowphase"](m, d, ctx, collision_table)
    if any(
        m.geom_pair_type_count[upper_trid_index(len(GeomType), *map(int, pair))] for pair in convex
    ):
        repair_convex_contacts(m, d, ctx, repairs)


@contextlib.contextmanager
def checked_narrow_phase(d: mjw.Data, repairs: wp.array) -> Iterator[None]:
    """Within this context collision detection checks its convex contacts, and is quick on a CPU.

    MuJoCo Warp launches naconmax threads of every kernel, and each clears its local variables, for
    up to half of the time of a whole step, before it finds that nothing is left to do. Here, on the
    CPU, the convex kernel has one. `primitive_narrowphase` and `sdf_narrowphase` have a thread per
    candidate: in what `capture` makes they get these.

    Args:
      d: the data whose contacts are found.
      repairs: how many convex collisions had to be done again, is added here   (nworld,) int32
    """
    with (
        substituted(
            CONVEX_CHECK.owner("convex_narrowphase"),
            convex_narrowphase=functools.partial(_convex_narrowphase, repairs),
        ),
        trimmed_launches({_PRIMITIVES_KEY: d.ncollision, _SDF_KEY: d.ncollision}),
    ):
        yield
