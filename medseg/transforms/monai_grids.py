"""The grids that MONAI's spatial transforms put an image on; numbers only, MONAI itself is not needed."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
from numpy.typing import NDArray

from medseg.core.geometry import Geometry
from medseg.io.orientation import turn_to

__all__ = ["TOLERANCE", "is_same_grid", "resized_grid", "respaced_grid", "turned_grid"]

TOLERANCE = 1e-3
"""MONAI's, for two affines that count as one: `monai.data.utils.AFFINE_TOL`."""


def respaced_grid(geometry: Geometry, spacing_mm: Sequence[float]) -> Geometry:
    """The grid that `Spacing` makes: shear is dropped, and the outermost voxel centers decide the shape.

    Parameters
    ----------
    geometry
        Of the image.
    spacing_mm
        (3,) millimeters.
    """
    axes = geometry.affine[:3, :3]
    upper = np.linalg.cholesky(axes.T @ axes).T  # scale and shear; what is left of the axes is their rotation
    affine = np.eye(4)
    affine[:3, :3] = axes @ np.linalg.inv(upper) @ np.diag(np.abs(spacing_mm))
    corners = np.array(list(product(*((0.0, n - 1.0) for n in geometry.shape)))).T
    corners = np.concatenate([corners, np.ones((1, corners.shape[1]))])
    reached = (np.linalg.solve(affine, geometry.affine) @ corners)[:3]
    i, j, k = (int(n) for n in np.round(np.ptp(reached, axis=1) + 1.0))
    affine[:3, 3] = _origin(geometry, corners, reached, affine[:3, :3], (i, j, k))
    return Geometry((i, j, k), affine)


def _origin(
    geometry: Geometry,
    corners: NDArray[np.float64],
    reached: NDArray[np.float64],
    axes: NDArray[np.float64],
    shape: tuple[int, int, int],
) -> NDArray[np.float64]:
    """The corner from which all others lie in positive directions; where there is none, the middles are one."""
    for number, corner in enumerate(corners.T):
        least = (reached - reached[:, number : number + 1]).min(axis=1)
        if np.allclose(least, 0.0, rtol=TOLERANCE):
            return np.asarray((geometry.affine @ corner)[:3])
    middle = geometry.affine[:3, :3] @ (np.array(geometry.shape) / 2.0) + geometry.affine[:3, 3]
    return np.asarray(middle - axes @ (np.array(shape) / 2.0))


def is_same_grid(source: Geometry, target: Geometry) -> bool:
    """Whether `Spacing` leaves an image as it is."""
    drift = np.linalg.solve(source.affine, target.affine) - np.eye(4)
    is_near = np.allclose(source.affine, target.affine, atol=TOLERANCE) or np.abs(drift).max() <= TOLERANCE
    return source.shape == target.shape and bool(is_near)


def resized_grid(geometry: Geometry, shape: tuple[int, int, int], *, align_corners: bool) -> Geometry:
    """The grid that `Resize` makes: outer edges of both grids coincide, or their outermost voxel centers."""
    pairs = list(zip(geometry.shape, shape, strict=True))
    if align_corners:
        scale = [1.0 if before == after else (before - 1) / max(after - 1, 1) for before, after in pairs]
        start = [0.0] * 3
    else:
        scale = [before / after for before, after in pairs]
        start = [(factor - 1.0) / 2.0 for factor in scale]
    change = np.diag([*scale, 1.0])
    change[:3, 3] = start
    return Geometry(shape, geometry.affine @ change)


def turned_grid(geometry: Geometry, axcodes: str) -> tuple[Geometry, tuple[int, int, int], tuple[slice, slice, slice]]:
    """The grid that `Orientation` makes.

    Returns
    -------
    geometry
        The same voxels, their axes in the order and direction of the axis codes.
    axes
        Which axis of the given grid is its first, second, third.
    flips
        What turns an array (I, J, K) on the given grid round, before its axes are put in order.
    """
    axes, is_flipped = turn_to(geometry, axcodes)
    affine = geometry.affine.copy()
    for axis in np.flatnonzero(is_flipped):
        affine[:3, 3] += affine[:3, axis] * (geometry.shape[axis] - 1)
        affine[:3, axis] *= -1
    affine[:3, :3] = affine[:3, list(axes)]
    i, j, k = (geometry.shape[axis] for axis in axes)
    first, second, third = (slice(None, None, -1 if is_turned else 1) for is_turned in is_flipped)
    return Geometry((i, j, k), affine), axes, (first, second, third)
