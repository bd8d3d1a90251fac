"""What every single-file format says of a volume, and its voxels by that."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from nibabel.volumeutils import apply_read_scaling
from numpy.typing import NDArray

from medseg.core.geometry import Geometry
from medseg.core.scan import ScanFormat
from medseg.io.memory import check_fits_memory
from medseg.io.voxel_bytes import VoxelSource, read_voxel_bytes

__all__ = ["VolumeHeader", "read_float_voxels", "read_stored_voxels"]


@dataclass(frozen=True, eq=False)
class VolumeHeader:
    """A checked header: its promises fit the size of the file, its grid is usable.

    Parameters
    ----------
    path
        The file with the header.
    format
        "nifti", "nrrd" or "metaimage".
    geometry
        The grid.
    dtype
        The stored type, integer or float, with its byte order.
    source
        Where the voxels lie.
    slope, intercept
        What makes intensities of stored numbers; None where the file does not rescale.
    notes
        What was assumed or dropped, for the provenance.
    """

    path: Path
    format: ScanFormat
    geometry: Geometry
    dtype: np.dtype[Any]
    source: VoxelSource
    slope: float | None = None
    intercept: float | None = None
    notes: tuple[str, ...] = ()

    @property
    def files(self) -> tuple[Path, ...]:
        """The header's file, and the file of the voxels where that is another one."""
        return (self.path,) if self.path == self.source.path else (self.path, self.source.path)


def read_stored_voxels(header: VolumeHeader) -> tuple[NDArray[Any], tuple[str, ...]]:
    """The voxels (I, J, K) after slope and intercept, in whatever type that takes; and notes on the file.

    Raises
    ------
    ScanTooLarge
        If they do not fit into memory.
    UnreadableImage
        If the file is damaged or truncated.
    """
    stored, notes = _stored(header)
    return np.asarray(apply_read_scaling(stored, header.slope, header.intercept)), notes


def read_float_voxels(header: VolumeHeader) -> tuple[NDArray[np.float32], tuple[str, ...]]:
    """The voxels (I, J, K) after slope and intercept as float32, NaN and infinity included; and notes on the file.

    Raises
    ------
    ScanTooLarge
        If they do not fit into memory.
    UnreadableImage
        If the file is damaged or truncated.
    """
    stored, notes = _stored(header)
    if stored.dtype == np.float32 and stored.dtype.isnative and header.slope is None:
        return stored, notes
    voxels = np.empty(stored.shape, np.float32, order="F")
    with np.errstate(over="ignore", invalid="ignore"):  # beyond float32 is infinite, and told as such by the caller
        for k in range(stored.shape[2]):  # slice by slice: scaling may need float64 on the way
            voxels[..., k] = apply_read_scaling(stored[..., k], header.slope, header.intercept)
    return voxels, notes


def _stored(header: VolumeHeader) -> tuple[NDArray[Any], tuple[str, ...]]:
    n_float_bytes = 4 * math.prod(header.geometry.shape)
    check_fits_memory(n_float_bytes + header.source.n_bytes, str(header.path))
    payload, notes = read_voxel_bytes(header.source)
    return np.ndarray(header.geometry.shape, header.dtype, buffer=payload, order="F"), notes
