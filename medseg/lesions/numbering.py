"""Lesion numbers: descending volume, then world centroid, so that they do not depend on how the grid is oriented."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.core.geometry import Geometry
from medseg.core.lesions import label_dtype
from medseg.errors import GridMismatch, InvalidLabelMap
from medseg.lesions.foreground import Foreground, find_foreground, lesion_centroids, lesion_voxel_counts

__all__ = ["number_foreground", "number_lesions"]

# Far below any voxel, far above what rounding an affine to float32 shifts within a patient.
_SAME_POSITION_MM = 1e-3


def number_lesions(
    labels: NDArray[Any], geometry: Geometry
) -> tuple[NDArray[np.uint16] | NDArray[np.uint32], NDArray[Any]]:
    """Give lesions their final numbers 1..n.

    Lesion 1 has the most voxels. Among lesions of equal voxel count the one with the lower world x (RAS+) of its
    centroid comes first, then y, then z; coordinates within 1e-3 mm count as equal. Lesions that share even the
    centroid (rings, crossings) go by their first voxel in the same order of x, y, z. Flipping or permuting the axes of
    the array together with its affine therefore leaves every number as it is.

    Parameters
    ----------
    labels
        (I, J, K) integer or bool, one non-negative number a lesion, in any order and with any gaps.
    geometry
        The grid of the labels.

    Returns
    -------
    numbered
        (I, J, K) uint16, or uint32 from 65,536 lesions on: 1..n, 0 for background.
    old_numbers
        (n,) dtype of `labels`: entry n - 1 is the number that lesion n had.

    Raises
    ------
    GridMismatch
        If the labels do not have the grid's shape.
    InvalidLabelMap
        If the labels are not integers, or some are negative.

    Examples
    --------
    >>> labels = np.array([7, 0, 300, 300]).reshape(4, 1, 1)
    >>> numbered, old_numbers = number_lesions(labels, Geometry((4, 1, 1), np.eye(4)))
    >>> numbered.ravel().tolist(), old_numbers.tolist()
    ([2, 0, 1, 1], [300, 7])
    """
    _check_labels(labels, geometry)
    foreground = find_foreground(labels)
    if foreground.numbers.size and foreground.numbers.min() < 0:
        raise InvalidLabelMap(f"lesion numbers are 0 or above; the lowest here is {foreground.numbers.min()}")
    numbered, old_numbers = number_foreground(foreground, geometry)
    array = np.zeros(labels.shape, dtype=numbered.numbers.dtype)
    array[foreground.indices] = numbered.numbers
    return array, old_numbers


def number_foreground(foreground: Foreground, geometry: Geometry) -> tuple[Foreground, NDArray[Any]]:
    """`number_lesions` for the voxels that are no background: the same voxels with final numbers, and the old ones."""
    old_numbers, compact = _without_gaps(foreground)
    order = _final_order(compact, old_numbers.size, geometry)
    new_numbers = np.zeros(old_numbers.size + 1, dtype=label_dtype(old_numbers.size))
    new_numbers[order + 1] = np.arange(1, old_numbers.size + 1)
    return Foreground(new_numbers[compact.numbers], foreground.indices), old_numbers[order]


def _check_labels(labels: NDArray[Any], geometry: Geometry) -> None:
    if labels.shape != geometry.shape:
        raise GridMismatch(f"a label map on {geometry!r} cannot have shape {labels.shape}")
    if labels.dtype.kind not in "uib":
        raise InvalidLabelMap(f"a label map holds integers; got {labels.dtype}")


def _without_gaps(foreground: Foreground) -> tuple[NDArray[Any], Foreground]:
    """The numbers in use, ascending, and the foreground with them replaced by 1..n."""
    values = foreground.numbers
    highest = int(values.max(initial=0))
    if highest <= values.size + 65_536:  # counting is linear; only numbers far apart need the sort in unique
        small_values = values.astype(np.intp)
        in_use = np.bincount(small_values, minlength=1) > 0
        compact = np.cumsum(in_use)[small_values]
        return np.flatnonzero(in_use).astype(values.dtype), Foreground(compact, foreground.indices)
    old_numbers, inverse = np.unique(values, return_inverse=True)
    return old_numbers, Foreground(inverse.ravel() + 1, foreground.indices)


def _final_order(foreground: Foreground, n_lesions: int, geometry: Geometry) -> NDArray[np.intp]:
    """Which lesion (from 0) comes first, second, ..."""
    rank = _refine(np.zeros(n_lesions, dtype=np.intp), -lesion_voxel_counts(foreground, n_lesions))
    for coordinates in lesion_centroids(foreground, n_lesions, geometry).T:
        rank = _refine(rank, coordinates)
    is_tied = np.bincount(rank, minlength=1)[rank] > 1
    return np.lexsort((_first_voxel_rank(foreground, is_tied, geometry), rank))


def _refine(rank: NDArray[np.intp], value: NDArray[Any]) -> NDArray[np.intp]:
    """Break ties of a rank by a value; values that follow each other within the tolerance stay tied.

    Following each other, not rounding: rounding parts equal coordinates when they lie on the edge between two steps.
    """
    order = np.lexsort((value, rank))
    is_new = (np.diff(rank[order]) > 0) | (np.diff(value[order]) > _SAME_POSITION_MM)
    refined = np.zeros_like(rank)
    refined[order[1:]] = np.cumsum(is_new)
    return refined


def _first_voxel_rank(foreground: Foreground, is_tied: NDArray[np.bool_], geometry: Geometry) -> NDArray[np.intp]:
    """Place of each tied lesion's first voxel among all their voxels by x, y, z; no two lesions share a voxel."""
    first = np.full(is_tied.size, foreground.numbers.size, dtype=np.intp)
    if not is_tied.any():
        return first
    chosen = is_tied[foreground.numbers - 1]
    rank = np.zeros(np.count_nonzero(chosen), dtype=np.intp)
    for coordinates in geometry.to_world(np.stack([axis[chosen] for axis in foreground.indices], axis=-1)).T:
        rank = _refine(rank, coordinates)
    np.minimum.at(first, foreground.numbers[chosen] - 1, rank)
    return first
