"""Lesions on another grid: voxel for voxel, or not at all."""

from __future__ import annotations

import numpy as np
import pytest

from medseg.core.geometry import Geometry
from medseg.core.lesions import Lesion, LesionMap
from medseg.errors import GridMismatch
from medseg.io.regrid import lesions_on_grid

GRID = Geometry((6, 5, 4), np.diag([2.0, 3.0, 4.0, 1.0]))


def _lesions(geometry: Geometry = GRID) -> LesionMap:
    array = np.zeros(geometry.shape, dtype=np.uint16)
    array[2, 1, 1], array[3:5, 2, 3] = 1, 2
    return LesionMap(array, geometry, (Lesion("cyst"), Lesion("lesion")), method="watershed", n_removed=3)


def test_a_cut_grid_is_put_into_the_whole_one_and_all_else_is_kept() -> None:
    part = _lesions().array[2:6, 1:4, 1:4]
    cut = LesionMap(part, GRID.cropped((2, 1, 1), (6, 4, 4)), _lesions().lesions, method="watershed", n_removed=3)
    whole = lesions_on_grid(cut, GRID, "cut.nii.gz")
    np.testing.assert_array_equal(whole.array, _lesions().array)
    assert whole.lesions == _lesions().lesions
    assert (whole.method, whole.n_removed) == ("watershed", 3)


def test_a_flipped_grid_is_turned() -> None:
    affine = GRID.affine.copy()
    affine[:, 0] *= -1
    affine[0, 3] = 10.0
    flipped = LesionMap(_lesions().array[::-1], Geometry(GRID.shape, affine), _lesions().lesions)
    np.testing.assert_array_equal(lesions_on_grid(flipped, GRID, "a").array, _lesions().array)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a + np.eye(4)[:, [3]] * 0 + _moved(0.5), r"up to 0\.25 voxels beside"),
        (lambda a: a + _moved(-20.0), "3 of 3 voxels lie outside"),
        (lambda a: a * np.array([0.5, 1, 1, 1]), "not resampled"),
    ],
)
def test_anything_else_is_refused(change: object, message: str) -> None:
    other = Geometry(GRID.shape, change(GRID.affine))  # type: ignore[operator]
    with pytest.raises(GridMismatch, match=message):
        lesions_on_grid(_lesions(other), GRID, "lesions.nii.gz")


def _moved(millimeters: float) -> np.ndarray:
    shift = np.zeros((4, 4))
    shift[0, 3] = millimeters
    return shift
