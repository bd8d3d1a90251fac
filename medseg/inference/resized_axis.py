"""How a resized image is resized back: the rules of `torch.nn.functional.interpolate`, one axis at a time.

Averages over areas and torch's "nearest" do not look at voxel centers, so they are computed from the two lengths of the
axis alone, in whole numbers.

References
----------
PyTorch, `aten/src/ATen/native/AdaptiveAveragePooling3d.cpp` and `UpSample.h`: start and end of an area, nearest source.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

__all__ = ["ResizeRule", "area_matrix", "box_of", "resized_neighbors"]

ResizeRule = Literal["area", "floor", "corners"]
"""Mean of all voxels that a voxel touches; the voxel at floor(index x scale); linear between the outermost centers."""

IntArray = NDArray[np.intp]


def box_of(scale: float, offset: float, n_target: int, n_source: int) -> tuple[int, IntArray]:
    """Voxels of the target that were resized to the source, and which of them each target voxel is.

    Parameters
    ----------
    scale, offset
        Source position of a target voxel: scale x index + offset, between centers.
    n_target, n_source
        Voxels of both axes.

    Returns
    -------
    Number of voxels in the box, and (n_target,) intp numbers within it, those outside clamped to its ends.
    """
    n_box = max(round(n_source / abs(scale)), 1)
    index = np.arange(n_target)
    start = round((-0.5 - offset) / scale + 0.5)
    inward = index - start if scale > 0 else start - 1 - index
    return n_box, np.clip(inward, 0, n_box - 1).astype(np.intp)


def resized_neighbors(
    inward: IntArray, n_box: int, n_source: int, rule: ResizeRule
) -> tuple[IntArray, IntArray, NDArray[np.float64]]:
    """Source voxels below and above (n,) intp, and the weight (n,) float64 of those above.

    Parameters
    ----------
    inward, n_box
        Of `box_of`.
    n_source
        Voxels of the source; for "area" not more than of the box (see `area_matrix`).
    rule
        What `interpolate` was told.
    """
    if rule == "area":
        below = inward * n_source // n_box
        above = -(-(inward + 1) * n_source // n_box) - 1
        return below, above, np.where(above > below, 0.5, 0.0)
    if rule == "floor":
        nearest = np.floor(inward.astype(np.float32) * np.float32(n_source / n_box)).astype(np.intp)
        nearest = np.minimum(nearest, n_source - 1)
        return nearest, nearest, np.zeros(len(inward))
    positions = inward * ((n_source - 1) / max(n_box - 1, 1))
    below = np.minimum(np.floor(positions).astype(np.intp), n_source - 1)
    return below, np.minimum(below + 1, n_source - 1), positions - below


def area_matrix(n_source: int, n_box: int) -> NDArray[np.float32]:
    """(n_box, n_source) float32: what each old voxel gives to the mean of each new one."""
    matrix = np.zeros((n_box, n_source), dtype=np.float32)
    for number in range(n_box):
        first, stop = number * n_source // n_box, -(-(number + 1) * n_source // n_box)
        matrix[number, first:stop] = 1.0 / (stop - first)
    return matrix
