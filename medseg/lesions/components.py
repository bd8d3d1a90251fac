"""Connected components: voxels of one class that touch each other."""

from __future__ import annotations

from typing import Any, Literal

import cc3d
import numpy as np
from numpy.typing import NDArray

from medseg.errors import UsageError

__all__ = ["Connectivity", "label_components"]

Connectivity = Literal[6, 18, 26]


def label_components(
    semantic: NDArray[np.unsignedinteger], connectivity: Connectivity = 26
) -> tuple[NDArray[np.uint32], int]:
    """Number the connected components of each class.

    Two touching voxels of different classes never share a component.

    Parameters
    ----------
    semantic
        (I, J, K) unsigned integer, class of each voxel, 0 for background.
    connectivity
        6: voxels touch by a face; 18: by a face or an edge; 26: by a face, an edge or a corner.

    Returns
    -------
    labels
        (I, J, K) uint32, 1..n in an order that means nothing, 0 for background.
    n_components
        n.

    Raises
    ------
    UsageError
        If the connectivity is not 6, 18 or 26.

    References
    ----------
    Silversmith W. cc3d: connected components on multilabel 3D & 2D images (2021), doi:10.5281/zenodo.5535250.

    Examples
    --------
    >>> corner_contact = np.zeros((2, 2, 2), dtype=np.uint8)
    >>> corner_contact[0, 0, 0] = corner_contact[1, 1, 1] = 1
    >>> [label_components(corner_contact, connectivity)[1] for connectivity in (6, 18, 26)]
    [2, 2, 1]
    """
    if connectivity not in (6, 18, 26):
        raise UsageError(f"voxels are connected over 6, 18 or 26 neighbors; got {connectivity}")
    labels, n_components = cc3d.connected_components(
        _writable(semantic), connectivity=connectivity, out_dtype=np.uint32, return_N=True
    )
    return labels.astype(np.uint32, copy=False), int(n_components)


def _writable(array: NDArray[np.unsignedinteger]) -> NDArray[np.unsignedinteger]:
    """The array itself if it may be written to, else a copy: cc3d refuses what it could write to, and only reads."""
    if array.flags.writeable:
        return array
    owner = array.base
    if isinstance(owner, np.ndarray) and owner.flags.writeable and _layout(owner) == _layout(array):
        return owner
    return array.copy(order="K")


def _layout(array: NDArray[Any]) -> tuple[object, ...]:
    return array.ctypes.data, array.shape, array.strides, array.dtype
