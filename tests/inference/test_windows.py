"""Where windows lie and how they count: MONAI's and nnU-Net's own numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from monai.data.utils import compute_importance_map, dense_patch_slices
from scipy.ndimage import gaussian_filter

from medseg.core.recipe import WindowPlan
from medseg.inference.windows import Layout, lay_windows, padded_image, window_weights


def monai_starts(shape: tuple[int, ...], window: tuple[int, ...], overlap: float) -> list[tuple[int, ...]]:
    padded = [max(n, side) for n, side in zip(shape, window, strict=True)]
    steps = [side if n == side else max(int(side * (1 - overlap)), 1) for n, side in zip(padded, window, strict=True)]
    return [tuple(part.start for part in parts) for parts in dense_patch_slices(padded, window, steps)]


def in_raster_order(layout: Layout) -> list[tuple[int, ...]]:
    return [position for row in layout.starts[0] for position in layout.in_rows(0, row)]


@pytest.mark.parametrize("shape", [(20, 18, 33), (16, 16, 16), (5, 30, 7), (64, 17, 48), (1, 1, 1)])
@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5, 0.7, 0.95])
def test_monai_windows_lie_where_monai_puts_them(shape: tuple[int, int, int], overlap: float) -> None:
    plan = WindowPlan(patch_size=(16, 12, 10), overlap=overlap)
    assert in_raster_order(lay_windows(shape, plan)) == monai_starts(shape, (16, 12, 10), overlap)


@pytest.mark.parametrize(
    ("n", "side", "overlap", "expected"),
    [
        (110, 64, 0.5, (0, 23, 46)),  # the example in nnU-Net's own comment
        (64, 64, 0.5, (0,)),
        (65, 64, 0.5, (0, 1)),
        (224, 128, 0.5, (0, 48, 96)),
        (101, 32, 0.5, (0, 14, 28, 41, 55, 69)),
        (97, 32, 0.2, (0, 22, 43, 65)),
        (40, 64, 0.5, (0,)),
    ],
)
def test_nnunet_windows_are_spread_evenly(n: int, side: int, overlap: float, expected: tuple[int, ...]) -> None:
    plan = WindowPlan(patch_size=(side, 8, 8), overlap=overlap, rule="nnunet")
    assert lay_windows((n, 8, 8), plan).starts == (expected, (0,), (0,))


def test_a_two_dimensional_network_sees_each_plane_once() -> None:
    plan = WindowPlan(patch_size=(1, 8, 8), overlap=0.5, rule="nnunet")
    assert lay_windows((5, 8, 12), plan).starts == ((0, 1, 2, 3, 4), (0,), (0, 4))


@pytest.mark.parametrize("rule", ["monai", "nnunet"])
@pytest.mark.parametrize("shape", [(20, 18, 33), (5, 30, 7), (100, 16, 16)])
def test_windows_cover_every_voxel(rule: str, shape: tuple[int, int, int]) -> None:
    layout = lay_windows(shape, WindowPlan(patch_size=(16, 12, 10), overlap=0.3, rule=rule))
    seen = np.zeros(layout.padded_shape, dtype=int)
    for i, j, k in in_raster_order(layout):
        seen[i : i + 16, j : j + 12, k : k + 10] += 1
    assert seen.min() == 1


def test_a_window_shrinks_only_where_the_plan_says_so() -> None:
    plan = WindowPlan(patch_size=(16, 16, 16), shrinks=True, divisor=(4, 4, 4))
    assert lay_windows((5, 16, 40), plan).window == (8, 16, 16)
    assert lay_windows((15, 17, 3), plan.model_copy(update={"divisor": (8, 8, 2)})).window == (16, 16, 4)
    assert lay_windows((5, 16, 40), WindowPlan(patch_size=(16, 16, 16))).window == (16, 16, 16)
    assert lay_windows((3, 4, 1), plan).window == (8, 4, 4)  # a single voxel at the coarsest level cannot be normalized
    assert lay_windows((3, 4, 5), plan).window == (4, 4, 8)
    whole = lay_windows((5, 16, 40), WindowPlan(patch_size=(16, 16, 16), is_whole_image=True))
    assert (whole.window, whole.n_windows) == ((5, 16, 40), 1)


@pytest.mark.parametrize("mode", ["constant", "replicate", "reflect", "circular"])
def test_padding_is_that_of_monai(mode: str) -> None:
    image = torch.randn((2, 5, 16, 8), generator=torch.Generator().manual_seed(0))
    plan = WindowPlan(patch_size=(8, 12, 11), padding=mode, padding_value=-1.5)
    layout = lay_windows((5, 16, 8), plan)
    value = -1.5 if mode == "constant" else None
    # MONAI: half of what lacks, rounded down, in front; last axis first
    expected = torch.nn.functional.pad(image[None], (1, 2, 0, 0, 1, 2), mode=mode, value=value)[0]
    torch.testing.assert_close(padded_image(image, layout, plan), expected, rtol=0, atol=0)
    assert layout.pad_before == (1, 0, 1)


def test_an_image_as_large_as_the_window_is_not_copied() -> None:
    image = torch.zeros((1, 8, 12, 11))
    plan = WindowPlan(patch_size=(8, 12, 11))
    assert padded_image(image, lay_windows((8, 12, 11), plan), plan) is image


@pytest.mark.parametrize("window", [(16, 16, 16), (96, 80, 7), (1, 5, 64)])
@pytest.mark.parametrize("sigma_scale", [0.125, 0.05])
def test_monai_gaussian_is_bit_for_bit_that_of_monai(window: tuple[int, int, int], sigma_scale: float) -> None:
    plan = WindowPlan(patch_size=window, blend="gaussian", sigma_scale=sigma_scale)
    expected = compute_importance_map(window, mode="gaussian", sigma_scale=sigma_scale)
    torch.testing.assert_close(window_weights(window, plan), expected, rtol=0, atol=0)


def test_constant_blend_weighs_all_voxels_alike() -> None:
    assert (window_weights((3, 4, 5), WindowPlan(patch_size=(3, 4, 5))) == 1).all()


@pytest.mark.parametrize("window", [(32, 32, 32), (128, 128, 128), (20, 96, 64)])
def test_nnunet_gaussian_is_the_filtered_point_in_float16(window: tuple[int, int, int]) -> None:
    """nnU-Net's definition, written anew: compute_gaussian with value_scaling_factor 10."""
    plan = WindowPlan(patch_size=window, blend="gaussian", rule="nnunet")
    delta = np.zeros(window)
    delta[tuple(side // 2 for side in window)] = 1
    expected = gaussian_filter(delta, [side / 8 for side in window], 0, mode="constant", cval=0)
    expected = torch.from_numpy(expected / (expected.max() / 10)).to(torch.float16)  # rounds twice, numpy once
    expected[expected == 0] = expected[expected > 0].min()
    weights = window_weights(window, plan).numpy()
    np.testing.assert_array_equal(weights, expected.float().numpy())
    assert weights.max() == 10.0
    assert weights.min() > 0


def test_a_plane_has_a_gaussian_of_its_own_two_axes() -> None:
    plan = WindowPlan(patch_size=(1, 24, 32), blend="gaussian", rule="nnunet")
    delta = np.zeros((24, 32))
    delta[12, 16] = 1
    expected = gaussian_filter(delta, [3.0, 4.0], mode="constant")
    expected = torch.from_numpy(expected / (expected.max() / 10)).to(torch.float16)
    expected[expected == 0] = expected[expected > 0].min()
    np.testing.assert_array_equal(window_weights((1, 24, 32), plan).numpy()[0], expected.float().numpy())


def test_slabs_follow_the_axis_whose_band_is_smallest() -> None:
    plan = WindowPlan(patch_size=(96, 96, 96))
    assert lay_windows((274, 274, 400), plan).cheapest_axis() == 2
    assert lay_windows((400, 274, 274), plan).cheapest_axis() == 0
    assert lay_windows((300, 300, 300), plan).cheapest_axis() == 0
    flat = WindowPlan(patch_size=(160, 160, 16))
    assert lay_windows((300, 300, 60), flat).cheapest_axis() == 2  # 16 rows of 300 x 300, not 160 of 300 x 60


def test_number_of_windows_is_known_before_the_run() -> None:
    layout = lay_windows((32, 17, 16), WindowPlan(patch_size=(16, 16, 16), overlap=0.5))
    assert layout.n_windows == math.prod((3, 2, 1)) == len(in_raster_order(layout))
