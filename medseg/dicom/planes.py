"""From planes in the patient to a voxel grid: where each pixel of a stored frame falls, or which grid frames make."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.core.geometry import Geometry
from medseg.errors import GridMismatch, InvalidGeometry

__all__ = ["FramePlane", "grid_of_planes", "place"]

_LPS_TO_RAS = np.array([-1.0, -1.0, 1.0])
_OFF_CENTER_VOXELS = 0.1  # a pixel further from a voxel center than this lies on another grid
_UNEVEN = 0.02  # of a step
_SAME_PLACE_MM = 1e-3


@dataclass(frozen=True, eq=False)
class FramePlane:
    """Where one frame lies: position of its first pixel and its axes, LPS; spacing between rows and columns in mm."""

    position: NDArray[np.float64]
    orientation: NDArray[np.float64]
    spacing: tuple[float, float]
    thickness_mm: float | None = None
    step_mm: float | None = None

    @property
    def normal(self) -> NDArray[np.float64]:
        """(3,) unit normal, LPS."""
        normal = np.cross(self.orientation[:3], self.orientation[3:])
        length = float(np.linalg.norm(normal))
        if not 0.99 < length < 1.01:
            raise InvalidGeometry(f"direction cosines {self.orientation.tolist()} are not perpendicular unit vectors")
        return normal / length

    def to_world(self, rows: NDArray[Any], columns: NDArray[Any]) -> NDArray[np.float64]:
        """(N, 3) RAS+ millimeters of pixels of the frame."""
        row_step, column_step = self.orientation[3:] * self.spacing[0], self.orientation[:3] * self.spacing[1]
        lps = self.position + rows[:, None] * row_step + columns[:, None] * column_step
        world: NDArray[np.float64] = lps * _LPS_TO_RAS
        return world


def grid_of_planes(planes: Sequence[FramePlane], shape: tuple[int, int], name: str) -> Geometry:
    """The grid that parallel frames of one size make: from the lowest to the highest, empty slices between them.

    Parameters
    ----------
    planes
        At least one, any order, places may repeat.
    shape
        Rows and columns.
    name
        What messages call the object.

    Raises
    ------
    InvalidGeometry
        If frames are not parallel, not of one spacing, or at irregular distances; or if one place does not say how
        thick a slice is.
    """
    first = planes[0]
    for plane in planes:
        if not (np.allclose(plane.orientation, first.orientation, atol=1e-4) and plane.spacing == first.spacing):
            raise InvalidGeometry(f"{name}: its frames differ in orientation or spacing; they make no one grid")
    normal = first.normal
    heights = np.array([plane.position @ normal for plane in planes])
    order = np.argsort(heights, kind="stable")
    steps = np.diff(heights[order])
    distinct = order[np.concatenate([[True], steps > _SAME_PLACE_MM])]
    lowest, highest = planes[distinct[0]], planes[distinct[-1]]
    step_mm = _step(heights[distinct], first, name)
    n_slices = round(float(heights[distinct[-1]] - heights[distinct[0]]) / step_mm) + 1
    step = normal * step_mm if n_slices == 1 else (highest.position - lowest.position) / (n_slices - 1)
    lps = np.eye(4)
    lps[:3, 0], lps[:3, 1] = first.orientation[:3] * first.spacing[1], first.orientation[3:] * first.spacing[0]
    lps[:3, 2], lps[:3, 3] = step, lowest.position
    return Geometry((shape[1], shape[0], n_slices), np.diag([*_LPS_TO_RAS, 1.0]) @ lps)


def place(
    plane: FramePlane, rows: NDArray[Any], columns: NDArray[Any], geometry: Geometry, name: str
) -> tuple[NDArray[np.intp], ...]:
    """Voxel indices, one array an axis, of pixels of a frame on a grid.

    Raises
    ------
    GridMismatch
        If a pixel is no voxel of the grid.
    """
    exact = geometry.to_voxel(plane.to_world(rows, columns))
    nearest = np.rint(exact)
    off = float(np.abs(exact - nearest).max(initial=0.0))
    outside = (nearest < 0) | (nearest >= np.array(geometry.shape))
    if off > _OFF_CENTER_VOXELS or outside.any():
        why = "lie outside it" if outside.any() else f"lie up to {off:.2g} voxels beside its voxel centers"
        raise GridMismatch(
            f"{name} does not lie on {geometry!r}: {int(outside.any(axis=1).sum()) or rows.size} pixels {why}. Is that "
            "the grid of its scan? A SEG stores only the slices that hold something; give the scan itself"
        )
    i, j, k = nearest.astype(np.intp).T
    return i, j, k


def _step(heights: NDArray[np.float64], plane: FramePlane, name: str) -> float:
    """Millimeters between slices: what is told if the places fit it, else the smallest distance that fits them all."""
    told = [abs(value) for value in (plane.step_mm, plane.thickness_mm) if value]
    if heights.size == 1:
        if not told:
            raise InvalidGeometry(f"{name}: one slice, and neither SpacingBetweenSlices nor SliceThickness: no volume")
        return told[0]
    steps = np.diff(heights)
    for step in [*told, float(steps.min())]:
        counts = steps / step
        if counts.min() > 0.5 and float(np.abs(counts - np.rint(counts)).max()) <= _UNEVEN:
            return step
    raise InvalidGeometry(
        f"{name}: its slices are {sorted(set(np.round(steps, 3).tolist()))} mm apart: no regular grid"
    )
