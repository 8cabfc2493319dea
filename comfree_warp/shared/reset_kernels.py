"""Kernels that put data back to a start, and void what its rows do not have."""

import functools

import warp as wp


@wp.kernel(enable_backward=False)
def make_unknown_kernel(efc_J_colind: wp.array3d[int], efc_J: wp.array3d[float]):
    """Set the last entry of a sparse J, at which the rows of contacts point."""
    worldid = wp.tid()
    if efc_J_colind.shape[1] > 0:
        efc_J_colind[worldid, 0, efc_J_colind.shape[2] - 1] = 0
        efc_J[worldid, 0, efc_J.shape[2] - 1] = wp.static(float("nan"))


# A kernel for every type of array. Warp's graphs on the CPU take one overload of a generic kernel
# for another, which writes past its array.


@wp.kernel(enable_backward=False)
def clear_numbers_kernel(reset_in: wp.array[bool], out: wp.array2d[float]):
    worldid, i = wp.tid()
    if reset_in[worldid]:
        out[worldid, i] = 0.0


@wp.kernel(enable_backward=False)
def clear_spatial_kernel(reset_in: wp.array[bool], out: wp.array2d[wp.spatial_vector]):
    worldid, i = wp.tid()
    if reset_in[worldid]:
        out[worldid, i] = wp.spatial_vector()


@functools.cache
def mark_kernel(dtype: type, nkey: int | None) -> wp.Kernel:
    """Kernel from whole numbers to which worlds they say: not zero, or an index below `nkey`."""

    @wp.kernel(module="unique", enable_backward=False)
    def mark(number_in: wp.array[dtype], mask_out: wp.array[bool]):
        worldid = wp.tid()
        number = number_in[worldid]
        if wp.static(nkey is None):
            mask_out[worldid] = number != dtype(0)
        else:
            mask_out[worldid] = number >= dtype(0) and number < dtype(wp.static(nkey or 0))

    return mark


@wp.kernel(enable_backward=False)
def list_contacts_kernel(
    naconmax: int,
    nthread: int,
    nacon_in: wp.array[int],
    contact_type_in: wp.array[int],
    count_out: wp.array[int],
    old_out: wp.array[int],
):
    """List the contacts that are not void: those of reset worlds have no type any more."""
    item, ncon = wp.int32(wp.tid()), wp.min(nacon_in[0], naconmax)
    while item < ncon:
        if contact_type_in[item] != 0:
            old_out[wp.atomic_add(count_out, 0, 1)] = item
        item += nthread


@wp.kernel(enable_backward=False)
def gather_kernel(
    unused: int,
    count_in: wp.array[int],
    old_in: wp.array[int],
    words: wp.array2d[int],
    out: wp.array2d[int],
):
    i, word = wp.tid()
    out[i, word] = unused
    if i < count_in[0]:
        out[i, word] = words[old_in[i], word]


@wp.kernel(enable_backward=False)
def tell_rows_kernel(
    nacon_in: wp.array[int],
    contact_worldid_in: wp.array[int],
    contact_efc_address_in: wp.array2d[int],
    efc_id_out: wp.array2d[int],
):
    """The rows of a contact are of the contact of another number now."""
    conid, i = wp.tid()
    if conid < nacon_in[0]:
        efcid = contact_efc_address_in[conid, i]
        if efcid >= 0:
            efc_id_out[contact_worldid_in[conid], efcid] = conid
