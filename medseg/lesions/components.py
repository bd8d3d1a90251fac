"""Connected components: voxels of one class that touch each other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import cc3d
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from medseg.errors import UsageError
from medseg.lesions.runs import Runs

__all__ = ["Connectivity", "connect_runs", "label_components"]

Connectivity = Literal[6, 18, 26]

# Lines that follow a line and touch it by a face, and by an edge: steps on the two slower axes.
_FACE_LINES = ((0, 1), (1, 0))
_EDGE_LINES = ((1, -1), (1, 1))


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
    _check(connectivity)
    labels, n_components = cc3d.connected_components(
        _writable(semantic), connectivity=connectivity, out_dtype=np.uint32, return_N=True
    )
    return labels.astype(np.uint32, copy=False), int(n_components)


def connect_runs(runs: Runs, connectivity: Connectivity = 26) -> tuple[Runs, int]:
    """Number the connected components of runs, as `label_components` does those of an array.

    Runs are the nodes of a graph, those of neighboring lines that touch its edges; its components are the answer. Cost
    grows with the runs, whatever the grid.

    Parameters
    ----------
    runs
        Runs whose numbers are classes.
    connectivity
        6, 18 or 26.

    Returns
    -------
    components
        The same runs, numbered 1..n in an order that means nothing.
    n_components
        n.

    Raises
    ------
    UsageError
        If the connectivity is not 6, 18 or 26.

    References
    ----------
    Rosenfeld A, Pfaltz JL. Sequential operations in digital picture processing. J ACM 13:471-494 (1966): runs of
    neighboring lines that overlap are equivalent.
    """
    _check(connectivity)
    n_runs = runs.starts.size
    pairs = list(_touching_runs(runs, connectivity))
    if not pairs:
        return runs.numbered(np.arange(1, n_runs + 1)), n_runs
    here, there = (np.concatenate(ends) for ends in zip(*pairs, strict=True))
    graph = coo_array((np.ones(here.size, dtype=np.int8), (here, there)), shape=(n_runs, n_runs))
    n_components, numbers = connected_components(graph, directed=False)
    return runs.numbered(numbers.astype(np.intp) + 1), int(n_components)


def _touching_runs(runs: Runs, connectivity: Connectivity) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    """Pairs of runs of one class that touch, as indices of the first and of the second of each pair."""
    # One empty line after each plane and one empty voxel after each line: no step leads to where it should not.
    first, second, third = runs.split_places(runs.starts)
    line, plane = runs.shape[2] + 1, (runs.shape[1] + 1) * (runs.shape[2] + 1)
    dtype = np.int32 if (runs.shape[0] + 2) * plane < 2**31 else np.int64
    starts = (first * plane + second * line + third).astype(dtype)
    ends = starts + runs.lengths.astype(dtype)
    starts = np.append(starts, np.iinfo(dtype).max)
    reach_of_face, reach_of_edge = {6: (0, None), 18: (1, 0), 26: (1, 1)}[connectivity]
    for steps, reach in ((_FACE_LINES, reach_of_face), (_EDGE_LINES, reach_of_edge)):
        if reach is not None:
            for step in steps:
                yield from _overlapping(starts, ends, runs.numbers, step[0] * plane + step[1] * line, reach)


def _overlapping(
    starts: NDArray[Any], ends: NDArray[Any], classes: NDArray[Any], shift: int, reach: int
) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    """Pairs of runs of which the first, shifted and made longer by `reach` at both ends, overlaps the second."""
    here = np.arange(ends.size, dtype=np.int32)
    there = np.searchsorted(ends, starts[:-1] + (shift - reach), side="right").astype(np.int32)
    last = ends + (shift + reach)
    while here.size:
        touches = starts[there] < last[here]
        here, there = here[touches], there[touches]
        is_same = classes[here] == classes[there]
        yield (here, there) if is_same.all() else (here[is_same], there[is_same])
        there = there + 1


def _check(connectivity: int) -> None:
    if connectivity not in (6, 18, 26):
        raise UsageError(f"voxels are connected over 6, 18 or 26 neighbors; got {connectivity}")


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
