"""MONAI's networks with instance heads; see `heads`."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
from torch import nn

from medseg.networks.heads import CENTER, N_HEAD_CHANNELS, OFFSET, OFFSET_UNIT_MM, SEMANTIC, as_named_heads
from medseg.networks.monai_segresnet import SegResNet
from medseg.networks.monai_unet import UNet

__all__ = ["SegResNetWithHeads", "UNetWithHeads"]


class UNetWithHeads(UNet):
    """MONAI's `UNet` with four output channels more than classes; its weights fit a plain `UNet` of as many."""

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:  # type: ignore[override]
        """Heads by name for an image (B, C, I, J, K)."""
        return as_named_heads(super().forward(x), self.out_channels - N_HEAD_CHANNELS)


class SegResNetWithHeads(SegResNet):
    """MONAI's `SegResNet` with a second expanding path for the instance heads.

    The semantic path is left as it is, weights and all: a trained network can be given heads without changing what it
    says of a voxel's class.
    """

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.instance_up_samples = deepcopy(self.up_samples)
        self.instance_up_layers = deepcopy(self.up_layers)
        self.instance_final = nn.Sequential(
            nn.Conv3d(self.init_filters + self.in_channels, 2 * self.init_filters, 3, padding=1),
            nn.LeakyReLU(0.1),
            nn.Conv3d(2 * self.init_filters, N_HEAD_CHANNELS, 1),
        )

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:  # type: ignore[override]
        """Heads by name for an image (B, C, I, J, K)."""
        deep, skips = self.encode(x)
        skips.reverse()
        features = deep
        for number, (up, layer) in enumerate(zip(self.instance_up_samples, self.instance_up_layers, strict=True)):
            features = layer(up(features) + skips[number + 1])
        own = self.instance_final(torch.cat([features, x], dim=1))
        return {SEMANTIC: self.decode(deep, skips), CENTER: own[:, :1], OFFSET: own[:, 1:] * OFFSET_UNIT_MM}
