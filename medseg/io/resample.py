"""Linear interpolation of a map from one grid onto another, slab by slab.

MONAI and scipy interpolate a whole volume through a dense coordinate grid, even where the axes of the two grids run
parallel. There the interpolation is separable: one gather and one blend along each axis, in as much memory as one slab
takes, and in the order in which the voxels lie in memory. Grids that are rotated against each other go through
`scipy.ndimage.map_coordinates`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medseg.core.geometry import Geometry

__all__ = ["Neighbors", "resample_linear", "resampled_slabs"]

_PARALLEL_TOLERANCE_VOXELS = 1e-3  # how far parallel axes may drift apart over the whole grid
_ROUNDING_VOXELS = 1e-7
_SLAB_VOXELS = 4_000_000  # output voxels a slab: 16 MB for each channel in float32

FloatArray = NDArray[np.float32]


def resample_linear(array: FloatArray, source: Geometry, target: Geometry) -> FloatArray:
    """Values of a map at the voxel centers of another grid.

    Parameters
    ----------
    array
        (C, I, J, K) float32 on `source`.
    source, target
        The two grids.

    Returns
    -------
    (C, I', J', K') float32 on `target`; beyond the outermost voxel centers the nearest value goes on.
    """
    result = np.empty((len(array), *target.shape), np.float32)
    for part, slab in resampled_slabs(array, source, target):
        result[(slice(None), *part)] = slab
    return result


def resampled_slabs(
    array: FloatArray, source: Geometry, target: Geometry
) -> Iterator[tuple[tuple[slice, slice, slice], FloatArray]]:
    """`resample_linear` in pieces: where in the target each lies, and its values.

    The pieces are slabs along the target's axis that runs slowest through the source's memory.
    """
    to_source = np.linalg.inv(source.affine) @ target.affine
    source_axes = _parallel_axes(to_source, target)
    if source_axes is None:
        for part in _slabs(target, 0):
            yield part, _slab_by_coordinates(array, to_source, part)
        return
    order = _slowest_first(array, source_axes)
    for part in _slabs(target, order[0]):
        yield part, _slab_by_axis(array, to_source, source_axes, part, order)


def _slabs(target: Geometry, axis: int) -> Iterator[tuple[slice, slice, slice]]:
    n_rows = max(1, _SLAB_VOXELS * target.shape[axis] // math.prod(target.shape))
    for start in range(0, target.shape[axis], n_rows):
        i, j, k = (
            slice(start, min(start + n_rows, n)) if other == axis else slice(0, n)
            for other, n in enumerate(target.shape)
        )
        yield i, j, k


def _slowest_first(array: FloatArray, source_axes: tuple[int, int, int]) -> list[int]:
    """The target's axes, by how far apart neighbors along them lie in the source's memory."""
    return sorted(range(3), key=lambda axis: -abs(array.strides[source_axes[axis] + 1]))


def _parallel_axes(to_source: NDArray[np.float64], target: Geometry) -> tuple[int, int, int] | None:
    """For each target axis the source axis that it runs along, or None if the grids are rotated or sheared."""
    drift = np.abs(to_source[:3, :3]) * np.array(target.shape)  # voxels of drift over the whole grid
    axes = [int(np.argmax(np.abs(to_source[:3, axis]))) for axis in range(3)]
    if sorted(axes) != [0, 1, 2]:
        return None
    for target_axis, source_axis in enumerate(axes):
        drift[source_axis, target_axis] = 0.0
    return (axes[0], axes[1], axes[2]) if drift.max() <= _PARALLEL_TOLERANCE_VOXELS else None


def _slab_by_axis(
    array: FloatArray,
    to_source: NDArray[np.float64],
    source_axes: tuple[int, int, int],
    part: tuple[slice, slice, slice],
    order: Sequence[int],
) -> FloatArray:
    """One slab of the target, its axes in memory in the order given; the axis that shrinks most is blended first."""
    values = array.transpose(0, *(source_axes[axis] + 1 for axis in order))
    steps = []
    for axis, target_axis in enumerate(order, start=1):
        source_axis, span = source_axes[target_axis], part[target_axis]
        stride = to_source[source_axis, target_axis]
        positions = stride * np.arange(span.start, span.stop) + to_source[source_axis, 3]
        values, near = _cut_to(values, positions, axis)
        steps.append((-abs(stride), axis, near))
    for _, axis, near in sorted(steps, key=lambda step: step[:2]):
        values = near.blend(values, axis)
    return values.transpose(0, *(order.index(axis) + 1 for axis in range(3)))


@dataclass(frozen=True, eq=False)
class Neighbors:
    """How n positions along one axis read the voxels of an array.

    Parameters
    ----------
    below, above
        (n,) intp, the voxels on both sides of each position; equal where it lies on one.
    weight
        (n,) float in 0..1, of `above`.
    """

    below: NDArray[np.intp]
    above: NDArray[np.intp]
    weight: NDArray[np.floating]

    def blend(self, values: NDArray[np.floating], axis: int) -> NDArray[np.floating]:
        """Values linearly interpolated along one of their axes, in their own type."""
        low = np.take(values, self.below, axis=axis)
        if not self.weight.any():
            return low
        high = np.take(values, self.above, axis=axis)
        high -= low
        high *= self.weight.astype(values.dtype, copy=False).reshape(
            [-1 if n == axis else 1 for n in range(values.ndim)]
        )
        low += high
        return low


def _cut_to(values: FloatArray, positions: NDArray[np.float64], axis: int) -> tuple[FloatArray, Neighbors]:
    """The part of an array that fractional positions along an axis need, clamped to the outermost centers."""
    n = values.shape[axis]
    if values.strides[axis] < 0:  # `take` would copy a flipped array whole
        values, positions = np.flip(values, axis), n - 1 - positions
    clamped = np.clip(_snapped(positions), 0, n - 1)
    below = np.floor(clamped).astype(np.intp)
    weight = (clamped - below).astype(np.float32)
    above = np.minimum(below + 1, n - 1)
    first = int(below.min())  # nor should it copy more of a transposed one than it reads
    values = values[(slice(None),) * axis + (slice(first, int(above.max()) + 1),)]
    return values, Neighbors(below - first, above - first, weight)


def _snapped(positions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Positions that miss a voxel center by rounding alone are on it: the grid's own values come back bit for bit."""
    nearest: NDArray[np.float64] = np.rint(positions)
    return np.where(np.abs(positions - nearest) < _ROUNDING_VOXELS, nearest, positions)


def _slab_by_coordinates(
    array: FloatArray, to_source: NDArray[np.float64], part: tuple[slice, slice, slice]
) -> FloatArray:
    index = np.indices([span.stop - span.start for span in part], dtype=np.float64)
    index[0] += part[0].start
    coordinates = np.tensordot(to_source[:3, :3], index, axes=1) + to_source[:3, 3][:, None, None, None]
    slabs = [ndimage.map_coordinates(channel, coordinates, order=1, mode="nearest") for channel in array]
    return np.stack(slabs).astype(np.float32, copy=False)
