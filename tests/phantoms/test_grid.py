"""Grid: any orientation and tilt about one fixed point."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest

from medseg.errors import UsageError
from medseg.phantoms.grid import field_of_view_mm, make_grid, sample

ORIENTATIONS = ["".join(p) for pairs in permutations(("RL", "AP", "SI")) for p in product(*pairs)]


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_grid_has_the_orientation_spacing_and_shape_asked_for(orientation: str):
    geometry = make_grid((8, 9, 10), (1.0, 2.0, 3.0), orientation, 0.0)
    assert geometry.axcodes == orientation
    assert geometry.shape == (8, 9, 10)
    assert geometry.spacing == pytest.approx((1.0, 2.0, 3.0))


@pytest.mark.parametrize("orientation", ["RAS", "LPS", "SAR", "PIL"])
@pytest.mark.parametrize("degrees", [-45.0, 0.0, 12.5, 45.0])
def test_tilt_keeps_the_middle_the_spacing_and_the_axis_codes(orientation: str, degrees: float):
    geometry = make_grid((8, 9, 10), (1.0, 2.0, 3.0), orientation, degrees)
    assert geometry.to_world([3.5, 4.0, 4.5]) == pytest.approx([12.0, -35.0, 140.0])
    assert geometry.spacing == pytest.approx((1.0, 2.0, 3.0))
    assert geometry.axcodes == orientation


def test_tilt_turns_by_the_angle_asked_for():
    straight = make_grid((8, 8, 8), (1.0, 1.0, 1.0), "RAS", 0.0).affine[:3, :3]
    tilted = make_grid((8, 8, 8), (1.0, 1.0, 1.0), "RAS", 30.0).affine[:3, :3]
    rotation = tilted @ straight.T
    assert np.degrees(np.arccos((np.trace(rotation) - 1.0) / 2.0)) == pytest.approx(30.0)
    assert rotation @ [1.0, 2.0, 3.0] == pytest.approx([1.0, 2.0, 3.0])
    assert np.linalg.det(rotation) == pytest.approx(1.0)


def test_field_of_view_is_along_world_axes():
    assert field_of_view_mm(make_grid((10, 20, 30), (1.0, 2.0, 3.0), "SAR", 0.0)) == pytest.approx([90.0, 40.0, 10.0])


def test_sample_evaluates_at_voxel_centers():
    geometry = make_grid((4, 5, 6), (1.0, 2.0, 3.0), "LPS", 10.0)
    sampled = sample(geometry, lambda points: points[..., 0] + 10.0 * points[..., 2], np.float64)
    x, _, z = geometry.to_world([3, 1, 2])
    assert sampled.shape == geometry.shape
    assert sampled[3, 1, 2] == pytest.approx(x + 10.0 * z)


@pytest.mark.parametrize(
    ("shape", "spacing", "orientation", "degrees"),
    [
        ((0, 8, 8), (1.0, 1.0, 1.0), "RAS", 0.0),
        ((8, 8), (1.0, 1.0, 1.0), "RAS", 0.0),
        ((8, 8, 8), (1.0, 0.0, 1.0), "RAS", 0.0),
        ((8, 8, 8), (1.0, -1.0, 1.0), "RAS", 0.0),
        ((8, 8, 8), (1.0, float("nan"), 1.0), "RAS", 0.0),
        ((8, 8, 8), (1.0, 1.0, 1.0), "RLS", 0.0),
        ((8, 8, 8), (1.0, 1.0, 1.0), "ras", 0.0),
        ((8, 8, 8), (1.0, 1.0, 1.0), "RASA", 0.0),
        ((8, 8, 8), (1.0, 1.0, 1.0), "RAS", 46.0),
        ((8, 8, 8), (1.0, 1.0, 1.0), "RAS", float("nan")),
    ],
)
def test_grid_that_cannot_be_is_refused(shape, spacing, orientation, degrees):
    with pytest.raises(UsageError):
        make_grid(shape, spacing, orientation, degrees)
