from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage
from skimage.morphology import local_maxima, reconstruction
from skimage.segmentation import watershed

from medseg.core.plan import SeparationPlan
from medseg.lesions.components import label_components
from medseg.lesions.runs import find_runs
from medseg.lesions.watershed import split_components

from .scenes import ORIENTATIONS, ball, grid_over, make_grid, reorient, restore

SPACINGS = [(1.0, 1.0, 1.0), (0.8, 0.8, 3.0), (2.0, 2.0, 2.0), (3.0, 0.8, 0.8)]


def split(mask, geometry, **choices):
    components, n_components = label_components(mask.astype(np.uint8), choices.get("connectivity", 26))
    return on_grid(components, n_components, geometry, SeparationPlan(**choices))


def on_grid(components, n_components, geometry, plan):
    """Labels as an array, and their number."""
    pieces = split_components(find_runs(components), n_components, geometry, plan)
    return pieces.runs.to_array(np.dtype(np.uint32)), len(pieces.components)


def two_touching_balls(geometry, radius=8.0):
    first, second = ball(geometry, (12.0, 20.0, 20.0), radius), ball(geometry, (26.5, 20.0, 20.0), radius)
    return first, second


@pytest.mark.parametrize("spacing", SPACINGS)
def test_a_ball_stays_whole(spacing):
    geometry = grid_over(40.0, spacing)
    _, n_pieces = split(ball(geometry, (20.3, 19.8, 20.1), 12.0), geometry)
    assert n_pieces == 1


@pytest.mark.parametrize("spacing", SPACINGS)
def test_two_touching_balls_come_apart_at_their_neck(spacing):
    geometry = grid_over(40.0, spacing)
    first, second = two_touching_balls(geometry)
    assert label_components((first | second).astype(np.uint8))[1] == 1
    labels, n_pieces = split(first | second, geometry)
    assert n_pieces == 2
    # The plane of contact is known; voxels whose center lies on either side of it must not change hands.
    for one in (first & ~second, second & ~first):
        share = np.bincount(labels[one], minlength=3)[1:].max() / one.sum()
        assert share > 0.99


def test_a_dumbbell_comes_apart_and_its_bar_belongs_to_one_end():
    geometry = grid_over(50.0, (1.0, 1.0, 1.0))
    mask = ball(geometry, (12.0, 25.0, 25.0), 8.0) | ball(geometry, (38.0, 25.0, 25.0), 8.0)
    mask[12:39, 24:27, 24:27] = True
    labels, n_pieces = split(mask, geometry)
    assert n_pieces == 2
    assert np.array_equal(labels > 0, mask)
    assert labels[12, 25, 25] != labels[38, 25, 25]


@pytest.mark.parametrize("spacing", SPACINGS)
def test_three_in_a_row_come_apart(spacing):
    geometry = grid_over(60.0, spacing)
    mask = sum(ball(geometry, (x, 30.0, 30.0), 8.0) for x in (15.0, 29.5, 44.0)) > 0
    assert split(mask, geometry)[1] == 3


def test_what_splits_is_decided_in_millimeters_not_in_voxels():
    """One array on two grids: its neck, about a voxel deep, is 0.3 mm deep on one and 3 mm on the other."""
    mask = np.zeros((13, 7, 7), dtype=bool)
    mask[1:6, 1:6, 1:6] = mask[7:12, 1:6, 1:6] = True
    mask[6, 2:5, 2:5] = True
    fine, coarse = make_grid(mask.shape, (0.3, 0.3, 0.3)), make_grid(mask.shape, (3.0, 3.0, 3.0))
    assert split(mask, fine, h_min_mm=1.0, h_fraction=0.0)[1] == 1
    assert split(mask, coarse, h_min_mm=1.0, h_fraction=0.0)[1] == 2


def test_a_deeper_h_joins_what_a_shallow_one_parts():
    geometry = grid_over(40.0, (1.0, 1.0, 1.0))
    mask = np.logical_or(*two_touching_balls(geometry))
    assert [split(mask, geometry, h_min_mm=h)[1] for h in (0.5, 20.0)] == [2, 1]


@pytest.mark.parametrize(
    "mask",
    [
        np.ones((1, 1, 1), dtype=bool),
        np.ones((2, 2, 2), dtype=bool),
        np.ones((12, 1, 1), dtype=bool),
        np.ones((8, 8, 1), dtype=bool),
        np.eye(6, dtype=bool)[:, :, None],
    ],
    ids=["voxel", "cube of 8", "line", "slice", "diagonal"],
)
def test_simple_small_shapes_stay_whole(mask):
    labels, n_pieces = split(mask, make_grid(mask.shape))
    assert n_pieces == 1
    assert np.array_equal(labels > 0, mask)


def test_empty_map_has_no_piece():
    labels, n_pieces = split(np.zeros((4, 4, 4), dtype=bool), make_grid((4, 4, 4)))
    assert n_pieces == 0
    assert not labels.any()


def cloud(seed: int, shape=(26, 24, 22)) -> np.ndarray:
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 2.0)
    return noise > 0.05


@pytest.mark.parametrize("connectivity", [6, 18, 26])
def test_no_voxel_is_lost_and_every_piece_is_connected(connectivity):
    mask = cloud(0)
    geometry = make_grid(mask.shape, (0.8, 0.8, 3.0))
    components, n_components = label_components(mask.astype(np.uint8), connectivity)
    labels, n_pieces = split(mask, geometry, connectivity=connectivity)
    assert n_pieces > n_components
    assert np.array_equal(labels > 0, mask)
    assert np.unique(labels[mask]).tolist() == list(range(1, n_pieces + 1))
    owners = np.unique(np.stack([labels[mask], components[mask]]), axis=1)
    assert owners.shape[1] == n_pieces, "a piece reaches over two components"
    assert label_components(labels.astype(np.uint16), 26)[1] == n_pieces


def test_components_are_left_as_they_were_given():
    mask = cloud(1)
    components, n_components = label_components(mask.astype(np.uint8))
    runs = find_runs(components)
    before = runs.numbers.copy()
    split_components(runs, n_components, make_grid(mask.shape), SeparationPlan())
    assert np.array_equal(runs.numbers, before)


@pytest.mark.parametrize("orientation", ORIENTATIONS[::5])
def test_pieces_do_not_depend_on_orientation(orientation):
    mask = cloud(2)
    geometry = make_grid(mask.shape, (0.8, 0.9, 2.0))
    labels, n_pieces = split(mask, geometry)
    turned, n_turned = split(*reorient(mask, geometry, *orientation))
    assert n_turned == n_pieces
    pairs = np.unique(np.stack([labels.ravel(), restore(turned, *orientation).ravel()]), axis=1)
    assert pairs.shape[1] == n_pieces + 1


def h_maxima_watershed(mask, spacing, h):
    """The textbook way: reconstruct, take its maxima as markers, flood from them."""
    cube = np.ones((3, 3, 3), dtype=bool)
    inside = np.pad(mask, 1)
    distance = ndimage.distance_transform_edt(inside, sampling=spacing)
    distance = ndimage.gaussian_filter(distance, 0.5 * min(spacing) / np.array(spacing), mode="constant") * inside
    domes = reconstruction(np.maximum(distance - h, 0), distance, footprint=cube)
    markers, n_markers = ndimage.label(local_maxima(domes, footprint=cube), cube)
    return watershed(-distance, markers, connectivity=cube, mask=inside)[1:-1, 1:-1, 1:-1], n_markers


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.8, 0.8, 3.0)])
def test_pieces_agree_with_h_maxima_by_reconstruction(seed, spacing):
    components, _ = label_components(cloud(seed).astype(np.uint8))
    mask = components == np.bincount(components[components > 0]).argmax()
    labels, n_pieces = split(mask, make_grid(mask.shape, spacing), h_min_mm=0.3, h_fraction=0.0)
    peer, n_peer = h_maxima_watershed(mask, spacing, 0.3)
    assert n_pieces == n_peer
    shared = np.histogram2d(labels[mask], peer[mask], bins=np.arange(n_pieces + 1) + 0.5)[0]
    # Voxels that two floods reach at the same height may go either way: at most 2 % here.
    assert shared.max(axis=1).sum() >= 0.98 * mask.sum()
