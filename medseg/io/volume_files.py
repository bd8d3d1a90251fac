"""One door to every format that keeps a volume in one file (or a header and a file of voxels): NIfTI, NRRD, MetaImage.

The suffix names the format; a file whose suffix names none is told by its content.
"""

from __future__ import annotations

from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from medseg.core.geometry import Geometry
from medseg.errors import UnreadableImage
from medseg.io.foreign_content import describe_foreign
from medseg.io.metaimage import FIRST_KEYS, read_metaimage_header
from medseg.io.nifti_header import is_nifti_head, is_nifti_name, nifti_stem, read_nifti_header
from medseg.io.nrrd import read_nrrd_header
from medseg.io.volume_header import VolumeHeader, read_float_voxels
from medseg.io.voxel_bytes import check_plain_file, read_head, reading

__all__ = [
    "SUFFIXES",
    "is_volume_file",
    "is_volume_name",
    "read_volume_array",
    "read_volume_header",
    "volume_format",
    "volume_stem",
]

VolumeFormat = Literal["nifti", "nrrd", "metaimage"]

SUFFIXES = ".nii, .nii.gz, .hdr with .img, .nrrd, .nhdr, .mha, .mhd"
_OTHER_SUFFIXES: dict[str, VolumeFormat] = {
    ".nrrd": "nrrd",
    ".nhdr": "nrrd",
    ".mha": "metaimage",
    ".mhd": "metaimage",
}
_HEAD_BYTES = 544  # a NIfTI-2 header; the others show themselves sooner


def is_volume_name(path: str | PathLike[str]) -> bool:
    """True if the name ends like a file of NIfTI, NRRD or MetaImage."""
    return is_nifti_name(path) or Path(path).suffix.lower() in _OTHER_SUFFIXES


def volume_stem(path: str | PathLike[str]) -> str:
    """The name without the suffix of its format."""
    return Path(path).stem if Path(path).suffix.lower() in _OTHER_SUFFIXES else nifti_stem(path)


def volume_format(path: str | PathLike[str]) -> VolumeFormat | None:
    """The format of a file by suffix, or else by content; None if it is none of these.

    Raises
    ------
    ScanNotFound, UnreadableImage
        If the suffix names none and the file cannot be opened.
    """
    file = Path(path)
    if is_nifti_name(file):
        return "nifti"
    if file.suffix.lower() in _OTHER_SUFFIXES:
        return _OTHER_SUFFIXES[file.suffix.lower()]
    check_plain_file(file, "a scan")
    try:
        head = read_head(file, _HEAD_BYTES)
    except UnreadableImage:  # damaged gzip: whatever it was, it is no volume
        return None
    if head.startswith(b"NRRD000"):
        return "nrrd"
    if head.startswith(FIRST_KEYS) and b"NDims" in head:
        return "metaimage"
    return "nifti" if is_nifti_head(head) else None


def is_volume_file(path: str | PathLike[str]) -> bool:
    """True for the file that stands for a volume in a folder: of a pair .hdr/.img the header only.

    Raises
    ------
    ScanNotFound, UnreadableImage
        As `volume_format`.
    """
    file = Path(path)
    name = file.name.lower()
    if name.endswith((".img", ".img.gz")):
        return False
    if name.endswith((".hdr", ".hdr.gz")):
        return any(sibling.is_file() for sibling in _image_siblings(file))  # others name pictures and maps so too
    return volume_format(file) is not None


def read_volume_header(path: str | PathLike[str]) -> VolumeHeader:
    """Read and check the header of a volume; no voxels.

    Raises
    ------
    ScanNotFound
        If there is no such file, or the file of its voxels is missing.
    UnreadableImage
        If it is of no known format, damaged, or shorter than its header says.
    UnsupportedDimensions
        If it is not one 3-D volume of plain numbers.
    InvalidGeometry
        If it does not say where it lies, or its place is unusable.
    """
    file = Path(path)
    found = volume_format(file)
    if found is None:
        with reading(file), file.open("rb") as stream:
            what = describe_foreign(stream.read(_HEAD_BYTES))
        raise UnreadableImage(f"{file} is no volume that medseg reads ({SUFFIXES}): it is {what}")
    with reading(file):
        return _READERS[found](file)


def read_volume_array(path: str | PathLike[str]) -> tuple[NDArray[np.float32], Geometry, tuple[str, ...]]:
    """The rescaled voxels of a volume, NaN and infinity included.

    Returns
    -------
    array
        (I, J, K) float32.
    geometry
        The grid.
    notes
        What was assumed, dropped or odd, for the provenance.

    Raises
    ------
    ScanNotFound, UnreadableImage, UnsupportedDimensions, InvalidGeometry
        As `read_volume_header`.
    ScanTooLarge
        If the voxels do not fit into memory.
    """
    header = read_volume_header(path)
    array, notes = read_float_voxels(header)
    return array, header.geometry, (*header.notes, *(note for note in notes if note not in header.notes))


def _image_siblings(header: Path) -> list[Path]:
    return [header.with_name(nifti_stem(header) + suffix) for suffix in (".img", ".img.gz", ".IMG", ".IMG.GZ")]


def _nifti(path: Path) -> VolumeHeader:
    return read_nifti_header(path).volume


_READERS: dict[VolumeFormat, Callable[[Path], VolumeHeader]] = {
    "nifti": _nifti,
    "nrrd": read_nrrd_header,
    "metaimage": read_metaimage_header,
}
