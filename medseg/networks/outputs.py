"""Thin modules around a network whose input or output is not what the sliding window gives and takes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

__all__ = ["FirstOutput", "WithEmptyChannels"]


class FirstOutput(nn.Module):
    """The first of a network's outputs, its finest: the others are for deep supervision."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Logits (B, N, I, J, K) for an image (B, C, I, J, K)."""
        outputs: torch.Tensor | Sequence[torch.Tensor] = self.network(image)
        return outputs if isinstance(outputs, torch.Tensor) else outputs[0]


class WithEmptyChannels(nn.Module):
    """Channels of zeros added behind those of the image, for a network that also takes guidance by clicks."""

    def __init__(self, network: nn.Module, n_channels: int) -> None:
        super().__init__()
        self.network, self.n_channels = network, n_channels

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Logits (B, N, I, J, K) for an image (B, C, I, J, K)."""
        logits: torch.Tensor = self.network(functional.pad(image, [0, 0, 0, 0, 0, 0, 0, self.n_channels]))
        return logits
