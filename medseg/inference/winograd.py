"""Convolutions of 3 x 3 x 3 voxels with less than a third of the multiplications, for a CPU in float32.

Needs the package numba (extra `medseg[numba]`). See `winograd_kernels` for the method. A block of tiles is transformed,
multiplied and transformed back while it is in the processor's cache; blocks are shared among threads.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import pairwise
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from medseg.networks.monai_segresnet import ResidualBlock

if TYPE_CHECKING:
    from medseg.inference.pending import Part, Pending

__all__ = [
    "Winograd",
    "WinogradConvolution",
    "WinogradResidual",
    "gradient_of_weight",
    "has_numba",
    "suits_winograd",
    "to_points",
]

_Result = TypeVar("_Result")

_TRANSFORM = ((1.0, 0.0, 0.0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0.0, 0.0, 1.0))  # G of F(2, 3)
_N_POINTS = 64
_BLOCK_BYTES = 2_000_000  # of products and outputs: what the second cache and a share of the last hold
_LEAST_TILES = 96  # fewer would read the weights too often
_LEAST_CHANNELS = 16  # with fewer, the transforms cost more than they save
_APART = 16  # numbers between two points beyond their matrix, else 64 streams meet in the same lines of the cache
_NONE = np.empty(0, np.float32)


def has_numba() -> bool:
    """Whether the package is installed."""
    return find_spec("numba") is not None


def suits_winograd(layer: nn.Conv3d) -> bool:
    """Whether a layer is one of those that `WinogradConvolution` computes, on this processor."""
    if not has_numba():
        return False
    from medseg.inference.vectors import VECTOR

    return (
        layer.kernel_size == (3, 3, 3)
        and layer.stride == (1, 1, 1)
        and layer.dilation == (1, 1, 1)
        and layer.groups == 1
        and layer.padding_mode == "zeros"
        and (layer.padding == "same" or tuple(layer.padding) == (1, 1, 1))
        and min(layer.in_channels, layer.out_channels) >= _LEAST_CHANNELS
        and layer.in_channels % VECTOR == 0
        and layer.out_channels % VECTOR == 0
    )


def to_points(weight: torch.Tensor) -> NDArray[np.float32]:
    """(64, C, N) weights of Winograd's method from those of a convolution (N, C, 3, 3, 3)."""
    taps = weight.detach().double().permute(2, 3, 4, 1, 0).flatten(0, 2)  # (taps, C, N)
    points: NDArray[np.float32] = (_all_axes() @ taps.flatten(1)).float().view(-1, *taps.shape[1:]).numpy()
    return points


def gradient_of_weight(points: NDArray[np.float32]) -> torch.Tensor:
    """(N, C, 3, 3, 3) gradient of a convolution's weights from that of its points (64, C, N)."""
    taps = _all_axes().T @ torch.from_numpy(points).double().flatten(1)
    return taps.float().view(3, 3, 3, *points.shape[1:]).permute(4, 3, 0, 1, 2).contiguous()


def _all_axes() -> torch.Tensor:
    """(points, taps)."""
    one_axis = torch.tensor(_TRANSFORM, dtype=torch.float64)
    return torch.kron(torch.kron(one_axis, one_axis), one_axis)


@dataclass(frozen=True, eq=False)
class Winograd:
    """A convolution of 3 x 3 x 3 voxels over maps (I, J, K, C), block by block.

    Parameters
    ----------
    points
        (64, C, N), as `to_points` gives them.
    bias
        (N,).
    """

    points: NDArray[np.float32]
    bias: NDArray[np.float32]

    def run(self, x: Sequence[Part], y: NDArray[np.float32], *, is_added: bool = False) -> None:
        """Put the result (I, J, K, N) into y, or add it there."""
        from medseg.inference.winograd_kernels import inverse

        _, n_in, n_out = self.points.shape
        blocks = _Blocks.of(y.shape[:3], n_in, n_out)

        def work(share: Sequence[tuple[int, int]]) -> None:
            memory = _Memory(blocks.tiles, n_in, n_out)
            for start in memory.packed(x, share):
                memory.multiply(self.points)
                inverse(memory.outputs, memory.apart_out, self.bias, blocks.tiles, start, y, is_added)

        blocks.share_out(work)

    @staticmethod
    def gradient_of_points(x: Sequence[Part], gradient: NDArray[np.float32]) -> NDArray[np.float32]:
        """(64, C, N): how the points change a loss whose gradient of the result (I, J, K, N) is given."""
        from medseg.inference.winograd_kernels import add_products, pack, spread

        n_in, n_out = sum(part.array.shape[3] for part in x), gradient.shape[3]
        blocks = _Blocks.of(gradient.shape[:3], n_in, n_out)

        def work(share: Sequence[tuple[int, int]]) -> NDArray[np.float32]:
            memory, sums = _Memory(blocks.tiles, n_in, n_out), np.zeros((_N_POINTS, n_in, n_out), np.float32)
            rows = memory.rows_of(n_out)
            for start in memory.packed(x, share):
                pack(gradient, start, rows, 0, 0, *(_NONE,) * 3)
                spread(rows, blocks.tiles, memory.outputs, memory.apart_out)
                add_products(memory.products, memory.apart, memory.n_tiles, memory.outputs, memory.apart_out, sums)
            return sums

        total: NDArray[np.float32] = np.sum(blocks.share_out(work), axis=0)
        return total


@dataclass(frozen=True)
class _Blocks:
    """How a map is cut: so many tiles of 2 x 2 x 2 voxels a block, and where each block begins, in tiles."""

    tiles: tuple[int, int, int]
    starts: list[tuple[int, int]]

    @classmethod
    def of(cls, shape: Sequence[int], n_in: int, n_out: int) -> _Blocks:
        """Blocks that the cache holds, along the third axis as long as the map; at least one for each thread."""
        tiles = [math.ceil(n / 2) for n in shape]
        as_much_as_weights = n_in * n_out // (n_in + n_out)
        in_cache = _BLOCK_BYTES // (4 * _N_POINTS * (n_in + n_out))
        rows = max(1, max(_LEAST_TILES, as_much_as_weights, in_cache) // tiles[2])
        along_j = min(tiles[1], rows // 2 if rows > 8 else rows)
        along_i = min(tiles[0], max(1, rows // along_j))
        n_threads = torch.get_num_threads()
        while along_i * along_j > 1 and math.ceil(tiles[0] / along_i) * math.ceil(tiles[1] / along_j) < n_threads:
            along_i, along_j = (math.ceil(along_i / 2), along_j) if along_i > 1 else (1, math.ceil(along_j / 2))
        starts = [(first, second) for second in range(0, tiles[1], along_j) for first in range(0, tiles[0], along_i)]
        return cls((along_i, along_j, tiles[2]), starts)

    def share_out(self, work: Callable[[Sequence[tuple[int, int]]], _Result]) -> list[_Result]:
        """Let each thread do a share of the blocks; blocks of a share follow each other along the first axis."""
        n_threads = torch.get_num_threads()
        bounds = [len(self.starts) * n // n_threads for n in range(n_threads + 1)]
        shares = [self.starts[first:last] for first, last in pairwise(bounds) if last > first]
        if len(shares) == 1:
            return [work(shares[0])]
        with ThreadPoolExecutor(len(shares)) as pool:
            return list(pool.map(work, shares))


class _Memory:
    """What one thread computes a block in: for each point a matrix (tiles, C) and another one (tiles, N)."""

    def __init__(self, tiles: tuple[int, int, int], n_in: int, n_out: int) -> None:
        self.tiles, self.n_tiles = tiles, math.prod(tiles)
        self.rows = self.rows_of(n_in)
        self.apart, self.apart_out = self.n_tiles * n_in + _APART, self.n_tiles * n_out + _APART
        self.products = np.empty(_N_POINTS * self.apart, np.float32)
        self.outputs = np.empty(_N_POINTS * self.apart_out, np.float32)

    def rows_of(self, n_channels: int) -> NDArray[np.float32]:
        """A block's voxels, with one more on each side."""
        return np.empty((*(2 * n + 2 for n in self.tiles), n_channels), np.float32)

    def packed(self, x: Sequence[Part], starts: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
        """Fill `products` block by block; where each begins, in voxels."""
        from medseg.inference.winograd_kernels import forward, pack

        before = None
        for first, second in starts:
            start = (2 * first, 2 * second)
            follows = before == (first - self.tiles[0], second)  # the block before ends with two rows of this one
            if follows:
                self.rows[:2] = self.rows[-2:]
            before, channel = (first, second), 0
            for part in x:
                waiting = (_NONE,) * 3 if part.scale is None else (part.scale, part.shift, part.slope)
                pack(part.array, start, self.rows, 2 if follows else 0, channel, *waiting)
                channel += part.array.shape[3]
            forward(self.rows, self.tiles, self.products, self.apart)
            yield start

    def multiply(self, points: NDArray[np.float32]) -> None:
        """Fill `outputs`."""
        from medseg.inference.winograd_kernels import multiply

        multiply(self.products, self.apart, self.n_tiles, points, self.outputs, self.apart_out)


class WinogradConvolution(nn.Module):
    """A 3-D convolution of stride 1 that keeps its input's size, in float32, channels-last.

    Parameters
    ----------
    layer
        One that `suits_winograd`; its weights are transformed, which makes them 64 / 27 as large.
    """

    points: torch.Tensor
    bias: torch.Tensor

    def __init__(self, layer: nn.Conv3d) -> None:
        super().__init__()
        self.register_buffer("points", torch.from_numpy(to_points(layer.weight)))
        bias = torch.zeros(layer.out_channels) if layer.bias is None else layer.bias.detach().clone()
        self.register_buffer("bias", bias)

    def forward(self, windows: torch.Tensor | Pending) -> torch.Tensor:
        """(B, C, I, J, K) float32, or one window pending, to (B, N, I, J, K), channels-last."""
        from medseg.inference.pending import parts_of

        shape = (len(windows), *windows.shape[2:], self.points.shape[2])
        y = np.empty(shape, np.float32)  # numpy asks the system for large pages, torch for small ones
        for number in range(len(windows)):
            self._winograd.run(parts_of(windows if len(windows) == 1 else windows[number : number + 1]), y[number])
        return torch.from_numpy(y).permute(0, 4, 1, 2, 3)

    def add_to(self, total: torch.Tensor, window: torch.Tensor | Pending) -> None:
        """Add what a window (1, C, I, J, K) gives to another tensor (1, N, I, J, K), channels-last, where it lies."""
        from medseg.inference.pending import parts_of

        self._winograd.run(parts_of(window), total[0].permute(1, 2, 3, 0).numpy(), is_added=True)

    @property
    def _winograd(self) -> Winograd:
        return Winograd(self.points.numpy(), self.bias.numpy())


class WinogradResidual(nn.Module):
    """A residual block of SegResNet whose second convolution adds to what the block reads, where that lies.

    So there is one feature map less, and none is read again for the sum.

    Parameters
    ----------
    block
        Whose convolutions may be Winograd's; what it reads has to be its own, as in a SegResNet.
    """

    def __init__(self, block: ResidualBlock) -> None:
        super().__init__()
        self._block = block

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(B, C, I, J, K) to the same, which for one window is the same tensor."""
        block, last = self._block, self._block.conv2.conv
        is_readable = features.shape[0] == 1 and features[0].permute(1, 2, 3, 0).is_contiguous()
        if not is_readable or not isinstance(last, WinogradConvolution):
            return block(features)  # type: ignore[no-any-return]
        last.add_to(features, block.act(block.norm2(block.conv1(block.act(block.norm1(features))))))
        return features
