"""Ends of diameters of discs, ellipses and rectangles at random places and turns, against their analytic length."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from medseg.lesions.diameters import SliceDiameters, SlicePlane, measure_slices

PIXEL_MM = 0.8


def drawn(inside: Callable, reach: float, random: np.random.Generator, pixel_mm: float = PIXEL_MM) -> SliceDiameters:
    """Diameters of a body that is turned and moved at random."""
    turn, size = random.uniform(0, np.pi), int(np.ceil(reach / pixel_mm)) + 2
    axis = np.arange(-size, size + 1)
    x, y = (np.stack(np.meshgrid(axis, axis, indexing="ij")) + random.random((2, 1, 1))) * pixel_mm
    along, across = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    return measure_slices(inside(along, across)[None], SlicePlane.of(np.diag([pixel_mm, pixel_mm, 3.0])))


def ellipse_errors(a: float, b: float, n: int = 40, pixel_mm: float = PIXEL_MM) -> np.ndarray:
    random = np.random.default_rng(int(100 * a + b))
    bodies = [drawn(lambda x, y: (x / a) ** 2 + (y / b) ** 2 <= 1, a, random, pixel_mm) for _ in range(n)]
    return np.array([body.longest_mm for body in bodies]) - 2 * a


def rectangle_errors(a: float, b: float, n: int = 40, pixel_mm: float = PIXEL_MM) -> np.ndarray:
    random = np.random.default_rng(int(100 * a + b))
    bodies = [drawn(lambda x, y: (np.abs(x) < a) & (np.abs(y) < b), np.hypot(a, b), random, pixel_mm) for _ in range(n)]
    return np.array([body.longest_mm for body in bodies]) - 2 * np.hypot(a, b)


@pytest.mark.parametrize(("a", "b"), [(5, 5), (8, 8), (15, 15), (10, 7), (12, 6), (15, 10)])
def test_round_ends_are_drawn_to_within_half_a_millimeter(a: float, b: float) -> None:
    errors = ellipse_errors(a, b)
    assert np.abs(errors).max() < 0.5
    assert abs(errors.mean()) < 0.25


@pytest.mark.parametrize(("a", "b"), [(8, 8), (10, 6), (14, 9), (12, 12)])
def test_corners_are_drawn_to_where_the_sides_meet(a: float, b: float) -> None:
    """A quarter of a pixel outside the outermost centers they come out 0.5 to 0.6 mm short, at worst by 1.1 to 1.3."""
    errors = rectangle_errors(a, b)
    assert abs(errors.mean()) < 0.15
    assert np.sqrt((errors**2).mean()) < 0.35


def test_errors_shrink_with_the_pixels() -> None:
    for errors in (ellipse_errors, rectangle_errors):
        coarse, fine = (np.abs(errors(14.0, 9.0, 15, pixel_mm)).mean() for pixel_mm in (0.8, 0.2))
        assert coarse < 0.16
        assert fine < 0.05


def test_ends_lie_at_the_outermost_pixels_and_in_line_with_the_lesion() -> None:
    random = np.random.default_rng(0)
    for _ in range(20):
        found = drawn(lambda x, y: (np.abs(x) < 9) & (np.abs(y) < 6), 11.0, random)
        length = np.linalg.norm(found.ends[1] - found.ends[0])
        assert length * PIXEL_MM == pytest.approx(found.longest_mm)
    body = np.zeros((1, 30, 30), dtype=bool)
    body[0, 4:25, 7:19] = True
    found = measure_slices(body, SlicePlane.of(np.diag([PIXEL_MM, PIXEL_MM, 3.0])))
    corners = np.array([[3.5, 6.5], [24.5, 18.5]]), np.array([[3.5, 18.5], [24.5, 6.5]])
    assert min(np.abs(found.ends[:2] - corner).max() for corner in corners) < 0.05  # half a pixel beyond both sides


def test_thin_and_short_bodies_keep_a_quarter_of_a_pixel() -> None:
    plane = SlicePlane.of(np.eye(3))
    assert measure_slices(np.ones((1, 20, 1), dtype=bool), plane).longest_mm == pytest.approx(19.5)
    assert measure_slices(np.ones((1, 6, 6), dtype=bool), plane).longest_mm == pytest.approx(np.hypot(5.5, 5.0))
