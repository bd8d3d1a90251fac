"""LesionMap: exactly the numbers 1..n, one owner a voxel."""

from __future__ import annotations

import numpy as np
import pytest

from medseg.core.geometry import Geometry
from medseg.core.lesions import Lesion, LesionMap, label_dtype
from medseg.errors import GridMismatch, InvalidLabelMap

GRID = Geometry((2, 3, 4), np.eye(4))


def _map(numbers: list[int], n_lesions: int, dtype=np.uint16) -> LesionMap:
    array = np.zeros(GRID.shape, dtype=dtype)
    array.ravel()[: len(numbers)] = numbers
    return LesionMap(array, GRID, tuple(Lesion("lesion") for _ in range(n_lesions)))


@pytest.mark.parametrize(("numbers", "n_lesions"), [([], 0), ([1], 1), ([2, 1, 1, 3], 3)])
@pytest.mark.parametrize("dtype", [np.uint16, np.uint32])
def test_numbers_1_to_n_are_accepted(numbers, n_lesions: int, dtype):
    lesions = _map(numbers, n_lesions, dtype)
    assert lesions.n_lesions == n_lesions
    assert lesions.array.dtype == dtype


@pytest.mark.parametrize(
    ("numbers", "n_lesions", "message"),
    [
        ([1, 3], 3, r"missing \[2\]"),
        ([2], 2, r"missing \[1\]"),
        ([1, 2], 1, "highest is 2"),
        ([1], 2, "highest is 1"),
        ([], 1, "highest is 0"),
        ([1], 0, "highest is 1"),
    ],
)
def test_other_numbers_than_1_to_n_are_refused(numbers, n_lesions: int, message: str):
    with pytest.raises(InvalidLabelMap, match=message):
        _map(numbers, n_lesions)


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.uint64, np.float32, bool])
def test_other_types_are_refused(dtype):
    with pytest.raises(InvalidLabelMap, match="uint16 or uint32"):
        _map([1], 1, dtype)


def test_map_of_another_shape_is_refused():
    with pytest.raises(GridMismatch):
        LesionMap(np.zeros((3, 3, 4), dtype=np.uint16), GRID, ())


def test_map_is_read_only_and_lesions_are_a_tuple():
    array = np.zeros(GRID.shape, dtype=np.uint16)
    array[0, 0, 0] = 1
    lesions = LesionMap(array, GRID, [Lesion("tumor", 0.5)])  # type: ignore[arg-type]
    assert lesions.lesions == (Lesion("tumor", 0.5),)
    with pytest.raises(ValueError, match="read-only"):
        lesions.array[0, 0, 0] = 0


def test_repr_counts_the_lesions():
    assert repr(_map([1, 2], 2)).startswith("LesionMap(2 lesion(s) by read; Geometry(")


@pytest.mark.parametrize(("n", "dtype"), [(0, np.uint16), (65535, np.uint16), (65536, np.uint32)])
def test_label_type_is_the_smallest_that_holds_the_numbers(n: int, dtype):
    assert label_dtype(n) == dtype
