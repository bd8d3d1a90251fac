"""Forms of real lesions: a mask, smoothed, turned and scaled, as a shape like the mathematical ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medseg.core.geometry import Geometry
from medseg.phantoms.shapes import Point

__all__ = ["MaskShape", "draw_mask", "mask_shapes"]

_SIDE = 24  # voxels of the cube that holds a form
_INSIDE = 0.5
_ORIGIN: Point = (0.0, 0.0, 0.0)
_UPRIGHT: tuple[Point, Point, Point] = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))


@dataclass(frozen=True, eq=False)
class MaskShape:
    """A form on a cube of `_SIDE` voxels a side that its bounding sphere fills.

    Parameters
    ----------
    share
        (s, s, s) float32 in 0..1: inside above a half.
    diameter_mm, center_mm
        Millimeters across the sphere that holds the form, and where its center lies.
    axes
        (3, 3) orthonormal: directions of the cube's axes in the world.
    """

    share: NDArray[np.float32]
    diameter_mm: float = 1.0
    center_mm: Point = _ORIGIN
    axes: tuple[Point, Point, Point] = _UPRIGHT

    @property
    def analytic_volume_mm3(self) -> None:
        """None: no formula."""
        return

    def contains(self, points: NDArray[np.float64]) -> NDArray[np.bool_]:
        """(...,) bool: which world points (..., 3) lie inside."""
        turned = (points - np.array(self.center_mm)) @ np.array(self.axes).T
        index = turned / self.diameter_mm * (_SIDE - 2) + (_SIDE - 1) / 2
        values = ndimage.map_coordinates(self.share, np.moveaxis(index, -1, 0), order=1, mode="constant")
        inside: NDArray[np.bool_] = values > _INSIDE
        return inside

    def uptake(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """(...,) float64: 1 everywhere."""
        return np.ones(points.shape[:-1])

    def at(self, center_mm: Point) -> Self:
        """The same form about another center."""
        return replace(self, center_mm=center_mm)


def mask_shapes(lesions: NDArray[np.unsignedinteger], geometry: Geometry, least_voxels: int = 60) -> list[MaskShape]:
    """The forms of lesions in a map.

    Parameters
    ----------
    lesions
        (I, J, K) lesion numbers, 0 for background.
    geometry
        The grid.
    least_voxels
        Smaller lesions have too little form.
    """
    spacing = np.array(geometry.spacing)
    found = []
    for number, box in enumerate(ndimage.find_objects(lesions), start=1):
        if box is None:
            continue
        voxels = np.argwhere(lesions[box] == number)
        if len(voxels) < least_voxels or (np.ptp(voxels, axis=0) < 2).any():
            continue
        center = voxels.mean(axis=0)
        radius = float(np.linalg.norm((voxels - center) * spacing, axis=1).max()) + float(spacing.max()) / 2
        ticks = (np.arange(_SIDE) - (_SIDE - 1) / 2) / (_SIDE - 2) * 2 * radius
        index = [center[axis] + ticks / spacing[axis] for axis in range(3)]
        mask = np.pad((lesions[box] == number).astype(np.float32), 2)
        smooth = ndimage.gaussian_filter(mask, 0.6)
        points = np.stack(np.meshgrid(*index, indexing="ij")) + 2
        share = ndimage.map_coordinates(smooth, points, order=1, mode="constant").astype(np.float32)
        _, n_parts = ndimage.label(share > _INSIDE, np.ones((3, 3, 3)))
        if n_parts != 1:
            continue
        found.append(MaskShape(share, diameter_mm=2 * radius))
    return found


def draw_mask(masks: Sequence[MaskShape], diameter_mm: float, rng: np.random.Generator) -> MaskShape:
    """One of the forms, turned at random, of a diameter in millimeters."""
    mask = masks[int(rng.integers(len(masks)))]
    rotation, _ = np.linalg.qr(rng.standard_normal((3, 3)))
    first, second, third = (tuple(float(value) for value in row) for row in rotation)
    return replace(mask, diameter_mm=diameter_mm, axes=(first, second, third))  # type: ignore[arg-type]
