"""Contours: exact there and back, whatever the pixels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray

from medseg.dicom.contours import fill_polygons, trace_outlines


def _area(polygon: NDArray[np.float64]) -> float:
    following = np.roll(polygon, -1, axis=0)
    return float((polygon[:, 0] * following[:, 1] - following[:, 0] * polygon[:, 1]).sum()) / 2.0


masks = arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.booleans())


@given(masks)
def test_filling_the_outlines_gives_the_mask_back(mask: NDArray[np.bool_]) -> None:
    polygons = trace_outlines(mask)
    np.testing.assert_array_equal(fill_polygons(polygons, mask.shape), mask)


@given(masks)
def test_the_area_within_is_that_of_the_pixels_and_no_polygon_overlaps_another(mask: NDArray[np.bool_]) -> None:
    polygons = trace_outlines(mask)
    assert sum(_area(polygon) for polygon in polygons) == pytest.approx(int(mask.sum()))
    filled = [fill_polygons([polygon], mask.shape) for polygon in polygons]
    assert (np.sum(filled, axis=0, initial=0) == mask).all()


def test_a_hole_is_joined_to_the_outside_by_a_keyhole() -> None:
    mask = np.ones((3, 3), dtype=bool)
    mask[1, 1] = False
    (polygon,) = trace_outlines(mask)
    assert len(polygon) == 4 + 4 + 2 + 1  # both squares, the way there and back, and where it leaves the outer one
    assert _area(polygon) == 8.0


def test_pixels_that_touch_at_a_corner_have_a_contour_each() -> None:
    assert len(trace_outlines(np.eye(2, dtype=bool))) == 2


def test_nothing_has_no_contour() -> None:
    assert trace_outlines(np.zeros((4, 4), dtype=bool)) == []
    assert not fill_polygons([], (4, 4)).any()


def test_a_polygon_of_another_maker_counts_the_centers_inside() -> None:
    triangle = np.array([[0.0, 0.0], [6.0, 0.0], [0.0, 6.0]])
    filled = fill_polygons([triangle], (8, 8))
    rows, columns = np.nonzero(filled)
    assert (rows + columns < 6.5).all()
    assert filled[1, 1]
    assert not filled[5, 5]
