"""Where windows lie on an image, how the image is padded to them, and how a voxel counts within one.

Each family of models has its rule, and a window moved by one voxel changes what a network says: MONAI steps by a fixed
number of voxels and moves the last window inward, nnU-Net spreads as many windows as it needs evenly.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Literal

import numpy as np
import torch
from scipy.ndimage import gaussian_filter

from medseg.core.recipe import WindowPlan

__all__ = ["Layout", "Position", "lay_windows", "padded_image", "window_weights"]

Axis = Literal[0, 1, 2]
Position = tuple[int, int, int]
Triple = tuple[int, int, int]

_NNUNET_PEAK = 10.0  # its weights reach 10, so that float16 keeps their flanks apart from 0
_MONAI_LEAST_WEIGHT = 1e-3


@dataclass(frozen=True)
class Layout:
    """Windows over one image.

    Parameters
    ----------
    shape
        (3,) voxels of the image.
    window
        (3,) voxels of a window.
    starts
        For each axis the first voxels of the windows along it, ascending, in the padded image.
    """

    shape: Triple
    window: Triple
    starts: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]

    @property
    def padded_shape(self) -> Triple:
        """(3,) voxels of the padded image: no side is smaller than the window's."""
        i, j, k = (max(n, side) for n, side in zip(self.shape, self.window, strict=True))
        return (i, j, k)

    @property
    def pad_before(self) -> Triple:
        """(3,) voxels padded in front of the image; where their number is odd, one more comes behind it."""
        i, j, k = ((p - n) // 2 for p, n in zip(self.padded_shape, self.shape, strict=True))
        return (i, j, k)

    @property
    def n_windows(self) -> int:
        """Number of windows."""
        return math.prod(len(along) for along in self.starts)

    def in_rows(self, axis: Axis, row: int) -> Iterator[Position]:
        """The windows that begin at one start along an axis, in raster order of the other two axes."""
        along = [starts if n != axis else (row,) for n, starts in enumerate(self.starts)]
        yield from product(along[0], along[1], along[2])

    def cheapest_axis(self) -> Axis:
        """The axis along which a band of windows has the fewest voxels, the first of several that are equal."""
        bands = [
            self.window[axis] * math.prod(self.padded_shape[n] for n in range(3) if n != axis) for axis in range(3)
        ]
        return (0, 1, 2)[bands.index(min(bands))]


def lay_windows(shape: Triple, plan: WindowPlan) -> Layout:
    """Lay windows over an image.

    Parameters
    ----------
    shape
        (3,) voxels of the image.
    plan
        Patch, overlap and rule.

    Returns
    -------
    Windows that cover the image, in the order in which the plan's family runs them.
    """
    window = _window(shape, plan)
    padded = [max(n, side) for n, side in zip(shape, window, strict=True)]
    place = _evenly if plan.rule == "nnunet" else _last_moved_inward
    i, j, k = (place(n, side, plan.overlap) for n, side in zip(padded, window, strict=True))
    return Layout(shape, window, (i, j, k))


def _window(shape: Triple, plan: WindowPlan) -> Triple:
    if plan.is_whole_image:
        return shape
    if not plan.shrinks:
        return plan.patch_size
    i, j, k = (min(p, math.ceil(n / d) * d) for n, p, d in zip(shape, plan.patch_size, plan.divisor, strict=True))
    if (i, j, k) == plan.divisor:  # one voxel at the coarsest level, which has no variance to be normalized by
        i = min(2 * i, plan.patch_size[0])
    return (i, j, k)


def _last_moved_inward(n: int, side: int, overlap: float) -> tuple[int, ...]:
    step = max(int(side * (1 - overlap)), 1)
    return (*range(0, n - side, step), n - side)


def _evenly(n: int, side: int, overlap: float) -> tuple[int, ...]:
    if side == 1:  # planes of a 2-D network: each once
        return tuple(range(n))
    n_steps = math.ceil((n - side) / (side * round(1 - overlap, 12))) + 1
    step = (n - side) / max(n_steps - 1, 1)
    return tuple(int(np.round(step * number)) for number in range(n_steps))


def padded_image(image: torch.Tensor, layout: Layout, plan: WindowPlan) -> torch.Tensor:
    """The image (C, i, j, k) padded to the layout's windows, the same tensor where nothing is to be padded."""
    if layout.padded_shape == layout.shape:
        return image
    amounts: list[int] = []
    for n, padded, before in reversed(list(zip(layout.shape, layout.padded_shape, layout.pad_before, strict=True))):
        amounts += [before, padded - n - before]
    value = plan.padding_value if plan.padding == "constant" else None
    return torch.nn.functional.pad(image[None], amounts, mode=plan.padding, value=value)[0]


def window_weights(window: Triple, plan: WindowPlan) -> torch.Tensor:
    """How much each voxel of a window counts where windows overlap.

    Parameters
    ----------
    window
        (3,) voxels.
    plan
        Blend and rule: MONAI's Gaussian is sampled at voxel centers and cut off below; nnU-Net's is a filtered point
        whose peak is 10, and its zeros count as its smallest weight.

    Returns
    -------
    (i, j, k) float32, positive; for the "nnunet" rule float16 numbers, as nnU-Net keeps them.
    """
    if plan.blend == "constant":
        return torch.ones(window)
    return _nnunet_gaussian(window, plan) if plan.rule == "nnunet" else _monai_gaussian(window, plan)


def _monai_gaussian(window: Triple, plan: WindowPlan) -> torch.Tensor:
    along = []
    for side in window:
        from_center = torch.arange(-(side - 1) / 2.0, (side - 1) / 2.0 + 1, dtype=torch.float32)
        along.append(torch.exp(from_center**2 / (-2 * (plan.sigma_scale * side) ** 2)))
    weights = along[0][:, None, None] * along[1][:, None] * along[2]
    return weights.clamp(min=max(float(weights.min()), _MONAI_LEAST_WEIGHT))


def _nnunet_gaussian(window: Triple, plan: WindowPlan) -> torch.Tensor:
    sides = [side for side in window if side > 1]  # a plane of a 2-D network has a 2-D Gaussian
    point = np.zeros(sides)
    point[tuple(side // 2 for side in sides)] = 1
    weights = gaussian_filter(point, [side * plan.sigma_scale for side in sides], mode="constant", cval=0)
    weights /= weights.max() / _NNUNET_PEAK
    half = torch.from_numpy(weights).to(torch.float16)
    half[half == 0] = half[half != 0].min()
    return half.float().reshape(window)
