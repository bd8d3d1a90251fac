"""Voxels: which voxels of a grid a shape covers, kept as a mask within a bounding box."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medseg.core.geometry import Geometry
from medseg.phantoms.shapes import Point, Shape

__all__ = ["Voxels", "divide", "grow", "is_inside", "is_one_piece", "n_shared", "points_of", "voxelize"]

Box = tuple[slice, slice, slice]

_NEIGHBORS_26 = np.ones((3, 3, 3), dtype=bool)


@dataclass(frozen=True, eq=False)
class Voxels:
    """A set of voxels: (a, b, c) bool `mask` within `box`, the slices of the grid that it covers."""

    box: Box
    mask: NDArray[np.bool_]

    @property
    def count(self) -> int:
        """Number of voxels."""
        return int(np.count_nonzero(self.mask))

    def on_face(self, geometry: Geometry) -> bool:
        """True if a voxel lies on a face of the grid."""
        return any(
            (self.box[axis].start == 0 and self.mask.take(0, axis).any())
            or (self.box[axis].stop == n and self.mask.take(-1, axis).any())
            for axis, n in enumerate(geometry.shape)
        )


def voxelize(shape: Shape, geometry: Geometry) -> Voxels:
    """Voxels whose centers lie inside a shape.

    A shape so small, or so placed, that it holds no voxel center gets the one voxel nearest to its center.

    Parameters
    ----------
    shape
        What to voxelize; its center must lie within the grid.
    geometry
        The grid.
    """
    box = _bounding_box(shape, geometry)
    mask = shape.contains(geometry.to_world(_indices(box)))
    if not mask.any():
        nearest = _nearest_voxel(shape, geometry)
        box = (slice(nearest[0], nearest[0] + 1), slice(nearest[1], nearest[1] + 1), slice(nearest[2], nearest[2] + 1))
        mask = np.ones((1, 1, 1), dtype=bool)
    return Voxels(box, mask)


def points_of(voxels: Voxels, geometry: Geometry) -> NDArray[np.float64]:
    """(n, 3) float64: world positions in millimeters of the voxels, in array order."""
    return geometry.to_world(_indices(voxels.box)[voxels.mask])


def grow(voxels: Voxels, n_steps: int, geometry: Geometry) -> Voxels:
    """The voxels and all within a number of steps (at least 1) to 26-neighbors, inside the grid."""
    low = [max(s.start - n_steps, 0) for s in voxels.box]
    high = [min(s.stop + n_steps, n) for s, n in zip(voxels.box, geometry.shape, strict=True)]
    before_after = [(s.start - a, b - s.stop) for s, a, b in zip(voxels.box, low, high, strict=True)]
    mask = ndimage.binary_dilation(np.pad(voxels.mask, before_after), _NEIGHBORS_26, iterations=n_steps)
    return Voxels(_box(low, high), mask)


def is_inside(point: Point, geometry: Geometry) -> bool:
    """True if a world point lies in one of the grid's voxels."""
    voxel = geometry.to_voxel(point)
    return bool((voxel >= -0.5).all() and (voxel < np.array(geometry.shape) - 0.5).all())


def is_one_piece(voxels: Voxels) -> bool:
    """True if the voxels are one 26-connected component."""
    return int(ndimage.label(voxels.mask, _NEIGHBORS_26)[1]) == 1


def n_shared(first: Voxels, second: Voxels) -> int:
    """Number of voxels in both sets."""
    common = _common_box(first, second)
    return int(np.count_nonzero(_view(first, common) & _view(second, common))) if common else 0


def divide(first: tuple[Shape, Voxels], second: tuple[Shape, Voxels], geometry: Geometry) -> tuple[Voxels, Voxels]:
    """Give each voxel that two shapes share to one of them.

    It goes to the shape whose center is nearer, distances counted in each shape's own radius; a tie to the first.
    """
    common = _common_box(first[1], second[1])
    if not common:
        return first[1], second[1]
    points = geometry.to_world(_indices(common))
    second_wins = _relative_distance(points, second[0]) < _relative_distance(points, first[0])
    both = _view(first[1], common) & _view(second[1], common)
    return _without(first[1], common, both & second_wins), _without(second[1], common, both & ~second_wins)


def _without(voxels: Voxels, box: Box, taken: NDArray[np.bool_]) -> Voxels:
    left = Voxels(voxels.box, voxels.mask.copy())
    _view(left, box)[taken] = False
    return left


def _relative_distance(points: NDArray[np.float64], shape: Shape) -> NDArray[np.float64]:
    distance: NDArray[np.float64] = np.linalg.norm(points - np.array(shape.center_mm), axis=-1)
    return distance / (shape.diameter_mm / 2.0)


def _bounding_box(shape: Shape, geometry: Geometry) -> Box:
    """Slices, within the grid, that hold the sphere about the shape."""
    center = geometry.to_voxel(shape.center_mm)
    # a sphere's half width along a voxel axis: radius times the length of that row of the inverse, sheared or not
    half = shape.diameter_mm / 2.0 * np.linalg.norm(np.linalg.inv(geometry.affine[:3, :3]), axis=1)
    low = np.clip(np.ceil(center - half - 1e-6), 0, geometry.shape)
    high = np.clip(np.floor(center + half + 1e-6) + 1, low, geometry.shape)
    return _box([int(n) for n in low], [int(n) for n in high])


def _nearest_voxel(shape: Shape, geometry: Geometry) -> tuple[int, int, int]:
    i, j, k = np.clip(np.rint(geometry.to_voxel(shape.center_mm)), 0, np.array(geometry.shape) - 1).astype(int)
    return int(i), int(j), int(k)


def _box(low: list[int], high: list[int]) -> Box:
    return slice(low[0], high[0]), slice(low[1], high[1]), slice(low[2], high[2])


def _common_box(first: Voxels, second: Voxels) -> Box | None:
    low = [max(a.start, b.start) for a, b in zip(first.box, second.box, strict=True)]
    high = [min(a.stop, b.stop) for a, b in zip(first.box, second.box, strict=True)]
    return _box(low, high) if all(a < b for a, b in zip(low, high, strict=True)) else None


def _view(voxels: Voxels, box: Box) -> NDArray[np.bool_]:
    """The part of the mask within a box that lies inside the set's own box; a view."""
    i, j, k = (slice(b.start - s.start, b.stop - s.start) for b, s in zip(box, voxels.box, strict=True))
    return voxels.mask[i, j, k]


def _indices(box: Box) -> NDArray[np.float64]:
    grids = np.meshgrid(*(np.arange(s.start, s.stop, dtype=np.float64) for s in box), indexing="ij")
    return np.stack(grids, axis=-1)
