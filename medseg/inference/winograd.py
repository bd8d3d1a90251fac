"""Convolutions of 3 x 3 x 3 voxels with less than a third of the multiplications, for a CPU in float32.

Needs the package numba (extra `medseg[numba]`). See `winograd_kernels` for the method. A block of tiles is transformed,
multiplied and transformed back while it is in the processor's cache; blocks are shared among threads.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from medseg.networks.monai_segresnet import ResidualBlock

if TYPE_CHECKING:
    from medseg.inference.pending import Part, Pending

__all__ = ["WinogradConvolution", "WinogradResidual", "has_numba", "suits_winograd"]

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
    from medseg.inference.winograd_kernels import VECTOR

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
        one_axis = torch.tensor(_TRANSFORM, dtype=torch.float64)
        all_axes = torch.kron(torch.kron(one_axis, one_axis), one_axis)  # (points, taps)
        taps = layer.weight.detach().double().permute(2, 3, 4, 1, 0).flatten(0, 2)  # (taps, C, N)
        points = (all_axes @ taps.flatten(1)).float().view(-1, *taps.shape[1:])  # (points, C, N)
        self.register_buffer("points", points)
        bias = torch.zeros(layer.out_channels) if layer.bias is None else layer.bias.detach().clone()
        self.register_buffer("bias", bias)

    def forward(self, windows: torch.Tensor | Pending) -> torch.Tensor:
        """(B, C, I, J, K) float32, or one window pending, to (B, N, I, J, K), channels-last."""
        from medseg.inference.pending import parts_of

        shape = (len(windows), *windows.shape[2:], self.points.shape[2])
        y = np.empty(shape, np.float32)  # numpy asks the system for large pages, torch for small ones
        for number in range(len(windows)):
            parts = parts_of(windows if len(windows) == 1 else windows[number : number + 1])
            self._one(parts, y[number])
        return torch.from_numpy(y).permute(0, 4, 1, 2, 3)

    def add_to(self, total: torch.Tensor, window: torch.Tensor | Pending) -> None:
        """Add what a window (1, C, I, J, K) gives to another tensor (1, N, I, J, K), channels-last, where it lies."""
        from medseg.inference.pending import parts_of

        self._one(parts_of(window), total[0].permute(1, 2, 3, 0).numpy(), is_added=True)

    def _one(self, x: Sequence[Part], y: NDArray[np.float32], *, is_added: bool = False) -> None:
        n_threads = torch.get_num_threads()
        tiles = [math.ceil(n / 2) for n in y.shape[:3]]
        block = self._block(tiles, n_threads)
        starts = [(first, second) for second in range(0, tiles[1], block[1]) for first in range(0, tiles[0], block[0])]
        bounds = [len(starts) * n // n_threads for n in range(n_threads + 1)]
        shares = [starts[first:last] for first, last in pairwise(bounds) if last > first]
        if len(shares) == 1:
            self._blocks(x, y, (*block, tiles[2]), starts, is_added)
            return
        with ThreadPoolExecutor(n_threads) as pool:
            list(pool.map(lambda share: self._blocks(x, y, (*block, tiles[2]), share, is_added), shares))

    def _block(self, tiles: Sequence[int], n_threads: int) -> tuple[int, int]:
        """How many tiles along the first two axes make a block; along the third it holds all."""
        _, n_in, n_out = self.points.shape
        as_much_as_weights = n_in * n_out // (n_in + n_out)
        in_cache = _BLOCK_BYTES // (4 * _N_POINTS * (n_in + n_out))
        rows = max(1, max(_LEAST_TILES, as_much_as_weights, in_cache) // tiles[2])
        along_j = min(tiles[1], rows // 2 if rows > 8 else rows)
        along_i = min(tiles[0], max(1, rows // along_j))
        while along_i * along_j > 1 and math.ceil(tiles[0] / along_i) * math.ceil(tiles[1] / along_j) < n_threads:
            along_i, along_j = (math.ceil(along_i / 2), along_j) if along_i > 1 else (1, math.ceil(along_j / 2))
        return along_i, along_j

    def _blocks(
        self,
        x: Sequence[Part],
        y: NDArray[np.float32],
        tiles: tuple[int, int, int],
        starts: Sequence[tuple[int, int]],
        is_added: bool,
    ) -> None:
        """Some of the blocks, with memory of this thread's own."""
        from medseg.inference.winograd_kernels import forward, inverse, multiply, pack

        _, n_in, n_out = self.points.shape
        n_tiles = math.prod(tiles)
        rows = np.empty((*(2 * n + 2 for n in tiles), n_in), np.float32)
        apart, apart_out = n_tiles * n_in + _APART, n_tiles * n_out + _APART
        products, outputs = np.empty(_N_POINTS * apart, np.float32), np.empty(_N_POINTS * apart_out, np.float32)
        points, bias = self.points.numpy(), self.bias.numpy()
        before = None
        for first, second in starts:
            start = (2 * first, 2 * second)
            follows = before == (first - tiles[0], second)  # the block before ends with two rows of this one
            if follows:
                rows[:2] = rows[-2:]
            before, channel = (first, second), 0
            for part in x:
                waiting = (_NONE,) * 3 if part.scale is None else (part.scale, part.shift, part.slope)
                pack(part.array, start, rows, 2 if follows else 0, channel, *waiting)
                channel += part.array.shape[3]
            forward(rows, tiles, products, apart)
            multiply(products, apart, n_tiles, points, outputs, apart_out)
            inverse(outputs, apart_out, bias, tiles, start, y, is_added)


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
