"""Training losses."""

from __future__ import annotations

import torch
from monai.losses import DiceCELoss
from torch import nn
from torch.nn.functional import interpolate, smooth_l1_loss

from medseg.core.plan import Plan
from medseg.networks.heads import CENTER, OFFSET

__all__ = ["HeadsLoss", "SupervisedLoss", "loss_of", "segmentation_loss"]

_CENTER_WEIGHT = 100.0
_CENTER_WEIGHT_OF_LESIONS = 10.0  # of the same error, lesion by lesion
_OFFSET_WEIGHT = 2.0
_OFFSET_BETA_MM = 0.2  # errors above count by their length, those of small lesions too
_OFFSET_UNIT_MM = 10.0


def loss_of(plan: Plan, *, only_heads: bool = False) -> nn.Module:
    """What a network of this plan, or only its instance heads, are trained to make small."""
    loss = HeadsLoss(only_heads=only_heads) if plan.network.instance_heads else segmentation_loss()
    return SupervisedLoss(loss) if plan.training.deep_supervision else loss


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


class HeadsLoss(nn.Module):
    """Segmentation loss, plus squared error of the center heatmap, plus smooth L1 error of the offsets.

    The offsets' error is the mean over each lesion, then over lesions, so that a small lesion counts as much as a large
    one. Such a mean of the heatmap's error is added to that over all voxels, in which a small lesion hardly shows.
    Where instances are unknown the heads are not trained. Takes heads by name and `draw_sample`'s label of 7 channels.

    Parameters
    ----------
    only_heads
        Leave out the segmentation loss.

    References
    ----------
    Cheng et al., Panoptic-DeepLab, CVPR 2020; Kofler et al., blob loss, IPMI 2023 (one lesion, one vote).
    """

    def __init__(self, *, only_heads: bool = False) -> None:
        super().__init__()
        self.semantic = None if only_heads else segmentation_loss()

    def forward(self, heads: dict[str, torch.Tensor], label: torch.Tensor) -> torch.Tensor:
        """The loss, a scalar."""
        classes, heat, offset, weight, is_known = torch.split(label, [1, 1, 3, 1, 1], dim=1)
        weight = weight / len(label)
        center_errors = is_known * (heads[CENTER].float() - heat) ** 2
        offset_errors = smooth_l1_loss(
            heads[OFFSET].float() / _OFFSET_UNIT_MM,
            offset / _OFFSET_UNIT_MM,
            reduction="none",
            beta=_OFFSET_BETA_MM / _OFFSET_UNIT_MM,
        )
        total = (
            _CENTER_WEIGHT * center_errors.mean()
            + _CENTER_WEIGHT_OF_LESIONS * (weight * center_errors).sum()
            + _OFFSET_WEIGHT * (weight * offset_errors).sum()
        )
        if self.semantic is not None:
            total = total + self.semantic(heads["semantic"], classes)
        return total


class SupervisedLoss(nn.Module):
    """A network's own loss, plus the segmentation loss at lower resolutions, each half of the one above.

    Takes what `medseg.networks.supervision.Supervised` gives; the label is brought to each resolution by nearest voxel.

    Parameters
    ----------
    own
        Of the highest resolution.

    References
    ----------
    Isensee et al., nnU-Net, Nature Methods 2021.
    """

    def __init__(self, own: nn.Module) -> None:
        super().__init__()
        self.own = own
        self.lower = segmentation_loss()

    def forward(
        self, outputs: tuple[torch.Tensor | dict[str, torch.Tensor], list[torch.Tensor]], label: torch.Tensor
    ) -> torch.Tensor:
        """The loss, a scalar."""
        own, lower = outputs
        total: torch.Tensor = self.own(own, label)
        for number, logits in enumerate(lower, 1):
            classes = interpolate(label[:, :1], size=logits.shape[2:], mode="nearest-exact")
            total = total + 0.5**number * self.lower(logits, classes)
        return total
