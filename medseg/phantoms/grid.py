"""The phantom's voxel grid: any spacing, orientation and tilt about one fixed point of the world."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.core.geometry import Geometry
from medseg.errors import UsageError

__all__ = ["field_of_view_mm", "make_grid", "sample", "world_axes"]

_CENTER_MM = np.array([12.0, -35.0, 140.0])  # not the origin, so that a lost sign or offset shows
_TILT_AXIS = np.array([1.0, 2.0, 3.0]) / np.sqrt(14.0)  # no world axis stays in place
_LARGEST_TILT = 45.0  # degrees; beyond, another world axis may be nearest to a voxel axis than its letter says
_WORLD_AXIS = {"L": 0, "R": 0, "P": 1, "A": 1, "I": 2, "S": 2}


def make_grid(
    shape: tuple[int, int, int], spacing_mm: tuple[float, float, float], orientation: str, oblique_degrees: float
) -> Geometry:
    """Build a grid about the phantom's center.

    Parameters
    ----------
    shape
        (I, J, K), voxels along each axis of the array.
    spacing_mm
        (3,) float, millimeters along each axis of the array.
    orientation
        Three letters, the direction in which each axis grows before the tilt ("RAS", "LPS", "SAR", ...).
    oblique_degrees
        Degrees of tilt about the world direction (1, 2, 3), -45 to 45.

    Raises
    ------
    UsageError
        If the shape, spacing or tilt cannot be, or the orientation does not name each of the three directions once.
    """
    _check(shape, spacing_mm, oblique_degrees)
    columns = np.zeros((3, 3))
    for voxel_axis, world_axis in enumerate(world_axes(orientation)):
        sign = 1.0 if orientation[voxel_axis] in "RAS" else -1.0
        columns[world_axis, voxel_axis] = sign * spacing_mm[voxel_axis]
    affine = np.eye(4)
    affine[:3, :3] = _rotation(oblique_degrees) @ columns
    affine[:3, 3] = _CENTER_MM - affine[:3, :3] @ ((np.array(shape) - 1.0) / 2.0)
    return Geometry(shape, affine)


def _check(shape: tuple[int, int, int], spacing_mm: tuple[float, float, float], oblique_degrees: float) -> None:
    if len(shape) != 3 or min(shape) < 1:
        raise UsageError(f"a phantom's shape is three numbers of voxels, each at least 1; got {shape}")
    if len(spacing_mm) != 3 or not all(0.0 < s < float("inf") for s in spacing_mm):
        raise UsageError(f"a phantom's spacing is three numbers of mm above 0; got {spacing_mm}")
    if not abs(oblique_degrees) <= _LARGEST_TILT:
        raise UsageError(f"oblique_degrees lies in -{_LARGEST_TILT:g}..{_LARGEST_TILT:g}; got {oblique_degrees}")


def world_axes(orientation: str) -> tuple[int, ...]:
    """(3,) int: the world axis (0, 1, 2 for x, y, z) of each letter."""
    axes = tuple(_WORLD_AXIS.get(letter, -1) for letter in orientation)
    if sorted(axes) != [0, 1, 2]:
        raise UsageError(f"an orientation is one letter each of R/L, A/P and S/I, as RAS or LPS; got {orientation!r}")
    return axes


def field_of_view_mm(geometry: Geometry) -> NDArray[np.float64]:
    """(3,) float64: millimeters that the grid spans along (about) world x, y and z, the tilt left out."""
    spans = np.zeros(3)
    for voxel_axis, world_axis in enumerate(world_axes(geometry.axcodes)):
        spans[world_axis] = geometry.shape[voxel_axis] * geometry.spacing[voxel_axis]
    return spans


def sample(
    geometry: Geometry, function: Callable[[NDArray[np.float64]], NDArray[Any]], dtype: type[np.generic]
) -> NDArray[Any]:
    """(I, J, K) array of a function of world points (..., 3) at every voxel center, one plane at a time."""
    values = np.empty(geometry.shape, dtype=dtype)
    plane = np.zeros((*geometry.shape[1:], 3))
    plane[..., 1:] = np.moveaxis(np.indices(geometry.shape[1:]), 0, -1)
    for i in range(geometry.shape[0]):
        plane[..., 0] = i
        values[i] = function(geometry.to_world(plane))
    return values


def _rotation(degrees: float) -> NDArray[np.float64]:
    """(3, 3) rotation about the tilt axis (Rodrigues)."""
    if degrees == 0.0:
        return np.eye(3)
    x, y, z = _TILT_AXIS
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    angle = np.deg2rad(degrees)
    rotation: NDArray[np.float64] = np.eye(3) + np.sin(angle) * cross + (1.0 - np.cos(angle)) * (cross @ cross)
    return rotation
