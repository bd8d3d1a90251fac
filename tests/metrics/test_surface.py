"""Surfaces and their distances beside DeepMind's surface-distance, brute force, and by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from medseg.errors import UsageError
from medseg.metrics.surface import (
    average_distance,
    border_distances,
    hausdorff,
    surface_dice,
    surface_distances,
    surface_of,
    symmetric_average,
)
from medseg.metrics.surface_table import surface_areas
from tests.metrics import brute_force as slow
from tests.metrics.surface_masks import N_PAIRS, SPACINGS, pair

PUBLISHED = json.loads(Path(__file__).with_name("surface_distance.json").read_text())
ANY_SPACING = st.sampled_from(SPACINGS)


def distances_of(prediction, reference, spacing):
    return surface_distances(surface_of(prediction, spacing), surface_of(reference, spacing), spacing)


@pytest.mark.parametrize("number", range(N_PAIRS))
def test_figures_are_those_of_surface_distance(number: int) -> None:
    """Within 1e-9 of what the package itself computed (surface_masks.py says how)."""
    prediction, reference, spacing = pair(number)
    found, expected = distances_of(prediction, reference, spacing), PUBLISHED[number]
    close = {"abs": 1e-9, "rel": 1e-12}
    for percent, value in expected["hausdorff"].items():
        assert hausdorff(found, float(percent)) == pytest.approx(value, **close)
    for mm, value in expected["dice"].items():
        assert surface_dice(found, float(mm)) == pytest.approx(value, **close)
    assert average_distance(found) == pytest.approx(expected["average"], **close)
    areas = [found.reference_mm2.sum(), found.prediction_mm2.sum()]
    assert areas == pytest.approx(expected["area_mm2"], **close)


def test_an_installed_surface_distance_gives_the_stored_values() -> None:
    package = pytest.importorskip("surface_distance", reason="the package is not installed; its values are stored")
    prediction, reference, spacing = pair(5)
    found = package.compute_surface_distances(reference, prediction, spacing)
    stored = PUBLISHED[5]["hausdorff"]["95"]
    assert package.compute_robust_hausdorff(found, 95) == pytest.approx(stored, abs=1e-12)


@settings(max_examples=300, deadline=None)
@given(slow.maps(highest=1), ANY_SPACING, st.permutations(range(3)), st.sampled_from((0.5, 0.8, 1.0, 2.0)))
def test_figures_are_those_of_brute_force(sides, spacing, axes, tolerance) -> None:
    prediction, reference = (side.transpose(axes) > 0 for side in sides)  # any memory order
    found = distances_of(prediction, reference, spacing)
    areas = surface_areas(spacing)
    surfaces = [slow.surface(side, areas) for side in (prediction, reference)]
    if not all(surfaces):
        assert hausdorff(found) is symmetric_average(found) is average_distance(found) is None
        assert surface_dice(found, tolerance) == (None if not any(surfaces) else 0.0)
        return
    there, back = slow.directed(*surfaces, spacing), slow.directed(*surfaces[::-1], spacing)
    for percent in (50, 95, 100):
        expected = max(slow.weighted_percentile(pieces, percent) for pieces in (there, back))
        assert hausdorff(found, percent) == pytest.approx(expected, abs=1e-9)
    total = sum(area for _, area in there + back)
    within = sum(area for mm, area in there + back if mm <= tolerance)
    assert surface_dice(found, tolerance) == pytest.approx(within / total, abs=1e-9)
    assert symmetric_average(found) == pytest.approx(sum(mm * area for mm, area in there + back) / total, abs=1e-9)


@settings(max_examples=200, deadline=None)
@given(slow.maps(highest=1), ANY_SPACING)
def test_border_voxels_are_as_far_apart_as_in_a_distance_transform(sides, spacing) -> None:
    prediction, reference = (side > 0 for side in sides)
    if not prediction.any() or not reference.any():
        return
    borders = [mask & ~ndimage.binary_erosion(mask) for mask in (prediction, reference)]
    there, back = border_distances(prediction, reference, spacing)
    to_reference, to_prediction = (ndimage.distance_transform_edt(~b, sampling=spacing) for b in borders[::-1])
    assert np.allclose(there, to_reference[borders[0]], rtol=0, atol=1e-12)
    assert np.allclose(back, to_prediction[borders[1]], rtol=0, atol=1e-12)


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("shift", [1, 4, 40, 130])
def test_a_shifted_body_lies_as_far_as_it_was_shifted(spacing, shift: int) -> None:
    """Near ones are found by looking around, far ones by the tree; a plate has only faces across the shift."""
    plate = np.zeros((150, 9, 9), dtype=bool)
    plate[3:5] = True
    found = distances_of(np.roll(plate, shift, axis=0), plate, spacing)
    assert hausdorff(found, 100) == pytest.approx(shift * spacing[0], abs=1e-12)


@settings(max_examples=100, deadline=None)
@given(slow.maps(highest=1), ANY_SPACING, st.permutations(range(3)), st.integers(0, 2))
def test_figures_do_not_depend_on_where_a_body_lies(sides, spacing, axes, flipped) -> None:
    """A crop, a shift and swapped sides change nothing."""
    prediction, reference = (side > 0 for side in sides)
    if not prediction.any() or not reference.any():
        return
    found = distances_of(prediction, reference, spacing)
    wide = [np.pad(side, ((40, 3), (0, 35), (7, 7))) for side in (prediction, reference)]
    moved = distances_of(*wide, spacing)
    swapped = distances_of(reference, prediction, spacing)
    for other in (moved, swapped):
        assert hausdorff(other) == pytest.approx(hausdorff(found), abs=1e-12)
        assert surface_dice(other, 1.0) == pytest.approx(surface_dice(found, 1.0), abs=1e-12)
    offset = surface_of(wide[0][40:, :, 7:], spacing, (40, 0, 7))
    assert {tuple(c) for c in offset.corners.tolist()} == {
        tuple(c) for c in surface_of(wide[0], spacing).corners.tolist()
    }


def test_a_long_body_is_the_same_in_blocks_of_planes() -> None:
    body = np.zeros((100, 4, 4), dtype=bool)
    body[1:99, 1:3, 1:3] = True
    expected = slow.surface(body, surface_areas((1.0, 1.0, 1.0)))
    found = surface_of(body, (1.0, 1.0, 1.0))
    assert dict(zip(map(tuple, found.corners.tolist()), found.areas_mm2.tolist(), strict=True)) == expected


def test_a_flat_face_has_the_area_of_its_pixels() -> None:
    for axis, area in enumerate((3.0 * 0.7, 2.0 * 0.7, 2.0 * 3.0)):
        inside = [(0, 0), (0, 0), (0, 0)]
        slab = np.ones((20, 20, 20), dtype=bool)
        slab = np.pad(slab, [(1, 1) if a == axis else pad for a, pad in enumerate(inside)])
        found = surface_of(slab, (2.0, 3.0, 0.7))
        away = np.all((found.corners > 1) & (found.corners < 20), axis=1, where=np.arange(3) != axis)
        assert found.areas_mm2[away] == pytest.approx(area)


def test_hausdorff_is_exact_for_one_voxel_each() -> None:
    masks = [np.zeros((20, 20, 20), dtype=bool) for _ in range(2)]
    masks[0][2, 3, 4], masks[1][14, 3, 9] = True, True
    assert hausdorff(distances_of(*masks, (1.0, 1.0, 2.0)), 100) == pytest.approx(math.hypot(12, 10))


@pytest.mark.parametrize("percent", [-1.0, 101.0, float("nan")])
def test_a_percentile_outside_0_to_100_is_refused(percent: float) -> None:
    prediction, reference, spacing = pair(3)
    with pytest.raises(UsageError, match="percentile"):
        hausdorff(distances_of(prediction, reference, spacing), percent)


@pytest.mark.parametrize("tolerance", [-0.1, float("inf"), float("nan")])
def test_a_tolerance_that_is_no_length_is_refused(tolerance: float) -> None:
    prediction, reference, spacing = pair(3)
    with pytest.raises(UsageError, match="tolerance"):
        surface_dice(distances_of(prediction, reference, spacing), tolerance)
