"""MONAI's `Resize`, which is `torch.nn.functional.interpolate`, without a second copy of the image."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

__all__ = ["resized_by_torch"]

Image = NDArray[np.float32]


def resized_by_torch(
    image: Image,
    shape: tuple[int, int, int],
    mode: str,
    *,
    align_corners: bool | None = None,
    before: Callable[[Image], None] | None = None,
) -> Image:
    """An image in another number of voxels, to the bit as `interpolate` gives it.

    Parameters
    ----------
    image
        (C, I, J, K); any order in memory.
    shape
        The voxels wanted.
    mode
        "area", "nearest", "nearest-exact", or any name that ends in "linear".
    align_corners
        As `interpolate` takes it, with linear modes.
    before
        What is done in place to the values that are read, a part of the image at a time.

    Returns
    -------
    (C, *shape) float32.
    """
    if mode == "area":
        return _means(image, shape, before)
    result = np.empty((len(image), *shape), np.float32)
    for channel, values in zip(image, result, strict=True):
        own = np.array(channel, np.float32, order="C")
        if before is not None:
            before(own)
        values[...] = torch.nn.functional.interpolate(
            torch.from_numpy(own)[None, None],
            size=shape,
            mode="trilinear" if mode.endswith("linear") else mode,
            align_corners=align_corners,
        )[0, 0].numpy()
    return result


def _means(image: Image, shape: tuple[int, int, int], before: Callable[[Image], None] | None) -> Image:
    """Means over boxes, one plane of the result at a time: boxes share voxels only where sides do not divide."""
    result = np.empty((len(image), *shape), np.float32)
    n_planes = image.shape[1]
    for number in range(shape[0]):
        rows = slice(number * n_planes // shape[0], -(-(number + 1) * n_planes // shape[0]))
        slab = np.array(image[:, rows], np.float32, order="C")
        if before is not None:
            before(slab)
        plane = torch.nn.functional.interpolate(torch.from_numpy(slab)[None], size=(1, *shape[1:]), mode="area")
        result[:, number] = plane[0, :, 0].numpy()
    return result
