"""The voxels of all lesions as runs: stretches of one number along the axis that lies densest in memory.

A lesion of a thousand voxels is a hundred runs. Components, counts, centroids and final numbers come from runs alone:
the grid is passed over once to find them, and once to write the result.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.core.filled import filled_words, memory_order
from medseg.core.geometry import Geometry

__all__ = ["Runs", "find_runs", "join_runs", "runs_of_places"]

Integers = NDArray[np.int64]
Indices = tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]


@dataclass(frozen=True, eq=False)
class Runs:
    """Everything that is not background. A run never reaches over the end of a line of the grid.

    Parameters
    ----------
    axes
        Axes of (I, J, K) from the slowest in memory to the fastest.
    shape
        (A, B, C) extent of the grid along these axes.
    starts
        (R,) int64, place of each run's first voxel in the flattened (A, B, C), ascending.
    lengths
        (R,) int64, voxels of each run.
    numbers
        (R,) integer, label of each run.
    """

    axes: tuple[int, int, int]
    shape: tuple[int, int, int]
    starts: Integers
    lengths: Integers
    numbers: NDArray[Any]

    @property
    def n_voxels(self) -> int:
        """Voxels of all runs."""
        return int(self.lengths.sum())

    def numbered(self, numbers: NDArray[Any]) -> Runs:
        """The same runs with other numbers."""
        return replace(self, numbers=numbers)

    def chosen(self, which: NDArray[Any] | slice) -> Runs:
        """Some of the runs, by mask or by ascending index."""
        return replace(self, starts=self.starts[which], lengths=self.lengths[which], numbers=self.numbers[which])

    def places(self) -> Integers:
        """(N,) place of every voxel in the flattened (A, B, C), ascending."""
        return _spread(self.starts, self.lengths)

    def voxel_numbers(self) -> NDArray[Any]:
        """(N,) label of every voxel."""
        return np.repeat(self.numbers, self.lengths)

    def split_places(self, places: Integers) -> tuple[Integers, Integers, Integers]:
        """Index on A, on B and on C of some places."""
        lines, third = _divided(places, self.shape[2])
        first, second = _divided(lines, self.shape[1])
        return first, second, third

    def indices(self, places: Integers) -> Indices:
        """Index on I, on J and on K of some places."""
        found = self.split_places(places)
        i, j, k = (found[self.axes.index(axis)] for axis in range(3))
        return i, j, k

    def read(self, array: NDArray[Any], places: Integers) -> NDArray[Any]:
        """Values of another (I, J, K) array on the same grid at some places."""
        in_order = array.transpose(self.axes)
        values: NDArray[Any] = (
            in_order.reshape(-1)[places] if in_order.flags.c_contiguous else array[self.indices(places)]
        )
        return values

    def voxel_counts(self, n_lesions: int) -> Integers:
        """Voxels of lesions 1..n: (n,) int64."""
        return self._sums(n_lesions, self.lengths).astype(np.int64)

    def centroids(self, n_lesions: int, geometry: Geometry) -> NDArray[np.float64]:
        """Mean voxel center of lesions 1..n: (n, 3) float64, millimeters, RAS+."""
        # Sums of indices are whole numbers, exact in float64: the same in whatever order the voxels come.
        first, second, third = self.split_places(self.starts)
        lengths = self.lengths
        along_run = third * lengths + lengths * (lengths - 1) // 2
        sums = [self._sums(n_lesions, total) for total in (first * lengths, second * lengths, along_run)]
        counts = self.voxel_counts(n_lesions)
        return geometry.to_world(np.stack([sums[self.axes.index(axis)] / counts for axis in range(3)], axis=-1))

    def means(self, n_lesions: int, array: NDArray[Any]) -> NDArray[np.float64]:
        """Mean of an (I, J, K) array over the voxels of lesions 1..n: (n,) float64, the unit of the array."""
        values = self.read(array, self.places())
        sums = np.bincount(self.voxel_numbers(), weights=values, minlength=n_lesions + 1)[1:]
        means: NDArray[np.float64] = sums / self.voxel_counts(n_lesions)
        return means

    def first_places(self, n_lesions: int) -> Integers:
        """Place of some voxel of each of the lesions 1..n: (n,)."""
        places = np.zeros(n_lesions + 1, dtype=np.int64)
        places[self.numbers] = self.starts
        return places[1:]

    def to_array(self, dtype: np.dtype[Any]) -> NDArray[Any]:
        """The runs on their grid (I, J, K), in the memory order that they were found in; 0 elsewhere."""
        in_order = np.zeros(self.shape, dtype=dtype)
        in_order.reshape(-1)[self.places()] = np.repeat(self.numbers.astype(dtype, copy=False), self.lengths)
        return in_order.transpose(np.argsort(self.axes))

    def _sums(self, n_lesions: int, values: Integers) -> NDArray[np.float64]:
        sums = np.bincount(self.numbers, weights=values, minlength=n_lesions + 1)[1:]
        return np.asarray(sums, dtype=np.float64)


def find_runs(labels: NDArray[Any], lookup: NDArray[Any] | None = None) -> Runs:
    """List the runs of voxels that are not 0, in one pass.

    Parameters
    ----------
    labels
        (I, J, K) integer or bool, in any memory order.
    lookup
        What to read instead of each number, 0 for 0; None for the numbers themselves.
    """
    axes = memory_order(labels)
    in_order = labels.transpose(axes)
    nothing = np.zeros(0, dtype=np.int64)
    parts = [(nothing, nothing, np.zeros(0, labels.dtype if lookup is None else lookup.dtype))]
    parts.extend(_runs_in(places, values, lookup) for places, values in filled_words(in_order))
    starts, lengths, numbers = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    first, second, third = in_order.shape
    return Runs(axes, (first, second, third), *_within_lines(starts, lengths, numbers, third))


def runs_of_places(grid: Runs, places: Integers, numbers: NDArray[Any]) -> Runs:
    """Runs on the same grid out of a list of voxels: ascending places, and a number from 1 for each."""
    starts, lengths, found = _stretches(places, numbers)
    return Runs(grid.axes, grid.shape, *_within_lines(starts, lengths, found, grid.shape[2]))


def join_runs(parts: list[Runs]) -> Runs:
    """Runs of one grid that share no voxel as one list; at least one part."""
    starts = np.concatenate([part.starts for part in parts])
    order = np.argsort(starts, kind="stable")
    lengths = np.concatenate([part.lengths for part in parts])
    numbers = np.concatenate([part.numbers for part in parts])
    return replace(parts[0], starts=starts[order], lengths=lengths[order], numbers=numbers[order])


def _runs_in(
    places: NDArray[np.intp], values: NDArray[Any], lookup: NDArray[Any] | None
) -> tuple[Integers, Integers, NDArray[Any]]:
    """Starts, lengths and numbers of the runs in some words."""
    per_word = values.shape[1]
    flat = values.reshape(-1) if lookup is None else lookup[values.reshape(-1)]
    is_first = np.empty(flat.size, dtype=bool)
    is_first[0] = True
    np.not_equal(flat[1:], flat[:-1], out=is_first[1:])
    is_first[per_word::per_word] |= np.diff(places) != per_word
    firsts = np.flatnonzero(is_first)
    lengths = np.diff(firsts, append=flat.size)
    is_lesion = flat[firsts] != 0
    firsts = firsts[is_lesion]
    words, within = _divided(firsts, per_word)
    return places[words] + within, lengths[is_lesion], flat[firsts]


def _stretches(places: Integers, numbers: NDArray[Any]) -> tuple[Integers, Integers, NDArray[Any]]:
    """Starts, lengths and numbers of stretches of places that follow each other and share a number."""
    is_first = np.ones(places.size, dtype=bool)
    is_first[1:] = (np.diff(places) != 1) | (numbers[1:] != numbers[:-1])
    firsts = np.flatnonzero(is_first)
    return places[firsts], np.diff(firsts, append=places.size), numbers[firsts]


def _within_lines(
    starts: Integers, lengths: Integers, numbers: NDArray[Any], line: int
) -> tuple[Integers, Integers, NDArray[Any]]:
    """Stretches joined where one begins at the end of another with its number, then cut at the ends of lines."""
    ends = starts + lengths
    goes_on = (starts[1:] == ends[:-1]) & (numbers[1:] == numbers[:-1])
    if goes_on.any():
        is_first, is_last = np.append(True, ~goes_on), np.append(~goes_on, True)
        starts, ends, numbers = starts[is_first], ends[is_last], numbers[is_first]
    first_line, last_line = starts // max(1, line), (ends - 1) // max(1, line)
    n_lines = last_line - first_line + 1
    if (n_lines > 1).any():
        lines = _spread(first_line, n_lines)
        starts = np.maximum(np.repeat(starts, n_lines), lines * line)
        ends = np.minimum(np.repeat(ends, n_lines), (lines + 1) * line)
        numbers = np.repeat(numbers, n_lines)
    return starts, ends - starts, numbers


def _spread(starts: Integers, lengths: Integers) -> Integers:
    """start, start + 1, ... of each stretch, one after the other."""
    before = np.cumsum(lengths) - lengths
    spread = np.repeat(starts - before, lengths)
    spread += np.arange(spread.size)
    return spread


def _divided(values: Integers, divisor: int) -> tuple[Integers, Integers]:
    """Quotient and remainder; a quarter of the time of `numpy.divmod`."""
    quotient = values // max(1, divisor)
    return quotient, values - quotient * divisor
