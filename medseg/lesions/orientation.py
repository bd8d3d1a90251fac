"""How to look at an array of any orientation as if it ran R, A, S, so that ties fall alike however a grid lies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.core.geometry import Geometry

__all__ = ["CanonicalView"]


@dataclass(frozen=True)
class CanonicalView:
    """Order and direction of the axes, and the spacing in mm along them."""

    axes: tuple[int, ...]
    directions: tuple[slice, ...]
    spacing: tuple[float, ...]

    @classmethod
    def of(cls, geometry: Geometry) -> CanonicalView:
        """The view of arrays on a grid."""
        pairs = ("LR", "PA", "IS")
        codes = geometry.axcodes
        axes = tuple(next(axis for axis in range(3) if codes[axis] in pair) for pair in pairs)
        directions = tuple(slice(None, None, 1 if codes[axis] in "RAS" else -1) for axis in axes)
        return cls(axes, directions, tuple(geometry.spacing[axis] for axis in axes))

    def turn(self, array: NDArray[Any]) -> NDArray[Any]:
        """The array seen in R, A, S; a view, so writing to it writes to the array."""
        return array.transpose(self.axes)[self.directions]

    def own(self, places: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
        """(n, 3) indices in the view of an array of this shape, as indices in the array itself."""
        own = np.empty_like(places)
        for place, (axis, direction) in enumerate(zip(self.axes, self.directions, strict=True)):
            column = places[:, place]
            own[:, axis] = column if direction.step == 1 else shape[axis] - 1 - column
        return own
