"""DICOM headers: the tags that place and rescale a slice, each checked as it is read.

Only the tags that are needed are parsed; names, birth dates and comments are never touched.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydicom import Dataset, config, dcmread
from pydicom.uid import UID

from medseg.errors import UnreadableImage

__all__ = ["SliceHeader", "is_dicom", "number_tag", "numbers_tag", "read_slice_header", "read_tags"]

_DICOM_SUFFIXES = (".dcm", ".ima", ".dicom")
_NO_VOLUME = {"SEG", "RTDOSE", "RTIMAGE", "RTPLAN", "RTSTRUCT", "PR", "KO", "SR", "REG", "DOC"}
_TAGS = [
    *("SOPClassUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"),
    *("Modality", "SeriesNumber", "SeriesDescription", "Units"),
    *("Rows", "Columns", "SamplesPerPixel", "NumberOfFrames"),
    *("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"),
]


@dataclass(frozen=True)
class SliceHeader:
    """What one image file says of itself; None where a tag is absent.

    Positions are LPS millimeters as DICOM writes them; `pixel_spacing` is (between rows, between columns).
    """

    path: Path
    study_uid: str
    series_uid: str
    frame_of_reference_uid: str | None
    modality: str
    series_number: str
    series_description: str
    units: str | None
    rows: int
    columns: int
    n_frames: int
    position: tuple[float, ...] | None
    orientation: tuple[float, ...] | None
    pixel_spacing: tuple[float, ...] | None


def is_dicom(path: Path) -> bool:
    """Whether a file is DICOM, by content; UnreadableImage if it is not but is named like it."""
    with path.open("rb") as file:
        found = file.read(132)[128:] == b"DICM"
    if not found and path.suffix.lower() in _DICOM_SUFFIXES:
        raise UnreadableImage(f"{path} is named like a DICOM file but is none")
    return found


def read_slice_header(path: Path) -> SliceHeader | None:
    """The header of a DICOM image, or None for an object without gray slices (structure set, report, screenshot, ...).

    Raises
    ------
    UnreadableImage
        If the file is truncated, or a tag is malformed.
    """
    tags = read_tags(path, _TAGS)
    if not _is_gray_image(tags, path):
        return None
    return SliceHeader(
        path=path,
        study_uid=_text_tag(tags, "StudyInstanceUID", path, required=True),
        series_uid=_text_tag(tags, "SeriesInstanceUID", path, required=True),
        frame_of_reference_uid=_text_tag(tags, "FrameOfReferenceUID", path) or None,
        modality=_text_tag(tags, "Modality", path),
        series_number=_text_tag(tags, "SeriesNumber", path),
        series_description=_text_tag(tags, "SeriesDescription", path),
        units=_text_tag(tags, "Units", path) or None,
        rows=int(tags.Rows),
        columns=int(tags.Columns),
        n_frames=int(number_tag(tags, "NumberOfFrames", path) or 1),
        position=numbers_tag(tags, "ImagePositionPatient", 3, path),
        orientation=numbers_tag(tags, "ImageOrientationPatient", 6, path),
        pixel_spacing=numbers_tag(tags, "PixelSpacing", 2, path),
    )


def read_tags(path: Path, keywords: list[str]) -> Dataset:
    """The named tags of a DICOM file, with its file meta information; no pixels.

    Raises
    ------
    UnreadableImage
        If the header is damaged.
    """
    try:
        with config.disable_value_validation():  # overlong texts are common and do no harm; numbers are checked below
            return dcmread(path, stop_before_pixels=True, specific_tags=keywords)
    except Exception as error:  # a damaged header makes pydicom raise almost anything
        raise UnreadableImage(f"{path} has a damaged DICOM header: {error}. Fetch it anew") from error


def number_tag(tags: Dataset, keyword: str, path: Path) -> float | None:
    """One finite number, or None where the tag is absent or empty; UnreadableImage names a malformed one."""
    numbers = numbers_tag(tags, keyword, 1, path)
    return None if numbers is None else numbers[0]


def numbers_tag(tags: Dataset, keyword: str, count: int, path: Path) -> tuple[float, ...] | None:
    """`count` finite numbers, or None where the tag is absent or empty; UnreadableImage names a malformed one."""
    value = _value(tags, keyword, path)
    if value is None or value == "":
        return None
    try:
        numbers = tuple(float(part) for part in (value if count > 1 else (value,)))
    except (TypeError, ValueError) as error:
        raise UnreadableImage(f"{path}: {keyword} is malformed: {value!r}") from error
    if len(numbers) != count or not all(math.isfinite(number) for number in numbers):
        raise UnreadableImage(f"{path}: {keyword} must be {count} finite number(s); got {value!r}")
    return numbers


def _text_tag(tags: Dataset, keyword: str, path: Path, required: bool = False) -> str:
    value = _value(tags, keyword, path)
    text = "" if value is None else str(value).strip()
    if required and not text:
        raise UnreadableImage(f"{path} lacks {keyword}: it cannot be told which series it belongs to")
    return text


def _value(tags: Dataset, keyword: str, path: Path) -> Any:
    """A tag's value; pydicom converts it here, so here it fails."""
    try:
        with config.disable_value_validation():
            return tags.get(keyword)
    except Exception as error:
        raise UnreadableImage(f"{path}: {keyword} is malformed: {error}") from error


def _is_gray_image(tags: Dataset, path: Path) -> bool:
    """Tell images from other objects, and both from a file that was cut off before it could say."""
    sop_class = _text_tag(tags, "SOPClassUID", path) or str(tags.file_meta.get("MediaStorageSOPClassUID", ""))
    if not sop_class:
        raise UnreadableImage(f"{path} is truncated: it does not say what kind of object it is. Fetch it anew")
    if _text_tag(tags, "Modality", path) in _NO_VOLUME:
        return False
    has_size = "Rows" in tags and "Columns" in tags
    if not has_size and UID(sop_class).name.endswith("Image Storage"):
        raise UnreadableImage(f"{path} is truncated: an image without Rows and Columns. Fetch it anew")
    return has_size and number_tag(tags, "SamplesPerPixel", path) in (1, None)
