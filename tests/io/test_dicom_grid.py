from __future__ import annotations

import itertools
import json
import shutil

import numpy as np
import pytest
import SimpleITK
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from medseg.errors import IncompleteSeries, InvalidGeometry, UnreadableImage, UnsupportedDimensions
from medseg.io.dicom_grid import order_frames
from medseg.io.dicom_pixels import have_same_pixels
from medseg.io.dicom_series import choose_stack, list_series
from tests.io.dicom_files import (
    COLUMNS,
    ROWS,
    expected_affine,
    loaded,
    set_tag,
    shift_slice,
    stored_pixels,
    write_series,
)

SAGITTAL = (0, 1, 0, 0, 0, -1)
TILTED = (1, 0, 0, 0, float(np.cos(0.3)), float(-np.sin(0.3)))


def ordered(folder, **options):
    choice = choose_stack(list_series(folder))
    return order_frames(choice.stack.frames, f"series {choice}", **{"are_same": have_same_pixels, **options})


def files_of(stack):
    return [frame.file.path for frame in stack.frames]


# the grid


def test_slices_are_ordered_by_position_whatever_their_names_and_numbers(tmp_path):
    files = write_series(tmp_path, n_slices=5)
    assert files_of(ordered(tmp_path)) == files
    assert sorted(files) == files[::-1]


def test_axes_are_column_row_slice_and_world_is_ras(tmp_path):
    write_series(tmp_path)
    geometry = ordered(tmp_path).geometry
    assert geometry.shape == (COLUMNS, ROWS, 4)
    np.testing.assert_allclose(geometry.affine, expected_affine(), atol=1e-12)
    np.testing.assert_allclose(geometry.to_world((0, 0, 0)), (10.0, 20.0, 30.0))
    np.testing.assert_allclose(geometry.to_world((1, 0, 0)), (8.5, 20.0, 30.0))  # 1.5 mm between columns
    np.testing.assert_allclose(geometry.to_world((0, 1, 0)), (10.0, 18.0, 30.0))  # 2.0 mm between rows
    np.testing.assert_allclose(geometry.to_world((0, 0, 1)), (10.0, 20.0, 33.0))


ORIENTATIONS = [
    (row, column, sign_row, sign_column, sign_slice)
    for row, column in itertools.permutations(range(3), 2)
    for sign_row, sign_column, sign_slice in itertools.product((1, -1), repeat=3)
]


@pytest.mark.parametrize(("row", "column", "sign_row", "sign_column", "sign_slice"), ORIENTATIONS)
def test_each_of_the_48_orientations_puts_every_pixel_where_its_header_says(
    tmp_path, row, column, sign_row, sign_column, sign_slice
):
    axes = np.eye(3)
    orientation = (*(sign_row * axes[row]), *(sign_column * axes[column]))
    step = sign_slice * 3.0 * axes[3 - row - column]
    write_series(tmp_path, n_slices=3, orientation=orientation, step=tuple(step))
    volume = loaded(tmp_path)
    expected = expected_affine(orientation=orientation, step=tuple(step))
    indices = np.indices((COLUMNS, ROWS, 3)).reshape(3, -1)
    world = expected[:3, :3] @ indices + expected[:3, 3:]
    found = volume.geometry.to_voxel(world.T)
    np.testing.assert_allclose(found, np.rint(found), atol=1e-9)
    i, j, k = np.rint(found).astype(int).T
    np.testing.assert_array_equal(volume.array[0, i, j, k], stored_pixels(3).reshape(-1) * 2.0 - 1000.0)


def test_slices_stored_against_the_normal_are_turned_round(tmp_path):
    files = write_series(tmp_path, step=(0.0, 0.0, -3.0))
    stack = ordered(tmp_path)
    assert files_of(stack) == files[::-1]
    np.testing.assert_allclose(stack.geometry.to_world((0, 0, 0)), (10.0, 20.0, 21.0))


def test_tilted_gantry_keeps_its_shear(tmp_path):
    write_series(tmp_path, orientation=TILTED)
    geometry = ordered(tmp_path).geometry
    np.testing.assert_allclose(geometry.affine, expected_affine(orientation=TILTED), atol=1e-9)
    assert geometry.voxel_volume_mm3 == pytest.approx(1.5 * 2.0 * 3.0 * np.cos(0.3))


@settings(deadline=None, max_examples=12)
@given(st.tuples(*[st.floats(-180, 180)] * 3))
def test_simpleitk_places_oblique_series_alike_in_lps(tmp_path_factory, angles):
    turn = np.round(Rotation.from_euler("xyz", angles, degrees=True).as_matrix(), 8)
    orientation = (*turn[:, 0].tolist(), *turn[:, 1].tolist())
    folder = tmp_path_factory.mktemp("oblique")
    write_series(folder, orientation=orientation, step=tuple(np.round(3 * turn[:, 2], 6).tolist()))
    stack = ordered(folder)
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames([str(file) for file in files_of(stack)])
    image = reader.Execute()
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ stack.geometry.affine
    direction = np.array(image.GetDirection()).reshape(3, 3)
    np.testing.assert_allclose(direction * image.GetSpacing(), lps[:3, :3], atol=1e-4)
    np.testing.assert_allclose(image.GetOrigin(), lps[:3, 3], atol=1e-4)
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(image).T, loaded(folder).array[0])


@settings(deadline=None, max_examples=12)
@given(
    st.tuples(*[st.floats(-180, 180)] * 3),
    st.tuples(st.floats(-0.5, 0.5), st.floats(-0.5, 0.5), st.floats(0.3, 8.0)),
    st.permutations(range(4)),
)
def test_any_shear_and_any_file_order_gives_the_positions_in_the_headers(tmp_path_factory, angles, lean, order):
    turn = np.round(Rotation.from_euler("xyz", angles, degrees=True).as_matrix(), 8)
    step = turn @ np.array((lean[0] * lean[2], lean[1] * lean[2], lean[2]))
    folder = tmp_path_factory.mktemp("sheared")
    files = write_series(folder, orientation=(*turn[:, 0].tolist(), *turn[:, 1].tolist()), step=tuple(step.tolist()))
    for number, file in zip(order, files, strict=True):
        file.rename(folder / f"renamed{number}")
    geometry = ordered(folder).geometry
    expected = expected_affine(orientation=(*turn[:, 0], *turn[:, 1]), step=tuple(step))
    np.testing.assert_allclose(geometry.affine, expected, atol=1e-6)


# a single slice


@pytest.mark.parametrize("keyword", ["SpacingBetweenSlices", "SliceThickness"])
def test_single_slice_is_as_thick_as_it_says(tmp_path, keyword):
    write_series(tmp_path, n_slices=1, edit=set_tag(keyword, 4.0))
    stack = ordered(tmp_path)
    assert stack.geometry.shape == (COLUMNS, ROWS, 1)
    np.testing.assert_allclose(stack.geometry.affine, expected_affine(step=(0, 0, 4.0)))
    assert stack.notes == (f"a single slice; its 4 mm along the normal are from {keyword}",)


def test_single_slice_prefers_the_spacing_to_the_thickness(tmp_path):
    write_series(tmp_path, n_slices=1, edit=lambda d, _: d.update({"SpacingBetweenSlices": 4, "SliceThickness": 9}))
    assert ordered(tmp_path).geometry.spacing[2] == 4.0


def test_single_slice_of_unknown_thickness_is_refused(tmp_path):
    write_series(tmp_path, n_slices=1)
    with pytest.raises(UnsupportedDimensions, match="without SpacingBetweenSlices or SliceThickness"):
        ordered(tmp_path)


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


def test_slice_beside_the_line_of_the_others_is_refused(tmp_path):
    write_series(tmp_path, n_slices=6, edit=shift_slice(3, (0.5, 0, 0)))
    with pytest.raises(IncompleteSeries, match=r"no straight stack: .* 0\.50 mm beside"):
        ordered(tmp_path)
    with pytest.raises(IncompleteSeries, match="no straight stack"):
        ordered(tmp_path, allow_gaps=True)


def test_doubled_slice_with_the_same_pixels_is_left_out_and_noted(tmp_path):
    files = write_series(tmp_path)
    shutil.copy(files[2], tmp_path / "again")
    stack = ordered(tmp_path)
    assert stack.geometry.shape[2] == 4
    assert stack.notes == ("left out 1 doubled slice(s): the same place, the same pixels",)


def test_whole_series_stored_twice_is_read_once(tmp_path):
    write_series(tmp_path / "a")
    write_series(tmp_path / "b")
    assert ordered(tmp_path).geometry.shape[2] == 4
    np.testing.assert_array_equal(loaded(tmp_path).array[0], stored_pixels(4) * 2.0 - 1000.0)


@pytest.mark.parametrize("edit", [set_tag("RescaleSlope", 3.0), set_tag("PixelData", b"\1" * 70)])
def test_doubled_slice_with_other_pixels_is_refused(tmp_path, edit):
    write_series(tmp_path)
    write_series(tmp_path / "again", n_slices=1, edit=edit)
    with pytest.raises(IncompleteSeries, match=r"1 slice\(s\) too many at the same place \(first at z = 30\.00 mm: "):
        ordered(tmp_path)


@pytest.mark.parametrize("keyword", ["ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"])
def test_slices_without_a_place_are_refused(tmp_path, keyword):
    write_series(tmp_path, edit=set_tag(keyword, None))
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


def test_orientation_a_little_off_is_normalized_with_a_note(tmp_path):
    write_series(tmp_path, edit=set_tag("ImageOrientationPatient", [1, 0.0005, 0, 0, 1, 0]))
    stack = ordered(tmp_path)
    columns = stack.geometry.affine[:3, :2] / (1.5, 2.0)
    np.testing.assert_allclose(columns.T @ columns, np.eye(2), atol=1e-9)
    assert "normalized" in stack.notes[0]


def test_truncated_slice_is_refused_by_its_header_alone(tmp_path):
    files = write_series(tmp_path)
    files[2].write_bytes(files[2].read_bytes()[:-30])
    with pytest.raises(UnreadableImage, match="002 is truncated: 40 bytes of pixels; the header promises 70"):
        ordered(tmp_path)


# across gaps, on request


def test_missing_slice_is_interpolated_on_request(tmp_path):
    write_series(tmp_path, n_slices=6)[2].unlink()
    volume = loaded(tmp_path, allow_gaps=True)
    expected = stored_pixels(6) * 2.0 - 1000.0
    np.testing.assert_allclose(volume.geometry.affine, expected_affine(), atol=1e-12)
    stored = [0, 1, 3, 4, 5]
    np.testing.assert_array_equal(volume.array[0][..., stored], expected[..., stored])
    np.testing.assert_allclose(volume.array[0][..., 2], (expected[..., 1] + expected[..., 3]) / 2)
    assert volume.notes == ("--allow-gaps: 1 of 6 slices interpolated at a step of 3 mm; the widest gap is 6 mm",)


def test_irregular_slices_are_interpolated_at_the_usual_step(tmp_path):
    write_series(tmp_path, n_slices=5, edit=shift_slice(4, (0, 0, 1.5)))  # 30 33 36 39 43.5
    volume = loaded(tmp_path, allow_gaps=True)
    assert volume.geometry.shape[2] == 5
    array = stored_pixels(5) * 2.0 - 1000.0
    np.testing.assert_allclose(volume.array[0][..., 4], array[..., 3] / 3 + array[..., 4] * 2 / 3, rtol=1e-6)


def test_regular_series_is_left_alone_where_gaps_are_allowed(tmp_path):
    write_series(tmp_path)
    assert ordered(tmp_path, allow_gaps=True).between == ()


def test_wide_gap_is_refused_even_on_request(tmp_path):
    files = write_series(tmp_path, n_slices=16)
    for file in files[2:14]:
        file.unlink()
    for allow_gaps in (False, True):
        with pytest.raises(
            IncompleteSeries, match=r"more than 10 times the usual .* not even with --allow-gaps"
        ) as told:
            ordered(tmp_path, allow_gaps=allow_gaps)
        assert "let --allow-gaps" not in str(told.value)


def test_gap_of_ten_steps_is_the_widest_that_is_filled(tmp_path):
    files = write_series(tmp_path, n_slices=16)
    for file in files[2:11]:
        file.unlink()
    with pytest.raises(IncompleteSeries, match="or let --allow-gaps interpolate across"):
        ordered(tmp_path)
    assert (
        ordered(tmp_path, allow_gaps=True)
        .notes[-1]
        .endswith("9 of 16 slices interpolated at a step of 3 mm; the widest gap is 30 mm")
    )
    files[11].unlink()
    with pytest.raises(IncompleteSeries, match="not even with"):
        ordered(tmp_path, allow_gaps=True)


# real scanners


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
def test_real_series_that_lacks_a_slice_is_refused_by_place(real_data):
    with pytest.raises(IncompleteSeries, match=r"lacks about 1 slice\(s\): steps of 10\.00 mm after z = 28\.11 mm"):
        ordered(real_data / "dicom" / "ct_missing_slice")
