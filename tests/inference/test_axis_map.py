"""Positions of one grid's voxels on another's axes."""

from __future__ import annotations

import numpy as np
import pytest

from medseg.core.geometry import Geometry
from medseg.inference.axis_map import axis_maps, clean_positions

LINEAR = ("linear", "linear", "linear")


@pytest.mark.parametrize(("n_network", "n_box", "first"), [(40, 20, 3), (17, 34, 0), (31, 24, 5), (244, 122, 11)])
@pytest.mark.parametrize("spacing", [0.7421875, 1.7, 0.123456789])
def test_a_resized_box_has_the_positions_that_resizing_computes(
    n_network: int, n_box: int, first: int, spacing: float
) -> None:
    ratio = n_box / n_network
    to_world = np.array([[spacing, -123.456], [0, 1]])
    to_scan = np.array([[ratio, first + 0.5 * ratio - 0.5], [0, 1]])
    to_network = np.linalg.inv(to_world @ to_scan) @ to_world
    positions = clean_positions(to_network[0, 0], to_network[0, 1], n_box + first, n_network)
    exact = (np.arange(n_box) + 0.5) * (n_network / n_box) - 0.5
    on_center = np.abs(exact - np.rint(exact)) < 1e-9
    np.testing.assert_array_equal(positions[first:], np.where(on_center, np.rint(exact), exact))
    scale, offset = to_network[0]
    flipped = clean_positions(-scale, scale * (n_box + first - 1) + offset, n_box, n_network)
    np.testing.assert_array_equal(flipped, positions[first:][::-1])


def test_other_positions_are_left_as_they_are() -> None:
    np.testing.assert_array_equal(clean_positions(0.61, 0.27, 5, 30), 0.61 * np.arange(5) + 0.27)


def test_positions_beyond_half_a_voxel_are_outside_and_read_the_outermost_one() -> None:
    source, target = Geometry((4, 1, 1), np.eye(4)), Geometry((9, 1, 1), np.diag([0.5, 1, 1, 1]))
    shifted = target.affine.copy()
    shifted[0, 3] = -1.0
    along = axis_maps(source, Geometry(target.shape, shifted), LINEAR)[0]
    assert along.is_outside.tolist() == [True, False, False, False, False, False, False, False, False]
    assert along.below.tolist() == [0, 0, 0, 0, 1, 1, 2, 2, 3]
    assert along.above.tolist() == [0, 0, 0, 1, 1, 2, 2, 3, 3]
    assert along.weight.tolist() == [0, 0, 0, 0.5, 0, 0.5, 0, 0.5, 0]


def test_grids_turned_against_each_other_have_no_axis_maps() -> None:
    turn = np.eye(4)
    turn[:2, :2] = [[0.8, -0.6], [0.6, 0.8]]
    assert axis_maps(Geometry((4, 5, 6), np.eye(4)), Geometry((4, 5, 6), turn), LINEAR) is None
