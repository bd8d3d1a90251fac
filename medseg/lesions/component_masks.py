"""Bodies: each component as a mask of its own, one after the other, out of the runs of all of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medseg.lesions.foreground import Box
from medseg.lesions.runs import Runs, join_runs, runs_of_places

__all__ = ["Body", "bodies_of", "with_pieces"]


@dataclass(frozen=True, eq=False)
class Body:
    """One component.

    Parameters
    ----------
    number
        Of the component.
    runs
        Its runs.
    which
        (r,) where they stand among the runs of all components.
    box
        Where its box lies in the grid.
    """

    number: int
    runs: Runs
    which: NDArray[np.intp]
    box: Box

    @property
    def is_tiny(self) -> bool:
        """Whether all voxels of the box are neighbors of each other."""
        return all(extent.stop - extent.start <= 2 for extent in self.box)

    def mask(self) -> NDArray[np.bool_]:
        """(i, j, k) bool on its box."""
        in_order = np.zeros([self.box[axis].stop - self.box[axis].start for axis in self.runs.axes], dtype=bool)
        in_order.reshape(-1)[self._places_in_box()] = True
        return in_order.transpose(np.argsort(self.runs.axes))

    def read(self, values: NDArray[np.intp]) -> NDArray[np.intp]:
        """(N,) values of an array (i, j, k) on its box at its voxels, in the order of its runs."""
        return np.ascontiguousarray(values.transpose(self.runs.axes)).reshape(-1)[self._places_in_box()]

    def _places_in_box(self) -> NDArray[np.int64]:
        first, second, third = (self.box[axis] for axis in self.runs.axes)
        on_first, on_second, on_third = self.runs.split_places(self.runs.starts)
        lines = (on_first - first.start) * (second.stop - second.start) + on_second - second.start
        starts = lines * (third.stop - third.start) + on_third - third.start
        return np.repeat(starts - self.runs.starts, self.runs.lengths) + self.runs.places()


def bodies_of(components: Runs, n_components: int) -> Iterator[Body]:
    """Components 1..n in order.

    Parameters
    ----------
    components
        All runs with the numbers of their components.
    n_components
        n.
    """
    if not n_components:
        return
    # numpy sorts 16 bits in linear time
    order = np.argsort(components.numbers.astype(np.min_scalar_type(n_components)), kind="stable")
    sorted_runs = components.chosen(order)
    ends = np.cumsum(np.bincount(components.numbers, minlength=n_components + 1)[1:])
    firsts = np.concatenate([[0], ends[:-1]])
    low, high = _corners(sorted_runs, firsts)
    start = 0
    for number, end in enumerate(ends.tolist(), start=1):
        i, j, k = (slice(a, b) for a, b in zip(low[number - 1], high[number - 1], strict=True))
        yield Body(number, sorted_runs.chosen(slice(start, end)), order[start:end], (i, j, k))
        start = end


def with_pieces(components: Runs, split: list[tuple[Body, NDArray[np.intp]]]) -> Runs:
    """The runs of all components, with those of some bodies cut and numbered anew.

    Parameters
    ----------
    components
        All runs with the numbers of their components.
    split
        Bodies, and for each the number (N,) of each of its voxels in the order of its runs.
    """
    if not split:
        return components
    stays = np.ones(components.starts.size, dtype=bool)
    for body, _ in split:
        stays[body.which] = False
    cut = [runs_of_places(body.runs, body.runs.places(), numbers) for body, numbers in split]
    return join_runs([components.chosen(stays), *cut])


def _corners(runs: Runs, firsts: NDArray[np.intp]) -> tuple[list[list[int]], list[list[int]]]:
    """Lowest index on each axis, and one past the highest, of the components whose runs begin at `firsts`."""
    i, j, k = runs.indices(runs.starts)
    low = np.stack([np.minimum.reduceat(axis, firsts) for axis in (i, j, k)], axis=-1)
    i, j, k = runs.indices(runs.starts + runs.lengths - 1)
    high = np.stack([np.maximum.reduceat(axis, firsts) for axis in (i, j, k)], axis=-1) + 1
    return low.tolist(), high.tolist()
