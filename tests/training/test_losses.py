"""What the losses reward and punish."""

from __future__ import annotations

import torch

from medseg.training.losses import segmentation_loss


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
