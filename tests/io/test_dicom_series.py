from __future__ import annotations

import importlib.util
import json
import logging

import numpy as np
import pytest
import SimpleITK
from pydicom import config

from medseg.errors import AmbiguousSeries, InvalidGeometry, ScanNotFound, UnreadableImage
from medseg.io.dicom_series import choose_stack, list_file, list_series
from medseg.io.discover import find_scans
from medseg.io.scan import load_volume, read_scan
from tests.io.dicom_files import SERIES_UID, all_edits, set_tag, write_series


def two_series(folder):
    write_series(folder / "a" / "deep")
    other = {"SeriesInstanceUID": "1.2.9", "SeriesNumber": 12, "SeriesDescription": "Thick"}
    write_series(folder / "b", n_slices=3, edit=lambda dataset, _: dataset.update(other))
    return folder


def two_echoes(folder):
    write_series(folder / "a", edit=set_tag("EchoTime", 5.0))
    write_series(folder / "b", edit=set_tag("EchoTime", 10.0))
    return folder


def chosen(folder, series=None):
    return choose_stack(list_series(folder), series)


def test_folder_is_searched_deeply_and_other_files_are_counted(tmp_path, caplog):
    two_series(tmp_path)
    (tmp_path / "notes.txt").write_text("no DICOM")
    write_series(tmp_path / "report", n_slices=2, edit=set_tag("Modality", "SR"))
    with caplog.at_level(logging.INFO):
        listing = list_series(tmp_path)
    assert [len(series.frames) for series in listing.series] == [4, 3]
    assert (len(listing.other_files), len(listing.no_images)) == (1, 2)
    assert "skipped 1 other files, 2 DICOM objects" in caplog.text
    assert "CANARY" not in caplog.text


def test_only_series_needs_no_choice(tmp_path):
    write_series(tmp_path)
    assert chosen(tmp_path).series.uid == SERIES_UID


@pytest.mark.parametrize("choice", ["1.2.9", "12", 12, "Thick", "thick"])
def test_series_is_chosen_by_uid_number_or_description(tmp_path, choice):
    assert chosen(two_series(tmp_path), choice).series.uid == "1.2.9"


def test_several_series_without_a_choice_are_listed(tmp_path):
    with pytest.raises(AmbiguousSeries) as caught:
        chosen(two_series(tmp_path))
    assert "number 3: CT 'thin slices', 4 slice(s)\n  number 12: CT 'Thick', 3 slice(s)" in str(caught.value)
    assert "CANARY" not in str(caught.value)


def test_choice_that_fits_two_series_is_ambiguous(tmp_path):
    write_series(tmp_path / "a")
    write_series(tmp_path / "b", edit=set_tag("SeriesInstanceUID", "1.2.9"))
    with pytest.raises(AmbiguousSeries, match=r"2 series") as caught:
        chosen(tmp_path, 3)
    assert "number 1.2.9: CT" in str(caught.value)  # equal numbers choose nothing: the UID is shown


def test_choice_that_fits_none_lists_what_there_is(tmp_path):
    with pytest.raises(ScanNotFound, match=r"no series 5; it holds\n  number 3"):
        chosen(two_series(tmp_path), 5)


def test_series_of_two_studies_under_one_uid_stay_apart(tmp_path):
    write_series(tmp_path / "a")
    write_series(tmp_path / "b", edit=set_tag("StudyInstanceUID", "1.2.3.4"))
    assert len(list_series(tmp_path).series) == 2


def test_folder_without_images_says_what_it_skipped(tmp_path):
    (tmp_path / "notes.txt").write_text("no DICOM")
    with pytest.raises(ScanNotFound, match="1 other files"):
        chosen(tmp_path)
    with pytest.raises(ScanNotFound, match="no folder"):
        list_series(tmp_path / "none")


# stacks of one series


def test_stacks_of_one_series_are_listed_by_what_sets_them_apart(tmp_path):
    with pytest.raises(AmbiguousSeries, match="2 stacks of one series") as caught:
        chosen(two_echoes(tmp_path))
    assert "number 3:1: CT 'thin slices', 4 slice(s) (echo time 5)" in str(caught.value)


@pytest.mark.parametrize("choice", ["3:2", f"{SERIES_UID}:2", "thin slices:2"])
def test_stack_is_chosen_by_its_number_behind_that_of_the_series(tmp_path, choice):
    found = chosen(two_echoes(tmp_path), choice)
    assert {frame.keys.echo_time for frame in found.stack.frames} == {10.0}


def test_stacks_of_one_series_are_two_cases(tmp_path):
    two_echoes(tmp_path)
    assert read_scan(tmp_path, series="3:1").case_id != read_scan(tmp_path, series="3:2").case_id


@pytest.mark.parametrize(
    "tags",
    [
        {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]},
        {"ImageType": ["DERIVED", "SECONDARY", "MPR"]},
        {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"},
    ],
)
def test_what_is_no_primary_image_is_chosen_by_name_only(tmp_path, tags):
    write_series(tmp_path / "a")
    other = {"SeriesInstanceUID": "1.2.9", "SeriesNumber": 1, **tags}
    write_series(tmp_path / "b", edit=lambda dataset, _: dataset.update(other))
    assert chosen(tmp_path).series.uid == SERIES_UID
    assert chosen(tmp_path, 1).series.uid == "1.2.9"


def test_derived_images_are_chosen_where_nothing_else_is_there(tmp_path):
    write_series(tmp_path, edit=set_tag("ImageType", ["DERIVED", "PRIMARY", "AXIAL"]))
    assert chosen(tmp_path).stack.aside == "derived"


def test_one_file_is_its_own_frames_only(tmp_path):
    files = write_series(tmp_path)
    (series,) = list_file(files[1]).series
    assert [frame.file.path for frame in series.frames] == [files[1]]


# damaged files


def test_damaged_file_is_listed_and_keeps_nothing_else_from_being_listed(tmp_path):
    two_series(tmp_path)
    (tmp_path / "b" / "broken.dcm").write_text("<html>404</html>")
    listing = list_series(tmp_path)
    assert [len(series.frames) for series in listing.series] == [4, 3]
    assert "named like a DICOM file but is none" in listing.damaged[0].reason


def test_damaged_file_keeps_the_series_of_its_folder_from_being_read(tmp_path):
    two_series(tmp_path)
    path = tmp_path / "b" / "001"
    path.write_bytes(path.read_bytes()[:340])
    with pytest.raises(UnreadableImage, match="001"):
        chosen(tmp_path, 12)
    assert chosen(tmp_path, 3).series.uid == SERIES_UID


def test_damaged_file_refuses_a_series_that_nobody_named(tmp_path):
    write_series(tmp_path / "a")
    (tmp_path / "b.dcm").write_text("<html>404</html>")
    with pytest.raises(UnreadableImage, match=r"b\.dcm"):
        chosen(tmp_path)


def test_damaged_file_alone_is_named(tmp_path):
    (tmp_path / "b.dcm").write_text("<html>404</html>")
    with pytest.raises(UnreadableImage, match=r"b\.dcm"):
        chosen(tmp_path)


def test_series_with_a_slice_that_says_no_place_is_refused(tmp_path):
    """Left out, an end slice would make a shorter volume without anyone noticing."""
    write_series(tmp_path, edit=set_tag("ImagePositionPatient", None, slices=[3]))
    with pytest.raises(InvalidGeometry, match="001 does not say where it lies: ImagePositionPatient is missing"):
        chosen(tmp_path)


def test_nothing_that_names_the_patient_is_kept(tmp_path):
    identity = {"PatientBirthDate": "19010101", "AccessionNumber": "CANARYACC", "OtherPatientIDs": "CANARY2"}
    write_series(tmp_path, edit=all_edits(lambda dataset, _: dataset.update(identity)))
    scan = read_scan(tmp_path)
    shown = repr((list_series(tmp_path), scan, scan.layouts[0].frames, scan.dicom, load_volume(scan)))
    assert "CANARY" not in shown
    assert "19010101" not in shown


# real scanners: every stored pixel lies where its own header says


def judged(real_data, name, **options):
    """Which frames of a series are found at their place in one of its volumes, by the judge of the data set."""
    spec = importlib.util.spec_from_file_location("check_points", real_data / "dicom" / "check_points.py")
    judge = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(judge)
    folder = real_data / "dicom" / name
    volumes = [load_volume(scan) for scan in find_scans(folder, **options)]
    arrays = [(volume.array[0], volume.geometry.affine) for volume in volumes]
    return judge.check_points(arrays, real_data / "dicom" / "ref" / name / "points.npz"), volumes


def check_class(real_data, name):
    manifest = json.loads((real_data / "dicom" / "manifest.json").read_text())
    return next(entry["check"] for entry in manifest["series"] if entry["name"] == name)


@pytest.mark.real_data
@pytest.mark.parametrize(
    "name", ["ct_3slice_liver", "ct_axial_jpegls", "ct_gantry_tilt4", "mr_j2k_sagittal", "pet_synthetic_varslope"]
)
def test_exact_series_is_one_volume_with_every_point_in_place(real_data, name):
    assert check_class(real_data, name) == "exact"
    found, volumes = judged(real_data, name)
    assert len(volumes) == 1
    assert found.all()


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("name", "n_volumes"), [("mr_dual_echo_phase", 4), ("mr_localizer_3plane", 3), ("mr_enhanced_4d_oblique", 4)]
)
def test_series_of_several_volumes_is_split_with_every_point_in_place(real_data, name, n_volumes):
    assert check_class(real_data, name) in ("split", "multi_volume")
    found, volumes = judged(real_data, name)
    assert len(volumes) == n_volumes
    assert found.all()
    with pytest.raises(AmbiguousSeries, match=f"holds {n_volumes} stacks of one series"):
        read_scan(real_data / "dicom" / name)


@pytest.mark.real_data
def test_series_with_a_gap_keeps_its_stored_points_where_the_gap_is_filled_on_request(real_data):
    assert check_class(real_data, "ct_missing_slice") == "refuse_or_explicit"
    found, (volume,) = judged(real_data, "ct_missing_slice", allow_gaps=True)
    assert found.all()
    assert "1 of 5 slices interpolated" in volume.notes[0]


@pytest.mark.real_data
def test_structure_set_beside_the_images_is_skipped(real_data):
    listing = list_series(real_data / "volumes" / "sts_dicom" / "STS_019" / "PET")
    assert [len(series.frames) for series in listing.series] == [47]
    assert [entry.what for entry in listing.no_images] == ["RTSTRUCT object, no image to segment"]


@pytest.mark.real_data
def test_simpleitk_reads_the_real_pet_alike(real_data):
    scan = read_scan(real_data / "volumes" / "sts_dicom" / "STS_019" / "PET")
    volume = load_volume(scan)
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames([str(file) for file in scan.files[0]])
    image = reader.Execute()
    np.testing.assert_allclose(SimpleITK.GetArrayFromImage(image).T, volume.array[0], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(image.GetOrigin(), volume.geometry.affine[:3, 3] * (-1, -1, 1), atol=1e-4)
    np.testing.assert_allclose(image.GetSpacing(), volume.geometry.spacing, atol=1e-4)


def test_odd_series_number_is_only_a_name(tmp_path):
    with config.disable_value_validation():
        write_series(tmp_path, edit=lambda dataset, _: dataset.add_new("SeriesNumber", "LO", "\u00b3"))
    assert chosen(tmp_path).name == "\u00b3"
