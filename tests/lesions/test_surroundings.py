from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from medseg.core.geometry import Geometry
from medseg.core.labels import LabelScheme
from medseg.core.semantic import SemanticMap
from medseg.core.volume import Volume
from medseg.lesions.measure import measure_lesions
from medseg.lesions.shells import ball_steps, dilate

from .scenes import lesion_map, make_grid


def blobs(shape=(30, 28, 14), seed=1) -> np.ndarray:
    return ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 2.0) > 0.05


@pytest.mark.parametrize("spacing", [(0.8, 0.8, 3.0), (1, 1, 1), (0.7, 0.9, 1.4), (5, 5, 5)])
@pytest.mark.parametrize("radius", [1.0, 3.0, 4.4])
def test_dilation_reaches_what_lies_within_the_radius(spacing, radius):
    mask = blobs()
    near = ndimage.distance_transform_edt(~mask, sampling=spacing) <= radius + 1e-9
    np.testing.assert_array_equal(dilate(mask, ball_steps(make_grid(mask.shape, spacing), radius)), near)


def test_dilation_on_a_skewed_grid_is_by_true_millimeters():
    affine = np.diag([1.0, 1.0, 2.0, 1.0])
    affine[0, 1] = 0.5
    steps = ball_steps(Geometry((9, 9, 9), affine), 2.3)
    mask = np.zeros((9, 9, 9), bool)
    mask[4, 4, 4] = True
    world = Geometry((9, 9, 9), affine).to_world(np.moveaxis(np.indices((9, 9, 9)), 0, -1))
    expected = np.linalg.norm(world - world[4, 4, 4], axis=-1) <= 2.3
    np.testing.assert_array_equal(dilate(mask, steps), expected)


def measured(labels, values, geometry, organs=None):
    volume = Volume(np.asarray(values, np.float32)[None], geometry, ("ct",))
    return measure_lesions(lesion_map(labels, geometry), volume, organs=organs).rows


def test_rim_and_margin_are_the_outer_3_mm_inside_and_outside():
    geometry = make_grid((40, 40, 20), (1.0, 1.0, 2.0))
    labels = np.zeros(geometry.shape)
    labels[10:30, 10:30, 5:15] = 1
    outside = ndimage.distance_transform_edt(labels == 0, sampling=geometry.spacing)
    inside = ndimage.distance_transform_edt(labels == 1, sampling=geometry.spacing)
    rim, margin = (inside > 0) & (inside <= 3), (outside > 0) & (outside <= 3)
    (row,) = measured(labels, 100.0 * rim + 7.0 * margin + 50.0 * (inside > 3), geometry)
    assert (row["rim_3mm_n_voxels"], row["margin_3mm_n_voxels"]) == (rim.sum(), margin.sum())
    assert (row["rim_3mm_mean"], row["margin_3mm_mean"], row["rim_3mm_std"]) == (100.0, 7.0, 0.0)
    assert row["margin_3mm_contrast"] == pytest.approx(row["mean"] - 7.0)


def test_the_margin_leaves_out_other_lesions():
    geometry = make_grid((20, 8, 8))
    labels = np.zeros(geometry.shape)
    labels[4:8, 2:6, 2:6], labels[9:13, 2:6, 2:6] = 1, 2
    first, second = measured(labels, 1000.0 * (labels == 2) + 10.0 * (labels == 0), geometry)
    assert first["margin_3mm_mean"] == 10.0
    assert second["margin_3mm_mean"] == 10.0


def test_the_border_of_the_scan_is_no_rim():
    geometry = make_grid((10, 10, 10))
    labels = np.zeros(geometry.shape)
    labels[:8] = 1
    (row,) = measured(labels, labels, geometry)
    assert row["rim_3mm_n_voxels"] == 3 * 100
    assert row["margin_3mm_n_voxels"] == 2 * 100
    assert (row["touches_border"], row["area_on_border_mm2"]) == (True, 100.0 + 4 * 80.0)


def test_a_lesion_that_fills_the_scan_has_neither():
    (row,) = measured(np.ones((4, 4, 4)), np.ones((4, 4, 4)), make_grid((4, 4, 4)))
    assert (row["rim_3mm_n_voxels"], row["rim_3mm_mean"], row["margin_3mm_mean"]) == (0, None, None)
    assert row["margin_3mm_contrast"] is None


def test_the_margin_in_the_host_organ_is_clipped_to_it():
    geometry = make_grid((20, 10, 10))
    labels, organs = np.zeros(geometry.shape), np.zeros(geometry.shape, np.uint8)
    labels[8:12, 3:7, 3:7] = 1
    organs[6:14] = 1
    values = 5.0 * (organs == 1) + 50.0 * (organs == 0)
    organ_map = SemanticMap(organs, geometry, LabelScheme(classes={1: "liver"}))
    (row,) = measured(labels, values, geometry, organ_map)
    assert row["organ_margin_3mm_mean"] == 5.0
    assert row["margin_3mm_mean"] > 5.0
