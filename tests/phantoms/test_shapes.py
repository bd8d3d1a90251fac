"""Shapes: inside and outside where the formula says, and never beyond the sphere that they claim to fit."""

from __future__ import annotations

from math import pi, sqrt
from typing import get_args

import numpy as np
import pytest

from medseg.phantoms.shapes import Ellipsoid, Rim, ShapeName, Sphere, draw_shape

NAMES: tuple[ShapeName, ...] = get_args(ShapeName)


def _directions(n: int, seed: int = 0) -> np.ndarray:
    drawn = np.random.default_rng(seed).standard_normal((n, 3))
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


def test_sphere_holds_its_surface_and_nothing_beyond():
    sphere = Sphere(10.0, (1.0, 2.0, 3.0))
    points = np.array([[1.0, 2.0, 3.0], [6.0, 2.0, 3.0], [6.001, 2.0, 3.0], [1.0, 2.0, -1.999]])
    assert sphere.contains(points).tolist() == [True, True, False, True]


def test_sphere_and_ellipsoid_volumes_are_the_formulas():
    assert Sphere(2.0).analytic_volume_mm3 == pytest.approx(4.0 / 3.0 * pi)
    assert Ellipsoid((1.0, 2.0, 3.0)).analytic_volume_mm3 == pytest.approx(8.0 * pi)
    assert Rim(Ellipsoid((1.0, 2.0, 3.0))).analytic_volume_mm3 == pytest.approx(8.0 * pi)


def test_ellipsoid_turns_with_its_axes():
    diagonal = ((1 / sqrt(2), 1 / sqrt(2), 0.0), (-1 / sqrt(2), 1 / sqrt(2), 0.0), (0.0, 0.0, 1.0))
    long_diagonal = Ellipsoid((10.0, 2.0, 2.0), diagonal)
    along, across = np.array([[6.0, 6.0, 0.0]]), np.array([[6.0, -6.0, 0.0]])
    assert long_diagonal.contains(along).all()
    assert not long_diagonal.contains(across).any()


def test_rim_holds_its_core_but_the_core_takes_nothing_up():
    rim = Rim(_round_ellipsoid(20.0), core_fraction=0.5)
    core, shell, beyond = np.array([[4.9, 0, 0], [5.1, 0, 0], [10.1, 0, 0]])
    assert rim.contains(np.array([core, shell, beyond])).tolist() == [True, True, False]
    assert rim.uptake(np.array([core, shell])).tolist() == [0.0, 1.0]


def _round_ellipsoid(diameter: float) -> Ellipsoid:
    return Ellipsoid((diameter / 2, diameter / 2, diameter / 2))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("seed", range(5))
def test_drawn_shape_has_the_diameter_asked_for_and_lies_within_it(name: ShapeName, seed: int):
    shape = draw_shape(name, 30.0, np.random.default_rng(seed))
    assert shape.diameter_mm == pytest.approx(30.0)
    directions = _directions(5000)
    assert not shape.contains(15.001 * directions).any()
    assert shape.contains(14.0 * _farthest(shape, directions)).any(), "no point comes near the diameter claimed"


def _farthest(shape, directions: np.ndarray) -> np.ndarray:
    reach = np.array([shape.contains(r * directions) for r in np.linspace(1.0, 15.0, 60)]).sum(axis=0)
    return directions[np.argsort(reach)[-20:]]


@pytest.mark.parametrize("name", NAMES)
def test_drawn_shape_is_star_shaped_about_its_center(name: ShapeName):
    shape = draw_shape(name, 30.0, np.random.default_rng(7))
    inside = np.array([shape.contains(r * _directions(500)) for r in np.linspace(0.0, 16.0, 80)])
    assert inside[0].all()
    assert (np.diff(inside.astype(int), axis=0) <= 0).all(), "a ray leaves the shape and enters it again"


@pytest.mark.parametrize("name", NAMES)
def test_moved_shape_is_the_same_shape_elsewhere(name: ShapeName):
    shape = draw_shape(name, 20.0, np.random.default_rng(3))
    moved = shape.at((100.0, -50.0, 7.0))
    points = np.random.default_rng(0).uniform(-12.0, 12.0, (2000, 3))
    assert moved.center_mm == (100.0, -50.0, 7.0)
    assert np.array_equal(shape.contains(points), moved.contains(points + np.array([100.0, -50.0, 7.0])))


def test_infiltrating_surface_is_more_ragged_than_lobulated():
    def spread(name: ShapeName) -> float:
        shape = draw_shape(name, 30.0, np.random.default_rng(1))
        reach = np.array([shape.contains(r * _directions(2000)) for r in np.linspace(0.0, 15.0, 200)]).mean(axis=0)
        return float(reach.std() / reach.mean())

    assert spread("infiltrating") > 1.2 * spread("lobulated") > 0.0


@pytest.mark.parametrize("name", NAMES)
def test_same_seed_draws_the_same_shape(name: ShapeName):
    draw = [draw_shape(name, 25.0, np.random.default_rng(seed)) for seed in (4, 4, 5)]
    assert draw[0] == draw[1]
    assert (draw[0] != draw[2]) == (name != "sphere")
