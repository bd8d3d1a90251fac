"""What an object derived from a series takes over from it: patient and study, the grid, and which frame each slice is.

Series come as single slices, multi-frame files, mosaics, with tags missing and with tags that break the standard.
highdicom wants none of that, so it is shown stand-ins: plain single-slice images, one a slice, with all that an object
needs. The references to them are then replaced by those to the frames that are really stored.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from pydicom import Dataset
from pydicom.uid import CTImageStorage
from pydicom.valuerep import format_number_as_ds

from medseg.core.geometry import Geometry

__all__ = [
    "Algorithm",
    "SliceReference",
    "SourceSeries",
    "carry_over",
    "decimal",
    "derived_uid",
    "point_to_source",
    "stand_ins",
    "unnamed_header",
]

_STAND_IN = "2.25.1."
_DS_CHARACTERS = 16


@dataclass(frozen=True)
class Algorithm:
    """What found the lesions, as objects name it: `parameters` are texts such as "weights SHA-256: ..."."""

    name: str
    version: str
    parameters: tuple[str, ...] = ()
    is_automatic: bool = True


@dataclass(frozen=True)
class SliceReference:
    """The stored frame that a slice is: its object, and the frame's number from 1 in a multi-frame object."""

    sop_class_uid: str
    instance_uid: str
    frame: int | None = None


@dataclass(frozen=True, eq=False)
class SourceSeries:
    """The series that an object is derived from.

    Parameters
    ----------
    geometry
        (I, J, K) = (column, row, slice), the scan's own grid.
    slices
        K entries along the normal: the stored frame, or None for a slice that was interpolated.
    positions
        K ImagePositionPatient (x, y, z), LPS millimeters, as the frames say them.
    orientation
        ImageOrientationPatient, 6 direction cosines.
    pixel_spacing
        PixelSpacing in mm, between rows and between columns.
    step_mm
        Millimeters from slice to slice along the normal.
    study_uid, series_uid, frame_of_reference_uid
        Of the series; a series without frame of reference gets one made from its UID.
    modality
        DICOM modality code.
    header
        Patient, study and dates that objects may carry, every value within its VR.
    """

    geometry: Geometry
    slices: tuple[SliceReference | None, ...]
    positions: tuple[tuple[float, float, float], ...]
    orientation: tuple[float, ...]
    pixel_spacing: tuple[float, float]
    step_mm: float
    study_uid: str
    series_uid: str
    frame_of_reference_uid: str
    modality: str
    header: Dataset = field(repr=False)

    @property
    def content_date(self) -> str:
        """The series' own date, or that of its study; objects hold no date of their making."""
        return next((str(self.header[tag].value) for tag in _DATES if self.header.get(tag)), "19000101")

    @property
    def content_time(self) -> str:
        """The time that belongs to `content_date`."""
        known = next((tag for tag in _DATES if self.header.get(tag)), None)
        time = self.header.get(known.replace("Date", "Time")) if known else None
        return str(time or "000000")

    @property
    def references(self) -> tuple[SliceReference, ...]:
        """The stored objects, each once, in slice order, without frame numbers."""
        objects = (SliceReference(ref.sop_class_uid, ref.instance_uid) for ref in self.slices if ref is not None)
        return tuple(dict.fromkeys(objects))


_OF_IMAGES = {
    *("SeriesDate", "SeriesTime", "AcquisitionDate", "AcquisitionTime", "PositionReferenceIndicator"),
    *("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod"),
}
_DATES = ("SeriesDate", "AcquisitionDate", "StudyDate")


def derived_uid(*parts: str) -> str:
    """A UID made from texts: the same texts give the same UID, so that a second run writes the same objects.

    Examples
    --------
    >>> derived_uid("a", "b") == derived_uid("a", "b") != derived_uid("ab", "")
    True
    """
    digest = hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).digest()
    return f"2.25.{int.from_bytes(digest[:16], 'big')}"


def decimal(value: float) -> str:
    """A number as a decimal string of at most 16 characters: the shortest that reads back exactly, or else the nearest.

    Examples
    --------
    >>> decimal(-12.5), len(decimal(1 / 3))
    ('-12.5', 16)
    """
    text = repr(float(value) + 0.0)
    return text if len(text) <= _DS_CHARACTERS else format_number_as_ds(float(value))


def unnamed_header(source: SourceSeries) -> Dataset:
    """Patient and study without any content, for highdicom, which writes odd names of patients into warnings."""
    header = Dataset()
    for element in source.header:
        if element.keyword not in _OF_IMAGES:
            setattr(header, element.keyword, "")
    return header


def carry_over(dataset: Dataset, source: SourceSeries) -> None:
    """Write into an object what the source says of patient and study."""
    dataset.update({element.tag: element for element in source.header if element.keyword not in _OF_IMAGES})


def stand_ins(source: SourceSeries, numbers: Sequence[int]) -> list[Dataset]:
    """One plain image without pixels for each of these slices, in their order."""
    shared = unnamed_header(source)
    shared.update({element.tag: element for element in source.header if element.keyword in _OF_IMAGES})
    shared.SOPClassUID = CTImageStorage
    shared.StudyInstanceUID = source.study_uid
    shared.SeriesInstanceUID = source.series_uid
    shared.FrameOfReferenceUID = source.frame_of_reference_uid
    shared.Modality = source.modality
    shared.Columns, shared.Rows, _ = source.geometry.shape
    shared.PixelSpacing = [decimal(value) for value in source.pixel_spacing]
    shared.ImageOrientationPatient = [decimal(value) for value in source.orientation]
    shared.SliceThickness = shared.SpacingBetweenSlices = decimal(source.step_mm)
    images = []
    for number in numbers:
        image = Dataset()
        image.update({element.tag: element for element in shared})
        image.SOPInstanceUID = f"{_STAND_IN}{number}"
        image.ImagePositionPatient = [decimal(value) for value in source.positions[number]]
        images.append(image)
    return images


def point_to_source(dataset: Dataset, source: SourceSeries) -> None:
    """Replace every reference to a stand-in by that to the frame it stands for, in place."""
    for holder, keyword in _reference_sequences(dataset):
        wanted: dict[tuple[str, int | None], Dataset] = {}
        for item in holder[keyword].value:
            uid = str(item.get("ReferencedSOPInstanceUID", ""))
            if not uid.startswith(_STAND_IN):
                wanted[uid, None] = item
                continue
            reference = source.slices[int(uid.removeprefix(_STAND_IN))]
            if reference is None:
                continue
            item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = reference.sop_class_uid, reference.instance_uid
            is_whole = keyword == "ReferencedInstanceSequence" or holder is dataset
            frame = None if is_whole else reference.frame
            if frame is not None:
                item.ReferencedFrameNumber = frame
            wanted[reference.instance_uid, frame] = item
        holder[keyword].value = list(wanted.values())


def _reference_sequences(dataset: Dataset) -> Iterator[tuple[Dataset, str]]:
    """Every sequence of references to objects, with the data set that holds it."""
    for element in dataset:
        if element.VR != "SQ":
            continue
        if element.keyword in ("ReferencedInstanceSequence", "SourceImageSequence", "ReferencedSOPSequence"):
            yield dataset, element.keyword
        else:
            for item in element.value:
                yield from _reference_sequences(item)
