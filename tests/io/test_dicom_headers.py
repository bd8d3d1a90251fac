from __future__ import annotations

import pytest
from pydicom import dcmread

from medseg.errors import UnreadableImage
from medseg.io.dicom_headers import is_dicom, read_slice_header
from tests.io.dicom_files import SERIES_UID, STUDY_UID, write_series


def one_slice(tmp_path, edit=None):
    return write_series(tmp_path / "series", n_slices=1, edit=edit)[0]


def overwrite(path, old: bytes, new: bytes) -> None:
    """Replace bytes of a file, so that a value gets there that pydicom would refuse to write."""
    data = path.read_bytes()
    assert data.count(old) == 1
    assert len(old) == len(new)
    path.write_bytes(data.replace(old, new))


def test_header_holds_what_places_a_slice_and_no_identity(tmp_path):
    header = read_slice_header(one_slice(tmp_path))
    assert header is not None
    assert (header.study_uid, header.series_uid) == (STUDY_UID, SERIES_UID)
    assert (header.modality, header.series_number, header.series_description) == ("CT", "3", "thin slices")
    assert (header.rows, header.columns, header.n_frames) == (5, 7, 1)
    assert header.position == (-10.0, -20.0, 30.0)
    assert header.orientation == (1, 0, 0, 0, 1, 0)
    assert header.pixel_spacing == (2.0, 1.5)
    assert "CANARY" not in repr(header)


def test_absent_tags_are_none(tmp_path):
    def strip(dataset, _):
        del dataset.ImagePositionPatient, dataset.PixelSpacing, dataset.FrameOfReferenceUID
        dataset.ImageOrientationPatient = None

    header = read_slice_header(one_slice(tmp_path, strip))
    assert header.position is header.orientation is header.pixel_spacing is header.frame_of_reference_uid is None


@pytest.mark.parametrize("modality", ["SEG", "RTDOSE", "PR"])
def test_derived_objects_are_no_images_even_with_rows(tmp_path, modality):
    def derive(dataset, _):
        dataset.Modality = modality

    assert read_slice_header(one_slice(tmp_path, derive)) is None


def test_color_screenshot_is_no_image(tmp_path):
    def color(dataset, _):
        dataset.SamplesPerPixel = 3

    assert read_slice_header(one_slice(tmp_path, color)) is None


def test_dicom_is_told_by_content(tmp_path):
    path = one_slice(tmp_path)
    (tmp_path / "note.txt").write_text("no DICOM")
    assert is_dicom(path)
    assert not is_dicom(tmp_path / "note.txt")


def test_file_named_like_dicom_that_is_none_is_refused(tmp_path):
    (tmp_path / "a.dcm").write_text("<html>404</html>")
    with pytest.raises(UnreadableImage, match=r"a\.dcm is named like a DICOM file but is none"):
        is_dicom(tmp_path / "a.dcm")


@pytest.mark.parametrize("size", [132, 140, 200, 340, 500])
def test_file_cut_off_within_its_header_is_refused(tmp_path, size):
    path = one_slice(tmp_path)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(UnreadableImage, match="series"):
        read_slice_header(path)


@pytest.mark.parametrize("uid", ["StudyInstanceUID", "SeriesInstanceUID"])
def test_image_without_series_is_refused(tmp_path, uid):
    def strip(dataset, _):
        delattr(dataset, uid)

    with pytest.raises(UnreadableImage, match=f"lacks {uid}"):
        read_slice_header(one_slice(tmp_path, strip))


@pytest.mark.parametrize("spacing", [b"2,0\\1.5", b"2.0\\abc", b"2.0\\inf", b"2.0 1.5"])
def test_malformed_number_names_its_tag(tmp_path, spacing):
    path = one_slice(tmp_path)
    overwrite(path, b"2.0\\1.5", spacing)
    with pytest.raises(UnreadableImage, match="PixelSpacing"):
        read_slice_header(path)


def test_overlong_values_are_read_without_a_warning(tmp_path):
    def lengthen(dataset, _):
        dataset.SeriesDescription = "d" * 64

    path = one_slice(tmp_path, lengthen)
    overwrite(path, b"LO\x40\x00" + b"d" * 64, b"SH\x40\x00" + b"d" * 64)  # 64 characters where 16 are allowed
    assert read_slice_header(path).series_description == "d" * 64
    assert dcmread(path, stop_before_pixels=True).get_item("SeriesDescription").VR == "SH"
