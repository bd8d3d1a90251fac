from __future__ import annotations

import importlib.util
import json
import logging
import shutil

import numpy as np
import pytest
import SimpleITK
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from scipy.spatial.transform import Rotation

from medseg.errors import (
    AmbiguousSeries,
    IncompleteSeries,
    InvalidGeometry,
    ScanNotFound,
    UnreadableImage,
    UnsupportedDimensions,
)
from medseg.io.dicom_series import choose_series, list_series, order_slices, read_series_array
from tests.io.dicom_files import COLUMNS, ROWS, SERIES_UID, expected_affine, stored_pixels, write_series

SAGITTAL = (0, 1, 0, 0, 0, -1)
TILTED = (1, 0, 0, 0, float(np.cos(0.3)), float(-np.sin(0.3)))


def ordered(folder):
    return order_slices(choose_series(list_series(folder)))


def shift_slice(number: int, by: tuple[float, float, float]):
    def edit(dataset, k):
        if k == number:
            dataset.ImagePositionPatient = [float(p) + d for p, d in zip(dataset.ImagePositionPatient, by, strict=True)]

    return edit


def set_tag(keyword: str, value, slices=None):
    def edit(dataset, k):
        if slices is None or k in slices:
            if value is None:
                delattr(dataset, keyword)
            else:
                setattr(dataset, keyword, value)

    return edit


# the grid


def test_slices_are_ordered_by_position_whatever_their_names_and_numbers(tmp_path):
    files = write_series(tmp_path, n_slices=5)
    assert list(ordered(tmp_path).files) == files
    assert sorted(files) == files[::-1]


def test_axes_are_column_row_slice_and_world_is_ras(tmp_path):
    write_series(tmp_path)
    series = ordered(tmp_path)
    assert series.geometry.shape == (COLUMNS, ROWS, 4)
    np.testing.assert_allclose(series.geometry.affine, expected_affine(), atol=1e-12)
    np.testing.assert_allclose(series.geometry.to_world((0, 0, 0)), (10.0, 20.0, 30.0))
    np.testing.assert_allclose(series.geometry.to_world((1, 0, 0)), (8.5, 20.0, 30.0))  # 1.5 mm between columns
    np.testing.assert_allclose(series.geometry.to_world((0, 1, 0)), (10.0, 18.0, 30.0))  # 2.0 mm between rows
    np.testing.assert_allclose(series.geometry.to_world((0, 0, 1)), (10.0, 20.0, 33.0))


def test_pixels_are_rescaled_and_lie_where_the_headers_say(tmp_path):
    write_series(tmp_path)
    series = ordered(tmp_path)
    array = read_series_array(series.files, series.geometry.shape)
    assert array.dtype == np.float32
    np.testing.assert_array_equal(array, stored_pixels(4) * 2.0 - 1000.0)


def test_each_slice_has_its_own_slope(tmp_path):
    def edit(dataset, k):
        dataset.RescaleSlope, dataset.RescaleIntercept = 0.5 + k, 10.0 * k

    write_series(tmp_path, edit=edit)
    series = ordered(tmp_path)
    slopes, intercepts = 0.5 + np.arange(4), 10.0 * np.arange(4)
    array = read_series_array(series.files, series.geometry.shape)
    np.testing.assert_array_equal(array, stored_pixels(4) * slopes + intercepts)


def test_missing_slope_and_intercept_mean_one_and_zero(tmp_path):
    def edit(dataset, _):
        del dataset.RescaleSlope, dataset.RescaleIntercept

    write_series(tmp_path, edit=edit)
    series = ordered(tmp_path)
    np.testing.assert_array_equal(read_series_array(series.files, series.geometry.shape), stored_pixels(4))


def test_sagittal_slices_go_along_their_normal(tmp_path):
    write_series(tmp_path, orientation=SAGITTAL, step=(-3.0, 0.0, 0.0))
    geometry = ordered(tmp_path).geometry
    assert geometry.axcodes == "PIR"  # rows run backwards, columns down, slices to the patient's right
    np.testing.assert_allclose(
        geometry.affine, expected_affine(orientation=SAGITTAL, step=(-3.0, 0.0, 0.0)), atol=1e-12
    )


def test_slices_stored_against_the_normal_are_turned_round(tmp_path):
    files = write_series(tmp_path, step=(0.0, 0.0, -3.0))
    series = ordered(tmp_path)
    assert list(series.files) == files[::-1]
    np.testing.assert_allclose(series.geometry.to_world((0, 0, 0)), (10.0, 20.0, 21.0))


def test_tilted_gantry_keeps_its_shear(tmp_path):
    write_series(tmp_path, orientation=TILTED)
    geometry = ordered(tmp_path).geometry
    np.testing.assert_allclose(geometry.affine, expected_affine(orientation=TILTED), atol=1e-9)
    assert geometry.voxel_volume_mm3 == pytest.approx(1.5 * 2.0 * 3.0 * np.cos(0.3))


@settings(deadline=None, max_examples=15)
@given(st.tuples(*[st.floats(-180, 180)] * 3))
def test_simpleitk_places_oblique_series_alike_in_lps(tmp_path_factory, angles):
    turn = np.round(Rotation.from_euler("xyz", angles, degrees=True).as_matrix(), 8)
    orientation = (*turn[:, 0].tolist(), *turn[:, 1].tolist())
    folder = tmp_path_factory.mktemp("oblique")
    write_series(folder, orientation=orientation, step=tuple(np.round(3 * turn[:, 2], 6).tolist()))
    series = ordered(folder)
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames([str(file) for file in series.files])
    image = reader.Execute()
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ series.geometry.affine
    direction = np.array(image.GetDirection()).reshape(3, 3)
    np.testing.assert_allclose(direction * image.GetSpacing(), lps[:3, :3], atol=1e-4)
    np.testing.assert_allclose(image.GetOrigin(), lps[:3, 3], atol=1e-4)
    ours = read_series_array(series.files, series.geometry.shape)
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(image).T, ours)


# what is no regular stack


@pytest.mark.parametrize("step_error", [0.0299, -0.0299])
def test_steps_within_one_percent_pass(tmp_path, step_error):
    write_series(tmp_path, edit=shift_slice(3, (0, 0, step_error)))
    assert ordered(tmp_path).geometry.spacing[2] == pytest.approx(3 + step_error / 3)


@pytest.mark.parametrize("step_error", [0.031, -0.031])
def test_steps_beyond_one_percent_are_refused(tmp_path, step_error):
    write_series(tmp_path, edit=shift_slice(3, (0, 0, step_error)))
    with pytest.raises(IncompleteSeries, match=r"irregularly spaced: steps of .* after z = 36\.00 mm; 3\.00 mm"):
        ordered(tmp_path)


def test_thin_slices_may_be_a_hundredth_of_a_millimeter_off(tmp_path):
    write_series(tmp_path, step=(0, 0, 0.5), edit=shift_slice(3, (0, 0, 0.009)))
    assert ordered(tmp_path).geometry.shape[2] == 4


@pytest.mark.parametrize("n_slices", [4, 9])
def test_missing_slice_is_named_by_place(tmp_path, n_slices):
    write_series(tmp_path, n_slices=n_slices)[1].unlink()
    with pytest.raises(IncompleteSeries, match=r"lacks about 1 slice\(s\): steps of 6\.00 mm after z = 30\.00 mm"):
        ordered(tmp_path)


def test_two_gaps_are_both_named_and_counted(tmp_path):
    files = write_series(tmp_path, n_slices=12)
    for missing in (2, 6, 7):
        files[missing].unlink()
    with pytest.raises(IncompleteSeries, match=r"about 3 slice.* 6\.00 mm after z = 33.* 9\.00 mm after z = 45"):
        ordered(tmp_path)


def test_doubled_slice_is_refused(tmp_path):
    files = write_series(tmp_path)
    shutil.copy(files[2], tmp_path / "again")
    with pytest.raises(IncompleteSeries, match=r"1 slice\(s\) too many at the same place \(first at z = 36\.00 mm\)"):
        ordered(tmp_path)


def test_slice_beside_the_line_of_the_others_is_refused(tmp_path):
    write_series(tmp_path, n_slices=6, edit=shift_slice(3, (0.5, 0, 0)))
    with pytest.raises(IncompleteSeries, match=r"no straight stack: .* 0\.50 mm beside"):
        ordered(tmp_path)


@pytest.mark.parametrize(
    ("keyword", "value", "message"),
    [
        ("ImageOrientationPatient", [1, 0, 0, 0, 0, 1], "differ in orientation"),
        ("PixelSpacing", [2.0, 1.6], "differ in pixel spacing"),
        ("Rows", 7, "differ in rows and columns"),
    ],
)
def test_mixed_slices_are_refused(tmp_path, keyword, value, message):
    write_series(tmp_path, edit=set_tag(keyword, value, slices=[2]))
    with pytest.raises(InvalidGeometry, match=message):
        ordered(tmp_path)


@pytest.mark.parametrize("keyword", ["ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"])
def test_slice_without_a_place_is_refused(tmp_path, keyword):
    write_series(tmp_path, edit=set_tag(keyword, None, slices=[1]))
    with pytest.raises(InvalidGeometry, match=f"{keyword} is missing"):
        ordered(tmp_path)


@pytest.mark.parametrize("spacing", [[0.0, 1.5], [2.0, -1.5]])
def test_pixel_spacing_must_be_above_zero(tmp_path, spacing):
    write_series(tmp_path, edit=set_tag("PixelSpacing", spacing))
    with pytest.raises(InvalidGeometry, match="PixelSpacing must be above 0 mm"):
        ordered(tmp_path)


@pytest.mark.parametrize("orientation", [[1, 0, 0, 0.1, 1, 0], [1.01, 0, 0, 0, 1, 0], [0, 0, 0, 0, 0, 0]])
def test_orientation_must_be_two_perpendicular_unit_vectors(tmp_path, orientation):
    write_series(tmp_path, edit=set_tag("ImageOrientationPatient", orientation))
    with pytest.raises(InvalidGeometry, match="perpendicular unit vectors"):
        ordered(tmp_path)


def test_single_slice_is_refused(tmp_path):
    write_series(tmp_path, n_slices=1)
    with pytest.raises(UnsupportedDimensions, match="single slice"):
        ordered(tmp_path)


def test_multi_frame_files_are_refused(tmp_path):
    write_series(tmp_path, edit=set_tag("NumberOfFrames", 6))
    with pytest.raises(UnsupportedDimensions, match="6 frames"):
        ordered(tmp_path)


# finding and choosing


def two_series(folder):
    write_series(folder / "a" / "deep")
    write_series(
        folder / "b",
        n_slices=3,
        edit=lambda dataset, _: dataset.update(
            {"SeriesInstanceUID": "1.2.9", "SeriesNumber": 12, "SeriesDescription": "Thick"}
        ),
    )
    return folder


def test_folder_is_searched_deeply_and_other_files_are_counted(tmp_path, caplog):
    two_series(tmp_path)
    (tmp_path / "notes.txt").write_text("no DICOM")
    write_series(tmp_path / "report", n_slices=2, edit=set_tag("Modality", "SR"))
    with caplog.at_level(logging.INFO):
        listing = list_series(tmp_path)
    assert [len(series.slices) for series in listing.series] == [4, 3]
    assert (listing.n_other_files, listing.n_not_images) == (1, 2)
    assert "skipped 1 other files, 2 DICOM objects" in caplog.text
    assert "CANARY" not in caplog.text


def test_only_series_needs_no_choice(tmp_path):
    write_series(tmp_path)
    assert choose_series(list_series(tmp_path)).uid == SERIES_UID


@pytest.mark.parametrize("choice", ["1.2.9", "12", 12, "Thick", "thick"])
def test_series_is_chosen_by_uid_number_or_description(tmp_path, choice):
    assert choose_series(list_series(two_series(tmp_path)), choice).uid == "1.2.9"


def test_several_series_without_a_choice_are_listed(tmp_path):
    with pytest.raises(AmbiguousSeries) as caught:
        choose_series(list_series(two_series(tmp_path)))
    assert "number 3: CT 'thin slices', 4 file(s)\n  number 12: CT 'Thick', 3 file(s)" in str(caught.value)
    assert "CANARY" not in str(caught.value)


def test_choice_that_fits_two_series_is_ambiguous(tmp_path):
    write_series(tmp_path / "a")
    write_series(tmp_path / "b", edit=set_tag("SeriesInstanceUID", "1.2.9"))
    with pytest.raises(AmbiguousSeries, match="2 series"):
        choose_series(list_series(tmp_path), 3)


def test_choice_that_fits_none_lists_what_there_is(tmp_path):
    with pytest.raises(ScanNotFound, match=r"no series 5; it holds\n  number 3"):
        choose_series(list_series(two_series(tmp_path)), 5)


def test_series_of_two_studies_under_one_uid_stay_apart(tmp_path):
    write_series(tmp_path / "a")
    write_series(tmp_path / "b", edit=set_tag("StudyInstanceUID", "1.2.3.4"))
    assert len(list_series(tmp_path).series) == 2


def test_folder_without_images_says_what_it_skipped(tmp_path):
    (tmp_path / "notes.txt").write_text("no DICOM")
    with pytest.raises(ScanNotFound, match="1 other files"):
        choose_series(list_series(tmp_path))
    with pytest.raises(ScanNotFound, match="no folder"):
        list_series(tmp_path / "none")


# damaged pixels


@pytest.mark.parametrize("cut", [1, 30, 70, 100])
def test_truncated_pixels_are_refused(tmp_path, cut):
    files = write_series(tmp_path)
    series = ordered(tmp_path)
    files[2].write_bytes(files[2].read_bytes()[:-cut])
    with pytest.raises(UnreadableImage, match="002: the pixels cannot be read"):
        read_series_array(series.files, series.geometry.shape)


def test_pixels_of_another_size_than_the_header_promised_are_refused(tmp_path):
    write_series(tmp_path)
    series = ordered(tmp_path)
    with pytest.raises(UnreadableImage, match=r"shape \(5, 7\); the header said \(7, 5\)"):
        read_series_array(series.files, (ROWS, COLUMNS, 4))


# real scanners


@pytest.mark.real_data
@pytest.mark.parametrize(
    "name", ["ct_3slice_liver", "ct_axial_jpegls", "ct_gantry_tilt4", "mr_j2k_sagittal", "pet_synthetic_varslope"]
)
def test_every_stored_pixel_lies_where_its_own_header_says(real_data, name):
    if name == "ct_axial_jpegls":
        pytest.importorskip("jpeg_ls", reason="JPEG-LS needs the codec pyjpegls")
    spec = importlib.util.spec_from_file_location("check_points", real_data / "dicom" / "check_points.py")
    judge = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(judge)
    series = ordered(real_data / "dicom" / name)
    array = read_series_array(series.files, series.geometry.shape)
    points = real_data / "dicom" / "ref" / name / "points.npz"
    assert judge.check_points([(array, series.geometry.affine)], points).all()


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["ct_3slice_liver", "ct_gantry_tilt4", "mr_j2k_sagittal", "pet_synthetic_varslope"])
def test_affine_is_the_one_worked_out_from_the_headers_alone(real_data, name):
    manifest = json.loads((real_data / "dicom" / "manifest.json").read_text())
    expected = next(entry["expected"] for entry in manifest["series"] if entry["name"] == name)
    geometry = ordered(real_data / "dicom" / name).geometry
    assert list(geometry.shape) == expected["shape_cols_rows_slices"]
    np.testing.assert_allclose(geometry.affine, expected["affine_ras"], atol=2e-6)
    assert geometry.voxel_volume_mm3 == pytest.approx(expected["voxel_volume_mm3"], rel=1e-5)


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("ct_missing_slice", IncompleteSeries, r"lacks about 1 slice\(s\): steps of 10\.00 mm"),
        ("mr_dual_echo_phase", IncompleteSeries, "90 .* too many at the same place"),
        ("mr_localizer_3plane", InvalidGeometry, "differ in orientation"),
        ("mr_enhanced_4d_oblique", UnsupportedDimensions, "multi-frame"),
    ],
)
def test_series_that_are_no_single_stack_are_refused(real_data, name, error, message):
    with pytest.raises(error, match=message):
        ordered(real_data / "dicom" / name)


@pytest.mark.real_data
def test_structure_set_beside_the_images_is_skipped(real_data):
    listing = list_series(real_data / "volumes" / "sts_dicom" / "STS_019" / "PET")
    assert [len(series.slices) for series in listing.series] == [47]
    assert listing.n_not_images == 1


@pytest.mark.real_data
def test_simpleitk_reads_the_real_pet_alike(real_data):
    series = ordered(real_data / "volumes" / "sts_dicom" / "STS_019" / "PET")
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames([str(file) for file in series.files])
    image = reader.Execute()
    array = read_series_array(series.files, series.geometry.shape)
    np.testing.assert_allclose(SimpleITK.GetArrayFromImage(image).T, array, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(image.GetOrigin(), series.geometry.affine[:3, 3] * (-1, -1, 1), atol=1e-4)
    np.testing.assert_allclose(image.GetSpacing(), series.geometry.spacing, atol=1e-4)
    assert dcmread(series.files[0]).ImagePositionPatient[2] < dcmread(series.files[-1]).ImagePositionPatient[2]
