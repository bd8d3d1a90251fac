"""SemanticMap: numbers of the scheme, on the scan's grid."""

from __future__ import annotations

import numpy as np
import pytest

from medseg.core.geometry import Geometry
from medseg.core.labels import BINARY_LESION, LabelScheme
from medseg.core.semantic import SemanticMap
from medseg.errors import GridMismatch, InvalidLabelMap

GRID = Geometry((2, 3, 4), np.eye(4))
ORGANS = LabelScheme(classes={1: "kidney", 40: "tumor"})


def _filled(value: int, dtype=np.uint8) -> np.ndarray:
    array = np.zeros(GRID.shape, dtype=dtype)
    array[0, 0, :2] = value
    return array


def test_foreground_voxels_are_counted():
    assert SemanticMap(_filled(1), GRID, BINARY_LESION).n_foreground_voxels == 2
    assert SemanticMap(_filled(0), GRID, BINARY_LESION).n_foreground_voxels == 0


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_numbers_of_the_scheme_are_accepted(dtype):
    assert SemanticMap(_filled(40, dtype), GRID, ORGANS).array.dtype == dtype


def test_number_that_the_scheme_does_not_name_is_refused_by_number():
    with pytest.raises(InvalidLabelMap, match=r"\[2\].*'kidney'"):
        SemanticMap(_filled(2), GRID, ORGANS)


@pytest.mark.parametrize("dtype", [bool, np.int16, np.uint32, np.float32])
def test_other_types_are_refused(dtype):
    with pytest.raises(InvalidLabelMap, match="uint8 or uint16"):
        SemanticMap(_filled(1, dtype), GRID, BINARY_LESION)


def test_map_and_probability_of_another_shape_are_refused():
    with pytest.raises(GridMismatch, match="semantic map"):
        SemanticMap(np.zeros((2, 3, 5), dtype=np.uint8), GRID, BINARY_LESION)
    with pytest.raises(GridMismatch, match="probability"):
        SemanticMap(_filled(1), GRID, BINARY_LESION, np.zeros((1, 2, 3, 4)))


def test_map_and_probability_are_read_only():
    semantic = SemanticMap(_filled(1), GRID, BINARY_LESION, np.zeros(GRID.shape))
    assert semantic.probability is not None
    assert semantic.probability.dtype == np.float32
    for array in (semantic.array, semantic.probability):
        with pytest.raises(ValueError, match="read-only"):
            array[0, 0, 0] = 1


def test_repr_names_the_classes():
    assert repr(SemanticMap(_filled(1), GRID, ORGANS)).startswith("SemanticMap(kidney, tumor; Geometry(")
