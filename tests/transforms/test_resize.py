"""Splines as matrix products: the numbers of skimage."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from skimage.transform import resize

from medseg.transforms.resize import along_axis, resized

SHAPE = (21, 34, 130)
SHAPES = [(43, 34, 99), (21, 12, 131), (7, 70, 300), (1, 34, 130)]


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)


@pytest.mark.parametrize(("shape", "order"), list(product(SHAPES, (0, 1, 3))))
def test_equal_to_skimage(image: np.ndarray, shape: tuple[int, int, int], order: int) -> None:
    reference = resize(image.astype(np.float64), shape, order, mode="edge", anti_aliasing=False)
    assert np.abs(resized(image, shape, order=order) - reference).max() < 1e-5
    assert np.abs(resized(image, shape, order=order, dtype=np.float64) - reference).max() < 1e-13


def test_cubic_spline_is_brought_back_into_the_range_of_the_image() -> None:
    step = np.zeros((8, 8, 8), np.float32)
    step[4:] = 1.0
    free = resized(step, (19, 8, 8), order=3, is_clipped=False)
    assert free.min() < -0.05
    assert free.max() > 1.05
    clipped = resized(step, (19, 8, 8), order=3)
    assert (clipped.min(), clipped.max()) == (0.0, 1.0)


def test_planes_apart_are_each_resized_as_if_alone(image: np.ndarray) -> None:
    together = resized(image, (21, 50, 90), order=3, axes=(1, 2), dtype=np.float64)
    for plane, source in zip(together, image, strict=True):
        alone = resize(source.astype(np.float64), (50, 90), 3, mode="edge", anti_aliasing=False)
        assert np.abs(plane - alone).max() < 1e-13


def test_same_shape_is_the_image_itself(image: np.ndarray) -> None:
    assert resized(image, SHAPE, order=3) is image


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_layout_in_memory_does_not_matter(image: np.ndarray, axis: int) -> None:
    packed = along_axis(image, axis, 77, order=3, dtype=np.float64)
    turned = along_axis(np.asfortranarray(image), axis, 77, order=3, dtype=np.float64)
    assert np.abs(packed - turned).max() < 1e-14
