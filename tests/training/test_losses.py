"""What the losses reward and punish."""

from __future__ import annotations

import pytest
import torch

from medseg.core.plan import with_changes
from medseg.errors import InvalidPlan
from medseg.training.losses import HeadsLoss, blob_loss, loss_of, owner_loss, segmentation_loss
from medseg.training.preparation import check_network
from tests.plans import tiny_plan


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
    label = torch.zeros(1, 8, 12, 12, 12)
    label[:, 6] = 1.0
    for number, (low, high) in enumerate(((1, 7), (9, 11)), 1):
        part = (slice(None), slice(None), slice(low, high), slice(low, high), slice(low, high))
        label[part][:, 0] = 1.0
        label[part][:, 2:5] = 3.0
        label[part][:, 5] = 0.5 / (high - low) ** 3
        label[part][:, 7] = number
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


def touching() -> tuple[torch.Tensor, torch.Tensor]:
    """Class and number of two lesions side by side, 4 x 8 x 8 and 2 x 2 x 2 voxels, (1, 1, 12, 12, 12) each."""
    numbers = torch.zeros((1, 1, 12, 12, 12))
    numbers[..., 1:5, 1:9, 1:9] = 1
    numbers[..., 5:7, 1:3, 1:3] = 2
    return (numbers > 0).float(), numbers


def one_by_one(foreground: torch.Tensor, numbers: torch.Tensor) -> float:
    """The loss as it is defined: for each lesion, over all voxels but the others'."""
    costs = []
    for n in range(1, int(numbers.max()) + 1):
        seen = (numbers == n) | (numbers == 0)
        margin, wanted = 8.0 * foreground[seen], (numbers == n)[seen].float()
        p = margin.sigmoid()
        dice = 1 - (2 * (p * wanted).sum() + 1) / (p.sum() + wanted.sum() + 1)
        costs.append(dice + torch.nn.functional.binary_cross_entropy_with_logits(margin, wanted))
    return float(torch.stack(costs).mean())


def test_blob_loss_sees_each_lesion_without_the_others() -> None:
    classes, numbers = touching()
    foreground = torch.randn((12, 12, 12), generator=torch.Generator().manual_seed(0))
    ours = float(blob_loss(logits(foreground), classes, numbers))
    assert ours == pytest.approx(one_by_one(foreground, numbers[0, 0]), rel=1e-5)
    assert float(blob_loss(logits(2 * classes[0, 0] - 1), classes, numbers)) < 0.1


def test_in_blob_loss_a_lesion_of_eight_voxels_missed_costs_nearly_half_of_one_of_256() -> None:
    classes, numbers = touching()
    costs = []
    for n in (1, 2):
        marked = 2 * (classes * (numbers != n)) - 1
        costs.append(float(blob_loss(logits(marked[0, 0]), classes, numbers)))
    assert 0.4 < costs[1] / costs[0] < 1  # by voxels it would be a 32nd


def test_blob_loss_leaves_out_unknown_lesions_and_samples_without_any() -> None:
    classes, numbers = touching()
    foreground = torch.randn((12, 12, 12), generator=torch.Generator().manual_seed(0))
    marks = foreground.clone().requires_grad_()
    known = numbers * (numbers == 1)
    alone = blob_loss(logits(marks), classes, known)
    alone.backward()
    assert marks.grad is not None
    assert not marks.grad[numbers[0, 0] == 2].any()
    expected = one_by_one(foreground, torch.where(numbers == 2, -1, numbers)[0, 0])
    assert alone.item() == pytest.approx(expected, rel=1e-5)
    nothing = torch.zeros_like(numbers)
    for its_classes in (nothing, classes):
        assert blob_loss(logits(foreground), its_classes, nothing).item() == 0.0
    twice = logits(foreground).repeat(2, 1, 1, 1, 1), classes.repeat(2, 1, 1, 1, 1), torch.cat([known, nothing])
    assert blob_loss(*twice).item() == pytest.approx(alone.item() / 2, rel=1e-5)


def test_blob_loss_is_the_plans_choice_and_needs_instances() -> None:
    plan = with_changes(tiny_plan(), {"training": {"lesion_loss": "blob"}})
    with pytest.raises(InvalidPlan, match=r'lesion_loss "blob" needs .* network\.instance_heads'):
        check_network(plan)
    plan = with_changes(plan, {"network": {"instance_heads": True}})
    check_network(plan)
    heads, label = heads_and_label()
    heads["semantic"][:, :, 9:11, 9:11, 9:11] *= -1.0
    without = loss_of(with_changes(plan, {"training": {"lesion_loss": "none"}}))(heads, label)
    added = blob_loss(heads["semantic"], label[:, :1], label[:, 7:])
    assert added.item() > 0.4
    assert loss_of(plan)(heads, label).item() == pytest.approx((without + added).item(), rel=1e-5)


def votes_and_truth(
    spacing: tuple[float, float, float],
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Offsets to the centers of two lesions side by side, again as the truth, numbers, and each voxel's weight."""
    _, numbers = touching()
    index = (
        torch.stack(torch.meshgrid(*(torch.arange(12.0),) * 3, indexing="ij"))
        * torch.tensor(spacing)[:, None, None, None]
    )
    wanted = torch.zeros(1, 3, 12, 12, 12)
    weight = torch.zeros_like(numbers)
    for number in (1, 2):
        own = numbers[0, 0] == number
        center = index[:, own].mean(dim=1)
        wanted[0][:, own] = center[:, None] - index[:, own]
        weight[0, 0][own] = 0.5 / own.sum()
    return wanted.clone(), wanted, numbers, weight


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (2.0, 0.5, 3.0)])
def test_owner_loss_is_the_cross_entropy_of_distances_to_all_centers(spacing: tuple[float, float, float]) -> None:
    votes, wanted, numbers, weight = votes_and_truth(spacing)
    votes += torch.randn(votes.shape, generator=torch.Generator().manual_seed(1))
    expected = 0.0
    places = torch.nonzero(numbers[0, 0] > 0)
    centers = {}
    for place in places:
        centers[int(numbers[0, 0][tuple(place)])] = place * torch.tensor(spacing) + wanted[0][:, *place]
    for place in places:
        vote = place * torch.tensor(spacing) + votes[0][:, *place]
        away = torch.stack([(vote - centers[number]).norm() for number in (1, 2)])
        own = int(numbers[0, 0][tuple(place)]) - 1
        expected -= float(weight[0, 0][tuple(place)] * (-away).log_softmax(0)[own])
    assert float(owner_loss(votes, wanted, numbers, weight, spacing)) == pytest.approx(expected, rel=1e-3)


def test_an_error_towards_another_lesion_costs_more_and_one_lesion_nothing() -> None:
    votes, wanted, numbers, weight = votes_and_truth((1.0, 1.0, 1.0))
    small = numbers[0, 0] == 2
    direction = torch.tensor([-1.0, 0.0, 0.0])[:, None]  # towards the large lesion
    costs = []
    for sign in (1.0, -1.0):
        off = votes.clone()
        off[0][:, small] += 2.0 * sign * direction
        costs.append(float(owner_loss(off, wanted, numbers, weight, (1.0, 1.0, 1.0))))
    assert costs[0] > 1.5 * costs[1]
    right = votes.clone().requires_grad_()
    value = owner_loss(right, wanted, numbers, weight, (1.0, 1.0, 1.0))
    value.backward()
    assert right.grad is not None
    assert bool(right.grad.isfinite().all())  # a vote on its center has a slope too
    assert float(owner_loss(votes + 5.0, wanted, numbers * (numbers == 1), weight, (1.0, 1.0, 1.0))) == 0.0


def test_owner_loss_is_the_plans_choice_and_needs_instances_and_a_spacing() -> None:
    plan = with_changes(tiny_plan(), {"training": {"owner_weight": 0.5}})
    with pytest.raises(InvalidPlan, match=r"owner_weight 0\.5 needs .* network\.instance_heads"):
        check_network(plan)
    plan = with_changes(plan, {"network": {"instance_heads": True}})
    check_network(plan)
    with pytest.raises(InvalidPlan, match=r"owner_weight .* set spacing_mm"):
        check_network(plan.model_copy(update={"spacing_mm": None}))
    heads, label = heads_and_label(error_mm=3.0)
    without = loss_of(with_changes(plan, {"training": {"owner_weight": 0.0}}))(heads, label)
    added = owner_loss(heads["offset"], label[:, 2:5], label[:, 7:], label[:, 5:6], plan.spacing_mm)
    assert added.item() > 0.0
    assert loss_of(plan)(heads, label).item() == pytest.approx((without + 0.5 * added).item(), rel=1e-5)
