"""Pending: feature maps whose normalization, activation and concatenation wait for the layer that reads them.

Over a large window, a normalization, an activation and a concatenation each read and write the memory of the whole
feature map, which takes as long as a convolution. Where the next layer is a Winograd convolution, which copies its
input block by block anyway, they are done on the way. Any other reader gets the finished tensor: `Pending` finishes
itself when it meets a function of torch or is asked for anything that a tensor has.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from medseg.inference.moments import grouped
from medseg.inference.pointwise_kernels import add_moments, finish

__all__ = [
    "Part",
    "Pending",
    "PendingActivation",
    "PendingNorm",
    "finished",
    "in_parallel",
    "moments_of",
    "parts_of",
]

Rows = NDArray[np.float32]


@dataclass
class Part:
    """Some channels of a feature map, and what has yet to be done to them.

    Parameters
    ----------
    array
        (I, J, K, C) float32, contiguous.
    scale, shift, slope
        (C,) float32: `v = scale * v + shift`, then `v * slope` where that is negative; None when nothing is left to do.
    """

    array: Rows
    scale: NDArray[np.float32] | None = None
    shift: NDArray[np.float32] | None = None
    slope: NDArray[np.float32] | None = None

    def finish(self) -> None:
        """Do what is left, in new memory: the network may read the old values elsewhere, as residual blocks do."""
        if self.scale is None:
            return
        values = (self.scale, self.shift, self.slope)
        done = np.empty_like(self.array)
        in_parallel(len(done), lambda first, last: finish(self.array[first:last], *values, done[first:last]))
        self.array, self.scale, self.shift, self.slope = done, None, None, None


class Pending:
    """A tensor (1, C, I, J, K) to come; see the module's text.

    Parameters
    ----------
    parts
        Its channels, in order.
    """

    def __init__(self, parts: Sequence[Part]) -> None:
        self.parts = list(parts)
        self._whole: torch.Tensor | None = None

    @property
    def shape(self) -> torch.Size:
        """Of the tensor."""
        first = self.parts[0].array.shape
        return torch.Size((1, sum(part.array.shape[3] for part in self.parts), *first[:3]))

    def size(self, dim: int | None = None) -> torch.Size | int:
        """As a tensor's."""
        return self.shape if dim is None else self.shape[dim]

    def finished(self) -> torch.Tensor:
        """The tensor, channels-last."""
        if self._whole is None:
            for part in self.parts:
                part.finish()
            tensors = [torch.from_numpy(part.array).permute(3, 0, 1, 2)[None] for part in self.parts]
            self._whole = tensors[0] if len(tensors) == 1 else torch.cat(tensors, dim=1)
        return self._whole

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.finished(), name)

    def __len__(self) -> int:
        return 1

    def __getitem__(self, places: Any) -> torch.Tensor:
        return self.finished()[places]

    @classmethod
    def __torch_function__(
        cls, function: Callable[..., Any], kinds: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Concatenation of channels stays pending; anything else works on the finished tensors."""
        if function is torch.cat:
            joined = _concatenation(*args, **(kwargs or {}))
            if joined is not None:
                return joined
        given = {name: finished(value) for name, value in (kwargs or {}).items()}
        return function(*[finished(value) for value in args], **given)


for _name in ("add", "radd", "sub", "rsub", "mul", "rmul", "truediv", "rtruediv", "neg", "pow", "iadd", "imul"):

    def _operator(self: Pending, *others: Any, _name: str = f"__{_name}__") -> Any:
        return getattr(self.finished(), _name)(*[finished(other) for other in others])

    setattr(Pending, f"__{_name}__", _operator)


class PendingNorm(nn.Module):
    """Instance or group normalization, or batch normalization with its stored moments, of one window; the result pends.

    Parameters
    ----------
    layer
        In evaluation mode.
    """

    def __init__(self, layer: nn.InstanceNorm3d | nn.BatchNorm3d | nn.GroupNorm) -> None:
        super().__init__()
        self._layer = layer
        ones = torch.ones(layer.num_channels if isinstance(layer, nn.GroupNorm) else layer.num_features)
        self._weight = (ones if layer.weight is None else layer.weight.detach()).double().numpy()
        self._bias = (0 * ones if layer.bias is None else layer.bias.detach()).double().numpy()

    def forward(self, windows: torch.Tensor | Pending) -> torch.Tensor | Pending:
        """(1, C, I, J, K) float32; of several windows, the finished tensor."""
        if len(windows) != 1 or windows.shape[1] != len(self._weight):
            return self._layer(finished(windows))  # type: ignore[no-any-return]
        array = _rows(finished(windows))
        mean, variance = self._moments(array)
        scale = self._weight / np.sqrt(variance + self._layer.eps)
        shift = self._bias - mean * scale
        slope = np.ones(len(scale), np.float32)
        return Pending([Part(array, scale.astype(np.float32), shift.astype(np.float32), slope)])

    def _moments(self, array: Rows) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean and variance (C,) by which each channel is normalized."""
        if isinstance(self._layer, nn.GroupNorm):
            return grouped(*moments_of(array), self._layer.num_groups)
        if self._layer.running_mean is not None and self._layer.running_var is not None:
            return self._layer.running_mean.double().numpy(), self._layer.running_var.double().numpy()
        return moments_of(array)


class PendingActivation(nn.Module):
    """ReLU, leaky or parametric: left pending on what is pending, else done.

    Parameters
    ----------
    layer
        The activation.
    """

    def __init__(self, layer: nn.ReLU | nn.LeakyReLU | nn.PReLU) -> None:
        super().__init__()
        self._layer = layer

    def forward(self, windows: torch.Tensor | Pending) -> torch.Tensor | Pending:
        """(B, C, ...)."""
        if not isinstance(windows, Pending) or not all(_is_linear(part) for part in windows.parts):
            return self._layer(finished(windows))  # type: ignore[no-any-return]
        slopes = self._slopes(windows.shape[1])
        parts, start = [], 0
        for part in windows.parts:
            end = start + part.array.shape[3]
            parts.append(Part(part.array, part.scale, part.shift, slopes[start:end]))
            start = end
        return Pending(parts)

    def _slopes(self, n_channels: int) -> NDArray[np.float32]:
        if isinstance(self._layer, nn.PReLU):
            return np.array(np.broadcast_to(self._layer.weight.detach().numpy(), (n_channels,)))
        slope = self._layer.negative_slope if isinstance(self._layer, nn.LeakyReLU) else 0.0
        return np.full(n_channels, slope, np.float32)


def in_parallel(n: int, work: Callable[[int, int], Any]) -> list[Any]:
    """Call `work(first, last)` for equal shares of n, as many as torch has threads."""
    n_shares = min(torch.get_num_threads(), n)
    bounds = [n * k // n_shares for k in range(n_shares + 1)]
    if n_shares == 1:
        return [work(0, n)]
    with ThreadPoolExecutor(n_shares) as pool:
        return list(pool.map(work, bounds[:-1], bounds[1:]))


def parts_of(windows: torch.Tensor | Pending) -> list[Part]:
    """What a reader of one window (1, C, I, J, K) has to read."""
    return windows.parts if isinstance(windows, Pending) else [Part(_rows(windows))]


def moments_of(array: Rows) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and variance (C,) of each channel."""
    origin = np.ascontiguousarray(array[0, 0, 0])  # squares of differences to it lose fewer digits
    sums = in_parallel(len(array), lambda first, last: add_moments(array[first:last], origin))
    total = np.sum(sums, axis=0) / (array.size // array.shape[3])
    return total[0] + origin, np.maximum(total[1] - total[0] ** 2, 0.0)


def finished(value: Any) -> Any:
    """A value with nothing pending in it: a map, or lists, tuples and dictionaries of maps; others as they are."""
    if isinstance(value, Pending):
        return value.finished()
    if isinstance(value, list | tuple):
        return type(value)(finished(item) for item in value)
    if isinstance(value, dict):
        return {name: finished(item) for name, item in value.items()}
    return value


def _rows(tensor: torch.Tensor) -> Rows:
    """(I, J, K, C) of a tensor (1, C, I, J, K)."""
    array: Rows = tensor[0].permute(1, 2, 3, 0).contiguous().numpy()
    return array


def _is_linear(part: Part) -> bool:
    return part.slope is not None and bool((part.slope == 1).all())


def _concatenation(tensors: Sequence[Any], dim: int = 0) -> Pending | None:
    """The channels of several maps of one window, not copied; None if it is another concatenation."""
    shapes = {(len(tensor), tuple(tensor.shape[2:])) for tensor in tensors}
    if dim not in (1, -4) or len(shapes) != 1 or next(iter(shapes))[0] != 1:
        return None
    if any(tensor.dtype != torch.float32 for tensor in tensors if isinstance(tensor, torch.Tensor)):
        return None
    return Pending([part for tensor in tensors for part in parts_of(tensor)])
