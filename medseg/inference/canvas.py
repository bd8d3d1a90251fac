"""The scan's array of class numbers, and painters that write rows of a network's grid onto it."""

from __future__ import annotations

from itertools import product
from math import prod
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse

from medseg.errors import ModelError
from medseg.inference.axis_map import AxisMap
from medseg.inference.decide import Codes, Decision
from medseg.inference.largest import keep_largest
from medseg.inference.slab import INTERPOLATED, Slab

__all__ = ["Canvas", "LabelPainter", "RowPainter"]

_BLOCK_VOXELS = 2_000_000  # scan voxels decided at once
_BLOCK_VALUES = 4_000_000  # interpolated values at once
_SPARSE_COST = 17.0  # channels whose interpolation costs as much as finding a voxel's neighbors one by one
_OPEN = np.iinfo(np.uint16).max

Number = TypeVar("Number", bound=np.generic)
FloatArray = NDArray[np.floating]
Classes = NDArray[np.unsignedinteger]
Maps = tuple[AxisMap, AxisMap, AxisMap]
Triple = tuple[int, int, int]


class Canvas:
    """What is painted: class numbers, and the probability of anything but background where it is wanted.

    Parameters
    ----------
    shape
        (I, J, K) of the scan.
    highest
        Highest class number: up to 255 the map is uint8, else uint16.
    keeps_probability
        Whether there is a probability map.
    has_outside
        Whether what lies beyond the network's grid is background.
    """

    def __init__(self, shape: Triple, highest: int, keeps_probability: bool, has_outside: bool) -> None:
        self.has_outside = has_outside
        self.classes: Classes = np.zeros(shape, dtype=np.uint8 if highest <= np.iinfo(np.uint8).max else np.uint16)
        self.probability = np.zeros(shape, dtype=np.float32) if keeps_probability else None

    def rows(self, maps: Maps, axis: int) -> Rows:
        """The canvas seen with the axis along a source axis first, the other two in the source's order."""
        if maps[2].source_axis == axis and self.classes.flags.c_contiguous:  # rows are written as they lie in memory
            self.classes = np.zeros(self.classes.shape, self.classes.dtype, order="F")
            if self.probability is not None:
                self.probability = np.zeros(self.probability.shape, np.float32, order="F")
        order = [axis, *(other for other in range(3) if other != axis)]
        target = [next(n for n, m in enumerate(maps) if m.source_axis == source) for source in order]
        seen = (maps[target[0]], maps[target[1]], maps[target[2]])
        probability = None if self.probability is None else self.probability.transpose(target)
        return Rows(self.classes.transpose(target), probability, seen, self.has_outside)


class Rows:
    """A canvas with its axes turned to those of slabs: `along` runs with the slabs, the other two within them."""

    def __init__(
        self, classes: Classes, probability: NDArray[np.float32] | None, maps: Maps, has_outside: bool
    ) -> None:
        self._classes, self._probability, self._has_outside = classes, probability, has_outside
        self.along, self.first, self.second = maps
        self.n = len(self.along.below)
        self.at_once = max(1, _BLOCK_VOXELS // prod(classes.shape[1:]))

    @property
    def wants_probability(self) -> bool:
        """Whether there is a probability map."""
        return self._probability is not None

    def write(self, start: int, stop: int, classes: Classes | np.unsignedinteger) -> None:
        """Class numbers of the rows start..stop, one for all or (rows, M, N)."""
        self._classes[start:stop] = classes
        if self._has_outside:
            self._clear(self._classes, start, stop)

    def write_probability(self, start: int, stop: int, probability: NDArray[np.float32]) -> None:
        """Probability (rows, M, N) of the rows start..stop."""
        if self._probability is not None:
            self._probability[start:stop] = probability
            if self._has_outside:
                self._clear(self._probability, start, stop)

    def _clear(self, array: NDArray[np.generic], start: int, stop: int) -> None:
        part = array[start:stop]
        part[self.along.is_outside[start:stop]] = 0
        part[:, self.first.is_outside] = 0
        part[:, :, self.second.is_outside] = 0


class RowPainter:
    """Slabs of logits or probabilities, interpolated and decided row by row.

    Parameters
    ----------
    canvas
        What is painted.
    shape
        (3,) of the network's grid.
    maps
        For each axis of the canvas how it reads the network's grid.
    decision
        The plan's rules.
    margin
        Voxels of zeros around the network's grid, which the maps count.
    dtype
        In which interpolation is computed.
    """

    def __init__(
        self, canvas: Canvas, shape: Triple, maps: Maps, decision: Decision, margin: int, dtype: type[np.floating]
    ) -> None:
        self._canvas, self._shape, self._maps = canvas, shape, maps
        self._decision, self._margin, self._dtype = decision, margin, dtype
        self._rows: Rows | None = None
        self._held = _Held()
        self._n_painted = 0

    def add(self, slab: Slab) -> None:
        """Paint all rows of the canvas that lie between rows seen so far."""
        if self._rows is None:
            self._rows = self._canvas.rows(self._maps, slab.axis)
        values = self._held.room_for(self._shape_of(slab))
        margin = self._margin
        first = margin if slab.start == 0 else 0
        inner = values[first : first + slab.stop - slab.start, margin : values.shape[1] - margin]
        _fill(inner[:, :, margin : values.shape[2] - margin], slab, self._decision)
        codes, is_clear = self._decision.winners(values)
        foreground = self._decision.foreground(values).numpy() if self._rows.wants_probability else None
        self._held.append(len(values), codes, is_clear, foreground)
        for start, stop in self._newly_ready(self._rows):
            self._paint(self._rows, start, stop)
        self._held.keep_last_row()

    def _shape_of(self, slab: Slab) -> tuple[int, int, int, int]:
        """Shape of a slab's values, with the margin that is at its sides."""
        n_rows = slab.stop - slab.start + self._margin * (slab.start == 0)
        n_rows += self._margin * (slab.stop == self._shape[slab.axis])
        m, n = (side + 2 * self._margin for axis, side in enumerate(self._shape) if axis != slab.axis)
        return n_rows, m, n, self._decision.n_channels

    def finish(self) -> None:
        """Nothing is left to do once the last slab was added."""
        if self._rows is None or self._n_painted != self._rows.n:
            raise AssertionError("the slabs were not the whole grid")

    def _newly_ready(self, rows: Rows) -> list[tuple[int, int]]:
        """Spans of rows whose neighbors are all there now."""
        n_ready = int(np.count_nonzero(rows.along.above < self._held.stop))
        first, last = self._n_painted, n_ready
        if rows.n > 1 and rows.along.below[0] > rows.along.below[-1]:  # runs against the slabs
            first, last = rows.n - n_ready, rows.n - self._n_painted
        self._n_painted = n_ready
        return [(start, min(start + rows.at_once, last)) for start in range(first, last, rows.at_once)]

    def _paint(self, rows: Rows, start: int, stop: int) -> None:
        held, along = self._held, rows.along.part(start, stop, self._held.first)
        if held.foreground is not None:
            blended = rows.second.blend(rows.first.blend(along.blend(held.foreground, 0), 1), 2)
            rows.write_probability(start, stop, blended)
        needed = slice(along.below.min(), along.above.max() + 1)
        least, most = held.least[needed].min(), held.most[needed].max()
        if least == most:
            rows.write(start, stop, self._decision.class_of_code[least])
            return
        maps = (rows.along.part(start, stop, held.first + int(needed.start)), rows.first, rows.second)
        is_mixed = _mixed_cells(held.least[needed], held.most[needed], maps)
        values = held.values_in(self._dtype)[needed]
        if _is_dense(is_mixed, values, maps):
            self._paint_all(rows, start, stop, values, maps)
        else:
            self._paint_open(rows, start, stop, held.least[needed], is_mixed, values, maps)

    def _paint_open(
        self,
        rows: Rows,
        start: int,
        stop: int,
        codes: Codes,
        is_mixed: NDArray[np.bool_],
        values: FloatArray,
        maps: Maps,
    ) -> None:
        """Interpolate all channels only where a voxel's neighbors do not agree."""
        classes = self._decision.class_of_code[_below(codes, maps)]
        open_voxels = np.nonzero(_below(is_mixed, maps))
        n_at_once = max(1, _BLOCK_VALUES // values.shape[-1])
        for begin in range(0, len(open_voxels[0]), n_at_once):
            some = tuple(index[begin : begin + n_at_once] for index in open_voxels)
            decided = self._decision.decide(_interpolated(values, maps, some))
            classes[some] = self._decision.class_of_code[decided]
        rows.write(start, stop, classes)

    def _paint_all(self, rows: Rows, start: int, stop: int, values: FloatArray, maps: Maps) -> None:
        """Interpolate all channels everywhere, axis by axis."""
        along, first, second = maps
        n_channels = values.shape[-1]
        n_at_once = max(1, _BLOCK_VALUES // (n_channels * len(first.below) * len(second.below)))
        for begin in range(0, stop - start, n_at_once):
            part = along.part(begin, min(begin + n_at_once, stop - start))
            blended = np.empty((n_channels, len(part.below), len(first.below), len(second.below)), values.dtype)
            for channel in range(n_channels):
                blended[channel] = second.blend(first.blend(part.blend(values[..., channel], 0), 1), 2)
            decided = self._decision.decide(blended.reshape(n_channels, -1).T)
            classes = self._decision.class_of_code[decided].reshape(blended.shape[1:])
            rows.write(start + begin, start + begin + len(part.below), classes)


class _Held:
    """The rows of the network's grid that are still needed, with their winners."""

    def __init__(self) -> None:
        self.first = self.stop = 0
        self.values: FloatArray = np.empty((0, 0, 0, 0), dtype=np.float32)
        self.least: Codes = np.empty((0, 0, 0), dtype=np.uint16)
        self.most = self.least
        self.foreground: NDArray[np.float32] | None = None

    def room_for(self, shape: tuple[int, int, int, int]) -> torch.Tensor:
        """Zeros (rows, m, n, N) float32 that follow the rows held, in one array with them, to be filled."""
        n_held = self.stop - self.first
        values = np.zeros((n_held + shape[0], *shape[1:]), dtype=np.float32)
        if n_held:
            values[:n_held] = self.values
        self.values = values
        return torch.from_numpy(values[n_held:])

    def append(
        self, n_rows: int, codes: Codes, is_clear: NDArray[np.bool_], foreground: NDArray[np.float32] | None
    ) -> None:
        """What is known of the rows that were filled; an open winner is the least and the most of all codes."""
        least, most = np.where(is_clear, codes, 0).astype(np.uint16), np.where(is_clear, codes, _OPEN).astype(np.uint16)
        is_first = self.stop == 0
        self.least = least if is_first else np.concatenate([self.least, least])
        self.most = most if is_first else np.concatenate([self.most, most])
        if foreground is not None:
            self.foreground = foreground if self.foreground is None else np.concatenate([self.foreground, foreground])
        self.stop += n_rows

    def values_in(self, dtype: type[np.floating]) -> FloatArray:
        """The values in a dtype; converted once for all rows that are held."""
        if self.values.dtype != dtype:
            self.values = self.values.astype(dtype)
        return self.values

    def keep_last_row(self) -> None:
        """Only the last row is a neighbor of what comes."""
        self.values, self.least, self.most = self.values[-1:].copy(), self.least[-1:].copy(), self.most[-1:].copy()
        if self.foreground is not None:
            self.foreground = self.foreground[-1:].copy()
        self.first = self.stop - 1


class LabelPainter:
    """Slabs decided on the network's grid; class numbers go to the canvas by nearest neighbor, at the end."""

    def __init__(self, canvas: Canvas, shape: Triple, maps: Maps, decision: Decision, margin: int) -> None:
        self._canvas, self._maps, self._decision, self._margin = canvas, maps, decision, margin
        self._classes = np.zeros(shape, dtype=decision.class_of_code.dtype)
        self._foreground = None if canvas.probability is None else np.zeros(shape, dtype=np.float32)

    def add(self, slab: Slab) -> None:
        """Decide a slab."""
        painted = np.moveaxis(self._classes, slab.axis, 0)[slab.start : slab.stop]
        values = torch.empty((*painted.shape, self._decision.n_channels))
        _fill(values, slab, self._decision)
        codes, _ = self._decision.winners(values)
        painted[...] = self._decision.class_of_code[codes]
        if self._foreground is not None:
            here = np.moveaxis(self._foreground, slab.axis, 0)[slab.start : slab.stop]
            here[...] = self._decision.foreground(values).numpy()

    def finish(self) -> None:
        """Keep the largest components and paint the canvas."""
        plan = self._decision.plan
        keep_largest(self._classes, plan.keep_largest, plan.keep_largest_connectivity)
        classes = np.pad(self._classes, self._margin)
        rows = self._canvas.rows(self._maps, 0)
        for start in range(0, rows.n, rows.at_once):
            stop = min(start + rows.at_once, rows.n)
            along = rows.along.part(start, stop)
            rows.write(start, stop, classes[np.ix_(along.below, rows.first.below, rows.second.below)])
            if self._foreground is not None:
                foreground = np.pad(self._foreground, self._margin)
                near = foreground[np.ix_(along.below, rows.first.below, rows.second.below)]
                rows.write_probability(start, stop, near)


def _fill(values: torch.Tensor, slab: Slab, decision: Decision) -> None:
    """Write what is interpolated, (rows, m, n, N), of a slab."""
    if INTERPOLATED in slab.heads:
        values.copy_(slab.heads[INTERPOLATED])
        return
    logits = slab.logits(decision.background_logits)
    if logits.shape[-1] != decision.n_channels:
        raise ModelError(
            f"the network gives {logits.shape[-1]} channels; the model's labels are made from {decision.n_channels}"
        )
    if values.is_contiguous():
        decision.before_interpolation(logits, out=values)
    else:
        values.copy_(decision.before_interpolation(logits))


def _is_dense(is_mixed: NDArray[np.bool_], values: FloatArray, maps: Maps) -> bool:
    """Whether interpolating everywhere costs less, and a row of it is a small array; never in float64 (exact runs)."""
    n_channels = values.shape[-1]
    row = n_channels * len(maps[1].below) * len(maps[2].below)
    from_share = n_channels / (n_channels + _SPARSE_COST)
    return values.dtype == np.float32 and row <= _BLOCK_VALUES and bool(is_mixed.mean() > from_share)


def _mixed_cells(least: Codes, most: Codes, maps: Maps) -> NDArray[np.bool_]:
    """(rows, m, n): whether winners differ, or are open, among a voxel of the network's grid and the next ones up."""
    for axis, along in enumerate(maps):
        if along.weight.any() and least.shape[axis] > 1:
            up = (slice(None),) * axis
            inner, outer = (*up, slice(None, -1)), (*up, slice(1, None))
            least, most = least.copy(), most.copy()
            np.minimum(least[inner], least[outer], out=least[inner])  # each is read before it is written
            np.maximum(most[inner], most[outer], out=most[inner])
    mixed: NDArray[np.bool_] = least != most
    return mixed


def _below(array: NDArray[Number], maps: Maps) -> NDArray[Number]:
    """Values (rows, m, n) at the lower neighbor of each voxel of the canvas."""
    for axis, along in enumerate(maps):
        array = np.take(array, along.below, axis=axis)
    return array


def _interpolated(values: FloatArray, maps: Maps, voxels: tuple[NDArray[np.intp], ...]) -> FloatArray:
    """Values (n, N) at some voxels of the canvas, of (rows, m, n, N): a sparse matrix of 1 to 8 neighbors a voxel."""
    neighbors = []
    for along, index in zip(maps, voxels, strict=True):
        weight = along.weight[index]
        pair = [(along.below[index], 1.0 - weight)]
        neighbors.append([*pair, (along.above[index], weight)] if along.weight.any() else pair)
    _, m, n, n_channels = values.shape
    corners = list(product(*neighbors))
    columns = np.empty((len(voxels[0]), len(corners)), dtype=np.int32)
    weights = np.empty(columns.shape, dtype=values.dtype)
    for number, ((i, wi), (j, wj), (k, wk)) in enumerate(corners):
        columns[:, number] = (i * m + j) * n + k
        weights[:, number] = wi * wj * wk
    ends = np.arange(0, columns.size + 1, len(corners), dtype=np.int32)
    matrix = sparse.csr_matrix((weights.ravel(), columns.ravel(), ends), shape=(len(columns), values[..., 0].size))
    result: FloatArray = matrix @ values.reshape(-1, n_channels)
    return result
