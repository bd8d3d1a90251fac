from __future__ import annotations

import numpy as np
import pytest
import SimpleITK

from medseg.errors import UsageError
from medseg.lesions.components import label_components


def two_voxels(second: tuple[int, int, int]) -> np.ndarray:
    array = np.zeros((3, 3, 3), dtype=np.uint8)
    array[0, 0, 0] = array[second] = 1
    return array


@pytest.mark.parametrize(("connectivity", "n_components"), [(6, 1), (18, 1), (26, 1)])
def test_face_contact_joins_at_every_connectivity(connectivity, n_components):
    assert label_components(two_voxels((1, 0, 0)), connectivity)[1] == n_components


@pytest.mark.parametrize(("connectivity", "n_components"), [(6, 2), (18, 1), (26, 1)])
def test_edge_contact_joins_at_18_and_26(connectivity, n_components):
    assert label_components(two_voxels((1, 1, 0)), connectivity)[1] == n_components


@pytest.mark.parametrize(("connectivity", "n_components"), [(6, 2), (18, 2), (26, 1)])
def test_corner_contact_joins_lesions_only_at_26(connectivity, n_components):
    assert label_components(two_voxels((1, 1, 1)), connectivity)[1] == n_components


def test_touching_classes_are_two_components():
    array = np.ones((4, 3, 3), dtype=np.uint8)
    array[2:] = 2
    labels, n_components = label_components(array)
    assert n_components == 2
    assert len(np.unique(labels[:2])) == len(np.unique(labels[2:])) == 1


def test_one_class_around_another_is_one_component_each():
    array = np.ones((5, 5, 5), dtype=np.uint8)
    array[2, 2, 2] = 2
    assert label_components(array, 6)[1] == 2


def test_empty_map_has_no_component():
    labels, n_components = label_components(np.zeros((4, 5, 6), dtype=np.uint8))
    assert n_components == 0
    assert labels.shape == (4, 5, 6)
    assert not labels.any()


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 7, 1), (6, 5, 1), (1, 5, 6)])
def test_a_full_grid_of_any_flatness_is_one_component(shape):
    assert label_components(np.ones(shape, dtype=np.uint8))[1] == 1


def test_labels_are_uint32_and_the_input_is_left_alone():
    array = two_voxels((2, 2, 2)).astype(np.uint16)
    array.setflags(write=False)
    labels, n_components = label_components(array)
    assert (labels.dtype, n_components) == (np.uint32, 2)


def test_fortran_and_c_order_give_the_same_components():
    array = (np.random.default_rng(0).random((12, 10, 8)) < 0.2).astype(np.uint8)
    c_labels, n_components = label_components(array)
    f_labels, n_fortran = label_components(np.asfortranarray(array))
    assert n_components == n_fortran
    pairs = np.unique(np.stack([c_labels.ravel(), f_labels.ravel()]), axis=1)
    assert pairs.shape[1] == n_components + 1


@pytest.mark.parametrize(("connectivity", "fully_connected"), [(6, False), (26, True)])
def test_components_agree_with_simpleitk(connectivity, fully_connected):
    array = (np.random.default_rng(1).random((20, 20, 20)) < 0.15).astype(np.uint8)
    labels, n_components = label_components(array, connectivity)
    peer = SimpleITK.GetArrayFromImage(
        SimpleITK.ConnectedComponent(SimpleITK.GetImageFromArray(array), fully_connected)
    )
    assert n_components == peer.max()
    assert np.unique(np.stack([labels.ravel(), peer.ravel()]), axis=1).shape[1] == n_components + 1


def test_other_connectivity_is_refused():
    with pytest.raises(UsageError, match="6, 18 or 26 neighbors; got 4"):
        label_components(np.ones((2, 2, 2), dtype=np.uint8), 4)
