from __future__ import annotations

import numpy as np
import pytest

from medseg.core.geometry import Geometry
from medseg.lesions.crofton import crofton_area, crofton_weights, ellipsoid_area

from .scenes import ORIENTATIONS, make_grid, reorient


def body(spacing, semi_axes, offset, kind, turn=None) -> tuple[np.ndarray, Geometry]:
    """A body whose center lies `offset` of a voxel off a voxel center."""
    half = float(np.linalg.norm(semi_axes) if turn is not None or kind == "box" else max(semi_axes))
    shape = tuple(2 * int(np.ceil(half / step)) + 5 for step in spacing)
    geometry = make_grid(shape, spacing)
    center = ((np.array(shape) - 1) // 2 + offset) * spacing
    axes = np.ogrid[tuple(slice(0, n) for n in shape)]
    places = [axis * step - c for axis, step, c in zip(axes, spacing, center, strict=True)]
    if turn is not None:
        places = [sum(turn[row, column] * places[row] for row in range(3)) for column in range(3)]
    shares = [np.abs(place) / radius for place, radius in zip(places, semi_axes, strict=True)]
    inside = (
        sum(s * s for s in shares) <= 1 if kind == "ellipsoid" else np.maximum.reduce(np.broadcast_arrays(*shares)) < 1
    )
    return inside, geometry


def true_area(semi_axes, kind) -> float:
    a, b, c = semi_axes
    return float(ellipsoid_area(np.array(semi_axes))) if kind == "ellipsoid" else 8.0 * (a * b + a * c + b * c)


# A low-discrepancy lattice: every fraction of a voxel on every axis comes up about equally often.
LATTICE = (np.arange(60)[:, None] * np.array([0.8191725134, 0.6710436067, 0.5497004779]) + 0.5) % 1.0
TURN = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))[0]


@pytest.mark.parametrize(("spacing", "most"), [((1, 1, 1), 0.03), ((0.8, 0.8, 3.0), 0.03), ((0.8, 0.8, 5.0), 0.05)])
@pytest.mark.parametrize("semi_axes", [(5.0, 5.0, 5.0), (10.0, 10.0, 10.0), (5.0, 8.0, 12.0)])
@pytest.mark.parametrize("kind", ["ellipsoid", "box"])
def test_the_area_is_right_on_average_over_sub_voxel_offsets(spacing, most, semi_axes, kind):
    areas = []
    for offset in LATTICE:
        mask, geometry = body(spacing, semi_axes, offset, kind)
        areas.append(crofton_area(mask, crofton_weights(geometry)))
    assert np.mean(areas) == pytest.approx(true_area(semi_axes, kind), rel=most)


@pytest.mark.parametrize("kind", ["ellipsoid", "box"])
def test_a_turned_body_has_the_area_of_the_straight_one(kind):
    areas = []
    for offset in LATTICE:
        mask, geometry = body((0.8, 0.8, 3.0), (6.0, 8.0, 12.0), offset, kind, TURN)
        areas.append(crofton_area(mask, crofton_weights(geometry)))
    assert np.mean(areas) == pytest.approx(true_area((6.0, 8.0, 12.0), kind), rel=0.03)


@pytest.mark.parametrize("spacing", [(0.8, 0.8, 3.0), (1.0, 1.0, 1.0), (0.6, 0.9, 3.0)])
@pytest.mark.parametrize("orientation", ORIENTATIONS[1::7])
def test_the_area_does_not_depend_on_how_the_grid_is_stored(spacing, orientation):
    mask, geometry = body(spacing, (5.0, 7.0, 9.0), np.array([0.2, 0.4, 0.1]), "ellipsoid")
    turned, turned_geometry = reorient(mask, geometry, *orientation)
    here = crofton_area(mask, crofton_weights(geometry))
    assert crofton_area(turned, crofton_weights(turned_geometry)) == pytest.approx(here, rel=1e-9)


def test_the_area_does_not_depend_on_air_around():
    mask, geometry = body((0.8, 0.8, 3.0), (5.0, 7.0, 9.0), np.zeros(3), "ellipsoid")
    weights = crofton_weights(geometry)
    assert crofton_area(np.pad(mask, 3), weights) == pytest.approx(crofton_area(mask, weights), rel=1e-12)


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 1, 1), (1, 1, 2), (5, 5, 1), (2, 2, 2)])
@pytest.mark.parametrize("spacing", [(1, 1, 1), (0.8, 0.8, 3.0), (0.8, 0.8, 5.0), (4.0, 4.0, 3.0)])
def test_specks_have_an_area_between_half_and_some_twice_that_of_their_faces(shape, spacing):
    sides = np.array(shape) * spacing
    faces = 2 * (sides[0] * sides[1] + sides[0] * sides[2] + sides[1] * sides[2])
    area = crofton_area(np.ones(shape, dtype=bool), crofton_weights(make_grid(shape, spacing)))
    assert 0.5 * faces < area < 2.2 * faces


def test_the_area_of_a_ball_is_the_elementary_one():
    assert ellipsoid_area(np.array([3.0, 3.0, 3.0])) == pytest.approx(36 * np.pi)
    assert ellipsoid_area(np.array([[1.0, 1.0, 1e-9]]))[0] == pytest.approx(2 * np.pi)  # both sides of a disc


def test_a_skewed_grid_measures_as_a_straight_one():
    affine = np.diag([0.8, 0.8, 3.0, 1.0])
    affine[0, 2] = 0.5
    areas = []
    for offset in LATTICE[:12]:
        geometry = Geometry((60, 40, 13), affine)
        world = geometry.to_world(np.moveaxis(np.indices(geometry.shape), 0, -1))
        center = geometry.to_world(np.array([30, 20, 6]) + offset)
        areas.append(crofton_area(np.linalg.norm(world - center, axis=-1) <= 8.0, crofton_weights(geometry)))
    assert np.mean(areas) == pytest.approx(4 * np.pi * 64, rel=0.03)
