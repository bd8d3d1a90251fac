"""Layers that write over what they read, where nobody reads it after them.

A normalization or a rectifier that makes a new feature map needs memory for both, and a large map's pages are given
back to the system and filled with zeros anew each time. What a convolution has just made, and what only the next layer
reads, can be changed where it lies.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from medseg.inference.layer_rows import CONVOLUTIONS, Step, count_uses, is_hooked, rows_of
from medseg.inference.moments import grouped, moments_in_pieces

__all__ = ["SingleGroupNorm", "SingleInstanceNorm", "mark_overwriting"]


class SingleInstanceNorm(nn.InstanceNorm3d):
    """Over one window, instance normalization is batch normalization, whose kernel reads channels-last memory."""

    overwrites = False
    """Whether the result takes the place of what is read; see `mark_overwriting`."""

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        """Normalize (B, C, I, J, K), each window and channel by its own mean and variance."""
        if len(windows) != 1:
            return super().forward(windows)
        if windows.dtype == torch.float32:
            return _normalized(self, windows, windows.shape[1], overwrites=self.overwrites)
        if not self.overwrites or windows[0, 0].numel() < 2:  # a variance of one voxel is refused there
            return functional.batch_norm(windows, None, None, self.weight, self.bias, True, 0.0, self.eps)
        weight = torch.ones(windows.shape[1]) if self.weight is None else self.weight  # float32, and so are the moments
        bias = torch.zeros(windows.shape[1]) if self.bias is None else self.bias
        out = (windows, torch.empty(0), torch.empty(0))
        torch.native_batch_norm(windows, weight, bias, None, None, True, 0.0, self.eps, out=out)
        return windows


class SingleGroupNorm(nn.GroupNorm):
    """Over one window in float32, group normalization is batch normalization by moments that are given."""

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        """Normalize (B, C, I, J, K), each window and group of channels by its own mean and variance."""
        if len(windows) != 1 or windows.dtype != torch.float32:
            return super().forward(windows)
        return _normalized(self, windows, self.num_groups, overwrites=False)


def _normalized(
    layer: nn.InstanceNorm3d | nn.GroupNorm, windows: torch.Tensor, n_groups: int, *, overwrites: bool
) -> torch.Tensor:
    """One window (1, C, I, J, K) in float32, normalized by the moments of each group of channels."""
    mean, variance = (torch.from_numpy(values).float() for values in grouped(*moments_in_pieces(windows), n_groups))
    if not overwrites:
        return functional.batch_norm(windows, mean, variance, layer.weight, layer.bias, False, 0.0, layer.eps)
    out = (windows, torch.empty(0), torch.empty(0))
    torch.native_batch_norm(windows, layer.weight, layer.bias, mean, variance, False, 0.0, layer.eps, out=out)
    return windows


def mark_overwriting(network: nn.Module) -> None:
    """Let instance normalizations and rectifiers of a network overwrite what only they read, in place.

    Only what is surely theirs: what comes from a convolution before them in their row (`rows_of`).

    Parameters
    ----------
    network
        In evaluation mode; nobody else's.
    """
    uses = count_uses(network)
    for row in rows_of(network):
        is_own = False
        for step in row:
            if type(step.layer) in CONVOLUTIONS:
                is_own = not is_hooked(step.layer)
            else:
                is_own = is_own and not is_hooked(step.layer) and _overwrite(step, uses)


def _overwrite(step: Step, uses: Counter[int]) -> bool:
    """Let a layer overwrite what it reads, if it can and stands nowhere else; whether what it gives is new."""
    layer: Any = step.layer
    is_shared = uses[id(layer)] > 1
    if type(layer) in (nn.InstanceNorm3d, SingleInstanceNorm):
        if not is_shared and not layer.track_running_stats:
            layer.overwrites = True
        return True
    if type(layer) in (nn.ReLU, nn.LeakyReLU):
        if not is_shared:
            layer.inplace = True
        return True
    if type(layer) is nn.PReLU and layer.num_parameters == 1:
        if not is_shared:
            step.put(nn.LeakyReLU(float(layer.weight.detach()), inplace=True))
        return True
    return False
