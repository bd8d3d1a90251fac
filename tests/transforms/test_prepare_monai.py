"""Each preparation step of MONAI's gives MONAI's numbers, on grids of every kind."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from monai import transforms
from monai.data import MetaTensor

from medseg.core.geometry import Geometry
from medseg.core.steps import (
    CropForeground,
    Normalize,
    Orient,
    PreparationStep,
    Resize,
    Respace,
    ScalePercentiles,
    ScaleRange,
    ScaleToRange,
)
from medseg.core.volume import Volume
from medseg.errors import InvalidPlan
from medseg.transforms.border import volume_to_tensor
from medseg.transforms.prepare import prepare
from medseg.transforms.preprocess import RAS_LABELS


def grid(shape: tuple[int, int, int], spacing: Sequence[float], *, turn: float = 0.0, flips: str = "") -> Geometry:
    angle = np.deg2rad(turn)
    affine = np.eye(4)
    affine[:3, :3] = [[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]]
    affine[:3, :3] *= np.array(spacing)
    for axis in map("ijk".index, flips):
        affine[:3, axis] *= -1
    affine[:3, 3] = (-31.5, 17.25, 4.0)
    return Geometry(shape, affine)


def volume(geometry: Geometry, n_channels: int = 1, seed: int = 0) -> Volume:
    """Values from -900 to 900 with much 0 around, as scans have air."""
    random = np.random.default_rng(seed)
    array = random.normal(50, 300, (n_channels, *geometry.shape)).clip(-900, 900).astype(np.float32)
    array[:, :2] = 0
    array[:, :, -3:] = 0
    return Volume(array, geometry, tuple(f"c{n}" for n in range(n_channels)))


GRIDS = {
    "plain": grid((23, 31, 19), (0.8, 0.8, 2.5)),
    "flipped": grid((23, 31, 19), (0.8, 1.1, 2.5), flips="ij"),
    "oblique": grid((23, 31, 19), (0.8, 1.1, 2.5), turn=17),
    "swapped": Geometry((20, 24, 18), np.array([[0, 0, -1.2, 9], [0.9, 0, 0, 3], [0, -2.0, 0, 5], [0, 0, 0, 1.0]])),
}


def by_monai(source: Volume, *chain: transforms.Transform) -> MetaTensor:
    tensor = volume_to_tensor(source)
    for transform in chain:
        tensor = transform(tensor)
    return tensor


def assert_like_monai(source: Volume, steps: Sequence[PreparationStep], expected: MetaTensor, atol: float) -> None:
    before = source.array.copy()
    for is_exact in (False, True):
        prepared = prepare(source, steps, is_exact=is_exact)
        np.testing.assert_allclose(
            prepared.image, np.asarray(expected), rtol=0, atol=0 if is_exact else atol, err_msg=f"exact: {is_exact}"
        )
        assert prepared.geometry.shape == tuple(expected.shape[1:])
        np.testing.assert_allclose(prepared.geometry.affine, np.asarray(expected.affine), atol=1e-9)
        assert prepared.image.flags.c_contiguous
    np.testing.assert_array_equal(source.array, before)


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("axcodes", ["RAS", "LPS", "SAR"])
def test_orientation_is_monais_bit_for_bit(name: str, axcodes: str) -> None:
    source = volume(GRIDS[name], 2)
    expected = by_monai(source, transforms.Orientation(axcodes=axcodes, labels=RAS_LABELS))
    assert_like_monai(source, [Orient(axcodes=axcodes)], expected, 0)


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("is_double", [True, False])
def test_spacing_is_monais_to_rounding(name: str, is_double: bool) -> None:
    source = volume(GRIDS[name])
    expected = by_monai(
        source,
        transforms.Orientation(axcodes="RAS", labels=RAS_LABELS),
        transforms.Spacing((1.5, 1.5, 2.0), dtype=np.float64 if is_double else np.float32),
    )
    steps = [Orient(axcodes="RAS"), Respace(spacing_mm=(1.5, 1.5, 2.0), is_double=is_double)]
    # float32 coordinates miss by 1e-6 of 30 voxels where neighbors differ by up to 1800
    assert_like_monai(source, steps, expected, 2e-3 if is_double else 2e-2)


@pytest.mark.parametrize("spacing", [(0.8, 0.8, 2.5), (0.8004, 0.7999, 2.5009), (None, None, 2.5)])
def test_spacing_that_is_there_already_leaves_voxels_alone(spacing: tuple[float | None, ...]) -> None:
    source = volume(GRIDS["plain"])
    pixdim = [-1.0 if value is None else value for value in spacing]
    expected = by_monai(source, transforms.Spacing(pixdim))
    assert_like_monai(source, [Respace(spacing_mm=spacing, is_double=True)], expected, 0)


@pytest.mark.parametrize("padding", ["zeros", "reflection"])
def test_spacing_with_other_rules_is_monais_own(padding: str) -> None:
    source = volume(GRIDS["plain"])
    expected = by_monai(source, transforms.Spacing((1.1, 1.1, 1.1), mode="nearest", padding_mode=padding))
    step = Respace(spacing_mm=(1.1, 1.1, 1.1), interpolation="nearest", padding=padding, is_double=True)
    assert_like_monai(source, [step], expected, 0)


@pytest.mark.parametrize("mode", ["area", "trilinear", "nearest"])
def test_resize_is_monais(mode: str) -> None:
    source = volume(GRIDS["oblique"], 2)
    expected = by_monai(source, transforms.Resize((16, 40, 19), mode=mode))
    assert_like_monai(source, [Resize(shape=(16, 40, 19), mode=mode)], expected, 0)


@pytest.mark.parametrize("mode", ["area", "trilinear", "nearest"])
@pytest.mark.parametrize("order", [(0, 1, 2, 3), (0, 3, 2, 1), (0, 2, 1, 3)])
def test_intensities_are_mapped_on_the_way_to_a_resize(mode: str, order: tuple[int, ...]) -> None:
    drawn = volume(GRIDS["flipped"], 2)  # a file's voxels lie in memory with the first axis running fastest
    array = np.ascontiguousarray(drawn.array.transpose(order)).transpose(np.argsort(order))
    source = Volume(array, drawn.geometry, drawn.channels)
    scaled = transforms.ScaleIntensityRange(-175, 250, 0.0, 1.0, clip=True)
    expected = by_monai(source, scaled, transforms.Resize((16, 40, 19), mode=mode))
    steps = [
        ScaleRange(low=-175, high=250, to_low=0.0, to_high=1.0, is_clipped=True),
        Resize(shape=(16, 40, 19), mode=mode),
    ]
    assert_like_monai(source, steps, expected, 0)
    np.testing.assert_array_equal(source.array, drawn.array)


CROPS = {
    "plain": {},
    "margin": {"margin": (1, 4, 2)},
    "within": {"margin": (6, 4, 9), "allows_smaller": True},
    "divisible": {"divisible_by": (8, 8, 16)},
    "threshold": {"threshold": 400.0},
}


@pytest.mark.parametrize("name", CROPS)
def test_crop_to_foreground_is_monais(name: str) -> None:
    source = volume(GRIDS["flipped"])
    fields = CROPS[name]
    threshold = fields.get("threshold", 0.0)
    expected = by_monai(
        source,
        transforms.CropForeground(
            select_fn=lambda image: image > threshold,
            margin=fields.get("margin", 0),
            allow_smaller=fields.get("allows_smaller", False),
            k_divisible=fields.get("divisible_by", 1),
        ),
    )
    assert_like_monai(source, [CropForeground(**fields)], expected, 0)
    assert prepare(source, [CropForeground(**fields)]).is_cropped


def test_crop_of_a_scan_without_foreground_says_so() -> None:
    empty = Volume(np.zeros((1, 4, 5, 6), np.float32), Geometry((4, 5, 6), np.eye(4)), ("CT",))
    with pytest.raises(InvalidPlan, match="nothing in the scan above the threshold"):
        prepare(empty, [CropForeground()])


RANGES = [
    (-57.0, 164.0, 0.0, 1.0, True),
    (-57.0, 164.0, -1.0, 1.0, False),
    (-57.0, 164.0, None, 3.0, True),
    (-57.0, 164.0, None, None, False),
    (3.0, 3.0, 0.0, 1.0, True),
]


@pytest.mark.parametrize(("low", "high", "to_low", "to_high", "is_clipped"), RANGES)
@pytest.mark.filterwarnings("ignore:Divide by zero")
def test_intensity_range_is_monais_bit_for_bit(
    low: float, high: float, to_low: float | None, to_high: float | None, is_clipped: bool
) -> None:
    source = volume(grid((70, 80, 60), (1, 1, 1)))  # more than one piece
    expected = by_monai(source, transforms.ScaleIntensityRange(low, high, to_low, to_high, clip=is_clipped))
    step = ScaleRange(low=low, high=high, to_low=to_low, to_high=to_high, is_clipped=is_clipped)
    assert_like_monai(source, [step], expected, 0)


@pytest.mark.parametrize("is_per_channel", [False, True])
def test_scaling_to_a_range_is_monais_bit_for_bit(is_per_channel: bool) -> None:
    source = volume(grid((70, 80, 60), (1, 1, 1)), 2)
    expected = by_monai(source, transforms.ScaleIntensity(-1.0, 1.0, channel_wise=is_per_channel))
    assert_like_monai(source, [ScaleToRange(low=-1.0, high=1.0, is_per_channel=is_per_channel)], expected, 0)


def test_scaling_of_one_value_is_monais() -> None:
    source = Volume(np.full((1, 4, 5, 6), 7, np.float32), Geometry((4, 5, 6), np.eye(4)), ("CT",))
    expected = by_monai(source, transforms.ScaleIntensity(0.5, 1.0))
    assert_like_monai(source, [ScaleToRange(low=0.5, high=1.0)], expected, 0)


@pytest.mark.parametrize("is_per_channel", [False, True])
@pytest.mark.parametrize("is_relative", [False, True])
def test_percentiles_are_monais(is_per_channel: bool, is_relative: bool) -> None:
    source = volume(GRIDS["plain"], 2)
    scale = transforms.ScaleIntensityRangePercentiles(
        1, 99, 0, 1, clip=True, relative=is_relative, channel_wise=is_per_channel
    )
    step = ScalePercentiles(
        lower=1, upper=99, to_low=0, to_high=1, is_clipped=True, is_relative=is_relative, is_per_channel=is_per_channel
    )
    assert_like_monai(source, [step], by_monai(source, scale), 0)


@pytest.mark.parametrize("is_per_channel", [False, True])
@pytest.mark.parametrize("is_nonzero_only", [False, True])
def test_normalization_is_monais_to_rounding(is_per_channel: bool, is_nonzero_only: bool) -> None:
    source = volume(grid((70, 80, 60), (1, 1, 1)), 2)
    expected = by_monai(source, transforms.NormalizeIntensity(nonzero=is_nonzero_only, channel_wise=is_per_channel))
    step = Normalize(is_nonzero_only=is_nonzero_only, is_per_channel=is_per_channel)
    assert_like_monai(source, [step], expected, 2e-6)


def test_normalization_by_given_numbers_is_monais() -> None:
    source = volume(GRIDS["plain"], 2)
    expected = by_monai(
        source, transforms.NormalizeIntensity(subtrahend=[10.0, 20.0], divisor=[3.0, 4.0], channel_wise=True)
    )
    step = Normalize(subtrahend=(10.0, 20.0), divisor=(3.0, 4.0), is_per_channel=True)
    assert_like_monai(source, [step], expected, 0)


def test_normalization_of_an_empty_image_is_monais() -> None:
    source = Volume(np.zeros((1, 4, 5, 6), np.float32), Geometry((4, 5, 6), np.eye(4)), ("CT",))
    for is_nonzero_only in (False, True):
        expected = by_monai(source, transforms.NormalizeIntensity(nonzero=is_nonzero_only))
        assert_like_monai(source, [Normalize(is_nonzero_only=is_nonzero_only)], expected, 0)


def test_several_numbers_for_all_channels_at_once_are_refused() -> None:
    with pytest.raises(InvalidPlan, match="2 numbers to normalize"):
        prepare(volume(GRIDS["plain"], 2), [Normalize(subtrahend=(1.0, 2.0))])
