"""MONAI's `Resize`, which is `torch.nn.functional.interpolate`, without a second copy of the image."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

__all__ = ["resized_by_torch"]

Image = NDArray[np.float32]

_PLANES_AT_ONCE = 8  # read together: an image whose first axis runs fastest lies in lines of the cache along it


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
    bounds = [(n * image.shape[1] // shape[0], -(-(n + 1) * image.shape[1] // shape[0])) for n in range(shape[0])]
    for first in range(0, shape[0], _PLANES_AT_ONCE):
        several = bounds[first : first + _PLANES_AT_ONCE]
        start, stop = several[0][0], several[-1][1]
        slab = np.array(image[:, start:stop], np.float32, order="K")  # turning axes in memory would take longer
        if before is not None:
            before(slab)
        for number, (low, high) in enumerate(several, first):
            rows = torch.from_numpy(slab[:, low - start : high - start])
            plane = torch.nn.functional.interpolate(rows[None], size=(1, *shape[1:]), mode="area")
            result[:, number] = plane[0, :, 0].numpy()
    return result
