"""Pieces: lesions before they have their final numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medseg.lesions.runs import Runs

__all__ = ["Pieces"]


@dataclass(frozen=True, eq=False)
class Pieces:
    """What a method made of components.

    Parameters
    ----------
    runs
        All voxels, numbered by pieces 1..n.
    components
        (n,) number of the component that each piece lies in.
    heat
        (n,) heat at the center of each piece (the highest where a component has none), or None without a heatmap.
    spreads_mm
        (n,) root mean square distance of the votes of each piece from their mean, or None without votes.
    """

    runs: Runs
    components: NDArray[np.intp]
    heat: NDArray[np.float64] | None = None
    spreads_mm: NDArray[np.float64] | None = None
