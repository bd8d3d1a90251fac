"""Convex hull and longest distance in space.

The corners of the IBSI's mesh lie half a voxel step from the voxel centers inside, along one axis each. Their hull is
the hull of all centers moved half a step both ways along each axis, as centers further inside fall into it.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import ConvexHull, QhullError

from medseg.lesions.shells import padded

__all__ = ["Hull", "hull_of"]

_MOST_STEPS = 2
_ROUNDING_MM = 1e-5
_STEPS = np.array([step for step in product(range(-_MOST_STEPS, _MOST_STEPS + 1), repeat=3) if step > (0, 0, 0)])


@dataclass(frozen=True)
class Hull:
    """mm3 and mm2 of the hull of the mesh, and mm of the longest distances."""

    volume_mm3: float
    area_mm2: float
    mesh_diameter_mm: float
    feret_diameter_mm: float


def hull_of(mask: NDArray[np.bool_], basis: NDArray[np.float64], outward: float) -> Hull:
    """Hull of a lesion.

    Parameters
    ----------
    mask
        (I, J, K), True inside.
    basis
        (3, 3) millimeters, column n is one voxel step along array axis n.
    outward
        Voxel steps by which the ends of the Feret diameter lie outside the outermost centers.

    References
    ----------
    Zwanenburg A et al. Image biomarker standardisation initiative, reference manual (2019), section 3.1: L0JK, R3ER.
    """
    half_steps = 0.5 * np.concatenate([basis.T, -basis.T])
    places, is_open = _possible_corners(mask)
    centers = places @ basis.T
    of_center, of_step = np.nonzero(is_open)
    hull = _convex_hull(centers[of_center] + half_steps[of_step])
    corners = centers[np.unique(of_center[hull.vertices])]
    return Hull(
        float(hull.volume),
        float(hull.area),
        _longest_distance(corners, half_steps),
        _longest_distance(corners, 2.0 * outward * half_steps),
    )


def _convex_hull(points: NDArray[np.float64]) -> ConvexHull:
    """The hull, points joggled by some 1e-11 of their size: merging facets in one plane would take half the time."""
    try:
        return ConvexHull(points, qhull_options="QJ")
    except QhullError:
        return ConvexHull(points)


def _possible_corners(mask: NDArray[np.bool_]) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """Voxels (P, 3) that may be corners of the hull: none lies halfway between two others of the lesion.

    And (P, 6) whether the next voxel one step up or down each axis lies outside; the hull bulges nowhere else.
    """
    wide = padded(mask, (_MOST_STEPS, _MOST_STEPS, _MOST_STEPS))
    inner = tuple(slice(_MOST_STEPS, -_MOST_STEPS) for _ in range(3))
    possible = mask.copy()
    for axis in range(3):
        before, after = list(inner), list(inner)
        before[axis], after[axis] = slice(_MOST_STEPS - 1, -_MOST_STEPS - 1), slice(_MOST_STEPS + 1, 1 - _MOST_STEPS)
        possible &= ~(wide[tuple(before)] & wide[tuple(after)])
    places = np.argwhere(possible)
    strides = np.array(wide.strides)
    flat, steps = (places + _MOST_STEPS) @ strides, _STEPS @ strides
    values = wide.ravel()
    between = (values[flat[:, None] + steps] & values[flat[:, None] - steps]).any(axis=1)
    next_to = values[flat[~between][:, None] + np.concatenate([strides, -strides])]
    return places[~between], ~next_to


def _longest_distance(centers: NDArray[np.float64], steps: NDArray[np.float64]) -> float:
    """Longest distance between two of the points center + step."""
    apart = (steps[:, None] - steps[None, :]).reshape(-1, 3)
    centered = centers - centers.mean(axis=0)
    own = np.einsum("pi,pi->p", centered, centered)
    lengths = np.sqrt(np.maximum(own[:, None] + own - 2.0 * (centered @ centered.T), 0.0))
    most_gained = 2.0 * float(np.linalg.norm(steps, axis=1).max()) + _ROUNDING_MM
    first, second = np.nonzero(np.triu(lengths >= lengths.max() - most_gained))
    candidates = centers[first] - centers[second]
    return float(np.sqrt(np.square(candidates[:, None] + apart).sum(axis=-1).max()))
