from __future__ import annotations

import json

import pytest
from pydicom import config, dcmread

from medseg.errors import UnreadableImage, UnsupportedUnits, UsageError
from medseg.io.suv import suv_scale
from tests.io.dicom_files import add_pet_tags, write_series


def pet(folder, edit=None):
    """A PET of three slices with the tags of `add_pet_tags`, changed by edit(dataset, drug, k)."""

    def add(dataset, k):
        add_pet_tags(dataset)
        if edit is not None:
            edit(dataset, dataset.RadiopharmaceuticalInformationSequence[0], k)

    with config.disable_value_validation():  # malformed values are written on purpose
        return write_series(folder, n_slices=3, modality="PT", edit=add)


def scale(folder, edit=None) -> float:
    return suv_scale(pet(folder, edit)).stored_per_suv


def test_start_decays_the_dose_from_injection_to_scan(tmp_path):
    """370 MBq, one half-life of 6,600 s before the scan, 74 kg: 370e6 / 2 / 74000 = 2500 Bq/ml a unit of SUV."""
    found = suv_scale(pet(tmp_path))
    assert found.stored_per_suv == pytest.approx(2500.0)
    assert found.note == "SUVbw: Bq/ml divided by 2500 (DecayCorrection START)"


def test_admin_takes_the_dose_as_injected(tmp_path):
    def edit(dataset, drug, _):
        dataset.DecayCorrection = "ADMIN"
        del drug.RadionuclideHalfLife, drug.RadiopharmaceuticalStartTime

    assert scale(tmp_path, edit) == pytest.approx(5000.0)


def test_injection_before_midnight_belongs_to_the_day_before(tmp_path):
    def edit(dataset, drug, _):
        drug.RadiopharmaceuticalStartTime = "233000"
        dataset.SeriesTime = dataset.AcquisitionTime = "012000"  # 6,600 s later

    assert scale(tmp_path, edit) == pytest.approx(2500.0)


def test_date_of_the_injection_counts_where_it_is_given(tmp_path):
    """Two half-lives, over the end of February in a leap year; the clock alone would say less than one."""

    def edit(dataset, drug, _):
        drug.RadiopharmaceuticalStartDateTime = "20240229222000.00"
        drug.RadiopharmaceuticalStartTime = "010000"
        dataset.SeriesDate = dataset.AcquisitionDate = "20240301"
        dataset.SeriesTime = dataset.AcquisitionTime = "020000"

    assert scale(tmp_path, edit) == pytest.approx(1250.0)


def test_first_acquisition_counts_where_the_series_was_made_again_later(tmp_path):
    def edit(dataset, drug, k):
        dataset.SeriesTime = "150000"
        dataset.AcquisitionTime = ("121000", "120000", "120500")[k]

    assert scale(tmp_path, edit) == pytest.approx(2500.0)


def test_series_time_counts_where_it_is_before_the_acquisitions(tmp_path):
    def edit(dataset, drug, _):
        dataset.AcquisitionTime = "121500"

    assert scale(tmp_path, edit) == pytest.approx(2500.0)


@pytest.mark.parametrize("prefix", ["Series", "Acquisition"])
def test_either_of_the_two_times_is_enough(tmp_path, prefix):
    def edit(dataset, drug, _):
        delattr(dataset, f"{prefix}Date")
        setattr(dataset, f"{prefix}Time", None)

    assert scale(tmp_path, edit) == pytest.approx(2500.0)


def test_gml_is_suv_already(tmp_path):
    def edit(dataset, drug, _):
        dataset.Units = "GML"
        del dataset.PatientWeight, dataset.RadiopharmaceuticalInformationSequence

    found = suv_scale(pet(tmp_path, edit))
    assert (found.stored_per_suv, found.note) == (1.0, None)


def test_equal_time_zones_are_accepted(tmp_path):
    def edit(dataset, drug, _):
        drug.RadiopharmaceuticalStartDateTime = "20240229101000+0100"
        dataset.TimezoneOffsetFromUTC = "+0100"

    assert scale(tmp_path, edit) == pytest.approx(2500.0)


SERIES_FAULTS = [
    ("Units", "CNTS"),
    ("Units", "PROPCPS"),
    ("Units", None),
    ("DecayCorrection", "NONE"),
    ("DecayCorrection", None),
    ("PatientWeight", None),
    ("PatientWeight", 0.0),
    ("CorrectedImage", ["DECY", "SCAT"]),
    ("CorrectedImage", "ATTN"),
    ("RadiopharmaceuticalInformationSequence", None),
    ("SeriesTime", "noon"),
    ("Modality", "CT"),
]
DRUG_FAULTS = [
    ("RadionuclideTotalDose", None),
    ("RadionuclideTotalDose", 0.0),
    ("RadionuclideTotalDose", 370.0),  # megabecquerels
    ("RadionuclideHalfLife", None),
    ("RadionuclideHalfLife", -6600.0),
    ("RadiopharmaceuticalStartTime", None),
    ("RadiopharmaceuticalStartTime", "noon"),
    ("RadiopharmaceuticalStartDateTime", "20240229"),
    ("RadiopharmaceuticalStartDateTime", "20240229129900"),
    ("RadiopharmaceuticalStartDateTime", "20240229121000"),  # after the scan began
    ("RadiopharmaceuticalStartDateTime", "20230228101000"),  # a year before
    ("RadiopharmaceuticalStartDateTime", "20240229101000+0100"),  # a time zone that the series does not name
]


@pytest.mark.parametrize(("keyword", "value"), SERIES_FAULTS)
def test_series_tag_at_fault_is_named(tmp_path, keyword, value):
    def edit(dataset, drug, _):
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)

    with pytest.raises(UnsupportedUnits, match=keyword):
        scale(tmp_path, edit)


@pytest.mark.parametrize(("keyword", "value"), DRUG_FAULTS)
def test_tag_of_the_dose_at_fault_is_named(tmp_path, keyword, value):
    def edit(dataset, drug, _):
        if value is None:
            delattr(drug, keyword)
        else:
            setattr(drug, keyword, value)

    with pytest.raises(UnsupportedUnits, match=keyword):
        scale(tmp_path, edit)


def test_scan_without_any_time_is_refused(tmp_path):
    def edit(dataset, drug, _):
        del dataset.SeriesTime, dataset.AcquisitionDate

    with pytest.raises(UnsupportedUnits, match="SeriesDate and SeriesTime, or AcquisitionDate and AcquisitionTime"):
        scale(tmp_path, edit)


def test_two_doses_are_refused(tmp_path):
    def edit(dataset, drug, _):
        dataset.RadiopharmaceuticalInformationSequence = [drug, drug]

    with pytest.raises(UnsupportedUnits, match="one item"):
        scale(tmp_path, edit)


def test_slices_in_different_units_are_refused(tmp_path):
    def edit(dataset, drug, k):
        dataset.Units = "GML" if k == 1 else "BQML"

    with pytest.raises(UnsupportedUnits, match=r"\['BQML', 'GML'\]"):
        scale(tmp_path, edit)


def test_suv_by_lean_body_mass_is_refused(tmp_path):
    def edit(dataset, drug, _):
        dataset.Units, dataset.SUVType = "GML", "LBM"

    with pytest.raises(UnsupportedUnits, match="SUVType is 'LBM'"):
        scale(tmp_path, edit)


def test_malformed_weight_is_named(tmp_path):
    files = pet(tmp_path)
    for file in files:
        file.write_bytes(file.read_bytes().replace(b"74.0", b"74kg"))
    with pytest.raises(UnreadableImage, match="PatientWeight"):
        suv_scale(files)


@pytest.mark.real_data
def test_scale_of_the_synthetic_pet_is_the_published_one(real_data):
    manifest = json.loads((real_data / "dicom" / "manifest.json").read_text())
    truth = next(entry["suv_truth"] for entry in manifest["series"] if entry["name"] == "pet_synthetic_varslope")
    files = sorted((real_data / "dicom" / "pet_synthetic_varslope").iterdir())
    assert dcmread(files[0]).Units == "BQML"
    assert suv_scale(files).stored_per_suv == pytest.approx(truth["Bqml_per_SUV"], rel=1e-12)


# counts of a Philips scanner, and a weight that is given


def philips(to_suv=None, to_bqml=None):
    def edit(dataset, drug, _):
        dataset.Units = "CNTS"
        block = dataset.private_block(0x7053, "Philips PET Private Group", create=True)
        for element, factor in ((0x00, to_suv), (0x09, to_bqml)):
            if factor is not None:
                block.add_new(element, "DS", str(factor))

    return edit


def test_philips_counts_go_by_the_factor_to_suv(tmp_path):
    found = suv_scale(pet(tmp_path, philips(to_suv=0.0005, to_bqml=2.0)))
    assert found.stored_per_suv == pytest.approx(2000.0)
    assert found.note == "SUVbw: counts times the Philips factor (7053,1000) = 0.0005"


@pytest.mark.parametrize("to_suv", [None, 0.0])
def test_philips_counts_without_it_go_by_the_factor_to_activity_and_the_dose(tmp_path, to_suv):
    found = suv_scale(pet(tmp_path, philips(to_suv=to_suv, to_bqml=2.0)))
    assert found.stored_per_suv == pytest.approx(1250.0)  # 2500 Bq/ml a unit of SUV, 2 Bq/ml a count
    assert "(7053,1009) = 2" in found.note


def test_counts_without_any_factor_are_refused(tmp_path):
    with pytest.raises(UnsupportedUnits, match="CNTS alone"):
        scale(tmp_path, philips())


def test_given_weight_goes_before_the_tag_and_is_noted(tmp_path):
    found = suv_scale(pet(tmp_path), weight_kg=37.0)
    assert found.stored_per_suv == pytest.approx(5000.0)
    assert found.note.endswith("(DecayCorrection START, weight given as 37 kg)")


@pytest.mark.parametrize("weight", [0.0, -1.0, float("nan"), float("inf")])
def test_given_weight_must_be_above_zero(tmp_path, weight):
    with pytest.raises(UsageError, match="weight_kg"):
        suv_scale(pet(tmp_path), weight_kg=weight)
