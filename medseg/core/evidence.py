"""InstanceEvidence: what a network says of where lesions have their centers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medseg.core.geometry import Geometry
from medseg.errors import GridMismatch

__all__ = ["InstanceEvidence"]


@dataclass(frozen=True, eq=False)
class InstanceEvidence:
    """Center heatmap and offsets, on a grid of their own: often coarser than the scan's, and cut to where lesions are.

    Parameters
    ----------
    center
        (I, J, K) float, about 1 at the center of a lesion, falling to 0 around it; read-only once here.
    offsets_mm
        (3, I, J, K) float, vector from a voxel to the center of its lesion, millimeters along the grid's own axes.
    geometry
        The grid.

    Raises
    ------
    GridMismatch
        If an array does not have the grid's shape.
    """

    center: NDArray[np.floating]
    offsets_mm: NDArray[np.floating]
    geometry: Geometry

    def __post_init__(self) -> None:
        for name, leading in (("center", ()), ("offsets_mm", (3,))):
            view = np.asarray(getattr(self, name)).view()
            if view.shape != (*leading, *self.geometry.shape):
                raise GridMismatch(
                    f"{name} on {self.geometry!r} has shape {(*leading, *self.geometry.shape)}; got {view.shape}"
                )
            view.setflags(write=False)
            object.__setattr__(self, name, view)

    def __repr__(self) -> str:
        return f"InstanceEvidence({self.geometry!r})"
