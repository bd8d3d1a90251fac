"""One DICOM series as a volume: found by content, ordered by position, refused if it is not a regular stack.

DICOM speaks LPS; this module is where it becomes RAS+. The array axes are (column, row, slice): the first index
walks along a row of pixels. A tilted gantry shears the affine, and the shear is kept as it is.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread

from medseg.core.geometry import Geometry
from medseg.errors import (
    AmbiguousSeries,
    IncompleteSeries,
    InvalidGeometry,
    ScanNotFound,
    UnreadableImage,
    UnsupportedDimensions,
)
from medseg.io.dicom_headers import SliceHeader, is_dicom, number_tag, read_slice_header

__all__ = [
    "FolderListing",
    "OrderedSeries",
    "Series",
    "choose_series",
    "list_series",
    "order_slices",
    "read_series_array",
]

logger = logging.getLogger(__name__)

_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_STEP_TOLERANCE = 0.01  # of the slice spacing, and at least _STEP_TOLERANCE_MM
_STEP_TOLERANCE_MM = 0.01
_SAME_POSITION_MM = 1e-3
_SAME_DIRECTION = 1e-4
_COSINE_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Series:
    """The image files of one series, in no order yet."""

    slices: tuple[SliceHeader, ...]

    @property
    def uid(self) -> str:
        """Its SeriesInstanceUID."""
        return self.slices[0].series_uid

    def __str__(self) -> str:
        first = self.slices[0]
        description = f" {first.series_description!r}" if first.series_description else ""
        return f"number {first.series_number or '-'}: {first.modality}{description}, {len(self.slices)} file(s)"


@dataclass(frozen=True)
class FolderListing:
    """What a folder holds: its series, and how many files are no DICOM files or no images."""

    folder: Path
    series: tuple[Series, ...]
    n_other_files: int
    n_not_images: int


@dataclass(frozen=True, eq=False)
class OrderedSeries:
    """A regular stack: its slices along their normal, and the grid that they make."""

    slices: tuple[SliceHeader, ...]
    geometry: Geometry

    @property
    def files(self) -> tuple[Path, ...]:
        """The files in slice order."""
        return tuple(header.path for header in self.slices)


def list_series(folder: str | PathLike[str]) -> FolderListing:
    """Every DICOM image series under a folder, told by content, sorted by number and UID.

    Raises
    ------
    ScanNotFound
        If there is no such folder.
    UnreadableImage
        If a DICOM file is damaged: leaving it out could make a volume shorter without anyone noticing.
    """
    root = Path(folder)
    if not root.is_dir():
        raise ScanNotFound(f"{root} is no folder; expected one with DICOM files")
    groups: dict[tuple[str, str], list[SliceHeader]] = {}
    n_other = n_not_images = 0
    for path in _files_under(root):
        if not is_dicom(path):
            n_other += 1
        elif (header := read_slice_header(path)) is None:
            n_not_images += 1
        else:
            groups.setdefault((header.study_uid, header.series_uid), []).append(header)
    logger.info("%d series; skipped %d other files, %d DICOM objects", len(groups), n_other, n_not_images)
    series = sorted((Series(tuple(headers)) for headers in groups.values()), key=_listing_order)
    return FolderListing(root, tuple(series), n_other, n_not_images)


def choose_series(listing: FolderListing, series: str | int | None = None) -> Series:
    """The series asked for by UID, number or description; without a choice, the only one.

    Raises
    ------
    ScanNotFound
        If the folder holds no series, or none by that name.
    AmbiguousSeries
        If several fit; the message lists them.
    """
    if not listing.series:
        raise ScanNotFound(
            f"{listing.folder} holds no DICOM image ({listing.n_other_files} other files, "
            f"{listing.n_not_images} DICOM objects that are no images)"
        )
    fitting = [candidate for candidate in listing.series if series is None or _is_named(candidate, str(series))]
    if len(fitting) == 1:
        return fitting[0]
    choices = "\n".join(f"  {candidate}" for candidate in fitting or listing.series)
    if not fitting:
        raise ScanNotFound(f"{listing.folder} holds no series {series!r}; it holds\n{choices}")
    raise AmbiguousSeries(
        f"{listing.folder} holds {len(fitting)} series; choose one by number, description or UID (--series)\n{choices}"
    )


def order_slices(series: Series) -> OrderedSeries:
    """Order the slices of a series along their normal and work out its grid.

    Raises
    ------
    UnsupportedDimensions
        If the files are multi-frame, or there is only one slice.
    InvalidGeometry
        If a slice does not say where it lies, or the slices differ in orientation, size or pixel spacing.
    IncompleteSeries
        If slices are missing, doubled or irregularly spaced (beyond 1 % of the spacing or 0.01 mm).
    """
    _check_one_volume(series)
    orientation = np.array(series.slices[0].orientation)
    normal = np.cross(orientation[:3], orientation[3:])
    slices = tuple(sorted(series.slices, key=lambda header: float(np.dot(normal, _position(header)))))
    positions = np.array([_position(header) for header in slices])
    _check_steps(series, positions, normal)
    row_spacing, column_spacing = slices[0].pixel_spacing or (0.0, 0.0)
    lps = np.eye(4)
    lps[:3, 0] = orientation[:3] * column_spacing
    lps[:3, 1] = orientation[3:] * row_spacing
    lps[:3, 2] = (positions[-1] - positions[0]) / (len(slices) - 1)
    lps[:3, 3] = positions[0]
    shape = (slices[0].columns, slices[0].rows, len(slices))
    try:
        return OrderedSeries(slices, Geometry(shape, _LPS_TO_RAS @ lps))
    except InvalidGeometry as error:
        raise InvalidGeometry(f"{_named(series)}: {error}") from error


def read_series_array(files: Sequence[Path], shape: tuple[int, int, int]) -> NDArray[np.float32]:
    """The rescaled pixels of ordered slices.

    Parameters
    ----------
    files
        One single-frame DICOM file a slice, in slice order.
    shape
        (columns, rows, slices) that the headers promised.

    Returns
    -------
    (I, J, K) = (column, row, slice) float32, each slice by its own rescale slope and intercept.

    Raises
    ------
    UnreadableImage
        If a file's pixels are missing, truncated, of another size, or compressed in a way that no installed codec
        reads.
    """
    stack = np.empty(shape[::-1], dtype=np.float32)
    for pixels, path in zip(stack, files, strict=True):
        pixels[:] = _rescaled_pixels(path, (shape[1], shape[0]))
    return stack.transpose(2, 1, 0)


def _files_under(root: Path) -> list[Path]:
    """All plain files below, in a fixed order; links to folders are not followed (they may run in circles)."""
    found = [Path(folder, name) for folder, _, names in os.walk(root) for name in names]
    return sorted(path for path in found if path.is_file())


def _listing_order(series: Series) -> tuple[int, str, str]:
    number = series.slices[0].series_number
    return (int(number) if number.isdigit() else -1, series.slices[0].study_uid, series.uid)


def _is_named(series: Series, name: str) -> bool:
    first = series.slices[0]
    return name in (first.series_uid, first.series_number) or name.lower() == first.series_description.lower()


def _named(series: Series) -> str:
    return f"series {series} in {series.slices[0].path.parent}"


def _position(header: SliceHeader) -> NDArray[np.float64]:
    return np.array(header.position, dtype=np.float64)


def _check_one_volume(series: Series) -> None:
    for header in series.slices:
        _check_slice(header)
    if len(series.slices) < 2:
        raise UnsupportedDimensions(f"{_named(series)} is a single slice; a volume needs at least two")
    for what, values in (
        ("orientation", [header.orientation for header in series.slices]),
        ("pixel spacing", [header.pixel_spacing for header in series.slices]),
        ("rows and columns", [(header.rows, header.columns) for header in series.slices]),
    ):
        numbers = np.array(values, dtype=np.float64)
        if np.abs(numbers - numbers[0]).max() > _SAME_DIRECTION:
            kinds = sorted({str(value) for value in values})
            raise InvalidGeometry(
                f"{_named(series)} is not one volume: its slices differ in {what}: {'; '.join(kinds[:4])}. "
                "Split it into its stacks (a localizer is no scan to segment)"
            )


def _check_slice(header: SliceHeader) -> None:
    if header.n_frames > 1:
        raise UnsupportedDimensions(
            f"{header.path} is an enhanced multi-frame file ({header.n_frames} frames); medseg reads one slice a file. "
            "Convert it to classic slices or NIfTI"
        )
    for keyword, value in (
        ("ImagePositionPatient", header.position),
        ("ImageOrientationPatient", header.orientation),
        ("PixelSpacing", header.pixel_spacing),
    ):
        if value is None:
            raise InvalidGeometry(f"{header.path} does not say where it lies: {keyword} is missing")
    if min(header.pixel_spacing or (0.0,)) <= 0:
        raise InvalidGeometry(f"{header.path}: PixelSpacing must be above 0 mm; got {header.pixel_spacing}")
    row, column = np.reshape(np.array(header.orientation), (2, 3))
    error = max(abs(np.linalg.norm(row) - 1), abs(np.linalg.norm(column) - 1), abs(np.dot(row, column)))
    if error > _COSINE_TOLERANCE:
        raise InvalidGeometry(
            f"{header.path}: ImageOrientationPatient must be two perpendicular unit vectors; got {header.orientation}"
        )


def _check_steps(series: Series, positions: NDArray[np.float64], normal: NDArray[np.float64]) -> None:
    """Refuse slices that are doubled, missing, or off the straight line through the others."""
    heights = positions @ normal
    heights_apart = np.diff(heights)
    doubled = np.flatnonzero(heights_apart <= _SAME_POSITION_MM)
    if doubled.size:
        raise IncompleteSeries(
            f"{_named(series)} has {doubled.size} slice(s) too many at the same place (first at "
            f"{_place(positions[doubled[0]], normal)}): doubled files, or several echoes, phases or time points in one "
            "series. Split it, or remove the doubles"
        )
    usual = float(np.quantile(heights_apart, 0.5, method="lower"))
    tolerance = max(_STEP_TOLERANCE_MM, _STEP_TOLERANCE * usual)
    uneven = np.flatnonzero(np.abs(heights_apart - usual) > tolerance)
    if uneven.size:
        raise IncompleteSeries(_describe_gaps(series, positions, normal, usual, uneven))
    steps = np.diff(positions, axis=0)
    drift = np.linalg.norm(steps - np.median(steps, axis=0), axis=1)
    if drift.max() > tolerance:
        worst = _place(positions[int(np.argmax(drift))], normal)
        raise IncompleteSeries(
            f"{_named(series)} is no straight stack: after {worst} the next slice lies {drift.max():.2f} mm beside the "
            "line of the others"
        )


def _describe_gaps(
    series: Series, positions: NDArray[np.float64], normal: NDArray[np.float64], usual: float, uneven: NDArray[np.intp]
) -> str:
    steps = np.diff(positions @ normal)
    n_missing = int(np.sum(np.maximum(np.rint(steps[uneven] / usual) - 1, 0)))
    gaps = ", ".join(f"{steps[gap]:.2f} mm after {_place(positions[gap], normal)}" for gap in uneven[:5])
    more = f" and {uneven.size - 5} more" if uneven.size > 5 else ""
    lacks = f"lacks about {n_missing} slice(s)" if n_missing else "is irregularly spaced"
    return (
        f"{_named(series)} {lacks}: steps of {gaps}{more}; {usual:.2f} mm elsewhere. Volumes would be wrong. "
        "Fetch the series whole, or resample it on purpose first"
    )


def _place(position: NDArray[np.float64], normal: NDArray[np.float64]) -> str:
    """A slice position along the patient axis nearest to the normal, as "z = -212.50 mm" (LPS, as DICOM says it)."""
    axis = int(np.argmax(np.abs(normal)))
    return f"{'xyz'[axis]} = {position[axis]:.2f} mm"


def _rescaled_pixels(path: Path, expected: tuple[int, int]) -> NDArray[np.float32]:
    try:
        dataset = dcmread(path)
        pixels = dataset.pixel_array
    except Exception as error:  # pydicom and its codecs raise almost anything for a damaged file
        raise UnreadableImage(f"{path}: the pixels cannot be read: {error}") from error
    if pixels.shape != expected:
        raise UnreadableImage(f"{path}: the pixels have shape {pixels.shape}; the header said {expected}")
    slope, intercept = _rescale(dataset, path)
    return (pixels * slope + intercept).astype(np.float32)


def _rescale(dataset: Dataset, path: Path) -> tuple[float, float]:
    slope = number_tag(dataset, "RescaleSlope", path)
    intercept = number_tag(dataset, "RescaleIntercept", path)
    return (1.0 if slope is None else slope, 0.0 if intercept is None else intercept)
