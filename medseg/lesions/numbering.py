"""Lesion numbers: descending volume, then world centroid, so that they do not depend on how the grid is oriented."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.core.geometry import Geometry
from medseg.core.lesions import label_dtype
from medseg.errors import GridMismatch, InvalidLabelMap
from medseg.lesions.runs import Runs, find_runs

__all__ = ["number_lesions", "number_runs"]

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
    runs = find_runs(labels)
    if runs.numbers.size and runs.numbers.min() < 0:
        raise InvalidLabelMap(f"lesion numbers are 0 or above; the lowest here is {runs.numbers.min()}")
    numbered, old_numbers = number_runs(runs, geometry)
    return numbered.to_array(label_dtype(old_numbers.size)), old_numbers


def number_runs(runs: Runs, geometry: Geometry) -> tuple[Runs, NDArray[Any]]:
    """`number_lesions` for runs: the same runs with final numbers, and the old numbers."""
    old_numbers, compact = _without_gaps(runs.numbers)
    order = _final_order(runs.numbered(compact), old_numbers.size, geometry)
    new_numbers = np.zeros(old_numbers.size + 1, dtype=label_dtype(old_numbers.size))
    new_numbers[order + 1] = np.arange(1, old_numbers.size + 1)
    return runs.numbered(new_numbers[compact]), old_numbers[order]


def _check_labels(labels: NDArray[Any], geometry: Geometry) -> None:
    if labels.shape != geometry.shape:
        raise GridMismatch(f"a label map on {geometry!r} cannot have shape {labels.shape}")
    if labels.dtype.kind not in "uib":
        raise InvalidLabelMap(f"a label map holds integers; got {labels.dtype}")


def _without_gaps(values: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.intp]]:
    """The numbers in use, ascending, and 1..n in their stead."""
    highest = int(values.max(initial=0))
    if highest <= values.size + 65_536:  # counting is linear; only numbers far apart need the sort in unique
        small_values = values.astype(np.intp)
        in_use = np.bincount(small_values, minlength=1) > 0
        place: NDArray[np.intp] = np.cumsum(in_use, dtype=np.intp)
        return np.flatnonzero(in_use).astype(values.dtype), place[small_values]
    old_numbers, inverse = np.unique(values, return_inverse=True)
    return old_numbers, inverse.ravel() + 1


def _final_order(runs: Runs, n_lesions: int, geometry: Geometry) -> NDArray[np.intp]:
    """Which lesion (from 0) comes first, second, ..."""
    rank = _refine(np.zeros(n_lesions, dtype=np.intp), -runs.voxel_counts(n_lesions))
    for coordinates in runs.centroids(n_lesions, geometry).T:
        rank = _refine(rank, coordinates)
    is_tied = np.bincount(rank, minlength=1)[rank] > 1
    return np.lexsort((_first_voxel_rank(runs, is_tied, geometry), rank))


def _refine(rank: NDArray[np.intp], value: NDArray[Any]) -> NDArray[np.intp]:
    """Break ties of a rank by a value; values that follow each other within the tolerance stay tied.

    Following each other, not rounding: rounding parts equal coordinates when they lie on the edge between two steps.
    """
    order = np.lexsort((value, rank))
    is_new = (np.diff(rank[order]) > 0) | (np.diff(value[order]) > _SAME_POSITION_MM)
    refined = np.zeros_like(rank)
    refined[order[1:]] = np.cumsum(is_new)
    return refined


def _first_voxel_rank(runs: Runs, is_tied: NDArray[np.bool_], geometry: Geometry) -> NDArray[np.intp]:
    """Place of each tied lesion's first voxel among all their voxels by x, y, z; no two lesions share a voxel."""
    tied = runs.chosen(is_tied[runs.numbers - 1])
    numbers = tied.voxel_numbers()
    first = np.full(is_tied.size, numbers.size, dtype=np.intp)
    rank = np.zeros(numbers.size, dtype=np.intp)
    for coordinates in geometry.to_world(np.stack(tied.indices(tied.places()), axis=-1)).T:
        rank = _refine(rank, coordinates)
    np.minimum.at(first, numbers - 1, rank)
    return first
