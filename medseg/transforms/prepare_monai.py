"""Preparation steps of MONAI bundles: MONAI's numbers, in less time and memory than its transforms take.

Grids that run parallel are interpolated axis by axis instead of through `grid_sample`; intensities are mapped in place,
piece by piece, as long as they fit into the processor's cache. In exact runs interpolation and statistics are MONAI's
own transforms.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.data.utils import AFFINE_TOL, compute_shape_offset, zoom_affine
from monai.transforms import NormalizeIntensity, Orientation, ScaleIntensityRangePercentiles, Spacing
from monai.transforms import Resize as MonaiResize
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
from medseg.transforms.border import array_to_tensor, geometry_of
from medseg.transforms.prepared import Prepared
from medseg.transforms.preprocess import RAS_LABELS

__all__ = ["MONAI_STEPS"]

_PIECE = 2**16  # voxels that are mapped at once: 256 KiB, within the cache of one core

Image = NDArray[np.float32]


def _respace(state: Prepared, step: Respace) -> Prepared:
    """Voxels of another size, as MONAI's `Spacing`; exact runs use that."""
    pairs = zip(state.geometry.spacing, step.spacing_mm, strict=True)
    pixdim = [own if wanted is None or abs(own - wanted) <= AFFINE_TOL else wanted for own, wanted in pairs]
    target = _spaced(state.geometry, pixdim)
    if _is_same(state.geometry, target):
        return state
    if state.is_exact or step.interpolation != "linear" or step.padding != "border":
        return _respace_by_monai(state, step, pixdim)
    image = np.empty((len(state.image), *target.shape), dtype=np.float32)
    for part, slab in resampled_slabs(state.image, state.geometry, target):
        image[:, part] = slab
    return replace(state, image=image, geometry=target)


def _spaced(geometry: Geometry, pixdim: list[float]) -> Geometry:
    """The grid that MONAI's `Spacing` makes: the outermost voxel centers decide the shape."""
    affine = zoom_affine(geometry.affine, np.array(pixdim, dtype=np.float64), diagonal=False)
    shape, offset = compute_shape_offset(geometry.shape, geometry.affine, affine)
    affine[:3, 3] = np.asarray(offset)[:3]
    i, j, k = (int(n) for n in shape)
    return Geometry((i, j, k), np.asarray(affine, dtype=np.float64))


def _is_same(source: Geometry, target: Geometry) -> bool:
    """Whether MONAI's Spacing leaves the image as it is."""
    drift = np.linalg.solve(source.affine, target.affine) - np.eye(4)
    is_near = np.allclose(source.affine, target.affine, atol=AFFINE_TOL) or np.abs(drift).max() <= AFFINE_TOL
    return source.shape == target.shape and bool(is_near)


def _respace_by_monai(state: Prepared, step: Respace, pixdim: list[float]) -> Prepared:
    spaced: MetaTensor = Spacing(
        pixdim=pixdim,
        mode="bilinear" if step.interpolation == "linear" else "nearest",
        padding_mode=step.padding,
        dtype=np.float64 if step.is_double else np.float32,
    )(array_to_tensor(state.image, state.geometry))  # type: ignore[assignment]
    return replace(state, image=np.asarray(spaced.as_tensor(), dtype=np.float32), geometry=geometry_of(spaced))


def _orient(state: Prepared, step: Orient) -> Prepared:
    """Another order and direction of axes, as a view: which, MONAI's `Orientation` says by what it does to a probe."""
    probe = np.arange(24, dtype=np.float32).reshape(1, 2, 3, 4)
    small = array_to_tensor(probe, Geometry((2, 3, 4), state.geometry.affine))
    turned = np.asarray(Orientation(axcodes=step.axcodes, labels=RAS_LABELS)(small))[0]
    axes = [n - 2 for n in turned.shape]
    is_flipped = [bool(turned[0, 0, 0] // stride % n) for stride, n in ((12, 2), (4, 3), (1, 4))]
    flips = tuple(slice(None, None, -1 if is_flipped[axis] else 1) for axis in range(3))
    affine = state.geometry.affine.copy()
    for axis in np.flatnonzero(is_flipped):
        affine[:3, 3] += affine[:3, axis] * (state.geometry.shape[axis] - 1)
        affine[:3, axis] *= -1
    affine[:3, :3] = affine[:3, axes]
    i, j, k = (state.geometry.shape[axis] for axis in axes)
    previous = None if state.previous is None else state.previous[flips].transpose(axes)
    image = state.image[(slice(None), *flips)].transpose(0, *(axis + 1 for axis in axes))
    return replace(state, image=image, geometry=Geometry((i, j, k), affine), previous=previous)


def _resize(state: Prepared, step: Resize) -> Prepared:
    resized: MetaTensor = MonaiResize(
        spatial_size=step.shape,
        mode=step.mode,
        align_corners=step.align_corners,
        anti_aliasing=step.is_anti_aliased,
    )(array_to_tensor(state.image, state.geometry))  # type: ignore[assignment]
    return replace(state, image=np.asarray(resized.as_tensor(), dtype=np.float32), geometry=geometry_of(resized))


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
    image = _owned(state.image)
    _scale_in_place(image, step.low, step.high, step.to_low, step.to_high, is_clipped=step.is_clipped)
    return replace(state, image=image)


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
    image = _owned(state.image)
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
    image = _owned(state.image)
    for part in image[:, None] if step.is_per_channel else image[None]:
        mean, deviation = _mean_and_deviation(part, is_nonzero_only=step.is_nonzero_only)
        for piece in _pieces(part):
            is_zero = piece == 0 if step.is_nonzero_only else False
            piece -= np.float32(mean)
            piece /= np.float32(deviation)
            np.copyto(piece, 0.0, where=is_zero)
    return replace(state, image=image)


def _monai_normalize(step: Normalize, n_channels: int) -> NormalizeIntensity:
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
    n_voxels = int(np.count_nonzero(image)) if is_nonzero_only else image.size
    if n_voxels == 0:
        return 0.0, 1.0
    mean = float(sum(piece.sum(dtype=np.float64) for piece in _pieces(image))) / n_voxels
    squares = 0.0
    for piece in _pieces(image):
        centered = piece - np.float64(mean)
        squares += float(np.dot(centered, centered))
    if is_nonzero_only:
        squares -= (image.size - n_voxels) * mean**2  # what the zeros added
    return mean, float(np.sqrt(max(squares, 0.0) / n_voxels)) or 1.0


def _by_monai(transform: Callable[[Any], Any], image: Image) -> Image:
    return np.asarray(transform(torch.from_numpy(np.array(image, order="C"))), dtype=np.float32)


def _owned(image: Image) -> Image:
    """An array in C order that may be written to; a scan's own voxels are read-only, and so are views of them."""
    return image if image.flags.writeable and image.flags.c_contiguous else np.array(image, order="C")


def _pieces(image: Image) -> Iterator[Image]:
    """Views of so many voxels each. One thread: threads that wait for memory take more time than they save."""
    flat = image.reshape(-1)
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
