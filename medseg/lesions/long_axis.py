"""The line of each lesion's longest diameter: where a radiologist would lay the caliper."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import ConvexHull, QhullError

from medseg.core.geometry import Geometry
from medseg.core.lesions import LesionMap
from medseg.lesions.foreground import find_foreground, lesion_boxes

__all__ = ["long_axes"]

_OUTWARD_PIXELS = 0.25  # as `medseg.lesions.diameters` lays the edge
_HULL_PAYS_FROM = 64
_TIE_MM = 1e-6


def long_axes(lesions: LesionMap) -> NDArray[np.float64]:
    """The two ends of the longest diameter of every lesion.

    The ends lie in one axial slice, a quarter of a pixel outside the outermost pixel centers; their distance is the
    `longest_diameter_mm` of the table. Of lines of equal length the one in the lower slice counts.

    Parameters
    ----------
    lesions
        n lesions.

    Returns
    -------
    (n, 2, 3) float64, RAS+ millimeters.

    Examples
    --------
    >>> from medseg.core.lesions import Lesion
    >>> array = np.zeros((10, 3, 1), dtype=np.uint16)
    >>> array[1:9, 1] = 1
    >>> axes = long_axes(LesionMap(array, Geometry((10, 3, 1), np.eye(4)), (Lesion("lesion"),)))
    >>> float(np.linalg.norm(axes[0, 1] - axes[0, 0]).round(3))
    7.517
    """
    boxes = lesion_boxes(find_foreground(lesions.array), lesions.n_lesions)
    axes = np.empty((lesions.n_lesions, 2, 3))
    for number, box in enumerate(boxes, start=1):
        axes[number - 1] = _long_axis(lesions.array[box] == number, lesions.geometry, [part.start for part in box])
    return axes


def _long_axis(region: NDArray[np.bool_], geometry: Geometry, start: list[int]) -> NDArray[np.float64]:
    axial = geometry.axial_axis
    in_plane = [axis for axis in range(3) if axis != axial]
    outward = np.zeros((4, 3))
    for row, (axis, sign) in enumerate(
        (axis, sign) for axis in in_plane for sign in (_OUTWARD_PIXELS, -_OUTWARD_PIXELS)
    ):
        outward[row, axis] = sign
    best, ends = -1.0, np.zeros((2, 3))
    slices = np.moveaxis(region, axial, 0)
    for number in np.flatnonzero(slices.any(axis=(1, 2))).tolist():
        pixels = _row_ends(slices[number])
        voxels = np.empty((len(pixels), 3))
        voxels[:, in_plane], voxels[:, axial] = pixels, number
        points = geometry.to_world((voxels[:, None] + outward + start).reshape(-1, 3))
        if float(np.linalg.norm(np.ptp(points, axis=0))) <= best + _TIE_MM:
            continue
        length, pair = _longest_pair(points, points @ _plane_axes(geometry, in_plane))
        if length > best + _TIE_MM:
            best, ends = length, pair
    return ends


def _plane_axes(geometry: Geometry, in_plane: list[int]) -> NDArray[np.float64]:
    """(3, 2) perpendicular unit vectors that span the axial slice."""
    spanned: NDArray[np.float64] = np.linalg.qr(geometry.affine[:3, in_plane]).Q
    return spanned


def _row_ends(pixels: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(P, 2) first and last pixel of every row with lesion in it: the hull needs no other."""
    rows = np.flatnonzero(pixels.any(axis=1))
    first = pixels[rows].argmax(axis=1)
    last = pixels.shape[1] - 1 - pixels[rows][:, ::-1].argmax(axis=1)
    ends = np.concatenate([np.stack([rows, first], axis=1), np.stack([rows, last], axis=1)])
    return np.unique(ends, axis=0).astype(np.float64)


def _longest_pair(points: NDArray[np.float64], flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
    """The two points furthest apart, and how far."""
    if len(points) >= _HULL_PAYS_FROM:
        points, flat = _hull(points, flat)
    differences: NDArray[Any] = flat[:, None] - flat[None, :]
    lengths = np.sqrt(np.einsum("abc,abc->ab", differences, differences))
    first, second = np.unravel_index(int(lengths.argmax()), lengths.shape)
    return float(lengths[first, second]), points[[first, second]]


def _hull(points: NDArray[np.float64], flat: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    try:
        vertices = ConvexHull(flat).vertices
    except QhullError:  # all on one line
        return points, flat
    return points[vertices], flat[vertices]
