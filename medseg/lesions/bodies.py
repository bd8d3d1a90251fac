"""Lesions one by one: the list of foreground voxels sorted by lesion, and each lesion cut out of the map.

What is measured lesion by lesion works on the lesion's own voxels or its own box, so that its cost grows with the
lesion and not with the scan.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.core.filled import filled_places, memory_order
from medseg.core.geometry import Geometry
from medseg.core.lesions import LesionMap
from medseg.lesions.foreground import Box

__all__ = ["LesionVoxels", "list_voxels"]

_BLOCK_VOXELS = 1 << 17


@dataclass(frozen=True, eq=False)
class LesionVoxels:
    """The voxels of lesions 1..n, lesion after lesion.

    Parameters
    ----------
    labels
        (I, J, K) unsigned integer, the lesion map.
    geometry
        Its grid.
    indices
        Three times (N,) int32: voxel index on each axis.
    starts
        (n + 1,) int: voxels of lesion k are those from starts[k - 1] up to starts[k].
    flat
        (N,) int64: place of each voxel in the memory of the map.
    """

    labels: NDArray[Any]
    geometry: Geometry
    indices: tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]]
    starts: NDArray[np.int64]
    flat: NDArray[np.int64]

    @property
    def n_lesions(self) -> int:
        """Number of lesions."""
        return self.starts.size - 1

    @cached_property
    def counts(self) -> NDArray[np.int64]:
        """Voxels of each lesion (n,)."""
        return np.diff(self.starts)

    @cached_property
    def low(self) -> NDArray[np.int64]:
        """Lowest index of each lesion on each axis (n, 3)."""
        return self._reduced(np.minimum)

    @cached_property
    def high(self) -> NDArray[np.int64]:
        """One past the highest index of each lesion on each axis (n, 3)."""
        return self._reduced(np.maximum) + 1

    @cached_property
    def mean_index(self) -> NDArray[np.float64]:
        """Mean voxel index of each lesion (n, 3); sums of whole numbers are exact, in whatever order."""
        if not self.n_lesions:
            return np.empty((0, 3))
        sums = [np.add.reduceat(axis.astype(np.int64), self.starts[:-1]) for axis in self.indices]
        means: NDArray[np.float64] = np.stack(sums, axis=-1) / self.counts[:, None]
        return means

    @cached_property
    def scatter(self) -> NDArray[np.float64]:
        """Sums of products of voxel indices less their mean (n, 3, 3); sums of whole numbers are exact."""
        scatter = np.zeros((self.n_lesions, 3, 3))
        for number in range(1, self.n_lesions + 1):
            indices, low = self.of(number), self.low[number - 1, :, None]
            sums, products = np.zeros(3), np.zeros((3, 3))
            for start in range(0, indices[0].size, _BLOCK_VOXELS):
                block = (np.stack([axis[start : start + _BLOCK_VOXELS] for axis in indices]) - low).astype(np.float64)
                sums += block.sum(axis=1)
                products += block @ block.T
            scatter[number - 1] = products - np.outer(sums, sums) / indices[0].size
        return scatter

    def _reduced(self, function: np.ufunc) -> NDArray[np.int64]:
        if not self.n_lesions:
            return np.empty((0, 3), dtype=np.int64)
        ends = [function.reduceat(axis, self.starts[:-1]) for axis in self.indices]
        return np.stack(ends, axis=-1).astype(np.int64)

    def of(self, number: int) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]]:
        """Indices of the voxels of one lesion (from 1)."""
        i, j, k = self.indices
        part = slice(int(self.starts[number - 1]), int(self.starts[number]))
        return i[part], j[part], k[part]

    def read(self, array: NDArray[Any]) -> NDArray[Any]:
        """Values (N,) of another array on the same grid, in the order of the voxels."""
        in_order = array.transpose(memory_order(self.labels))
        values: NDArray[Any] = in_order.reshape(-1)[self.flat] if in_order.flags.c_contiguous else array[self.indices]
        return values

    def labels_at(self, axis: int, chosen: NDArray[np.intp]) -> NDArray[Any]:
        """Labels of the voxels one step further along an axis than the chosen ones; none of them on the last face."""
        in_order = self.labels.transpose(memory_order(self.labels))
        if in_order.flags.c_contiguous:
            step = self.labels.strides[axis] // self.labels.itemsize
            labels: NDArray[Any] = in_order.reshape(-1)[self.flat[chosen] + step]
            return labels
        place = [indices[chosen] for indices in self.indices]
        place[axis] = place[axis] + 1
        return np.asarray(self.labels[tuple(place)])

    def split(self, values: NDArray[Any]) -> Iterator[NDArray[Any]]:
        """The part of each lesion in turn."""
        bounds = self.starts.tolist()
        return (values[start:stop] for start, stop in pairwise(bounds))

    def box(self, number: int, margin: tuple[int, int, int] = (0, 0, 0)) -> Box:
        """The voxels around one lesion with a margin in voxels, cut at the faces of the grid."""
        low = np.maximum(self.low[number - 1] - margin, 0).tolist()
        high = np.minimum(self.high[number - 1] + margin, self.geometry.shape).tolist()
        return slice(low[0], high[0]), slice(low[1], high[1]), slice(low[2], high[2])


def list_voxels(lesions: LesionMap) -> LesionVoxels:
    """One pass over a lesion map: its voxels, sorted by lesion."""
    order = memory_order(lesions.array)
    in_order = lesions.array.transpose(order)
    flat = filled_places(in_order)
    numbers = (
        in_order.reshape(-1)[flat] if in_order.flags.c_contiguous else in_order[np.unravel_index(flat, in_order.shape)]
    )
    by_lesion = np.argsort(numbers, kind="stable")
    counts = np.bincount(numbers, minlength=lesions.n_lesions + 1)[1:]
    starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    flat = flat[by_lesion]
    places = _indices(flat, in_order.shape)
    i, j, k = (places[order.index(axis)] for axis in range(3))
    return LesionVoxels(lesions.array, lesions.geometry, (i, j, k), starts, flat)


def _indices(flat: NDArray[np.int64], shape: tuple[int, ...]) -> list[NDArray[np.int32]]:
    """`numpy.unravel_index`, in a quarter of the time."""
    places = flat.astype(np.int32) if math.prod(shape) < 1 << 31 else flat
    lines = places // shape[2]
    slices = lines // shape[1]
    found = (slices, lines - slices * shape[1], places - lines * shape[2])
    return [axis.astype(np.int32, copy=False) for axis in found]
