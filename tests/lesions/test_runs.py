"""Runs: the voxels of a map as stretches along its fastest axis."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from medseg.core import filled
from medseg.lesions.components import connect_runs, label_components
from medseg.lesions.runs import find_runs, join_runs, runs_of_places

from .scenes import make_grid

MAPS = arrays(np.uint8, st.tuples(*[st.integers(1, 9)] * 3), elements=st.sampled_from([0, 0, 1, 1, 2]))
AXES = [(0, 1, 2), (2, 1, 0), (1, 2, 0)]


@pytest.fixture
def labels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 5, size=(6, 5, 11)).astype(np.uint16)


def same_partition(first: np.ndarray, second: np.ndarray) -> bool:
    """Whether two maps group voxels alike, whatever their numbers."""
    pairs = np.unique(np.stack([first.ravel(), second.ravel()]), axis=1)
    return pairs.shape[1] == len(np.unique(first)) == len(np.unique(second))


@given(array=MAPS, axes=st.sampled_from(AXES), block_bytes=st.sampled_from([8, 1 << 21]))
@settings(max_examples=120, deadline=None)
def test_runs_give_back_their_map_and_none_could_be_longer(array, axes, block_bytes):
    stored = array.transpose(axes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(filled, "_BLOCK_BYTES", block_bytes)
        runs = find_runs(stored)
    np.testing.assert_array_equal(runs.to_array(stored.dtype), stored)
    lines = stored.transpose(runs.axes).astype(int)
    assert runs.starts.size == np.count_nonzero((np.diff(lines, axis=2, prepend=0) != 0) & (lines != 0))
    assert stored.shape[runs.axes[2]] > 1 or max(stored.shape) == 1
    assert (np.diff(runs.starts) > 0).all()


@given(array=MAPS, axes=st.sampled_from(AXES), connectivity=st.sampled_from([6, 18, 26]))
@settings(max_examples=120, deadline=None)
def test_components_of_runs_are_those_of_cc3d(array, axes, connectivity):
    stored = array.transpose(axes)
    components, n_components = connect_runs(find_runs(stored), connectivity)
    peer, n_peer = label_components(stored, connectivity)
    assert n_components == n_peer
    assert same_partition(components.to_array(np.dtype(np.uint32)), peer)


@pytest.mark.parametrize("connectivity", [6, 18, 26])
def test_components_of_a_cloud_are_those_of_scipy(connectivity):
    cloud = ndimage.gaussian_filter(np.random.default_rng(3).normal(size=(40, 50, 60)), 1.0) > 0.1
    components, n_components = connect_runs(find_runs(cloud), connectivity)
    rank = {6: 1, 18: 2, 26: 3}[connectivity]
    peer, n_peer = ndimage.label(cloud, ndimage.generate_binary_structure(3, rank))
    assert n_components == n_peer > 1
    assert same_partition(components.to_array(np.dtype(np.uint32)), peer)


def test_nothing_wraps_around_the_end_of_a_line_or_plane():
    array = np.zeros((3, 4, 5), dtype=np.uint8)
    array[0, 0, 4] = array[0, 1, 0] = array[0, 3, 2] = array[1, 0, 2] = array[1, 3, 4] = array[2, 1, 0] = 1
    assert connect_runs(find_runs(array))[1] == 6


def test_a_lookup_is_read_instead_of_the_numbers(labels):
    lookup = np.array([0, 7, 0, 7, 9], dtype=np.uint16)
    np.testing.assert_array_equal(find_runs(labels, lookup).to_array(np.dtype(np.uint16)), lookup[labels])


def test_counts_centroids_and_means_agree_with_scipy(labels):
    stored, geometry = labels.transpose(2, 0, 1), make_grid((11, 6, 5), (0.7, 0.8, 3.0))
    runs, values = find_runs(stored), np.random.default_rng(1).normal(size=stored.shape)
    assert runs.voxel_counts(4).tolist() == np.bincount(labels.ravel())[1:].tolist()
    centroids = geometry.to_world(ndimage.center_of_mass(stored > 0, stored, range(1, 5)))
    np.testing.assert_allclose(runs.centroids(4, geometry), centroids)
    np.testing.assert_allclose(runs.means(4, values), ndimage.mean(values, stored, range(1, 5)))
    np.testing.assert_allclose(runs.means(4, np.asfortranarray(values)), runs.means(4, values))


def test_runs_come_from_voxels_too_and_join(labels):
    runs = find_runs(labels)
    places, numbers = runs.places(), runs.voxel_numbers()
    parts = [runs_of_places(runs, places[numbers == n], numbers[numbers == n]) for n in (4, 2, 3, 1)]
    joined = join_runs(parts)
    np.testing.assert_array_equal(joined.starts, runs.starts)
    np.testing.assert_array_equal(joined.lengths, runs.lengths)
    np.testing.assert_array_equal(joined.numbers, runs.numbers)


def test_no_lesion_is_no_run():
    runs = find_runs(np.zeros((3, 4, 5), dtype=np.uint16))
    assert (runs.starts.size, runs.n_voxels, connect_runs(runs)[1]) == (0, 0, 0)
    assert runs.centroids(0, make_grid((3, 4, 5))).shape == (0, 3)
    assert not runs.to_array(np.dtype(np.uint16)).any()
