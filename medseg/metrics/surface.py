"""Distances between two surfaces in millimeters, every piece of surface weighted by its area.

The surface runs between voxels: a corner of the grid with some of its eight voxels inside and some outside is a
piece of surface ("surfel"), its area that of the triangles that part them (`medseg.metrics.surface_table`).
Distances are those between corners. This is the model of DeepMind's surface-distance, and the numbers are the same; the
nearest corner is looked for near by and then with a k-d tree, not with a distance transform of the whole box.

`border_distances` is the other model in use (voxels at the border, unweighted), which some published conventions need.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from medseg.errors import UsageError
from medseg.metrics.surface_table import CORNER_WEIGHTS, surface_areas

__all__ = [
    "Surface",
    "SurfaceDistances",
    "average_distance",
    "border_distances",
    "hausdorff",
    "surface_dice",
    "surface_distances",
    "surface_of",
    "symmetric_average",
]

Spacing = tuple[float, float, float]
_BLOCK_PLANES = 32
_ALL_INSIDE = 255
_NEAR_STEPS = 4.0  # 257 places in 15 shells on a grid of cubes


@dataclass(frozen=True, eq=False)
class Surface:
    """The surface of a mask.

    Parameters
    ----------
    corners
        (N, 3) int64, grid corners: corner (i, j, k) lies between the voxels i - 1 and i, j - 1 and j, k - 1 and k.
    areas_mm2
        (N,) float64, area of the surface at each corner.
    """

    corners: NDArray[np.int64]
    areas_mm2: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class SurfaceDistances:
    """Distance from each piece of one surface to the other surface, both ways, each sorted; areas go along.

    Parameters
    ----------
    prediction_mm, reference_mm
        (P,) and (R,) float64, from the prediction to the reference and back; infinite where the other is empty.
    prediction_mm2, reference_mm2
        (P,) and (R,) float64, area of each piece.
    """

    prediction_mm: NDArray[np.float64]
    prediction_mm2: NDArray[np.float64]
    reference_mm: NDArray[np.float64]
    reference_mm2: NDArray[np.float64]

    @property
    def is_defined(self) -> bool:
        """True if both surfaces have pieces."""
        return bool(self.prediction_mm.size and self.reference_mm.size)


def surface_of(mask: NDArray[np.bool_], spacing_mm: Spacing, offset: tuple[int, int, int] = (0, 0, 0)) -> Surface:
    """Find the surface of a mask.

    Parameters
    ----------
    mask
        (I, J, K) bool; beyond its edge is outside.
    spacing_mm
        (3,) millimeters between voxel centers.
    offset
        (3,) index of the mask's first voxel in the grid, so that surfaces of crops can be compared.

    Examples
    --------
    >>> surface = surface_of(np.ones((1, 1, 1), dtype=bool), (1.0, 1.0, 1.0))
    >>> len(surface.corners), round(float(surface.areas_mm2.sum()), 3)
    (8, 1.732)
    """
    axes = sorted(range(3), key=lambda axis: -abs(mask.strides[axis]))  # planes as they lie in memory
    corners: list[NDArray[np.int64]] = []
    patterns: list[NDArray[np.uint8]] = []
    for start, block in _filled_blocks(mask.transpose(axes)):
        pattern = _patterns(block, axes)
        where = np.nonzero((pattern != 0) & (pattern != _ALL_INSIDE))
        corners.append(
            np.stack([where[axes.index(axis)] + start[axes.index(axis)] + offset[axis] for axis in range(3)])
        )
        patterns.append(pattern[where])
    if not corners:
        return Surface(np.empty((0, 3), np.int64), np.empty(0))
    areas = surface_areas(spacing_mm)[np.concatenate(patterns)]
    return Surface(np.concatenate(corners, axis=1).T, areas)


def _filled_blocks(mask: NDArray[np.bool_]) -> Iterator[tuple[tuple[int, int, int], NDArray[np.bool_]]]:
    """First corner and padded voxels of every block of planes that has voxels inside, cut to where they are."""
    n_planes = mask.shape[0] + 1
    for start in range(0, n_planes, _BLOCK_PLANES):
        stop = min(start + _BLOCK_PLANES, n_planes)
        block = mask[max(start - 1, 0) : stop]
        inside: NDArray[np.bool_] = np.any(block, axis=0)
        rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
        if not rows.size:
            continue
        part = block[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        pad = ((int(start == 0), int(stop == n_planes)), (1, 1), (1, 1))
        yield (start, int(rows[0]), int(columns[0])), np.pad(part, pad)


def _patterns(padded: NDArray[np.bool_], axes: list[int]) -> NDArray[np.uint8]:
    """Which of the eight voxels about each inner corner are inside, one bit each; the bits follow the grid's axes."""
    inside = padded.view(np.uint8)
    a, b, c = (n - 1 for n in padded.shape)
    pattern = np.zeros((a, b, c), dtype=np.uint8)
    for *place, bit in CORNER_WEIGHTS:
        i, j, k = (place[axis] for axis in axes)
        pattern |= inside[i : i + a, j : j + b, k : k + c] * np.uint8(bit)
    return pattern


def surface_distances(prediction: Surface, reference: Surface, spacing_mm: Spacing) -> SurfaceDistances:
    """Distances between two surfaces on one grid.

    Parameters
    ----------
    prediction, reference
        What `surface_of` found.
    spacing_mm
        (3,) millimeters between voxel centers.

    References
    ----------
    Nikolov S et al. Clinically applicable segmentation of head and neck anatomy for radiotherapy. J Med Internet Res
    23:e26151 (2021).
    """
    return SurfaceDistances(
        *_sorted(_nearest(prediction.corners, reference.corners, spacing_mm), prediction.areas_mm2),
        *_sorted(_nearest(reference.corners, prediction.corners, spacing_mm), reference.areas_mm2),
    )


def _nearest(from_: NDArray[np.int64], to: NDArray[np.int64], spacing_mm: Spacing) -> NDArray[np.float64]:
    """Millimeters from each corner to the nearest of the others."""
    if not len(to):
        return np.full(len(from_), np.inf)
    if not len(from_):
        return np.empty(0)
    distances, far = _look_around(from_, to, spacing_mm)
    if far.size:
        spacing = np.array(spacing_mm)
        _, nearest = cKDTree(to * spacing, balanced_tree=False, compact_nodes=False).query(from_[far] * spacing)
        # From whole steps, as a distance transform does it: equal steps give equal millimeters wherever they lie.
        steps = (from_[far] - to[nearest]) * spacing
        distances[far] = np.sqrt((steps * steps).sum(axis=1))
    return distances


def _look_around(
    from_: NDArray[np.int64], to: NDArray[np.int64], spacing_mm: Spacing
) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Distances of the corners that have one of the others near by, and which corners have none.

    Surfaces of a prediction and its reference mostly lie within a few voxels of each other, where looking at all
    places in the order of their distance is quicker than any tree.
    """
    shells, margin = _shells_around(spacing_mm)
    low = np.minimum(from_.min(axis=0), to.min(axis=0)) - margin
    shape = np.maximum(from_.max(axis=0), to.max(axis=0)) + margin + 1 - low
    strides = np.array([shape[1] * shape[2], shape[2], 1])
    is_there = np.zeros(int(np.prod(shape)), dtype=np.bool_)
    is_there[_flat(to, low, strides)] = True
    distances = np.empty(len(from_))
    left, at = np.arange(len(from_)), _flat(from_, low, strides)
    for mm, places in shells:
        hit = is_there.take(at + (places @ strides)[:, None]).any(axis=0)
        distances[left[hit]] = mm
        missed = np.flatnonzero(~hit)
        left, at = left.take(missed), at.take(missed)
        if not left.size:
            break
    return distances, left


def _flat(corners: NDArray[np.int64], low: NDArray[np.int64], strides: NDArray[np.int64]) -> NDArray[np.int64]:
    i, j, k = corners.T
    flat: NDArray[np.int64] = i * strides[0] + j * strides[1] + k - int(low @ strides)
    return flat


@lru_cache(maxsize=64)
def _shells_around(spacing_mm: Spacing) -> tuple[list[tuple[float, NDArray[np.int64]]], NDArray[np.int64]]:
    """All steps of one length, (S, 3), and that length, shortest first, up to `_NEAR_STEPS` of the finest spacing.

    And how far they reach along each axis, (3,).
    """
    spacing = np.array(spacing_mm)
    reach = _NEAR_STEPS * spacing.min()
    steps = np.stack(np.meshgrid(*(np.arange(-int(reach / s), int(reach / s) + 1) for s in spacing)), axis=-1)
    steps = steps.reshape(-1, 3)
    lengths = np.sqrt(((steps * spacing) ** 2).sum(axis=1))
    near = steps[lengths <= reach]
    values, which = np.unique(lengths[lengths <= reach], return_inverse=True)
    return [(float(mm), near[which == n]) for n, mm in enumerate(values)], np.abs(near).max(axis=0)


def _sorted(distances: NDArray[np.float64], areas: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    order = np.lexsort((areas, distances))
    return [distances[order], areas[order]]


def hausdorff(distances: SurfaceDistances, percent: float = 95.0) -> float | None:
    """Robust Hausdorff distance: the larger of the two distances that this share of each surface keeps within.

    Parameters
    ----------
    distances
        Of two surfaces.
    percent
        0..100; 100 is the Hausdorff distance.

    Returns
    -------
    Millimeters; None where a surface is empty.

    Raises
    ------
    UsageError
        If the percentage is not within 0..100.
    """
    if not 0 <= percent <= 100:
        raise UsageError(f"a percentile lies within 0..100; got {percent}")
    if not distances.is_defined:
        return None
    sides = (
        (distances.reference_mm, distances.reference_mm2),
        (distances.prediction_mm, distances.prediction_mm2),
    )
    return max(_percentile(mm, mm2, percent) for mm, mm2 in sides)


def _percentile(distances: NDArray[np.float64], areas: NDArray[np.float64], percent: float) -> float:
    share = np.cumsum(areas) / np.sum(areas)
    return float(distances[min(int(np.searchsorted(share, percent / 100.0)), distances.size - 1)])


def average_distance(distances: SurfaceDistances) -> tuple[float, float] | None:
    """Mean distance from the reference to the prediction and back, millimeters; None where a surface is empty.

    The average symmetric surface distance (ASSD) is their mean weighted by the two areas.
    """
    if not distances.is_defined:
        return None
    return (
        float(np.sum(distances.reference_mm * distances.reference_mm2) / np.sum(distances.reference_mm2)),
        float(np.sum(distances.prediction_mm * distances.prediction_mm2) / np.sum(distances.prediction_mm2)),
    )


def symmetric_average(distances: SurfaceDistances) -> float | None:
    """Average symmetric surface distance (ASSD), weighted by area, millimeters; None where a surface is empty."""
    means = average_distance(distances)
    if means is None:
        return None
    reference, prediction = float(np.sum(distances.reference_mm2)), float(np.sum(distances.prediction_mm2))
    return (means[0] * reference + means[1] * prediction) / (reference + prediction)


def surface_dice(distances: SurfaceDistances, tolerance_mm: float) -> float | None:
    """Normalized surface Dice (NSD): the share of both surfaces within a tolerance of the other.

    Parameters
    ----------
    distances
        Of two surfaces.
    tolerance_mm
        Millimeters; the tolerance itself is within.

    Returns
    -------
    0..1; None where both surfaces are empty, 0.0 where one is.

    Raises
    ------
    UsageError
        If the tolerance is negative or no finite number.
    """
    if not 0 <= tolerance_mm < np.inf:
        raise UsageError(f"the tolerance of a surface Dice is 0 mm or above; got {tolerance_mm}")
    total = np.sum(distances.reference_mm2) + np.sum(distances.prediction_mm2)
    if not total:
        return None
    within = np.sum(distances.reference_mm2[distances.reference_mm <= tolerance_mm]) + np.sum(
        distances.prediction_mm2[distances.prediction_mm <= tolerance_mm]
    )
    return float(within / total)


def border_distances(
    prediction: NDArray[np.bool_], reference: NDArray[np.bool_], spacing_mm: Spacing
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Distances between border voxels: voxels with a face neighbor outside, each counting once.

    Parameters
    ----------
    prediction, reference
        (I, J, K) bool, not empty; beyond the edge is outside.
    spacing_mm
        (3,) millimeters between voxel centers.

    Returns
    -------
    From the prediction's border to the reference's, (P,), and back, (R,): millimeters.
    """
    borders = [np.argwhere(mask & ~ndimage.binary_erosion(mask)) for mask in (prediction, reference)]
    return _nearest(borders[0], borders[1], spacing_mm), _nearest(borders[1], borders[0], spacing_mm)
