"""The Jacobian of `efc`, dense or sparse, as kernels over its rows read it: column by column."""

import warp as wp

from comfree_warp.types import Data, Model


@wp.struct
class Jacobian:
    """The arrays of `efc`, and how they are laid out.

    Attributes:
      sparse: whether only the non-zeros are there.
      nv: number of columns of a dense one.
      rownnz, rowadr, colind, J: of `efc`.
    """

    sparse: bool
    nv: int
    rownnz: wp.array2d[int]
    rowadr: wp.array2d[int]
    colind: wp.array3d[int]
    J: wp.array3d[float]


def jacobian(m: Model, d: Data) -> Jacobian:
    """That of all worlds."""
    found = Jacobian()
    found.sparse, found.nv = bool(m.is_sparse), m.nv
    found.rownnz, found.rowadr = d.efc.J_rownnz, d.efc.J_rowadr
    found.colind, found.J = d.efc.J_colind, d.efc.J
    return found


@wp.func
def ncolumn(J: Jacobian, worldid: int, efcid: int) -> int:
    """How many columns a row has."""
    if J.sparse:
        return J.rownnz[worldid, efcid]
    return J.nv


@wp.func
def column_dof(J: Jacobian, worldid: int, efcid: int, column: int) -> int:
    """The dof of a column. They come tree by tree."""
    if J.sparse:
        return J.colind[worldid, 0, J.rowadr[worldid, efcid] + column]
    return column


@wp.func
def entry(J: Jacobian, worldid: int, efcid: int, column: int) -> float:
    """What stands there."""
    if J.sparse:
        return J.J[worldid, 0, J.rowadr[worldid, efcid] + column]
    return J.J[worldid, efcid, column]
