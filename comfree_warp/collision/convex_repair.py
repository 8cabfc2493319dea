"""Contacts of the convex geoms for which MuJoCo Warp's answer is impossible, found anew.

`convex_check.py` marks the candidates. `penetration.py` finds how deep their geoms are in each
other, and MuJoCo Warp's `multicontact` clips the faces that meet there.
"""

from typing import Any

import mujoco_warp as mjw
import warp as wp
from mujoco_warp import DisableBit, GeomType

from comfree_warp.collision.convex_check import are_doubtful, had_contact, is_marked, unmarked
from comfree_warp.collision.penetration import NFACE, NPOINT, Depth, Hull, penetration
from comfree_warp.runtime.private import CONVEX_CHECK
from comfree_warp.shared.threads import nthread_for
from comfree_warp.types import vec5

mat43 = CONVEX_CHECK["mat43"]
contact_margin_gap = CONVEX_CHECK["contact_margin_gap"]
contact_material_params = CONVEX_CHECK["contact_material_params"]
geom_collision_pair_from_types = CONVEX_CHECK["geom_collision_pair_from_types"]
make_frame = CONVEX_CHECK["make_frame"]
multicontact = CONVEX_CHECK["multicontact"]
supports_multiccd = CONVEX_CHECK["_supports_multiccd"]
write_contact = CONVEX_CHECK["write_contact"]

_NSLOT = 1024  # candidates that a GPU repairs at a time; each takes 20 kB
_SPHERE = wp.constant(int(GeomType.SPHERE))
_CAPSULE = wp.constant(int(GeomType.CAPSULE))
_BOX = wp.constant(int(GeomType.BOX))
_MESH = wp.constant(int(GeomType.MESH))
_TOUCHING = wp.constant(1.0e-6)  # geoms that are no deeper in each other only touch, m
_APART = wp.constant(1.0e-3)  # two points this far apart give a direction despite rounding, m
_CLEAR = wp.constant(1.0e-4)  # two points this far apart give a normal in float32, m
_CYLINDER_SIDES = 16  # sides of the polygon that MuJoCo Warp clips a cylinder's end as


@wp.kernel(enable_backward=False)
def _list_marked(
    naconmax: int,
    nthread: int,
    ncollision_in: wp.array[int],
    collision_pairid_in: wp.array[wp.vec2i],
    marked_out: wp.array[int],
    nmarked_out: wp.array[int],
):
    """List the candidates that are marked."""
    collisionid = wp.int32(wp.tid())
    ncollision = wp.min(ncollision_in[0], naconmax)
    while collisionid < ncollision:
        if is_marked(collision_pairid_in[collisionid]):
            marked_out[wp.atomic_add(nmarked_out, 0, 1)] = collisionid
        collisionid += nthread


@wp.kernel(enable_backward=False)
def _repair(
    # Model
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
    # Data in
    geom_xpos_in: wp.array2d[wp.vec3],
    geom_xmat_in: wp.array2d[wp.mat33],
    naconmax_in: int,
    # In
    multiccd: bool,
    nthread: int,
    collision_pair_in: wp.array[wp.vec2i],
    collision_worldid_in: wp.array[int],
    marked_in: wp.array[int],
    nmarked_in: wp.array[int],
    # Room to work in
    vec3s: wp.array3d[wp.vec3],
    vec4s: wp.array2d[wp.vec4d],
    ints: wp.array3d[int],
    floats: wp.array2d[float],
    # Out
    collision_pairid: wp.array[wp.vec2i],
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
    repairs_out: wp.array[int],
):
    """Write the contacts of the candidates that are marked."""
    slot = wp.tid()
    item = wp.int32(slot)
    while item < nmarked_in[0]:
        collisionid = marked_in[item]
        item += nthread
        marked = collision_pairid[collisionid]
        pairid = unmarked(marked)
        collision_pairid[collisionid] = pairid
        geoms = collision_pair_in[collisionid]
        worldid = collision_worldid_in[collisionid]
        geomtype1, geomtype2 = geom_type[geoms[0]], geom_type[geoms[1]]
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
        origin = geom1.pos
        geom1.pos = wp.vec3(0.0)
        geom2.pos -= origin
        hull = Hull()
        hull.point = vec3s[slot, 0]
        hull.index = ints[slot, 0]
        hull.face = ints[slot, 1]
        hull.edge = ints[slot, 2]
        hull.plane = vec4s[slot]

        # First without margins, and spheres and capsules without their radius: where a capsule's
        # segment lies in a face, the normal is exact. If these do not overlap, with margin and
        # radius. Sizes are read again, since a field of a struct would be another name for it.
        size1 = geom_size[worldid % geom_size.shape[0], geoms[0]]
        size2 = geom_size[worldid % geom_size.shape[0], geoms[1]]
        round1 = geomtype1 == _SPHERE or geomtype1 == _CAPSULE
        round2 = geomtype2 == _SPHERE or geomtype2 == _CAPSULE
        radius1 = 0.5 * margin + wp.where(round1, size1[0], 0.0)
        radius2 = 0.5 * margin + wp.where(round2, size2[0], 0.0)
        found = Depth()
        inflated = wp.int32(0)
        while inflated < 2:
            if inflated == 0:
                geom1.size = wp.vec3(wp.where(round1, 0.0, size1[0]), size1[1], size1[2])
                geom2.size = wp.vec3(wp.where(round2, 0.0, size2[0]), size2[1], size2[2])
            else:
                geom1.size = size1
                geom2.size = size2
                geom1.margin = margin
                geom2.margin = margin
            found = penetration(hull, geom1, geom2, geomtype1, geomtype2)
            if inflated == 0 and (found.depth > _TOUCHING or radius1 + radius2 == 0.0):
                found.depth += radius1 + radius2
                found.point += 0.5 * (radius1 - radius2) * found.normal
                break
            inflated += 1
        geom1.size = size1
        geom2.size = size2
        geom1.margin = margin
        geom2.margin = margin
        if found.depth <= 0.0 and pairid[1] < 0:  # no contact, and no sensor measures the distance
            if had_contact(marked):
                wp.atomic_add(repairs_out, worldid, 1)
            continue

        normal = found.normal
        ncontact = wp.int32(1)
        points1, points2, dists = mat43(), mat43(), wp.vec4()
        point1 = found.point + 0.5 * found.depth * normal
        point2 = found.point - 0.5 * found.depth * normal
        boxes = geomtype1 == _BOX and geomtype2 == _BOX
        clipped = boxes or (multiccd and supports_multiccd(geom1, geom2, geomtype1, geomtype2))
        if (geomtype1 == _MESH and geom1.mesh_polyadr < 0) or (
            geomtype2 == _MESH and geom2.mesh_polyadr < 0
        ):
            clipped = False
        if clipped and found.face > -1 and found.depth > 0.0:
            # `multicontact` takes the direction of the contact from the difference of two points,
            # which for a depth of a micrometre is rounding: the second one is farther away here.
            ncontact, points1, points2, dists = multicontact(
                vec3s[slot, 1],
                vec3s[slot, 2],
                vec3s[slot, 3],
                floats[slot],
                ints[slot, 3],
                ints[slot, 4],
                vec3s[slot, 4],
                vec3s[slot, 5],
                vec3s[slot, 6],
                vec3s[slot, 7],
                vec3s[slot, 8],
                hull.point,
                hull.index,
                hull.face[found.face],
                point1,
                point1 - wp.max(found.depth, _APART) * normal,
                geom1,
                geom2,
                geomtype1,
                geomtype2,
            )
            between = points1[0] - points2[0]
            if ncontact > 1 and wp.length(between) > _CLEAR:
                normal = wp.normalize(between)
            if ncontact > 1 and are_doubtful(
                ncontact,
                -found.depth,
                dists,
                point1,
                point2,
                normal,
                geom1,
                geom2,
                geomtype1,
                geomtype2,
            ):
                ncontact = 1
        if ncontact <= 1:
            ncontact = 1
            normal = found.normal
            points1[0] = point1
            points2[0] = point2
            dists[0] = -found.depth
        condim, friction, solref, solreffriction, solimp, adhesion = contact_material_params(
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
        frame = make_frame(normal)
        for i in range(ncontact):
            write_contact(
                naconmax_in,
                i,
                dists[i] + margin,
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
        wp.atomic_add(repairs_out, worldid, 1)


def repair_convex_contacts(m: mjw.Model, d: mjw.Data, ctx: Any, repairs: wp.array) -> None:
    """Write the contacts of the candidates that are marked, and take the marks away.

    Args:
      m: the model on the device.
      d: the data whose contacts are found.
      ctx: MuJoCo Warp's `CollisionContext`, with the candidates.
      repairs: the number of repaired collisions of each world is added here  (nworld,) int32
    """
    nthread = nthread_for(d, d.naconmax)
    marked, nmarked = wp.empty(d.naconmax, dtype=int), wp.zeros(1, dtype=int)
    wp.launch(
        _list_marked,
        dim=nthread,
        inputs=[d.naconmax, nthread, d.ncollision, ctx.collision_pairid],
        outputs=[marked, nmarked],
    )
    nslot = min(nthread, _NSLOT)
    sides, degree = max(m.npolygonmax, _CYLINDER_SIDES), max(m.nmeshdegmax, 3)
    contact = d.contact
    wp.launch(
        _repair,
        dim=nslot,
        inputs=[
            m.geom_type,
            m.geom_condim,
            m.geom_dataid,
            m.geom_priority,
            m.geom_solmix,
            m.geom_solref,
            m.geom_solimp,
            m.geom_size,
            m.geom_friction,
            m.geom_margin,
            m.geom_gap,
            m.geom_adhesion,
            m.mesh_vertadr,
            m.mesh_vertnum,
            m.mesh_graphadr,
            m.mesh_vert,
            m.mesh_graph,
            m.mesh_polynum,
            m.mesh_polyadr,
            m.mesh_polynormal,
            m.mesh_polyvertadr,
            m.mesh_polyvertnum,
            m.mesh_polyvert,
            m.mesh_polymapadr,
            m.mesh_polymapnum,
            m.mesh_polymap,
            m.pair_dim,
            m.pair_solref,
            m.pair_solreffriction,
            m.pair_solimp,
            m.pair_margin,
            m.pair_gap,
            m.pair_adhesion,
            m.pair_friction,
            d.geom_xpos,
            d.geom_xmat,
            d.naconmax,
            not m.opt.disableflags & DisableBit.MULTICCD,
            nslot,
            ctx.collision_pair,
            ctx.collision_worldid,
            marked,
            nmarked,
            wp.empty((nslot, 9, max(2 * NPOINT, 2 * sides, degree)), dtype=wp.vec3),
            wp.empty((nslot, NFACE), dtype=wp.vec4d),
            wp.empty((nslot, 5, max(2 * NPOINT, degree)), dtype=int),
            wp.empty((nslot, sides), dtype=float),
        ],
        outputs=[
            ctx.collision_pairid,
            contact.dist,
            contact.pos,
            contact.frame,
            contact.includemargin,
            contact.friction,
            contact.solref,
            contact.solreffriction,
            contact.solimp,
            contact.dim,
            contact.geom,
            contact.efc_address,
            contact.worldid,
            contact.type,
            contact.geomcollisionid,
            contact.adhesion,
            d.nacon,
            repairs,
        ],
    )
