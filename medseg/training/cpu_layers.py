"""Layers that train sooner on a CPU in float32, in the place of torch's own; needs numba (extra `medseg[numba]`).

Convolutions of 3 x 3 x 3 voxels are Winograd's (`medseg.inference.winograd`), forth and back.

torch's instance normalization copies what lies channels-last, twice on the way forth and twice on the way back, and
its PReLU is slow on the way back. Here a normalization and the activation behind it read a feature map once for the
moments and once for the result, and as often on the way back; no map is kept between the two.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from medseg.inference.layer_rows import count_uses, is_hooked, rows_of
from medseg.inference.moments import grouped
from medseg.inference.pending import Part, in_parallel, moments_of
from medseg.inference.pointwise_kernels import finish
from medseg.inference.winograd import Winograd, gradient_of_weight, suits_winograd, to_points
from medseg.training.gradient_kernels import gradient_of_input, gradient_sums

__all__ = ["quicken"]

Rows = NDArray[np.float32]
_LEAST_VOXELS = 2048  # of a map; for fewer, the transforms of the weights take longer than they save
_ACTIVATIONS = (nn.ReLU, nn.LeakyReLU, nn.PReLU)


def quicken(network: nn.Module) -> None:
    """Let layers of a network that is trained on a CPU in float32 be computed by faster kernels.

    Its parameters stay, and so do their names; results change by rounding. Layers with hooks are left as they are.

    Parameters
    ----------
    network
        Nobody else's; channels-last.
    """
    followers = _followers(network)
    for layer in list(network.modules()):
        if is_hooked(layer):
            continue
        if type(layer) is nn.InstanceNorm3d and not layer.track_running_stats:
            layer.__class__ = _TrainedInstanceNorm
        elif type(layer) is nn.GroupNorm:
            layer.__class__ = _TrainedGroupNorm
        elif type(layer) is nn.Conv3d and suits_winograd(layer):
            layer.__class__ = _TrainedConvolution
            continue
        else:
            continue
        follower = followers.get(id(layer))
        layer.__dict__["activation"] = follower  # not as its own child, whose name would change
        if follower is not None:
            follower.__class__ = _DONE[type(follower)]


def _followers(network: nn.Module) -> dict[int, nn.Module]:
    """Activations that can be computed by the normalization right before them, by its `id`."""
    uses, found = count_uses(network), {}
    for row in rows_of(network):
        for before, after in pairwise(row):
            is_alone = uses[id(before.layer)] == uses[id(after.layer)] == 1
            if is_alone and type(after.layer) in _ACTIVATIONS and not is_hooked(after.layer):
                found[id(before.layer)] = after.layer
    return found


class _TrainedInstanceNorm(nn.InstanceNorm3d):
    activation: nn.Module | None

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return _normalized(self, features, features.shape[1])


class _TrainedGroupNorm(nn.GroupNorm):
    activation: nn.Module | None

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return _normalized(self, features, self.num_groups)


class _DoneReLU(nn.ReLU):
    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features


class _DoneLeakyReLU(nn.LeakyReLU):
    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features


class _DonePReLU(nn.PReLU):
    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features


_DONE: dict[type, type] = {nn.ReLU: _DoneReLU, nn.LeakyReLU: _DoneLeakyReLU, nn.PReLU: _DonePReLU}


def _normalized(layer: Any, features: torch.Tensor, n_groups: int) -> torch.Tensor:
    n_channels = features.shape[1]
    ones = torch.ones(n_channels)
    weight = ones if layer.weight is None else layer.weight
    bias = 0 * ones if layer.bias is None else layer.bias
    slope = _slope(layer.activation, n_channels)
    found: torch.Tensor = _Normalization.apply(  # type: ignore[no-untyped-call]
        features, weight, bias, slope, n_groups, layer.eps
    )
    return found


def _slope(activation: nn.Module | None, n_channels: int) -> torch.Tensor:
    """(C,): the factor of what is negative."""
    if isinstance(activation, nn.PReLU):
        return activation.weight.expand(n_channels)
    if isinstance(activation, nn.LeakyReLU):
        return torch.full((n_channels,), activation.negative_slope)
    return torch.full((n_channels,), 0.0 if isinstance(activation, nn.ReLU) else 1.0)


class _Normalization(torch.autograd.Function):
    """Instance or group normalization, scale and shift, and a (leaky, parametric) rectifier."""

    @staticmethod
    def forward(
        ctx: Any,
        features: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor,
        slope: torch.Tensor,
        n_groups: int,
        eps: float,
    ) -> torch.Tensor:
        x, found = _rows_of_map(features), _like(features, features.shape[1])
        y, (w, b, s) = _rows_of_map(found), (value.detach().numpy() for value in (weight, bias, slope))
        factors = np.empty((len(x), 5, x.shape[4]), np.float32)
        for one, by, into in zip(x, factors, y, strict=True):
            mean, variance = grouped(*moments_of(one), n_groups)
            by[0] = 1.0 / np.sqrt(variance + eps)
            by[1], by[2:] = -mean * by[0], (w, b, s)
            waiting = (w * by[0], w * by[1] + b, by[4])
            _in_parallel(finish, (one,), waiting, (into,))
        ctx.save_for_backward(features)
        ctx.factors, ctx.n_groups = factors, n_groups
        return found

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[Any, ...]:
        x, gradients = _rows_of_map(ctx.saved_tensors[0]), _rows_of_map(gradient)
        found, totals = _like(gradient, x.shape[4]), np.zeros((3, x.shape[4]))
        target = _rows_of_map(found)
        for one, given, by, into in zip(x, gradients, ctx.factors, target, strict=True):
            sums = np.sum(_in_parallel(gradient_sums, (one, given), (by,)), axis=0)
            totals += sums
            shares = _shares(by, sums[:2] / one[..., 0].size, ctx.n_groups)
            _in_parallel(gradient_of_input, (one, given), (by, shares), (into,))
        of_bias, of_weight, of_slope = torch.from_numpy(totals.astype(np.float32))
        return found, of_weight, of_bias, of_slope, None, None


def _shares(factors: Rows, means: NDArray[np.float64], n_groups: int) -> Rows:
    """(3, C), as `gradient_of_input` takes them, from the means of the gradient brought to z, and of that times h."""
    to_h = (factors[2] * means).reshape(2, n_groups, -1)
    by_group = np.broadcast_to(to_h.mean(axis=2, keepdims=True), to_h.shape).reshape(2, -1)
    return np.stack([factors[0] * factors[2], -factors[0] * by_group[1], -factors[0] * by_group[0]]).astype(np.float32)


class _TrainedConvolution(nn.Conv3d):
    def forward(self, features: torch.Tensor) -> torch.Tensor:
        if features[0, 0].numel() < _LEAST_VOXELS:
            return super().forward(features)
        bias = torch.zeros(self.out_channels) if self.bias is None else self.bias
        found: torch.Tensor = _WinogradConvolution.apply(features, self.weight, bias)  # type: ignore[no-untyped-call]
        return found


class _WinogradConvolution(torch.autograd.Function):
    """A convolution of 3 x 3 x 3 voxels that keeps its input's size."""

    @staticmethod
    def forward(ctx: Any, features: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(features, weight)
        return _convolved(features, weight, bias.detach().numpy())

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        features, weight = ctx.saved_tensors
        of_features = of_weight = None
        if ctx.needs_input_grad[0]:
            turned = weight.flip(2, 3, 4).transpose(0, 1)
            of_features = _convolved(gradient, turned, np.zeros(len(turned), np.float32))
        if ctx.needs_input_grad[1]:
            pairs = zip(_rows_of_map(features), _rows_of_map(gradient), strict=True)
            of_points = [Winograd.gradient_of_points([Part(x)], given) for x, given in pairs]
            of_weight = gradient_of_weight(np.sum(of_points, axis=0))
        return of_features, of_weight, gradient.sum((0, 2, 3, 4))


def _convolved(features: torch.Tensor, weight: torch.Tensor, bias: Rows) -> torch.Tensor:
    x, winograd = _rows_of_map(features), Winograd(to_points(weight), bias)
    found = _like(features, len(weight))
    for one, into in zip(x, _rows_of_map(found), strict=True):
        winograd.run([Part(one)], into)
    return found


def _in_parallel(
    kernel: Callable[..., Any], maps: Sequence[Rows], values: Sequence[Any], targets: Sequence[Rows] = ()
) -> list[Any]:
    """A kernel of maps (I, J, K, C), values and maps to fill, over equal shares of their planes."""

    def share(first: int, last: int) -> Any:
        return kernel(*[m[first:last] for m in maps], *values, *[m[first:last] for m in targets])

    return in_parallel(len(maps[0]), share)


def _like(features: torch.Tensor, n_channels: int) -> torch.Tensor:
    """A new tensor (B, n_channels, I, J, K), channels-last; not a view, which may not be changed in place."""
    rows = np.empty((len(features), *features.shape[2:], n_channels), np.float32)  # in large pages, unlike torch's
    return torch.from_numpy(rows.transpose(0, 4, 1, 2, 3))


def _rows_of_map(features: torch.Tensor) -> Rows:
    """(B, I, J, K, C) of a tensor (B, C, I, J, K)."""
    rows: Rows = features.detach().permute(0, 2, 3, 4, 1).contiguous().numpy()
    return rows
