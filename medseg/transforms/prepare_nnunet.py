"""nnU-Net's preparation of a scan: transpose, crop to what is not zero, normalize, resample, in that order.

Only what inference needs: nnU-Net also resamples an empty label map, and fills holes that nothing looks at.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import cc3d
import numpy as np
import torch
from numpy.typing import NDArray

from medseg.core.geometry import Geometry
from medseg.core.steps import (
    AppendPreviousStage,
    CropNonzero,
    NnunetChannel,
    NormalizeAsNnunet,
    RespaceAsNnunet,
    Transpose,
)
from medseg.errors import InvalidPlan, ScanError
from medseg.transforms.class_maps import resampled_classes
from medseg.transforms.prepared import Prepared
from medseg.transforms.resize import along_axis, resized

__all__ = ["NNUNET_STEPS", "apart_axis", "filled", "normalized_as_nnunet", "shape_after"]

_LEAST_STD = 1e-8
_BYTE_RANGE = (0, 255)


def transpose(state: Prepared, step: Transpose) -> Prepared:
    """Axes in another order; the voxels stay where they are in space."""
    old = state.geometry
    affine = old.affine.copy()
    affine[:, :3] = old.affine[:, list(step.axes)]
    a, b, c = step.axes
    image = state.image.transpose(0, a + 1, b + 1, c + 1)
    if step.is_packed:
        image = np.ascontiguousarray(image)
    return replace(
        state,
        image=image,
        geometry=Geometry((old.shape[a], old.shape[b], old.shape[c]), affine),
        mask=None if state.mask is None else state.mask.transpose(step.axes),
        previous=None if state.previous is None else state.previous.transpose(step.axes),
    )


def crop_nonzero(state: Prepared, step: CropNonzero) -> Prepared:
    """The box around all voxels that are not 0 in some channel; all of it where there are none."""
    is_inside = state.image[0] != 0
    for channel in state.image[1:]:
        is_inside |= channel != 0
    box = _box_around(is_inside)
    low, high = [part.start for part in box], [part.stop for part in box]
    return replace(
        state,
        image=state.image[(slice(None), *box)],
        geometry=state.geometry.cropped(low, high),
        is_cropped=True,
        mask=filled(is_inside[box]) if step.keeps_mask or state.previous is not None else None,
        previous=None if state.previous is None else state.previous[box],
    )


def filled(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """A mask (i, j, k) with its holes, which the outside does not reach by faces; `scipy.ndimage.binary_fill_holes`."""
    outside = np.pad(~mask, 1, constant_values=True)
    labels = cc3d.connected_components(outside.view(np.uint8), connectivity=6)
    return np.asarray(labels[1:-1, 1:-1, 1:-1] != labels[0, 0, 0])


def normalize_as_nnunet(state: Prepared, step: NormalizeAsNnunet) -> Prepared:
    """Each channel by its own scheme."""
    if len(step.channels) != len(state.image):
        raise InvalidPlan(f"{len(step.channels)} channel(s) are to be normalized; the scan has {len(state.image)}")
    image = np.empty_like(state.image)
    for number, (channel, scheme) in enumerate(zip(state.image, step.channels, strict=True)):
        image[number] = normalized_as_nnunet(channel, scheme, state.mask)
    return replace(state, image=image)


def normalized_as_nnunet(
    channel: NDArray[np.float32], scheme: NnunetChannel, mask: NDArray[np.bool_] | None = None
) -> NDArray[np.float32]:
    """One channel normalized.

    Parameters
    ----------
    channel
        (i, j, k) float32, stored unit; left as it is.
    scheme
        Which normalization, and its numbers.
    mask
        (i, j, k) inside of the nonzero crop, for masked z-scores: their outside stays as it is.

    Returns
    -------
    (i, j, k) float32; may be the channel itself.

    Raises
    ------
    ScanError
        If a model of 8-bit color images is given anything else.
    """
    if scheme.scheme == "ct":
        clipped: NDArray[np.float32] = np.clip(channel, scheme.percentile_00_5, scheme.percentile_99_5)
        clipped -= scheme.mean
        clipped /= max(scheme.std, _LEAST_STD)
        return clipped
    if scheme.scheme == "zscore":
        return _z_scored(channel, mask if scheme.is_masked else None)
    if scheme.scheme == "rescale_01":
        shifted: NDArray[np.float32] = channel - channel.min()
        shifted /= np.clip(shifted.max(), a_min=_LEAST_STD, a_max=None)
        return shifted
    if scheme.scheme == "rgb_01":
        low, high = float(channel.min()), float(channel.max())
        if low < _BYTE_RANGE[0] or high > _BYTE_RANGE[1]:
            raise ScanError(f"the model expects 8-bit values of 0..255; the scan has {low:g}..{high:g}")
        scaled: NDArray[np.float32] = channel / np.float32(_BYTE_RANGE[1])
        return scaled
    return channel


def _z_scored(channel: NDArray[np.float32], mask: NDArray[np.bool_] | None) -> NDArray[np.float32]:
    if mask is None:
        scored: NDArray[np.float32] = channel - channel.mean()
        scored /= max(channel.std(), _LEAST_STD)
        return scored
    scored = channel.copy()
    inside = channel[mask]
    if inside.size:
        scored[mask] = (inside - inside.mean()) / max(inside.std(), _LEAST_STD)
    return scored


def respace_as_nnunet(state: Prepared, step: RespaceAsNnunet) -> Prepared:
    """Voxels of another size; outer edges stay where they are."""
    old = state.geometry
    target = tuple(own if wanted is None else wanted for own, wanted in zip(old.spacing, step.spacing_mm, strict=True))
    shape = shape_after(old.shape, old.spacing, target)
    apart = apart_axis(old.spacing, target, step.force_separate_z, step.anisotropy)
    image = state.image
    if shape != old.shape and step.is_torch:
        image = np.stack([_resampled_by_torch(channel, shape, apart) for channel in image])
    elif shape != old.shape:
        image = np.stack([_resampled(channel, shape, apart, step, state.is_exact) for channel in image])
    previous = state.previous
    if previous is not None:
        previous = resampled_classes(previous, shape, mask=state.mask, apart=apart, is_exact=state.is_exact)
    back = apart_axis(target, old.spacing, step.back_force_separate_z, step.back_anisotropy)
    return replace(
        state,
        image=np.ascontiguousarray(image),
        geometry=_stretched(old, shape),
        mask=None,
        apart_axis=back,
        previous=previous,
    )


def shape_after(shape: Sequence[int], spacing: Sequence[float], target: Sequence[float]) -> tuple[int, int, int]:
    """Voxels of a grid after it has been given another spacing in mm, rounded as nnU-Net rounds."""
    i, j, k = (max(round(old / new * n), 1) for old, new, n in zip(spacing, target, shape, strict=True))
    return (i, j, k)


def apart_axis(
    spacing: Sequence[float], target: Sequence[float], force: bool | None = None, anisotropy: float = 3.0
) -> int | None:
    """The axis that is interpolated apart from the other two; None for none.

    Parameters
    ----------
    spacing, target
        (3,) millimeters before and after.
    force
        True or False whatever the spacing; None where largest and smallest spacing decide.
    anisotropy
        Their ratio above which the axis of the largest is taken apart; the spacing before is asked first.
    """
    if force is False:
        return None
    decisive = [s for s in (spacing, target) if force or max(s) / min(s) > anisotropy]
    if not decisive:
        return None
    largest = max(decisive[0])
    axes = [axis for axis, mm in enumerate(decisive[0]) if largest / mm == 1]
    return axes[0] if len(axes) == 1 else None


def _resampled(
    channel: NDArray[np.float32], shape: tuple[int, int, int], apart: int | None, step: RespaceAsNnunet, is_exact: bool
) -> NDArray[np.float32]:
    dtype = np.float64 if is_exact else np.float32
    if apart is None:
        return resized(channel, shape, order=step.order, dtype=dtype).astype(np.float32, copy=False)
    others = [axis for axis in range(3) if axis != apart]
    in_plane = resized(channel, shape, order=step.order, dtype=dtype, axes=others)
    if channel.shape[apart] != shape[apart]:
        in_plane = along_axis(in_plane, apart, shape[apart], order=step.order_z, dtype=dtype)
    return in_plane.astype(np.float32, copy=False)


def _resampled_by_torch(
    channel: NDArray[np.float32], shape: tuple[int, int, int], apart: int | None
) -> NDArray[np.float32]:
    """nnU-Net's variant; already float32, so that nothing is left to be more exact."""
    voxels = torch.tensor(channel)  # a copy: the scan is read-only, which torch does not know
    interpolate = torch.nn.functional.interpolate
    if apart is None:
        return interpolate(voxels[None, None], shape, mode="trilinear")[0, 0].numpy()
    planes = voxels.movedim(apart, 0)[None]
    sides = [side for axis, side in enumerate(shape) if axis != apart]
    if list(planes.shape[2:]) != sides:
        planes = interpolate(planes, sides, mode="bilinear")
    stack = planes[0].movedim(0, apart)
    if tuple(stack.shape) == shape:
        return stack.numpy()
    return interpolate(stack[None, None], shape, mode="nearest-exact")[0, 0].numpy()


def append_previous_stage(state: Prepared, step: AppendPreviousStage) -> Prepared:
    """One channel more for each class of the stage before."""
    if state.previous is None:
        raise InvalidPlan("the second stage of a cascade needs the class map of the first; none was given")
    classes = np.stack([state.previous == number for number in step.classes]).astype(np.float32)
    return replace(state, image=np.concatenate([state.image, classes]), previous=None)


def _box_around(mask: NDArray[np.bool_]) -> tuple[slice, slice, slice]:
    spans = []
    for axis in range(3):
        along = np.flatnonzero(mask.any(axis=tuple(other for other in range(3) if other != axis)))
        spans.append(slice(int(along[0]), int(along[-1]) + 1) if along.size else slice(0, mask.shape[axis]))
    return (spans[0], spans[1], spans[2])


def _stretched(geometry: Geometry, shape: tuple[int, int, int]) -> Geometry:
    """The grid with another number of voxels between the same outer edges."""
    scale = np.array([old / new for old, new in zip(geometry.shape, shape, strict=True)])
    affine = geometry.affine.copy()
    affine[:3, :3] = geometry.affine[:3, :3] * scale
    affine[:3, 3] = geometry.to_world(scale / 2 - 0.5)
    return Geometry(shape, affine)


NNUNET_STEPS: dict[type, Callable[[Prepared, Any], Prepared]] = {
    Transpose: transpose,
    CropNonzero: crop_nonzero,
    NormalizeAsNnunet: normalize_as_nnunet,
    RespaceAsNnunet: respace_as_nnunet,
    AppendPreviousStage: append_previous_stage,
}
