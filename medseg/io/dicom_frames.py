"""Frames of DICOM images: one record for every stored frame, with what places, rescales and tells it from others.

A classic file holds one frame. An enhanced one holds many, placed by its functional groups; a nuclear medicine
reconstruction holds many in steps of one length; a Siemens mosaic holds its slices as tiles of one large frame.
Positions are LPS millimeters as DICOM writes them; `pixel_spacing` is (between rows, between columns).

References
----------
.. [1] DICOM PS3.3 C.7.6.16 (Multi-frame Functional Groups), C.8.4.15 (NM Reconstruction)
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from pydicom import Dataset
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian

from medseg.errors import UnreadableImage
from medseg.io.dicom_headers import (
    Header,
    PixelElement,
    Tags,
    find_header,
    number_tag,
    numbers_tag,
    tag_value,
    text_tag,
    texts_tag,
)
from medseg.io.functional_groups import FrameGroups
from medseg.io.siemens_mosaic import MosaicLayout, read_mosaic_layout

__all__ = ["Frame", "FrameKeys", "ImageFile", "NoImage", "PixelStorage", "read_frames"]

_NO_VOLUME = {"SEG", "RTDOSE", "RTIMAGE", "RTPLAN", "RTSTRUCT", "PR", "KO", "SR", "REG", "DOC"}
_DIRECTORY = "1.2.840.10008.1.3.10"  # Media Storage Directory (DICOMDIR)
_BOMB_BYTES = 1 << 28
_MOST_COMPRESSED = 2000  # times; an empty slice compresses more, but not a quarter of a gigabyte of them
_GRAY = ("MONOCHROME1", "MONOCHROME2", "")
_TAGS = [
    *("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"),
    *("Modality", "SeriesNumber", "SeriesDescription", "Units", "ImageType", "ComplexImageComponent"),
    *("Rows", "Columns", "SamplesPerPixel", "NumberOfFrames", "PhotometricInterpretation"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "ModalityLUTSequence"),
    *("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness", "SpacingBetweenSlices"),
    *("RescaleSlope", "RescaleIntercept", "EchoTime", "EchoNumbers", "DiffusionBValue", "DiffusionGradientOrientation"),
    *("TemporalPositionIdentifier", "TemporalPositionIndex", "TriggerTime", "AcquisitionNumber", "AcquisitionTime"),
    *("StackID", "KVP", "ConvolutionKernel", "DetectorInformationSequence"),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
]


@dataclass(frozen=True, slots=True)
class PixelStorage:
    """How the frames of a file are stored; `element` is None where only a full parse finds them (deflated files)."""

    transfer_syntax: str
    element: PixelElement | None
    bits_allocated: int
    bits_stored: int
    high_bit: int
    is_signed: bool


@dataclass(frozen=True, slots=True)
class ImageFile:
    """What an image file says of all its frames; nothing that names the patient."""

    path: Path
    sop_class: str
    instance_uid: str
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
    photometric: str
    pixels: PixelStorage
    fault: str | None = None


@dataclass(frozen=True, slots=True)
class FrameKeys:
    """What can tell two frames of one place apart, each None where the file does not say."""

    frame_of_reference: str | None = None
    stack_id: str | None = None
    image_type: tuple[str, ...] = ()
    component: str | None = None
    echo_time: float | None = None
    echo_number: str | None = None
    b_value: float | None = None
    gradient: tuple[float, ...] | None = None
    temporal_position: float | None = None
    kernel: tuple[str, ...] = ()
    kvp: float | None = None
    acquisition_number: str | None = None
    trigger_time: float | None = None
    acquisition_time: str | None = None
    dimensions: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Frame:
    """One stored frame: where it lies (None: the file does not say), how it is rescaled, what tells it from others.

    `tile` is the first row and column of the frame within a mosaic.
    """

    file: ImageFile
    index: int
    rows: int
    columns: int
    position: tuple[float, ...] | None
    orientation: tuple[float, ...] | None
    pixel_spacing: tuple[float, ...] | None
    slice_thickness: float | None
    slice_spacing: float | None
    slope: float
    intercept: float
    has_lut: bool
    keys: FrameKeys
    tile: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class NoImage:
    """A DICOM object without gray frames, and what it is instead."""

    path: Path
    what: str
    modality: str = ""
    series_uid: str = ""
    series_number: str = ""
    series_description: str = ""


def read_frames(path: Path) -> tuple[Frame, ...] | NoImage | None:
    """The frames of a DICOM file, or what it is if it holds no gray frames (structure set, report, screenshot, ...).

    None if the file is no DICOM, by content.

    Raises
    ------
    UnreadableImage
        If the file is truncated, a tag is malformed, or the file is named like DICOM but is none.
    """
    header = find_header(path, _TAGS)
    if header is None:
        return None
    tags = header.tags
    what = _what_else(header)
    if what is not None:
        return NoImage(
            path,
            what,
            text_tag(tags, "Modality", path),
            text_tag(tags, "SeriesInstanceUID", path),
            text_tag(tags, "SeriesNumber", path),
            _description(tags),
        )
    file = _image_file(header)
    if file.n_frames > header.file_bytes:
        raise UnreadableImage(f"{path} promises {file.n_frames} frames in {header.file_bytes} bytes")
    if "PerFrameFunctionalGroupsSequence" in tags or "SharedFunctionalGroupsSequence" in tags:
        return _enhanced_frames(file, tags)
    frame = _classic_frame(file, tags)
    if "MOSAIC" in frame.keys.image_type:
        return _mosaic_frames(frame, read_mosaic_layout(path, file.rows, file.columns))
    if file.n_frames > 1:
        return _stepped_frames(frame, tags)
    return (frame,)


def _what_else(header: Header) -> str | None:
    """What an object without gray frames is; None for an image. A file cut off before it could say is refused."""
    tags, path, sop_class = header.tags, header.path, _sop_class(header)
    if not sop_class:
        raise UnreadableImage(f"{path} is truncated: it does not say what kind of object it is. Fetch it anew")
    if sop_class == _DIRECTORY:
        return "a DICOM directory"
    modality = text_tag(tags, "Modality", path)
    has_size = "Rows" in tags and "Columns" in tags
    if modality in _NO_VOLUME:
        return f"{modality} object, no image to segment"
    if not has_size and UID(sop_class).name.endswith("Image Storage"):
        raise UnreadableImage(f"{path} is truncated: an image without Rows and Columns. Fetch it anew")
    if not has_size:
        return "no image"
    photometric = text_tag(tags, "PhotometricInterpretation", path)
    if number_tag(tags, "SamplesPerPixel", path) not in (1, None) or photometric not in _GRAY:
        return f"color image ({photometric or 'several samples a pixel'})"
    return None


def _sop_class(header: Header) -> str:
    return text_tag(header.tags, "SOPClassUID", header.path) or header.meta_sop_class


def _description(tags: Tags) -> str:
    """The series description, or nothing where its alphabet cannot be read: nothing depends on it."""
    try:
        return text_tag(tags, "SeriesDescription", Path())
    except UnreadableImage:
        return ""


def _image_file(header: Header) -> ImageFile:
    tags, path = header.tags, header.path
    rows, columns = _whole(tags, "Rows", path), _whole(tags, "Columns", path)
    n_frames, pixels = _whole(tags, "NumberOfFrames", path, 1), _pixel_storage(header)
    return ImageFile(
        path=path,
        sop_class=_sop_class(header),
        instance_uid=text_tag(tags, "SOPInstanceUID", path),
        study_uid=text_tag(tags, "StudyInstanceUID", path, required=True),
        series_uid=text_tag(tags, "SeriesInstanceUID", path, required=True),
        frame_of_reference_uid=text_tag(tags, "FrameOfReferenceUID", path) or None,
        modality=text_tag(tags, "Modality", path),
        series_number=text_tag(tags, "SeriesNumber", path),
        series_description=_description(tags),
        units=text_tag(tags, "Units", path) or None,
        rows=rows,
        columns=columns,
        n_frames=n_frames,
        photometric=text_tag(tags, "PhotometricInterpretation", path),
        pixels=pixels,
        fault=_missing_pixels(pixels, rows * columns * n_frames, header.file_bytes),
    )


def _pixel_storage(header: Header) -> PixelStorage:
    tags, path = header.tags, header.path
    allocated = _whole(tags, "BitsAllocated", path, 16)
    stored = _whole(tags, "BitsStored", path, allocated)
    return PixelStorage(
        transfer_syntax=header.transfer_syntax,
        element=header.pixels,
        bits_allocated=allocated,
        bits_stored=stored,
        high_bit=_whole(tags, "HighBit", path, stored - 1),
        is_signed=bool(_whole(tags, "PixelRepresentation", path, 0)),
    )


def _missing_pixels(pixels: PixelStorage, n_pixels: int, file_bytes: int) -> str | None:
    """What is wrong with the pixels, as far as their length and the file's size tell."""
    element = pixels.element
    if element is None:
        is_deflated = pixels.transfer_syntax == DeflatedExplicitVRLittleEndian
        return None if is_deflated else "the file ends before its pixels"
    promised = n_pixels * pixels.bits_allocated // 8
    stored = file_bytes - element.offset
    if element.n_bytes is None:
        is_bomb = promised > max(_BOMB_BYTES, _MOST_COMPRESSED * stored)
        return f"{stored} compressed bytes cannot hold the {promised} that the header promises" if is_bomb else None
    stored = min(element.n_bytes, stored)
    return f"{stored} bytes of pixels; the header promises {promised}" if stored < promised else None


def _whole(tags: Tags, keyword: str, path: Path, default: int | None = None) -> int:
    value = number_tag(tags, keyword, path)
    if value is None and default is not None:
        return default
    if value is None or value != int(value) or value < 0 or (value == 0 and keyword != "PixelRepresentation"):
        raise UnreadableImage(f"{path}: {keyword} must be a whole number above 0; got {value}")
    return int(value)


def _classic_frame(file: ImageFile, tags: Tags) -> Frame:
    path = file.path
    slope = number_tag(tags, "RescaleSlope", path)
    return Frame(
        file=file,
        index=0,
        rows=file.rows,
        columns=file.columns,
        position=numbers_tag(tags, "ImagePositionPatient", 3, path),
        orientation=numbers_tag(tags, "ImageOrientationPatient", 6, path),
        pixel_spacing=numbers_tag(tags, "PixelSpacing", 2, path),
        slice_thickness=number_tag(tags, "SliceThickness", path),
        slice_spacing=number_tag(tags, "SpacingBetweenSlices", path),
        slope=1.0 if slope is None else slope,
        intercept=number_tag(tags, "RescaleIntercept", path) or 0.0,
        has_lut=bool(tag_value(tags, "ModalityLUTSequence", path)),
        keys=_keys(file, tags),
    )


def _keys(file: ImageFile, tags: Tags) -> FrameKeys:
    path = file.path
    temporal = number_tag(tags, "TemporalPositionIdentifier", path)
    return FrameKeys(
        frame_of_reference=file.frame_of_reference_uid,
        stack_id=text_tag(tags, "StackID", path) or None,
        image_type=texts_tag(tags, "ImageType", path),
        component=text_tag(tags, "ComplexImageComponent", path) or None,
        echo_time=number_tag(tags, "EchoTime", path),
        echo_number=text_tag(tags, "EchoNumbers", path) or None,
        b_value=number_tag(tags, "DiffusionBValue", path),
        gradient=_floats(tags, "DiffusionGradientOrientation", path),
        temporal_position=number_tag(tags, "TemporalPositionIndex", path) if temporal is None else temporal,
        kernel=texts_tag(tags, "ConvolutionKernel", path),
        kvp=number_tag(tags, "KVP", path),
        acquisition_number=text_tag(tags, "AcquisitionNumber", path) or None,
        trigger_time=number_tag(tags, "TriggerTime", path),
        acquisition_time=text_tag(tags, "AcquisitionTime", path) or None,
    )


def _floats(tags: Tags, keyword: str, path: Path) -> tuple[float, ...] | None:
    value = tag_value(tags, keyword, path)
    return tuple(float(part) for part in value) if value and not isinstance(value, str) else None


def _enhanced_frames(file: ImageFile, tags: Tags) -> tuple[Frame, ...]:
    """One frame for each item of the per-frame functional groups, what they lack taken from the shared ones."""
    per_frame = tag_value(tags, "PerFrameFunctionalGroupsSequence", file.path) or []
    shared = tag_value(tags, "SharedFunctionalGroupsSequence", file.path) or [Dataset()]
    if len(per_frame) != file.n_frames and (per_frame or file.n_frames > 1):
        raise UnreadableImage(
            f"{file.path} has {file.n_frames} frames and {len(per_frame)} items in PerFrameFunctionalGroupsSequence"
        )
    top = _classic_frame(file, tags)
    return tuple(
        _enhanced_frame(top, FrameGroups(shared[0], item, file.path), index)
        for index, item in enumerate(per_frame or [Dataset()])
    )


def _enhanced_frame(top: Frame, groups: FrameGroups, index: int) -> Frame:
    slope = groups.number("PixelValueTransformationSequence", "RescaleSlope")
    intercept = groups.number("PixelValueTransformationSequence", "RescaleIntercept")
    thickness = groups.number("PixelMeasuresSequence", "SliceThickness")
    step = groups.number("PixelMeasuresSequence", "SpacingBetweenSlices")
    known = groups.keys()
    return replace(
        top,
        index=index,
        position=groups.numbers("PlanePositionSequence", "ImagePositionPatient", 3),
        orientation=groups.numbers("PlaneOrientationSequence", "ImageOrientationPatient", 6),
        pixel_spacing=groups.numbers("PixelMeasuresSequence", "PixelSpacing", 2) or top.pixel_spacing,
        slice_thickness=top.slice_thickness if thickness is None else thickness,
        slice_spacing=top.slice_spacing if step is None else step,
        slope=top.slope if slope is None else slope,
        intercept=top.intercept if intercept is None else intercept,
        keys=replace(top.keys, **{name: value for name, value in known.items() if value not in (None, ())}),
    )


def _mosaic_frames(frame: Frame, layout: MosaicLayout) -> tuple[Frame, ...]:
    """The tiles of a Siemens mosaic."""
    if frame.position is None or frame.orientation is None or frame.pixel_spacing is None:
        return (frame,)
    step_mm = frame.slice_spacing or layout.planned_step_mm
    if not step_mm:
        raise UnreadableImage(f"{frame.file.path} is a mosaic that does not say how far apart its slices are")
    positions = layout.positions(frame.position, frame.orientation, frame.pixel_spacing, step_mm)
    return tuple(
        replace(frame, rows=layout.rows, columns=layout.columns, position=position, tile=layout.tile(number))
        for number, position in enumerate(positions)
    )


def _stepped_frames(frame: Frame, tags: Tags) -> tuple[Frame, ...]:
    """Frames of a nuclear medicine reconstruction: SpacingBetweenSlices apart along the normal, its sign counting."""
    file = frame.file
    detectors = tag_value(tags, "DetectorInformationSequence", file.path) or []
    step = frame.slice_spacing
    if "RECON TOMO" not in frame.keys.image_type or len(detectors) != 1 or not step:
        return tuple(replace(frame, index=index, position=None) for index in range(file.n_frames))
    first = numbers_tag(detectors[0], "ImagePositionPatient", 3, file.path)
    cosines = numbers_tag(detectors[0], "ImageOrientationPatient", 6, file.path)
    if first is None or cosines is None:
        return tuple(replace(frame, index=index, position=None) for index in range(file.n_frames))
    (a, b, c), (d, e, f) = cosines[:3], cosines[3:]
    normal = (b * f - c * e, c * d - a * f, a * e - b * d)
    return tuple(
        replace(
            frame,
            index=index,
            orientation=cosines,
            position=tuple(p + index * step * n for p, n in zip(first, normal, strict=True)),
        )
        for index in range(file.n_frames)
    )
