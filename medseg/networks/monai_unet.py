"""MONAI's `UNet`, without MONAI: the same arguments, parameters by the same names, the same numbers.

References
----------
Ronneberger et al., U-Net, MICCAI 2015; Kerfoot et al., Left-Ventricle Quantification Using Residual U-Net, STACOM 2018.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch import nn

from medseg.networks.layers import Convolution, Named, Skip, sides

__all__ = ["UNet"]

Sides = int | Sequence[int]


class UNet(nn.Module):
    """Contracting and expanding path, joined at each level by concatenation.

    Parameters
    ----------
    spatial_dims
        3.
    in_channels, out_channels
        Of the image; logits.
    channels
        Filters, one a level from the highest resolution down.
    strides
        One a level but the lowest.
    kernel_size, up_kernel_size
        Of convolutions, and of transposed ones; odd.
    num_res_units
        Convolutions a residual unit; 0 for plain convolutions.
    act, norm, dropout, bias, adn_ordering
        What follows a convolution, "NDA" in this order, and whether it has a bias.

    Raises
    ------
    NotImplementedError
        If an argument asks for what only MONAI's own class has.
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        channels: Sequence[int],
        strides: Sequence[Sides],
        kernel_size: Sides = 3,
        up_kernel_size: Sides = 3,
        num_res_units: int = 0,
        act: Named = "PRELU",
        norm: Named = "INSTANCE",
        dropout: float = 0.0,
        bias: bool = True,
        adn_ordering: str = "NDA",
    ) -> None:
        super().__init__()
        if spatial_dims != 3 or adn_ordering != "NDA" or len(channels) < 2 or len(strides) != len(channels) - 1:
            raise NotImplementedError("another U-Net than the common one")
        self.out_channels = out_channels
        self._kernels, self._n_units = (kernel_size, up_kernel_size), num_res_units
        self._layer: dict[str, Any] = {"act": act, "norm": norm, "dropout": dropout, "bias": bias}
        self.model = self._level(in_channels, out_channels, channels, strides, is_top=True)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Logits (B, N, I, J, K) of an image (B, C, I, J, K)."""
        logits: torch.Tensor = self.model(image)
        return logits

    def _level(
        self, n_inputs: int, n_outputs: int, channels: Sequence[int], strides: Sequence[Sides], *, is_top: bool
    ) -> nn.Sequential:
        """A level with all below it."""
        own, below = channels[0], channels[1]
        is_lowest = len(channels) == 2
        # fresh weights are drawn from below upwards
        inner: nn.Module = (
            self._down(own, below, 1) if is_lowest else self._level(own, own, channels[1:], strides[1:], is_top=False)
        )
        down = self._down(n_inputs, own, strides[0])
        up = self._up(own + (below if is_lowest else own), n_outputs, strides[0], is_top=is_top)
        return nn.Sequential(down, Skip(inner), up)

    def _down(self, n_inputs: int, n_outputs: int, stride: Sides) -> nn.Module:
        if self._n_units < 1:
            return Convolution(n_inputs, n_outputs, self._kernels[0], stride, **self._layer)
        return _ResidualUnit(n_inputs, n_outputs, self._kernels[0], stride, self._n_units, self._layer)

    def _up(self, n_inputs: int, n_outputs: int, stride: Sides, *, is_top: bool) -> nn.Module:
        is_last = is_top and self._n_units < 1
        layer = {"bias": self._layer["bias"]} if is_last else self._layer
        widened = Convolution(n_inputs, n_outputs, self._kernels[1], stride, is_transposed=True, **layer)
        if self._n_units < 1:
            return widened
        unit = _ResidualUnit(n_outputs, n_outputs, self._kernels[0], 1, 1, self._layer, ends_bare=is_top)
        return nn.Sequential(widened, unit)


class _ResidualUnit(nn.Module):
    """Convolutions, and their input added to what they give; the first has the stride."""

    def __init__(
        self,
        n_inputs: int,
        n_outputs: int,
        kernel: Sides,
        stride: Sides,
        n_units: int,
        layer: dict[str, Any],
        *,
        ends_bare: bool = False,
    ) -> None:
        super().__init__()
        self.conv = nn.Sequential()
        for number in range(n_units):
            is_bare = ends_bare and number == n_units - 1
            unit = Convolution(
                n_outputs if number else n_inputs,
                n_outputs,
                kernel,
                1 if number else stride,
                **({"bias": layer["bias"]} if is_bare else layer),
            )
            self.conv.add_module(f"unit{number}", unit)
        self.residual: nn.Module = nn.Identity()
        is_strided = prod(sides(stride)) != 1
        if is_strided or n_inputs != n_outputs:
            own = sides(kernel) if is_strided else (1, 1, 1)
            padding = sides([side // 2 for side in own])
            self.residual = nn.Conv3d(n_inputs, n_outputs, own, sides(stride), padding, bias=bool(layer["bias"]))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        residual: torch.Tensor = self.residual(features)
        own: torch.Tensor = self.conv(features)
        if torch.is_grad_enabled():
            return own + residual
        own += residual
        return own
