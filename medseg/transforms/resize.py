"""Interpolation on a regular grid, axis by axis: the numbers of `skimage.transform.resize`, many times faster.

A spline of any order along one axis is a matrix: as many rows as there will be voxels, as many columns as there are.
It is nearly banded, so that it is applied in blocks, as dense products; nothing is padded or filtered voxel by voxel.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray
from scipy.ndimage import zoom

__all__ = ["along_axis", "resized"]

_ROWS = 64  # of one block
_LEAST_WEIGHT = {np.dtype(np.float32): 1e-9, np.dtype(np.float64): 1e-17}


def resized(
    image: NDArray[Any],
    shape: Sequence[int],
    *,
    order: int,
    dtype: DTypeLike = np.float32,
    axes: Sequence[int] | None = None,
    is_clipped: bool = True,
) -> NDArray[Any]:
    """A spline through an image, evaluated on a grid with other voxels: outer edges of both grids coincide.

    Equal to `skimage.transform.resize(image, shape, order, mode="edge", anti_aliasing=False)` within rounding.

    Parameters
    ----------
    image
        (i, j, k).
    shape
        (3,) new voxels along each axis.
    order
        Of the spline, 0 (nearest neighbor) to 5.
    dtype
        What is computed and returned: float32 or float64.
    axes
        Axes along which to interpolate; None for all. Others keep their voxels.
    is_clipped
        Whether the result is brought into the range of the image, which a spline leaves; with some axes only, into the
        range of each slice along the others.
    """
    chosen = tuple(range(image.ndim)) if axes is None else tuple(axes)
    changed = [axis for axis in chosen if image.shape[axis] != shape[axis]]
    if not changed:
        return np.asarray(image, dtype=dtype)
    result = image
    # the axis that shrinks most first: the others then have less to do
    for axis in sorted(changed, key=lambda axis: shape[axis] / image.shape[axis]):
        result = along_axis(result, axis, shape[axis], order=order, dtype=dtype)
    if is_clipped and order > 1:
        low, high = image.min(axis=chosen, keepdims=True), image.max(axis=chosen, keepdims=True)
        np.clip(result, low, high, out=result)
    return result


def along_axis(image: NDArray[Any], axis: int, n: int, *, order: int, dtype: DTypeLike) -> NDArray[Any]:
    """Interpolate (i, j, k) to `n` voxels along one axis; a new array of `dtype`."""
    matrix = _spline_matrix(image.shape[axis], n, order)
    if order == 0:
        taken: NDArray[Any] = np.take(image, matrix.argmax(axis=1), axis=axis)
        return taken.astype(dtype, copy=False)
    weights = matrix.astype(dtype, copy=False)
    shape = [n if number == axis else side for number, side in enumerate(image.shape)]
    result = np.empty(shape, dtype=dtype)
    is_last = axis == image.ndim - 1
    place = -1 if is_last else -2  # where a matrix product acts, from the right or from the left
    source, target = np.moveaxis(image, axis, place), np.moveaxis(result, axis, place)
    for low in range(0, n, _ROWS):
        rows = slice(low, min(low + _ROWS, n))
        used = np.flatnonzero((np.abs(matrix[rows]) > _LEAST_WEIGHT[np.dtype(dtype)]).any(axis=0))
        columns = slice(int(used[0]), int(used[-1]) + 1)
        block = weights[rows, columns]
        if is_last:
            target[..., rows] = source[..., columns].astype(dtype, copy=False) @ block.T
        else:
            target[..., rows, :] = block @ source[..., columns, :].astype(dtype, copy=False)
    return result


@lru_cache(maxsize=16)
def _spline_matrix(n_from: int, n_to: int, order: int) -> NDArray[np.float64]:
    """(n_to, n_from) float64: what each old voxel gives to each new one; read-only."""
    matrix: NDArray[np.float64] = zoom(np.eye(n_from), (n_to / n_from, 1), order=order, mode="nearest", grid_mode=True)
    matrix.setflags(write=False)
    return matrix
