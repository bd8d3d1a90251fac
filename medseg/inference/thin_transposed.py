"""Transposed convolutions with few output channels, as a plain convolution.

torch and oneDNN compute them many times slower than their multiplications take: a U-Net whose last step up gives two
channels spends more time there than anywhere else.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from medseg.inference.fused_convolution import followed_by, put_behind

__all__ = ["ThinTransposedConvolution", "is_thin_transposed"]

_THIN = 16  # channels: what a vector of a CPU holds
_TAP = (((0.0, 1.0, 0.0), (0.0, 0.0, 0.0)), ((0.0, 0.0, 1.0), (1.0, 0.0, 0.0)))
"""Which of three taps (last) an even or odd voxel of the result (first) puts on the voxel that it begins at, and on the
next (second)."""


def is_thin_transposed(layer: nn.ConvTranspose3d) -> bool:
    """Whether a layer is one of those that `ThinTransposedConvolution` computes, and sooner."""
    return (
        layer.out_channels < _THIN
        and layer.kernel_size == (3, 3, 3)
        and layer.stride == (2, 2, 2)
        and layer.padding == layer.output_padding == layer.dilation == (1, 1, 1)
        and layer.groups == 1
        and layer.padding_mode == "zeros"
    )


class ThinTransposedConvolution(nn.Module):
    """A transposed convolution of 3 x 3 x 3 voxels that doubles its input's sides.

    Eight voxels of the result, even and odd along each axis, are eight times the channels of a convolution of 2 x 2 x 2
    over the input.

    Parameters
    ----------
    layer
        One that `is_thin_transposed`.
    make_convolution
        What computes the plain convolution.
    """

    def __init__(self, layer: nn.ConvTranspose3d, make_convolution: Callable[[nn.Conv3d], nn.Module]) -> None:
        super().__init__()
        self._n = layer.out_channels
        plain = nn.Conv3d(layer.in_channels, 8 * self._n, 2, padding=1, bias=layer.bias is not None)
        tap = torch.tensor(_TAP, dtype=layer.weight.dtype)
        weight = torch.einsum("apx,bqy,crz,inxyz->abcnipqr", tap, tap, tap, layer.weight.detach())
        plain.weight = nn.Parameter(weight.flatten(0, 3).contiguous(), requires_grad=False)
        if layer.bias is not None:
            plain.bias = nn.Parameter(layer.bias.detach().repeat(8), requires_grad=False)
        put_behind(plain, followed_by(layer))
        self.convolution = make_convolution(plain)

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        """(B, C, I, J, K) to (B, N, 2 I, 2 J, 2 K), channels-last."""
        parts: torch.Tensor = self.convolution(windows)[:, :, 1:, 1:, 1:]  # zeros are needed behind the last voxel only
        b, _, i, j, k = parts.shape
        parts = parts.permute(0, 2, 3, 4, 1).view(b, i, j, k, 2, 2, 2, self._n).permute(0, 1, 4, 2, 5, 3, 6, 7)
        return parts.reshape(b, 2 * i, 2 * j, 2 * k, self._n).permute(0, 4, 1, 2, 3)
