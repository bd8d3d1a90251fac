"""A map on another grid whose voxels are the same, whatever its axes are called and whichever way they run."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.core.geometry import Geometry
from medseg.core.lesions import LesionMap
from medseg.errors import GridMismatch

__all__ = ["lesions_on_grid"]

_OFF_CENTER_VOXELS = 0.05


def lesions_on_grid(lesions: LesionMap, target: Geometry, name: str) -> LesionMap:
    """The same lesions on another grid, voxel for voxel; nothing is interpolated.

    Parameters
    ----------
    lesions
        On a grid whose lesion voxels are voxels of the target: axes may be permuted, flipped or cut.
    target
        The grid wanted.
    name
        What messages call the map.

    Raises
    ------
    GridMismatch
        If a lesion voxel is no voxel of the target, or voxels are not of one size.
    """
    if lesions.geometry.matches(target):
        return _with(lesions, lesions.array, target)
    where = np.nonzero(lesions.array)
    exact = target.to_voxel(lesions.geometry.to_world(np.stack(where, axis=-1)))
    nearest = np.rint(exact)
    off = float(np.abs(exact - nearest).max(initial=0.0))
    n_outside = int(((nearest < 0) | (nearest >= np.array(target.shape))).any(axis=1).sum())
    sizes = lesions.geometry.voxel_volume_mm3, target.voxel_volume_mm3
    if off > _OFF_CENTER_VOXELS or n_outside or abs(sizes[0] - sizes[1]) > 1e-3 * sizes[1]:
        raise GridMismatch(
            f"{name} lies on {lesions.geometry!r}, which is not the grid of {target!r}: {n_outside} of "
            f"{exact.shape[0]} voxels lie outside, the others up to {off:.2g} voxels beside a voxel center. Give the "
            "series that the lesions were found in; lesion maps are not resampled"
        )
    array = np.zeros(target.shape, dtype=lesions.array.dtype)
    array[tuple(nearest.astype(np.intp).T)] = lesions.array[where]
    return _with(lesions, array, target)


def _with(lesions: LesionMap, array: NDArray[Any], geometry: Geometry) -> LesionMap:
    return LesionMap(
        array,
        geometry,
        lesions.lesions,
        lesions.method,
        lesions.n_removed,
        lesions.removed_volume_ml,
        lesions.renumbered,
    )
