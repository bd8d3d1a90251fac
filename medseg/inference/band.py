"""Band: the weighted sums of windows over the rows that are still in flight, and nothing more.

Windows run in raster order, one axis outermost. Once the last window that begins at a row is done, no later window
reaches the rows before the next start: they are divided by their weights, handed on and forgotten. So memory is one
window's depth times the image's cross-section, however long the image is.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence

import torch

from medseg.inference.engine import Heads
from medseg.inference.windows import Axis, Layout, Position

__all__ = ["Band", "Rows", "Storage"]

logger = logging.getLogger(__name__)

Storage = Callable[[tuple[int, ...], torch.dtype], torch.Tensor]
"""Gives a tensor of zeros of a shape and dtype: in memory, on a device, or in a file."""

Rows = tuple[int, int, Heads, torch.Tensor | None]
"""First row and the row after the last; mean of each head (rows, m, n, N); bool (rows, m, n), where a window was, or
None for everywhere."""


class Band:
    """Sums of the rows in flight, rows first and channels last.

    Parameters
    ----------
    layout
        The windows.
    axis
        The axis along which rows are finished.
    weights
        (i, j, k) float32, weight of each voxel of a window, on the device of the sums.
    dtype
        float32, or float16 as nnU-Net sums.
    storages
        Where the sums are kept: the first that has room for them all.
    """

    def __init__(
        self, layout: Layout, axis: Axis, weights: torch.Tensor, *, dtype: torch.dtype, storages: Sequence[Storage]
    ) -> None:
        self._axis = axis
        self._weights = weights
        self._dtype = dtype
        self._storages = storages
        self._n_rows = layout.window[axis]
        self._plane = tuple(n for other, n in enumerate(layout.padded_shape) if other != axis)
        self._first = 0
        self._sums: Heads = {}
        self._count: torch.Tensor | None = None

    @property
    def n_channels(self) -> int:
        """Channels of all heads together; 0 before the first window."""
        return sum(int(sums.shape[-1]) for sums in self._sums.values())

    def add(self, position: Position, heads: Heads) -> None:
        """Add a window's heads, (N, i, j, k) each, at its position in the padded image."""
        count = self._count if self._count is not None else self._allocated(heads)
        for name, values in heads.items():
            here = self._at(self._sums[name], position)
            channels_last = values.to(count.device).movedim(0, -1)
            for row, weights in enumerate(self._weights):  # row by row: what is added stays in the cache
                here[row] += channels_last[row] * weights[..., None]
        self._at(count, position).add_(self._weights)

    def _allocated(self, heads: Heads) -> torch.Tensor:
        """Allocate all sums in the first storage that has room; the weights' sum is returned."""
        for storage in self._storages:
            try:
                shapes = {name: (self._n_rows, *self._plane, len(values)) for name, values in heads.items()}
                self._sums = {name: storage(shape, self._dtype) for name, shape in shapes.items()}
                self._count = storage((self._n_rows, *self._plane), self._dtype)
            except torch.OutOfMemoryError:
                if storage is self._storages[-1]:
                    raise
                logger.warning("the device has no room for the sums of windows; they are kept in the machine's memory")
                continue
            break
        if self._count is None:
            raise AssertionError("there is at least one storage")
        self._weights = self._weights.to(self._count.device)
        return self._count

    def finish(self, stop: int, rows_at_once: int, *, may_have_gaps: bool) -> Iterator[Rows]:
        """Mean of the rows before `stop`, a few at a time; then the band moves on to begin there."""
        n_done = stop - self._first
        for start in range(0, n_done, rows_at_once):
            part = slice(start, min(start + rows_at_once, n_done))
            span = self._first + part.start, self._first + part.stop
            if self._count is None:
                yield *span, {}, torch.zeros((part.stop - part.start, *self._plane), dtype=torch.bool)
                continue
            count = self._count[part]
            covered = count > 0 if may_have_gaps else None
            yield *span, {name: sums[part] / count[..., None] for name, sums in self._sums.items()}, covered
        for kept in self._sums.values() if self._count is None else (self._count, *self._sums.values()):
            _move_up(kept, n_done)
        self._first = stop

    def _at(self, kept: torch.Tensor, position: Position) -> torch.Tensor:
        """The part of sums (rows, m, n, ...) under a window, its axes in the image's order."""
        begin = list(position)
        begin[self._axis] -= self._first
        view = kept.movedim(0, self._axis)
        for axis, (start, side) in enumerate(zip(begin, self._weights.shape, strict=True)):
            view = view.narrow(axis, start, side)
        return view


def _move_up(kept: torch.Tensor, n_rows: int) -> None:
    """Drop the first rows; what comes after them moves up, zeros follow. Row by row: source and target overlap."""
    last = len(kept) - n_rows
    for row in range(last):
        kept[row] = kept[row + n_rows]
    kept[last:] = 0
