"""Prepared: a scan on its way from the loaded volume to what a network sees."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.core.geometry import Geometry

__all__ = ["Prepared", "owned"]


@dataclass(frozen=True, eq=False)
class Prepared:
    """A scan on its way to the network.

    Parameters
    ----------
    image
        (C, i, j, k) float32, in whatever order its axes lie in memory.
    geometry
        Its grid.
    is_cropped
        Whether a step cut the scan: what lies beyond the grid is background then, else the outermost voxels go on.
    mask
        (i, j, k) bool, the inside of a nonzero crop, for the steps that look at it; None for none.
    apart_axis
        The axis that a step interpolated apart from the others; None for none.
    notes
        What the provenance should tell.
    is_exact
        Whether steps that may be faster in float32 compute as precisely as the model's family does.
    previous
        (i, j, k) class numbers of a cascade's stage before, on the same grid; None for none.
    pending
        What has yet to be done to intensities, in place and voxel by voxel, to any part of the image that has all
        channels and no gaps in memory; None for nothing. Who reads few voxels at once does it on the way, so that no
        second image of the scan's size is made.
    """

    image: NDArray[np.float32]
    geometry: Geometry
    is_cropped: bool = False
    mask: NDArray[np.bool_] | None = None
    apart_axis: int | None = None
    notes: tuple[str, ...] = ()
    is_exact: bool = False
    previous: NDArray[np.integer[Any]] | None = None
    pending: Callable[[NDArray[np.float32]], None] | None = None

    def finished(self) -> Prepared:
        """The same with nothing pending."""
        if self.pending is None:
            return self
        image = owned(self.image)
        self.pending(image)
        return replace(self, image=image, pending=None)


def owned(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """An array in C order that may be written to; a scan's own voxels are read-only, and so are views of them."""
    return image if image.flags.writeable and image.flags.c_contiguous else np.array(image, order="C")
