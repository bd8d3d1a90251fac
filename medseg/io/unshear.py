"""Un-shear: a volume of a tilted gantry on an orthogonal grid, by moving each slice within its own plane.

Nothing is interpolated across slices: the slices keep their planes, and only rows and columns are shifted. This is what
dcm2niix does too; resampling in three dimensions would blur thick slices into each other.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medseg.core.geometry import Geometry
from medseg.core.volume import Volume

__all__ = ["is_sheared", "unshear"]

_LEAST_SHIFT_VOXELS = 1e-3  # over the whole volume; less is rounding


def is_sheared(geometry: Geometry) -> bool:
    """Whether the slices lean: the last one lies beside the normal through the first one."""
    return bool(np.abs(_shift_a_slice(geometry)).max() * (geometry.shape[2] - 1) > _LEAST_SHIFT_VOXELS)


def unshear(volume: Volume) -> Volume:
    """Put a sheared volume on an orthogonal grid with the same slice planes and pixel spacing.

    Parameters
    ----------
    volume
        Its first two axes perpendicular to each other, as in every DICOM series.

    Returns
    -------
    The volume on a grid that grows so as to hold every slice, linear between pixels, the lowest value of each channel
    where no slice reaches; with a note. A volume that is not sheared comes back as it is.

    Differs from
    ------------
    dcm2niix, which keeps the number of columns and places some tilted series wrongly.
    """
    geometry = volume.geometry
    if not is_sheared(geometry):
        return volume
    shift = _shift_a_slice(geometry)
    shifts = np.arange(geometry.shape[2])[:, None] * shift  # (K, 2) voxels along i and j
    low, high = np.floor(shifts.min(axis=0)).astype(int), np.ceil(shifts.max(axis=0)).astype(int)
    shape = (geometry.shape[0] + int(high[0] - low[0]), geometry.shape[1] + int(high[1] - low[1]), geometry.shape[2])
    array = np.empty((volume.array.shape[0], *shape), dtype=np.float32)
    for channel, source in zip(array, volume.array, strict=True):
        fill = float(source.min())
        for k in range(shape[2]):
            channel[:, :, k] = _moved(source[:, :, k], shifts[k] - low, shape[:2], fill)
    note = f"un-sheared: each slice shifted within its plane by ({shift[0]:.4g}, {shift[1]:.4g}) voxels a slice"
    return Volume(
        array, _upright(geometry, shift, low, shape), volume.channels, (*volume.notes, note), units=volume.units
    )


def _shift_a_slice(geometry: Geometry) -> NDArray[np.float64]:
    """(2,) voxels along i and j by which each slice lies further than the normal through the one before."""
    axes = geometry.affine[:3, :3]
    return np.asarray(np.linalg.lstsq(axes[:, :2], axes[:, 2], rcond=None)[0], dtype=np.float64)


def _upright(
    geometry: Geometry, shift: NDArray[np.float64], low: NDArray[np.int_], shape: tuple[int, int, int]
) -> Geometry:
    affine = np.array(geometry.affine)
    affine[:3, 2] -= affine[:3, :2] @ shift
    affine[:3, 3] += affine[:3, :2] @ low
    return Geometry(shape, affine)


def _moved(
    plane: NDArray[np.float32], offset: NDArray[np.float64], shape: tuple[int, ...], fill: float
) -> NDArray[np.float32]:
    """A plane moved by so many voxels into a larger one, linear between pixels."""
    whole = [math.floor(part) for part in offset]
    padded = np.full(shape, fill, dtype=np.float32)
    padded[whole[0] : whole[0] + plane.shape[0], whole[1] : whole[1] + plane.shape[1]] = plane
    rest = [float(part) - base for part, base in zip(offset, whole, strict=True)]
    if max(rest) < _LEAST_SHIFT_VOXELS:
        return padded
    moved: NDArray[np.float32] = ndimage.shift(padded, rest, order=1, mode="constant", cval=fill)
    return moved
