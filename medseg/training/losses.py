"""Training losses."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.losses import DiceCELoss
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, interpolate, smooth_l1_loss

from medseg.core.plan import Plan
from medseg.networks.heads import CENTER, OFFSET

__all__ = ["HeadsLoss", "SupervisedLoss", "blob_loss", "loss_of", "owner_loss", "segmentation_loss"]

_CENTER_WEIGHT = 100.0
_CENTER_WEIGHT_OF_LESIONS = 10.0  # of the same error, lesion by lesion
_OFFSET_WEIGHT = 2.0
_OFFSET_BETA_MM = 0.2  # errors above count by their length, those of small lesions too
_OFFSET_UNIT_MM = 10.0
_OWNER_UNIT_MM = 1.0  # by which a vote must be nearer to its own center for odds of e to 1


def loss_of(plan: Plan, *, only_heads: bool = False) -> nn.Module:
    """What a network of this plan, or only its instance heads, are trained to make small."""
    if plan.network.instance_heads:
        loss: nn.Module = HeadsLoss(
            only_heads=only_heads,
            has_blobs=plan.training.lesion_loss == "blob",
            owner_weight=plan.training.owner_weight,
            spacing_mm=plan.spacing_mm or (1.0, 1.0, 1.0),
        )
    else:
        loss = segmentation_loss()
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
    Where instances are unknown the heads are not trained. Takes heads by name and `draw_sample`'s label of 8 channels.

    Parameters
    ----------
    only_heads
        Leave out the segmentation loss.
    has_blobs
        Add `blob_loss` to the segmentation loss.
    owner_weight
        Of `owner_loss`, which is added; 0 for none.
    spacing_mm
        (3,) of the network's grid, for `owner_loss`.

    References
    ----------
    Cheng et al., Panoptic-DeepLab, CVPR 2020; Kofler et al., blob loss, IPMI 2023 (one lesion, one vote).
    """

    def __init__(
        self,
        *,
        only_heads: bool = False,
        has_blobs: bool = False,
        owner_weight: float = 0.0,
        spacing_mm: Sequence[float] = (1.0, 1.0, 1.0),
    ) -> None:
        super().__init__()
        self.semantic = None if only_heads else segmentation_loss()
        self.has_blobs, self.owner_weight, self.spacing_mm = has_blobs, owner_weight, tuple(spacing_mm)

    def forward(self, heads: dict[str, torch.Tensor], label: torch.Tensor) -> torch.Tensor:
        """The loss, a scalar."""
        classes, heat, offset, weight, is_known, numbers = torch.split(label, [1, 1, 3, 1, 1, 1], dim=1)
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
            if self.has_blobs:
                total = total + blob_loss(heads["semantic"].float(), classes, numbers)
        if self.owner_weight:
            owners = owner_loss(heads[OFFSET].float(), offset, numbers, weight, self.spacing_mm)
            total = total + self.owner_weight * owners
        return total


def blob_loss(logits: torch.Tensor, classes: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
    """Soft Dice and cross entropy of foreground for each lesion without the voxels of all others; mean over lesions.

    A lesion is seen against the background alone, and has one vote, however small it is. Samples without known lesions
    have no part in it.

    Parameters
    ----------
    logits
        (B, N, I, J, K), channel 0 the background.
    classes
        (B, 1, I, J, K) class numbers.
    numbers
        (B, 1, I, J, K) lesion numbers, 0 where a voxel's lesion is unknown or none.

    Returns
    -------
    A scalar: the mean over samples of the mean over a sample's lesions.

    References
    ----------
    Kofler et al., blob loss: instance imbalance aware loss functions for semantic segmentation, IPMI 2023. Lesions
    there are connected components; here those that a case tells apart, touching ones too.
    """
    margin = torch.logsumexp(logits[:, 1:], 1) - logits[:, 0]
    total = logits.sum() * 0.0
    for own_margin, own_class, own_number in zip(margin, classes[:, 0], numbers[:, 0], strict=True):
        is_background = own_class == 0
        number = torch.where(is_background, 0.0, own_number).long().flatten()
        counts = (number > 0) | is_background.flatten()  # unknown lesions are neither
        flat, number = own_margin.flatten()[counts], number[counts]
        entropies = binary_cross_entropy_with_logits(flat, (number > 0).float(), reduction="none")
        empty = flat.new_zeros(int(number.max()) + 1 if number.numel() else 1)
        sums = [empty.index_add(0, number, values) for values in (torch.ones_like(flat), flat.sigmoid(), entropies)]
        n_voxels, probability, entropy = sums
        is_there = n_voxels[1:] > 0
        if not bool(is_there.any()):
            continue
        n, p, e = (values[1:][is_there] for values in sums)
        dice = 1.0 - (2.0 * p + 1.0) / (p + probability[0] + n + 1.0)
        total = total + (dice + (e + entropy[0]) / (n + n_voxels[0])).mean()
    return total / len(logits)


def owner_loss(
    offsets: torch.Tensor,
    wanted: torch.Tensor,
    numbers: torch.Tensor,
    weight: torch.Tensor,
    spacing_mm: Sequence[float],
) -> torch.Tensor:
    """Cross entropy of the lesion whose center a voxel's vote is nearest to, as separation takes it.

    An error of the offset that leads to another lesion's center costs more than one of the same length that does not.

    Parameters
    ----------
    offsets, wanted
        (B, 3, I, J, K) millimeters, the network's and the truth.
    numbers
        (B, 1, I, J, K) lesion numbers, 0 where a voxel's lesion is unknown or none.
    weight
        (B, 1, I, J, K) of each voxel.
    spacing_mm
        (3,) of the grid.

    Returns
    -------
    A scalar: the weighted sum. Samples with less than two lesions have no part in it.

    References
    ----------
    Neven et al., Instance segmentation by jointly optimizing spatial embeddings and clustering bandwidth, CVPR 2019
    (votes trained by the instances that they make).
    """
    steps = offsets.new_tensor(tuple(spacing_mm))
    total = offsets.sum() * 0.0
    for own, target, number, share in zip(offsets, wanted, numbers[:, 0], weight[:, 0], strict=True):
        at = torch.nonzero(number > 0, as_tuple=True)
        lesions, owner = torch.unique(number[at], return_inverse=True)
        if len(lesions) < 2:
            continue
        positions = torch.stack(at, dim=1) * steps
        votes, aims = (positions + vectors[(slice(None), *at)].T for vectors in (own, target))
        sums = offsets.new_zeros((len(lesions), 3)).index_add(0, owner, aims)
        centers = sums / torch.bincount(owner)[:, None]
        squared = (votes[:, None] - centers).pow(2).sum(dim=2)
        nearness = -(squared + 1e-4).sqrt() / _OWNER_UNIT_MM  # the root of 0 has no slope
        total = total + (share[at] * cross_entropy(nearness, owner, reduction="none")).sum()
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
