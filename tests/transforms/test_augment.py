"""Training samples are a function of their seed, and framed as scans are."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from medseg.core.plan import IntensityPlan, Plan
from medseg.transforms.augment import TrainingCase, draw_sample
from tests.plans import tiny_plan

DIVISOR = (4, 4, 4)
UPTAKE = IntensityPlan(low=0.0, high=25.0, transform="sqrt", shift=1.0)
LOW, HIGH = np.array([8, 6, 10]), np.array([16, 14, 20])


def case(shape: tuple[int, int, int] = (24, 20, 30), *, lesion: bool = True) -> TrainingCase:
    generator = torch.Generator().manual_seed(0)
    label = torch.zeros((1, *shape))
    if lesion:
        label[:, LOW[0] : HIGH[0], LOW[1] : HIGH[1], LOW[2] : HIGH[2]] = 1
    image = label * 5 + torch.rand((1, *shape), generator=generator) + 1
    return TrainingCase("case", image, label, (4.0, 4.0, 3.0))


def plan_with(crop_share: float = 0.0, patch_size: tuple[int, int, int] = (48, 48, 48)) -> Plan:
    plan = tiny_plan(patch_size=patch_size, intensity=UPTAKE)
    return plan.model_copy(update={"training": plan.training.model_copy(update={"crop_share": crop_share})})


def samples(plan: Plan, n: int, drawn: TrainingCase | None = None) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    for seed in range(n):
        yield draw_sample(drawn or case(), plan, DIVISOR, seed)


def frame_of(image: torch.Tensor) -> np.ndarray:
    """(2, 3) first and last voxel of what is not padding; the image's own values are never exactly 0."""
    inside = np.argwhere(image[0, 0].numpy() != 0)
    return np.stack([inside.min(axis=0), inside.max(axis=0)])


def test_same_seed_same_sample_and_another_seed_another() -> None:
    first, again, other = (draw_sample(case(), plan_with(0.5), DIVISOR, seed) for seed in (7, 7, 9))
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert first[0].shape != other[0].shape or not torch.equal(first[0], other[0])


@pytest.mark.parametrize("shape", [(24, 20, 30), (9, 8, 7), (40, 24, 20)])
def test_sides_are_multiples_of_the_divisor_within_the_patch(shape: tuple[int, int, int]) -> None:
    small = TrainingCase("small", torch.rand((1, *shape)), (torch.rand((1, *shape)) > 0.9).float(), (1.0, 1.0, 1.0))
    for image, label in samples(plan_with(0.3, patch_size=(16, 24, 20)), 10, small):
        assert image.shape == label.shape
        assert all(
            side % 4 == 0 and 12 <= side <= most for side, most in zip(image.shape[2:], (16, 24, 20), strict=True)
        )


def test_image_and_label_move_together_and_labels_stay_whole() -> None:
    for image, label in samples(plan_with(0.3), 20):
        assert set(label.unique().tolist()) <= {0.0, 1.0}
        if label.sum() > 50:
            assert image[label > 0].mean() > image[(label == 0) & (image != 0)].mean() + 0.5


def test_a_turned_sample_keeps_the_margins_of_its_scan() -> None:
    """The frame follows the turned lesion, so that the network never sees a margin that no scan has."""
    own = np.sort(np.stack([LOW, np.array([24, 20, 30]) - HIGH]), axis=0)
    for image, label in samples(plan_with(), 30):
        frame, lesion = frame_of(image), np.argwhere(label[0, 0].numpy() > 0)
        margins = np.sort(np.stack([lesion.min(axis=0) - frame[0], frame[1] - lesion.max(axis=0)]), axis=0)
        assert np.abs(margins - own).max() <= 1.5  # voxels: rounding


def test_cut_samples_have_other_margins_and_some_have_no_lesion() -> None:
    counts = [int(label.sum()) for _, label in samples(plan_with(crop_share=1.0), 60)]
    assert min(counts) == 0
    assert sum(count == 0 for count in counts) < 30
    frames = [tuple(frame_of(image)[1] - frame_of(image)[0]) for image, _ in samples(plan_with(crop_share=1.0), 10)]
    assert len(set(frames)) == len(frames)


def test_a_scan_without_lesion_gives_samples_without() -> None:
    for image, label in samples(plan_with(0.5), 10, case(lesion=False)):
        assert label.sum() == 0
        assert (image != 0).any()


def test_windows_of_a_large_scan_are_often_about_a_lesion() -> None:
    label = torch.zeros((1, 60, 60, 60))
    label[:, 5:9, 5:9, 5:9] = 1
    large = TrainingCase("large", label + torch.rand(label.shape), label, (1.0, 1.0, 1.0))
    with_lesion = [int(label.sum()) > 0 for _, label in samples(plan_with(patch_size=(16, 16, 16)), 60, large)]
    assert 0.5 < np.mean(with_lesion) < 0.95


def test_nothing_taken_up_stays_nothing_whatever_the_gain() -> None:
    still = TrainingCase("air", torch.full((1, 20, 20, 20), -1.0), torch.zeros((1, 20, 20, 20)), (1.0, 1.0, 1.0))
    quiet = [image[image != 0] for image, _ in samples(plan_with(), 20, still)]
    unchanged = [bool((values + 1).abs().max() < 1e-5) for values in quiet]
    assert np.mean(unchanged) > 0.5  # the others got noise
    assert all((values + 1).abs().max() < 0.8 for values in quiet)


def test_the_case_itself_is_left_alone() -> None:
    original = case()
    before = original.image.clone(), original.label.clone()
    draw_sample(original, plan_with(0.5), DIVISOR, 3)
    assert torch.equal(original.image, before[0])
    assert torch.equal(original.label, before[1])


@pytest.mark.parametrize("patch", [(48, 48, 48), (16, 12, 20), (16, 16, 12)])
def test_samples_that_are_not_varied_are_mirrored_parts_of_the_case(patch: tuple[int, int, int]) -> None:
    plan = plan_with(patch_size=patch)
    plan = plan.model_copy(update={"training": plan.training.model_copy(update={"variation_share": 0.0})})
    source = case((25, 20, 31))  # odd and even sides
    whole = np.pad(source.image[0].numpy(), 4, mode="edge")  # a frame may stick out by half a voxel
    mirrored = set()
    for seed in range(12):
        image, _ = draw_sample(source, plan, DIVISOR, seed)
        (low, high), found = frame_of(image), False
        part = image[0, 0].numpy()[tuple(slice(a, b + 1) for a, b in zip(low, high, strict=True))]
        for signs in np.ndindex(2, 2, 2):
            turned = np.flip(whole, [axis for axis in range(3) if signs[axis]])
            first = np.argwhere(np.isclose(turned, part[0, 0, 0], atol=1e-4, rtol=0))
            for place in first.tolist():
                block = turned[tuple(slice(a, a + n) for a, n in zip(place, part.shape, strict=True))]
                if block.shape == part.shape and np.allclose(block, part, atol=1e-3):
                    found = True
                    mirrored.add(signs)
        assert found, seed
    assert len(mirrored) > 3
