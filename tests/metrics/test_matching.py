"""Matching and voxel counts beside brute force on random maps, and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medseg.errors import GridMismatch, InvalidLabelMap
from medseg.metrics.contingency import Contingency, tabulate
from medseg.metrics.matching import (
    MatchingRule,
    assign,
    center_candidates,
    dilated_candidates,
    distance_candidates,
    overlap_candidates,
)
from tests.metrics import brute_force as slow

MANY = settings(max_examples=300, deadline=None)


def table_of(prediction: np.ndarray, reference: np.ndarray) -> Contingency:
    return tabulate(prediction, reference, int(prediction.max(initial=0)), int(reference.max(initial=0)))


@MANY
@given(slow.maps(highest=4), st.permutations(range(3)), st.booleans())
def test_counts_and_centroids_are_those_of_sets_of_voxels(sides, axes, reverse) -> None:
    prediction, reference = (side.transpose(axes)[:: -1 if reverse else 1] for side in sides)
    table = table_of(prediction, reference)
    predictions, references = slow.voxels_of(prediction), slow.voxels_of(reference)
    assert table.prediction_voxels.tolist() == [len(predictions.get(n + 1, ())) for n in range(table.n_prediction)]
    assert table.reference_voxels.tolist() == [len(references.get(n + 1, ())) for n in range(table.n_reference)]
    pairs = zip(table.prediction.tolist(), table.reference.tolist(), table.shared_voxels.tolist(), strict=True)
    assert {(p, r): n for p, r, n in pairs} == {
        (p, r): len(a & b) for p, a in predictions.items() for r, b in references.items() if a & b
    }
    for number, voxels in predictions.items():
        assert np.allclose(table.prediction_centroids[number - 1], np.mean(list(voxels), axis=0))


@MANY
@given(
    slow.maps(highest=4),
    st.sampled_from(("iou", "dice", "overlap")),
    st.sampled_from((0.0, 0.1, 0.25, 0.5)),
    st.booleans(),
    st.booleans(),
)
def test_optimal_assignment_has_the_best_total_of_all_choices(sides, by, threshold, strict, most_pairs) -> None:
    prediction, reference = sides
    rule = MatchingRule(by=by, threshold=threshold, strict=strict, most_pairs_first=most_pairs)
    table = table_of(prediction, reference)
    pairs = assign(overlap_candidates(table, rule), table, rule).pairs
    good = slow.candidates(slow.voxels_of(prediction), slow.voxels_of(reference), by, threshold, strict)
    n, total = slow.best_total(good, most_pairs)
    assert pairs.score.sum() == pytest.approx(total, abs=1e-12)
    assert not most_pairs or pairs.score.size == n
    assert len(set(pairs.prediction.tolist())) == len(set(pairs.reference.tolist())) == pairs.score.size


@MANY
@given(slow.maps(highest=4), st.sampled_from(("iou", "dice", "overlap")), st.sampled_from((0.0, 0.2, 0.5)))
def test_greedy_and_many_to_one_take_the_best_pair_first(sides, by, threshold) -> None:
    prediction, reference = sides
    table = table_of(prediction, reference)
    good = slow.candidates(slow.voxels_of(prediction), slow.voxels_of(reference), by, threshold, strict=True)
    for assignment, one_to_one in (("greedy", True), ("many-to-one", False)):
        rule = MatchingRule(assignment=assignment, by=by, threshold=threshold)
        pairs = assign(overlap_candidates(table, rule), table, rule).pairs
        taken = set(zip(pairs.prediction.tolist(), pairs.reference.tolist(), strict=True))
        assert taken == slow.greedy(good, one_to_one)


@MANY
@given(slow.maps(highest=5), st.sampled_from((0.0, 0.2, 0.5)))
def test_merging_never_lowers_the_union_below_its_best_part(sides, threshold) -> None:
    prediction, reference = sides
    table = table_of(prediction, reference)
    rule = MatchingRule(assignment="merge", threshold=threshold, strict=False)
    pairs = assign(overlap_candidates(table, rule), table, rule).pairs
    predictions, references = slow.voxels_of(prediction), slow.voxels_of(reference)
    assert len(set(pairs.prediction.tolist())) == pairs.score.size
    for number in set(pairs.reference.tolist()):
        parts = [predictions[p] for p in pairs.prediction[pairs.reference == number].tolist()]
        united = slow.iou(set().union(*parts), references[number])
        best = max(slow.iou(part, references[number]) for part in parts)
        assert best >= threshold
        assert united > best or len(parts) == 1


@MANY
@given(slow.maps(highest=3), st.integers(0, 2))
def test_dilated_candidates_are_those_that_touch_the_grown_reference(sides, n_steps) -> None:
    prediction, reference = sides
    references = slow.voxels_of(reference)
    boxes = [
        tuple(slice(min(v[a] for v in part), max(v[a] for v in part) + 1) for a in range(3))
        for part in (references.get(n + 1, {(0, 0, 0)}) for n in range(int(reference.max(initial=0))))
    ]
    found = dilated_candidates(prediction, reference, boxes, n_steps)
    expected = {
        (p, r)
        for p, a in slow.voxels_of(prediction).items()
        for r, b in references.items()
        if a & slow.dilated(b, n_steps, reference.shape)
    }
    assert set(zip(found.prediction.tolist(), found.reference.tolist(), strict=True)) == expected


@MANY
@given(st.integers(0, 2**32 - 1), st.integers(0, 4), st.integers(0, 4), st.booleans())
def test_matching_by_distance_takes_the_nearest_of_all_choices(seed, n_predictions, n_references, strict) -> None:
    """The Hungarian matcher of another tool took the farthest."""
    rng = np.random.default_rng(seed)
    predictions, references = rng.integers(0, 6, (n_predictions, 3)) * 1.5, rng.integers(0, 6, (n_references, 3)) * 1.5
    rule = MatchingRule(by="distance", threshold=4.5, strict=strict)
    found = distance_candidates(predictions, references, rule)
    near = {
        (p, r): -float(np.linalg.norm(a - b))
        for p, a in enumerate(predictions, start=1)
        for r, b in enumerate(references, start=1)
        if (np.linalg.norm(a - b) < 4.5 if strict else np.linalg.norm(a - b) <= 4.5)
    }
    assert set(zip(found.prediction.tolist(), found.reference.tolist(), strict=True)) == set(near)
    empty = np.zeros((1, 1, 1), dtype=np.uint8)
    table = tabulate(empty, empty, n_predictions, n_references)
    pairs = assign(found, table, rule).pairs
    n, total = slow.best_total(near, most_pairs=True)
    assert pairs.score.size == n
    assert pairs.score.sum() == pytest.approx(total, abs=1e-9)


@MANY
@given(st.integers(0, 2**32 - 1), st.integers(0, 5), st.integers(0, 4))
def test_center_hits_lie_within_the_radius_of_their_reference(seed, n_predictions, n_references) -> None:
    rng = np.random.default_rng(seed)
    predictions, references = rng.random((n_predictions, 3)) * 9, rng.random((n_references, 3)) * 9
    radii = rng.random(n_references) * 6
    found = center_candidates(predictions, references, radii)
    expected = {
        (p + 1, r + 1)
        for p in range(n_predictions)
        for r in range(n_references)
        if np.linalg.norm(predictions[p] - references[r]) < radii[r]
    }
    assert set(zip(found.prediction.tolist(), found.reference.tolist(), strict=True)) == expected


def test_a_reference_goes_to_its_better_prediction_not_to_the_worse() -> None:
    """Another tool's greedy matching kept the IoU of 0.3 instead of that of 0.9."""
    reference = np.zeros((1, 1, 13), dtype=np.uint8)
    reference[..., :10] = 1
    prediction = np.zeros_like(reference)
    prediction[..., 0], prediction[..., 1:10] = 1, 2
    table = table_of(prediction, reference)
    for assignment in ("greedy", "optimal", "many-to-one"):
        rule = MatchingRule(assignment=assignment, by="iou", threshold=0.05)
        pairs = assign(overlap_candidates(table, rule), table, rule).pairs
        assert (2, 1) in zip(pairs.prediction.tolist(), pairs.reference.tolist(), strict=True), assignment


def test_two_predictions_on_one_reference_raise_nothing() -> None:
    """Another tool's Hungarian matching raised KeyError as soon as a reference had two candidates."""
    reference = np.ones((1, 1, 10), dtype=np.uint8)
    prediction = np.array([1] * 4 + [2] * 6, dtype=np.uint8).reshape(1, 1, 10)
    table = table_of(prediction, reference)
    rule = MatchingRule(threshold=0.1)
    matching = assign(overlap_candidates(table, rule), table, rule)
    assert (matching.pairs.prediction.tolist(), matching.used.tolist()) == ([2], [False, True])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32])
def test_numbers_that_add_up_to_a_power_of_two_do_not_vanish(dtype: type) -> None:
    """In uint8 the numbers 128 and 128 add up to 0: another tool lost such lesions and scored a perfect PQ."""
    array = np.zeros((4, 4, 300 if dtype != np.uint8 else 128), dtype=dtype)
    for number in range(1, 129):
        array[:2, :2, number - 1] = number
    table = tabulate(array, array, 128, 128)
    assert table.shared_voxels.tolist() == [4] * 128


def test_a_number_above_the_count_is_refused() -> None:
    array = np.array([[[0, 3]]], dtype=np.uint16)
    with pytest.raises(InvalidLabelMap, match="lesion number 3; expected at most 2"):
        tabulate(array, array, 2, 3)


def test_signed_numbers_and_other_shapes_are_refused() -> None:
    array = np.zeros((2, 2, 2), dtype=np.uint8)
    with pytest.raises(InvalidLabelMap, match="int64"):
        tabulate(array.astype(np.int64), array, 0, 0)
    with pytest.raises(GridMismatch, match="one grid"):
        tabulate(array, array[:1], 0, 0)


def test_thousands_of_touching_lesions_are_assigned_in_small_groups() -> None:
    """20,000 lesions in pairs: a dense cost matrix would take 3 GiB."""
    numbers = np.arange(1, 20_001, dtype=np.uint32)
    reference = np.repeat(numbers, 4).reshape(1, -1, 4)
    prediction = np.roll(reference.ravel(), 1).reshape(reference.shape)
    table = tabulate(prediction, reference, 20_000, 20_000)
    rule = MatchingRule(threshold=0.1)
    pairs = assign(overlap_candidates(table, rule), table, rule).pairs
    assert np.array_equal(pairs.prediction, pairs.reference)
    assert pairs.score.size == 20_000
