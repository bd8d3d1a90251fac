from __future__ import annotations

import gzip
import struct

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
from hypothesis import example, given, reject, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from medseg.core.geometry import Geometry
from medseg.core.volume import Volume
from medseg.errors import (
    GridMismatch,
    InvalidLabelMap,
    OutputNotWritable,
    UnreadableImage,
    UnsupportedDimensions,
    UsageError,
)
from medseg.io.nifti import (
    write_labels,
    write_volume,
)
from medseg.io.volume_files import read_volume_array, read_volume_header
from tests.io.nifti_files import AFFINE, patch, save

GRID = Geometry((3, 4, 5), AFFINE)
LPS_FROM_RAS = np.diag([-1.0, -1.0, 1.0])
SPATIAL = ("qform_code", "sform_code", "xyzt_units", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y")
SPATIAL += ("qoffset_z", "srow_x", "srow_y", "srow_z")


def numbered(dtype=np.int16) -> np.ndarray:
    return np.arange(60).reshape(3, 4, 5).astype(dtype)


def labels_at(**voxels: tuple[int, int, int]) -> np.ndarray:
    """A map (3, 4, 5) int32: n5=(0, 0, 0) puts 5 there."""
    array = np.zeros((3, 4, 5), np.int32)
    for name, voxel in voxels.items():
        array[voxel] = int(name[1:])
    return array


@st.composite
def grids(draw, shear: bool = False) -> Geometry:
    turn = Rotation.from_euler("xyz", draw(st.tuples(*[st.floats(-180, 180)] * 3)), degrees=True).as_matrix()
    spacing = np.diag(draw(st.tuples(*[st.floats(0.3, 8.0)] * 3)))
    mirror = np.diag([draw(st.sampled_from([-1.0, 1.0])), 1.0, 1.0])
    slant = np.eye(3)
    if shear:
        slant[1, 2] = draw(st.floats(0.01, 0.5))
    affine = np.eye(4)
    affine[:3, :3] = turn @ mirror @ slant @ spacing
    affine[:3, 3] = draw(st.tuples(*[st.floats(-500, 500)] * 3))
    return Geometry(draw(st.tuples(*[st.integers(1, 5)] * 3)), affine)


# reading intensities


def test_voxels_lie_where_they_were_put(tmp_path):
    array, geometry, notes = read_volume_array(save(numbered(), tmp_path / "a.nii.gz"))
    assert array.dtype == np.float32
    np.testing.assert_array_equal(array, numbered())
    np.testing.assert_array_equal(geometry.affine, AFFINE)
    assert notes == ()


def test_slope_and_intercept_are_applied(tmp_path):
    path = save(numbered(), tmp_path / "a.nii", scl_slope=0.5, scl_inter=-1000.0)
    np.testing.assert_array_equal(read_volume_array(path)[0], numbered(np.float32) * 0.5 - 1000.0)


@pytest.mark.parametrize("slope", [0.0, np.nan])
def test_slope_of_zero_or_nan_means_no_scaling(tmp_path, slope):
    path = save(numbered(), tmp_path / "a.nii", scl_slope=slope, scl_inter=7.0)
    np.testing.assert_array_equal(read_volume_array(path)[0], numbered())


def test_infinite_intercept_is_refused(tmp_path):
    path = save(numbered(), tmp_path / "a.nii", scl_slope=1.0, scl_inter=np.inf)
    with pytest.raises(UnreadableImage, match="intensity scaling"):
        read_volume_array(path)


@pytest.mark.parametrize("version", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("endian", ["<", ">"])
@pytest.mark.parametrize("dtype", ["u1", "i2", "u2", "i4", "f4", "f8"])
def test_voxels_agree_with_nibabel_for_every_type_and_byte_order(tmp_path, version, endian, dtype):
    path = tmp_path / "a.nii.gz"
    header = version.header_class(endianness=endian)
    header.set_data_dtype(np.dtype(dtype))
    version(numbered(dtype), AFFINE, header).to_filename(path)
    array, geometry, _ = read_volume_array(path)
    np.testing.assert_array_equal(array, nib.load(path).get_fdata(dtype=np.float32))
    np.testing.assert_array_equal(geometry.affine, nib.load(path).affine)


def test_header_extension_is_skipped(tmp_path):
    image = nib.Nifti1Image(numbered(), AFFINE)
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"x" * 100))
    image.to_filename(tmp_path / "a.nii")
    np.testing.assert_array_equal(read_volume_array(tmp_path / "a.nii")[0], numbered())


@pytest.mark.parametrize("cut", [1, 40, 119])
@pytest.mark.parametrize("packed", [False, True])
def test_truncated_voxels_are_refused(tmp_path, cut, packed):
    path = save(numbered(), tmp_path / "a.nii")
    data = path.read_bytes()[:-cut]
    path.write_bytes(gzip.compress(data) if packed else data)
    with pytest.raises(UnreadableImage, match=r"a\.nii is truncated"):
        read_volume_array(path)


@pytest.mark.parametrize("cut", [1, 8, 60])
def test_truncated_gzip_is_refused(tmp_path, cut):
    path = save(np.random.default_rng(0).integers(0, 999, (9, 9, 9)).astype(np.int16), tmp_path / "a.nii.gz")
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(UnreadableImage, match=r"a\.nii\.gz is damaged"):
        read_volume_array(path)


def test_gzip_with_a_wrong_checksum_is_refused(tmp_path):
    path = save(numbered(), tmp_path / "a.nii.gz")
    data = bytearray(path.read_bytes())
    data[-8:-4] = struct.pack("<I", struct.unpack("<I", data[-8:-4])[0] ^ 1)
    path.write_bytes(data)
    with pytest.raises(UnreadableImage, match="CRC"):
        read_volume_array(path)


def test_color_and_complex_voxels_are_refused(tmp_path):
    path = save(numbered(np.complex64), tmp_path / "a.nii")
    with pytest.raises(UnreadableImage, match="complex"):
        read_volume_array(path)


def test_number_beyond_float32_comes_as_infinite(tmp_path):
    array = numbered(np.float64)
    array[0, 0, 0] = 1e300
    assert read_volume_array(save(array, tmp_path / "a.nii"))[0][0, 0, 0] == np.inf


# writing


def test_labels_read_back_in_the_type_that_they_came_in(tmp_path):
    for dtype in (np.uint8, np.uint16, np.uint32):
        write_labels(numbered(dtype), GRID, tmp_path / "a.nii.gz")
        image = nib.load(tmp_path / "a.nii.gz")
        assert image.get_data_dtype() == dtype
        np.testing.assert_array_equal(np.asarray(image.dataobj), numbered())


@pytest.mark.parametrize(
    ("array", "dtype"),
    [(numbered() > 30, np.uint8), (numbered(np.int64), np.uint8), (numbered(np.int64) * 1000, np.uint16)],
)
def test_other_integers_and_masks_are_stored_in_the_smallest_type(tmp_path, array, dtype):
    write_labels(array, GRID, tmp_path / "a.nii")
    image = nib.load(tmp_path / "a.nii")
    assert image.get_data_dtype() == dtype
    np.testing.assert_array_equal(np.asarray(image.dataobj), array)


def test_two_runs_give_equal_bytes_without_time_or_name(tmp_path):
    write_labels(numbered(np.uint8), GRID, tmp_path / "a.nii.gz")
    write_labels(np.asfortranarray(numbered(np.uint8)), GRID, tmp_path / "b.nii.gz")
    data = (tmp_path / "a.nii.gz").read_bytes()
    assert data == (tmp_path / "b.nii.gz").read_bytes()
    assert data[3] == 0  # no name or comment flag
    assert data[4:8] == b"\0\0\0\0"  # no time


HALF_TURN = Geometry(
    (1, 1, 3),
    np.array(
        [
            [-0.98768834, -0.15642851, 0.01092105, 0.0],
            [-0.15643447, 0.98765073, -0.06895278, 0.0],
            [0.0, 0.00872654, 7.99969538, 0.0],
            [0.0, 0.0, 0.0, 1.0],
        ]
    ),
)


@settings(deadline=None, max_examples=50)
@given(grids())
@example(grid=HALF_TURN)
def test_orthogonal_grids_survive_the_round_trip_in_both_forms(tmp_path_factory, grid):
    path = tmp_path_factory.mktemp("grid") / "a.nii"
    write_labels(np.zeros(grid.shape, np.uint8), grid, path)
    assert read_volume_header(path).geometry.matches(grid, tolerance_mm=2e-3)
    if int(nib.load(path).header["qform_code"]) == 0:  # left unset only where float32 cannot say it
        assert half_turn_cosine(grid) == pytest.approx(-1.0, abs=1e-5)
        return
    patch(path, sform_code=0)
    assert read_volume_header(path).geometry.matches(grid, tolerance_mm=2e-2)


def half_turn_cosine(grid: Geometry) -> float:
    """Cosine of the turn that a qform has to say; -1 for half a turn, where its quaternion's first number is near 0."""
    turn = grid.affine[:3, :3] / grid.spacing
    if np.linalg.det(turn) < 0:
        turn[:, 2] *= -1
    return float((np.trace(turn) - 1) / 2)


@settings(deadline=None, max_examples=50)
@given(grids(shear=True))
def test_sheared_grids_survive_and_leave_the_qform_unset(tmp_path_factory, grid):
    path = tmp_path_factory.mktemp("grid") / "a.nii"
    write_labels(np.zeros(grid.shape, np.uint8), grid, path)
    assert nib.load(path).header["qform_code"] == 0
    assert read_volume_header(path).geometry.matches(grid, tolerance_mm=2e-3)


def test_rounding_an_oblique_affine_is_no_shear(tmp_path):
    affine = np.eye(4)
    affine[:3, :3] = np.round(Rotation.from_euler("xyz", (10, 20, 30), degrees=True).as_matrix(), 6)  # as DICOM does
    write_labels(np.zeros((3, 4, 5), np.uint8), Geometry((3, 4, 5), affine), tmp_path / "a.nii")
    assert nib.load(tmp_path / "a.nii").header["qform_code"] == 1


@settings(deadline=None, max_examples=50)
@given(grids(), st.sampled_from([nib.Nifti1Image, nib.Nifti2Image]), st.sampled_from("<>"), st.integers(0, 2))
def test_map_has_the_spatial_fields_of_its_scan_bit_for_bit(tmp_path_factory, grid, version, endian, forms):
    folder = tmp_path_factory.mktemp("like")
    image = version(np.zeros(grid.shape, np.float32), grid.affine, version.header_class(endianness=endian))
    image.set_sform(grid.affine, code=(2, 0, 4)[forms])
    try:
        image.set_qform(grid.affine, code=(0, 1, 3)[forms])
    except ValueError:  # nibabel does not read some half turns that it wrote
        reject()
    image.header.set_xyzt_units("mm", "sec")
    image.to_filename(folder / "scan.nii.gz")
    scan = nib.load(folder / "scan.nii.gz")
    write_labels(
        np.ones(grid.shape, np.uint8),
        read_volume_header(folder / "scan.nii.gz").geometry,
        folder / "map.nii.gz",
        like=folder / "scan.nii.gz",
    )
    written = nib.load(folder / "map.nii.gz")
    assert isinstance(written, version)
    assert written.shape == scan.shape
    assert written.affine.tobytes() == scan.affine.tobytes()
    assert written.header["pixdim"][:4].tolist() == scan.header["pixdim"][:4].tolist()
    for field in SPATIAL:
        np.testing.assert_array_equal(written.header[field], scan.header[field], err_msg=field)


def test_map_of_a_pair_is_one_file_on_its_grid(tmp_path):
    nib.Nifti1Pair(numbered(), AFFINE).to_filename(tmp_path / "scan.img")
    write_labels(labels_at(n1=(0, 0, 0)), GRID, tmp_path / "map.nii", like=tmp_path / "scan.hdr")
    header = nib.load(tmp_path / "map.nii").header
    assert header["magic"].item() == b"n+1"
    np.testing.assert_array_equal(nib.load(tmp_path / "map.nii").affine, nib.load(tmp_path / "scan.img").affine)


def test_map_on_another_grid_than_its_scan_is_refused(tmp_path):
    scan = save(numbered(), tmp_path / "scan.nii")
    shifted = AFFINE + np.eye(4, k=3) * 0.1
    with pytest.raises(GridMismatch, match=r"scan\.nii"):
        write_labels(numbered(np.uint8), Geometry((3, 4, 5), shifted), tmp_path / "map.nii", like=scan)
    assert not (tmp_path / "map.nii").exists()


def test_like_that_is_no_nifti_file_falls_back_to_the_geometry(tmp_path):
    write_labels(numbered(np.uint8), GRID, tmp_path / "map.nii", like=tmp_path / "slice_001.dcm")
    np.testing.assert_array_equal(read_volume_header(tmp_path / "map.nii").geometry.affine, AFFINE)


@settings(deadline=None, max_examples=50)
@given(grids())
def test_simpleitk_sees_the_same_grid_in_lps(tmp_path_factory, grid):
    path = tmp_path_factory.mktemp("itk") / "a.nii"
    write_labels(np.arange(np.prod(grid.shape), dtype=np.uint8).reshape(grid.shape), grid, path)
    image = SimpleITK.ReadImage(str(path))
    direction = np.array(image.GetDirection()).reshape(3, 3)
    np.testing.assert_allclose(direction * image.GetSpacing(), LPS_FROM_RAS @ grid.affine[:3, :3], rtol=0, atol=1e-3)
    np.testing.assert_allclose(image.GetOrigin(), LPS_FROM_RAS @ grid.affine[:3, 3], rtol=0, atol=1e-3)
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(image).T, nib.load(path).dataobj)


def test_files_by_simpleitk_are_read_on_the_same_grid(tmp_path):
    image = SimpleITK.GetImageFromArray(numbered(np.float32).T)
    image.SetSpacing((1.5, 2.0, 3.0))
    image.SetOrigin((-40.0, 30.0, 7.5))
    image.SetDirection((1, 0, 0, 0, -1, 0, 0, 0, 1))
    SimpleITK.WriteImage(image, str(tmp_path / "a.nii.gz"))
    array, geometry, notes = read_volume_array(tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(array, numbered())
    np.testing.assert_allclose(geometry.affine, AFFINE, atol=1e-6)
    assert notes == ()


@pytest.mark.parametrize("array", [-numbered(), numbered(np.float32), numbered(np.int64) * 10**9])
def test_arrays_that_are_no_labels_are_not_written(tmp_path, array):
    with pytest.raises(InvalidLabelMap):
        write_labels(array, GRID, tmp_path / "a.nii")
    assert list(tmp_path.iterdir()) == []


def test_array_of_another_shape_is_not_written(tmp_path):
    with pytest.raises(GridMismatch, match=r"\(4, 3, 5\)"):
        write_labels(np.zeros((4, 3, 5), np.uint8), GRID, tmp_path / "a.nii")


def test_other_suffix_and_unusable_folder_are_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"a\.nrrd"):
        write_labels(numbered(np.uint8), GRID, tmp_path / "a.nrrd")
    with pytest.raises(OutputNotWritable):
        write_labels(numbered(np.uint8), GRID, tmp_path / "file" / "a.nii")


def test_axis_longer_than_nifti1_allows_is_written_as_nifti2(tmp_path):
    grid = Geometry((40000, 1, 1), AFFINE)
    write_labels(np.ones(grid.shape, np.uint8), grid, tmp_path / "a.nii.gz")
    assert isinstance(nib.load(tmp_path / "a.nii.gz"), nib.Nifti2Image)
    assert read_volume_header(tmp_path / "a.nii.gz").geometry.shape == (40000, 1, 1)


def test_volume_reads_back_exactly(tmp_path):
    array = np.random.default_rng(1).normal(size=(1, 3, 4, 5)).astype(np.float32)
    write_volume(Volume(array, GRID, ("PET",)), tmp_path / "a.nii.gz")
    back, geometry, notes = read_volume_array(tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(back, array[0])
    np.testing.assert_array_equal(geometry.affine, AFFINE)
    assert notes == ()


def test_volume_of_two_channels_is_refused(tmp_path):
    volume = Volume(np.zeros((2, 3, 4, 5), np.float32), GRID, ("PET", "CT"))
    with pytest.raises(UnsupportedDimensions, match="PET, CT"):
        write_volume(volume, tmp_path / "a.nii")


# real scans


@pytest.mark.real_data
@pytest.mark.parametrize(
    "name", ["ct/example_ct.nii.gz", "sts/STS_019/PET_image.nii.gz", "sts/STS_019/MR_T1_image.nii.gz"]
)
def test_real_scans_agree_with_nibabel_and_lend_their_grid_exactly(real_data, tmp_path, name):
    path = real_data / "volumes" / name
    image = nib.load(path)
    array, geometry, _ = read_volume_array(path)
    np.testing.assert_array_equal(array, image.get_fdata(dtype=np.float32))
    np.testing.assert_array_equal(geometry.affine, image.affine)
    write_labels(array > array.mean(), geometry, tmp_path / "map.nii.gz", like=path)
    written = nib.load(tmp_path / "map.nii.gz")
    assert written.affine.tobytes() == image.affine.tobytes()
    np.testing.assert_array_equal(np.asarray(written.dataobj), array > array.mean())
