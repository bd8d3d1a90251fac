"""What other evaluation tools were found to get wrong, or to refuse, on small files: each a test that medseg passes."""

from __future__ import annotations

import math

import numpy as np
import pytest

from medseg.core.lesions import Lesion, LesionMap
from medseg.errors import GridMismatch
from medseg.evaluation.case import evaluate_case
from medseg.evaluation.cohort import summarize_cases
from medseg.metrics.presets import PRESETS
from tests.evaluation.maps import grid_of, lesion_map, semantic_map
from tests.metrics.brute_force import NEIGHBORS


def boxes(*places: tuple[slice, slice, slice], shape: tuple[int, int, int] = (24, 24, 24)) -> np.ndarray:
    array = np.zeros(shape, dtype=np.uint8)
    for number, place in enumerate(places, start=1):
        array[place] = number
    return array


A, B = np.s_[2:6, 2:6, 2:6], np.s_[12:20, 12:20, 12:20]


def test_labels_that_add_up_to_256_keep_their_lesions() -> None:
    """panoptica 2.1.7 adds uint8 labels: {1, 128} against itself has one instance, and PQ 1.0."""
    array = boxes(A, B)
    array[array == 2] = 128
    scores = evaluate_case(lesion_map(array), lesion_map(array), "panoptica")
    assert (scores.n_reference, scores.n_prediction, scores.tp) == (2, 2, 2)


@pytest.mark.parametrize("n", [255, 256, 300])
def test_more_instances_than_a_byte_counts_are_all_matched(n: int) -> None:
    """Renumbering overflowed in panoptica before 2.1.7 from 256 instances on."""
    array = np.zeros((n, 3, 2), dtype=np.uint16)
    array[:, 0, 0] = np.arange(1, n + 1)
    side = LesionMap(array, grid_of(array.shape), (Lesion("lesion"),) * n)
    assert evaluate_case(side, side, "panoptica", overlap_only=True).tp == n


@pytest.mark.parametrize("shift", [(-100.0, 0.0, 0.0), (100.0, 0.0, 0.0), (50.0, -50.0, 0.0), (0.0, 0.0, -0.02)])
def test_a_shift_is_refused_whatever_its_sign(shift: tuple[float, float, float]) -> None:
    """panoptica adds the differences of the affines with their signs: -100 mm passes, as do shifts that cancel."""
    array = boxes(A)
    reference = lesion_map(array)
    affine = reference.geometry.affine.copy()
    affine[:3, 3] += shift
    moved = LesionMap(reference.array, type(reference.geometry)(array.shape, affine), reference.lesions)
    with pytest.raises(GridMismatch, match="mm apart"):
        evaluate_case(moved, reference)


def test_matching_by_distance_takes_the_near_lesion() -> None:
    """panoptica's MaxBipartiteMatching minimizes 1 - distance: it takes the farthest."""
    reference = boxes(np.s_[2:6, 2:6, 2:6])
    prediction = boxes(np.s_[3:7, 2:6, 2:6], np.s_[2:6, 2:6, 7:11])
    rule = PRESETS["default"].matching.model_copy(update={"by": "distance", "threshold": 20.0})
    convention = PRESETS["default"].model_copy(update={"matching": rule})
    found = evaluate_case(lesion_map(prediction), lesion_map(reference), convention).lesions[0]
    assert found.centroid_distance_mm == pytest.approx(1.0)


def test_an_empty_reference_has_no_perfect_distance() -> None:
    """panoptica's region-wise mode gives every metric 0.0, ASSD too, which for a distance is perfect."""
    scores = evaluate_case(lesion_map(boxes(A)), lesion_map(boxes()), "panoptica")
    assert scores.assd_mm is scores.hd95_mm is None
    assert "sq_assd" not in {name for name, value in scores.values.items() if value == 0.0}
    both = evaluate_case(lesion_map(boxes()), lesion_map(boxes()), "panoptica")
    assert both.assd_mm is both.dice is None


def test_no_true_positive_is_no_error_with_any_distance() -> None:
    """panoptica raises NotImplementedError for HD, HD95, NSD and center distance without a match."""
    scores = evaluate_case(lesion_map(boxes(A)), lesion_map(boxes(B)), "panoptica")
    assert (scores.tp, scores.empty_case) == (0, "no_match")
    assert scores.values.get("sq_hd95") is scores.values.get("sq_nsd") is None
    matched = evaluate_case(lesion_map(boxes(A)), lesion_map(boxes(A)), "panoptica")
    assert (matched.values["sq_hd95"], matched.values["sq_nsd"]) == (0.0, 1.0)
    assert scores.hd95_mm > 0


def test_components_follow_the_preset_and_no_library() -> None:
    """panoptica's two backends differ: 6 or 26 neighbors, classes together or apart."""
    corner = np.zeros((6, 6, 6), dtype=np.uint8)
    corner[1:3, 1:3, 1:3], corner[3:5, 3:5, 3:5] = 1, 1
    face = np.zeros((6, 6, 6), dtype=np.uint8)
    face[1:3], face[3:5] = 1, 2
    for connectivity in NEIGHBORS:
        for unite in (False, True):
            update = {"connectivity": connectivity, "unite_classes": unite}
            convention = PRESETS["default"].model_copy(update=update)
            counts = [evaluate_case(semantic_map(a), semantic_map(a), convention).n_reference for a in (corner, face)]
            assert counts == [1 if connectivity == 26 else 2, 1 if unite else 2]


def test_assd_is_the_mean_over_the_area_of_both_surfaces() -> None:
    """panoptica documents a mean over both surfaces and computes a mean of two means; medseg names both."""
    reference, prediction = boxes(B), boxes(np.s_[12:20, 12:20, 12:16])
    scores = evaluate_case(lesion_map(prediction), lesion_map(reference), "panoptica")
    assert scores.assd_mm != pytest.approx(scores.values["sq_assd"], rel=0.01)


def test_any_numbers_are_instances() -> None:
    """panoptica's shipped configuration raises on its shipped file, whose label 27 is in no group."""
    array = boxes(A, B)
    array[array == 2] = 27
    assert evaluate_case(lesion_map(array), lesion_map(array), "panoptica").tp == 2


def test_territories_need_one_pass_and_do_not_depend_on_names_of_arrays() -> None:
    """CC-Metrics caches territories by the bytes of the mask, without shape: two masks of equal bytes share them."""
    flat = np.zeros(64, dtype=np.uint8)
    flat[[0, 5, 40]] = 1
    values = []
    for shape in ((64, 1, 1), (4, 4, 4)):
        sides = [semantic_map(array.reshape(shape)) for array in (np.roll(flat, 1), flat)]
        values.append(evaluate_case(*sides, "cc-metrics").values["cc_dice"])
        assert values[-1] == evaluate_case(*sides, "cc-metrics").values["cc_dice"]
    assert values[0] == 0.0


def test_distances_of_an_empty_territory_are_no_crash() -> None:
    """CC-Metrics' distance metrics have no worst score by default and stop at an empty prediction."""
    scores = evaluate_case(semantic_map(boxes()), semantic_map(boxes(A, B)), "cc-metrics")
    assert (scores.values["cc_dice"], scores.hd95_mm) == (0.0, None)


def test_a_missed_structure_makes_no_mean_of_distances_better() -> None:
    """Leaving out undefined distances rewards whoever misses the hardest case."""
    easy = evaluate_case(lesion_map(boxes(A)), lesion_map(boxes(A)), case_id="easy")
    poor = evaluate_case(lesion_map(boxes(np.s_[12:20, 12:20, 8:20])), lesion_map(boxes(B)), case_id="hard")
    missed = evaluate_case(lesion_map(boxes()), lesion_map(boxes(B)), case_id="hard")
    found, not_found = (summarize_cases([easy, other], resamples=20).macro for other in (poor, missed))
    assert poor.hd95_mm > 0
    assert not_found["hd95_penalized_mm"].value > found["hd95_penalized_mm"].value
    assert not_found["nsd"].value < found["nsd"].value
    assert missed.hd95_penalized_mm == pytest.approx(math.sqrt(3) * 23)


def test_a_missed_lesion_never_raises_a_score_of_the_case() -> None:
    reference = boxes(A, B)
    one = boxes(B)
    full = evaluate_case(lesion_map(reference), lesion_map(reference))
    missed = evaluate_case(lesion_map(one), lesion_map(reference))
    for name in ("dice", "nsd", "f1", "pq", "sensitivity"):
        assert getattr(missed, name) < getattr(full, name)
    assert missed.hd95_penalized_mm > full.hd95_penalized_mm


def test_spacing_counts_in_dilation_free_figures() -> None:
    """Spacing that belongs to the axis: a body that is one voxel too long is off by that axis' millimeters."""
    for axis in range(3):
        spacing = (0.5, 1.0, 3.0)
        reference = boxes(np.s_[4:12, 4:12, 4:12])
        prediction = np.roll(reference, 1, axis=axis)
        scores = evaluate_case(lesion_map(prediction, spacing), lesion_map(reference, spacing))
        assert scores.hd95_mm == pytest.approx(spacing[axis])
        assert scores.lesions[0].centroid_distance_mm == pytest.approx(spacing[axis])
