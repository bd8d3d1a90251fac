"""Surface distances and diameters of lesions and of whole maps, each looked at only where it lies."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medseg.core.lesions import LesionMap
from medseg.lesions.diameters import lesion_diameters
from medseg.lesions.foreground import Box, find_foreground, lesion_boxes
from medseg.metrics.surface import (
    Surface,
    border_distances,
    hausdorff,
    surface_dice,
    surface_distances,
    surface_of,
    symmetric_average,
)

__all__ = ["Distances", "Outlined", "outline", "whole_distances"]


@dataclass(frozen=True)
class Distances:
    """Robust Hausdorff distance and average distance in mm, surface Dice; None where not defined."""

    hd95_mm: float | None = None
    assd_mm: float | None = None
    nsd: float | None = None


@dataclass(frozen=True, eq=False)
class Outlined:
    """A lesion map with the box and the longest diameter in mm of each lesion."""

    lesions: LesionMap
    boxes: list[Box]
    diameters_mm: NDArray[np.float64]

    def crop(self, numbers: tuple[int, ...]) -> tuple[NDArray[np.bool_], tuple[int, int, int]]:
        """The mask of some lesions within their common box, and the box's first voxel."""
        boxes = [self.boxes[number - 1] for number in numbers]
        low = tuple(min(box[axis].start for box in boxes) for axis in range(3))
        high = tuple(max(box[axis].stop for box in boxes) for axis in range(3))
        part = self.lesions.array[tuple(slice(*ends) for ends in zip(low, high, strict=True))]
        mask = part == numbers[0] if len(numbers) == 1 else np.isin(part, numbers)
        return mask, (low[0], low[1], low[2])

    def surface(self, numbers: tuple[int, ...]) -> Surface:
        """The surface of some lesions as one."""
        mask, offset = self.crop(numbers)
        return surface_of(mask, self.lesions.geometry.spacing, offset)

    def diameter_mm(self, numbers: tuple[int, ...]) -> float:
        """The longest diameter of some lesions as one."""
        if len(numbers) == 1:
            return float(self.diameters_mm[numbers[0] - 1])
        mask, offset = self.crop(numbers)
        high = tuple(start + size for start, size in zip(offset, mask.shape, strict=True))
        grid = self.lesions.geometry.cropped(offset, high)
        box: Box = (slice(0, mask.shape[0]), slice(0, mask.shape[1]), slice(0, mask.shape[2]))
        return float(lesion_diameters(mask.astype(np.uint8), [box], grid)[0, 0])

    def distances(self, numbers: tuple[int, ...], other: Outlined, others: tuple[int, ...], mm: float) -> Distances:
        """Between some lesions of this map and some of the other, with a tolerance in millimeters."""
        spacing = self.lesions.geometry.spacing
        return _distances(self.surface(numbers), other.surface(others), spacing, mm)

    def border_distances(
        self, numbers: tuple[int, ...], other: Outlined, others: tuple[int, ...]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Between border voxels of some lesions of this map and of some of the other."""
        mine, offset = self.crop(numbers)
        theirs, other_offset = other.crop(others)
        low = np.minimum(offset, other_offset)
        high = np.maximum(np.array(offset) + mine.shape, np.array(other_offset) + theirs.shape)
        masks = []
        for mask, start in ((mine, offset), (theirs, other_offset)):
            wide = np.zeros(tuple(high - low), dtype=np.bool_)
            wide[tuple(slice(a, a + n) for a, n in zip(np.array(start) - low, mask.shape, strict=True))] = mask
            masks.append(wide)
        return border_distances(masks[0], masks[1], self.lesions.geometry.spacing)


def outline(lesions: LesionMap) -> Outlined:
    """Find the box and the longest diameter of every lesion."""
    boxes = lesion_boxes(find_foreground(lesions.array), lesions.n_lesions)
    if not boxes:
        return Outlined(lesions, [], np.empty(0))
    return Outlined(lesions, boxes, lesion_diameters(lesions.array, boxes, lesions.geometry)[:, 0])


def whole_distances(prediction: LesionMap, reference: LesionMap, tolerance_mm: float) -> Distances:
    """Between all lesions of one map and all of the other, each map as one mask."""
    spacing = reference.geometry.spacing
    surfaces = [surface_of(side.array > 0, spacing) for side in (prediction, reference)]
    return _distances(surfaces[0], surfaces[1], spacing, tolerance_mm)


def _distances(first: Surface, second: Surface, spacing: tuple[float, float, float], tolerance_mm: float) -> Distances:
    found = surface_distances(first, second, spacing)
    return Distances(hausdorff(found), symmetric_average(found), surface_dice(found, tolerance_mm))
