"""Convolutions with what follows them: batch normalization in their weights, a rectifier on the way out.

In evaluation batch normalization is a scale and a shift of each channel, which the convolution before it can have in
its own weights; and a rectifier with one slope is a step that oneDNN takes as it writes a convolution's result. Each of
them, done apart, reads and writes the whole feature map once more.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

import torch
from torch import nn

__all__ = [
    "OneDnnConvolution",
    "Step",
    "fold_followers",
    "followed_by",
    "is_hooked",
    "is_plain",
    "is_sequence",
    "put_behind",
    "steps_of",
]

_SLOPE = "slope_of_what_follows"
_DOES_NOTHING = (nn.Identity, nn.Dropout, nn.Dropout3d)
_FOLDED = (nn.Conv3d, nn.ConvTranspose3d)


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


@dataclass(frozen=True)
class Step:
    """A layer and its place in the module that it is a step of."""

    parent: nn.Module
    name: str
    layer: nn.Module

    def take_out(self) -> None:
        """Leave nothing in its place."""
        self.parent._modules[self.name] = nn.Identity()


def fold_followers(network: nn.Module, *, has_rectifiers: bool) -> None:
    """Fold what follows each convolution of a network's sequences into it, in place.

    Only what is surely next is folded: layers that stand one behind the other in sequences that run as such, and that
    stand in one place only.

    Parameters
    ----------
    network
        In evaluation mode; nobody else's.
    has_rectifiers
        Whether rectifiers behind a convolution go too: then `OneDnnConvolution` has to take its place.
    """
    uses = Counter(id(child) for parent in network.modules() for child in parent._modules.values())
    for module in list(network.modules()):
        if is_sequence(module):
            steps = [step for step in steps_of(module, uses) if not isinstance(step.layer, _DOES_NOTHING)]
            _fold(steps, uses, has_rectifiers)


def _fold(steps: Sequence[Step], uses: Counter[int], has_rectifiers: bool) -> None:
    waiting = deque(steps)
    while waiting:
        convolution: Any = waiting.popleft().layer
        if type(convolution) not in _FOLDED or uses[id(convolution)] > 1 or is_hooked(convolution):
            continue
        if waiting and _is_foldable(waiting[0].layer, convolution):
            norm = waiting.popleft()
            _take_in(norm.layer, convolution)
            norm.take_out()
        slope = _slope_of(waiting[0].layer) if waiting and has_rectifiers else None
        if slope is not None and is_plain(convolution):
            put_behind(convolution, slope)
            waiting.popleft().take_out()


def is_sequence(module: nn.Module | None) -> TypeGuard[nn.Sequential]:
    """Whether a module runs its children one behind the other, and does nothing else."""
    if not isinstance(module, nn.Sequential) or type(module).forward is not nn.Sequential.forward:
        return False
    return not is_hooked(module)


def is_hooked(module: nn.Module) -> bool:
    """Whether something else happens when a module runs; then it has to be left as it is."""
    return bool(module._forward_hooks or module._forward_pre_hooks)


def steps_of(sequence: nn.Sequential, uses: Counter[int]) -> Iterator[Step]:
    """The steps of a sequence, those of sequences in it too that stand nowhere else, in the order in which they run."""
    for name, layer in sequence._modules.items():
        if is_sequence(layer) and uses[id(layer)] == 1:
            yield from steps_of(layer, uses)
        elif layer is not None:
            yield Step(sequence, name, layer)


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
