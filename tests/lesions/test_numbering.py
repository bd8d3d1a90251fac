from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from medseg.core.geometry import Geometry
from medseg.errors import GridMismatch, InvalidLabelMap
from medseg.lesions.numbering import number_lesions

from .scenes import ORIENTATIONS, make_grid, reorient, restore

# 0.9375 mm: centroids fall exactly on the edge between two thousandths of a millimeter
GRIDS = [(1.0, 1.0, 1.0), (0.7, 0.7, 3.0), (0.9375, 0.9375, 2.5)]


def test_the_larger_lesion_comes_first():
    numbered, old = number_lesions(np.array([5, 0, 9, 9, 0, 2, 2, 2]).reshape(8, 1, 1), make_grid((8, 1, 1)))
    assert numbered.ravel().tolist() == [3, 0, 2, 2, 0, 1, 1, 1]
    assert old.tolist() == [2, 9, 5]


def test_equal_lesions_go_by_world_x_then_y_then_z():
    labels = np.zeros((3, 3, 3), dtype=np.uint8)
    labels[0, 0, 2], labels[0, 2, 0], labels[2, 0, 0], labels[0, 0, 0] = 1, 2, 3, 4
    _, old = number_lesions(labels, make_grid((3, 3, 3)))
    assert old.tolist() == [4, 1, 2, 3]


def test_world_not_array_decides():
    labels = np.array([1, 0, 2]).reshape(3, 1, 1)
    _, old = number_lesions(labels, Geometry((3, 1, 1), np.diag([-1.0, 1.0, 1.0, 1.0])))
    assert old.tolist() == [2, 1]


def test_final_numbers_stay_as_they_are():
    labels = np.array([2, 0, 1, 1, 0, 3]).reshape(6, 1, 1)
    numbered, old = number_lesions(labels, make_grid((6, 1, 1)))
    np.testing.assert_array_equal(numbered, labels)
    assert old.tolist() == [1, 2, 3]


@given(
    array=arrays(np.uint8, (5, 4, 3), elements=st.integers(0, 6)),
    orientation=st.sampled_from(ORIENTATIONS),
    spacing=st.sampled_from(GRIDS),
)
@settings(max_examples=150, deadline=None)
def test_numbers_do_not_depend_on_orientation(array, orientation, spacing):
    geometry = make_grid(array.shape, spacing)
    numbered, old = number_lesions(array, geometry)
    turned, turned_old = number_lesions(*reorient(array, geometry, *orientation))
    np.testing.assert_array_equal(restore(turned, *orientation), numbered)
    np.testing.assert_array_equal(turned_old, old)


@given(array=arrays(np.uint8, (5, 4, 3), elements=st.integers(0, 6)), seed=st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_numbers_do_not_depend_on_the_old_numbers(array, seed):
    geometry = make_grid(array.shape)
    new_names = np.array([0, *np.random.default_rng(seed).permutation(10_000)[:6] + 1])
    np.testing.assert_array_equal(number_lesions(new_names[array], geometry)[0], number_lesions(array, geometry)[0])


def test_lesions_around_one_center_are_ordered_alike_on_every_grid():
    labels = np.zeros((2, 2, 1), dtype=np.uint8)
    labels[0, 0], labels[1, 1], labels[0, 1], labels[1, 0] = 1, 1, 2, 2
    geometry = make_grid((2, 2, 1))
    for axes, directions in ORIENTATIONS:
        assert number_lesions(*reorient(labels, geometry, axes, directions))[1].tolist() == [1, 2]


@pytest.mark.parametrize("n_lesions", [65_535, 65_536, 70_000])
def test_more_lesions_than_uint16_holds_are_uint32(n_lesions):
    labels = np.zeros((50, 50, 29), dtype=np.uint32)
    labels.ravel()[:n_lesions] = np.arange(n_lesions, 0, -1)
    numbered, old = number_lesions(labels, make_grid(labels.shape))
    assert numbered.dtype == (np.uint16 if n_lesions <= 65_535 else np.uint32)
    assert old.size == numbered.max() == n_lesions
    assert np.array_equal(old[numbered[labels > 0] - 1], labels[labels > 0])


@pytest.mark.parametrize("dtype", [np.bool_, np.int8, np.uint8, np.int16, np.uint32, np.int64, np.uint64, ">i4"])
def test_every_integer_type_is_taken(dtype):
    labels = np.array([0, 1, 1, 0]).reshape(4, 1, 1).astype(dtype)
    numbered, old = number_lesions(labels, make_grid((4, 1, 1)))
    assert numbered.ravel().tolist() == [0, 1, 1, 0]
    assert old.tolist() == [1]


def test_numbers_far_apart_cost_no_memory():
    labels = np.array([2**63, 0, 3, 3], dtype=np.uint64).reshape(4, 1, 1)
    numbered, old = number_lesions(labels, make_grid((4, 1, 1)))
    assert numbered.ravel().tolist() == [2, 0, 1, 1]
    assert old.tolist() == [3, 2**63]


def test_empty_map_has_no_numbers():
    numbered, old = number_lesions(np.zeros((2, 3, 4), dtype=np.int16), make_grid((2, 3, 4)))
    assert numbered.dtype == np.uint16
    assert not numbered.any()
    assert old.size == 0


def test_negative_numbers_are_refused():
    with pytest.raises(InvalidLabelMap, match="-3"):
        number_lesions(np.array([-3, 1]).reshape(2, 1, 1), make_grid((2, 1, 1)))


def test_fractions_are_refused():
    with pytest.raises(InvalidLabelMap, match="float64"):
        number_lesions(np.ones((2, 1, 1)), make_grid((2, 1, 1)))


def test_another_shape_than_the_grid_is_refused():
    with pytest.raises(GridMismatch, match=r"\(2, 1, 1\)"):
        number_lesions(np.ones((2, 1, 1), dtype=np.uint8), make_grid((3, 1, 1)))
