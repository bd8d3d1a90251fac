"""From probabilities on the network's grid to the scan's own grid."""

from __future__ import annotations

import numpy as np

from medseg.core.geometry import Geometry
from medseg.core.labels import LabelScheme
from medseg.inference.export import softmax, to_scan_grid

SCHEME = LabelScheme(classes={1: "tumor", 2: "node"})


def test_softmax_sums_to_one_and_stands_large_logits() -> None:
    logits = np.array([1e4, 0.0, -1e4], dtype=np.float32).reshape(3, 1, 1, 1)
    np.testing.assert_array_equal(softmax(logits).ravel(), [1.0, 0.0, 0.0])
    random = np.random.default_rng(0).normal(size=(3, 4, 4, 4)).astype(np.float32)
    np.testing.assert_allclose(softmax(random).sum(axis=0), 1.0, atol=1e-6)


def test_most_probable_class_wins_and_a_tie_goes_to_the_lower_number() -> None:
    geometry = Geometry((1, 1, 4), np.eye(4))
    probabilities = np.array(
        [[0.5, 0.2, 0.1, 1 / 3], [0.5, 0.5, 0.3, 1 / 3], [0.0, 0.3, 0.6, 1 / 3]], dtype=np.float32
    ).reshape(3, 1, 1, 4)
    semantic = to_scan_grid(probabilities, geometry, geometry, SCHEME)
    assert semantic.array.dtype == np.uint8
    assert semantic.array.ravel().tolist() == [0, 1, 2, 0]
    np.testing.assert_allclose(semantic.probability.ravel(), [0.5, 0.8, 0.9, 2 / 3], atol=1e-6)


def test_a_ball_comes_back_with_its_volume_from_another_grid() -> None:
    coarse = Geometry((20, 20, 20), np.diag([3.0, 3.0, 3.0, 1.0]))
    fine_affine = np.diag([-1.5, 2.0, 1.0, 1.0])
    fine_affine[:3, 3] = (55.0, 1.0, 2.0)
    fine = Geometry((36, 28, 54), fine_affine)
    distance = np.linalg.norm(coarse.to_world(np.moveaxis(np.indices(coarse.shape), 0, -1)) - 28.0, axis=-1)
    foreground = np.clip(0.5 + (15.0 - distance) / 6.0, 0, 1).astype(np.float32)
    semantic = to_scan_grid(np.stack([1 - foreground, foreground]), coarse, fine, LabelScheme(classes={1: "tumor"}))
    volume = semantic.n_foreground_voxels * fine.voxel_volume_mm3
    # linear interpolation of the distance errs by at most h^2 / 8 * (2 / R) at spacing h, always outward: the 0.5
    # level shrinks by up to 0.15 mm, the volume by up to 3 * 0.15 / 15
    assert -0.03 < volume / (4 / 3 * np.pi * 15.0**3) - 1 < 0.005
    inside = np.argwhere(semantic.array)
    np.testing.assert_allclose(fine.to_world(inside).mean(axis=0), 28.0, atol=0.2)
