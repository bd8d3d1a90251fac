"""What instance heads are trained towards: a Gaussian at the center of each lesion, and the way there from its voxels.

Centers and sizes are those of the whole lesion, also where a sample shows a part of it. Lengths are millimeters.

References
----------
Cheng et al., Panoptic-DeepLab, CVPR 2020; Zhou et al., Objects as points, 2019 (Gaussian by size of the object).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

__all__ = ["LesionCenters", "find_centers", "instance_targets"]

_SIGMA_PER_RADIUS = 0.4  # a center is known to about a quarter of the radius: a narrower peak is blurred away
_LARGEST_SIGMA_MM = 6.0
_REACH = 3.0  # sigmas, beyond which the Gaussian is left out


@dataclass(frozen=True, eq=False)
class LesionCenters:
    """Centers of lesions 1..n, (n, 3) voxels, and the radii in mm of balls as large, (n,)."""

    voxels: NDArray[np.float64]
    radii_mm: NDArray[np.float64]


def find_centers(lesions: NDArray[np.floating] | None, spacing_mm: Sequence[float]) -> LesionCenters:
    """The voxel of each lesion that is nearest to its centroid; numbers without voxels have radius 0.

    Parameters
    ----------
    lesions
        (I, J, K) lesion numbers, or None for no known instances.
    spacing_mm
        (3,) millimeters.
    """
    if lesions is None:
        return LesionCenters(np.zeros((0, 3)), np.zeros(0))
    numbers = lesions.astype(np.int32)
    boxes = ndimage.find_objects(numbers)
    voxels, radii = np.zeros((len(boxes), 3)), np.zeros(len(boxes))
    voxel_mm3 = float(np.prod(spacing_mm))
    for n, box in enumerate(boxes):
        if box is None:
            continue
        inside = np.argwhere(numbers[box] == n + 1)
        distances = np.linalg.norm((inside - inside.mean(axis=0)) * spacing_mm, axis=1)
        voxels[n] = inside[distances.argmin()] + [part.start for part in box]
        radii[n] = np.cbrt(3 * len(inside) * voxel_mm3 / (4 * np.pi))
    return LesionCenters(voxels, radii)


def instance_targets(
    foreground: NDArray[np.bool_],
    lesions: NDArray[np.int32] | None,
    centers: LesionCenters,
    spacing_mm: Sequence[float],
) -> NDArray[np.float32]:
    """Targets and weights of the center and offset heads.

    Parameters
    ----------
    foreground
        (i, j, k) where any lesion is.
    lesions
        (i, j, k) number of each voxel's lesion, 0 where it is unknown or none; None for unknown everywhere.
    centers
        Centers (in voxels of this grid, also beyond it) and radii of lesions 1..n.
    spacing_mm
        (3,) millimeters.

    Returns
    -------
    (7, i, j, k) float32: the heatmap (1 at a center); the offset in mm along i, j, k; the weight of the offset, which
    sums to 1 over all lesions, to the same over each; the weight of the heatmap, 0 where the lesion is unknown, else 1;
    the lesion's number, 0 where it is unknown or none.
    """
    targets = np.zeros((7, *foreground.shape), dtype=np.float32)
    numbers = np.zeros(foreground.shape, dtype=np.int32) if lesions is None else lesions
    targets[5], targets[6] = ~foreground | (numbers > 0), numbers
    index = np.nonzero(numbers)
    own = numbers[index] - 1
    for axis in range(3):
        targets[1 + axis][index] = (centers.voxels[own, axis] - index[axis]) * spacing_mm[axis]
    counts = np.bincount(own)
    if counts.size:
        targets[4][index] = 1.0 / (counts[own] * np.count_nonzero(counts))
    for voxel, radius in zip(centers.voxels, centers.radii_mm, strict=True):
        if radius > 0:
            _add_gaussian(targets[0], voxel, radius, np.array(spacing_mm))
    return targets


def _add_gaussian(
    heat: NDArray[np.float32], center: NDArray[np.float64], radius_mm: float, spacing: NDArray[np.float64]
) -> None:
    """The maximum of the heatmap and one lesion's Gaussian, within its reach."""
    sigma = float(np.clip(_SIGMA_PER_RADIUS * radius_mm, max(spacing), max(_LARGEST_SIGMA_MM, max(spacing))))
    low = np.maximum(np.ceil(center - _REACH * sigma / spacing), 0).astype(int)
    high = np.minimum(np.floor(center + _REACH * sigma / spacing) + 1, heat.shape).astype(int)
    if (low >= high).any():
        return
    i, j, k = (
        np.exp(-(((np.arange(a, b) - c) * s) ** 2) / (2 * sigma**2))
        for a, b, c, s in zip(low, high, center, spacing, strict=True)
    )
    part = heat[low[0] : high[0], low[1] : high[1], low[2] : high[2]]
    np.maximum(part, i[:, None, None] * j[:, None] * k, out=part, casting="same_kind")
