"""Thin modules around a network whose input or output is not what the sliding window gives and takes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

__all__ = ["AskedForClasses", "FirstOutput", "WithEmptyChannels"]


class FirstOutput(nn.Module):
    """The first of a network's outputs, its finest: the others are for deep supervision."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Logits (B, N, I, J, K) for an image (B, C, I, J, K)."""
        outputs: torch.Tensor | Sequence[torch.Tensor] = self.network(image)
        return outputs if isinstance(outputs, torch.Tensor) else outputs[0]


class AskedForClasses(nn.Module):
    """A network that is asked for classes by their numbers (VISTA3D), asked for the same ones each time.

    Parameters
    ----------
    network
        With an `image_encoder` and a `class_head`, as `monai.networks.nets.VISTA3D`.
    classes
        Numbers that the network knows classes by.
    """

    def __init__(self, network: nn.Module, classes: Sequence[int]) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("classes", torch.tensor(classes, dtype=torch.int64)[:, None], persistent=False)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Logits (B, 1 + N, I, J, K) for an image (B, 1, I, J, K): 0 for background, then a channel for each class."""
        _, features = self.network.image_encoder(image, with_point=False, with_label=True)  # type: ignore[operator]
        logits, _ = self.network.class_head(features, self.classes)  # type: ignore[operator]
        logits = logits.transpose(0, 1)
        return torch.cat([torch.zeros_like(logits[:, :1]), logits], dim=1)


class WithEmptyChannels(nn.Module):
    """Channels of zeros added behind those of the image, for a network that also takes guidance by clicks."""

    def __init__(self, network: nn.Module, n_channels: int) -> None:
        super().__init__()
        self.network, self.n_channels = network, n_channels

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Logits (B, N, I, J, K) for an image (B, C, I, J, K)."""
        logits: torch.Tensor = self.network(functional.pad(image, [0, 0, 0, 0, 0, 0, 0, self.n_channels]))
        return logits
