"""A copy of a network for running only: the same layers, by the fastest kernels that torch has on a CPU.

Four things make torch slow here. It takes its own convolution for a single window with few channels, many times slower
than oneDNN's (the rule that decides was made for images). Instance normalization copies what lies channels-last, while
batch normalization, which for a single window is the same thing, does not. It computes in float32 where the processor
multiplies bfloat16 at twice the rate. And transposed convolutions to few channels are slow (`thin_transposed`).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from medseg.inference.fused_convolution import OneDnnConvolution, fold_followers, is_plain
from medseg.inference.layer_rows import is_hooked
from medseg.inference.overwriting import SingleGroupNorm, SingleInstanceNorm, mark_overwriting
from medseg.inference.thin_transposed import ThinTransposedConvolution, is_thin_transposed
from medseg.inference.winograd import WinogradConvolution, WinogradResidual, suits_winograd
from medseg.networks.monai_segresnet import ResidualBlock

__all__ = ["LayerwiseNorm", "fast_copy", "replace_modules"]

_KEPT_FLOAT32 = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)  # their kernels take mixed types


class LayerwiseNorm(nn.Module):
    """Instance normalization written as layer normalization over space: OpenVINO has one fused kernel for that.

    Parameters
    ----------
    layer
        Whose scale and shift it takes over.
    """

    def __init__(self, layer: nn.InstanceNorm3d) -> None:
        super().__init__()
        self._eps = layer.eps
        self._scale = None if layer.weight is None else layer.weight.detach().view(1, -1, 1, 1, 1)
        self._shift = None if layer.bias is None else layer.bias.detach().view(1, -1, 1, 1, 1)

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        """Normalize (B, C, I, J, K) over space."""
        normalized = functional.layer_norm(windows, windows.shape[2:], eps=self._eps)
        if self._scale is not None:
            normalized = normalized * self._scale
        return normalized if self._shift is None else normalized + self._shift


class _Float32Pooling(nn.Module):
    """Mean pooling of half precision in float32: torch has no kernel of its own for it on a CPU."""

    def __init__(self, layer: nn.AvgPool3d) -> None:
        super().__init__()
        self._layer = layer

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        pooled: torch.Tensor = self._layer(windows.float())
        return pooled.to(windows.dtype, memory_format=torch.channels_last_3d)


class _Finished(nn.Module):
    """A network whose last layers may leave something pending: what it gives is finished."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self._network = network

    def forward(self, windows: torch.Tensor) -> Any:
        from medseg.inference.pending import finished

        return finished(self._network(windows))


def fast_copy(network: nn.Module, dtype: torch.dtype, *, is_winograd: bool = False) -> nn.Module:
    """A copy of a network for single windows on a CPU.

    Parameters
    ----------
    network
        On the CPU; left as it is.
    dtype
        float32 or bfloat16, of weights and activations; normalization keeps its weights, and takes its means, in
        float32.
    is_winograd
        Whether convolutions that suit it are computed by Winograd's method; float32 only.

    Returns
    -------
    Module from (1, C, I, J, K) of that dtype, channels-last, to what the network gives.
    """
    makers: dict[type, Callable[[Any], nn.Module]] = dict.fromkeys((nn.InstanceNorm3d, nn.GroupNorm), _fast_norm)
    if dtype != torch.float32:
        makers[nn.AvgPool3d] = _Float32Pooling
    if _has_onednn(dtype):
        makers |= {nn.Conv3d: _fast_convolution, nn.ConvTranspose3d: _fast_transposed}
    copied = copy.deepcopy(network).eval()
    if not is_winograd:  # which has its own way with what follows a convolution
        fold_followers(copied, has_rectifiers=nn.Conv3d in makers)
        mark_overwriting(copied)
    copied = replace_modules(copied, _winograd_makers() if is_winograd else makers)
    for module in copied.modules():
        if not isinstance(module, _KEPT_FLOAT32):
            _cast(module, dtype)
    if is_winograd:
        copied = _Finished(copied)
    return copied.to(memory_format=torch.channels_last_3d).eval()  # type: ignore[call-overload, no-any-return]


def replace_modules(network: nn.Module, makers: Mapping[type, Callable[[Any], nn.Module]]) -> nn.Module:
    """A copy of a network, in which a maker replaces each module of exactly its type that has no hooks."""
    copied = copy.deepcopy(network)
    for parent in list(copied.modules()):
        for name, child in parent._modules.items():
            if child is not None and type(child) in makers and not is_hooked(child):
                parent._modules[name] = makers[type(child)](child)
    return makers[type(copied)](copied) if type(copied) in makers else copied


def _fast_norm(layer: nn.InstanceNorm3d | nn.GroupNorm) -> nn.Module:
    if isinstance(layer, nn.GroupNorm):
        layer.__class__ = SingleGroupNorm
    elif not layer.track_running_stats:
        layer.__class__ = SingleInstanceNorm
    return layer


def _fast_convolution(layer: nn.Conv3d | nn.ConvTranspose3d) -> nn.Module:
    return OneDnnConvolution(layer) if is_plain(layer) and _has_onednn(torch.float32) else layer


def _fast_transposed(layer: nn.ConvTranspose3d) -> nn.Module:
    return (
        ThinTransposedConvolution(layer, _fast_convolution) if is_thin_transposed(layer) else _fast_convolution(layer)
    )


def _has_onednn(dtype: torch.dtype) -> bool:
    """Whether oneDNN computes in a number type here: bfloat16 takes AVX-512 or better."""
    is_there = bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]
    return is_there and (dtype != torch.bfloat16 or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()))


def _winograd_makers() -> dict[type, Callable[[Any], nn.Module]]:
    from medseg.inference.pending import PendingActivation, PendingNorm

    def norm(layer: nn.InstanceNorm3d | nn.BatchNorm3d) -> nn.Module:
        has_moments = layer.running_mean is not None
        return PendingNorm(layer) if layer.track_running_stats == has_moments else layer

    def convolution(layer: nn.Conv3d) -> nn.Module:
        return WinogradConvolution(layer) if suits_winograd(layer) else _fast_convolution(layer)

    return {
        **dict.fromkeys((nn.InstanceNorm3d, nn.BatchNorm3d), norm),
        nn.GroupNorm: PendingNorm,
        **dict.fromkeys((nn.ReLU, nn.LeakyReLU, nn.PReLU), PendingActivation),
        **dict.fromkeys((nn.Dropout, nn.Dropout3d), lambda _: nn.Identity()),
        ResidualBlock: WinogradResidual,
        nn.Conv3d: convolution,
        nn.ConvTranspose3d: _fast_transposed,
    }


def _cast(module: nn.Module, dtype: torch.dtype) -> None:
    for parameter in module.parameters(recurse=False):
        if parameter.is_floating_point():
            parameter.data = parameter.data.to(dtype)
    for name, buffer in module.named_buffers(recurse=False):
        if buffer.is_floating_point():
            module._buffers[name] = buffer.to(dtype)
