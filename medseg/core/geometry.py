"""Geometry: where a voxel grid lies in the patient.

A grid has shape (I, J, K). Its affine takes a voxel index (i, j, k), counted from 0 at voxel centers, to world
millimeters in RAS+ (x grows to the patient's right, y to the front, z to the head). DICOM and ITK speak LPS: the
same millimeters with x and y negated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from operator import index

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medseg.errors import InvalidGeometry

__all__ = ["Geometry"]

_AXIS_LETTERS = (("L", "R"), ("P", "A"), ("I", "S"))
_SMALLEST_RELATIVE_VOLUME = 1e-6  # |det| over the product of the column lengths; 1 for an orthogonal grid


@dataclass(frozen=True, eq=False)
class Geometry:
    """A voxel grid in world space; read-only, invertible from birth.

    Parameters
    ----------
    shape
        (I, J, K), voxels along each axis, all at least 1.
    affine
        (4, 4) float64, millimeters, voxel index to RAS+ world.

    Raises
    ------
    InvalidGeometry
        If the shape is not three positive numbers, or the affine is not finite, not affine, or not invertible.

    Examples
    --------
    >>> grid = Geometry((10, 10, 5), np.diag([2.0, 2.0, 3.0, 1.0]))
    >>> grid.spacing, grid.voxel_volume_mm3
    ((2.0, 2.0, 3.0), 12.0)
    """

    shape: tuple[int, int, int]
    affine: NDArray[np.float64]

    def __post_init__(self) -> None:
        shape = _checked_shape(self.shape)
        affine = np.array(self.affine, dtype=np.float64)
        _check_affine(affine)
        affine.setflags(write=False)
        object.__setattr__(self, "shape", shape)
        object.__setattr__(self, "affine", affine)

    def __repr__(self) -> str:
        spacing = " x ".join(f"{s:.4g}" for s in self.spacing)
        origin = ", ".join(f"{x:.6g}" for x in self.affine[:3, 3])
        return f"Geometry({' x '.join(map(str, self.shape))} voxels of {spacing} mm, {self.axcodes} from ({origin}))"

    @cached_property
    def spacing(self) -> tuple[float, float, float]:
        """(3,) float, millimeters between voxel centers along each axis."""
        lengths = np.linalg.norm(self.affine[:3, :3], axis=0)
        return (float(lengths[0]), float(lengths[1]), float(lengths[2]))

    @cached_property
    def voxel_volume_mm3(self) -> float:
        """Cubic millimeters of one voxel, by the triple product (also right for sheared grids)."""
        a, b, c = self.affine[:3, :3].T
        return float(abs(np.dot(np.cross(a, b), c)))

    @property
    def voxel_volume_ml(self) -> float:
        """Milliliters of one voxel."""
        return self.voxel_volume_mm3 / 1000.0

    @cached_property
    def axcodes(self) -> str:
        """Three letters: the anatomical direction in which each voxel axis grows, as "RAS"."""
        world_axes = self._world_axis_of_each_voxel_axis()
        return "".join(
            _AXIS_LETTERS[world][int(self.affine[world, voxel] > 0)] for voxel, world in enumerate(world_axes)
        )

    @cached_property
    def axial_axis(self) -> int:
        """The voxel axis (0, 1 or 2) that runs closest to the feet-head direction."""
        return self._world_axis_of_each_voxel_axis().index(2)

    def _world_axis_of_each_voxel_axis(self) -> tuple[int, ...]:
        """The nearest world axis of each voxel axis, strongest pair first, so that each is used once."""
        cosines = np.abs(self.affine[:3, :3]) / np.array(self.spacing)
        chosen = [-1, -1, -1]
        for _ in range(3):
            world, voxel = np.unravel_index(int(np.argmax(cosines)), (3, 3))
            chosen[int(voxel)] = int(world)
            cosines[world, :] = -1.0
            cosines[:, voxel] = -1.0
        return tuple(chosen)

    def to_world(self, indices: ArrayLike) -> NDArray[np.float64]:
        """World positions of voxel indices.

        Parameters
        ----------
        indices
            (..., 3), voxel indices, fractions allowed.

        Returns
        -------
        (..., 3) float64, millimeters, RAS+.
        """
        world: NDArray[np.float64] = np.asarray(indices, dtype=np.float64) @ self.affine[:3, :3].T + self.affine[:3, 3]
        return world

    def to_voxel(self, points: ArrayLike) -> NDArray[np.float64]:
        """Fractional voxel indices (..., 3) of world points (..., 3) in RAS+ millimeters."""
        inverse = np.linalg.inv(self.affine)
        indices: NDArray[np.float64] = np.asarray(points, dtype=np.float64) @ inverse[:3, :3].T + inverse[:3, 3]
        return indices

    def cropped(self, low: Sequence[int], high: Sequence[int]) -> Geometry:
        """The grid of the voxels from `low` up to and without `high`, each (3,) voxel indices; positions stay."""
        affine = self.affine.copy()
        affine[:3, 3] = self.to_world(low)
        return Geometry((high[0] - low[0], high[1] - low[1], high[2] - low[2]), affine)

    def largest_displacement_mm(self, other: Geometry) -> float:
        """Millimeters by which the two affines disagree at the worst corner of this grid."""
        corners = np.array(list(product(*((0, n - 1) for n in self.shape))), dtype=np.float64)
        return float(np.linalg.norm(self.to_world(corners) - other.to_world(corners), axis=1).max())

    def matches(self, other: Geometry, tolerance_mm: float = 1e-2) -> bool:
        """True if both grids have the same shape and no corner lies further apart than the tolerance in mm."""
        return self.shape == other.shape and self.largest_displacement_mm(other) <= tolerance_mm


def _checked_shape(given: Sequence[int]) -> tuple[int, int, int]:
    try:
        shape = tuple(index(n) for n in given)  # `index` refuses 2.5 where `int` would cut it to 2
    except TypeError as error:
        raise InvalidGeometry(f"a grid's shape is three whole numbers; got {given!r}") from error
    if len(shape) != 3 or min(shape) < 1:
        raise InvalidGeometry(f"a grid needs three axes of at least 1 voxel; got shape {shape}")
    return (shape[0], shape[1], shape[2])


def _check_affine(affine: NDArray[np.float64]) -> None:
    if affine.shape != (4, 4):
        raise InvalidGeometry(f"an affine is a 4 x 4 matrix; got shape {affine.shape}")
    if not np.isfinite(affine).all():
        raise InvalidGeometry(f"the affine holds NaN or infinite numbers: {affine.tolist()}")
    if not np.array_equal(affine[3], (0.0, 0.0, 0.0, 1.0)):
        raise InvalidGeometry(f"the last row of an affine is 0 0 0 1; got {affine[3].tolist()}")
    columns = affine[:3, :3].T
    spacing = np.linalg.norm(columns, axis=1)
    if (spacing == 0).any():
        raise InvalidGeometry(f"voxel spacing must be above 0 mm on every axis; got {spacing.tolist()}")
    unit = columns / spacing[:, None]
    if abs(np.dot(np.cross(unit[0], unit[1]), unit[2])) < _SMALLEST_RELATIVE_VOLUME:
        raise InvalidGeometry(f"the affine is singular (its voxel axes lie in one plane): {affine.tolist()}")
