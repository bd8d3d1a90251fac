"""Files of label maps to values: class numbers to a `SemanticMap`, lesion numbers to a `LesionMap`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.core.geometry import Geometry
from medseg.core.labels import BINARY_LESION, LabelScheme
from medseg.core.lesions import Lesion, LesionMap, label_dtype
from medseg.core.semantic import SemanticMap
from medseg.errors import InvalidLabelMap
from medseg.io.dicom_labels import is_dicom_file, read_dicom_labels
from medseg.io.volume_files import read_volume_header
from medseg.io.volume_header import read_stored_voxels
from medseg.lesions.numbering import number_lesions

__all__ = ["read_lesions", "read_semantic"]

_INTEGER_TOLERANCE = 1e-3  # a stored slope may leave this much on a class number


def read_semantic(
    path: str | PathLike[str], scheme: LabelScheme | None = None, like: Geometry | None = None
) -> SemanticMap:
    """Read a map of class numbers, or a DICOM SEG or RTSTRUCT whose segments or regions are classes.

    Parameters
    ----------
    path
        A NIfTI, NRRD or MetaImage file of whole, non-negative numbers, stored as integers or floats.
    scheme
        What the numbers mean. Without one, a map of 0 and 1 is background and "lesion", and any other number n
        becomes "class_n"; a DICOM object names its own classes.
    like
        For DICOM objects: the grid to put them on, see `read_lesions`.

    Raises
    ------
    InvalidLabelMap
        If a number is negative, not whole, NaN, above 65535, or not in the scheme.
    ScanNotFound, UnreadableImage, UnsupportedDimensions, InvalidGeometry, ScanTooLarge
        As `medseg.io.volume_files.read_volume_array`.
    """
    file = Path(path)
    if is_dicom_file(file):
        read = read_dicom_labels(file, like)
        return SemanticMap(read.array, read.geometry, scheme or LabelScheme(classes=read.names))
    labels, geometry = _read_labels(file)
    highest = int(labels.max(initial=0))
    if highest > np.iinfo(np.uint16).max:
        raise InvalidLabelMap(f"{path}: class numbers go up to 65535; found {highest}")
    array: NDArray[np.unsignedinteger] = labels.astype(np.uint8 if highest <= np.iinfo(np.uint8).max else np.uint16)
    try:
        return SemanticMap(array, geometry, scheme or _scheme_of(array))
    except InvalidLabelMap as error:
        raise InvalidLabelMap(f"{path}: {error}") from error


def read_lesions(path: str | PathLike[str], like: Geometry | None = None, only: Sequence[str] = ()) -> LesionMap:
    """Read a map of lesion numbers, a DICOM SEG or an RTSTRUCT.

    A map that holds exactly 1..n keeps its numbers. Any other is renumbered by descending volume, then by world
    centroid (`medseg.lesions.numbering.number_lesions`), and `renumbered` is True.

    Parameters
    ----------
    path
        A NIfTI, NRRD or MetaImage file of whole, non-negative numbers, stored as integers or floats; or a DICOM SEG
        (each segment is a lesion) or RTSTRUCT (each region is one).
    like
        For DICOM objects: the grid to put them on, that of the scan. A SEG without it lies on the grid of the slices
        that it stores, which often begins and ends with its lesions; an RTSTRUCT needs it. Other files keep theirs.
    only
        For DICOM objects: labels of the segments or regions to read; all of them if empty.

    Raises
    ------
    InvalidLabelMap
        If a number is negative, not whole, or NaN; or segments or regions share voxels.
    GridMismatch
        If a DICOM object does not lie on the given grid.
    UsageError
        If an RTSTRUCT comes without a grid.
    ScanNotFound, UnreadableImage, UnsupportedDimensions, InvalidGeometry, ScanTooLarge
        As `medseg.io.volume_files.read_volume_array`.
    """
    file = Path(path)
    names: Mapping[int, str] = {}
    if is_dicom_file(file):
        read = read_dicom_labels(file, like, only)
        geometry, names = read.geometry, read.names
        labels: NDArray[np.integer] = read.array
    else:
        labels, geometry = _read_labels(file)
    numbers = np.unique(labels[labels > 0])
    renumbered = not np.array_equal(numbers, np.arange(1, numbers.size + 1))
    array: NDArray[Any] = labels.astype(label_dtype(numbers.size))
    if renumbered:
        array, numbers = number_lesions(labels, geometry)
    lesions = tuple(Lesion(names.get(number, "lesion")) for number in numbers.tolist())
    return LesionMap(array, geometry, lesions, method="read", renumbered=renumbered)


def _read_labels(path: Path) -> tuple[NDArray[np.integer], Geometry]:
    """The whole, non-negative numbers of a label map, in whatever type they are stored."""
    header = read_volume_header(path)
    stored, _ = read_stored_voxels(header)
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
