"""Means and variances by which feature maps are normalized, of channels and of groups of them.

torch sums a whole feature map in float32 where it lies channels-last: over 1.2 million voxels, what it normalizes was
off by up to 3e-3 of a standard deviation.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

__all__ = ["grouped", "moments_in_pieces"]

_SUMMED_VOXELS = 1 << 14  # at once in float32; a plane is not cut


def moments_in_pieces(windows: torch.Tensor) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and variance (C,) of each channel of one window (1, C, I, J, K) in float32, summed some planes at a time.

    References
    ----------
    Chan, Golub and LeVeque, Algorithms for computing the sample variance, The American Statistician 1983.
    """
    n_planes = max(1, _SUMMED_VOXELS // max(1, windows[0, 0, 0].numel()))
    parts = torch.split(windows, n_planes, dim=2)
    share = np.array([part.shape[2] / windows.shape[2] for part in parts])[:, None]
    found = [torch.batch_norm_update_stats(part, None, None, 0.0) for part in parts]
    means, variances = (torch.stack(values).double().numpy() for values in zip(*found, strict=True))
    mean = (share * means).sum(axis=0)
    return mean, (share * (variances + (means - mean) ** 2)).sum(axis=0)


def grouped(
    mean: NDArray[np.float64], variance: NDArray[np.float64], n_groups: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and variance (C,) of each channel's group, from those of the channels (C,); groups are of one size."""
    n_channels, means = len(mean), mean.reshape(n_groups, -1)
    of_group = means.mean(axis=1, keepdims=True)
    spread = (variance.reshape(n_groups, -1) + (means - of_group) ** 2).mean(axis=1)
    return np.repeat(of_group[:, 0], n_channels // n_groups), np.repeat(spread, n_channels // n_groups)
