"""Area of the surface within a cube of 2 x 2 x 2 voxel centers, for each of its 256 patterns of inside and outside.

The triangles are those of the lookup table of DeepMind's surface-distance (Apache-2.0), so that areas, and every
percentile and tolerance weighted by them, are the published ones. A triangle is its normal, whose length is the area:
three digits, the parts of it along the three axes in eighths. Signs do not matter for an area. A pattern and its
inverse have the same surface, so the table ends at half of the patterns.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

__all__ = ["CORNER_WEIGHTS", "surface_areas"]

CORNER_WEIGHTS = (
    (0, 0, 0, 128),
    (0, 0, 1, 64),
    (0, 1, 0, 32),
    (0, 1, 1, 16),
    (1, 0, 0, 8),
    (1, 0, 1, 4),
    (1, 1, 0, 2),
    (1, 1, 1, 1),
)
"""Place of a voxel in the cube along the three axes (0 before the corner, 1 after it), and its bit in the pattern."""

_TRIANGLES = """
    000 111 111 220+220 111 202+202 111+111 400+222+111 111 111+111 202+202 400+222+111 220+220 400+222+111
    400+222+111 400+400 111 022+022 111+111 040+222+111 111+111 004+222+111 111+111+111 111+222+222+111 111+111
    022+022+111 202+202+111 111+333+022+202 111+220+220 333+022+111+220 400+111+222+111 400+111+222 111 111+111
    022+022 040+111+222 111+111 111+202+202 022+022+111 333+022+111+202 111+111 111+111+111 004+222+111
    222+222+111+111 111+220+220 400+222+111+111 022+333+111+220 400+222+111 220+220 040+222+111 040+111+222 040+040
    220+220+111 333+202+111+220 111+040+222+111 040+222+111 111+220+220 040+222+111+111 333+220+111+202 040+222+111
    220+220+220+220 220+220+111 111+220+220 220+220 111 111+111 111+111 111+220+220 022+022 004+222+111 022+022+111
    333+022+111+220 111+111 111+111+111 111+202+202 400+222+111+111 040+222+111 222+222+111+111 202+333+022+111
    400+222+111 202+202 004+222+111 111+202+202 202+333+220+111 004+222+111 004+004 111+111+222+004 111+222+004
    202+202+111 004+222+111+111 202+202+202+202 111+202+202 202+333+220+111 004+222+111 111+202+202 202+202 111+111
    111+111+111 111+022+022 040+111+222+111 022+022+111 004+222+111+111 022+022+022+022 022+022+111 111+111+111
    111+111+111+111 004+222+111+111 111+111+111 040+222+111+111 111+111+111 022+022+111 111+111 400+222+111
    222+111+222+111 333+022+111+202 040+222+111 333+220+022+111 111+222+004 111+022+022 022+022 400+222+111+111
    111+111+111 202+202+111 111+111 220+220+111 111+111 111+111 111
"""


@lru_cache(maxsize=64)
def surface_areas(spacing_mm: tuple[float, float, float]) -> NDArray[np.float64]:
    """Surface area of every pattern on a grid.

    Parameters
    ----------
    spacing_mm
        (3,) millimeters between voxel centers.

    Returns
    -------
    (256,) float64, square millimeters; read-only.

    References
    ----------
    Nikolov S et al. Clinically applicable segmentation of head and neck anatomy for radiotherapy. J Med Internet Res
    23:e26151 (2021); code and table: google-deepmind/surface-distance.

    Examples
    --------
    >>> float(surface_areas((1.0, 1.0, 1.0))[0b11110000])  # a flat face: one square millimeter
    1.0
    """
    a, b, c = spacing_mm
    faces = np.array([b * c, a * c, a * b])
    half = []
    for pattern in _TRIANGLES.split():
        normals = np.array([[int(digit) for digit in triangle] for triangle in pattern.split("+")]) / 8.0 * faces
        half.append(sum(float(np.linalg.norm(normal)) for normal in normals))
    areas = np.array(half + half[::-1])
    areas.setflags(write=False)
    return areas
