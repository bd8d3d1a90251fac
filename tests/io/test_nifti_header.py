from __future__ import annotations

import gzip
import os

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medseg.errors import InvalidGeometry, MedsegError, ScanNotFound, UnreadableImage, UnsupportedDimensions
from medseg.io.nifti_header import is_nifti_name, nifti_stem, read_nifti_header
from medseg.io.volume_files import read_volume_array
from tests.io.nifti_files import AFFINE, patch, save

ARRAY = np.arange(60, dtype=np.int16).reshape(3, 4, 5)


def pixdim(*spacing: float) -> list[float]:
    return [1.0, *spacing, 0.0, 0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("a.nii", "a"),
        ("a.nii.gz", "a"),
        ("a.b.NII.GZ", "a.b"),
        ("a.nii.gz.nii", "a.nii.gz"),
        ("a.hdr", "a"),
        ("b.img.gz", "b"),
    ],
)
def test_stem_is_the_name_without_the_suffix(name, stem):
    assert is_nifti_name(name)
    assert nifti_stem(f"folder.nii/{name}") == stem


@pytest.mark.parametrize("name", ["a.gz", "a.mgz", "anii", "a.nii.zip", "hdr"])
def test_other_names_are_no_nifti(name):
    assert not is_nifti_name(name)
    assert nifti_stem(name) == name


def test_sform_gives_the_grid(tmp_path):
    header = read_nifti_header(save(ARRAY, tmp_path / "a.nii"))
    assert header.geometry.shape == (3, 4, 5)
    np.testing.assert_array_equal(header.geometry.affine, AFFINE)
    assert header.notes == ()


def test_qform_gives_the_grid_where_the_sform_is_unset(tmp_path):
    image = nib.Nifti1Image(ARRAY, None)
    image.set_qform(AFFINE, code=1)
    image.to_filename(tmp_path / "a.nii")
    assert image.header["sform_code"] == 0
    np.testing.assert_allclose(read_nifti_header(tmp_path / "a.nii").geometry.affine, AFFINE, atol=1e-6)


def test_qform_that_disagrees_is_noted_in_mm(tmp_path):
    path = save(ARRAY, tmp_path / "a.nii", qform_code=1, qoffset_x=40.0, qoffset_y=-30.0, qoffset_z=10.0)
    image = nib.load(path)
    image.set_qform(AFFINE + np.eye(4, k=3) * 2.5, code=1)  # shifts x by 2.5 mm
    image.to_filename(path)
    header = read_nifti_header(path)
    np.testing.assert_array_equal(header.geometry.affine, AFFINE)
    assert header.notes == ("a.nii: the sform was used; the qform lies up to 2.50 mm off",)


def test_neither_form_set_is_refused(tmp_path):
    path = save(ARRAY, tmp_path / "a.nii", sform_code=0, qform_code=0)
    with pytest.raises(InvalidGeometry, match=r"a\.nii does not say where it lies"):
        read_nifti_header(path)


@pytest.mark.parametrize("bad", [0.0, -2.0, np.nan, np.inf])
def test_spacing_that_is_not_above_zero_is_refused(tmp_path, bad):
    path = save(ARRAY, tmp_path / "a.nii", pixdim=pixdim(1.5, bad, 3.0))
    with pytest.raises(InvalidGeometry, match=r"a\.nii: voxel spacing"):
        read_nifti_header(path)


@pytest.mark.parametrize("row", [[0.0, 0.0, 0.0, 0.0], [0.0, 2.0, 0.0, 1.0], [np.nan, 0.0, 0.0, 0.0]])
def test_singular_or_nan_sform_is_refused_and_names_the_file(tmp_path, row):
    path = save(ARRAY, tmp_path / "a.nii", srow_x=row)
    with pytest.raises(InvalidGeometry, match=r"a\.nii"):
        read_nifti_header(path)


def test_invalid_quaternion_is_refused(tmp_path):
    path = save(ARRAY, tmp_path / "a.nii", sform_code=0, qform_code=1, quatern_b=3.0)
    with pytest.raises(InvalidGeometry, match="qform is invalid"):
        read_nifti_header(path)


def test_positions_in_meters_are_refused(tmp_path):
    path = save(ARRAY, tmp_path / "a.nii", xyzt_units=1)
    with pytest.raises(InvalidGeometry, match="meters"):
        read_nifti_header(path)


@pytest.mark.parametrize("shape", [(3, 4), (7,), (3, 4, 5, 2), (3, 4, 1, 2), (3, 4, 5, 1, 3)])
def test_other_than_three_dimensions_are_refused(tmp_path, shape):
    path = save(np.zeros(shape, np.int16), tmp_path / "a.nii")
    with pytest.raises(UnsupportedDimensions, match=f"{len(shape)}-D"):
        read_nifti_header(path)


@pytest.mark.parametrize("shape", [(3, 4, 5, 1), (3, 4, 1, 1), (3, 4, 5, 1, 1)])
def test_single_axes_after_the_third_are_dropped_with_a_note(tmp_path, shape):
    header = read_nifti_header(save(np.zeros(shape, np.int16), tmp_path / "a.nii"))
    assert header.geometry.shape == shape[:3]
    assert header.notes == (f"a.nii: dropped {len(shape) - 3} single axes of shape {shape}",)


def test_missing_file_and_folder_are_told_apart(tmp_path):
    (tmp_path / "folder.nii").mkdir()
    with pytest.raises(ScanNotFound, match=r"none\.nii does not exist"):
        read_nifti_header(tmp_path / "none.nii")
    with pytest.raises(ScanNotFound, match=r"folder\.nii is a folder"):
        read_nifti_header(tmp_path / "folder.nii")


def test_half_of_a_pair_is_refused_and_names_the_other(tmp_path):
    path = save(ARRAY, tmp_path / "a.nii").rename(tmp_path / "a.img")
    with pytest.raises(ScanNotFound, match=r"a\.img is half of a pair: no a\.hdr"):
        read_nifti_header(path)


@pytest.mark.parametrize("packed", [False, True])
def test_content_and_not_the_suffix_says_whether_a_file_is_gzip(tmp_path, packed):
    path = save(ARRAY, tmp_path / "a.nii")
    misnamed = tmp_path / ("b.nii" if packed else "b.nii.gz")
    misnamed.write_bytes(gzip.compress(path.read_bytes()) if packed else path.read_bytes())
    assert read_nifti_header(misnamed).geometry.shape == (3, 4, 5)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a NIfTI file"),
        (b"<html>404</html>", "not a NIfTI file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (b"\x1f\x8bnot gzip at all", "damaged"),
        (gzip.compress(b"text"), "not a NIfTI file"),
        ((348).to_bytes(4, "little") + b"\0" * 344, "damaged|not a single-file"),
    ],
)
def test_what_is_no_image_is_told_in_one_sentence(tmp_path, content, message):
    (tmp_path / "a.nii.gz").write_bytes(content)
    with pytest.raises(UnreadableImage, match=message):
        read_nifti_header(tmp_path / "a.nii.gz")


@pytest.mark.parametrize("packed", [False, True])
def test_impossible_size_is_refused_before_anything_is_allocated(tmp_path, packed):
    path = save(ARRAY, tmp_path / "a.nii", dim=[3, 32767, 32767, 32767, 1, 1, 1, 1])
    if packed:
        path.write_bytes(gzip.compress(path.read_bytes()))
    with pytest.raises(UnreadableImage, match="truncated: its header promises 703"):
        read_nifti_header(path)


@pytest.mark.parametrize("n", [0, -4])
def test_size_below_one_voxel_is_refused(tmp_path, n):
    path = save(ARRAY, tmp_path / "a.nii", dim=[3, 3, n, 5, 1, 1, 1, 1])
    with pytest.raises(UnreadableImage, match="damaged NIfTI header"):
        read_nifti_header(path)


@pytest.mark.parametrize("offset", [np.nan, np.inf, -352.0, 351.0, 352.5, 2.0**31])
def test_voxels_that_begin_nowhere_are_refused(tmp_path, offset):
    path = save(ARRAY, tmp_path / "a.nii", vox_offset=offset)
    with pytest.raises(UnreadableImage, match="voxels cannot begin at byte"):
        read_nifti_header(path)


def test_infinite_slope_is_refused(tmp_path):
    path = save(ARRAY, tmp_path / "a.nii", scl_slope=np.inf, scl_inter=0)
    with pytest.raises(UnreadableImage, match="intensity scaling is invalid: slope inf"):
        read_nifti_header(path)


def test_named_pipe_is_refused_without_opening_it(tmp_path):
    os.mkfifo(tmp_path / "a.nii")
    with pytest.raises(ScanNotFound, match=r"a\.nii is no plain file"):
        read_nifti_header(tmp_path / "a.nii")


@pytest.mark.parametrize("header_class", [nib.Nifti1Pair, nib.Nifti2Pair])
@pytest.mark.parametrize("endian", ["<", ">"])
@pytest.mark.parametrize("packed", ["", ".gz"])
@pytest.mark.parametrize("given_name", ["a.hdr", "a.img"])
def test_pair_is_read_by_either_name_as_nibabel_reads_it(tmp_path, header_class, endian, packed, given_name):
    header = header_class.header_class(endianness=endian)
    header.set_data_dtype(np.int16)
    image = header_class(ARRAY, AFFINE, header)
    image.header.set_xyzt_units("mm")
    image.to_filename(tmp_path / f"a.img{packed}")
    found = read_nifti_header(tmp_path / f"{given_name}{packed}")
    np.testing.assert_array_equal(found.geometry.affine, AFFINE)
    np.testing.assert_array_equal(read_volume_array(tmp_path / f"{given_name}{packed}")[0], ARRAY)
    assert [file.name for file in found.volume.files] == [f"a.hdr{packed}", f"a.img{packed}"]


def test_analyze_is_refused_because_it_lies_nowhere(tmp_path):
    nib.AnalyzeImage(ARRAY, AFFINE).to_filename(tmp_path / "a.img")
    with pytest.raises(InvalidGeometry, match=r"Analyze 7\.5, which says neither where it lies"):
        read_nifti_header(tmp_path / "a.hdr")


def test_bytes_after_the_last_voxel_are_noted(tmp_path):
    path = save(ARRAY, tmp_path / "a.nii")
    path.write_bytes(path.read_bytes() + b"\0" * 7)
    assert read_nifti_header(path).notes == ("a.nii: ignored 7 bytes after the last voxel",)


@settings(deadline=None)
@given(st.integers(0, 347), st.binary(min_size=1, max_size=4))
def test_damaged_headers_raise_medseg_errors_only(tmp_path_factory, offset, damage):
    path = save(ARRAY, tmp_path_factory.mktemp("damaged") / "a.nii")
    data = bytearray(path.read_bytes())
    data[offset : offset + len(damage)] = damage
    path.write_bytes(data)
    told = "a.nii"
    try:
        read_nifti_header(path)
    except MedsegError as error:
        told = str(error)
    assert "a.nii" in told


def test_qfac_of_zero_means_one(tmp_path):
    image = nib.Nifti1Image(ARRAY, None)
    image.set_qform(np.diag([1.5, 2.0, 3.0, 1.0]), code=1)
    image.to_filename(tmp_path / "a.nii")
    patch(tmp_path / "a.nii", pixdim=[0.0, 1.5, 2.0, 3.0, 0.0, 0.0, 0.0, 0.0])
    np.testing.assert_allclose(
        read_nifti_header(tmp_path / "a.nii").geometry.affine, np.diag([1.5, 2.0, 3.0, 1.0]), atol=1e-6
    )


@pytest.mark.parametrize(
    ("image_class", "size", "tolerance_mm"), [(nib.Nifti1Image, 348, 2e-3), (nib.Nifti2Image, 540, 1e-6)]
)
def test_half_turn_whose_quaternion_rounds_to_more_than_one_is_read(tmp_path, image_class, size, tolerance_mm):
    image = image_class(ARRAY, np.diag([1.5, 2.0, 3.0, 1.0]))
    image.set_qform(np.diag([1.5, 2.0, 3.0, 1.0]), code=1)
    image.set_sform(None, code=0)
    image.to_filename(tmp_path / "a.nii")
    data = bytearray((tmp_path / "a.nii").read_bytes())
    header = image_class.header_class(bytes(data[:size]), check=False)
    header["quatern_c"], header["quatern_d"] = 0.99999657, -0.00262
    data[:size] = header.binaryblock
    (tmp_path / "a.nii").write_bytes(data)
    turn = 2 * np.arctan2(-0.00262, 0.99999657)  # about x, after half a turn about y
    turned = np.array([[-1, 0, 0], [0, np.cos(turn), np.sin(turn)], [0, np.sin(turn), -np.cos(turn)]])
    np.testing.assert_allclose(
        read_nifti_header(tmp_path / "a.nii").geometry.affine[:3, :3], turned * (1.5, 2.0, 3.0), atol=tolerance_mm
    )


@pytest.mark.parametrize("qfac", [0.5, 2.0, np.nan])
def test_qfac_that_is_no_sign_is_refused(tmp_path, qfac):
    path = save(ARRAY, tmp_path / "a.nii", sform_code=0, qform_code=1, pixdim=[qfac, 1.5, 2.0, 3.0, 0, 0, 0, 0])
    with pytest.raises(InvalidGeometry, match="qfac"):
        read_nifti_header(path)
