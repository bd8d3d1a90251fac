"""Linear interpolation from one grid onto another."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
from scipy import ndimage

from medseg.core.geometry import Geometry
from medseg.io import resample
from medseg.io.resample import resample_linear


def grid(shape: tuple[int, int, int], spacing: tuple[float, ...], origin: tuple[float, ...] = (0, 0, 0)) -> Geometry:
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = origin
    return Geometry(shape, affine)


def noise(geometry: Geometry, n_channels: int = 2, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n_channels, *geometry.shape)).astype(np.float32)


def test_own_grid_gives_the_array_back_bit_for_bit() -> None:
    geometry = grid((7, 6, 5), (1.3, 2.1, 0.7), (3.3, -8.1, 100.7))
    array = noise(geometry)
    np.testing.assert_array_equal(resample_linear(array, geometry, geometry), array)


def test_a_linear_ramp_stays_a_linear_ramp_inside_the_source() -> None:
    source = grid((10, 12, 14), (2.0, 3.0, 4.0), (5.0, 6.0, 7.0))
    target = grid((15, 20, 25), (1.1, 1.4, 1.9), (6.0, 8.0, 9.0))
    direction = np.array([0.3, -0.2, 0.5])
    ramp = (source.to_world(np.moveaxis(np.indices(source.shape), 0, -1)) @ direction).astype(np.float32)
    expected = target.to_world(np.moveaxis(np.indices(target.shape), 0, -1)) @ direction
    np.testing.assert_allclose(resample_linear(ramp[None], source, target)[0], expected, atol=1e-4)


@pytest.mark.parametrize("permutation", [(0, 1, 2), (2, 0, 1), (1, 0, 2)])
@pytest.mark.parametrize("flipped", [(), (0,), (1, 2)])
def test_permuted_and_flipped_target_gives_permuted_and_flipped_values(
    permutation: tuple[int, int, int], flipped: tuple[int, ...]
) -> None:
    source = grid((8, 9, 10), (2.0, 2.5, 3.0), (1.0, 2.0, 3.0))
    straight = grid((11, 7, 13), (1.5, 2.9, 2.2), (2.0, 3.0, 4.0))
    columns = straight.affine[:, :3].copy()
    origin = straight.affine[:, 3].copy()
    for axis in flipped:
        origin += columns[:, axis] * (straight.shape[axis] - 1)
        columns[:, axis] *= -1
    affine = np.column_stack([columns[:, list(permutation)], origin])
    turned = Geometry(tuple(straight.shape[axis] for axis in permutation), affine)
    array = noise(source)
    expected = resample_linear(array, source, straight)
    expected = np.flip(expected, [axis + 1 for axis in flipped]) if flipped else expected
    expected = expected.transpose(0, *(axis + 1 for axis in permutation))
    np.testing.assert_allclose(resample_linear(array, source, turned), expected, atol=1e-5)


@pytest.mark.parametrize("degrees", [0.0, 20.0])
def test_agrees_with_simpleitk_inside_the_source(degrees: float) -> None:
    source = grid((16, 15, 14), (2.0, 2.0, 3.0))
    turn = np.deg2rad(degrees)
    affine = np.eye(4)
    affine[:2, :2] = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
    affine[:3, :3] *= 1.3
    affine[:3, 3] = (10.0, 4.0, 12.0)
    target = Geometry((8, 8, 9), affine)
    array = noise(source, n_channels=1)
    image = sitk.GetImageFromArray(array[0].transpose(2, 1, 0))
    image.SetSpacing(source.spacing)
    reference = sitk.Image([8, 8, 9], sitk.sitkFloat32)
    reference.SetSpacing(target.spacing)
    reference.SetOrigin(affine[:3, 3].tolist())
    reference.SetDirection((affine[:3, :3] / np.array(target.spacing)).ravel().tolist())
    expected = sitk.GetArrayFromImage(sitk.Resample(image, reference, sitk.Transform(), sitk.sitkLinear, 0.0))
    np.testing.assert_allclose(resample_linear(array, source, target)[0], expected.transpose(2, 1, 0), atol=2e-4)


def test_beyond_the_outermost_centers_the_nearest_value_goes_on() -> None:
    source = grid((3, 3, 3), (1.0, 1.0, 1.0))
    array = noise(source)
    wide = resample_linear(array, source, grid((7, 3, 3), (1.0, 1.0, 1.0), (-2.0, 0.0, 0.0)))
    np.testing.assert_array_equal(wide[:, :2], np.repeat(array[:, :1], 2, axis=1))
    np.testing.assert_array_equal(wide[:, 5:], np.repeat(array[:, -1:], 2, axis=1))


def test_one_voxel_thick_source_can_be_resampled() -> None:
    source = grid((4, 4, 1), (1.0, 1.0, 5.0))
    array = noise(source)
    thick = resample_linear(array, source, grid((4, 4, 3), (1.0, 1.0, 1.0)))
    np.testing.assert_array_equal(thick, np.repeat(array, 3, axis=3))


@pytest.mark.parametrize("degrees", [0.0, 15.0])
def test_slabs_join_to_what_one_slab_gives(degrees: float, monkeypatch: pytest.MonkeyPatch) -> None:
    source = grid((12, 11, 10), (2.0, 2.0, 2.0))
    turn = np.deg2rad(degrees)
    affine = np.eye(4)
    affine[:2, :2] = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
    target = Geometry((19, 9, 8), affine)
    whole = resample_linear(noise(source), source, target)
    monkeypatch.setattr(resample, "_SLAB_VOXELS", 3 * 9 * 8)
    np.testing.assert_array_equal(resample_linear(noise(source), source, target), whole)


def test_separable_and_general_interpolation_agree() -> None:
    source = grid((9, 8, 7), (2.0, 3.0, 2.5), (1.0, 0.0, 2.0))
    target = grid((14, 15, 11), (1.2, 1.5, 1.4), (0.5, 1.0, 2.5))
    array = noise(source, n_channels=1)
    to_source = np.linalg.inv(source.affine) @ target.affine
    index = np.indices(target.shape).reshape(3, -1)
    coordinates = to_source[:3, :3] @ index + to_source[:3, 3:]
    expected = ndimage.map_coordinates(array[0], coordinates, order=1, mode="nearest").reshape(target.shape)
    np.testing.assert_allclose(resample_linear(array, source, target)[0], expected, atol=1e-5)
