"""Each reference lesion's territory, and the Dice within it: CC-Metrics."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

__all__ = ["territory_dice"]

_TIE = 1e-6  # squared distances between voxels are whole numbers


def territory_dice(prediction: NDArray[np.bool_], components: NDArray[Any], n_components: int) -> NDArray[np.float64]:
    """Dice of prediction and reference within the territory of each reference component.

    The territory of a component is what lies nearer to it than to any other, in voxels whatever the spacing; what lies
    equally near belongs to the component whose first voxel comes first, the last axis running fastest. So every false
    positive falls into some territory.

    Parameters
    ----------
    prediction
        (I, J, K) bool.
    components
        (I, J, K) unsigned integer, components 1..n of the reference.
    n_components
        n, at least 1.

    Returns
    -------
    (n,) float64, 0..1.

    References
    ----------
    Jaus A et al. Every component counts: rethinking the measure of success for medical semantic segmentation in
    multi-instance segmentation tasks. AAAI 2025.

    Examples
    --------
    >>> components = np.array([1, 0, 0, 0, 2], dtype=np.uint8).reshape(5, 1, 1)
    >>> territory_dice(np.array([1, 1, 1, 0, 0], dtype=bool).reshape(5, 1, 1), components, 2).tolist()
    [0.5, 0.0]
    """
    at_reference = np.argwhere(components)
    numbers = _by_first_voxel(components[tuple(at_reference.T)])
    outside = np.argwhere(prediction & (components == 0))
    size = np.bincount(numbers, minlength=n_components + 1)[1:]
    shared = np.bincount(numbers[prediction[tuple(at_reference.T)]], minlength=n_components + 1)[1:]
    strayed = np.bincount(_nearest_component(outside, at_reference, numbers), minlength=n_components + 1)[1:]
    given = np.unique(components[tuple(at_reference.T)], return_index=True)[1]
    # size counts the reference, shared + strayed the prediction within each territory
    dice: NDArray[np.float64] = (2.0 * shared / (size + shared + strayed))[numbers[given] - 1]
    return dice


def _by_first_voxel(numbers: NDArray[Any]) -> NDArray[np.int64]:
    """Numbers 1..n anew, in the order in which they first appear."""
    _, first, which = np.unique(numbers, return_index=True, return_inverse=True)
    ranks: NDArray[np.int64] = np.argsort(np.argsort(first))[which.ravel()] + 1
    return ranks


def _nearest_component(
    points: NDArray[np.intp], voxels: NDArray[np.intp], numbers: NDArray[np.int64]
) -> NDArray[np.int64]:
    """The lowest number among the nearest voxels of each point."""
    if not len(points):
        return np.empty(0, dtype=np.int64)
    tree = cKDTree(voxels)
    squared = np.rint(tree.query(points)[0] ** 2)
    nearest = tree.query_ball_point(points, np.sqrt(squared + _TIE), return_sorted=False)
    return np.array([numbers[found].min() for found in nearest], dtype=np.int64)
