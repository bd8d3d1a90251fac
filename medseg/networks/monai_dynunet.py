"""MONAI's `DynUNet`, without MONAI: the same arguments, parameters by the same names, the same numbers.

References
----------
Isensee et al., nnU-Net: a self-configuring method for deep learning-based biomedical image segmentation, Nature
Methods 2021; Futrega et al., Optimized U-Net for Brain Tumor Segmentation, BrainLes 2021.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch import nn

from medseg.networks.layers import Convolution, Named, activation, normalization, sides

__all__ = ["DynUNet"]

Sides = int | Sequence[int]


class DynUNet(nn.Module):
    """A U-Net whose kernels and strides may differ along each axis and at each level.

    Parameters
    ----------
    spatial_dims
        3.
    in_channels, out_channels
        Of the image; logits.
    kernel_size, strides
        One a level, from the highest resolution down.
    upsample_kernel_size
        Kernels and strides of transposed convolutions, one a level but the highest.
    filters
        One a level; by default 32, doubled at each level up to 320.
    dropout
        Behind each convolution; None for none.
    norm_name, act_name
        Of all blocks.
    deep_supervision, deep_supr_num
        False, and of no meaning.
    res_block
        Whether the blocks on the way down are residual.
    trans_bias
        Whether transposed convolutions have a bias.

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
        kernel_size: Sequence[Sides],
        strides: Sequence[Sides],
        upsample_kernel_size: Sequence[Sides],
        filters: Sequence[int] | None = None,
        dropout: float | None = None,
        norm_name: Named = ("INSTANCE", {"affine": True}),
        act_name: Named = ("leakyrelu", {"inplace": True, "negative_slope": 0.01}),
        deep_supervision: bool = False,
        deep_supr_num: int = 1,  # noqa: ARG002 - as MONAI's
        res_block: bool = False,
        trans_bias: bool = False,
    ) -> None:
        super().__init__()
        n_levels = len(strides)
        widths = [min(32 * 2**level, 320) for level in range(n_levels)] if filters is None else list(filters[:n_levels])
        if spatial_dims != 3 or deep_supervision or not isinstance(dropout, float | int | None):
            raise NotImplementedError("another DynUNet than the common one")
        if n_levels < 3 or {len(kernel_size), len(widths), len(upsample_kernel_size) + 1} != {n_levels}:
            raise NotImplementedError("as many kernels and filters as strides, three or more")
        layer: dict[str, Any] = {"norm": norm_name, "act": act_name, "dropout": dropout}
        shapes = list(zip([in_channels, *widths], widths, kernel_size, strides, strict=False))
        first, *middle, last = [_Block(*shape, is_residual=res_block, **layer) for shape in shapes]
        self.input_block, self.downsamples, self.bottleneck = first, nn.ModuleList(middle), last
        self.upsamples = nn.ModuleList(
            _Up(
                widths[level + 1], widths[level], kernel_size[level + 1], upsample_kernel_size[level], trans_bias, layer
            )
            for level in reversed(range(n_levels - 1))
        )
        self.output_block = _Output(widths[0], out_channels, dropout)
        # MONAI's weights name each block a second time, by its place among the levels
        self.skip_layers: nn.Module = last
        for down, up in zip([*reversed(middle), first], self.upsamples, strict=True):
            self.skip_layers = _Level(down, self.skip_layers, up)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Logits (B, N, I, J, K) of an image (B, C, I, J, K)."""
        logits: torch.Tensor = self.output_block(self.skip_layers(image))
        return logits


class _Level(nn.Module):
    """A level with all below it."""

    def __init__(self, downsample: nn.Module, next_layer: nn.Module, upsample: nn.Module) -> None:
        super().__init__()
        self.downsample, self.next_layer, self.upsample = downsample, next_layer, upsample

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        maps = [self.downsample(features)]
        maps.append(self.next_layer(maps[0]))
        widened: torch.Tensor = self.upsample(maps)
        return widened


class _Block(nn.Module):
    """Two convolutions, the first with the stride; `is_residual` adds the block's input to what they give."""

    rows_of_layers = (("conv1", "norm1"), ("conv2", "norm2"), ("conv3", "norm3"))
    """Layers that alone read what the one before them gives."""

    def __init__(
        self,
        n_inputs: int,
        n_outputs: int,
        kernel: Sides,
        stride: Sides,
        *,
        is_residual: bool,
        norm: Named,
        act: Named,
        dropout: float | None,
    ) -> None:
        super().__init__()
        self.conv1 = _convolution(n_inputs, n_outputs, kernel, stride, dropout)
        self.conv2 = _convolution(n_outputs, n_outputs, kernel, 1, dropout)
        self.lrelu = activation(act)
        self.norm1, self.norm2 = normalization(norm, n_outputs), normalization(norm, n_outputs)
        self.is_residual = is_residual
        self.conv3: nn.Module | None = None
        if is_residual and (n_inputs != n_outputs or prod(sides(stride)) != 1):
            self.conv3 = _convolution(n_inputs, n_outputs, 1, stride, dropout)
            self.norm3 = normalization(norm, n_outputs)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        inner = self.lrelu(self.norm1(self.conv1(features)))
        inner = self.norm2(self.conv2(inner))
        if self.is_residual:
            inner += features if self.conv3 is None else self.norm3(self.conv3(features))
        activated: torch.Tensor = self.lrelu(inner)
        return activated


class _Up(nn.Module):
    """A transposed convolution, and a block over what it gives and the map of the same level."""

    def __init__(
        self, n_inputs: int, n_outputs: int, kernel: Sides, up_kernel: Sides, bias: bool, layer: dict[str, Any]
    ) -> None:
        super().__init__()
        self.transp_conv = _convolution(
            n_inputs, n_outputs, up_kernel, up_kernel, layer["dropout"], bias=bias, is_transposed=True
        )
        self.conv_block = _Block(2 * n_outputs, n_outputs, kernel, 1, is_residual=False, **layer)

    def forward(self, maps: list[torch.Tensor]) -> torch.Tensor:
        """Takes the map of its level and the one from below out of a list, so that no caller keeps their memory."""
        upward = self.transp_conv(maps.pop())
        both = torch.cat((upward, maps.pop()), dim=1)
        del upward
        widened: torch.Tensor = self.conv_block(both)
        return widened


class _Output(nn.Module):
    def __init__(self, n_inputs: int, n_outputs: int, dropout: float | None) -> None:
        super().__init__()
        self.conv = _convolution(n_inputs, n_outputs, 1, 1, dropout, bias=True)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.conv(features)
        return logits


def _convolution(
    n_inputs: int,
    n_outputs: int,
    kernel: Sides,
    stride: Sides,
    dropout: float | None,
    *,
    bias: bool = False,
    is_transposed: bool = False,
) -> Convolution:
    kernels, strides = sides(kernel), sides(stride)
    padding = [(k - s + 1) // 2 for k, s in zip(kernels, strides, strict=True)]
    more = [2 * p + s - k for p, s, k in zip(padding, strides, kernels, strict=True)]
    if min(padding) < 0 or (is_transposed and min(more) < 0):
        raise NotImplementedError(f"a kernel of {kernels} at strides of {strides}")
    return Convolution(
        n_inputs,
        n_outputs,
        kernels,
        strides,
        padding=padding,
        output_padding=more if is_transposed else None,
        is_transposed=is_transposed,
        bias=bias,
        dropout=None if dropout is None else float(dropout),
    )
