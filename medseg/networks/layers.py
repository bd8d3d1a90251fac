"""Layers under the names that MONAI gives their parameters, so that weights trained there load by name.

Importing MONAI takes over two processor seconds and 170 MiB, mostly for packages that a network has no use for (ignite,
pandas, scipy.stats, torch.distributed). The layers of its common networks are these few.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

__all__ = ["Convolution", "Named", "Skip", "activation", "normalization", "sides"]

Named = str | Sequence[Any]
"""A kind of layer as MONAI's arguments say it: its name, or its name and its arguments."""

_NORMS: dict[str, Callable[..., nn.Module]] = {
    "BATCH": nn.BatchNorm3d,
    "INSTANCE": nn.InstanceNorm3d,
    "GROUP": lambda n_channels, **arguments: nn.GroupNorm(num_channels=n_channels, **arguments),
}
_ACTIVATIONS: dict[str, Callable[..., nn.Module]] = {
    "LEAKYRELU": nn.LeakyReLU,
    "PRELU": nn.PReLU,
    "RELU": nn.ReLU,
}


def normalization(kind: Named, n_channels: int) -> nn.Module:
    """A normalization of (B, n_channels, I, J, K).

    Raises
    ------
    NotImplementedError
        If the kind is another than batch, instance or group.
    """
    name, arguments = _named(kind, _NORMS)
    return _NORMS[name](n_channels, **arguments)


def activation(kind: Named) -> nn.Module:
    """An activation.

    Raises
    ------
    NotImplementedError
        If the kind is another than ReLU, leaky ReLU or PReLU.
    """
    name, arguments = _named(kind, _ACTIVATIONS)
    return _ACTIVATIONS[name](**arguments)


def sides(number: int | Sequence[int]) -> tuple[int, int, int]:
    """One number for each axis.

    Raises
    ------
    NotImplementedError
        If there are not three of them.
    """
    given = (number,) * 3 if isinstance(number, int) else tuple(int(n) for n in number)
    if len(given) != 3:
        raise NotImplementedError(f"three axes have three numbers; got {number}")
    return (given[0], given[1], given[2])


class Convolution(nn.Sequential):
    """A convolution `conv`, and what follows it in `adn`: normalization `N`, dropout `D`, activation `A`.

    Parameters
    ----------
    n_inputs, n_outputs
        Channels.
    kernel, stride
        One number, or one an axis.
    padding
        One number an axis; by default what leaves the grid as it is where the stride is 1.
    output_padding
        Of a transposed convolution: voxels more on one side, one number an axis; by default what makes the grid grow
        by the stride.
    is_transposed, bias
        As it says.
    norm, act, dropout
        What follows; None for what does not.

    Raises
    ------
    NotImplementedError
        If a kernel is even and no padding is given, or a normalization or activation is of another kind.
    """

    def __init__(
        self,
        n_inputs: int,
        n_outputs: int,
        kernel: int | Sequence[int] = 3,
        stride: int | Sequence[int] = 1,
        *,
        padding: Sequence[int] | None = None,
        output_padding: Sequence[int] | None = None,
        is_transposed: bool = False,
        bias: bool = True,
        norm: Named | None = None,
        act: Named | None = None,
        dropout: float | None = None,
    ) -> None:
        super().__init__()
        kernels, strides = sides(kernel), sides(stride)
        if padding is None:
            if any(side % 2 == 0 for side in kernels):
                raise NotImplementedError(f"a kernel of {kernels} has no middle")
            padding = [side // 2 for side in kernels]
        shape: dict[str, Any] = {"kernel_size": kernels, "stride": strides, "padding": tuple(padding), "bias": bias}
        if is_transposed:
            more = tuple(side - 1 for side in strides) if output_padding is None else tuple(output_padding)
            self.conv: nn.Module = nn.ConvTranspose3d(n_inputs, n_outputs, output_padding=sides(more), **shape)
        else:
            self.conv = nn.Conv3d(n_inputs, n_outputs, **shape)
        following = nn.Sequential()
        if norm is not None:
            following.add_module("N", normalization(norm, n_outputs))
        if dropout is not None:
            following.add_module("D", nn.Dropout(float(dropout)))
        if act is not None:
            following.add_module("A", activation(act))
        if len(following):
            self.adn = following


class Skip(nn.Module):
    """What goes into a module, and behind it, channel by channel, what comes out."""

    def __init__(self, submodule: nn.Module) -> None:
        super().__init__()
        self.submodule = submodule

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(B, C + N, I, J, K) from (B, C, I, J, K)."""
        return torch.cat([features, self.submodule(features)], dim=1)


def _named(kind: Named, known: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    name, arguments = (kind, {}) if isinstance(kind, str) else (kind[0], kind[1] if len(kind) == 2 else None)
    if not isinstance(name, str) or name.upper() not in known or not isinstance(arguments, Mapping):
        raise NotImplementedError(f"none of {', '.join(known)}: {kind!r}")
    return name.upper(), dict(arguments)
