"""Bodies: the voxels of each component as a mask of its own, one after the other, out of the list of all voxels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medseg.lesions.foreground import Box, Foreground

__all__ = ["Body", "bodies_of"]


@dataclass(frozen=True, eq=False)
class Body:
    """One component.

    Parameters
    ----------
    number
        Of the component.
    places
        (n,) where its voxels stand in the list of all.
    voxels
        (n, 3) indices within its box.
    box
        Where the box lies in the grid.
    """

    number: int
    places: NDArray[np.intp]
    voxels: NDArray[np.intp]
    box: Box

    @property
    def is_tiny(self) -> bool:
        """Whether all voxels of the box are neighbors of each other."""
        return all(extent.stop - extent.start <= 2 for extent in self.box)

    def mask(self) -> NDArray[np.bool_]:
        """(i, j, k) bool on its box."""
        mask = np.zeros([extent.stop - extent.start for extent in self.box], dtype=bool)
        mask[tuple(self.voxels.T)] = True
        return mask


def bodies_of(components: Foreground, n_components: int) -> Iterator[Body]:
    """Components 1..n in order.

    Parameters
    ----------
    components
        All voxels with the numbers of their components.
    n_components
        n.
    """
    order = np.argsort(components.numbers, kind="stable")
    ends = np.cumsum(np.bincount(components.numbers, minlength=n_components + 1)[1:])
    start = 0
    for number, end in enumerate(ends.tolist(), start=1):
        places = order[start:end]
        start = end
        index = np.stack([axis[places] for axis in components.indices], axis=1)
        low, high = index.min(axis=0), index.max(axis=0) + 1
        i, j, k = (slice(a, b) for a, b in zip(low.tolist(), high.tolist(), strict=True))
        yield Body(number, places, index - low, (i, j, k))
