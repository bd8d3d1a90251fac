from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from medseg.lesions.foreground import (
    find_foreground,
    lesion_boxes,
    lesion_centroids,
    lesion_means,
    lesion_voxel_counts,
)

from .scenes import make_grid


@pytest.fixture
def labels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 5, size=(6, 5, 4)).astype(np.uint16)


@pytest.mark.parametrize("order", ["C", "F", "transposed", "flipped"])
def test_every_memory_order_lists_the_same_voxels(labels, order):
    stored = {
        "C": labels,
        "F": np.asfortranarray(labels),
        "transposed": np.ascontiguousarray(labels.transpose(1, 2, 0)).transpose(2, 0, 1),
        "flipped": np.ascontiguousarray(labels[::-1, :, ::-1])[::-1, :, ::-1],
    }[order]
    foreground = find_foreground(stored)
    rebuilt = np.zeros_like(labels)
    rebuilt[foreground.indices] = foreground.numbers
    np.testing.assert_array_equal(rebuilt, labels)
    assert foreground.numbers.size == np.count_nonzero(labels)


def test_counts_and_boxes_agree_with_scipy(labels):
    foreground = find_foreground(labels)
    assert lesion_voxel_counts(foreground, 4).tolist() == [np.sum(labels == n) for n in range(1, 5)]
    assert lesion_boxes(foreground, 4) == ndimage.find_objects(labels)


def test_means_agree_with_scipy(labels):
    values = np.random.default_rng(1).normal(size=labels.shape)
    foreground = find_foreground(labels)
    means = lesion_means(foreground, 4, values[foreground.indices])
    np.testing.assert_allclose(means, ndimage.mean(values, labels, range(1, 5)))


def test_centroids_agree_with_scipy(labels):
    geometry = make_grid(labels.shape, (0.7, 0.8, 3.0))
    centroids = lesion_centroids(find_foreground(labels), 4, geometry)
    np.testing.assert_allclose(centroids, geometry.to_world(ndimage.center_of_mass(labels > 0, labels, range(1, 5))))


def test_no_foreground_is_an_empty_list():
    foreground = find_foreground(np.zeros((3, 4, 5), dtype=np.uint16))
    assert foreground.numbers.size == 0
    assert lesion_boxes(foreground, 0) == []
    assert lesion_centroids(foreground, 0, make_grid((3, 4, 5))).shape == (0, 3)
