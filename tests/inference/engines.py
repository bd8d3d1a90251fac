"""Engines for tests: real ones around small modules, and ones whose device fails."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from medseg.inference.engine import Heads, TorchEngine, as_heads

CPU = torch.device("cpu")


class Voxelwise(nn.Module):
    """A network without neighborhood: windows and their overlap must not show in its result."""

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        return torch.cat([windows, 2.0 * windows + 1.0], dim=1)


class Mixer(nn.Module):
    """A network that looks at its surroundings and at the place within the window, so that order and overlap show."""

    def __init__(self, n_outputs: int = 3, n_channels: int = 1, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.mix = nn.Conv3d(n_channels, n_outputs, 3, padding=1)

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        place = torch.linspace(-1, 1, windows.shape[2])[:, None, None]
        return self.mix(windows) * (2.0 + place)


class TwoHeads(nn.Module):
    """A dictionary of heads with different numbers of channels."""

    def forward(self, windows: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"semantic": torch.cat([windows, -windows], dim=1), "center": 3.0 * windows}


def engine(network: nn.Module) -> TorchEngine:
    return TorchEngine(network, CPU, "float32")


class FailingEngine:
    """An engine whose device gives out: calls `fail` with the number of windows before it computes."""

    name = "torch"
    precision = "float32"
    device = CPU

    def __init__(self, network: nn.Module, fail: Callable[[int], None]) -> None:
        self._network, self._fail = network, fail
        self.batches: list[int] = []

    def __call__(self, windows: torch.Tensor) -> Heads:
        self.batches.append(len(windows))
        self._fail(len(windows))
        with torch.inference_mode():
            return as_heads(self._network(windows))
