"""DICOM files that hold lesions: segmentations and structure sets, read by content and written whole or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path

from pydicom import Dataset, dcmread
from pydicom.uid import RTStructureSetStorage

from medseg.core.geometry import Geometry
from medseg.dicom.rtstruct import read_rtstruct
from medseg.dicom.seg_reader import SEG_CLASSES, ReadLabels, read_seg
from medseg.errors import ScanNotFound, UnreadableImage, UsageError
from medseg.io.atomic import atomic_path
from medseg.io.dicom_headers import is_dicom, lenient_parsing
from medseg.io.volume_files import is_volume_name

__all__ = ["is_dicom_file", "read_dicom_labels", "write_dicom"]


def is_dicom_file(path: Path) -> bool:
    """Whether a path is a DICOM file, by content; names of volume files are taken at their word."""
    return not is_volume_name(path) and path.is_file() and is_dicom(path)


def read_dicom_labels(path: Path, like: Geometry | None = None, only: Sequence[str] = ()) -> ReadLabels:
    """The numbered segments of a SEG, or the numbered regions of an RTSTRUCT.

    Parameters
    ----------
    path
        The file.
    like
        The grid to put them on; an RTSTRUCT needs one, a SEG has one of its own.
    only
        Labels of the segments or regions to read; all of them if empty.

    Raises
    ------
    ScanNotFound
        If there is no such file.
    UnreadableImage
        If it is damaged, or holds no lesions (an image, a report).
    UsageError
        If it is an RTSTRUCT and no grid is given.
    InvalidLabelMap, GridMismatch, InvalidGeometry
        As `medseg.dicom.seg_reader.read_seg` and `medseg.dicom.rtstruct.read_rtstruct`.
    """
    if not path.is_file():
        raise ScanNotFound(f"{path} is no file; expected a DICOM SEG or RTSTRUCT")
    with lenient_parsing():
        try:
            dataset = dcmread(path, force=True)
            sop_class = str(dataset.get("SOPClassUID", ""))
        except Exception as error:  # a damaged file makes pydicom raise almost anything
            raise UnreadableImage(f"{path} has a damaged DICOM header: {error}. Fetch it anew") from error
        if sop_class in SEG_CLASSES:
            return read_seg(dataset, str(path), like, only)
        if sop_class != RTStructureSetStorage:
            raise UnreadableImage(
                f"{path} is a DICOM {dataset.get('Modality', 'object')}, no SEG and no RTSTRUCT; it holds no lesions"
            )
        if like is None:
            raise UsageError(
                f"{path} is an RTSTRUCT: contours in millimeters, without voxels. Give the scan that they were drawn "
                "on (--scan or --like)"
            )
        return read_rtstruct(dataset, str(path), like, only)


def write_dicom(dataset: Dataset, path: str | PathLike[str]) -> None:
    """Write an object as a DICOM file; replaced if it is there.

    Raises
    ------
    OutputNotWritable
        If the folder cannot be written.
    """
    with atomic_path(path) as temporary, lenient_parsing():
        dataset.save_as(temporary, enforce_file_format=True)
