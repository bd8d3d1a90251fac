"""Preparation steps of MONAI bundles: MONAI's numbers, in less time and memory than its transforms take.

Grids that run parallel are interpolated axis by axis instead of through `grid_sample`; intensities are mapped in place,
piece by piece, as long as they fit into the processor's cache. In exact runs interpolation and statistics are MONAI's
own transforms.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from medseg.core.geometry import Geometry
from medseg.core.steps import (
    CropForeground,
    Normalize,
    Orient,
    Resize,
    Respace,
    ScalePercentiles,
    ScaleRange,
    ScaleToRange,
)
from medseg.errors import InvalidPlan
from medseg.io.resample import resampled_slabs
from medseg.transforms.monai_grids import TOLERANCE, is_same_grid, resized_grid, respaced_grid, turned_grid
from medseg.transforms.prepared import Prepared, owned
from medseg.transforms.resize_torch import resized_by_torch

if TYPE_CHECKING:
    from monai.data import MetaTensor
    from monai.transforms import NormalizeIntensity

__all__ = ["MONAI_STEPS"]

_PIECE = 2**16  # voxels that are mapped at once: 256 KiB, within the cache of one core

Image = NDArray[np.float32]


def _respace(state: Prepared, step: Respace) -> Prepared:
    """Voxels of another size, as MONAI's `Spacing`; exact runs use that."""
    pairs = zip(state.geometry.spacing, step.spacing_mm, strict=True)
    pixdim = [own if wanted is None or abs(own - wanted) <= TOLERANCE else wanted for own, wanted in pairs]
    target = respaced_grid(state.geometry, pixdim)
    if is_same_grid(state.geometry, target):
        return state
    if state.is_exact or step.interpolation != "linear" or step.padding != "border":
        return _respace_by_monai(state, step, pixdim)
    image = np.empty((len(state.image), *target.shape), dtype=np.float32)
    for part, slab in resampled_slabs(state.image, state.geometry, target):
        image[(slice(None), *part)] = slab
    return replace(state, image=image, geometry=target)


def _respace_by_monai(state: Prepared, step: Respace, pixdim: list[float]) -> Prepared:
    from monai.transforms import Spacing

    from medseg.transforms.border import array_to_tensor, geometry_of

    spaced: MetaTensor = Spacing(
        pixdim=pixdim,
        mode="bilinear" if step.interpolation == "linear" else "nearest",
        padding_mode=step.padding,
        dtype=np.float64 if step.is_double else np.float32,
    )(array_to_tensor(state.image, state.geometry))  # type: ignore[assignment]
    return replace(state, image=np.asarray(spaced.as_tensor(), dtype=np.float32), geometry=geometry_of(spaced))


def _orient(state: Prepared, step: Orient) -> Prepared:
    """Another order and direction of axes, as a view."""
    geometry, axes, flips = turned_grid(state.geometry, step.axcodes)
    previous = None if state.previous is None else state.previous[flips].transpose(axes)
    image = state.image[(slice(None), *flips)].transpose(0, *(axis + 1 for axis in axes))
    return replace(state, image=image, geometry=geometry, previous=previous)


def _resize(state: Prepared, step: Resize) -> Prepared:
    if state.image.shape[1:] == step.shape:
        return state
    if step.is_anti_aliased:
        return _resize_by_monai(state, step)
    image = resized_by_torch(state.image, step.shape, step.mode, align_corners=step.align_corners, before=state.pending)
    geometry = resized_grid(state.geometry, step.shape, align_corners=bool(step.align_corners))
    return replace(state, image=image, geometry=geometry, pending=None)


def _resize_by_monai(state: Prepared, step: Resize) -> Prepared:
    from monai.transforms import Resize as MonaiResize

    from medseg.transforms.border import array_to_tensor, geometry_of

    resized: MetaTensor = MonaiResize(
        spatial_size=step.shape,
        mode=step.mode,
        align_corners=step.align_corners,
        anti_aliasing=step.is_anti_aliased,
    )(array_to_tensor(state.finished().image, state.geometry))  # type: ignore[assignment]
    image = np.asarray(resized.as_tensor(), dtype=np.float32)
    return replace(state, image=image, geometry=geometry_of(resized), pending=None)


def _crop_foreground(state: Prepared, step: CropForeground) -> Prepared:
    start, stop = _box(state.image, step)
    if not (stop - start > 0).all():
        raise InvalidPlan("there is nothing in the scan above the threshold that the model crops at")
    shape = np.array(state.geometry.shape)
    inner = tuple(slice(max(a, 0), min(b, n)) for a, b, n in zip(start, stop, shape, strict=True))
    image: Image = state.image[(slice(None), *inner)]
    before, after = np.maximum(-start, 0), np.maximum(stop - shape, 0)
    if before.any() or after.any():
        image = np.pad(image, [(0, 0), *zip(before, after, strict=True)])
    affine = state.geometry.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ start
    i, j, k = (int(n) for n in image.shape[1:])
    return replace(state, image=image, geometry=Geometry((i, j, k), affine), is_cropped=True)


def _box(image: Image, step: CropForeground) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First and past-last voxel of MONAI's box, which may reach beyond the image."""
    found = [_extent(image, axis, step.threshold) for axis in range(3)]
    if any(extent is None for extent in found):
        return np.zeros(3, np.int64), np.zeros(3, np.int64)
    start = np.array([extent[0] for extent in found if extent is not None]) - step.margin
    stop = np.array([extent[1] for extent in found if extent is not None]) + step.margin
    if step.allows_smaller:
        start, stop = np.maximum(start, 0), np.minimum(stop, image.shape[1:])
    side = stop - start
    divisor = np.array(step.divisible_by)
    divisible = -(-side // divisor) * divisor
    start = start - (divisible - side) // 2
    return start, start + divisible


def _extent(image: Image, axis: int, threshold: float) -> tuple[int, int] | None:
    """First and past-last plane across an axis that holds anything above the threshold; None for none."""
    planes = np.moveaxis(image, axis + 1, 0)
    first = next((n for n in range(len(planes)) if planes[n].max() > threshold), None)
    if first is None:
        return None
    last = next(n for n in range(len(planes) - 1, -1, -1) if planes[n].max() > threshold)
    return first, last + 1


def _scale_range(state: Prepared, step: ScaleRange) -> Prepared:
    scale = partial(
        _scale_in_place,
        low=step.low,
        high=step.high,
        to_low=step.to_low,
        to_high=step.to_high,
        is_clipped=step.is_clipped,
    )
    return replace(state, pending=scale)


def _scale_in_place(
    image: Image, low: float, high: float, to_low: float | None, to_high: float | None, *, is_clipped: bool
) -> None:
    """`ScaleIntensityRange`, piece by piece: the same operations in the same order, so the same numbers."""
    for piece in _pieces(image):
        piece -= np.float32(low)
        if high == low:
            piece += np.float32(to_low or 0.0)
            continue
        piece /= np.float32(high - low)
        if to_low is not None and to_high is not None:
            piece *= np.float32(to_high - to_low)
            piece += np.float32(to_low)
        if is_clipped and (to_low is not None or to_high is not None):
            np.clip(piece, to_low, to_high, out=piece)


def _scale_to_range(state: Prepared, step: ScaleToRange) -> Prepared:
    image = owned(state.image)
    for part in image[:, None] if step.is_per_channel else image[None]:
        low, high = part.min(), part.max()
        for piece in _pieces(part):
            if low == high:
                piece *= np.float32(step.low)
                continue
            piece -= low
            piece /= high - low
            piece *= np.float32(step.high - step.low)
            piece += np.float32(step.low)
    return replace(state, image=image)


def _scale_percentiles(state: Prepared, step: ScalePercentiles) -> Prepared:
    from monai.transforms import ScaleIntensityRangePercentiles

    scale = ScaleIntensityRangePercentiles(
        lower=step.lower,
        upper=step.upper,
        b_min=step.to_low,
        b_max=step.to_high,
        clip=step.is_clipped,
        relative=step.is_relative,
        channel_wise=step.is_per_channel,
    )
    return replace(state, image=_by_monai(scale, state.image))


def _normalize(state: Prepared, step: Normalize) -> Prepared:
    if state.is_exact or step.subtrahend is not None or step.divisor is not None:
        return replace(state, image=_by_monai(_monai_normalize(step, len(state.image)), state.image))
    moments = [
        _mean_and_deviation(part, is_nonzero_only=step.is_nonzero_only)
        for part in _normalized_at_once(state.image, is_per_channel=step.is_per_channel)
    ]
    normalize = partial(
        _normalize_in_place,
        moments=moments,
        is_per_channel=step.is_per_channel,
        is_nonzero_only=step.is_nonzero_only,
    )
    return replace(state, pending=normalize)


def _normalized_at_once(image: Image, *, is_per_channel: bool) -> Image:
    """(n, c, i, j, k) views of the parts that have moments of their own: channels, or the image as a whole."""
    return image[:, None] if is_per_channel else image[None]


def _normalize_in_place(
    image: Image, moments: Sequence[tuple[float, float]], *, is_per_channel: bool, is_nonzero_only: bool
) -> None:
    parts = _normalized_at_once(image, is_per_channel=is_per_channel)
    for part, (mean, deviation) in zip(parts, moments, strict=True):
        for piece in _pieces(part):
            is_zero = piece == 0 if is_nonzero_only else False
            piece -= np.float32(mean)
            piece /= np.float32(deviation)
            np.copyto(piece, 0.0, where=is_zero)


def _monai_normalize(step: Normalize, n_channels: int) -> NormalizeIntensity:
    from monai.transforms import NormalizeIntensity

    def given(numbers: tuple[float, ...] | None) -> Any:
        if numbers is None or step.is_per_channel:
            return numbers
        if len(numbers) != 1:
            raise InvalidPlan(f"{len(numbers)} numbers to normalize {n_channels} channel(s) by, all at once")
        return numbers[0]

    return NormalizeIntensity(
        subtrahend=given(step.subtrahend),
        divisor=given(step.divisor),
        nonzero=step.is_nonzero_only,
        channel_wise=step.is_per_channel,
    )


def _mean_and_deviation(image: Image, *, is_nonzero_only: bool) -> tuple[float, float]:
    """Mean and standard deviation in float64; of an image that holds one number only, 1 stands for the latter."""
    n_voxels = sum(int(np.count_nonzero(plane)) for plane in _planes(image)) if is_nonzero_only else image.size
    if n_voxels == 0:
        return 0.0, 1.0
    mean = float(sum(plane.sum(dtype=np.float64) for plane in _planes(image))) / n_voxels
    squares = 0.0
    for plane in _planes(image):
        centered = plane.ravel(order="K") - np.float64(mean)
        squares += float(np.dot(centered, centered))
    if is_nonzero_only:
        squares -= (image.size - n_voxels) * mean**2  # what the zeros added
    return mean, float(np.sqrt(max(squares, 0.0) / n_voxels)) or 1.0


def _by_monai(transform: Callable[[Any], Any], image: Image) -> Image:
    return np.asarray(transform(torch.from_numpy(np.array(image, order="C"))), dtype=np.float32)


def _planes(image: Image) -> Iterator[Image]:
    """Planes across the axis that is the slowest in memory, of any image: to read, not to write."""
    slowest = max(range(1, image.ndim), key=lambda axis: abs(image.strides[axis]))
    for part in image:
        yield from np.moveaxis(part, slowest - 1, 0)


def _pieces(image: Image) -> Iterator[Image]:
    """Views of so many voxels each, of an image without gaps in memory, in whatever order its axes lie there.

    One thread: threads that wait for memory take more time than they save.
    """
    slowest_first = sorted(range(image.ndim), key=lambda axis: -image.strides[axis])
    flat = image.transpose(slowest_first).reshape(-1)
    if not np.may_share_memory(flat, image):
        raise AssertionError("an image that is changed in place has no gaps in memory")
    for start in range(0, flat.size, _PIECE):
        yield flat[start : start + _PIECE]


MONAI_STEPS: dict[type, Callable[[Prepared, Any], Prepared]] = {
    CropForeground: _crop_foreground,
    Normalize: _normalize,
    Orient: _orient,
    Resize: _resize,
    Respace: _respace,
    ScalePercentiles: _scale_percentiles,
    ScaleRange: _scale_range,
    ScaleToRange: _scale_to_range,
}
