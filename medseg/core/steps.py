"""The steps that bring a scan to what a network sees, as values: what is done, in which order, with which numbers.

Each model family has its own: MONAI bundles list transforms, nnU-Net crops and normalizes before it resamples. A recipe
holds them in order; `medseg.transforms.prepare` carries them out.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from medseg.core.plan import IntensityPlan

__all__ = [
    "AppendPreviousStage",
    "CropForeground",
    "CropNonzero",
    "MapIntensities",
    "NnunetChannel",
    "Normalize",
    "NormalizeAsNnunet",
    "Orient",
    "PreparationStep",
    "Resize",
    "Respace",
    "RespaceAsNnunet",
    "ScalePercentiles",
    "ScaleRange",
    "ScaleToRange",
    "Transpose",
]

Positive = Annotated[float, Field(gt=0)]
PositiveInt = Annotated[int, Field(ge=1)]
Axes = tuple[Literal[0, 1, 2], Literal[0, 1, 2], Literal[0, 1, 2]]


class _Step(BaseModel):
    # infinities are no JSON: a step that held one would not be read back elsewhere
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Orient(_Step):
    """Axes put in the order and direction of axis codes, as MONAI's `Orientation` does; no interpolation."""

    kind: Literal["orient"] = "orient"
    axcodes: Annotated[str, Field(pattern="^[LRPAIS]{3}$")]


class Transpose(_Step):
    """Axes put in another order: axis n of the result is axis `axes[n]` of what came before.

    `is_packed` lays the voxels out anew, the last axis contiguous: sums over them depend on it in the last digit.
    """

    kind: Literal["transpose"] = "transpose"
    axes: Axes
    is_packed: bool = False


class Respace(_Step):
    """Voxels of another size, as MONAI's `Spacing` does: the outermost voxel centers decide the new shape.

    An axis with `None` keeps its spacing.
    """

    kind: Literal["respace"] = "respace"
    spacing_mm: tuple[Positive | None, Positive | None, Positive | None]
    interpolation: Literal["linear", "nearest"] = "linear"
    padding: Literal["border", "zeros", "reflection"] = "border"
    is_double: bool = False


class RespaceAsNnunet(_Step):
    """Voxels of another size, as nnU-Net's `resample_data_or_seg` does.

    Shape is round(old spacing / new spacing x old shape). Where the largest spacing is more than `anisotropy` times the
    smallest, before or after, the odd axis is interpolated apart, with `order_z`. `is_torch` is nnU-Net's variant
    by `torch.nn.functional.interpolate`. `None` as a spacing keeps that axis as it is. The way back to the scan has
    its own `back_force_separate_z` and `back_anisotropy`; `Prepared.apart_axis` is that way's.
    """

    kind: Literal["respace_as_nnunet"] = "respace_as_nnunet"
    spacing_mm: tuple[Positive | None, Positive, Positive]
    order: Annotated[int, Field(ge=0, le=5)] = 3
    order_z: Annotated[int, Field(ge=0, le=5)] = 0
    force_separate_z: bool | None = None
    anisotropy: Positive = 3.0
    is_torch: bool = False
    back_force_separate_z: bool | None = None
    back_anisotropy: Positive = 3.0


class Resize(_Step):
    """The whole image in a number of voxels, as MONAI's `Resize` does."""

    kind: Literal["resize"] = "resize"
    shape: tuple[PositiveInt, PositiveInt, PositiveInt]
    mode: Literal["area", "linear", "trilinear", "bilinear", "nearest", "nearest-exact"] = "area"
    align_corners: bool | None = None
    is_anti_aliased: bool = False


class CropForeground(_Step):
    """The box around all voxels above a threshold, with a margin in voxels, as MONAI's `CropForeground` does."""

    kind: Literal["crop_foreground"] = "crop_foreground"
    threshold: float = 0.0
    margin: tuple[int, int, int] = (0, 0, 0)
    divisible_by: tuple[PositiveInt, PositiveInt, PositiveInt] = (1, 1, 1)
    allows_smaller: bool = False


class CropNonzero(_Step):
    """The box around all voxels that are not 0 in some channel, as nnU-Net's `crop_to_nonzero` does.

    `keeps_mask`: whether a later step looks at which voxels these are, holes filled.
    """

    kind: Literal["crop_nonzero"] = "crop_nonzero"
    keeps_mask: bool = True


class MapIntensities(_Step):
    """Each channel clipped, transformed, shifted and scaled by its own `IntensityPlan`: medseg's own models."""

    kind: Literal["map_intensities"] = "map_intensities"
    channels: tuple[IntensityPlan, ...]


class ScaleRange(_Step):
    """[low, high] mapped to [to_low, to_high], as MONAI's `ScaleIntensityRange`; without a target only clipped."""

    kind: Literal["scale_range"] = "scale_range"
    low: float
    high: float
    to_low: float | None = None
    to_high: float | None = None
    is_clipped: bool = False


class ScaleToRange(_Step):
    """The image's own minimum and maximum mapped to [low, high], as MONAI's `ScaleIntensity`."""

    kind: Literal["scale_to_range"] = "scale_to_range"
    low: float = 0.0
    high: float = 1.0
    is_per_channel: bool = False


class ScalePercentiles(_Step):
    """Percentiles of the image mapped to [to_low, to_high], as MONAI's `ScaleIntensityRangePercentiles`."""

    kind: Literal["scale_percentiles"] = "scale_percentiles"
    lower: Annotated[float, Field(ge=0, le=100)]
    upper: Annotated[float, Field(ge=0, le=100)]
    to_low: float | None = None
    to_high: float | None = None
    is_clipped: bool = False
    is_relative: bool = False
    is_per_channel: bool = False


class Normalize(_Step):
    """(x - mean) / standard deviation, as MONAI's `NormalizeIntensity`; one number a channel, or the image's own."""

    kind: Literal["normalize"] = "normalize"
    subtrahend: tuple[float, ...] | None = None
    divisor: tuple[float, ...] | None = None
    is_nonzero_only: bool = False
    is_per_channel: bool = False


class NnunetChannel(_Step):
    """How nnU-Net normalizes one channel, with the numbers of its fingerprint where the scheme needs them."""

    scheme: Literal["ct", "zscore", "none", "rescale_01", "rgb_01"]
    mean: float = 0.0
    std: float = 1.0
    percentile_00_5: float = 0.0
    percentile_99_5: float = 0.0
    is_masked: bool = False


class NormalizeAsNnunet(_Step):
    """nnU-Net's normalization, one scheme a channel; masked ones see only the inside of the nonzero crop."""

    kind: Literal["normalize_as_nnunet"] = "normalize_as_nnunet"
    channels: tuple[NnunetChannel, ...]


class AppendPreviousStage(_Step):
    """The class map of a cascade's stage before as further channels, one a class: 1 inside, 0 outside."""

    kind: Literal["append_previous_stage"] = "append_previous_stage"
    classes: tuple[PositiveInt, ...]


PreparationStep = Annotated[
    Orient
    | Transpose
    | Respace
    | RespaceAsNnunet
    | Resize
    | CropForeground
    | CropNonzero
    | MapIntensities
    | ScaleRange
    | ScaleToRange
    | ScalePercentiles
    | Normalize
    | NormalizeAsNnunet
    | AppendPreviousStage,
    Field(discriminator="kind"),
]
