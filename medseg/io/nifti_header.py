"""NIfTI headers: what lies in a file, checked before a voxel is read.

Files are told by their content: plain or gzip, NIfTI-1 or NIfTI-2, either byte order, one file or a pair (.hdr, .img).
The sform gives the grid where its code is set, else the qform; a file with neither is refused, because its place in the
patient is unknown. So is Analyze 7.5, which looks like a pair and says neither where it lies nor which side is left.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.quaternions import quat2mat
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from medseg.core.geometry import Geometry
from medseg.errors import InvalidGeometry, ScanNotFound, UnreadableImage, UnsupportedDimensions
from medseg.io.foreign_content import describe_foreign
from medseg.io.volume_header import VolumeHeader
from medseg.io.voxel_bytes import VoxelSource, check_plain_file, check_promise, is_gzip, read_head, reading

__all__ = ["NiftiHeader", "RawHeader", "is_nifti_head", "is_nifti_name", "nifti_stem", "read_nifti_header"]

RawHeader = Any  # nibabel.Nifti1Header or Nifti2Header, whose methods are untyped

_SINGLE_SUFFIXES = (".nii.gz", ".nii")
_PAIR_SUFFIXES = (".hdr.gz", ".img.gz", ".hdr", ".img")
_HEADER_CLASSES: dict[int, tuple[Any, bytes, bytes]] = {
    348: (nib.Nifti1Header, b"n+1", b"ni1"),
    540: (nib.Nifti2Header, b"n+2", b"ni2"),
}
_LONGEST_HEADER = 544
_ANALYZE_BYTES = 348
_SPATIAL_UNIT_MASK, _METER, _MICRON = 7, 1, 3  # xyzt_units of the NIfTI standard
_LARGEST_OFFSET = 2**28  # bytes of header extensions; whole DICOM headers or CIFTI descriptions take some 10^7
_QFORM_TOLERANCE_MM = 0.1
_QUATERNION_TOLERANCE = 1e-5  # of the squared length above 1: rounding in float32, or of printed digits


@dataclass(frozen=True, eq=False)
class NiftiHeader:
    """A checked header: nibabel's, and what it says of the volume."""

    raw: RawHeader
    volume: VolumeHeader

    @property
    def geometry(self) -> Geometry:
        """The grid."""
        return self.volume.geometry

    @property
    def notes(self) -> tuple[str, ...]:
        """What is worth a note."""
        return self.volume.notes


def is_nifti_name(path: str | PathLike[str]) -> bool:
    """True if the name ends in .nii, .nii.gz, or as one of a pair (.hdr, .img, each with or without .gz)."""
    return Path(path).name.lower().endswith((*_SINGLE_SUFFIXES, *_PAIR_SUFFIXES))


def nifti_stem(path: str | PathLike[str]) -> str:
    """The name without the suffix of NIfTI."""
    name = Path(path).name
    suffixes = (*_SINGLE_SUFFIXES, *_PAIR_SUFFIXES)
    return next((name[: -len(suffix)] for suffix in suffixes if name.lower().endswith(suffix)), name)


def is_nifti_head(head: bytes) -> bool:
    """Whether a file that begins so is a NIfTI image in one file, whatever its name is."""
    size = _header_size(head)[0]
    return size is not None and head[(344 if size == 348 else 4) :].startswith(_HEADER_CLASSES[size][1])


def read_nifti_header(path: str | PathLike[str], n_values: int = 1) -> NiftiHeader:
    """Read and check the header of a NIfTI file; no voxels.

    Parameters
    ----------
    path
        The file, or one of a pair.
    n_values
        How many numbers a voxel has; more than one: a file of vectors, (I, J, K, 1, n).

    Raises
    ------
    ScanNotFound
        If there is no such file, or the other one of a pair is missing.
    UnreadableImage
        If it is not NIfTI, damaged, shorter than its header says, or holds colors or complex numbers.
    UnsupportedDimensions
        If it is not 3-D (single axes after the third are dropped with a note), or voxels have another number of values.
    InvalidGeometry
        If its spacing or affine is unusable, or it does not say where it lies.
    """
    file, voxel_file = _files(Path(path))
    is_pair = file != voxel_file
    raw = _parse(read_head(file, _LONGEST_HEADER), is_pair, file)
    shape, notes = _spatial_shape(raw, file) if n_values == 1 else (_shape_of_vectors(raw, n_values, file), ())
    affine, affine_notes = _affine(raw, shape, file)
    try:
        geometry = Geometry(shape, affine)
    except InvalidGeometry as error:
        raise InvalidGeometry(f"{file}: {error}") from error
    dtype: np.dtype[Any] = raw.get_data_dtype()
    offset = int(raw["vox_offset"]) or (0 if is_pair else int(raw.single_vox_offset))
    source = _source(voxel_file, math.prod(shape) * n_values * dtype.itemsize, offset)
    slope, intercept = _scaling(raw, file)
    notes = (*notes, *affine_notes, *check_promise(source))
    return NiftiHeader(raw, VolumeHeader(file, "nifti", geometry, dtype, source, slope, intercept, notes))


def _files(path: Path) -> tuple[Path, Path]:
    """The file of the header and the file of the voxels, the same unless they are a pair."""
    check_plain_file(path, "a NIfTI file")
    stem = nifti_stem(path)
    suffix = path.name[len(stem) :].lower()
    if suffix not in _PAIR_SUFFIXES:
        return path, path
    own, other = (".hdr", ".img") if suffix.startswith(".hdr") else (".img", ".hdr")
    if path.name[len(stem) + 1].isupper():
        other = other.upper()
    partners = [path.with_name(stem + other + packed) for packed in ("", ".gz", ".GZ")]
    with reading(path):
        found = next((partner for partner in partners if partner.is_file()), None)
    if found is None:
        raise ScanNotFound(f"{path} is half of a pair: no {partners[0].name} lies beside it")
    return (path, found) if own == ".hdr" else (found, path)


def _header_size(head: bytes) -> tuple[int | None, str]:
    """The size that the first four bytes say if NIfTI has it, and the byte order in which they say it."""
    for order, mark in (("little", "<"), ("big", ">")):
        for size in _HEADER_CLASSES:
            if head[:4] == size.to_bytes(4, "little" if order == "little" else "big"):
                return size, mark
    return None, "<"


def _parse(head: bytes, is_pair: bool, path: Path) -> RawHeader:
    size, byte_order = _header_size(head)
    if size is None or len(head) < size:
        what = "is cut off within its header" if size else f"is {describe_foreign(head)}"
        raise UnreadableImage(f"{path} is not a NIfTI file: it {what}")
    header_class, single_magic, pair_magic = _HEADER_CLASSES[size]
    # nibabel's own check repairs what it finds; here it is refused
    raw = header_class(head[:size], endianness=byte_order, check=False)
    found = raw["magic"].item()
    if is_pair and size == _ANALYZE_BYTES and not found.startswith((single_magic, pair_magic)):
        raise InvalidGeometry(
            f"{path} is Analyze 7.5, which says neither where it lies nor which side is left. Convert it to NIfTI from "
            "its source"
        )
    if not found.startswith(pair_magic if is_pair else single_magic):
        wanted = "the header of a NIfTI pair" if is_pair else "a single-file NIfTI image"
        raise UnreadableImage(f"{path} is not {wanted} (magic {found!r})")
    _check_raw(raw, is_pair, path)
    return raw


def _check_raw(raw: RawHeader, is_pair: bool, path: Path) -> None:
    offset = float(raw["vox_offset"])
    lowest = 0 if is_pair else raw.single_vox_offset
    if offset != 0 and not (lowest <= offset < _LARGEST_OFFSET and offset.is_integer()):
        raise UnreadableImage(f"{path} has a damaged NIfTI header: voxels cannot begin at byte {offset:g}")
    if not 1 <= int(raw["dim"][0]) <= 7:
        raise UnreadableImage(f"{path} has a damaged NIfTI header: it cannot have {int(raw['dim'][0])} dimensions")
    try:
        dtype = raw.get_data_dtype()
    except (HeaderDataError, KeyError) as error:
        raise UnreadableImage(f"{path} has a damaged NIfTI header: no voxel type {int(raw['datatype'])}") from error
    if dtype.kind not in "iuf" or dtype.itemsize == 0:
        raise UnreadableImage(f"{path} holds {dtype} voxels (color or complex); medseg reads plain numbers")


def _scaling(raw: RawHeader, path: Path) -> tuple[float | None, float | None]:
    """Slope and intercept; None where the standard says that there is no scaling."""
    slope, intercept = float(raw["scl_slope"]), float(raw["scl_inter"])
    if slope == 0 or math.isnan(slope):  # NaN is what nibabel writes for none
        return None, None
    if not (math.isfinite(slope) and math.isfinite(intercept)):
        raise UnreadableImage(f"{path}: the intensity scaling is invalid: slope {slope:g}, intercept {intercept:g}")
    return (None, None) if (slope, intercept) == (1.0, 0.0) else (slope, intercept)


def _source(path: Path, n_bytes: int, offset: int) -> VoxelSource:
    if is_gzip(path):
        return VoxelSource(path, n_bytes, "gzip", 0, offset)
    return VoxelSource(path, n_bytes, "none", offset)


def _spatial_shape(raw: RawHeader, path: Path) -> tuple[tuple[int, int, int], tuple[str, ...]]:
    shape = tuple(int(n) for n in raw["dim"][1 : 1 + int(raw["dim"][0])])
    if min(shape) < 1:
        raise UnreadableImage(f"{path} has a damaged NIfTI header: {shape} is no image size")
    if len(shape) < 3 or max(shape[3:], default=1) > 1:
        raise UnsupportedDimensions(f"{path} is {len(shape)}-D with shape {shape}; medseg reads 3-D volumes")
    dropped = (f"{path.name}: dropped {len(shape) - 3} single axes of shape {shape}",) if len(shape) > 3 else ()
    return (shape[0], shape[1], shape[2]), dropped


def _shape_of_vectors(raw: RawHeader, n_values: int, path: Path) -> tuple[int, int, int]:
    shape = tuple(int(n) for n in raw["dim"][1 : 1 + int(raw["dim"][0])])
    if min(shape) < 1 or shape[3:] != (1, n_values):
        raise UnsupportedDimensions(f"{path} has shape {shape}; expected (I, J, K, 1, {n_values})")
    return shape[0], shape[1], shape[2]


def _affine(raw: RawHeader, shape: tuple[int, int, int], path: Path) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    spacing = np.asarray(raw["pixdim"][1:4], dtype=np.float64)
    if not np.isfinite(spacing).all() or (spacing <= 0).any():
        raise InvalidGeometry(f"{path}: voxel spacing (pixdim) must be above 0 mm; got {spacing.tolist()}")
    if int(raw["xyzt_units"]) & _SPATIAL_UNIT_MASK in (_METER, _MICRON):
        raise InvalidGeometry(f"{path} gives positions in meters or microns (xyzt_units); medseg reads millimeters")
    if int(raw["sform_code"]) > 0:
        sform = np.asarray(raw.get_sform(), dtype=np.float64)
        return sform, _disagreement(raw, sform, shape, path)
    if int(raw["qform_code"]) > 0:
        return _qform(raw, path), ()
    raise InvalidGeometry(f"{path} does not say where it lies: neither sform nor qform code is set")


def _qform(raw: RawHeader, path: Path) -> NDArray[np.float64]:
    """The affine of the qform. The header leaves out the first part of the unit quaternion: what the others leave.

    After a half turn that is nothing, or, by rounding, less than nothing; nibabel refuses some of these.
    """
    vector = np.array([raw[name] for name in ("quatern_b", "quatern_c", "quatern_d")], dtype=np.float64)
    rest = 1.0 - float(vector @ vector)
    if not rest >= -_QUATERNION_TOLERANCE:
        raise InvalidGeometry(f"{path}: the qform is invalid: its quaternion {vector.tolist()} is longer than 1")
    turn_side = float(raw["pixdim"][0]) or 1.0  # the standard: a qfac of 0 means 1
    if turn_side not in (-1.0, 1.0):
        raise InvalidGeometry(f"{path}: the qform is invalid: its qfac (pixdim[0]) is {turn_side:g}, not 1 or -1")
    affine = np.eye(4)
    spacing = np.asarray(raw["pixdim"][1:4], dtype=np.float64) * (1.0, 1.0, turn_side)
    affine[:3, :3] = quat2mat([math.sqrt(max(rest, 0.0)), *vector]) * spacing  # type: ignore[no-untyped-call]
    affine[:3, 3] = [raw[name] for name in ("qoffset_x", "qoffset_y", "qoffset_z")]
    return affine


def _disagreement(
    raw: RawHeader, sform: NDArray[np.float64], shape: tuple[int, int, int], path: Path
) -> tuple[str, ...]:
    """A note if a qform is set as well and says something else: other readers may prefer it."""
    if int(raw["qform_code"]) <= 0:
        return ()
    try:
        distance = Geometry(shape, _qform(raw, path)).largest_displacement_mm(Geometry(shape, sform))
    except InvalidGeometry:
        return (f"{path.name}: the sform was used; the qform is invalid",)
    if distance <= _QFORM_TOLERANCE_MM:
        return ()
    return (f"{path.name}: the sform was used; the qform lies up to {distance:.2f} mm off",)
