"""NIfTI files to values and back.

Label maps are written on the very grid of the scan that they belong to: with `like`, the spatial header fields are
copied bit for bit, so that no viewer sees them shifted by a rounding. The same map always gives the same bytes.
"""

from __future__ import annotations

import gzip
from os import PathLike
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from medseg.core.geometry import Geometry
from medseg.core.volume import Volume
from medseg.errors import GridMismatch, InvalidLabelMap, UnsupportedDimensions, UsageError
from medseg.io.atomic import atomic_path
from medseg.io.nifti_header import RawHeader, is_nifti_name, read_nifti_header

__all__ = ["write_labels", "write_vectors", "write_volume"]

_NIFTI1_LONGEST_AXIS = 32767
_QFORM_TOLERANCE_MM = 0.01
_SHEAR_TOLERANCE = 1e-4  # cosine between two voxel axes: 0.05 mm over 500 mm
_SPATIAL_FIELDS = (
    *("qform_code", "sform_code", "xyzt_units"),
    *("quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z"),
)
_LABELS_GZIP_LEVEL, _VOLUME_GZIP_LEVEL = (
    4,
    1,
)  # more than that costs three times the time for a sixth


def write_labels(
    array: NDArray[np.integer] | NDArray[np.bool_],
    geometry: Geometry,
    path: str | PathLike[str],
    like: str | PathLike[str] | None = None,
) -> None:
    """Write a label map or mask.

    Parameters
    ----------
    array
        (I, J, K) bool or integer, not negative.
    geometry
        Its grid.
    path
        A file that ends in .nii or .nii.gz; replaced if it is there.
    like
        The NIfTI file of the scan that the map belongs to: version, spacing, qform, sform and units are copied from
        it bit for bit. Without it, or if it is no NIfTI file (a DICOM slice), the header is made from `geometry`; the
        qform is left unset where it cannot say the grid: where that is sheared, or turned by nearly a half turn, for
        which the header's float32 is too coarse.

    Raises
    ------
    InvalidLabelMap
        If a number is negative or above 4294967295, or the array is not integer.
    GridMismatch
        If the array, the geometry and `like` do not share one grid.
    OutputNotWritable
        If the folder cannot be written.
    UsageError
        If the path does not end in .nii or .nii.gz.
    """
    header = _header_like(Path(like), geometry) if like is not None and is_nifti_name(like) else _new_header(geometry)
    _write(_stored_labels(array), geometry, header, Path(path), _LABELS_GZIP_LEVEL)


def write_volume(volume: Volume, path: str | PathLike[str]) -> None:
    """Write a volume of one channel as float32.

    Raises
    ------
    UnsupportedDimensions
        If the volume has several channels: each is a file of its own.
    OutputNotWritable, UsageError
        As `write_labels`.
    """
    if len(volume.channels) != 1:
        raise UnsupportedDimensions(f"a NIfTI file takes one channel; got {', '.join(volume.channels)}")
    _write(volume.array[0], volume.geometry, _new_header(volume.geometry), Path(path), _VOLUME_GZIP_LEVEL)


def write_vectors(values: NDArray[np.float32], geometry: Geometry, path: str | PathLike[str], name: str) -> None:
    """Write several float32 values a voxel, as NIfTI says vectors are: (I, J, K, 1, C), intent code "vector".

    The file is NIfTI-2, whose header holds the grid in float64: what is read back lies where it lay, to the bit.

    Parameters
    ----------
    values
        (C, I, J, K) float32.
    geometry
        The grid.
    path
        A file that ends in .nii or .nii.gz; replaced if it is there.
    name
        What the values are, at most 15 characters, for the header.

    Raises
    ------
    GridMismatch, OutputNotWritable, UsageError
        As `write_labels`.
    """
    header = _new_header(geometry, nib.Nifti2Header)
    header.set_intent("vector", name=name)
    _write(np.moveaxis(values, 0, -1)[:, :, :, None], geometry, header, Path(path), _VOLUME_GZIP_LEVEL)


def _stored_labels(array: NDArray[np.integer] | NDArray[np.bool_]) -> NDArray[np.unsignedinteger]:
    """The map in the smallest unsigned type that it came in or that holds it."""
    labels = np.asarray(array)
    if labels.dtype.kind not in "bui":
        raise InvalidLabelMap(f"a label map is written from integers; got {labels.dtype}")
    lowest, highest = int(labels.min()), int(labels.max())
    if lowest < 0 or highest > np.iinfo(np.uint32).max:
        raise InvalidLabelMap(f"a label map holds 0..4294967295; got {lowest}..{highest}")
    if labels.dtype in (np.uint8, np.uint16, np.uint32):
        return labels
    return labels.astype(np.min_scalar_type(highest))


def _header_like(like: Path, geometry: Geometry) -> RawHeader:
    source = read_nifti_header(like)
    if not source.geometry.matches(geometry):
        raise GridMismatch(f"the map lies on {geometry!r}, but {like} on {source.geometry!r}")
    header: RawHeader = type(source.raw)()
    header["pixdim"][:4] = source.raw["pixdim"][:4]
    for field in _SPATIAL_FIELDS:
        header[field] = source.raw[field]
    return header


def _new_header(geometry: Geometry, header_class: Any = None) -> RawHeader:
    if header_class is None:
        header_class = nib.Nifti1Header if max(geometry.shape) <= _NIFTI1_LONGEST_AXIS else nib.Nifti2Header
    header: RawHeader = header_class()
    header["pixdim"][1:4] = geometry.spacing
    header.set_xyzt_units("mm")
    header.set_sform(geometry.affine, code=1)
    if not _is_sheared(geometry):
        header.set_qform(geometry.affine, code=1)
        if not _qform_says(header, geometry):
            header.set_qform(None, code=0)  # a half turn or nearly: its quaternion is too coarse
    return header


def _qform_says(header: RawHeader, geometry: Geometry) -> bool:
    try:
        read_back = Geometry(geometry.shape, header.get_qform())
    except ValueError:  # nibabel finds the rounded quaternion longer than 1
        return False
    return read_back.largest_displacement_mm(geometry) <= _QFORM_TOLERANCE_MM


def _is_sheared(geometry: Geometry) -> bool:
    unit = geometry.affine[:3, :3] / np.array(geometry.spacing)
    return bool(np.abs(unit.T @ unit - np.eye(3)).max() > _SHEAR_TOLERANCE)


def _write(array: NDArray[Any], geometry: Geometry, header: RawHeader, path: Path, level: int) -> None:
    if not path.name.lower().endswith((".nii", ".nii.gz")):
        raise UsageError(f"{path}: a NIfTI file ends in .nii or .nii.gz")
    if array.shape[:3] != geometry.shape:
        raise GridMismatch(f"{path}: an array of shape {array.shape} does not lie on {geometry!r}")
    little_endian = array.astype(array.dtype.newbyteorder("<"), copy=False)
    header["dim"] = 1
    header["dim"][: array.ndim + 1] = (array.ndim, *array.shape)
    header.set_data_dtype(little_endian.dtype)
    header["magic"], header["vox_offset"] = header.single_magic, header.single_vox_offset
    header["scl_slope"], header["scl_inter"] = 1.0, 0.0
    no_extension = b"\0\0\0\0"
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        if path.name.lower().endswith(".gz"):
            # neither time nor name in the gzip header: equal maps give equal bytes
            with gzip.GzipFile(filename="", mode="wb", compresslevel=level, fileobj=file, mtime=0) as packed:
                packed.write(header.binaryblock + no_extension)
                packed.write(little_endian.tobytes(order="F"))
        else:
            file.write(header.binaryblock + no_extension)
            file.write(little_endian.tobytes(order="F"))
