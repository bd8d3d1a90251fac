"""NIfTI headers: what lies in a file, checked before a voxel is read.

Files are told by their content: plain or gzip, NIfTI-1 or NIfTI-2, either byte order. The sform gives the grid where
its code is set, else the qform; a file with neither is refused, because its place in the patient is unknown.
"""

from __future__ import annotations

import gzip
import io
import math
import zlib
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO, cast

import nibabel as nib
import numpy as np
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from medseg.core.geometry import Geometry
from medseg.errors import InvalidGeometry, ScanNotFound, UnreadableImage, UnsupportedDimensions

__all__ = ["NiftiHeader", "RawHeader", "is_nifti_name", "nifti_stem", "open_nifti", "read_nifti_header", "read_payload"]

RawHeader = Any  # nibabel.Nifti1Header or Nifti2Header, whose methods are untyped

_SUFFIXES = (".nii.gz", ".nii")
_GZIP_MAGIC = b"\x1f\x8b"
_LARGEST_GZIP_RATIO = 1032  # deflate cannot do better: zlib's own technical note
_HEADER_CLASSES: dict[int, tuple[Any, bytes]] = {348: (nib.Nifti1Header, b"n+1"), 540: (nib.Nifti2Header, b"n+2")}
_SPATIAL_UNIT_MASK, _METER, _MICRON = 7, 1, 3  # xyzt_units of the NIfTI standard
_LARGEST_OFFSET = 2**40  # bytes of header extensions
_QFORM_TOLERANCE_MM = 0.1


@dataclass(frozen=True, eq=False)
class NiftiHeader:
    """A checked header: nibabel's, the grid that it says, and what is worth a note about them."""

    raw: RawHeader
    geometry: Geometry
    notes: tuple[str, ...]

    @property
    def data_offset(self) -> int:
        """Bytes before the first voxel."""
        return int(self.raw["vox_offset"]) or int(self.raw.single_vox_offset)

    @property
    def n_bytes(self) -> int:
        """Bytes that a whole file holds, unpacked."""
        return self.data_offset + math.prod(self.geometry.shape) * int(self.raw.get_data_dtype().itemsize)


def is_nifti_name(path: str | PathLike[str]) -> bool:
    """True if the name ends in .nii or .nii.gz."""
    return Path(path).name.lower().endswith(_SUFFIXES)


def nifti_stem(path: str | PathLike[str]) -> str:
    """The name without .nii or .nii.gz."""
    name = Path(path).name
    return next((name[: -len(suffix)] for suffix in _SUFFIXES if name.lower().endswith(suffix)), name)


def read_nifti_header(path: str | PathLike[str]) -> NiftiHeader:
    """Read and check the header of a NIfTI file; no voxels.

    Raises
    ------
    ScanNotFound
        If there is no such file.
    UnreadableImage
        If it is not NIfTI, damaged, or shorter than its header says.
    UnsupportedDimensions
        If it is not 3-D (single axes after the third are dropped with a note).
    InvalidGeometry
        If its spacing or affine is unusable, or neither sform nor qform is set.
    """
    with open_nifti(path) as stream:
        raw = _parse(stream, Path(path))
    shape, notes = _spatial_shape(raw, Path(path))
    affine, affine_notes = _affine(raw, shape, Path(path))
    try:
        header = NiftiHeader(raw, Geometry(shape, affine), (*notes, *affine_notes))
    except InvalidGeometry as error:
        raise InvalidGeometry(f"{path}: {error}") from error
    _check_size(header, Path(path))
    return header


def open_nifti(path: str | PathLike[str]) -> BinaryIO:
    """Open a file that is named like NIfTI for reading, unpacking gzip by content."""
    file = Path(path)
    if not is_nifti_name(file):
        raise UnreadableImage(f"{file} does not end in .nii or .nii.gz; medseg reads NIfTI files and DICOM folders")
    if not file.is_file():
        what = "is a folder" if file.is_dir() else "does not exist"
        raise ScanNotFound(f"{file} {what}; expected a NIfTI file")
    with file.open("rb") as stream:
        packed = stream.read(2) == _GZIP_MAGIC
    return cast(BinaryIO, gzip.open(file, "rb")) if packed else file.open("rb")


def _parse(stream: BinaryIO, path: Path) -> RawHeader:
    try:
        head = stream.read(544)
    except (OSError, EOFError, zlib.error) as error:
        raise UnreadableImage(f"{path} is damaged: {error}. Fetch or make it anew") from error
    if head.startswith(b"version https://git-lfs"):
        raise UnreadableImage(f"{path} is a Git LFS pointer, not the image; 'git lfs pull' fetches the image")
    size = next((n for n in _HEADER_CLASSES for order in ("little", "big") if head[:4] == n.to_bytes(4, order)), None)
    if size is None or len(head) < size:
        raise UnreadableImage(f"{path} is not a NIfTI file: it begins with {head[:16]!r}")
    header_class, magic = _HEADER_CLASSES[size]
    raw = header_class(head[:size], check=False)  # nibabel's own check repairs what it finds; here it is refused
    _check_raw(raw, magic, path)
    return raw


def _check_raw(raw: RawHeader, magic: bytes, path: Path) -> None:
    if not raw["magic"].item().startswith(magic):
        raise UnreadableImage(f"{path} is not a single-file NIfTI image (magic {raw['magic'].item()!r})")
    offset = float(raw["vox_offset"])
    if offset != 0 and not raw.single_vox_offset <= offset < _LARGEST_OFFSET:
        raise UnreadableImage(f"{path} has a damaged NIfTI header: voxels cannot begin at byte {offset:g}")
    if not 1 <= int(raw["dim"][0]) <= 7:
        raise UnreadableImage(f"{path} has a damaged NIfTI header: it cannot have {int(raw['dim'][0])} dimensions")
    try:
        raw.get_data_dtype()
    except (HeaderDataError, KeyError) as error:
        raise UnreadableImage(f"{path} has a damaged NIfTI header: no voxel type {int(raw['datatype'])}") from error


def _spatial_shape(raw: RawHeader, path: Path) -> tuple[tuple[int, int, int], tuple[str, ...]]:
    shape = tuple(int(n) for n in raw["dim"][1 : 1 + int(raw["dim"][0])])
    if min(shape) < 1:
        raise UnreadableImage(f"{path} has a damaged NIfTI header: {shape} is no image size")
    if len(shape) < 3 or max(shape[3:], default=1) > 1:
        raise UnsupportedDimensions(f"{path} is {len(shape)}-D with shape {shape}; medseg reads 3-D volumes")
    dropped = (f"{path.name}: dropped {len(shape) - 3} single axes of shape {shape}",) if len(shape) > 3 else ()
    return (shape[0], shape[1], shape[2]), dropped


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
    header = raw.copy()
    if float(header["pixdim"][0]) == 0:
        header["pixdim"][0] = 1.0  # the standard: a qfac of 0 means 1
    try:
        return np.asarray(header.get_qform(), dtype=np.float64)
    except (HeaderDataError, ValueError) as error:
        raise InvalidGeometry(f"{path}: the qform is invalid: {error}") from error


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


def _check_size(header: NiftiHeader, path: Path) -> None:
    """Compare what the header promises with the file's size, before anything is allocated."""
    on_disk = path.stat().st_size
    with path.open("rb") as stream:
        packed = stream.read(2) == _GZIP_MAGIC
    most = on_disk * _LARGEST_GZIP_RATIO if packed else on_disk
    if header.n_bytes > most:
        raise UnreadableImage(
            f"{path} is truncated: its header promises {header.n_bytes} bytes, the file has {on_disk}"
            f"{' (gzip)' if packed else ''}. Fetch or make it anew"
        )


def read_payload(path: Path, header: NiftiHeader) -> memoryview:
    """All bytes of the file, unpacked, as many as the header promises; a gzip checksum is verified.

    Raises
    ------
    UnreadableImage
        If the file ends early or its gzip stream is damaged.
    """
    payload = io.BytesIO()
    try:
        with open_nifti(path) as stream:
            while payload.tell() < header.n_bytes and (chunk := stream.read(min(1 << 24, header.n_bytes))):
                payload.write(chunk)
            while stream.read(1 << 24):
                pass  # the checksum comes after the last byte
    except (OSError, EOFError, zlib.error) as error:
        raise UnreadableImage(f"{path} is damaged: {error}. Fetch or make it anew") from error
    if payload.tell() < header.n_bytes:
        raise UnreadableImage(
            f"{path} is truncated: its header promises {header.n_bytes} bytes, it holds {payload.tell()}. "
            "Fetch or make it anew"
        )
    return payload.getbuffer()
