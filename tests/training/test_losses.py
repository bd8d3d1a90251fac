"""What the losses reward and punish."""

from __future__ import annotations

import pytest
import torch

from medseg.training.losses import HeadsLoss, segmentation_loss


def logits(foreground: torch.Tensor) -> torch.Tensor:
    return torch.stack([-foreground, foreground])[None] * 4.0


def block(shape: tuple[int, int, int] = (12, 12, 12)) -> torch.Tensor:
    label = torch.zeros(shape)
    label[3:7, 3:7, 3:7] = 1
    return label


def test_the_reference_itself_costs_next_to_nothing_and_its_opposite_much() -> None:
    loss, label = segmentation_loss(), block()
    right = loss(logits(2 * label - 1), label[None, None])
    wrong = loss(logits(1 - 2 * label), label[None, None])
    assert right < 0.05 < 2.0 < wrong


def test_a_small_lesion_missed_costs_as_much_as_a_large_one() -> None:
    loss = segmentation_loss()
    costs = []
    for side in (2, 8):
        label = torch.zeros((1, 1, 12, 12, 12))
        label[..., :side, :side, :side] = 1
        background = torch.full((12, 12, 12), -1.0)
        cross_entropy = torch.nn.functional.cross_entropy(logits(background), label[:, 0].long())
        costs.append(float(loss(logits(background), label) - cross_entropy))
    assert abs(costs[0] - costs[1]) < 0.15


def heads_and_label(error_mm: float = 0.0) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Perfect heads of a scan with a large and a small lesion, the small one's offsets wrong by some mm."""
    label = torch.zeros(1, 7, 12, 12, 12)
    label[:, 6] = 1.0
    for low, high in ((1, 7), (9, 11)):
        part = (slice(None), slice(None), slice(low, high), slice(low, high), slice(low, high))
        label[part][:, 0] = 1.0
        label[part][:, 2:5] = 3.0
        label[part][:, 5] = 0.5 / (high - low) ** 3
    heads = {
        "semantic": torch.cat([20 - 40 * label[:, :1], 40 * label[:, :1] - 20], dim=1),
        "center": label[:, 1:2].clone(),
        "offset": label[:, 2:5].clone(),
    }
    heads["offset"][:, :, 9:11, 9:11, 9:11] += error_mm
    return heads, label


def test_perfect_heads_cost_nothing_and_a_small_lesion_counts_as_much_as_a_large_one() -> None:
    heads, label = heads_and_label()
    assert float(HeadsLoss()(heads, label)) == pytest.approx(0.0, abs=1e-3)
    small = float(HeadsLoss(only_heads=True)(*heads_and_label(error_mm=20.0)))
    heads["offset"][:, :, 1:7, 1:7, 1:7] += 20.0
    large = float(HeadsLoss(only_heads=True)(heads, label))
    assert small == pytest.approx(large)
    assert small > 1.0


def test_a_center_that_is_missed_costs_much_in_a_small_lesion_too() -> None:
    costs = []
    for low, high in ((1, 7), (9, 11)):
        heads, label = heads_and_label()
        heads["center"][:, :, low:high, low:high, low:high] += 1.0
        costs.append(float(HeadsLoss(only_heads=True)(heads, label)))
    large, small = costs
    assert large / small < 4  # by voxels alone it would be 27
    assert small > 5


def test_heads_are_not_trained_where_instances_are_unknown() -> None:
    heads, label = heads_and_label()
    label[:, 5:] = 0.0
    heads["center"] += 1.0
    heads["offset"] += 50.0
    assert float(HeadsLoss(only_heads=True)(heads, label)) == 0.0
