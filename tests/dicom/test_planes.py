"""Frames in the patient make a grid, or say why not."""

from __future__ import annotations

import numpy as np
import pytest

from medseg.dicom.planes import FramePlane, grid_of_planes, place
from medseg.errors import GridMismatch, InvalidGeometry

AXIAL = np.array([1.0, 0, 0, 0, 1.0, 0])


def _plane(z: float, y: float = 0.0, **more: object) -> FramePlane:
    given = {"orientation": AXIAL, "spacing": (2.0, 1.5), **more}
    return FramePlane(np.array([10.0, y, z]), **given)  # type: ignore[arg-type]


def test_empty_slices_between_are_part_of_the_grid_and_the_told_step_counts() -> None:
    grid = grid_of_planes([_plane(z, step_mm=2.0) for z in (0.0, 8.0, 4.0)], (5, 7), "a")
    assert grid.shape == (7, 5, 5)
    assert grid.spacing == (1.5, 2.0, 2.0)


def test_a_told_step_that_the_places_contradict_does_not_count() -> None:
    assert grid_of_planes([_plane(z, step_mm=3.0) for z in (0.0, 2.0, 4.0)], (5, 7), "a").shape[2] == 3


def test_a_tilted_stack_keeps_its_shear() -> None:
    grid = grid_of_planes([_plane(0.0, 0.0), _plane(3.0, 1.0), _plane(6.0, 2.0)], (5, 7), "a")
    assert grid.affine[:3, 2] == pytest.approx([0.0, -1.0, 3.0])
    assert grid.voxel_volume_mm3 == pytest.approx(9.0)


@pytest.mark.parametrize(
    ("planes", "message"),
    [
        ([_plane(0.0), _plane(2.0), _plane(5.0)], "no regular grid"),
        ([_plane(0.0)], "no volume"),
        ([_plane(0.0), _plane(2.0, spacing=(2.0, 2.0))], "orientation or spacing"),
        ([_plane(0.0, orientation=np.array([1.0, 0, 0, 1.0, 0, 0]), thickness_mm=1.0)], "perpendicular"),
    ],
)
def test_what_makes_no_grid_is_refused(planes: list[FramePlane], message: str) -> None:
    with pytest.raises(InvalidGeometry, match=message):
        grid_of_planes(planes, (5, 7), "a")


def test_pixels_outside_of_a_grid_are_refused() -> None:
    grid = grid_of_planes([_plane(0.0, thickness_mm=1.0)], (5, 7), "a")
    rows, columns = np.array([4, 5]), np.array([6, 6])
    with pytest.raises(GridMismatch, match="1 pixels lie outside"):
        place(_plane(0.0), rows, columns, grid, "a")
