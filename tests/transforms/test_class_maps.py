"""Class numbers on another grid."""

from __future__ import annotations

import numpy as np
import pytest
from skimage.transform import resize

from medseg.transforms.class_maps import resampled_classes


def scene() -> tuple[np.ndarray, np.ndarray]:
    """Boxes of three classes that touch, and a mask that leaves a part of the background out."""
    rng = np.random.default_rng(2)
    classes = np.zeros((20, 34, 34), np.uint8)
    for number in (1, 2, 3, 1, 2, 3):
        low = rng.integers(0, 14, 3)
        classes[tuple(slice(start, start + 9) for start in low)] = number
    mask = np.ones(classes.shape, bool)
    mask[:, :6] = False
    return classes, mask


def reference(classes: np.ndarray, mask: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Largest interpolated share, all labels in memory; ties to the nearest neighbor where it is among the tied."""
    signed = np.where((classes == 0) & ~mask, -1, classes.astype(int))
    numbers = np.unique(signed)
    options = {"mode": "edge", "anti_aliasing": False}
    shares = np.stack([resize((signed == number).astype(float), shape, 1, **options) for number in numbers])
    nearest = resize(signed.astype(float), shape, 0, **options)
    is_top = shares == shares.max(axis=0)
    chosen = numbers[is_top.argmax(axis=0)]
    for number, top in zip(numbers, is_top, strict=True):
        chosen[top & (nearest == number)] = number
    return np.maximum(chosen, 0)


@pytest.mark.parametrize("shape", [(26, 29, 29), (40, 68, 68), (10, 17, 17)])
def test_exact_map_is_the_largest_share_with_ties_to_the_nearest(shape: tuple[int, int, int]) -> None:
    classes, mask = scene()
    expected = reference(classes, mask, shape)
    assert np.array_equal(resampled_classes(classes, shape, mask=mask, is_exact=True), expected)
    fast = resampled_classes(classes, shape, mask=mask)
    assert np.count_nonzero(fast != expected) <= 1e-3 * expected.size  # ties that rounding breaks


def test_thick_axis_is_taken_by_the_nearest_plane() -> None:
    classes, mask = scene()
    apart = resampled_classes(classes, (40, 29, 29), mask=mask, apart=0, is_exact=True)
    planes = [reference(p, m, (29, 29)) for p, m in zip(classes, mask, strict=True)]
    assert np.array_equal(apart[::2], np.stack(planes))
    assert np.array_equal(apart[1::2], np.stack(planes))


def test_two_voxels_that_meet_in_the_middle_of_a_new_one_go_to_the_nearest() -> None:
    classes = np.array([1, 2, 0, 0], np.uint8).reshape(4, 1, 1)
    assert resampled_classes(classes, (2, 1, 1)).ravel().tolist() == [2, 0]


def test_same_grid_keeps_every_voxel() -> None:
    classes, mask = scene()
    assert np.array_equal(resampled_classes(classes, classes.shape, mask=mask), classes)
