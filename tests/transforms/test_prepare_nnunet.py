"""nnU-Net's preparation: crop, normalize, resample, with nnU-Net's numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import binary_fill_holes, map_coordinates
from skimage.transform import resize

from medseg.core.geometry import Geometry
from medseg.core.steps import (
    AppendPreviousStage,
    CropNonzero,
    NnunetChannel,
    NormalizeAsNnunet,
    PreparationStep,
    RespaceAsNnunet,
    Transpose,
)
from medseg.core.volume import Volume
from medseg.errors import InvalidPlan, ScanError
from medseg.transforms.prepare import prepare
from medseg.transforms.prepare_nnunet import apart_axis, filled, normalized_as_nnunet, shape_after

RNG = np.random.default_rng(1)


def volume(array: np.ndarray, spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> Volume:
    channels = array if array.ndim == 4 else array[None]
    geometry = Geometry(channels.shape[1:], np.diag([*spacing, 1.0]))
    return Volume(channels.astype(np.float32), geometry, tuple(f"c{n}" for n in range(len(channels))))


def test_transposed_voxels_stay_where_they_are_in_space() -> None:
    scan = volume(RNG.normal(size=(4, 5, 6)), (1.0, 2.0, 3.0))
    turned = prepare(scan, [Transpose(axes=(2, 0, 1), is_packed=True)])
    assert turned.geometry.shape == (6, 4, 5)
    assert turned.geometry.spacing == (3.0, 1.0, 2.0)
    assert turned.image[0, 5, 1, 2] == scan.array[0, 1, 2, 5]
    assert np.allclose(turned.geometry.to_world((5, 1, 2)), scan.geometry.to_world((1, 2, 5)))
    assert turned.image.flags.c_contiguous


def test_crop_is_the_box_of_what_is_not_zero_in_any_channel() -> None:
    array = np.zeros((2, 8, 9, 10))
    array[0, 2:5, 3, 4] = -1.0
    array[1, 6, 7, 8] = 2.0
    cropped = prepare(volume(array), [CropNonzero()])
    assert cropped.geometry.shape == (5, 5, 5)
    assert np.allclose(cropped.geometry.to_world((0, 0, 0)), (2, 3, 4))
    assert cropped.is_cropped
    assert cropped.mask is not None
    assert int(cropped.mask.sum()) == 4


def test_empty_scan_is_not_cropped() -> None:
    kept = prepare(volume(np.zeros((4, 5, 6))), [CropNonzero()])
    assert kept.geometry.shape == (4, 5, 6)


def test_holes_are_filled_as_scipy_fills_them() -> None:
    for share in (0.3, 0.6, 0.8):
        mask = np.random.default_rng(3).random((14, 15, 16)) < share
        assert np.array_equal(filled(mask), binary_fill_holes(mask))
    ball = np.ones((7, 7, 7), bool)
    ball[3, 3, 3] = False
    assert filled(ball).all()


def test_each_normalization_gives_its_known_answer() -> None:
    channel = np.array([[[0.0, 100.0, 200.0, 1000.0]]], np.float32)
    ct = NnunetChannel(scheme="ct", mean=100.0, std=50.0, percentile_00_5=50.0, percentile_99_5=250.0)
    assert normalized_as_nnunet(channel, ct).tolist() == [[[-1.0, 0.0, 2.0, 3.0]]]
    scored = normalized_as_nnunet(channel, NnunetChannel(scheme="zscore"))
    assert abs(float(scored.mean())) < 1e-6
    assert abs(float(scored.std()) - 1) < 1e-6
    assert normalized_as_nnunet(channel, NnunetChannel(scheme="none")) is channel
    assert normalized_as_nnunet(channel, NnunetChannel(scheme="rescale_01")).max() == 1.0
    assert normalized_as_nnunet(channel / 4, NnunetChannel(scheme="rgb_01")).max() == pytest.approx(250 / 255)
    with pytest.raises(ScanError, match=r"0\.\.255; the scan has 0\.\.1000"):
        normalized_as_nnunet(channel, NnunetChannel(scheme="rgb_01"))


def test_masked_z_score_sees_the_inside_only_and_leaves_the_outside() -> None:
    channel = np.array([[[0.0, 1.0, 3.0, 0.0]]], np.float32)
    mask = np.array([[[False, True, True, False]]])
    scored = normalized_as_nnunet(channel, NnunetChannel(scheme="zscore", is_masked=True), mask)
    assert scored.tolist() == [[[0.0, -1.0, 1.0, 0.0]]]
    assert channel.tolist() == [[[0.0, 1.0, 3.0, 0.0]]]


def test_another_number_of_channels_is_refused() -> None:
    step = NormalizeAsNnunet(channels=(NnunetChannel(scheme="none"),))
    with pytest.raises(InvalidPlan, match=r"1 channel\(s\) are to be normalized; the scan has 2"):
        prepare(volume(np.ones((2, 3, 3, 3))), [step])


@pytest.mark.parametrize(
    ("spacing", "target", "force", "expected"),
    [
        ((1, 1, 1), (2, 2, 2), None, None),
        ((3, 1, 1), (2, 2, 2), None, None),  # the ratio must be above 3
        ((5, 1, 1), (2, 2, 2), None, 0),
        ((1, 1, 1), (1, 1, 4), None, 2),
        ((5, 1, 1), (1, 1, 4), None, 0),  # the spacing before is asked first
        ((5, 5, 1), (2, 2, 2), None, None),  # two axes are as thick: no plane
        ((5, 1, 1), (2, 2, 2), False, None),
        ((1.2, 1, 1), (2, 2, 2), True, 0),
        ((1, 1, 1), (1, 1, 4), True, None),
    ],
)
def test_axis_that_is_interpolated_apart(
    spacing: tuple[float, ...], target: tuple[float, ...], force: bool | None, expected: int | None
) -> None:
    assert apart_axis(spacing, target, force) == expected


def test_shape_is_rounded_half_to_even() -> None:
    assert shape_after((5, 7, 10), (1, 1, 1), (2, 2, 3)) == (2, 4, 3)


def reference(image: np.ndarray, shape: tuple[int, int, int], axis: int | None, order_z: int = 0) -> np.ndarray:
    """nnU-Net's resampling, written out: cubic planes, then the odd axis."""
    image = image.astype(np.float64)
    if axis is None:
        return resize(image, shape, 3, mode="edge", anti_aliasing=False)
    plane = [n for number, n in enumerate(shape) if number != axis]
    planes = [resize(p, plane, 3, mode="edge", anti_aliasing=False) for p in np.moveaxis(image, axis, 0)]
    stack = np.moveaxis(np.stack(planes), 0, axis)
    grid = np.meshgrid(
        *[(np.arange(new) + 0.5) * old / new - 0.5 for old, new in zip(stack.shape, shape, strict=True)], indexing="ij"
    )
    return map_coordinates(stack, grid, order=order_z, mode="nearest")


@pytest.mark.parametrize(
    ("spacing", "target", "axis", "order_z"),
    [
        ((1.0, 1.2, 1.4), (1.3, 1.0, 1.0), None, 0),
        ((5.0, 1.0, 1.0), (3.1, 0.8, 0.8), 0, 0),
        ((1.0, 1.0, 1.0), (0.7, 0.7, 6.0), 2, 0),
        ((1.0, 4.0, 1.0), (1.3, 2.7, 1.3), 1, 1),
        ((5.0, 1.0, 1.0), (5.0, 0.8, 0.8), 0, 0),
    ],
)
def test_resampled_as_nnunet_does(
    spacing: tuple[float, float, float], target: tuple[float, float, float], axis: int | None, order_z: int
) -> None:
    scan = volume(RNG.normal(size=(2, 13, 14, 15)), spacing)
    step = RespaceAsNnunet(spacing_mm=target, order_z=order_z)
    fast, exact = (prepare(scan, [step], is_exact=is_exact) for is_exact in (False, True))
    for channel, quick, slow in zip(scan.array, fast.image, exact.image, strict=True):
        expected = reference(channel, exact.geometry.shape, axis, order_z)
        assert np.abs(quick - expected).max() < 1e-5
        assert np.array_equal(slow, expected.astype(np.float32))
    assert exact.apart_axis == apart_axis(target, spacing)


def test_outer_edges_stay_where_they_are() -> None:
    scan = volume(np.zeros((10, 11, 12)), (1.0, 2.0, 3.0))
    spaced = prepare(scan, [RespaceAsNnunet(spacing_mm=(1.7, 1.7, 1.7))]).geometry
    for corner in ((-0.5, -0.5, -0.5), (1, 1, 1)):
        ends = [
            [c if c < 0 else n - 0.5 for c, n in zip(corner, shape, strict=True)]
            for shape in (spaced.shape, (10, 11, 12))
        ]
        assert np.allclose(spaced.to_world(ends[0]), scan.geometry.to_world(ends[1]))


def test_spacing_of_none_keeps_the_planes_of_a_2d_model() -> None:
    scan = volume(RNG.normal(size=(7, 20, 20)), (5.0, 1.0, 1.0))
    assert prepare(scan, [RespaceAsNnunet(spacing_mm=(None, 2.0, 2.0))]).geometry.shape == (7, 10, 10)


def test_torch_variant_interpolates_linearly_and_the_odd_axis_by_the_nearest() -> None:
    scan = volume(RNG.normal(size=(6, 10, 12)), (5.0, 1.0, 1.0))
    voxels = torch.from_numpy(scan.array.copy())
    whole = prepare(scan, [RespaceAsNnunet(spacing_mm=(3.0, 0.7, 0.7), is_torch=True, force_separate_z=False)])
    expected = torch.nn.functional.interpolate(voxels[None], whole.geometry.shape, mode="trilinear")
    assert np.array_equal(whole.image, expected[0].numpy())
    apart = prepare(scan, [RespaceAsNnunet(spacing_mm=(3.0, 0.7, 0.7), is_torch=True)])
    planes = torch.nn.functional.interpolate(voxels, apart.geometry.shape[1:], mode="bilinear")
    expected = torch.nn.functional.interpolate(planes[None], apart.geometry.shape, mode="nearest-exact")
    assert np.array_equal(apart.image, expected[0].numpy())


def test_map_of_the_stage_before_goes_the_same_way_and_becomes_channels() -> None:
    array = np.zeros((12, 12, 12))
    array[2:10, 2:10, 2:10] = RNG.normal(size=(8, 8, 8)) + 5
    before = np.zeros((12, 12, 12), np.uint8)
    before[4:8, 4:8, 4:8] = 1
    before[6:8, 4:8, 4:8] = 2
    steps: list[PreparationStep] = [
        Transpose(axes=(2, 1, 0)),
        CropNonzero(),
        RespaceAsNnunet(spacing_mm=(0.5, 0.5, 0.5)),
        AppendPreviousStage(classes=(1, 2)),
    ]
    seen = prepare(volume(array), steps, previous=before).image
    assert seen.shape == (3, 16, 16, 16)
    corners = 8  # a corner voxel has 0.75 ** 3 of the weight, less than half
    assert [int(channel.sum()) for channel in seen[1:]] == [8 * 8 * 4 - corners, 8 * 8 * 4 - corners]
    assert seen[2, 5:11, 5:11, 8:12].all()
    with pytest.raises(InvalidPlan, match="needs the class map of the first"):
        prepare(volume(array), steps)
