"""What lies under a path is listed with reasons, and what can be loaded is given as scans."""

from __future__ import annotations

import shutil
import zipfile

import numpy as np
import pytest

from medseg.errors import IncompleteSeries, ScanNotFound, UnreadableImage
from medseg.io import dicom_pixels
from medseg.io.discover import find_scans, list_scans
from medseg.io.scan import load_volume, read_scan
from tests.io.dicom_files import SERIES_UID, expected_affine, set_tag, write_series
from tests.io.nifti_files import save

ARRAY = np.arange(60, dtype=np.float32).reshape(3, 4, 5)


def other_series(folder, **tags):
    tags = {"SeriesInstanceUID": "1.2.9", "SeriesNumber": 12, "SeriesDescription": "Thick", **tags}
    return write_series(folder, n_slices=3, edit=lambda dataset, _: dataset.update(tags))


def test_only_series_is_chosen_and_described(tmp_path):
    write_series(tmp_path / "a")
    (found,) = list_scans(tmp_path)
    assert (found.path, found.format, found.series) == (tmp_path, "dicom", "3")
    assert (found.modality, found.description, found.n_files, found.n_slices) == ("CT", "thin slices", 4, 4)
    np.testing.assert_allclose(found.geometry.affine, expected_affine(), atol=1e-12)
    assert (found.problem, found.set_aside, found.is_chosen) == (None, None, True)
    assert found.reason == "the only primary image"
    assert found.series_instance_uid == SERIES_UID
    assert SERIES_UID not in repr(found)
    assert "CANARY" not in repr(found)


def test_what_is_listed_is_what_is_read(tmp_path):
    write_series(tmp_path / "a", edit=set_tag("EchoTime", 5.0))
    write_series(tmp_path / "b", edit=set_tag("EchoTime", 9.0))
    other_series(tmp_path / "c")
    listed = list_scans(tmp_path)
    assert [found.series for found in listed] == ["3:1", "3:2", "12"]
    assert listed[0].description == "thin slices (echo time 5)"
    assert [found.reason for found in listed] == ["one of several: name it (--series)"] * 3
    for found in listed:
        scan = read_scan(found.path, series=found.series)
        np.testing.assert_array_equal(scan.geometry.affine, found.geometry.affine)
        assert scan.geometry.shape == found.geometry.shape == load_volume(scan).geometry.shape


def test_voxels_are_not_looked_at(tmp_path, monkeypatch):
    files = write_series(tmp_path / "a")
    shutil.copy(files[0], tmp_path / "again")
    monkeypatch.setattr(dicom_pixels, "_stored_frames", None)
    (found,) = list_scans(tmp_path)
    assert found.notes == ("left out 1 doubled slice(s): the same place, pixels that have not been compared",)


def test_series_that_cannot_be_read_is_listed_with_the_reason(tmp_path):
    write_series(tmp_path / "a")[1].unlink()
    (found,) = list_scans(tmp_path)
    assert found.geometry is None
    assert not found.is_readable
    assert "lacks about 1 slice(s)" in found.problem
    assert not found.is_chosen


def test_truncated_slice_is_found_by_its_header_and_length(tmp_path):
    files = write_series(tmp_path / "a")
    files[1].write_bytes(files[1].read_bytes()[:-9])
    other_series(tmp_path / "b")
    truncated, whole = list_scans(tmp_path)
    assert "003 is truncated" in truncated.problem
    assert whole.is_readable


@pytest.mark.parametrize(
    ("image_type", "aside"),
    [(["ORIGINAL", "PRIMARY", "LOCALIZER"], "localizer"), (["DERIVED", "SECONDARY", "MPR"], "derived")],
)
def test_localizers_and_derived_images_are_listed_with_the_reason_and_not_chosen(tmp_path, image_type, aside):
    write_series(tmp_path / "a")
    other_series(tmp_path / "b", ImageType=image_type)
    primary, other = list_scans(tmp_path)
    assert (primary.is_chosen, primary.set_aside) == (True, None)
    assert (other.is_chosen, other.set_aside, other.reason, other.is_readable) == (False, aside, aside, True)


def test_derived_series_alone_is_chosen_and_says_so(tmp_path):
    other_series(tmp_path, ImageType=["DERIVED", "SECONDARY"])
    (found,) = list_scans(tmp_path)
    assert (found.is_chosen, found.reason) == (True, "no primary image is there (derived)")


def test_objects_without_image_and_damaged_files_are_listed_with_the_reason(tmp_path):
    write_series(tmp_path / "a")
    other_series(tmp_path / "b", Modality="RTSTRUCT")
    other_series(tmp_path / "c", SeriesInstanceUID="1.3", SamplesPerPixel=3, PhotometricInterpretation="RGB")
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "bad.dcm").write_text("<html>404</html>")
    (tmp_path / "notes.txt").write_text("no image")
    image, structures, color, damaged = list_scans(tmp_path)
    assert image.is_readable
    assert not image.is_chosen  # the damaged file may be one of its slices
    assert "bad.dcm" in image.reason
    assert (structures.problem, structures.n_files) == ("RTSTRUCT object, no image to segment", 3)
    assert color.problem == "color image (RGB)"
    assert damaged.path == tmp_path / "d" / "bad.dcm"
    assert "is none" in damaged.problem


def test_directory_file_is_passed_over(tmp_path):
    write_series(tmp_path / "a")
    path = other_series(tmp_path / "b", SOPClassUID="1.2.840.10008.1.3.10", SeriesInstanceUID="")[0]
    for extra in ("002", "003"):
        (path.parent / extra).unlink(missing_ok=True)
    assert [found.modality for found in list_scans(tmp_path)] == ["CT"]


def test_nifti_files_are_listed_with_their_grid_or_their_problem(tmp_path):
    save(ARRAY, tmp_path / "a.nii.gz")
    (tmp_path / "b.nii").write_text("no NIfTI")
    good, bad = list_scans(tmp_path)
    assert (good.format, good.series, good.geometry.shape, good.is_chosen) == ("nifti", None, (3, 4, 5), False)
    assert bad.problem is not None
    assert good.reason == "one of several: name the file"


def test_only_nifti_file_is_chosen(tmp_path):
    path = save(ARRAY, tmp_path / "a.nii.gz")
    for where in (tmp_path, path):
        (found,) = list_scans(where)
        assert (found.path, found.is_chosen) == (path, True)


def test_series_beside_a_nifti_file_is_not_chosen(tmp_path):
    write_series(tmp_path / "series")
    save(ARRAY, tmp_path / "mask.nii")
    assert [(found.format, found.is_chosen) for found in list_scans(tmp_path)] == [("dicom", False), ("nifti", False)]


def test_single_file_is_listed_as_its_own(tmp_path):
    files = write_series(tmp_path, edit=set_tag("SliceThickness", 3.0))
    (found,) = list_scans(files[2])
    assert (found.path, found.n_slices, found.is_chosen) == (files[2], 1, True)


def test_empty_folder_has_nothing_and_no_folder_is_an_error(tmp_path):
    assert list_scans(tmp_path) == []
    with pytest.raises(ScanNotFound, match="does not exist"):
        list_scans(tmp_path / "none")


def test_every_stack_and_file_is_a_scan_ready_to_load(tmp_path):
    write_series(tmp_path / "a", edit=set_tag("EchoTime", 5.0))
    write_series(tmp_path / "b", edit=set_tag("EchoTime", 9.0))
    other_series(tmp_path / "c", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    (tmp_path / "d").mkdir()
    save(ARRAY, tmp_path / "d" / "mask.nii.gz")
    scans = find_scans(tmp_path)
    assert [scan.format for scan in scans] == ["dicom", "dicom", "dicom", "nifti"]
    assert scans[-1].case_id == "d/mask"
    assert len({scan.case_id for scan in scans}) == 4
    for scan, found in zip(scans, list_scans(tmp_path), strict=True):
        assert load_volume(scan).geometry.matches(found.geometry)
    assert scans[0].case_id == read_scan(tmp_path, series="3:1").case_id


def test_what_cannot_be_loaded_is_told_and_the_rest_is_given(tmp_path, caplog):
    write_series(tmp_path / "gap")[1].unlink()
    other_series(tmp_path / "whole")
    (scan,) = find_scans(tmp_path)
    assert scan.geometry.shape[2] == 3
    assert "lacks about 1 slice(s)" in caplog.text
    assert len(find_scans(tmp_path, allow_gaps=True)) == 2


def test_where_nothing_can_be_loaded_the_reason_is_raised(tmp_path):
    write_series(tmp_path / "gap")[1].unlink()
    with pytest.raises(IncompleteSeries, match="lacks about 1"):
        find_scans(tmp_path)
    (tmp_path / "page.txt").write_text("<html>404</html>")
    with pytest.raises(UnreadableImage, match="neither a volume"):
        find_scans(tmp_path / "page.txt")
    assert find_scans(tmp_path / "gap" / "..", allow_gaps=True)


def test_an_archive_is_looked_into_like_a_folder(tmp_path):
    write_series(tmp_path / "a")
    (tmp_path / "b").mkdir()
    save(ARRAY, tmp_path / "b" / "scan.nii.gz")
    with zipfile.ZipFile(tmp_path / "case.zip", "w") as packed:
        for path in [*(tmp_path / "a").iterdir(), tmp_path / "b" / "scan.nii.gz"]:
            packed.write(path, path.relative_to(tmp_path))
    assert [scan.case_id for scan in find_scans(tmp_path / "case.zip")][1] == "b/scan"
    dicom, nifti = list_scans(tmp_path / "case.zip")
    assert dicom.path == tmp_path / "case.zip"
    assert nifti.path == tmp_path / "case.zip" / "b" / "scan.nii.gz"


def test_a_dicomdir_stands_for_its_folder(tmp_path):
    write_series(tmp_path / "a")
    (tmp_path / "DICOMDIR").write_bytes(bytes(128) + b"DICM")
    assert [found.n_slices for found in list_scans(tmp_path / "DICOMDIR") if found.is_readable] == [4]
    assert read_scan(tmp_path / "DICOMDIR", series="3").geometry.shape[2] == 4


def test_links_that_lead_out_of_the_tree_are_told(tmp_path, caplog):
    save(ARRAY, tmp_path / "elsewhere.nii.gz")
    archive = tmp_path / "archive"
    archive.mkdir()
    (archive / "linked.nii.gz").symlink_to(tmp_path / "elsewhere.nii.gz")
    (archive / ".hidden").write_bytes(b"")
    assert find_scans(archive) == []
    assert "archive: passed over: 1 links that lead out of the tree" in caplog.text
    assert "hidden" not in caplog.text
