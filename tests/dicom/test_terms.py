"""Codes of classes and of intensities."""

from __future__ import annotations

import pytest
from pydicom.sr.codedict import codes

from medseg.dicom.terms import SIZES, class_term, intensity_terms


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("lesion", codes.SCT.Lesion),
        ("liver_tumor", codes.SCT.Neoplasm),
        ("Brain metastases", codes.SCT.NeoplasmSecondary),
        ("cysts", codes.SCT.Cyst),
        ("kidney", codes.SCT.Kidney),
        ("\u75c5\u5909 <x>", codes.SCT.Lesion),
    ],
)
def test_classes_are_coded_by_their_words(name: str, code: object) -> None:
    assert class_term(name).type == code


def test_an_organ_is_anatomy_and_a_finding_is_not() -> None:
    assert class_term("liver").category == codes.SCT.AnatomicalStructure
    assert class_term("liver tumor").category == codes.SCT.MorphologicallyAbnormalStructure
    assert not class_term("whatever").is_known


@pytest.mark.parametrize(
    ("modality", "is_suv", "units", "unit"),
    [
        ("CT", False, None, "[hnsf'U]"),
        ("PT", True, "BQML", "g/ml{SUVbw}"),
        ("PT", False, "BQML", "Bq/ml"),
        ("PT", False, "CNTS", "1"),
        ("MR", False, None, "1"),
    ],
)
def test_intensities_have_the_unit_of_the_scan(modality: str, is_suv: bool, units: str | None, unit: str) -> None:
    terms = intensity_terms(modality, is_suv=is_suv, units=units)
    assert {term.column for term in terms} == {"mean", "std", "min", "max"}
    assert {term.unit.value for term in terms} == {unit}


def test_sizes_are_those_of_the_standard() -> None:
    assert [term.name for term in SIZES] == [codes.SCT.Volume, codes.SCT.LongAxis, codes.SCT.ShortAxis]
