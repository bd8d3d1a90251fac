"""Training losses."""

from __future__ import annotations

import torch
from monai.losses import DiceCELoss
from torch import nn

__all__ = ["segmentation_loss"]


def segmentation_loss() -> nn.Module:
    """Soft Dice of each sample, without background, plus cross entropy, each with weight 1.

    Dice over a whole batch would let a large lesion in one sample outweigh a small one in another. Takes logits
    (B, N, I, J, K) and class numbers (B, 1, I, J, K).

    References
    ----------
    Milletari et al., V-Net, 3DV 2016 (Dice loss); Isensee et al., nnU-Net, Nature Methods 2021 (the sum).
    """
    loss: nn.Module = DiceCELoss(to_onehot_y=True, softmax=True, include_background=False, smooth_nr=1.0, smooth_dr=1.0)
    return _Float32Loss(loss)


class _Float32Loss(nn.Module):
    """Losses are summed over a million voxels: always in float32, also under autocast."""

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        value: torch.Tensor = self.loss(logits.float(), label)
        return value
