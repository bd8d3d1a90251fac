"""SUVbw of enhanced multi-frame PET, which says the same as classic PET in other tags and other units.

What stored values are stands in the real world value mapping of each frame, the moment to which all frames are decay
corrected in DecayCorrectionDateTime, and the dose in megabecquerels. Nothing is guessed: what is missing is named.

References
----------
.. [1] DICOM PS3.3 A.56 (Enhanced PET Image), C.7.6.16.2.11 (Real World Value Mapping Macro), C.8.22.4 (Enhanced PET
   Isotope), C.8.22.6 (Enhanced PET Corrections)
.. [2] DICOM PS3.16 CID 84 (PET Units), CID 85 (SUV Units)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import groupby
from pathlib import Path

from pydicom import Dataset
from pydicom.uid import EnhancedPETImageStorage

from medseg.errors import UnsupportedUnits
from medseg.io.dicom_frames import Frame
from medseg.io.dicom_headers import lenient_parsing, number_tag, read_header, tag_value, text_tag
from medseg.io.functional_groups import FrameGroups
from medseg.io.suv import (
    SuvScale,
    check_weight,
    date_time,
    patient_weight_kg,
    positive_tag,
    remaining_share,
    the_radiopharmaceutical,
)

__all__ = ["enhanced_suv_scale", "is_enhanced_pet"]

_TAGS = [
    *("DecayCorrected", "AttenuationCorrected", "CountsSource", "DecayCorrectionDateTime", "PatientWeight"),
    *("TimezoneOffsetFromUTC", "RadiopharmaceuticalInformationSequence"),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
]
_ACTIVITY_UNITS, _SUVBW_UNITS = ("Bq/ml", "Bq/mL"), ("{SUVbw}g/ml", "g/ml{SUVbw}")  # UCUM
_DOSE_MBQ = (0.1, 1e5)  # nobody gets less or more; a number beyond is in another unit
_SAME = 1e-5  # relative; slopes come as decimal strings and as binary numbers


def is_enhanced_pet(frame: Frame) -> bool:
    """Whether a frame is of an enhanced PET image, whose SUV is found here."""
    return frame.file.sop_class == EnhancedPETImageStorage


def enhanced_suv_scale(frames: Sequence[Frame], weight_kg: float | None = None) -> SuvScale:
    """What the stored (rescaled) values of an enhanced PET are in SUVbw.

    A real world value mapping to SUVbw is taken as it is, unless a weight is given and there is one to Bq/ml as well.
    One to Bq/ml is divided by dose / weight, with the dose decayed from the injection to the moment to which the
    frames are decay corrected.

    Parameters
    ----------
    frames
        The frames of one stack.
    weight_kg
        The patient's weight, instead of PatientWeight.

    Raises
    ------
    UnsupportedUnits
        If a tag that is needed is missing, malformed or implausible, or frames differ; the message names it.
    UnreadableImage
        If a file is damaged.
    UsageError
        If the weight is no number above 0.
    """
    check_weight(weight_kg)
    by_file = sorted(frames, key=lambda frame: (str(frame.file.path), frame.index))
    with lenient_parsing():
        scales = [_file_scale(path, list(held), weight_kg) for path, held in groupby(by_file, lambda f: f.file.path)]
    first = scales[0]
    if any(not math.isclose(scale.stored_per_suv, first.stored_per_suv, rel_tol=_SAME) for scale in scales):
        raise UnsupportedUnits(f"{by_file[0].file.path}: the files of this series have different factors to SUV")
    return first


def _file_scale(path: Path, frames: Sequence[Frame], weight_kg: float | None) -> SuvScale:
    tags = read_header(path, _TAGS).dataset
    per_frame = tag_value(tags, "PerFrameFunctionalGroupsSequence", path) or [Dataset()]
    shared = (tag_value(tags, "SharedFunctionalGroupsSequence", path) or [Dataset()])[0]
    groups = [FrameGroups(shared, per_frame[frame.index], path) for frame in frames]
    to_suv = _factor(groups, frames, _SUVBW_UNITS)
    to_activity = _factor(groups, frames, _ACTIVITY_UNITS)
    if to_suv is not None and (weight_kg is None or to_activity is None):
        return SuvScale(1.0 / to_suv, f"SUVbw: stored values times {to_suv:.6g} (RealWorldValueMappingSequence)")
    if to_activity is None:
        raise UnsupportedUnits(
            f"{path}: SUV needs a RealWorldValueMappingSequence to Bq/ml or SUVbw; got {_units_of(groups[0])}"
        )
    bqml_per_suv, how = _activity_per_suv(tags, path, weight_kg)
    is_activity = math.isclose(to_activity, 1.0, rel_tol=_SAME)
    by_factor = "" if is_activity else f"; Bq/ml are stored values times {to_activity:.6g}"
    return SuvScale(bqml_per_suv / to_activity, f"SUVbw: Bq/ml divided by {bqml_per_suv:.6g} ({how}){by_factor}")


def _factor(groups: Sequence[FrameGroups], frames: Sequence[Frame], units: Sequence[str]) -> float | None:
    """What rescaled values are multiplied by to be in a unit; None where no frame is mapped to it.

    The mapping is of the numbers in the file; volumes hold them after RescaleSlope, which may already be the mapping.
    """
    found = [_frame_factor(group, frame, units) for group, frame in zip(groups, frames, strict=True)]
    first = found[0]
    if all(factor is None for factor in found):
        return None
    if any(factor is None or first is None or not math.isclose(factor, first, rel_tol=_SAME) for factor in found):
        raise UnsupportedUnits(f"{groups[0].path}: frames differ in their RealWorldValueMappingSequence to {units[0]}")
    return first


def _frame_factor(group: FrameGroups, frame: Frame, units: Sequence[str]) -> float | None:
    path = group.path
    mappings = [item for item in group.items("RealWorldValueMappingSequence") if _unit(item, path) in units]
    if not mappings:
        return None
    if len(mappings) > 1:
        raise UnsupportedUnits(f"{path}: RealWorldValueMappingSequence maps a frame to {units[0]} more than once")
    slope = number_tag(mappings[0], "RealWorldValueSlope", path)
    intercept = number_tag(mappings[0], "RealWorldValueIntercept", path) or 0.0
    if slope is None or slope <= 0 or frame.slope <= 0 or frame.has_lut:
        raise UnsupportedUnits(f"{path}: SUV needs RealWorldValueSlope and RescaleSlope above 0; got {slope}")
    factor = slope / frame.slope
    if not math.isclose(intercept, frame.intercept * factor, rel_tol=_SAME, abs_tol=_SAME * slope):
        raise UnsupportedUnits(f"{path}: RealWorldValueIntercept {intercept:g} does not fit RescaleIntercept")
    return factor


def _unit(mapping: Dataset, path: Path) -> str:
    codes = tag_value(mapping, "MeasurementUnitsCodeSequence", path) or [Dataset()]
    return text_tag(codes[0], "CodeValue", path)


def _units_of(group: FrameGroups) -> str:
    units = [_unit(item, group.path) or "no unit" for item in group.items("RealWorldValueMappingSequence")]
    return ", ".join(units) or "none"


def _activity_per_suv(tags: Dataset, path: Path, weight_kg: float | None) -> tuple[float, str]:
    """Bq/ml that are SUV 1, and how that was found."""
    _check_corrected(tags, path)
    drug = the_radiopharmaceutical(tags, path)
    dose_mbq = positive_tag(drug, "RadionuclideTotalDose", path)
    if not _DOSE_MBQ[0] <= dose_mbq <= _DOSE_MBQ[1]:
        raise UnsupportedUnits(
            f"{path}: RadionuclideTotalDose of an enhanced PET must be in MBq; {dose_mbq:g} looks like another unit"
        )
    weight, weight_note = patient_weight_kg(tags, path, weight_kg)
    delay_s = _correction_delay_s(tags, drug, path)
    share = remaining_share(
        delay_s,
        positive_tag(drug, "RadionuclideHalfLife", path),
        f"{path}: the frames are decay corrected to",
        "RadiopharmaceuticalStartDateTime or DecayCorrectionDateTime",
    )
    how = f"enhanced PET, decay corrected to {delay_s:.0f} s after the injection{weight_note}"
    return dose_mbq * 1e6 * share / (weight * 1000.0), how


def _check_corrected(tags: Dataset, path: Path) -> None:
    for keyword, needed in (("DecayCorrected", "YES"), ("AttenuationCorrected", "YES"), ("CountsSource", "EMISSION")):
        if (value := text_tag(tags, keyword, path)) != needed:
            raise UnsupportedUnits(f"{path}: SUV needs {keyword} {needed}; got {value!r}")


def _correction_delay_s(tags: Dataset, drug: Dataset, path: Path) -> float:
    """Seconds from the injection to the moment to which the frames are decay corrected."""
    zone = text_tag(tags, "TimezoneOffsetFromUTC", path)
    given, given_zone = _moment(drug, "RadiopharmaceuticalStartDateTime", zone, path)
    corrected, corrected_zone = _moment(tags, "DecayCorrectionDateTime", zone, path)
    if bool(given_zone) != bool(corrected_zone):
        raise UnsupportedUnits(
            f"{path}: RadiopharmaceuticalStartDateTime and DecayCorrectionDateTime do not both name their time zone, "
            "and there is no TimezoneOffsetFromUTC"
        )
    return (corrected - given - (_offset(corrected_zone) - _offset(given_zone))).total_seconds()


def _moment(tags: Dataset, keyword: str, series_zone: str, path: Path) -> tuple[datetime, str]:
    stamp = text_tag(tags, keyword, path)
    if not stamp:
        raise UnsupportedUnits(f"{path}: SUV of an enhanced PET needs {keyword}")
    moment, zone = date_time(stamp, keyword, path)
    return moment, zone or series_zone


def _offset(zone: str) -> timedelta:
    """How far a time zone "+0130" is ahead of UTC."""
    if not zone:
        return timedelta()
    sign = -1 if zone.startswith("-") else 1
    return sign * timedelta(hours=int(zone[1:3]), minutes=int(zone[3:5]))
