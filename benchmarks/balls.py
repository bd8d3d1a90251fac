"""Balls as lesions: what the sizes of results are measured on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["box_of_ball", "is_in_ball"]

Box = tuple[slice, ...]


def box_of_ball(center: NDArray[np.floating], reach: NDArray[np.floating]) -> Box:
    """The part of a grid that holds a ball and a voxel around it; center and radius in voxels along each axis."""
    low, high = np.floor(center - reach).astype(int) - 1, np.ceil(center + reach).astype(int) + 2
    return tuple(slice(a, b) for a, b in zip(low.tolist(), high.tolist(), strict=True))


def is_in_ball(box: Sequence[slice], center: NDArray[np.floating], reach: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Which voxels of a part of a grid lie in a ball."""
    axes = np.ogrid[tuple(box)]
    inside: NDArray[np.bool_] = (
        sum(((axis - c) / r) ** 2 for axis, c, r in zip(axes, center, reach, strict=True)) <= 1.0
    )
    return inside
