"""SUVbw: from Bq/ml to standardized uptake values by body weight, from the tags of a PET series.

Nothing is guessed: where a tag is missing, contradicts another or is implausible, the series has no SUV.

References
----------
.. [1] QIBA Profile FDG-PET/CT as an Imaging Biomarker, vendor-neutral pseudo-code for SUV calculation
.. [2] DICOM PS3.3 C.8.9.1 (PET Series: Units, Decay Correction), C.8.9.2 (PET Isotope)
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from pydicom import Dataset
from pydicom.valuerep import DA, TM

from medseg.errors import UnsupportedUnits
from medseg.io.dicom_headers import number_tag, read_tags

__all__ = ["SuvScale", "suv_scale"]

_SERIES_TAGS = [
    *("Modality", "Units", "SUVType", "DecayCorrection", "CorrectedImage", "PatientWeight"),
    *("SeriesDate", "SeriesTime", "TimezoneOffsetFromUTC", "RadiopharmaceuticalInformationSequence"),
]
_SLICE_TAGS = ["Units", "AcquisitionDate", "AcquisitionTime"]
_STAMP = re.compile(r"(?P<date>\d{8})(?P<time>\d{4,6}(\.\d{1,6})?)(?P<offset>[+-]\d{4})?")  # to the minute at least
_LOWEST_DOSE_BQ = 1e5  # nobody gets less; a number below is a dose in MBq
_LONGEST_DELAY_HALF_LIVES = 10.0  # nothing is left to see: a wrong date


@dataclass(frozen=True)
class SuvScale:
    """By what stored values are divided to become SUVbw, and a note that says how it was found."""

    stored_per_suv: float
    note: str | None


def suv_scale(files: Sequence[Path]) -> SuvScale:
    """What the stored (rescaled) values of a PET series are in SUVbw.

    GML with SUV type BW is SUVbw already. BQML is divided by dose / weight, with the dose decayed from injection to
    the start of the scan where the images are corrected to that time (DecayCorrection START), and as injected where
    they are corrected to the injection (ADMIN).

    Parameters
    ----------
    files
        The slices of one series.

    Raises
    ------
    UnsupportedUnits
        If the series is no PET, or a tag that is needed is missing, malformed or implausible; the message names it.
    UnreadableImage
        If a file is damaged.
    """
    path = files[0]
    tags = read_tags(path, _SERIES_TAGS)
    slices = [(file, read_tags(file, _SLICE_TAGS)) for file in files]
    if tags.get("Modality") != "PT":
        raise UnsupportedUnits(f"{path}: SUV needs a PET series; Modality is {tags.get('Modality')!r}")
    units = {str(header.get("Units", "")) for _, header in slices}
    if units == {"GML"}:
        _check_body_weight_suv(tags, path)
        return SuvScale(1.0, None)
    if units != {"BQML"}:
        raise UnsupportedUnits(f"{path}: SUV needs Units BQML or GML in every slice; got {sorted(units)}")
    return _scale_from_dose(tags, slices, path)


def _check_body_weight_suv(tags: Dataset, path: Path) -> None:
    if tags.get("SUVType", "BW") not in ("", None, "BW"):
        raise UnsupportedUnits(f"{path}: SUV here is by body weight; SUVType is {tags.get('SUVType')!r}")


def _scale_from_dose(tags: Dataset, slices: Sequence[tuple[Path, Dataset]], path: Path) -> SuvScale:
    _check_corrected(tags, path)
    drug = _the_radiopharmaceutical(tags, path)
    dose = _positive(drug, "RadionuclideTotalDose", path)
    if dose < _LOWEST_DOSE_BQ:
        raise UnsupportedUnits(f"{path}: RadionuclideTotalDose must be in Bq; {dose:g} looks like another unit")
    weight_kg = _positive(tags, "PatientWeight", path)
    correction = str(tags.get("DecayCorrection", ""))
    if correction == "START":
        dose *= _remaining_share(tags, drug, slices, path)
    elif correction != "ADMIN":
        raise UnsupportedUnits(f"{path}: SUV needs DecayCorrection START or ADMIN; got {correction!r}")
    bqml_per_suv = dose / (weight_kg * 1000.0)
    return SuvScale(bqml_per_suv, f"SUVbw: Bq/ml divided by {bqml_per_suv:.6g} (DecayCorrection {correction})")


def _check_corrected(tags: Dataset, path: Path) -> None:
    """Without decay and attenuation correction, Bq/ml is no uptake; an absent list is left to DecayCorrection."""
    corrected = tags.get("CorrectedImage") or []
    applied = {corrected} if isinstance(corrected, str) else set(corrected)
    if applied and not {"ATTN", "DECY"} <= applied:
        raise UnsupportedUnits(f"{path}: SUV needs CorrectedImage with ATTN and DECY; got {sorted(applied)}")


def _the_radiopharmaceutical(tags: Dataset, path: Path) -> Dataset:
    items = tags.get("RadiopharmaceuticalInformationSequence") or []
    if len(items) != 1:
        raise UnsupportedUnits(
            f"{path}: SUV needs one item in RadiopharmaceuticalInformationSequence; got {len(items)}"
        )
    item: Dataset = items[0]
    return item


def _positive(tags: Dataset, keyword: str, path: Path) -> float:
    value = number_tag(tags, keyword, path)
    if value is None or value <= 0:
        raise UnsupportedUnits(f"{path}: SUV needs {keyword} above 0; got {value}")
    return value


def _remaining_share(tags: Dataset, drug: Dataset, slices: Sequence[tuple[Path, Dataset]], path: Path) -> float:
    """The share of the dose that is left at the start of the scan."""
    half_life = _positive(drug, "RadionuclideHalfLife", path)
    start = _scan_start(tags, slices, path)
    delay = (start - _injection(tags, drug, start, path)).total_seconds()
    if not 0 <= delay <= _LONGEST_DELAY_HALF_LIVES * half_life:
        raise UnsupportedUnits(
            f"{path}: the scan starts {delay:.0f} s after the injection, with a half-life of {half_life:g} s; "
            "RadiopharmaceuticalStartDateTime, RadiopharmaceuticalStartTime or the series' dates are wrong"
        )
    return float(2.0 ** (-delay / half_life))


def _scan_start(tags: Dataset, slices: Sequence[tuple[Path, Dataset]], path: Path) -> datetime:
    """The earlier of series time and first acquisition: a series made again later carries the time of its making."""
    acquired = [_moment(header, "AcquisitionDate", "AcquisitionTime", file) for file, header in slices]
    known = [moment for moment in (*acquired, _moment(tags, "SeriesDate", "SeriesTime", path)) if moment is not None]
    if not known:
        raise UnsupportedUnits(f"{path}: SUV needs SeriesDate and SeriesTime, or AcquisitionDate and AcquisitionTime")
    return min(known)


def _moment(tags: Dataset, date_keyword: str, time_keyword: str, path: Path) -> datetime | None:
    date, time = str(tags.get(date_keyword) or ""), str(tags.get(time_keyword) or "")
    if not date or not time:
        return None
    try:
        return datetime.combine(DA(date), TM(time))
    except (TypeError, ValueError) as error:
        raise UnsupportedUnits(f"{path}: {date_keyword} {date!r} or {time_keyword} {time!r} is malformed") from error


def _injection(tags: Dataset, drug: Dataset, start: datetime, path: Path) -> datetime:
    """When the dose was given: its own date and time, else the last time before the scan that the clock said so."""
    stamp = str(drug.get("RadiopharmaceuticalStartDateTime") or "")
    if stamp:
        return _injection_stamp(stamp, str(tags.get("TimezoneOffsetFromUTC") or ""), path)
    clock = str(drug.get("RadiopharmaceuticalStartTime") or "")
    try:
        given = datetime.combine(start.date(), TM(clock))
    except (TypeError, ValueError) as error:
        raise UnsupportedUnits(
            f"{path}: SUV needs RadiopharmaceuticalStartDateTime or RadiopharmaceuticalStartTime; got {clock!r}"
        ) from error
    return given if given <= start else given - timedelta(days=1)


def _injection_stamp(stamp: str, series_offset: str, path: Path) -> datetime:
    parts = _STAMP.fullmatch(stamp)
    if parts is None:
        raise UnsupportedUnits(f"{path}: RadiopharmaceuticalStartDateTime {stamp!r} does not give date and time")
    if parts["offset"] and parts["offset"] != series_offset:
        raise UnsupportedUnits(
            f"{path}: RadiopharmaceuticalStartDateTime {stamp!r} has another time zone than the series "
            f"(TimezoneOffsetFromUTC {series_offset!r})"
        )
    try:
        return datetime.combine(DA(parts["date"]), TM(parts["time"]))
    except (TypeError, ValueError) as error:
        raise UnsupportedUnits(f"{path}: RadiopharmaceuticalStartDateTime {stamp!r} is malformed") from error
