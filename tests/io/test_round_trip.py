"""What is written is read back the same: by us, nibabel, SimpleITK and MONAI."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.transforms import LoadImage
from scipy.spatial.transform import Rotation

from medseg.core.geometry import Geometry
from medseg.core.volume import Volume
from medseg.io.nifti import write_labels, write_volume
from medseg.io.scan import load_volume, read_scan
from medseg.io.volume_files import read_volume_array
from tests.io.itk_images import lps_affine
from tests.io.nifti_files import AFFINE

CLOSE = {"rtol": 1e-6, "atol": 1e-6}  # a NIfTI-1 header keeps 24 bits of each number


@st.composite
def grids(draw: st.DrawFn, shear: bool) -> Geometry:
    """Any rotation, any flips; on request a tilt of up to 27 degrees."""
    turn = Rotation.from_euler("xyz", draw(st.tuples(*[st.floats(-180, 180)] * 3)), degrees=True).as_matrix()
    flips = np.diag(draw(st.tuples(*[st.sampled_from([-1.0, 1.0])] * 3)))
    slant = np.eye(3)
    slant[1, 2] = draw(st.floats(0.01, 0.5)) if shear else 0.0
    affine = np.eye(4)
    affine[:3, :3] = turn @ flips @ slant @ np.diag(draw(st.tuples(*[st.floats(0.3, 8.0)] * 3)))
    affine[:3, 3] = draw(st.tuples(*[st.floats(-500, 500)] * 3))
    return Geometry(draw(st.tuples(*[st.integers(2, 5)] * 3)), affine)


def written(folder: Path, grid: Geometry) -> tuple[Path, np.ndarray]:
    array = np.random.default_rng(0).normal(0, 1000, grid.shape).astype(np.float32)
    write_volume(Volume(array[None], grid, ("ct",)), folder / "a.nii.gz")
    return folder / "a.nii.gz", array


def seen_by_monai(path: Path) -> tuple[np.ndarray, np.ndarray]:
    image = LoadImage(reader="NibabelReader", image_only=True)(path)
    return image.numpy(), image.affine.numpy()


@settings(deadline=None, max_examples=40)
@given(grids(shear=False))
def test_oblique_and_flipped_grids_are_read_back_the_same_by_all(tmp_path_factory, grid):
    path, array = written(tmp_path_factory.mktemp("trip"), grid)
    back, geometry, notes = read_volume_array(path)
    np.testing.assert_array_equal(back, array)
    np.testing.assert_allclose(geometry.affine, grid.affine, **CLOSE)
    assert notes == ()
    image = nib.load(path)
    np.testing.assert_array_equal(image.get_fdata(dtype=np.float32), array)
    np.testing.assert_array_equal(image.affine, geometry.affine)
    if image.header["qform_code"] > 0:
        assert Geometry(grid.shape, image.get_qform()).largest_displacement_mm(grid) <= 0.01
    itk = sitk.ReadImage(str(path))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(itk).T, array)
    np.testing.assert_allclose(lps_affine(itk), grid.affine, rtol=1e-5, atol=1e-4)  # ITK keeps its axes orthogonal
    voxels, affine = seen_by_monai(path)
    np.testing.assert_array_equal(voxels, array)
    np.testing.assert_allclose(affine, grid.affine, **CLOSE)


@pytest.mark.parametrize(("shape", "is_set"), [((2, 2, 2), 1), ((4096, 2, 2), 0)])
def test_a_half_turn_whose_quaternion_is_too_coarse_leaves_the_qform_unset(tmp_path, shape, is_set):
    axes = [[-0.99451243, -0.00587757, -0.10457721], [-0.00433941, -1.99517274, 0.06930083]]
    affine = np.eye(4)
    affine[:3, :3] = [*axes, [0.10452846, -0.13874868, -0.99209929]]
    grid = Geometry(shape, affine)
    path, _ = written(tmp_path, grid)
    assert int(nib.load(path).header["qform_code"]) == is_set
    np.testing.assert_allclose(read_volume_array(path)[1].affine, affine, **CLOSE)
    np.testing.assert_allclose(lps_affine(sitk.ReadImage(str(path))), affine, rtol=1e-5, atol=1e-4)


@settings(deadline=None, max_examples=40)
@given(grids(shear=True))
def test_sheared_grids_are_read_back_the_same_and_leave_the_qform_unset(tmp_path_factory, grid):
    path, array = written(tmp_path_factory.mktemp("trip"), grid)
    back, geometry, _ = read_volume_array(path)
    np.testing.assert_array_equal(back, array)
    np.testing.assert_allclose(geometry.affine, grid.affine, **CLOSE)
    image = nib.load(path)
    assert (int(image.header["qform_code"]), int(image.header["sform_code"])) == (0, 1)
    np.testing.assert_array_equal(image.affine, geometry.affine)
    voxels, affine = seen_by_monai(path)
    np.testing.assert_array_equal(voxels, array)
    np.testing.assert_allclose(affine, grid.affine, **CLOSE)


@settings(deadline=None, max_examples=30)
@given(grids(shear=True))
def test_grid_that_was_read_is_written_exactly(tmp_path_factory, grid):
    folder = tmp_path_factory.mktemp("trip")
    path, array = written(folder, grid)
    volume = load_volume(read_scan(path))
    write_volume(volume, folder / "b.nii")
    write_labels((array > 0).astype(np.uint8), volume.geometry, folder / "c.nii.gz", like=path)
    for name in ("b.nii", "c.nii.gz"):
        np.testing.assert_array_equal(read_volume_array(folder / name)[1].affine, volume.geometry.affine)
    np.testing.assert_array_equal(read_volume_array(folder / "b.nii")[0], array)


@pytest.mark.parametrize("image_class", [nib.Nifti1Image, nib.Nifti2Image, nib.Nifti1Pair])
@pytest.mark.parametrize("endian", ["<", ">"])
@pytest.mark.parametrize("dtype", ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"])
def test_every_type_and_byte_order_is_read_as_nibabel_reads_it(tmp_path, image_class, endian, dtype):
    kind = np.dtype(dtype)
    edges = [np.iinfo(kind).min, np.iinfo(kind).max, 0, 1] if kind.kind in "iu" else [-1e30, 1e30, 0.1, 1]
    array = np.resize(np.array(edges, dtype=kind), (2, 3, 4))
    header = image_class.header_class(endianness=endian)
    header.set_data_dtype(kind)
    path = tmp_path / ("a.img" if image_class is nib.Nifti1Pair else "a.nii")
    image_class(array, AFFINE, header).to_filename(path)
    back, geometry, _ = read_volume_array(path)
    np.testing.assert_array_equal(back, array.astype(np.float32))
    np.testing.assert_array_equal(back, nib.load(path).get_fdata(dtype=np.float32))
    np.testing.assert_array_equal(geometry.affine, nib.load(path).affine)


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(["i1", "u1", "i2", "u2", "i4", "f4", "f8"]),
    st.sampled_from("<>"),
    st.floats(-1e3, 1e3).filter(lambda slope: abs(slope) > 1e-3),
    st.floats(-1e4, 1e4),
)
def test_slope_and_intercept_are_applied_as_nibabel_applies_them(tmp_path_factory, dtype, endian, slope, intercept):
    path = tmp_path_factory.mktemp("slope") / "a.nii"
    header = nib.Nifti1Header(endianness=endian)
    header.set_data_dtype(np.dtype(dtype))
    image = nib.Nifti1Image(np.arange(24).reshape(2, 3, 4).astype(dtype), AFFINE, header)
    image.header.set_slope_inter(slope, intercept)
    image.to_filename(path)
    np.testing.assert_allclose(
        read_volume_array(path)[0],
        nib.load(path).get_fdata(),
        rtol=1e-6,
        atol=1e-6 * (abs(slope) * 24 + abs(intercept)),
    )
