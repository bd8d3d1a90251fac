"""How many voxels the lesions of two maps have, alone and in common: what every overlap figure follows from.

One pass over the two maps, block by block; only foreground is looked at closely. The cost is that of reading the maps,
however many lesions there are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.errors import GridMismatch, InvalidLabelMap

__all__ = ["Contingency", "tabulate"]

_BLOCK_VOXELS = 2**21


@dataclass(frozen=True, eq=False)
class Contingency:
    """Voxels of predicted lesions 1..P and reference lesions 1..R, and of every pair that shares some.

    Parameters
    ----------
    prediction_voxels, reference_voxels
        (P,) and (R,) int64, voxels of each lesion.
    prediction, reference
        (M,) int64 each, lesion numbers of the pairs that share voxels, ordered by prediction, then reference.
    shared_voxels
        (M,) int64, voxels that each pair shares.
    prediction_centroids, reference_centroids
        (P, 3) and (R, 3) float64, mean voxel index of each lesion; NaN for a number without voxels.
    """

    prediction_voxels: NDArray[np.int64]
    reference_voxels: NDArray[np.int64]
    prediction: NDArray[np.int64]
    reference: NDArray[np.int64]
    shared_voxels: NDArray[np.int64]
    prediction_centroids: NDArray[np.float64]
    reference_centroids: NDArray[np.float64]

    @property
    def n_prediction(self) -> int:
        """Number of predicted lesions."""
        return self.prediction_voxels.size

    @property
    def n_reference(self) -> int:
        """Number of reference lesions."""
        return self.reference_voxels.size


def tabulate(prediction: NDArray[Any], reference: NDArray[Any], n_prediction: int, n_reference: int) -> Contingency:
    """Count the voxels of every lesion and of every pair of lesions.

    Parameters
    ----------
    prediction, reference
        (I, J, K) unsigned integer, lesion numbers 1..P and 1..R, 0 for background; any memory order.
    n_prediction, n_reference
        P and R.

    Raises
    ------
    GridMismatch
        If the shapes differ.
    InvalidLabelMap
        If an array is not of unsigned integers, or holds a number above P or R.

    Examples
    --------
    >>> prediction = np.array([1, 1, 0, 2], dtype=np.uint16).reshape(4, 1, 1)
    >>> reference = np.array([0, 1, 1, 1], dtype=np.uint16).reshape(4, 1, 1)
    >>> table = tabulate(prediction, reference, 2, 1)
    >>> table.prediction.tolist(), table.reference.tolist(), table.shared_voxels.tolist()
    ([1, 2], [1, 1], [1, 1])
    """
    _check(prediction, reference)
    sums = _Sums(n_prediction, n_reference)
    for predicted, referenced, indices in _foreground_blocks(prediction, reference):
        sums.add(predicted, referenced, indices)
    return sums.table()


def _check(prediction: NDArray[Any], reference: NDArray[Any]) -> None:
    if prediction.shape != reference.shape:
        raise GridMismatch(f"two maps are compared on one grid; got shapes {prediction.shape} and {reference.shape}")
    for side, array in (("prediction", prediction), ("reference", reference)):
        if array.dtype.kind != "u":
            raise InvalidLabelMap(f"lesion numbers are unsigned integers; the {side} is {array.dtype}")


def _foreground_blocks(
    prediction: NDArray[Any], reference: NDArray[Any]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], list[NDArray[np.intp]]]]:
    """Both numbers and the three indices of every voxel that is in either foreground, some planes at a time."""
    # In memory order a block is one piece for C and Fortran arrays (NIfTI) alike.
    axes = sorted(range(3), key=lambda axis: -abs(prediction.strides[axis]))
    first, second = prediction.transpose(axes), reference.transpose(axes)
    planes = max(1, _BLOCK_VOXELS // max(1, first[0].size)) if first.shape[0] else 1
    for start in range(0, first.shape[0], planes):
        a, b = first[start : start + planes], second[start : start + planes]
        where = np.flatnonzero(np.ravel((a | b) != 0))
        if where.size:
            places = np.unravel_index(where, a.shape)
            indices = [places[axes.index(axis)] + (start if axes[0] == axis else 0) for axis in range(3)]
            yield a[places].astype(np.int64), b[places].astype(np.int64), indices


class _Sums:
    """Counts of pairs and sums of indices, added up block by block."""

    def __init__(self, n_prediction: int, n_reference: int) -> None:
        self._n = (n_prediction, n_reference)
        self._stride = n_reference + 1
        self._keys: list[NDArray[np.int64]] = []
        self._counts: list[NDArray[np.int64]] = []
        self._positions = [np.zeros((n + 1, 3)) for n in self._n]

    def add(self, predicted: NDArray[np.int64], referenced: NDArray[np.int64], indices: list[NDArray[np.intp]]) -> None:
        for side, numbers, n in (("prediction", predicted, self._n[0]), ("reference", referenced, self._n[1])):
            if numbers.max() > n:
                raise InvalidLabelMap(f"the {side} holds lesion number {numbers.max()}; expected at most {n}")
        keys, counts = np.unique(predicted * self._stride + referenced, return_counts=True)
        self._keys.append(keys)
        self._counts.append(counts)
        for numbers, positions in zip((predicted, referenced), self._positions, strict=True):
            for axis, places in enumerate(indices):
                positions[:, axis] += np.bincount(numbers, weights=places, minlength=len(positions))

    def table(self) -> Contingency:
        keys, slots = np.unique(np.concatenate([*self._keys, np.empty(0, np.int64)]), return_inverse=True)
        counts = np.zeros(keys.size, dtype=np.int64)
        np.add.at(counts, slots, np.concatenate([*self._counts, np.empty(0, np.int64)]))
        predicted, referenced = keys // self._stride, keys % self._stride
        sizes = [
            np.bincount(numbers, weights=counts, minlength=n + 1)[1:].astype(np.int64)
            for numbers, n in zip((predicted, referenced), self._n, strict=True)
        ]
        with np.errstate(invalid="ignore"):
            centroids = [sums[1:] / n[:, None] for sums, n in zip(self._positions, sizes, strict=True)]
        both = (predicted > 0) & (referenced > 0)
        return Contingency(
            prediction_voxels=sizes[0],
            reference_voxels=sizes[1],
            prediction=predicted[both],
            reference=referenced[both],
            shared_voxels=counts[both],
            prediction_centroids=centroids[0],
            reference_centroids=centroids[1],
        )
