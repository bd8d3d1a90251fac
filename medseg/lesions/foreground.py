"""The voxels of all lesions as a list: what every per-lesion sum runs over.

Lesions fill a small part of a scan. One pass over the grid finds their voxels; counts, centroids, classes, scores and
intensities are then sums over this list (`numpy.bincount`), so their cost grows with the lesions and not with
lesions times grid.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.core.filled import filled_places, memory_order
from medseg.core.geometry import Geometry

__all__ = [
    "Box",
    "Foreground",
    "find_foreground",
    "lesion_boxes",
    "lesion_centroids",
    "lesion_means",
    "lesion_voxel_counts",
]

Box = tuple[slice, slice, slice]
Indices = tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]


@dataclass(frozen=True, eq=False)
class Foreground:
    """Every voxel that is not background.

    Parameters
    ----------
    numbers
        (N,) integer, label of each voxel.
    indices
        Three times (N,) int, its voxel index on each axis: `array[indices]` reads another array on the same grid.
    """

    numbers: NDArray[Any]
    indices: Indices


def find_foreground(labels: NDArray[Any]) -> Foreground:
    """List the voxels of a label array that are not 0.

    Parameters
    ----------
    labels
        (I, J, K) integer or bool, in any memory order.

    Returns
    -------
    The voxels, in memory order.
    """
    # Walking in memory order keeps this one sequential pass for C and Fortran arrays (NIfTI) alike.
    axes = memory_order(labels)
    in_memory_order = labels.transpose(axes)
    positions = np.unravel_index(filled_places(in_memory_order), in_memory_order.shape)
    i, j, k = (positions[axes.index(axis)] for axis in range(3))
    return Foreground(labels[i, j, k], (i, j, k))


def lesion_voxel_counts(foreground: Foreground, n_lesions: int) -> NDArray[np.int64]:
    """Number of voxels of lesions 1..n: (n,) int64."""
    return np.bincount(foreground.numbers, minlength=n_lesions + 1)[1:].astype(np.int64)


def lesion_boxes(foreground: Foreground, n_lesions: int) -> list[Box]:
    """The smallest box of voxels around each of the lesions 1..n: three half-open slices each."""
    slots = foreground.numbers.astype(np.intp) - 1
    columns = []
    for axis_indices in foreground.indices:
        first, last = np.full(n_lesions, np.iinfo(np.intp).max), np.full(n_lesions, -1)
        np.minimum.at(first, slots, axis_indices)
        np.maximum.at(last, slots, axis_indices)
        columns.append([slice(*ends) for ends in zip(first.tolist(), (last + 1).tolist(), strict=True)])
    return list(zip(*columns, strict=True))


def lesion_means(foreground: Foreground, n_lesions: int, values: NDArray[Any]) -> NDArray[np.float64]:
    """Mean of a value over the voxels of lesions 1..n.

    Parameters
    ----------
    foreground
        Voxels whose numbers are exactly 1..n.
    n_lesions
        n.
    values
        (N,) one value a foreground voxel.

    Returns
    -------
    (n,) float64, the unit of the values.
    """
    sums = np.bincount(foreground.numbers, weights=values, minlength=n_lesions + 1)[1:]
    means: NDArray[np.float64] = sums / lesion_voxel_counts(foreground, n_lesions)
    return means


def lesion_centroids(foreground: Foreground, n_lesions: int, geometry: Geometry) -> NDArray[np.float64]:
    """Mean voxel center of lesions 1..n: (n, 3) float64, millimeters, RAS+."""
    # Sums of indices are whole numbers, exact in float64: the same in whatever order the voxels come.
    means = [lesion_means(foreground, n_lesions, axis_indices) for axis_indices in foreground.indices]
    return geometry.to_world(np.stack(means, axis=-1))
