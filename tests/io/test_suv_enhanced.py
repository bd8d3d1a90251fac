from __future__ import annotations

import numpy as np
import pytest
from pydicom import config
from pydicom.dataset import Dataset

from medseg.errors import UnsupportedUnits, UsageError
from medseg.io.scan import load_volume, read_scan
from tests.io.enhanced_files import frame_pixels, mapping, write_enhanced, write_enhanced_pet

POSITIONS = [(0, 0, 9.0), (0, 0, 3.0), (0, 0, 6.0)]
SORTED = frame_pixels(3)[[1, 2, 0]]  # (slice, row, column) as stored


def suv(folder, edit=None, **options):
    with config.disable_value_validation():  # malformed values are written on purpose
        path = write_enhanced_pet(folder, POSITIONS, edit)
    return load_volume(read_scan(path), "suv", **options)


def of_the_whole(change):
    """An edit that changes the data set and leaves the frames alone."""

    def edit(dataset, number):
        if number < 0:
            change(dataset)

    return edit


def set_tag(keyword, value):
    """An edit that sets a tag of the data set, or deletes it if the value is None."""
    return of_the_whole(lambda dataset: _set(dataset, keyword, value))


def set_drug_tag(keyword, value):
    return of_the_whole(lambda dataset: _set(dataset.RadiopharmaceuticalInformationSequence[0], keyword, value))


def _set(dataset: Dataset, keyword, value):
    if value is None:
        delattr(dataset, keyword)
    else:
        setattr(dataset, keyword, value)


def test_dose_in_megabecquerels_decays_to_the_moment_of_the_correction(tmp_path):
    """370 MBq, one half-life, 74 kg: 2,500 Bq/ml a unit of SUV; two Bq/ml a stored unit."""
    volume = suv(tmp_path)
    np.testing.assert_array_equal(volume.array[0].T, (SORTED * 2.0).astype(np.float32) / np.float32(2500))
    assert volume.notes == (
        "SUVbw: Bq/ml divided by 2500 (enhanced PET, decay corrected to 6600 s after the injection)",
    )


def test_stored_values_are_as_before(tmp_path):
    np.testing.assert_array_equal(
        load_volume(read_scan(write_enhanced_pet(tmp_path, POSITIONS))).array[0].T, SORTED * 2.0
    )


def test_frames_corrected_to_the_injection_take_the_dose_as_injected(tmp_path):
    volume = suv(tmp_path, set_tag("DecayCorrectionDateTime", "20240229101000.000"))
    np.testing.assert_array_equal(volume.array[0].T, (SORTED * 2.0).astype(np.float32) / np.float32(5000))


def test_given_weight_goes_before_the_tag_and_is_noted(tmp_path):
    volume = suv(tmp_path, weight_kg=37.0)
    np.testing.assert_array_equal(volume.array[0].T, (SORTED * 2.0).astype(np.float32) / np.float32(5000))
    assert volume.notes[0].endswith("after the injection, weight given as 37 kg)")


def test_mapping_other_than_the_rescale_counts(tmp_path):
    def edit(groups, number):
        if number >= 0:
            groups.RealWorldValueMappingSequence = mapping("Bq/ml", 10.0)

    volume = suv(tmp_path, edit)
    np.testing.assert_allclose(volume.array[0].T, SORTED * 10.0 / 2500, rtol=1e-6)
    assert volume.notes[0].endswith("Bq/ml are stored values times 5")


def test_every_frame_may_have_its_own_slope(tmp_path):
    slopes = (2.0, 4.0, 0.5)

    def edit(groups, number):
        if number >= 0:
            groups.PixelValueTransformationSequence = groups_of_slope(slopes[number])
            groups.RealWorldValueMappingSequence = mapping("Bq/ml", slopes[number])

    volume = suv(tmp_path, edit)
    expected = SORTED * np.array(slopes)[[1, 2, 0], None, None] / 2500
    np.testing.assert_allclose(volume.array[0].T, expected, rtol=1e-6)


def groups_of_slope(slope):
    transformation = Dataset()
    transformation.RescaleSlope, transformation.RescaleIntercept = slope, 0.0
    return [transformation]


@pytest.mark.parametrize("unit", ["{SUVbw}g/ml", "g/ml{SUVbw}"])
def test_mapping_to_suv_by_body_weight_is_taken_as_it_is(tmp_path, unit):
    def change(dataset):
        dataset.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence = mapping(unit, 0.001)
        del dataset.PatientWeight, dataset.RadiopharmaceuticalInformationSequence, dataset.DecayCorrected

    volume = suv(tmp_path, of_the_whole(change))
    np.testing.assert_allclose(volume.array[0].T, SORTED * 0.001, rtol=1e-6)
    assert volume.notes == ("SUVbw: stored values times 0.0005 (RealWorldValueMappingSequence)",)


@pytest.mark.parametrize(("weight", "expected"), [(None, 0.001), (37.0, 2.0 / 5000)])
def test_given_weight_goes_by_the_activity_where_both_are_mapped(tmp_path, weight, expected):
    def change(dataset):
        both = [*mapping("Bq/ml", 2.0), *mapping("{SUVbw}g/ml", 0.001)]
        dataset.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence = both

    volume = suv(tmp_path, of_the_whole(change), weight_kg=weight)
    np.testing.assert_allclose(volume.array[0].T, SORTED * expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("injected", "corrected", "series_zone"),
    [
        ("20240229101000+0100", "20240229120000+0100", None),
        ("20240229091000+0000", "20240229120000+0100", None),
        ("20240229101000", "20240229130000+0200", "+0100"),
        ("20240229064000-0230", "20240229120000", "+0100"),
        ("20240228235000+0000", "20240229014000+0000", None),
    ],
)
def test_time_zones_are_accounted_for(tmp_path, injected, corrected, series_zone):
    def change(dataset):
        dataset.DecayCorrectionDateTime = corrected
        dataset.RadiopharmaceuticalInformationSequence[0].RadiopharmaceuticalStartDateTime = injected
        if series_zone is not None:
            dataset.TimezoneOffsetFromUTC = series_zone

    volume = suv(tmp_path, of_the_whole(change))
    np.testing.assert_allclose(volume.array[0].T, SORTED * 2.0 / 2500, rtol=1e-6)


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("DecayCorrected", "NO"),
        ("DecayCorrected", None),
        ("AttenuationCorrected", "NO"),
        ("CountsSource", "TRANSMISSION"),
        ("DecayCorrectionDateTime", None),
        ("DecayCorrectionDateTime", "20240229"),
        ("DecayCorrectionDateTime", "20240229100000"),  # before the injection
        ("DecayCorrectionDateTime", "20250229120000"),  # no such day
        ("DecayCorrectionDateTime", "20240229120000+0100"),  # the injection names no time zone
        ("PatientWeight", None),
        ("PatientWeight", 0.0),
        ("RadiopharmaceuticalInformationSequence", None),
        ("RadiopharmaceuticalInformationSequence", [Dataset(), Dataset()]),
    ],
)
def test_tag_at_fault_is_named(tmp_path, keyword, value):
    with pytest.raises(UnsupportedUnits, match=keyword):
        suv(tmp_path, set_tag(keyword, value))


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("RadionuclideTotalDose", None),
        ("RadionuclideTotalDose", 370e6),  # becquerels, as in classic PET
        ("RadionuclideTotalDose", 0.01),
        ("RadionuclideHalfLife", None),
        ("RadiopharmaceuticalStartDateTime", None),
        ("RadiopharmaceuticalStartDateTime", "20230228101000"),  # a year before
    ],
)
def test_tag_of_the_dose_at_fault_is_named(tmp_path, keyword, value):
    with pytest.raises(UnsupportedUnits, match=keyword):
        suv(tmp_path, set_drug_tag(keyword, value))


@pytest.mark.parametrize(
    ("mappings", "message"),
    [
        ([], "RealWorldValueMappingSequence to Bq/ml or SUVbw; got none"),
        (mapping("{counts}", 2.0), r"got \{counts\}"),
        (mapping("g/ml", 2.0), "got g/ml"),
        (mapping("Bq/ml", 2.0) * 2, "more than once"),
        (mapping("Bq/ml", 0.0), "RealWorldValueSlope"),
        (mapping("Bq/ml", 2.0, 5.0), "RealWorldValueIntercept 5 does not fit"),
    ],
)
def test_mapping_that_gives_no_suv_is_refused(tmp_path, mappings, message):
    def change(dataset):
        dataset.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence = mappings

    with pytest.raises(UnsupportedUnits, match=message):
        suv(tmp_path, of_the_whole(change))


def test_frames_of_different_mappings_are_refused(tmp_path):
    def edit(groups, number):
        if number == 1:
            groups.RealWorldValueMappingSequence = mapping("Bq/ml", 3.0)

    with pytest.raises(UnsupportedUnits, match="frames differ"):
        suv(tmp_path, edit)


@pytest.mark.parametrize("weight", [0.0, -1.0, float("nan")])
def test_given_weight_must_be_above_zero(tmp_path, weight):
    with pytest.raises(UsageError, match="weight_kg"):
        suv(tmp_path, weight_kg=weight)


def test_other_enhanced_images_have_no_suv(tmp_path):
    scan = read_scan(write_enhanced(tmp_path, POSITIONS))
    with pytest.raises(UnsupportedUnits, match="Modality is 'MR'"):
        load_volume(scan, "suv")
