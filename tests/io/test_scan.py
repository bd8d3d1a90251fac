from __future__ import annotations

import hashlib
import json
import shutil

import numpy as np
import pytest

from medseg.core.scan import DicomIdentifiers, Scan
from medseg.errors import (
    AmbiguousSeries,
    ChannelMismatch,
    GridMismatch,
    NonFiniteVoxels,
    ScanNotFound,
    UnreadableImage,
    UnsupportedUnits,
    UsageError,
)
from medseg.io.case_ids import dicom_case_id
from medseg.io.scan import hash_inputs, load_volume, read_scan
from tests.io.dicom_files import (
    SERIES_UID,
    STUDY_UID,
    add_pet_tags,
    expected_affine,
    set_tag,
    stored_pixels,
    write_series,
)
from tests.io.nifti_files import AFFINE, save

ARRAY = np.arange(60, dtype=np.float32).reshape(3, 4, 5)


def write_pet(folder, **tags):
    def edit(dataset, _):
        add_pet_tags(dataset)
        for keyword, value in tags.items():
            setattr(dataset, keyword, value)

    return write_series(folder, modality="PT", edit=edit)


# NIfTI


def test_file_is_named_after_itself(tmp_path):
    scan = read_scan(save(ARRAY, tmp_path / "case 07.v2.nii.gz"))
    assert scan.case_id == "case 07.v2"
    assert (scan.format, scan.modality, scan.dicom, scan.n_channels) == ("nifti", None, (), 1)
    np.testing.assert_array_equal(scan.geometry.affine, AFFINE)


def test_only_file_of_a_folder_is_named_relative_to_it(tmp_path):
    (tmp_path / "p07" / "pet").mkdir(parents=True)
    path = save(ARRAY, tmp_path / "p07" / "pet" / "scan.nii.gz")
    scan = read_scan(str(tmp_path))
    assert scan.case_id == "p07/pet/scan"
    assert scan.files == ((path,),)


def test_given_case_id_wins(tmp_path):
    path = save(ARRAY, tmp_path / "a.nii")
    assert read_scan(path, case_id="x").case_id == "x"


def test_several_files_in_a_folder_are_listed(tmp_path):
    for name in ("b.nii", "a.nii.gz"):
        save(ARRAY, tmp_path / name)
    with pytest.raises(AmbiguousSeries, match=r"2 volume file\(s\) and 0 DICOM series; name one of them\n  a.*\n  b"):
        read_scan(tmp_path)


def test_hidden_files_are_passed_over(tmp_path):
    save(ARRAY, tmp_path / "a.nii")
    (tmp_path / "._a.nii").write_bytes(b"a Mac's leftover")
    (tmp_path / ".cache").mkdir()
    save(ARRAY, tmp_path / ".cache" / "b.nii")
    assert read_scan(tmp_path).case_id == "a"


def test_voxels_are_loaded_as_stored(tmp_path):
    volume = load_volume(read_scan(save(ARRAY, tmp_path / "a.nii")))
    np.testing.assert_array_equal(volume.array, ARRAY[None])
    assert (volume.channels, volume.notes) == (("channel_0",), ())


def test_suv_is_taken_on_trust_with_a_note(tmp_path):
    volume = load_volume(read_scan(save(ARRAY, tmp_path / "a.nii")), units="suv")
    np.testing.assert_array_equal(volume.array, ARRAY[None])
    assert volume.notes == ("a.nii: taken as SUV on trust; NIfTI names no unit",)


def test_notes_of_the_file_reach_the_volume(tmp_path):
    volume = load_volume(read_scan(save(ARRAY[..., None], tmp_path / "a.nii")))
    assert volume.notes == ("a.nii: dropped 1 single axes of shape (3, 4, 5, 1)",)


def test_nan_and_infinity_are_refused_by_case_and_file(tmp_path):
    array = ARRAY.copy()
    array[0, 0, 0], array[0, 0, 1] = np.nan, -np.inf
    scan = read_scan(save(array, tmp_path / "a.nii"), case_id="p07")
    with pytest.raises(NonFiniteVoxels, match=r"p07: 2 of 60 voxels of .*a\.nii"):
        load_volume(scan)


def test_nan_and_infinity_are_filled_on_request_and_counted(tmp_path):
    array = ARRAY.copy()
    array[0, 0, 0], array[0, 0, 1] = np.nan, -np.inf
    volume = load_volume(read_scan(save(array, tmp_path / "a.nii")), nan_as=-7.5)
    assert volume.notes == ("filled 2 NaN or infinite voxels with -7.5",)
    assert volume.array[0, 0, 0, :3].tolist() == [-7.5, -7.5, 2.0]
    np.testing.assert_array_equal(volume.array[0, 1:], ARRAY[1:])


def test_fill_value_leaves_whole_scans_alone(tmp_path):
    assert load_volume(read_scan(save(ARRAY, tmp_path / "a.nii")), nan_as=0).notes == ()


@pytest.mark.parametrize("nan_as", [np.nan, np.inf])
def test_fill_value_must_be_finite(tmp_path, nan_as):
    with pytest.raises(UsageError, match="nan_as must be a finite number"):
        load_volume(read_scan(save(ARRAY, tmp_path / "a.nii")), nan_as=nan_as)


def test_file_that_changed_its_grid_is_refused(tmp_path):
    scan = read_scan(save(ARRAY, tmp_path / "a.nii"))
    save(ARRAY[:2], tmp_path / "a.nii")
    with pytest.raises(GridMismatch, match="has changed"):
        load_volume(scan)


# channels


def test_channels_keep_the_order_in_which_they_were_given(tmp_path):
    paths = [save(ARRAY + 100 * n, tmp_path / f"{name}.nii") for n, name in enumerate("ba")]
    scan = read_scan(paths)
    volume = load_volume(scan, units=["suv", "stored"])
    assert scan.case_id == "b"
    assert volume.channels == ("channel_0", "channel_1")
    assert volume.array[:, 0, 0, 0].tolist() == [0, 100]
    assert volume.notes == ("b.nii: taken as SUV on trust; NIfTI names no unit",)


def test_channels_on_different_grids_are_refused_with_the_distance(tmp_path):
    first = save(ARRAY, tmp_path / "a.nii")
    second = save(ARRAY, tmp_path / "b.nii", affine=AFFINE + np.eye(4, k=3) * 0.25)
    with pytest.raises(GridMismatch, match=r"a\.nii .*b\.nii .* up to 0\.25 mm apart"):
        read_scan([first, second])


def test_channels_of_different_formats_are_refused(tmp_path):
    write_series(tmp_path / "series")
    with pytest.raises(UsageError, match="must all be of one format"):
        read_scan([save(ARRAY, tmp_path / "a.nii"), tmp_path / "series"])


def test_units_and_choices_must_fit_the_channels(tmp_path):
    path = save(ARRAY, tmp_path / "a.nii")
    with pytest.raises(ChannelMismatch, match=r"1 channel\(s\); 2 unit\(s\)"):
        load_volume(read_scan(path), units=["stored", "suv"])
    with pytest.raises(UsageError, match="'hu'"):
        load_volume(read_scan(path), units="hu")
    with pytest.raises(UsageError, match=r"1 channel\(s\) need one series"):
        read_scan([path], series=[1, 2])
    with pytest.raises(UsageError, match="in a DICOM folder only"):
        read_scan(path, series=1)
    with pytest.raises(UsageError, match="at least one path"):
        read_scan([])


# DICOM


def test_series_is_named_by_a_salted_hash_and_nothing_else(tmp_path):
    write_series(tmp_path / "CANARY")
    scan = read_scan(tmp_path, salt="pepper")
    assert scan.case_id == dicom_case_id("pepper", STUDY_UID, SERIES_UID)
    assert scan.case_id != read_scan(tmp_path).case_id
    assert scan.dicom == (DicomIdentifiers(STUDY_UID, SERIES_UID, "1.2.826.0.1.9", None),)
    assert (scan.format, scan.modality) == ("dicom", "CT")
    assert "CANARY" not in repr(scan)


def test_series_is_loaded_on_its_grid(tmp_path):
    files = write_series(tmp_path)
    scan = read_scan(tmp_path)
    volume = load_volume(scan)
    assert scan.files == (tuple(files),)
    np.testing.assert_allclose(volume.geometry.affine, expected_affine(), atol=1e-12)
    np.testing.assert_array_equal(volume.array[0], stored_pixels(4) * 2.0 - 1000.0)
    assert (volume.channels, volume.notes) == (("CT",), ())


def test_suv_is_the_stored_value_over_the_scale(tmp_path):
    write_pet(tmp_path)
    scan = read_scan(tmp_path)
    stored, suv = load_volume(scan), load_volume(scan, "suv")
    np.testing.assert_allclose(suv.array, stored.array / 2500.0, rtol=1e-6)
    assert suv.notes == ("SUVbw: Bq/ml divided by 2500 (DecayCorrection START)",)
    assert scan.dicom[0].units == "BQML"


def test_gml_is_the_same_stored_and_as_suv(tmp_path):
    write_pet(tmp_path, Units="GML")
    scan = read_scan(tmp_path)
    np.testing.assert_array_equal(load_volume(scan, "suv").array, load_volume(scan).array)
    assert load_volume(scan, "suv").notes == ()


def test_ct_has_no_suv(tmp_path):
    write_series(tmp_path)
    with pytest.raises(UnsupportedUnits, match=r"Modality is 'CT'\. Where a folder holds several series, --series"):
        load_volume(read_scan(tmp_path), "suv")


def test_two_series_of_one_folder_can_be_two_channels(tmp_path):
    write_pet(tmp_path / "pet")
    write_series(
        tmp_path / "ct", edit=lambda dataset, _: dataset.update({"SeriesInstanceUID": "1.9", "SeriesNumber": 8})
    )
    scan = read_scan([tmp_path, tmp_path], series=[3, 8])
    volume = load_volume(scan, units=["suv", "stored"])
    assert volume.channels == ("PT", "CT")
    np.testing.assert_allclose(volume.array[0], volume.array[1] / 2500.0, rtol=1e-6)
    with pytest.raises(AmbiguousSeries, match="2 series"):
        read_scan(tmp_path)


def test_series_beside_a_nifti_file_must_be_chosen(tmp_path):
    write_series(tmp_path / "series")
    save(ARRAY, tmp_path / "mask.nii")
    with pytest.raises(AmbiguousSeries, match=r"mask\.nii\n  DICOM series number 3: CT"):
        read_scan(tmp_path)
    assert read_scan(tmp_path, series=3).format == "dicom"


def test_one_file_is_a_volume_of_its_own(tmp_path):
    files = write_series(tmp_path, edit=set_tag("SliceThickness", 2.5))
    scan = read_scan(files[1])
    volume = load_volume(scan)
    assert scan.files == ((files[1],),)
    assert volume.geometry.spacing == (1.5, 2.0, 2.5)
    np.testing.assert_array_equal(volume.array[0], stored_pixels(4)[..., 1:2] * 2.0 - 1000.0)


def test_scan_that_read_scan_did_not_make_has_no_voxels_to_load(tmp_path):
    files = write_series(tmp_path)
    with pytest.raises(UsageError, match="read it with read_scan"):
        load_volume(Scan("p07", (tuple(files),), "dicom", read_scan(tmp_path).geometry))


def test_weight_can_be_given_where_the_series_lacks_it(tmp_path):
    write_pet(tmp_path, PatientWeight=None)
    scan = read_scan(tmp_path)
    with pytest.raises(UnsupportedUnits, match=r"PatientWeight .* give it \(--weight-kg\)"):
        load_volume(scan, "suv")
    volume = load_volume(scan, "suv", weight_kg=74.0)
    np.testing.assert_allclose(volume.array, load_volume(scan).array / 2500.0, rtol=1e-6)
    assert volume.notes == ("SUVbw: Bq/ml divided by 2500 (DecayCorrection START, weight given as 74 kg)",)


def test_path_that_is_no_image_is_refused(tmp_path):
    (tmp_path / "note.txt").write_text("no image")
    with pytest.raises(UnreadableImage, match=r"note\.txt is neither a volume"):
        read_scan(tmp_path / "note.txt")
    with pytest.raises(ScanNotFound, match="holds no DICOM image"):
        read_scan(tmp_path)
    with pytest.raises(ScanNotFound, match="does not exist"):
        read_scan(tmp_path / "none")


# hashes


def test_hash_of_a_nifti_scan_is_that_of_its_file(tmp_path):
    path = save(ARRAY, tmp_path / "a.nii")
    assert hash_inputs(read_scan(path)) == (hashlib.sha256(path.read_bytes()).hexdigest(),)


def test_hash_of_a_series_does_not_depend_on_file_names(tmp_path):
    files = write_series(tmp_path / "a")
    (tmp_path / "b").mkdir()
    for number, file in enumerate(files):
        shutil.copy(file, tmp_path / "b" / f"{number}.dcm")
    hashes = hash_inputs(read_scan(tmp_path / "a"))
    assert hashes == hash_inputs(read_scan(tmp_path / "b"))
    each = "".join(hashlib.sha256(file.read_bytes()).hexdigest() for file in files)
    assert hashes == (hashlib.sha256(each.encode()).hexdigest(),)


# real scans


@pytest.mark.real_data
def test_real_pet_in_gml_is_the_nifti_file_of_the_same_patient(real_data):
    scan = read_scan(real_data / "volumes" / "sts_dicom" / "STS_019" / "PET" / "image")
    reference = load_volume(read_scan(real_data / "volumes" / "sts" / "STS_019" / "PET_image.nii.gz"))
    volume = load_volume(scan, units="suv")
    assert scan.dicom[0].units == "GML"
    assert volume.geometry.matches(reference.geometry, tolerance_mm=1e-4)
    np.testing.assert_allclose(volume.array, reference.array, rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(volume.array, load_volume(scan).array)


@pytest.mark.real_data
def test_real_ct_is_the_nifti_file_of_the_same_patient(real_data):
    volume = load_volume(read_scan(real_data / "volumes" / "sts_dicom" / "STS_019" / "CT"))
    reference = load_volume(read_scan(real_data / "volumes" / "sts" / "STS_019" / "CT_image.nii.gz"))
    assert volume.geometry.matches(reference.geometry, tolerance_mm=1e-4)
    np.testing.assert_array_equal(volume.array, reference.array)


@pytest.mark.real_data
def test_spheres_of_the_synthetic_pet_have_their_known_suv(real_data):
    manifest = json.loads((real_data / "dicom" / "manifest.json").read_text())
    truth = next(entry["suv_truth"] for entry in manifest["series"] if entry["name"] == "pet_synthetic_varslope")
    volume = load_volume(read_scan(real_data / "dicom" / "pet_synthetic_varslope"), units="suv")
    for sphere in truth["spheres"]:
        offset = np.array(sphere["centre_xyz_mm_from_first_voxel"]) * (-1, -1, 1)  # given in LPS
        center = volume.geometry.to_voxel(volume.geometry.to_world((0, 0, 0)) + offset)
        i, j, k = np.rint(center).astype(int)
        assert volume.array[0, i, j, k] == pytest.approx(sphere["suv"], rel=1e-4)
