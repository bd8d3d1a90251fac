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
from nibabel.spatialimages import HeaderDataError
from nibabel.volumeutils import apply_read_scaling
from numpy.typing import NDArray

from medseg.core.geometry import Geometry
from medseg.core.labels import BINARY_LESION, LabelScheme
from medseg.core.lesions import Lesion, LesionMap, label_dtype
from medseg.core.semantic import SemanticMap
from medseg.core.volume import Volume
from medseg.errors import GridMismatch, InvalidLabelMap, UnreadableImage, UnsupportedDimensions, UsageError
from medseg.io.atomic import atomic_path
from medseg.io.nifti_header import NiftiHeader, RawHeader, is_nifti_name, read_nifti_header, read_payload
from medseg.lesions.numbering import number_lesions

__all__ = [
    "read_header_geometry",
    "read_lesions",
    "read_nifti_array",
    "read_semantic",
    "write_labels",
    "write_volume",
]

_NIFTI1_LONGEST_AXIS = 32767
_SHEAR_TOLERANCE = 1e-4  # cosine between two voxel axes: 0.05 mm over 500 mm
_INTEGER_TOLERANCE = 1e-3  # a stored slope may leave this much on a class number
_SPATIAL_FIELDS = (
    *("qform_code", "sform_code", "xyzt_units"),
    *("quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z"),
)
_LABELS_GZIP_LEVEL, _VOLUME_GZIP_LEVEL = 6, 1  # label maps shrink a hundredfold, noise hardly at all


def read_header_geometry(path: str | PathLike[str]) -> Geometry:
    """The grid of a NIfTI file, from its header alone.

    Raises
    ------
    ScanError
        As `medseg.io.nifti_header.read_nifti_header`.
    """
    return read_nifti_header(path).geometry


def read_nifti_array(path: str | PathLike[str]) -> tuple[NDArray[np.float32], Geometry, tuple[str, ...]]:
    """The rescaled voxels of a NIfTI file, NaN and infinity included.

    Returns
    -------
    array
        (I, J, K) float32.
    geometry
        The grid.
    notes
        What else was done or seen (single axes dropped, qform not used), for the provenance.

    Raises
    ------
    ScanNotFound, UnreadableImage, UnsupportedDimensions, InvalidGeometry
        If the file is missing, damaged or truncated, not 3-D, or lies nowhere.
    """
    header = read_nifti_header(path)
    with np.errstate(over="ignore"):  # beyond float32 is infinite, and told as such by the caller
        array = _rescaled(header, Path(path)).astype(np.float32)
    return array, header.geometry, header.notes


def read_semantic(path: str | PathLike[str], scheme: LabelScheme | None = None) -> SemanticMap:
    """Read a map of class numbers.

    Parameters
    ----------
    path
        A NIfTI file of whole, non-negative numbers, stored as integers or floats.
    scheme
        What the numbers mean. Without one, a map of 0 and 1 is background and "lesion", and any other number n
        becomes "class_n".

    Raises
    ------
    InvalidLabelMap
        If a number is negative, not whole, NaN, above 65535, or not in the scheme.
    ScanNotFound, UnreadableImage, UnsupportedDimensions, InvalidGeometry
        As `read_nifti_array`.
    """
    labels, geometry = _read_labels(Path(path))
    highest = int(labels.max(initial=0))
    if highest > np.iinfo(np.uint16).max:
        raise InvalidLabelMap(f"{path}: class numbers go up to 65535; found {highest}")
    array: NDArray[np.unsignedinteger] = labels.astype(np.uint8 if highest <= np.iinfo(np.uint8).max else np.uint16)
    try:
        return SemanticMap(array, geometry, scheme or _scheme_of(array))
    except InvalidLabelMap as error:
        raise InvalidLabelMap(f"{path}: {error}") from error


def read_lesions(path: str | PathLike[str]) -> LesionMap:
    """Read a map of lesion numbers.

    A map that holds exactly 1..n keeps its numbers. Any other is renumbered by descending volume, then by world
    centroid (`medseg.lesions.numbering.number_lesions`), and `renumbered` is True.

    Parameters
    ----------
    path
        A NIfTI file of whole, non-negative numbers, stored as integers or floats.

    Raises
    ------
    InvalidLabelMap
        If a number is negative, not whole, or NaN.
    ScanNotFound, UnreadableImage, UnsupportedDimensions, InvalidGeometry
        As `read_nifti_array`.
    """
    labels, geometry = _read_labels(Path(path))
    numbers = np.unique(labels[labels > 0])
    renumbered = not np.array_equal(numbers, np.arange(1, numbers.size + 1))
    array: NDArray[Any] = (
        number_lesions(labels, geometry)[0] if renumbered else labels.astype(label_dtype(numbers.size))
    )
    return LesionMap(array, geometry, (Lesion("lesion"),) * numbers.size, method="read", renumbered=renumbered)


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
        qform is left unset where the grid is sheared, for a qform cannot say that.

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


def _rescaled(header: NiftiHeader, path: Path) -> NDArray[Any]:
    """The voxels after slope and intercept, in whatever type that takes; a view of the file's bytes if none."""
    dtype = header.raw.get_data_dtype()
    if dtype.kind not in "iuf":
        raise UnreadableImage(f"{path} holds {dtype} voxels (color or complex); medseg reads plain numbers")
    try:
        slope, intercept = header.raw.get_slope_inter()
    except HeaderDataError as error:
        raise UnreadableImage(f"{path}: the intensity scaling is invalid: {error}") from error
    payload = read_payload(path, header)
    stored: NDArray[Any] = np.ndarray(
        header.geometry.shape, dtype, buffer=payload, offset=header.data_offset, order="F"
    )
    return np.asarray(apply_read_scaling(stored, slope, intercept))


def _read_labels(path: Path) -> tuple[NDArray[np.integer], Geometry]:
    """The whole, non-negative numbers of a label map, in whatever type they are stored."""
    header = read_nifti_header(path)
    stored = _rescaled(header, path)
    labels: NDArray[np.integer] = stored if stored.dtype.kind in "iu" else _whole_numbers(stored, path)
    lowest = labels.min()
    if lowest < 0:
        raise InvalidLabelMap(f"{path}: a label map holds no negative numbers; found {int(lowest)}")
    return labels, header.geometry


def _whole_numbers(stored: NDArray[Any], path: Path) -> NDArray[np.int64]:
    values = np.asarray(stored, dtype=np.float64)
    whole = np.rint(values)
    with np.errstate(invalid="ignore"):  # infinite minus infinite is no whole number either
        wrong = ~(np.abs(values - whole) <= _INTEGER_TOLERANCE) | (np.abs(whole) > 2**53)
    if wrong.any():
        raise InvalidLabelMap(
            f"{path}: a label map holds whole numbers; {int(wrong.sum())} of {wrong.size} voxels do not, "
            f"for example {values[wrong][0]:g}. Was it resampled with interpolation?"
        )
    return whole.astype(np.int64)


def _scheme_of(array: NDArray[np.unsignedinteger]) -> LabelScheme:
    present = np.flatnonzero(np.bincount(array.ravel(), minlength=1)[1:]) + 1
    if set(present.tolist()) <= {1}:
        return BINARY_LESION
    return LabelScheme(classes={int(number): f"class_{number}" for number in present})


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


def _new_header(geometry: Geometry) -> RawHeader:
    header_class: Any = nib.Nifti1Header if max(geometry.shape) <= _NIFTI1_LONGEST_AXIS else nib.Nifti2Header
    header: RawHeader = header_class()
    header["pixdim"][1:4] = geometry.spacing
    header.set_xyzt_units("mm")
    header.set_sform(geometry.affine, code=1)
    if not _is_sheared(geometry):
        header.set_qform(geometry.affine, code=1)
    return header


def _is_sheared(geometry: Geometry) -> bool:
    unit = geometry.affine[:3, :3] / np.array(geometry.spacing)
    return bool(np.abs(unit.T @ unit - np.eye(3)).max() > _SHEAR_TOLERANCE)


def _write(array: NDArray[Any], geometry: Geometry, header: RawHeader, path: Path, level: int) -> None:
    if not is_nifti_name(path):
        raise UsageError(f"{path}: a NIfTI file ends in .nii or .nii.gz")
    if array.shape != geometry.shape:
        raise GridMismatch(f"{path}: an array of shape {array.shape} does not lie on {geometry!r}")
    little_endian = array.astype(array.dtype.newbyteorder("<"), copy=False)
    header["dim"] = 1
    header["dim"][:4] = (3, *geometry.shape)
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
