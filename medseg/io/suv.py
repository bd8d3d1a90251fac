"""SUVbw: from Bq/ml to standardized uptake values by body weight, from the tags of a PET series.

Nothing is guessed: where a tag is missing, contradicts another or is implausible, the series has no SUV.

References
----------
.. [1] QIBA Profile FDG-PET/CT as an Imaging Biomarker, vendor-neutral pseudo-code for SUV calculation
.. [2] DICOM PS3.3 C.8.9.1 (PET Series: Units, Decay Correction), C.8.9.2 (PET Isotope)
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from pydicom import Dataset
from pydicom.valuerep import DA, TM

from medseg.errors import UnsupportedUnits, UsageError
from medseg.io.dicom_headers import Tags, lenient_parsing, number_tag, read_header, tag_value, text_tag, texts_tag

__all__ = [
    "SuvScale",
    "check_weight",
    "date_time",
    "patient_weight_kg",
    "positive_tag",
    "remaining_share",
    "suv_scale",
    "the_radiopharmaceutical",
]

_SERIES_TAGS: list[str | int] = [
    *("Modality", "Units", "SUVType", "DecayCorrection", "CorrectedImage", "PatientWeight"),
    *("SeriesDate", "SeriesTime", "TimezoneOffsetFromUTC", "RadiopharmaceuticalInformationSequence"),
    *(0x70530010, 0x70531000, 0x70531009),
]
_PHILIPS = "Philips PET Private Group"
_SLICE_TAGS = ["Units", "AcquisitionDate", "AcquisitionTime"]
_STAMP = re.compile(r"(?P<date>\d{8})(?P<time>\d{4,6}(\.\d{1,6})?)(?P<offset>[+-]\d{4})?")  # to the minute at least
_LOWEST_DOSE_BQ = 1e5  # nobody gets less; a number below is a dose in MBq
_LONGEST_DELAY_HALF_LIVES = 10.0  # nothing is left to see: a wrong date


@dataclass(frozen=True)
class SuvScale:
    """By what stored values are divided to become SUVbw, and a note that says how it was found."""

    stored_per_suv: float
    note: str | None


def suv_scale(files: Sequence[Path], weight_kg: float | None = None) -> SuvScale:
    """What the stored (rescaled) values of a PET series are in SUVbw.

    GML with SUV type BW is SUVbw already. BQML is divided by dose / weight, with the dose decayed from injection to
    the start of the scan where the images are corrected to that time (DecayCorrection START), and as injected where
    they are corrected to the injection (ADMIN). Counts (CNTS) of a Philips scanner go by its private factors: to SUV
    (7053,1000), or else to Bq/ml (7053,1009).

    Parameters
    ----------
    files
        The slices of one series.
    weight_kg
        The patient's weight, instead of PatientWeight.

    Raises
    ------
    UnsupportedUnits
        If the series is no PET, or a tag that is needed is missing, malformed or implausible; the message names it.
    UnreadableImage
        If a file is damaged.
    UsageError
        If the weight is no number above 0.
    """
    check_weight(weight_kg)
    path = files[0]
    with lenient_parsing():
        tags = read_header(path, _SERIES_TAGS).dataset
        slices = [(file, read_header(file, _SLICE_TAGS).tags) for file in files]
        return _series_scale(tags, slices, path, weight_kg)


def check_weight(weight_kg: float | None) -> None:
    """Refuse a given weight that is none: UsageError."""
    if weight_kg is not None and not (math.isfinite(weight_kg) and weight_kg > 0):
        raise UsageError(f"weight_kg must be a number above 0; got {weight_kg}")


_Slices = Sequence[tuple[Path, Tags]]


def _series_scale(tags: Dataset, slices: _Slices, path: Path, weight_kg: float | None) -> SuvScale:
    if (modality := text_tag(tags, "Modality", path)) != "PT":
        raise UnsupportedUnits(
            f"{path}: SUV needs a PET series; Modality is {modality!r}. Where a folder holds several series, --series "
            "names one (medseg inspect lists them)"
        )
    units = {text_tag(header, "Units", file) for file, header in slices}
    if units == {"GML"}:
        _check_body_weight_suv(tags, path)
        return SuvScale(1.0, None)
    if units == {"CNTS"}:
        return _philips_scale(tags, slices, path, weight_kg)
    if units == {""}:
        raise UnsupportedUnits(f"{path}: SUV needs Units, which say what the stored values are; it has none")
    if units != {"BQML"}:
        raise UnsupportedUnits(f"{path}: SUV needs Units BQML or GML in every slice; got {sorted(units)}")
    return _scale_from_dose(tags, slices, path, weight_kg)


def _philips_scale(tags: Dataset, slices: _Slices, path: Path, weight_kg: float | None) -> SuvScale:
    """Counts to SUV by the scanner's own factor; to Bq/ml by its other factor where there is none."""
    to_suv, to_bqml = _philips_factor(tags, 0x00), _philips_factor(tags, 0x09)
    if to_suv is not None and weight_kg is None:
        return SuvScale(1.0 / to_suv, f"SUVbw: counts times the Philips factor (7053,1000) = {to_suv:.6g}")
    if to_bqml is None:
        raise UnsupportedUnits(
            f"{path}: SUV needs Units BQML or GML in every slice, or CNTS with a Philips factor (7053,1000) or "
            "(7053,1009); got CNTS alone"
        )
    scale = _scale_from_dose(tags, slices, path, weight_kg)
    note = f"{scale.note}; Bq/ml are counts times the Philips factor (7053,1009) = {to_bqml:.6g}"
    return SuvScale(scale.stored_per_suv / to_bqml, note)


def _philips_factor(tags: Dataset, element: int) -> float | None:
    try:
        factor = float(tags.private_block(0x7053, _PHILIPS)[element].value)
    except (KeyError, TypeError, ValueError, NotImplementedError):
        return None
    return factor if math.isfinite(factor) and factor > 0 else None


def _check_body_weight_suv(tags: Dataset, path: Path) -> None:
    if (kind := text_tag(tags, "SUVType", path)) not in ("", "BW"):
        raise UnsupportedUnits(f"{path}: SUV here is by body weight; SUVType is {kind!r}")


def _scale_from_dose(tags: Dataset, slices: _Slices, path: Path, weight_kg: float | None) -> SuvScale:
    _check_corrected(tags, path)
    drug = the_radiopharmaceutical(tags, path)
    dose = positive_tag(drug, "RadionuclideTotalDose", path)
    if dose < _LOWEST_DOSE_BQ:
        raise UnsupportedUnits(f"{path}: RadionuclideTotalDose must be in Bq; {dose:g} looks like another unit")
    weight, weight_note = patient_weight_kg(tags, path, weight_kg)
    correction = text_tag(tags, "DecayCorrection", path)
    if correction == "START":
        dose *= _remaining_share(tags, drug, slices, path)
    elif correction != "ADMIN":
        raise UnsupportedUnits(f"{path}: SUV needs DecayCorrection START or ADMIN; got {correction!r}")
    bqml_per_suv = dose / (weight * 1000.0)
    how = f"DecayCorrection {correction}{weight_note}"
    return SuvScale(bqml_per_suv, f"SUVbw: Bq/ml divided by {bqml_per_suv:.6g} ({how})")


def patient_weight_kg(tags: Dataset, path: Path, weight_kg: float | None) -> tuple[float, str]:
    """Kilograms, and a note where they were given instead of read; UnsupportedUnits if neither says them."""
    if weight_kg is not None:
        return weight_kg, f", weight given as {weight_kg:g} kg"
    try:
        return positive_tag(tags, "PatientWeight", path), ""
    except UnsupportedUnits as error:
        raise UnsupportedUnits(f"{error}. If the weight is known, give it (--weight-kg)") from error


def _check_corrected(tags: Dataset, path: Path) -> None:
    """Without decay and attenuation correction, Bq/ml is no uptake; an absent list is left to DecayCorrection."""
    applied = set(texts_tag(tags, "CorrectedImage", path))
    if applied and not {"ATTN", "DECY"} <= applied:
        raise UnsupportedUnits(f"{path}: SUV needs CorrectedImage with ATTN and DECY; got {sorted(applied)}")


def the_radiopharmaceutical(tags: Dataset, path: Path) -> Dataset:
    """What was given to the patient; UnsupportedUnits if it is not one thing."""
    items = tag_value(tags, "RadiopharmaceuticalInformationSequence", path) or []
    if len(items) != 1:
        raise UnsupportedUnits(
            f"{path}: SUV needs one item in RadiopharmaceuticalInformationSequence; got {len(items)}"
        )
    item: Dataset = items[0]
    return item


def positive_tag(tags: Dataset, keyword: str, path: Path) -> float:
    """A number that must be above 0 for an SUV; UnsupportedUnits names the tag."""
    value = number_tag(tags, keyword, path)
    if value is None or value <= 0:
        raise UnsupportedUnits(f"{path}: SUV needs {keyword} above 0; got {value}")
    return value


def _remaining_share(tags: Dataset, drug: Dataset, slices: _Slices, path: Path) -> float:
    """The share of the dose that is left at the start of the scan."""
    start = _scan_start(tags, slices, path)
    delay_s = (start - _injection(tags, drug, start, path)).total_seconds()
    dates = "RadiopharmaceuticalStartDateTime, RadiopharmaceuticalStartTime or the series' dates"
    return remaining_share(delay_s, positive_tag(drug, "RadionuclideHalfLife", path), f"{path}: the scan starts", dates)


def remaining_share(delay_s: float, half_life_s: float, what: str, dates: str) -> float:
    """The share of a dose that is left after a delay, seconds.

    Raises
    ------
    UnsupportedUnits
        If the delay is below 0 or beyond any scan; `what` begins the message, `dates` are the tags at fault.
    """
    if not 0 <= delay_s <= _LONGEST_DELAY_HALF_LIVES * half_life_s:
        raise UnsupportedUnits(
            f"{what} {delay_s:.0f} s after the injection, with a half-life of {half_life_s:g} s; {dates} are wrong"
        )
    return float(2.0 ** (-delay_s / half_life_s))


def _scan_start(tags: Dataset, slices: _Slices, path: Path) -> datetime:
    """The earlier of series time and first acquisition: a series made again later carries the time of its making."""
    acquired = [_moment(header, "AcquisitionDate", "AcquisitionTime", file) for file, header in slices]
    known = [moment for moment in (*acquired, _moment(tags, "SeriesDate", "SeriesTime", path)) if moment is not None]
    if not known:
        raise UnsupportedUnits(f"{path}: SUV needs SeriesDate and SeriesTime, or AcquisitionDate and AcquisitionTime")
    return min(known)


def _moment(tags: Tags, date_keyword: str, time_keyword: str, path: Path) -> datetime | None:
    date, time = text_tag(tags, date_keyword, path), text_tag(tags, time_keyword, path)
    if not date or not time:
        return None
    try:
        return datetime.combine(DA(date), TM(time))
    except (TypeError, ValueError) as error:
        raise UnsupportedUnits(f"{path}: {date_keyword} {date!r} or {time_keyword} {time!r} is malformed") from error


def _injection(tags: Dataset, drug: Dataset, start: datetime, path: Path) -> datetime:
    """When the dose was given: its own date and time, else the last time before the scan that the clock said so."""
    stamp = text_tag(drug, "RadiopharmaceuticalStartDateTime", path)
    if stamp:
        return _series_stamp(stamp, text_tag(tags, "TimezoneOffsetFromUTC", path), path)
    clock = text_tag(drug, "RadiopharmaceuticalStartTime", path)
    try:
        given = datetime.combine(start.date(), TM(clock))
    except (TypeError, ValueError) as error:
        raise UnsupportedUnits(
            f"{path}: SUV needs RadiopharmaceuticalStartDateTime or RadiopharmaceuticalStartTime; got {clock!r}"
        ) from error
    return given if given <= start else given - timedelta(days=1)


def _series_stamp(stamp: str, series_offset: str, path: Path) -> datetime:
    moment, offset = date_time(stamp, "RadiopharmaceuticalStartDateTime", path)
    if offset and offset != series_offset:
        raise UnsupportedUnits(
            f"{path}: RadiopharmaceuticalStartDateTime {stamp!r} has another time zone than the series "
            f"(TimezoneOffsetFromUTC {series_offset!r})"
        )
    return moment


def date_time(stamp: str, keyword: str, path: Path) -> tuple[datetime, str]:
    """A moment, to the minute at least, by its own clock, and the time zone that it names ("" for none).

    Raises
    ------
    UnsupportedUnits
        If it is incomplete or malformed.
    """
    parts = _STAMP.fullmatch(stamp)
    if parts is None:
        raise UnsupportedUnits(f"{path}: {keyword} {stamp!r} does not give date and time")
    try:
        return datetime.combine(DA(parts["date"]), TM(parts["time"])), parts["offset"] or ""
    except (TypeError, ValueError) as error:
        raise UnsupportedUnits(f"{path}: {keyword} {stamp!r} is malformed") from error
