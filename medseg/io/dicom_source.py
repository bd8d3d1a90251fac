"""From a DICOM scan to the `SourceSeries` that objects are derived from: patient, study, and which frame is where."""

from __future__ import annotations

from typing import Any

import numpy as np
from pydicom import Dataset
from pydicom.datadict import dictionary_VR
from pydicom.valuerep import validate_value

from medseg.core.scan import Scan
from medseg.dicom.source import SliceReference, SourceSeries, derived_uid
from medseg.errors import UsageError
from medseg.io.dicom_frames import Frame
from medseg.io.dicom_grid import OrderedStack
from medseg.io.dicom_headers import lenient_parsing, read_tags

__all__ = ["read_source"]

_PATIENT = (
    *("PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex", "PatientAge", "PatientSize"),
    *("PatientWeight", "AccessionNumber", "StudyID", "StudyDescription", "ReferringPhysicianName"),
)
_STUDY = ("StudyDate", "StudyTime")
_SERIES = (
    *("SeriesDate", "SeriesTime", "AcquisitionDate", "AcquisitionTime", "PositionReferenceIndicator"),
    *("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod"),
)
_REQUIRED = ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID")
_REQUIRED_TOO = ("AccessionNumber", "ReferringPhysicianName", "PositionReferenceIndicator")
_LONGEST = {"LO": 64, "SH": 16, "PN": 64}


def read_source(scan: Scan, *, keep_identifiers: bool = False) -> SourceSeries:
    """What objects derived from the first channel of a DICOM scan take over.

    Parameters
    ----------
    scan
        What `medseg.read_scan` returned for a DICOM series.
    keep_identifiers
        Take over who the patient is: name, ID, birth date, sex, accession number and so on, as an archive needs them
        to file an object under its patient. Otherwise objects hold the UIDs and dates of study and series only.

    Raises
    ------
    UsageError
        If the scan is not DICOM.
    UnreadableImage
        If a file has become unreadable.
    """
    stack = scan.layouts[0] if scan.layouts else None
    if not isinstance(stack, OrderedStack):
        raise UsageError(
            f"{scan.case_id} is not a DICOM series: DICOM objects refer to one. "
            "Give the series: medseg convert lesions.nii.gz --like SERIES -o lesions.seg.dcm"
        )
    first = stack.frames[0]
    file = first.file
    tags = read_tags(file.path, [*_PATIENT, *_STUDY, *_SERIES, "SpecificCharacterSet"])
    frames = _frames_of_slices(stack)
    return SourceSeries(
        geometry=stack.geometry,
        slices=tuple(_reference(frame) for frame in frames),
        positions=tuple(_position(stack, frame, number) for number, frame in enumerate(frames)),
        orientation=_orientation(first),
        pixel_spacing=(first.pixel_spacing or (0.0, 0.0))[:2],  # type: ignore[arg-type]
        step_mm=_step_mm(stack),
        study_uid=file.study_uid,
        series_uid=file.series_uid,
        frame_of_reference_uid=file.frame_of_reference_uid or derived_uid("frame of reference", file.series_uid),
        modality=file.modality or "OT",
        header=_header(tags, keep_identifiers),
    )


def _frames_of_slices(stack: OrderedStack) -> list[Frame | None]:
    if not stack.between:
        return list(stack.frames)
    return [stack.frames[below] if weight == 0 else None for below, weight in stack.between]


def _reference(frame: Frame | None) -> SliceReference | None:
    if frame is None:
        return None
    number = frame.index + 1 if frame.file.n_frames > 1 else None
    return SliceReference(frame.file.sop_class, frame.file.instance_uid, number)


def _position(stack: OrderedStack, frame: Frame | None, number: int) -> tuple[float, float, float]:
    """ImagePositionPatient of a slice: what its frame says, or where the grid has it."""
    if frame is not None and frame.position is not None:
        x, y, z = frame.position
        return (x, y, z)
    right, front, up = stack.geometry.to_world((0, 0, number)).tolist()
    return (-right, -front, up)


def _orientation(frame: Frame) -> tuple[float, ...]:
    return tuple(frame.orientation or ())


def _step_mm(stack: OrderedStack) -> float:
    """Millimeters from slice to slice along the normal: of a tilted stack the distance of its planes."""
    geometry = stack.geometry
    across = np.cross(geometry.affine[:3, 0], geometry.affine[:3, 1])
    return geometry.voxel_volume_mm3 / float(np.linalg.norm(across))


def _header(tags: Dataset, keep_identifiers: bool) -> Dataset:
    wanted = (*_STUDY, *_SERIES, *(_PATIENT if keep_identifiers else ()))
    header = Dataset()
    with lenient_parsing():
        for keyword in wanted:
            value = _clean(tags, keyword)
            if value not in (None, ""):
                setattr(header, keyword, value)
        for keyword in (*_REQUIRED, *_REQUIRED_TOO):
            if keyword not in header:
                setattr(header, keyword, "")
    return header


def _clean(tags: Dataset, keyword: str) -> Any:
    """A tag's value if the standard allows it; texts that are too long are cut, anything else is left out."""
    vr = dictionary_VR(keyword)
    try:
        value = tags.get(keyword)
    except Exception:  # a damaged tag that no object needs
        return None
    if value is None:
        return None
    if vr in _LONGEST:
        plain = "".join(c for c in str(value).replace("\\", "/") if c.isprintable())
        value = _shortened(plain, vr)
    try:
        validate_value(vr, value if not hasattr(value, "original_string") else str(value), 2)
    except Exception:
        return None
    return value


def _shortened(text: str, vr: str) -> str:
    """A text within its VR, counted in bytes as some readers count, not in characters."""
    if vr == "PN":
        text = "=".join("^".join(group.split("^")[:5]) for group in text.split("=")[:3])
    return _cut(text, _LONGEST[vr]).rstrip("=")


def _cut(text: str, n_bytes: int) -> str:
    return text.encode("utf-8", "ignore")[:n_bytes].decode("utf-8", "ignore").strip()
