"""Targets point from every voxel to its lesion's center, however the sample was turned."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from medseg.transforms.augment import TrainingCase, draw_sample
from medseg.transforms.instance_targets import LesionCenters, find_centers, instance_targets
from tests.plans import tiny_plan

SPACING = (1.0, 2.0, 4.0)


def two_blocks() -> np.ndarray:
    lesions = np.zeros((20, 16, 12), dtype=np.int32)
    lesions[2:9, 3:10, 2:7] = 1
    lesions[9:14, 4:9, 3:6] = 2
    return lesions


def test_center_is_the_voxel_of_the_lesion_nearest_to_its_centroid() -> None:
    ring = np.zeros((9, 9, 1), dtype=np.int32)
    ring[1:8, 1:8] = 1
    ring[2:7, 2:7] = 0
    centers = find_centers(ring.astype(np.float32), (1.0, 1.0, 1.0))
    i, j, k = centers.voxels[0].astype(int)
    assert ring[i, j, k] == 1
    blocks = find_centers(two_blocks().astype(np.float32), SPACING)
    assert blocks.voxels.tolist() == [[5, 6, 4], [11, 6, 4]]
    assert blocks.radii_mm[0] == pytest.approx((3 * 7 * 7 * 5 * 8 / (4 * np.pi)) ** (1 / 3))


def test_votes_of_a_lesion_meet_at_its_center_in_millimeters() -> None:
    lesions = two_blocks()
    centers = find_centers(lesions.astype(np.float32), SPACING)
    targets = instance_targets(lesions > 0, lesions, centers, SPACING)
    index = np.argwhere(lesions == 2)
    votes = index * SPACING + targets[1:4][:, lesions == 2].T
    assert np.allclose(votes, centers.voxels[1] * SPACING)
    assert targets[0][11, 6, 4] == pytest.approx(1.0)
    assert targets[0].max() == pytest.approx(1.0)


def test_each_lesion_has_the_same_weight_whatever_its_size() -> None:
    lesions = two_blocks()
    targets = instance_targets(lesions > 0, lesions, find_centers(lesions.astype(np.float32), SPACING), SPACING)
    assert [float(targets[4][lesions == n].sum()) for n in (1, 2)] == pytest.approx([0.5, 0.5])


def test_unknown_instances_are_not_trained_on() -> None:
    foreground = two_blocks() > 0
    targets = instance_targets(foreground, None, LesionCenters(np.zeros((0, 3)), np.zeros(0)), SPACING)
    assert not targets[4].any()
    assert not targets[5][foreground].any()
    assert targets[5][~foreground].all()


def test_a_center_beyond_the_sample_gives_offsets_and_no_peak() -> None:
    lesions = two_blocks()
    centers = find_centers(lesions.astype(np.float32), SPACING)
    cut = lesions[12:]
    moved = LesionCenters(centers.voxels - [12, 0, 0], centers.radii_mm)
    targets = instance_targets(cut > 0, cut, moved, SPACING)
    assert (targets[1][cut == 2] < 0).all()
    assert targets[0].max() < 1.0


@pytest.mark.parametrize("seed", range(6))
def test_targets_of_a_turned_sample_agree_with_its_own_instances(seed: int) -> None:
    lesions = torch.from_numpy(two_blocks().astype(np.float32))[None]
    case = TrainingCase("c", lesions.clone(), (lesions > 0).float(), SPACING, lesions)
    plan = tiny_plan(spacing_mm=SPACING, patch_size=(32, 32, 32))
    plan = plan.model_copy(update={"network": plan.network.model_copy(update={"instance_heads": True})})
    _, label = draw_sample(case, plan, (4, 4, 4), seed)
    assert label.shape[:2] == (1, 8)
    assert torch.equal(label[0, 7] > 0, label[0, 5] > 0)
    known = label[0, 5] > 0
    votes = torch.nonzero(known) * torch.tensor(SPACING) + label[0, 2:5][:, known].T
    centers = torch.unique((votes * 100).round(), dim=0)
    assert len(centers) == len(torch.unique(label[0, 7][known])) == 2
    first = votes[(votes - votes[0]).norm(dim=1) < 0.1]
    own = (torch.nonzero(known) * torch.tensor(SPACING))[(votes - votes[0]).norm(dim=1) < 0.1]
    assert float((own.mean(dim=0) - first[0]).norm()) < 2.5
