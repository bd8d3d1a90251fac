"""What every single-file format says of a volume, and its voxels by that."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from nibabel.volumeutils import apply_read_scaling
from numpy.typing import NDArray

from medseg.core.geometry import Geometry
from medseg.core.scan import ScanFormat
from medseg.io.memory import check_fits_memory
from medseg.io.slice_memory import empty_slices, make_pages
from medseg.io.voxel_bytes import VoxelSource, check_promise, read_voxel_bytes, read_voxel_parts

__all__ = ["VolumeHeader", "read_float_voxels", "read_float_voxels_into", "read_stored_voxels"]


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

    They lie in memory as in the file, I running fastest.

    Raises
    ------
    ScanTooLarge
        If they do not fit into memory.
    UnreadableImage
        If the file is damaged or truncated.
    """
    check_promise(header.source)
    check_fits_memory(4 * math.prod(header.geometry.shape), str(header.path))
    voxels = empty_slices(header.geometry.shape[::-1]).transpose(2, 1, 0)
    return voxels, read_float_voxels_into(header, voxels)


def read_float_voxels_into(header: VolumeHeader, voxels: NDArray[np.float32]) -> tuple[str, ...]:
    """The same, into an array (I, J, K) that is there, slice by slice: the stored voxels are never in memory at once.

    Raises
    ------
    UnreadableImage
        If the file is damaged or truncated.
    """
    return read_voxel_parts(header.source, _scaled_slices(header, voxels))


def _scaled_slices(header: VolumeHeader, voxels: NDArray[np.float32]) -> Iterator[NDArray[np.uint8]]:
    """A buffer to fill for each slice; what was filled in is then rescaled into its place."""
    n_rows, n_columns, n_slices = voxels.shape
    buffer = np.empty(n_rows * n_columns * header.dtype.itemsize, np.uint8)
    stored = np.ndarray((n_rows, n_columns), header.dtype, buffer=buffer, order="F")
    for k in range(n_slices):
        make_pages(voxels[..., k].T)
        yield buffer
        with np.errstate(over="ignore", invalid="ignore"):  # beyond float32 is infinite, and told as such by the caller
            # slice by slice: scaling may need float64 on the way
            voxels[..., k] = apply_read_scaling(stored, header.slope, header.intercept)


def _stored(header: VolumeHeader) -> tuple[NDArray[Any], tuple[str, ...]]:
    n_float_bytes = 4 * math.prod(header.geometry.shape)
    check_fits_memory(n_float_bytes + header.source.n_bytes, str(header.path))
    payload, notes = read_voxel_bytes(header.source)
    return np.ndarray(header.geometry.shape, header.dtype, buffer=payload, order="F"), notes
