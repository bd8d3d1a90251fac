"""Resizing back has the numbers of torch's own interpolation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from medseg.inference.resized_axis import ResizeRule, area_matrix, box_of, resized_neighbors

LENGTHS = [(16, 16), (16, 41), (16, 96), (7, 13), (128, 512), (1, 5)]


@pytest.mark.parametrize(("n_source", "n_box"), LENGTHS)
@pytest.mark.parametrize(("rule", "mode"), [("area", "area"), ("floor", "nearest"), ("corners", "linear")])
def test_neighbors_give_what_torch_interpolates(n_source: int, n_box: int, rule: ResizeRule, mode: str) -> None:
    values = np.random.default_rng(0).normal(size=n_source).astype(np.float32)
    corners = {"align_corners": True} if rule == "corners" else {}
    expected = functional.interpolate(torch.from_numpy(values)[None, None], n_box, mode=mode, **corners)[0, 0].numpy()
    below, above, weight = resized_neighbors(np.arange(n_box), n_box, n_source, rule)
    # torch computes positions between corners in float32: 1e-5 of a voxel at 128, between values that differ by up to 5
    atol = 1e-4 if rule == "corners" else 1e-6
    np.testing.assert_allclose(values[below] * (1 - weight) + values[above] * weight, expected, rtol=0, atol=atol)


@pytest.mark.parametrize(("n_source", "n_box"), [(16, 16), (41, 16), (96, 16), (13, 7), (128, 40)])
def test_areas_give_what_torch_averages(n_source: int, n_box: int) -> None:
    values = np.random.default_rng(0).normal(size=n_source).astype(np.float32)
    expected = functional.interpolate(torch.from_numpy(values)[None, None], n_box, mode="area")[0, 0].numpy()
    np.testing.assert_allclose(area_matrix(n_source, n_box) @ values, expected, atol=1e-6)


@pytest.mark.parametrize("is_flipped", [False, True])
def test_a_box_within_the_target_is_counted_from_its_own_start(is_flipped: bool) -> None:
    # 10 target voxels; 3..8 were resized to 4
    scale = 4 / 6
    positions = (np.arange(6) + 0.5) * scale - 0.5  # of the six, from the source's start
    slope, offset = (scale, positions[0] - 3 * scale) if not is_flipped else (-scale, positions[-1] + 3 * scale)
    n_box, inward = box_of(slope, offset, 10, 4)
    assert n_box == 6
    expected = [0, 0, 0, 0, 1, 2, 3, 4, 5, 5]
    assert inward.tolist() == (expected if not is_flipped else [5, 5, 5, 5, 4, 3, 2, 1, 0, 0])
