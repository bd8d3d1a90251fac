"""Codes: what DICOM objects call classes, measurements and units (SNOMED CT, DCM, UCUM, IBSI)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pydicom.sr.coding import Code

__all__ = ["ClassTerm", "MeasurementTerm", "SIZES", "UPTAKE", "class_term", "intensity_terms"]

_ABNORMAL = Code("49755003", "SCT", "Morphologically Abnormal Structure")
_ANATOMY = Code("91723000", "SCT", "Anatomical Structure")
_LESION = Code("52988006", "SCT", "Lesion")


@dataclass(frozen=True)
class ClassTerm:
    """A class in codes: category and type of the property, and whether the type was known or is the plain lesion."""

    category: Code
    type: Code
    is_known: bool


@dataclass(frozen=True)
class MeasurementTerm:
    """A column of the lesion table in codes."""

    column: str
    name: Code
    unit: Code
    derivation: Code | None = None


_FINDINGS = {
    "lesion": _LESION,
    "tumor": Code("108369006", "SCT", "Neoplasm"),
    "tumour": Code("108369006", "SCT", "Neoplasm"),
    "neoplasm": Code("108369006", "SCT", "Neoplasm"),
    "cancer": Code("372087000", "SCT", "Neoplasm, Primary"),
    "sarcoma": Code("108369006", "SCT", "Neoplasm"),
    "metastasis": Code("14799000", "SCT", "Neoplasm, Secondary"),
    "cyst": Code("367643001", "SCT", "Cyst"),
    "nodule": Code("27925004", "SCT", "Nodule"),
    "edema": Code("79654002", "SCT", "Edema"),
    "necrosis": Code("6574001", "SCT", "Necrosis"),
    "hemorrhage": Code("50960005", "SCT", "Hemorrhage"),
}
_ORGANS = {
    "liver": Code("10200004", "SCT", "Liver"),
    "spleen": Code("78961009", "SCT", "Spleen"),
    "kidney": Code("64033007", "SCT", "Kidney"),
    "pancreas": Code("15776009", "SCT", "Pancreas"),
    "lung": Code("39607008", "SCT", "Lung"),
    "brain": Code("12738006", "SCT", "Brain"),
    "heart": Code("80891009", "SCT", "Heart"),
    "bone": Code("272673000", "SCT", "Bone"),
    "prostate": Code("41216001", "SCT", "Prostate"),
    "bladder": Code("89837001", "SCT", "Bladder"),
}


def class_term(name: str) -> ClassTerm:
    """The codes of a class, by the last of its words that is known: "liver tumor" is a neoplasm.

    Examples
    --------
    >>> class_term("liver_tumor").type.meaning, class_term("liver").category.meaning, class_term("x").type.meaning
    ('Neoplasm', 'Anatomical Structure', 'Lesion')
    """
    words = [word.removesuffix("s") for word in re.findall(r"[a-z]+", name.lower())]
    words = ["metastasis" if word in ("metastase", "metastasi") else word for word in words]
    words = ["necrosis" if word == "necrosi" else word for word in words]
    finding = next((_FINDINGS[word] for word in reversed(words) if word in _FINDINGS), None)
    if finding is not None:
        return ClassTerm(_ABNORMAL, finding, True)
    organ = next((_ORGANS[word] for word in reversed(words) if word in _ORGANS), None)
    if organ is not None:
        return ClassTerm(_ANATOMY, organ, True)
    return ClassTerm(_ABNORMAL, _LESION, False)


_MM = Code("mm", "UCUM", "mm")
_ML = Code("ml", "UCUM", "ml")
_VOLUME = Code("118565006", "SCT", "Volume")
_LONG_AXIS = Code("103339001", "SCT", "Long axis")
_SHORT_AXIS = Code("103340004", "SCT", "Short axis")
_MEAN = Code("373098007", "SCT", "Mean")
_MINIMUM = Code("255605001", "SCT", "Minimum")
_MAXIMUM = Code("56851009", "SCT", "Maximum")
_STD = Code("386136009", "SCT", "Standard Deviation")

_SUV = (Code("126401", "DCM", "SUVbw"), Code("g/ml{SUVbw}", "UCUM", "Standardized Uptake Value body weight"))
_ATTENUATION = (Code("112031", "DCM", "Attenuation Coefficient"), Code("[hnsf'U]", "UCUM", "Hounsfield unit"))
_ACTIVITY = (Code("1", "99MEDSEG", "Activity concentration"), Code("Bq/ml", "UCUM", "Becquerels/milliliter"))
_MR_SIGNAL = (Code("110852", "DCM", "MR signal intensity"), Code("1", "UCUM", "no units"))
_STORED_VALUE = (Code("2", "99MEDSEG", "Voxel value after rescale"), Code("1", "UCUM", "no units"))

SIZES: tuple[MeasurementTerm, ...] = (
    MeasurementTerm("volume_ml", _VOLUME, _ML),
    MeasurementTerm("longest_diameter_mm", _LONG_AXIS, _MM),
    MeasurementTerm("perpendicular_diameter_mm", _SHORT_AXIS, _MM),
)
"""Columns of sizes, measurements of the report where the table has them."""

UPTAKE: tuple[MeasurementTerm, ...] = (
    MeasurementTerm("suv_peak", _SUV[0], _SUV[1], Code("126031", "DCM", "Peak Value Within ROI")),
    MeasurementTerm("tlg_suv_ml", Code("126033", "DCM", "Total Lesion Glycolysis"), Code("g", "UCUM", "g")),
)
"""Columns of uptake, where the table has them."""

_STATISTICS = {"mean": _MEAN, "std": _STD, "min": _MINIMUM, "max": _MAXIMUM}


def intensity_terms(modality: str, *, is_suv: bool, units: str | None = None) -> tuple[MeasurementTerm, ...]:
    """Columns of intensities, in the quantity that the scan is in.

    Parameters
    ----------
    modality
        DICOM modality code.
    is_suv
        True if the table's intensities are SUV by body weight.
    units
        The DICOM Units of a PET; "BQML" is what is told apart.
    """
    quantity, unit = _STORED_VALUE
    if is_suv:
        quantity, unit = _SUV
    elif modality == "CT":
        quantity, unit = _ATTENUATION
    elif modality == "PT" and units == "BQML":
        quantity, unit = _ACTIVITY
    elif modality == "MR":
        quantity, unit = _MR_SIGNAL
    return tuple(MeasurementTerm(column, quantity, unit, how) for column, how in _STATISTICS.items())
