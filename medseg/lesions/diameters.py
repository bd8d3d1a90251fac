"""Longest diameter and the diameter perpendicular to it, within one axial slice, as a radiologist draws them.

The ends of a diameter lie on the lesion's edge, and a voxel grid leaves open where between the last voxel center
inside and the first one outside that edge runs. Chords between voxel centers come out 0.1 to 0.6 mm short, chords of
the contour halfway to the outside 0.2 to 0.7 mm long (analytic spheres, pixels of 0.7 to 0.9 mm). Ends are therefore
put a quarter of a pixel outside the outermost centers: the convex hull is then the mean of both. Discs of 3 to 20 mm
radius come out 0 to 0.4 mm long at these pixels, none off by more than half a pixel; a tip thinner than a pixel may be
lost, as on any voxel grid.

Lengths are measured in true millimeters within the slice, on skewed and oblique grids too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import ConvexHull
from skimage.measure import find_contours

from medseg.core.geometry import Geometry
from medseg.lesions.foreground import Box

__all__ = ["lesion_diameters"]

_OUTWARD_PIXELS = 0.25
_TIE_MM = 1e-6
_N_DIRECTIONS = 16
_PERPENDICULAR_TOLERANCE = np.tan(np.deg2rad(2.0))
_EDGE_STEP_PER_THICKNESS = 0.02  # under the 0.035 that 2 degrees leave a chord, so that no chord lacks its partner
_HULL_PAYS_FROM = 200  # points; below, all pairs are quicker than the hull
_CACHED_BOX_VOXELS = 64  # specks of few voxels repeat one shape many times over

# Half a turn in equal steps: the longest of these widths falls short of the diameter by a factor cos(half a step).
_ANGLES = np.arange(_N_DIRECTIONS) * np.pi / _N_DIRECTIONS
_DIRECTIONS = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)])
_WIDTH_PER_DIAMETER = np.cos(np.pi / (2 * _N_DIRECTIONS))


def lesion_diameters(labels: NDArray[Any], boxes: list[Box], geometry: Geometry) -> NDArray[np.float64]:
    """Longest and perpendicular diameter of lesions 1..n.

    The longest diameter is the longest distance between two points of the lesion's edge in the same axial slice, over
    all slices. The perpendicular diameter is the longest distance between two edge points of that slice whose
    direction is within 2 degrees of perpendicular to it; where the edge has no such pair, the extent of the lesion
    across the longest diameter. Of longest diameters within 1e-6 mm of each other, the one with the larger
    perpendicular diameter counts. A lesion of one voxel measures half a voxel.

    Parameters
    ----------
    labels
        (I, J, K) unsigned integer, lesions 1..n, 0 for background.
    boxes
        n boxes in voxels, entry n - 1 around lesion n, see `lesion_boxes`.
    geometry
        The grid; slices are taken across `geometry.axial_axis`.

    Returns
    -------
    (n, 2) float64, millimeters: longest, perpendicular.

    References
    ----------
    Eisenhauer EA et al. New response evaluation criteria in solid tumours: RECIST 1.1. Eur J Cancer 45:228 (2009).

    Examples
    --------
    >>> labels = np.ones((10, 4, 1), dtype=np.uint16)
    >>> lesion_diameters(labels, [(slice(0, 10), slice(0, 4), slice(0, 1))], Geometry((10, 4, 1), np.eye(4))).round(3)
    array([[9.962, 3.7  ]])
    """
    plane = _Plane.of(geometry)
    known: dict[tuple[tuple[int, ...], bytes], tuple[float, float]] = {}
    diameters = np.empty((len(boxes), 2))
    for index, box in enumerate(boxes):
        slices = np.moveaxis(labels[box] == index + 1, geometry.axial_axis, 0)
        if slices.size > _CACHED_BOX_VOXELS:
            diameters[index] = _diameters_of_slices(slices, plane)
            continue
        shape = (slices.shape, slices.tobytes())
        if shape not in known:
            known[shape] = _diameters_of_slices(slices, plane)
        diameters[index] = known[shape]
    return diameters


@dataclass(frozen=True, eq=False)
class _Plane:
    """The axial slice as a plane: (2, 2) millimeters, column n is one voxel step along in-plane axis n."""

    basis: NDArray[np.float64]

    @classmethod
    def of(cls, geometry: Geometry) -> _Plane:
        columns = np.delete(geometry.affine[:3, :3], geometry.axial_axis, axis=1)
        return cls(np.linalg.qr(columns).R)

    def to_mm(self, pixels: NDArray[Any]) -> NDArray[np.float64]:
        """In-plane millimeters (..., 2) of pixel positions (..., 2)."""
        positions: NDArray[np.float64] = pixels @ self.basis.T
        return positions


def _diameters_of_slices(slices: NDArray[np.bool_], plane: _Plane) -> tuple[float, float]:
    """Longest and perpendicular diameter of a lesion (S, A, B) over its slices."""
    chords = _longest_chords(slices, plane)
    longest = max(length for length, _, _ in chords)
    edges: dict[int, NDArray[np.float64]] = {}
    perpendicular = 0.0
    for length, number, direction in chords:
        if length < longest - _TIE_MM:
            continue
        if number not in edges:
            edges[number] = _edge_points(slices[number], plane)
        perpendicular = max(perpendicular, _perpendicular_diameter(edges[number], direction))
    return longest, perpendicular


def _longest_chords(slices: NDArray[np.bool_], plane: _Plane) -> list[tuple[float, int, NDArray[np.float64]]]:
    """Length, slice and unit vector of the longest chords of every slice that may hold the longest of all."""
    rows, ends = _row_ends(slices)
    ends_mm = plane.to_mm(ends)
    starts = np.flatnonzero(np.diff(rows, prepend=-1))
    stops = np.append(starts[1:], rows.size)
    widths = _largest_widths(ends_mm, starts, plane)
    best = float(widths.max())
    chords: list[tuple[float, int, NDArray[np.float64]]] = []
    for n in np.argsort(-widths, kind="stable").tolist():
        if widths[n] / _WIDTH_PER_DIAMETER < best - _TIE_MM:
            break
        length, directions = _longest_distance(_move_outward(ends_mm[starts[n] : stops[n]].reshape(-1, 2), plane))
        chords += [(length, int(rows[starts[n]]), direction) for direction in directions]
        best = max(best, length)
    return chords


def _row_ends(slices: NDArray[np.bool_]) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Slice (R,) and first and last pixel (R, 2, 2) of every pixel row with lesion in it; hulls need no other pixel."""
    numbers, rows = np.nonzero(slices.any(axis=2))
    lines = slices[numbers, rows]
    first = lines.argmax(axis=1)
    last = lines.shape[1] - 1 - lines[:, ::-1].argmax(axis=1)
    ends = np.stack([np.stack([rows, first], axis=-1), np.stack([rows, last], axis=-1)], axis=1)
    return numbers, ends.astype(np.float64)


def _largest_widths(ends_mm: NDArray[np.float64], starts: NDArray[np.intp], plane: _Plane) -> NDArray[np.float64]:
    """Largest width (S,) of each slice over a fan of directions: at most its longest chord, and hardly less."""
    positions = ends_mm @ _DIRECTIONS
    highest = np.maximum.reduceat(positions.max(axis=1), starts)
    lowest = np.minimum.reduceat(positions.min(axis=1), starts)
    outward = 2 * _OUTWARD_PIXELS * np.abs(plane.basis.T @ _DIRECTIONS).max(axis=0)
    widths: NDArray[np.float64] = (highest - lowest + outward).max(axis=1)
    return widths


def _move_outward(points: NDArray[np.float64], plane: _Plane) -> NDArray[np.float64]:
    """Each pixel center (P, 2) moved along both in-plane axes, both ways: (4 P, 2); inward ones fall into the hull."""
    steps = _OUTWARD_PIXELS * np.concatenate([plane.basis.T, -plane.basis.T])
    return (points[:, None] + steps).reshape(-1, 2)


def _longest_distance(points: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
    """Longest distance between points (P, 2) and the unit vectors (D, 2) of all pairs that far apart."""
    if len(points) >= _HULL_PAYS_FROM:
        points = points[ConvexHull(points).vertices]
    differences = points[:, None] - points[None, :]
    lengths = np.sqrt(np.einsum("abc,abc->ab", differences, differences))
    longest = float(lengths.max())
    vectors = differences[np.triu(lengths >= longest - _TIE_MM)]
    return longest, vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _edge_points(pixels: NDArray[np.bool_], plane: _Plane) -> NDArray[np.float64]:
    """Points of the edge of a slice (A, B), dense enough for perpendicular pairs: (E, 2) millimeters."""
    # On a 0/1 image the contour at 1 - 0.25 crosses a quarter of a pixel outside each outermost center.
    image, level = np.pad(pixels, 1).astype(np.float64), 1.0 - _OUTWARD_PIXELS
    contours = find_contours(image, level, fully_connected="high")  # type: ignore[no-untyped-call]
    corners = [plane.to_mm(contour) for contour in contours]
    thickness = np.ptp(np.concatenate(corners) @ _DIRECTIONS, axis=0).min()
    longest_side = max(np.linalg.norm(np.diff(polygon, axis=0), axis=1).max() for polygon in corners)
    n_steps = math.ceil(longest_side / (_EDGE_STEP_PER_THICKNESS * thickness))
    fractions = (np.arange(n_steps) / n_steps)[:, None, None]
    return np.concatenate([(p[:-1] + fractions * np.diff(p, axis=0)).reshape(-1, 2) for p in corners])


def _perpendicular_diameter(edge: NDArray[np.float64], direction: NDArray[np.float64]) -> float:
    """Longest distance between edge points (E, 2), millimeters, nearly perpendicular to a unit vector."""
    along, across = edge @ direction, edge @ np.array([-direction[1], direction[0]])
    order = np.argsort(along)
    along, across = along[order], across[order]
    extent = float(np.ptp(across))
    # Sorted along the longest diameter, partners lie within a narrow window: no need for all pairs.
    last = np.searchsorted(along, along + _PERPENDICULAR_TOLERANCE * extent, side="right")
    first, second = _pairs_up_to(last)
    shift, height = along[second] - along[first], np.abs(across[second] - across[first])
    is_perpendicular = shift <= _PERPENDICULAR_TOLERANCE * height
    lengths = np.hypot(shift[is_perpendicular], height[is_perpendicular])
    return float(lengths.max(initial=0.0)) or extent


def _pairs_up_to(last: NDArray[np.intp]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """All pairs (n, m) with n < m < last[n]."""
    n_partners = last - np.arange(last.size) - 1
    first = np.repeat(np.arange(last.size), n_partners)
    rank = np.arange(first.size) - np.repeat(np.cumsum(n_partners) - n_partners, n_partners)
    return first, first + 1 + rank
