"""Area and volume of the triangle mesh that the IBSI prescribes, without making it.

Marching cubes on a 0/1 mask puts every corner halfway between two voxel centers, so what one cell of eight centers
contributes depends on which of them lie inside: one of 256 patterns. Counting the patterns is enough.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from skimage.measure import marching_cubes

__all__ = ["MeshTables", "cell_patterns", "mesh_tables"]

_CORNERS = np.array([[n & 1, n >> 1 & 1, n >> 2 & 1] for n in range(8)])


@dataclass(frozen=True, eq=False)
class MeshTables:
    """(256,) float64 each: mm2 and mm3 of mesh per cell of each pattern."""

    area_mm2: NDArray[np.float64]
    volume_mm3: NDArray[np.float64]


def mesh_tables(basis: NDArray[np.float64]) -> MeshTables:
    """What each pattern contributes on a grid.

    Parameters
    ----------
    basis
        (3, 3) millimeters, column n is one voxel step along array axis n.

    References
    ----------
    Zwanenburg A et al. Image biomarker standardisation initiative, reference manual (2019), section 3.1: RNU0, C0JK.
    Lorensen WE, Cline HE. Marching cubes. Computer Graphics 21:163 (1987).
    """
    areas = np.zeros(256)
    for pattern, triangles in enumerate(_triangles()):
        edges = (triangles[:, 1:] - triangles[:, :1]) @ basis.T
        areas[pattern] = 0.5 * np.linalg.norm(np.cross(edges[:, 0], edges[:, 1]), axis=1).sum()
    return MeshTables(areas, _inside_shares() * abs(np.linalg.det(basis)))


def cell_patterns(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """How many cells of eight voxels show each of the 256 patterns.

    Parameters
    ----------
    mask
        (I, J, K), True inside, with a rim of False all around.

    Returns
    -------
    (256,) counts; bit n of the pattern's number is the voxel at `(n & 1, n >> 1 & 1, n >> 2)` of the cell.
    """
    bits = mask.view(np.uint8)
    pairs = bits[:-1] | bits[1:] << 1
    squares = pairs[:, :-1] | pairs[:, 1:] << 2
    cells = squares[:, :, :-1] | squares[:, :, 1:] << 4
    return np.bincount(cells.ravel(), minlength=256)


@lru_cache(maxsize=1)
def _triangles() -> tuple[NDArray[np.float64], ...]:
    """Triangles (T, 3, 3) of each pattern in cell units, corners ordered so that normals point outward."""
    patterns = []
    for pattern in range(256):
        cell = np.zeros((2, 2, 2))
        cell[tuple(_CORNERS.T)] = [pattern >> bit & 1 for bit in range(8)]
        if pattern in (0, 255):
            patterns.append(np.empty((0, 3, 3)))
            continue
        found = marching_cubes(cell, 0.5, method="lorensen", allow_degenerate=True)  # type: ignore[no-untyped-call]
        corners, faces = found[0].astype(np.float64), found[1]
        patterns.append(corners[faces][:, ::-1])
    return tuple(patterns)


@lru_cache(maxsize=1)
def _inside_shares() -> NDArray[np.float64]:
    """Share of a cell's volume (256,) inside the mesh, by the divergence theorem around the cell's center."""
    shares = np.zeros(256)
    for pattern, triangles in enumerate(_triangles()):
        centered = triangles - 0.5
        flux = np.einsum("ti,ti->t", centered[:, 0], np.cross(centered[:, 1], centered[:, 2])).sum() / 2.0
        shares[pattern] = (flux + 0.5 * sum(_face_areas(pattern, triangles))) / 3.0
    return shares


def _face_areas(pattern: int, triangles: NDArray[np.float64]) -> list[float]:
    """Share of each of the six faces of a cell that lies inside."""
    inside = np.array([bool(pattern >> bit & 1) for bit in range(8)])
    areas = []
    for axis in range(3):
        for side in (0, 1):
            corners = np.flatnonzero(_CORNERS[:, axis] == side)
            n_inside = int(inside[corners].sum())
            area = (0.0, 0.125, 0.5, 0.875, 1.0)[n_inside]
            chosen = _CORNERS[corners[inside[corners]]]
            if n_inside == 2 and np.abs(chosen[0] - chosen[1]).sum() == 2:  # two opposite corners: joined or apart
                area = 0.25 if _cuts_off(chosen[0], axis, triangles) else 0.75
            areas.append(area)
    return areas


def _cuts_off(corner: NDArray[np.int64], axis: int, triangles: NDArray[np.float64]) -> bool:
    """True if the mesh meets a face of the cell in the segment that cuts off this corner."""
    others = [other for other in range(3) if other != axis]
    ends = np.repeat(corner[None].astype(np.float64), 2, axis=0)
    ends[0, others[0]] = ends[1, others[1]] = 0.5
    has_both = [(np.abs(triangles - end).max(axis=2) < 1e-6).any(axis=1) for end in ends]
    return bool((has_both[0] & has_both[1]).any())
