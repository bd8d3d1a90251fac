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
    starts
        (r,) where each begins in its flattened box, axes in memory order.
    box
        Where its box lies in the grid.
    """

    number: int
    runs: Runs
    which: NDArray[np.intp]
    starts: NDArray[np.int64]
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
        return np.repeat(self.starts - self.runs.starts, self.runs.lengths) + self.runs.places()


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
    starts = _starts_in_box(sorted_runs, low, high)
    start = 0
    for number, end in enumerate(ends.tolist(), start=1):
        i, j, k = (slice(a, b) for a, b in zip(low[number - 1].tolist(), high[number - 1].tolist(), strict=True))
        own = slice(start, end)
        yield Body(number, sorted_runs.chosen(own), order[own], starts[own], (i, j, k))
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


def _corners(runs: Runs, firsts: NDArray[np.intp]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Lowest index (n, 3), and one past the highest, of the components whose runs begin at `firsts`."""
    i, j, k = runs.indices(runs.starts)
    low = np.stack([np.minimum.reduceat(axis, firsts) for axis in (i, j, k)], axis=-1)
    i, j, k = runs.indices(runs.starts + runs.lengths - 1)
    high = np.stack([np.maximum.reduceat(axis, firsts) for axis in (i, j, k)], axis=-1) + 1
    return low, high


def _starts_in_box(runs: Runs, low: NDArray[np.intp], high: NDArray[np.intp]) -> NDArray[np.int64]:
    """(R,) where each run begins in the flattened box of its component, axes in memory order."""
    own = runs.numbers - 1
    places = runs.split_places(runs.starts)
    first, second, third = (place - low[own, axis] for place, axis in zip(places, runs.axes, strict=True))
    n_second, n_third = (high[own, axis] - low[own, axis] for axis in runs.axes[1:])
    starts: NDArray[np.int64] = (first * n_second + second) * n_third + third
    return starts
