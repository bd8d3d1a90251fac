"""Planes: every storage order of one scan gives one picture, in radiological convention."""

from __future__ import annotations

import numpy as np
import pytest

from medseg.core.geometry import Geometry
from medseg.reports.planes import plane_of
from tests.reports.cases import ORIENTATIONS, stored


def _shown(view: str, direction: tuple[int, int, int], order: tuple[int, ...], flips: tuple[bool, ...]) -> list[int]:
    """Row and column at which a voxel near one side of the world box appears, seen along the view's axis."""
    index = [5 + 4 * step for step in direction]
    array = np.zeros((11, 11, 11))
    array[tuple(index)] = 1.0
    turned, geometry = stored(array, Geometry((11, 11, 11), np.eye(4)), order, flips)
    plane = plane_of(geometry, view)
    return [int(place[0]) for place in np.nonzero(plane.show(turned.max(axis=plane.axis)))]


RIGHT, FRONT, HEAD = (1, 0, 0), (0, 1, 0), (0, 0, 1)
EXPECTED = [
    ("axial", RIGHT, [5, 1]),
    ("axial", FRONT, [1, 5]),
    ("coronal", RIGHT, [5, 1]),
    ("coronal", HEAD, [1, 5]),
    ("sagittal", FRONT, [5, 1]),
    ("sagittal", HEAD, [1, 5]),
]


@pytest.mark.parametrize(("order", "flips"), ORIENTATIONS)
def test_right_is_left_front_and_head_are_up_in_every_storage_order(
    order: tuple[int, ...], flips: tuple[bool, ...]
) -> None:
    assert [_shown(view, direction, order, flips) for view, direction, _ in EXPECTED] == [e[2] for e in EXPECTED]


def test_a_tilted_grid_keeps_its_sides() -> None:
    angle = np.deg2rad(25.0)
    tilt = np.eye(4)
    tilt[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    plane = plane_of(Geometry((9, 9, 9), tilt @ np.diag([-1.0, -1.0, 1.0, 1.0])), "axial")  # about LPS
    assert (plane.axis, plane.down, plane.right, plane.flip_down, plane.flip_right) == (2, 1, 0, False, False)


def test_marks_name_the_edges_from_the_top_clockwise() -> None:
    grid = Geometry((3, 3, 3), np.eye(4))
    assert plane_of(grid, "axial").marks == ("A", "L", "P", "R")
    assert plane_of(grid, "coronal").marks == ("S", "L", "I", "R")
    assert plane_of(grid, "sagittal").marks == ("S", "P", "I", "A")


def test_spacing_follows_the_axes() -> None:
    grid = Geometry((3, 4, 5), np.array([[0, 0, 5.0, 0], [2.0, 0, 0, 0], [0, 3.0, 0, 0], [0, 0, 0, 1]]))  # ASR
    assert plane_of(grid, "axial").spacing_mm == (2.0, 5.0)
    assert plane_of(grid, "sagittal").spacing_mm == (3.0, 2.0)


@pytest.mark.parametrize(("order", "flips"), ORIENTATIONS)
def test_extent_is_where_show_puts_the_box(order: tuple[int, ...], flips: tuple[bool, ...]) -> None:
    array = np.zeros((7, 8, 9), dtype=bool)
    array[1:3, 2:7, 4:5] = True
    turned, geometry = stored(array, Geometry(array.shape, np.eye(4)), order, flips)
    box = tuple(slice(int(axis.min()), int(axis.max()) + 1) for axis in np.nonzero(turned))
    plane = plane_of(geometry, "coronal")
    picture = plane.show(turned.max(axis=plane.axis))
    expected = np.zeros_like(picture)
    expected[plane.extent(box, geometry.shape)] = True
    np.testing.assert_array_equal(picture, expected)


def test_an_unknown_view_is_refused() -> None:
    with pytest.raises(ValueError, match="axial, coronal, sagittal; got 'frontal'"):
        plane_of(Geometry((3, 3, 3), np.eye(4)), "frontal")  # type: ignore[arg-type]
