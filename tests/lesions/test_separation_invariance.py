"""One body on many grids comes apart alike: axes flipped and permuted, the scan cropped and padded."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from medseg.core.evidence import InstanceEvidence
from medseg.core.geometry import Geometry
from medseg.core.labels import LabelScheme
from medseg.core.lesions import LesionMap
from medseg.core.plan import SeparationPlan
from medseg.core.semantic import SemanticMap
from medseg.lesions.separate import separate_lesions

from .scenes import ORIENTATIONS, make_grid, reorient, restore

METHODS = ("components", "watershed", "offsets")
SPACINGS = [(1.0, 1.0, 1.0), (0.8, 0.8, 3.0), (1.37, 0.71, 0.93), (0.9, 0.8, 3.5)]  # the last: two cells a voxel
SHAPE = (26, 24, 22)


def smooth_noise(seed: int, sigma: float) -> np.ndarray:
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=SHAPE), sigma)
    return noise / noise.std()


def body(seed: int, spacing: tuple[float, float, float]) -> tuple[np.ndarray, Geometry, np.ndarray, InstanceEvidence]:
    """Lobed, touching lesions of two classes, a probability, and evidence on a coarser grid that is oblique to them."""
    classes = ((smooth_noise(seed, 2.0) > 0.3) * (1 + (smooth_noise(seed + 100, 4.0) > 0.8))).astype(np.uint8)
    geometry = make_grid(SHAPE, spacing)
    probability = (0.5 + 0.5 * np.tanh(smooth_noise(seed + 200, 1.0))).astype(np.float32)
    turn = np.deg2rad(20.0)
    affine = np.diag([2.1, 1.9, 2.3, 1.0])
    affine[:2, :2] = [[2.1 * np.cos(turn), -1.9 * np.sin(turn)], [2.1 * np.sin(turn), 1.9 * np.cos(turn)]]
    affine[:3, 3] = [-6.0, -9.0, -2.0]
    shape = (24, 24, 30)
    random = np.random.default_rng(seed)
    heat = ndimage.gaussian_filter(random.random(shape), 1.0)
    offsets = ndimage.gaussian_filter(random.normal(0, 12, (3, *shape)), (0, 1, 1, 1))
    return classes, geometry, probability, InstanceEvidence(heat, offsets, Geometry(shape, affine))


def separated(
    classes: np.ndarray, geometry: Geometry, probability: np.ndarray, evidence: InstanceEvidence, method: str
) -> LesionMap:
    scheme = LabelScheme(classes={1: "metastasis", 2: "node"})
    plan = SeparationPlan(method=method, h_min_mm=0.3, valley_share=0.2)
    return separate_lesions(SemanticMap(classes, geometry, scheme, probability), plan, evidence)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("seed", range(4))
def test_flipped_and_permuted_axes_change_nothing(method, seed):
    classes, geometry, probability, evidence = body(seed, SPACINGS[seed])
    here = separated(classes, geometry, probability, evidence, method)
    assert method == "components" or any(lesion.split_from_component for lesion in here.lesions)
    for orientation in ORIENTATIONS[seed::5]:
        turned, turned_geometry = reorient(classes, geometry, *orientation)
        there = separated(turned, turned_geometry, reorient(probability, geometry, *orientation)[0], evidence, method)
        np.testing.assert_array_equal(restore(there.array, *orientation), here.array)
        assert [lesion.split_from_component for lesion in there.lesions] == [
            lesion.split_from_component for lesion in here.lesions
        ]
        np.testing.assert_allclose(scores(there), scores(here), rtol=1e-6)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("seed", range(4))
def test_a_cropped_or_padded_scan_changes_nothing(method, seed):
    classes, geometry, probability, evidence = body(seed, SPACINGS[seed])
    inner = np.zeros_like(classes)
    inner[3:-2, 2:-4, 4:-1] = classes[3:-2, 2:-4, 4:-1]
    here = separated(inner, geometry, probability, evidence, method)
    filled = np.argwhere(inner)
    low, high = filled.min(axis=0), filled.max(axis=0) + 1
    for before, after in (((5, 0, 3), (1, 7, 2)), (-low, high - SHAPE)):
        moved, moved_geometry = framed(inner, geometry, before, after)
        there = separated(moved, moved_geometry, framed(probability, geometry, before, after)[0], evidence, method)
        back, _ = framed(there.array, moved_geometry, -np.array(before), -np.array(after))
        np.testing.assert_array_equal(back, here.array)
        np.testing.assert_allclose(scores(there), scores(here), rtol=1e-6)


def scores(lesions: LesionMap) -> list[float]:
    return [lesion.score for lesion in lesions.lesions]


def framed(
    array: np.ndarray, geometry: Geometry, before: tuple[int, ...] | np.ndarray, after: tuple[int, ...] | np.ndarray
) -> tuple[np.ndarray, Geometry]:
    """With planes of 0 added before and after on each axis, or taken away where negative."""
    wide = np.pad(array, np.maximum([before, after], 0).T)
    framed = wide[tuple(slice(max(0, -b), min(0, a) or None) for b, a in zip(before, after, strict=True))]
    affine = geometry.affine.copy()
    affine[:3, 3] = geometry.to_world(-np.array(before))
    return framed, Geometry(framed.shape, affine)
