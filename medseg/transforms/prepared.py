"""Prepared: a scan on its way from the loaded volume to what a network sees."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.core.geometry import Geometry

__all__ = ["Prepared"]


@dataclass(frozen=True, eq=False)
class Prepared:
    """A scan on its way to the network.

    Parameters
    ----------
    image
        (C, i, j, k) float32.
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
    """

    image: NDArray[np.float32]
    geometry: Geometry
    is_cropped: bool = False
    mask: NDArray[np.bool_] | None = None
    apart_axis: int | None = None
    notes: tuple[str, ...] = ()
    is_exact: bool = False
    previous: NDArray[np.integer[Any]] | None = None
