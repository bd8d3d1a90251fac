"""Convolutions with what follows them: batch normalization in their weights, a rectifier on the way out.

In evaluation batch normalization is a scale and a shift of each channel, which the convolution before it can have in
its own weights; and a rectifier with one slope is a step that oneDNN takes as it writes a convolution's result. Each of
them, done apart, reads and writes the whole feature map once more.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from medseg.inference.layer_rows import CONVOLUTIONS, Step, count_uses, is_hooked, rows_of

__all__ = ["OneDnnConvolution", "fold_followers", "followed_by", "is_plain", "put_behind"]

_SLOPE = "slope_of_what_follows"


class OneDnnConvolution(nn.Module):
    """A convolution, or a transposed one, by oneDNN, with the rectifier that followed; see `fast_layers`.

    The weights lie in the order that oneDNN wants for a window, which is found once for its shape.

    Parameters
    ----------
    layer
        One that `is_plain`, as `fold_followers` leaves it.
    """

    def __init__(self, layer: nn.Conv3d | nn.ConvTranspose3d) -> None:
        super().__init__()
        self.weight, self.bias = layer.weight, layer.bias
        padding = tuple(int(voxels) for voxels in layer.padding)
        self._is_transposed = isinstance(layer, nn.ConvTranspose3d)
        more = (layer.output_padding,) if self._is_transposed else ()
        self._form = (padding, *more, layer.stride, layer.dilation, layer.groups)
        slope = followed_by(layer)
        self._follower = ("none", [], "") if slope is None else ("leaky_relu", [slope], "")
        self._ordered: torch.Tensor | None = None
        self._ordered_for: tuple[torch.Size, torch.dtype] | None = None

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        """(B, N, i, j, k) of windows (B, C, I, J, K)."""
        onednn = torch.ops.mkldnn
        run, reorder = (
            (onednn._convolution_transpose_pointwise, onednn._reorder_convolution_transpose_weight)
            if self._is_transposed
            else (onednn._convolution_pointwise, onednn._reorder_convolution_weight)
        )
        key = windows.shape, self.weight.dtype
        if self._ordered is None or self._ordered_for != key:
            self._ordered, self._ordered_for = reorder(self.weight, *self._form, list(windows.shape)), key
        result: torch.Tensor = run(windows, self._ordered, self.bias, *self._form, *self._follower)
        return result


def is_plain(layer: nn.Conv3d | nn.ConvTranspose3d) -> bool:
    """Whether oneDNN's own call says all that a convolution does."""
    return layer.padding_mode == "zeros" and not isinstance(layer.padding, str)


def followed_by(layer: nn.Module) -> float | None:
    """The slope of the rectifier that `fold_followers` took away behind a convolution; None if it did not."""
    return getattr(layer, _SLOPE, None)


def put_behind(layer: nn.Module, slope: float | None) -> None:
    """Say that a rectifier follows a convolution."""
    setattr(layer, _SLOPE, slope)


def fold_followers(network: nn.Module, *, has_rectifiers: bool) -> None:
    """Fold what follows each convolution of a network into it, in place.

    Only what is surely next is folded: layers in rows (`rows_of`), behind convolutions that stand in one place only.

    Parameters
    ----------
    network
        In evaluation mode; nobody else's.
    has_rectifiers
        Whether rectifiers behind a convolution go too: then `OneDnnConvolution` has to take its place.
    """
    uses = count_uses(network)
    for row in rows_of(network):
        _fold(row, uses, has_rectifiers)


def _fold(steps: Sequence[Step], uses: Counter[int], has_rectifiers: bool) -> None:
    waiting = deque(steps)
    while waiting:
        convolution: Any = waiting.popleft().layer
        if type(convolution) not in CONVOLUTIONS or uses[id(convolution)] > 1 or is_hooked(convolution):
            continue
        if followed_by(convolution) is not None:  # in a row around this one: what stands next now comes after that
            continue
        if waiting and _is_foldable(waiting[0].layer, convolution):
            norm = waiting.popleft()
            _take_in(norm.layer, convolution)
            norm.put(nn.Identity())
        slope = _slope_of(waiting[0].layer) if waiting and has_rectifiers else None
        if slope is not None and is_plain(convolution):
            put_behind(convolution, slope)
            waiting.popleft().put(nn.Identity())


def _is_foldable(layer: nn.Module, convolution: Any) -> bool:
    if type(layer) is not nn.BatchNorm3d or layer.running_mean is None or is_hooked(layer):
        return False
    return bool(layer.num_features == convolution.out_channels and convolution.groups == 1)


def _take_in(norm: Any, convolution: Any) -> None:
    """Weights and bias of both layers together, computed in float64."""
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    bias = -norm.running_mean.double()
    if convolution.bias is not None:
        bias = bias + convolution.bias.detach().double()
    if norm.affine:
        scale = scale * norm.weight.detach().double()
    bias = bias * scale
    if norm.affine:
        bias = bias + norm.bias.detach().double()
    along = 1 if isinstance(convolution, nn.ConvTranspose3d) else 0
    weight = convolution.weight.detach().double() * scale.view([-1 if axis == along else 1 for axis in range(5)])
    dtype = convolution.weight.dtype
    convolution.weight = nn.Parameter(weight.to(dtype), requires_grad=False)
    convolution.bias = nn.Parameter(bias.to(dtype), requires_grad=False)


def _slope_of(layer: nn.Module) -> float | None:
    """The slope below zero of a rectifier that has one for all channels; None for anything else."""
    if is_hooked(layer):
        return None
    if type(layer) is nn.ReLU:
        return 0.0
    if type(layer) is nn.LeakyReLU:
        return float(layer.negative_slope)
    if type(layer) is nn.PReLU and layer.num_parameters == 1:
        return float(layer.weight.detach())
    return None
