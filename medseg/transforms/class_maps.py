"""Class numbers on another grid, as nnU-Net brings the map of a cascade's first stage to the second's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import zoom

from medseg.transforms.resize import along_axis, resized

__all__ = ["resampled_classes"]

_OUTSIDE = -1  # nnU-Net's class of what is not inside of the nonzero mask: background, but apart


def resampled_classes(
    classes: NDArray[np.integer[Any]],
    shape: tuple[int, int, int],
    *,
    mask: NDArray[np.bool_] | None = None,
    apart: int | None = None,
    is_exact: bool = False,
) -> NDArray[np.int32]:
    """The class with the largest share of each new voxel; of several with as much, the nearest neighbor's.

    Parameters
    ----------
    classes
        (i, j, k) class numbers, 0 for background.
    shape
        (3,) new voxels along each axis.
    mask
        (i, j, k) inside of the nonzero crop; background inside and outside are weighed as two classes.
    apart
        The axis that is resampled apart, by the nearest neighbor; None for none.
    is_exact
        Shares often tie, or miss it by the last digit: exact runs add them in the order of scipy's `zoom`.

    Returns
    -------
    (i, j, k) int32 class numbers.

    Differs from
    ------------
    nnU-Net with batchgenerators before 0.25.5: there, a class counts where it has at least half of the weight.
    """
    signed = classes.astype(np.int32)
    if shape == classes.shape:
        return signed
    if mask is not None:
        signed[(signed == 0) & ~mask] = _OUTSIDE
    in_plane = tuple(n if axis == apart else shape[axis] for axis, n in enumerate(classes.shape))
    winner = _winner(signed, in_plane, apart, is_exact)
    np.maximum(winner, 0, out=winner)
    if apart is None or classes.shape[apart] == shape[apart]:
        return winner
    return along_axis(winner, apart, shape[apart], order=0, dtype=winner.dtype)


def _winner(classes: NDArray[np.int32], shape: tuple[int, ...], apart: int | None, is_exact: bool) -> NDArray[np.int32]:
    nearest = classes
    for axis, n in enumerate(shape):
        if nearest.shape[axis] != n:
            nearest = along_axis(nearest, axis, n, order=0, dtype=np.int32)
    winner = np.zeros(shape, np.int32)
    best = np.zeros(shape)
    is_nearest_best = np.zeros(shape, bool)
    share_of = _share_as_scipy if is_exact else _share
    for number in np.unique(classes):
        share = share_of(classes == number, shape, apart)
        is_better, is_level = share > best, (share == best) & (share > 0)
        is_nearest = nearest == number
        is_nearest_best = np.where(is_better, is_nearest, is_nearest_best | (is_level & is_nearest))
        winner[is_better] = number
        np.maximum(best, share, out=best)
    return np.where(is_nearest_best, nearest, winner)


def _share(mask: NDArray[np.bool_], shape: Sequence[int], apart: int | None) -> NDArray[np.float64]:
    axes = [axis for axis in range(3) if axis != apart]
    return resized(mask.astype(np.float64), shape, order=1, dtype=np.float64, axes=axes)


def _share_as_scipy(mask: NDArray[np.bool_], shape: Sequence[int], apart: int | None) -> NDArray[np.float64]:
    planes = [mask] if apart is None else list(np.moveaxis(mask, apart, 0))
    sides = [n for axis, n in enumerate(shape) if axis != apart]
    resampled = []
    for plane in planes:
        factors = [new / old for old, new in zip(plane.shape, sides, strict=True)]
        resampled.append(zoom(plane.astype(np.float64), factors, order=1, mode="nearest", grid_mode=True))
    return resampled[0] if apart is None else np.moveaxis(np.stack(resampled), 0, apart)
