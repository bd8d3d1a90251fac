"""Random patches are a function of their seed."""

from __future__ import annotations

import torch

from medseg.transforms.augment import draw_patch, training_augmentation
from tests.plans import tiny_plan


def case(shape: tuple[int, int, int] = (24, 20, 30)) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    label = torch.zeros((1, *shape))
    label[:, 8:16, 6:14, 10:20] = 1
    return {"image": label * 5 + torch.rand((1, *shape), generator=generator), "label": label}


def test_same_seed_same_patch_and_another_seed_another() -> None:
    augmentation = training_augmentation(tiny_plan())
    first = draw_patch(augmentation, case(), 7)
    draw_patch(augmentation, case(), 8)  # what was drawn in between does not matter
    again = draw_patch(augmentation, case(), 7)
    other = draw_patch(augmentation, case(), 9)
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])


def test_patch_has_the_plans_size_also_from_a_smaller_scan() -> None:
    augmentation = training_augmentation(tiny_plan(patch_size=(16, 24, 20)))
    for shape in ((24, 20, 30), (9, 8, 7), (16, 24, 20)):
        small = {"image": torch.rand((1, *shape)), "label": (torch.rand((1, *shape)) > 0.5).float()}
        image, label = draw_patch(augmentation, small, 0)
        assert tuple(image.shape) == tuple(label.shape) == (1, 16, 24, 20)


def test_image_and_label_move_together_and_labels_stay_whole() -> None:
    augmentation = training_augmentation(tiny_plan())
    for seed in range(5):
        image, label = draw_patch(augmentation, case(), seed)
        assert set(label.unique().tolist()) <= {0.0, 1.0}
        if 0 < label.mean() < 1:
            assert image[label > 0].mean() > 2 * image[label == 0].mean()


def test_the_case_itself_is_left_alone() -> None:
    original = case()
    before = {key: value.clone() for key, value in original.items()}
    draw_patch(training_augmentation(tiny_plan()), original, 3)
    assert all(torch.equal(original[key], before[key]) for key in before)
