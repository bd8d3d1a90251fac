from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from medseg.core.geometry import Geometry
from medseg.core.labels import LabelScheme
from medseg.core.plan import SeparationPlan
from medseg.core.semantic import SemanticMap
from medseg.lesions.separate import separate_lesions

from .scenes import ORIENTATIONS, ball, grid_over, make_grid, reorient, restore, semantic_map

COMPONENTS = SeparationPlan(method="components")


def blocks(*lengths: int) -> np.ndarray:
    """Bars of the given lengths on one line, a gap of one voxel between them."""
    line = [voxel for length in lengths for voxel in [1] * length + [0]]
    return np.array(line, dtype=np.uint8).reshape(-1, 1, 1)


def voxel_counts(lesions) -> list[int]:
    return np.bincount(lesions.array.ravel(), minlength=1)[1:].tolist()


def test_empty_map_has_no_lesion():
    lesions = separate_lesions(semantic_map(np.zeros((5, 6, 7))))
    assert lesions.n_lesions == lesions.n_removed == 0
    assert lesions.removed_volume_ml == 0.0
    assert lesions.array.dtype == np.uint16


def test_lesions_are_numbered_by_descending_size():
    assert voxel_counts(separate_lesions(semantic_map(blocks(2, 5, 3)))) == [5, 3, 2]


@pytest.mark.parametrize(
    ("method", "ran", "n_lesions"),
    [("components", "components", 1), ("watershed", "watershed", 2), ("auto", "watershed", 2)],
)
def test_method_says_what_ran(method, ran, n_lesions):
    geometry = grid_over(40.0, (1.0, 1.0, 1.0))
    mask = ball(geometry, (12.0, 20.0, 20.0), 8.0) | ball(geometry, (26.5, 20.0, 20.0), 8.0)
    lesions = separate_lesions(semantic_map(mask, geometry), SeparationPlan(method=method))
    assert (lesions.method, lesions.n_lesions) == (ran, n_lesions)


def test_the_default_plan_is_auto():
    semantic = semantic_map(blocks(4, 2))
    assert repr(separate_lesions(semantic)) == repr(separate_lesions(semantic, SeparationPlan()))


@pytest.mark.parametrize(("connectivity", "n_lesions"), [(6, 2), (18, 2), (26, 1)])
def test_connectivity_is_that_of_the_plan(connectivity, n_lesions):
    array = np.zeros((4, 4, 4))
    array[:2, :2, :2] = array[2:, 2:, 2:] = 1
    plan = SeparationPlan(method="components", connectivity=connectivity)
    assert separate_lesions(semantic_map(array), plan).n_lesions == n_lesions


@pytest.mark.parametrize("plan", [COMPONENTS, SeparationPlan()])
def test_touching_classes_stay_two_lesions_with_their_names(plan):
    array = np.zeros((6, 4, 4), dtype=np.uint8)
    array[:4], array[4:] = 3, 7
    scheme = LabelScheme(classes={3: "liver metastasis", 7: "node"})
    lesions = separate_lesions(SemanticMap(array, make_grid(array.shape), scheme), plan)
    assert [lesion.class_name for lesion in lesions.lesions] == ["liver metastasis", "node"]
    assert voxel_counts(lesions) == [64, 32]


def test_score_is_the_mean_probability_inside():
    probability = np.zeros((7, 1, 1), dtype=np.float32)
    probability.ravel()[:] = [0.5, 0.75, 1.0, 0.125, 0.5, 0.75, 0.0]
    lesions = separate_lesions(semantic_map(blocks(3, 2), probability=probability))
    assert [lesion.score for lesion in lesions.lesions] == [0.75, 0.625]


def test_without_probability_there_is_no_score():
    assert separate_lesions(semantic_map(blocks(3))).lesions[0].score is None


@pytest.mark.parametrize(
    "spacing", [(1.0, 1.0, 1.0), (0.7, 0.7, 0.7), (0.7, 0.7, 3.0), (0.1, 0.3, 0.9), (1 / 3, 1.1, 2.2)]
)
@pytest.mark.parametrize("n_voxels", [1, 3, 7, 10, 49, 100])
@pytest.mark.parametrize("turn_degrees", [0.0, 23.0])
def test_a_lesion_exactly_on_the_minimum_volume_stays(spacing, n_voxels, turn_degrees):
    affine = np.diag([*spacing, 1.0])
    c, s = np.cos(np.deg2rad(turn_degrees)), np.sin(np.deg2rad(turn_degrees))
    affine[:3, :3] = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ affine[:3, :3]
    array = blocks(n_voxels, n_voxels + 1, n_voxels - 1)
    minimum = n_voxels * (spacing[0] * spacing[1] * spacing[2]) / 1000
    plan = SeparationPlan(method="components", minimum_volume_ml=minimum)
    lesions = separate_lesions(semantic_map(array, Geometry(array.shape, affine)), plan)
    assert voxel_counts(lesions) == [n_voxels + 1, n_voxels]
    assert lesions.n_removed == (n_voxels > 1)


def test_the_threshold_holds_on_an_affine_that_went_through_float32():
    affine = np.diag([0.7, 0.7, 0.7, 1.0]).astype(np.float32).astype(np.float64)
    array = blocks(1000, 999)
    plan = SeparationPlan(method="components", minimum_volume_ml=0.343)
    assert voxel_counts(separate_lesions(semantic_map(array, Geometry(array.shape, affine)), plan)) == [1000]


def test_what_is_removed_is_counted():
    geometry = make_grid((11, 1, 1), (10.0, 10.0, 10.0))
    plan = SeparationPlan(method="components", minimum_volume_ml=3.0)
    lesions = separate_lesions(semantic_map(blocks(2, 4, 1, 0), geometry), plan)
    assert voxel_counts(lesions) == [4]
    assert (lesions.n_removed, lesions.removed_volume_ml) == (2, 3.0)


def test_the_minimum_volume_applies_to_pieces_not_components():
    geometry = grid_over(40.0, (1.0, 1.0, 1.0))
    mask = ball(geometry, (12.0, 20.0, 20.0), 9.0) | ball(geometry, (25.5, 20.0, 20.0), 5.5)
    plan = SeparationPlan(minimum_volume_ml=1.0)
    lesions = separate_lesions(semantic_map(mask, geometry), plan)
    assert (lesions.n_lesions, lesions.n_removed) == (1, 1)


def test_seventy_thousand_one_voxel_lesions_are_uint32():
    array = np.zeros((100, 100, 100), dtype=np.uint8)
    array[::2, ::2, ::2][:, :, :28] = 1
    lesions = separate_lesions(semantic_map(array))
    assert lesions.n_lesions == 70_000
    assert lesions.array.dtype == np.uint32


@given(
    array=arrays(np.uint8, (6, 5, 4), elements=st.integers(0, 2)),
    orientation=st.sampled_from(ORIENTATIONS),
    method=st.sampled_from(["components", "watershed"]),
    minimum=st.sampled_from([0.0, 0.004]),
)
@settings(max_examples=80, deadline=None)
def test_the_lesion_map_does_not_depend_on_orientation(array, orientation, method, minimum):
    plan = SeparationPlan(method=method, minimum_volume_ml=minimum)
    geometry = make_grid(array.shape, (0.7, 0.9, 2.0))
    turned, turned_geometry = reorient(array, geometry, *orientation)
    here = separate_lesions(semantic_map(array, geometry), plan)
    there = separate_lesions(semantic_map(turned, turned_geometry), plan)
    np.testing.assert_array_equal(restore(there.array, *orientation), here.array)
    assert there.lesions == here.lesions
    assert (there.n_removed, there.removed_volume_ml) == (here.n_removed, pytest.approx(here.removed_volume_ml))


@given(array=arrays(np.uint8, (6, 5, 4), elements=st.integers(0, 2)))
@settings(max_examples=40, deadline=None)
def test_lesions_cover_exactly_the_foreground_and_never_mix_classes(array):
    lesions = separate_lesions(semantic_map(array))
    np.testing.assert_array_equal(lesions.array > 0, array > 0)
    owners = np.unique(np.stack([lesions.array[array > 0], array[array > 0]]), axis=1)
    assert owners.shape[1] == lesions.n_lesions


def plain_components(array, geometry, scheme, plan) -> np.ndarray:
    """Components voxel by voxel, by scipy, numbered as the rule says; no shortcut."""
    kinds = array.copy()
    for region in plan.merge_regions:
        kinds[np.isin(array, scheme.regions[region])] = min(scheme.regions[region])
    rank = {6: 1, 18: 2, 26: 3}[plan.connectivity]
    found = []
    for kind in np.unique(kinds[kinds > 0]):
        parts, n_parts = ndimage.label(kinds == kind, ndimage.generate_binary_structure(3, rank))
        found.extend(np.argwhere(parts == number) for number in range(1, n_parts + 1))
    least = plan.minimum_volume_ml * 1000 / geometry.voxel_volume_mm3 * (1 - 1e-6)
    found = [voxels for voxels in found if len(voxels) >= least]

    def rule(voxels):
        world = np.round(geometry.to_world(voxels), 6)
        return -len(voxels), np.round(geometry.to_world(voxels.mean(axis=0)), 6).tolist(), min(world.tolist())

    numbered = np.zeros(array.shape, dtype=np.uint16)
    for number, voxels in enumerate(sorted(found, key=rule), start=1):
        numbered[tuple(voxels.T)] = number
    return numbered


@given(
    array=arrays(np.uint8, st.tuples(*[st.integers(1, 6)] * 3), elements=st.sampled_from([0, 0, 1, 1, 2, 3])),
    orientation=st.sampled_from(ORIENTATIONS),
    dtype=st.sampled_from([np.uint8, np.uint16]),
    layout=st.sampled_from(["view", "C", "F", "strided"]),
    plan=st.builds(
        SeparationPlan,
        method=st.just("components"),
        connectivity=st.sampled_from([6, 18, 26]),
        minimum_volume_ml=st.sampled_from([0.0, 0.004]),
        merge_regions=st.sampled_from([(), ("outer",)]),
    ),
)
@settings(max_examples=200, deadline=None)
def test_components_are_those_of_a_plain_reading_of_the_rules(array, orientation, dtype, layout, plan):
    turned, geometry = reorient(array.astype(dtype), make_grid(array.shape, (0.7, 0.9, 2.0)), *orientation)
    if layout == "strided":
        memory = np.ones((*turned.shape, 2), dtype=dtype)
        memory[..., 1] = turned
        stored = memory[..., 1]
    else:
        stored = turned if layout == "view" else np.array(turned, order=layout)
    scheme = LabelScheme(classes={1: "core", 2: "rim", 3: "node"}, regions={"outer": (1, 2)})
    lesions = separate_lesions(SemanticMap(stored, geometry, scheme), plan)
    np.testing.assert_array_equal(lesions.array, plain_components(turned, geometry, scheme, plan))
