"""Cohort figures by hand: macro, micro, intervals, patients, sizes, detection."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medseg.errors import UsageError
from medseg.evaluation.bootstrap import Resampler
from medseg.evaluation.case import evaluate_case
from medseg.evaluation.cohort import summarize_cases
from medseg.evaluation.scores import CaseScores
from tests.evaluation.maps import lesion_map, semantic_map
from tests.metrics import brute_force as slow


def case(case_id: str, found: int, missed: int, false: int, scores: tuple[float, ...] | None = None) -> CaseScores:
    """A case of so many cubes of 3 mm, found exactly."""
    prediction, reference = (np.zeros((8, 8, 8 * max(1, found + missed + false)), dtype=np.uint8) for _ in range(2))
    for number in range(found + missed + false):
        place = np.s_[2:5, 2:5, 8 * number + 2 : 8 * number + 5]
        if number < found + missed:
            reference[place] = number + 1
        if number < found or number >= found + missed:
            prediction[place] = number + 1
    return evaluate_case(lesion_map(prediction, scores=scores), lesion_map(reference), case_id=case_id)


CASES = [case("a", 2, 1, 0), case("b", 0, 1, 1), case("c", 0, 0, 0), case("d", 0, 0, 2)]


def test_macro_is_the_mean_over_cases_that_define_the_figure() -> None:
    macro = summarize_cases(CASES, resamples=200).macro
    assert (macro["sensitivity"].value, macro["sensitivity"].n) == (pytest.approx((2 / 3 + 0) / 2), 2)
    assert (macro["precision"].value, macro["precision"].n) == (pytest.approx((1 + 0 + 0) / 3), 3)
    assert (macro["f1"].value, macro["f1"].n) == (pytest.approx((0.8 + 0 + 0) / 3), 3)
    assert (macro["sq"].value, macro["sq"].n) == (1.0, 1)


def test_micro_is_the_ratio_of_sums() -> None:
    found = summarize_cases(CASES, resamples=200)
    assert (found.tp, found.fp, found.fn, found.n_both_empty) == (2, 3, 2, 1)
    assert found.micro["sensitivity"].value == 0.5
    assert found.micro["precision"].value == pytest.approx(2 / 5)
    assert found.micro["pq"].value == pytest.approx(2 / (2 + 2.5))
    assert found.micro["false_positives_per_case"].value == 0.75
    assert found.micro["dice"].value == pytest.approx(2 * 2 * 27 / (5 * 27 + 4 * 27))


def test_a_figure_that_no_case_defines_has_no_value_and_one_patient_no_interval() -> None:
    empty = summarize_cases([CASES[2]], resamples=50)
    assert empty.macro["f1"].model_dump() == {"value": None, "low": None, "high": None, "n": 0}
    one = summarize_cases([CASES[0]], resamples=50)
    assert (one.macro["f1"].value, one.macro["f1"].low) == (pytest.approx(0.8), None)


def test_published_figures_are_averaged_under_their_names() -> None:
    array = np.zeros((6, 6, 6), dtype=np.uint8)
    array[1:3, 1:3, 1:3] = 1
    scores = [
        evaluate_case(semantic_map(p), semantic_map(array), "cc-metrics", case_id=name, overlap_only=True)
        for name, p in (("a", array), ("b", array * 0))
    ]
    assert summarize_cases(scores, resamples=50).macro["cc_dice"].value == 0.5


def test_cases_of_one_patient_are_drawn_together() -> None:
    cases = [case(name, 1, 0, 0) for name in "abcd"] + [case(name, 0, 1, 0) for name in "efgh"]
    alone = summarize_cases(cases, resamples=2000).micro["sensitivity"]
    paired = summarize_cases(cases, {name: "1" if name in "abcd" else "2" for name in "abcdefgh"}, resamples=2000)
    together = paired.micro["sensitivity"]
    assert paired.n_patients == 2
    assert (together.low, together.high) == (0.0, 1.0)
    assert 0.0 < alone.low < alone.high < 1.0


def test_sensitivity_by_diameter_counts_all_lesions_of_all_cases() -> None:
    classes = summarize_cases(CASES, resamples=50).by_diameter_mm
    assert [(c.n, c.n_found) for c in classes] == [(4, 2), (0, 0), (0, 0)]
    one = lesion_map(np.ones((2, 2, 2), dtype=np.uint8))
    overlap = [evaluate_case(one, one, overlap_only=True)]
    assert summarize_cases(overlap, resamples=50).by_diameter_mm is None


def test_froc_ap_and_auroc_of_a_cohort_are_those_by_hand() -> None:
    cases = [case("a", 1, 1, 1, scores=(0.9, 0.4)), case("b", 0, 0, 1, scores=(0.6,))]
    detection = summarize_cases(cases, resamples=50).detection
    hits, false = [0.9], [0.4, 0.6]
    expected = [slow.froc_at(hits, false, 1, 2, float(rate)) for rate in detection.sensitivity_at]
    assert list(detection.sensitivity_at.values()) == pytest.approx(expected)
    assert detection.cpm.value == pytest.approx(np.mean(expected))
    assert detection.ap.value == pytest.approx(slow.average_precision(hits, false, 1))
    assert detection.auroc.value == 1.0
    assert detection.picai_score.value == pytest.approx((1.0 + detection.ap.value) / 2)


def test_without_scores_there_is_no_detection_curve() -> None:
    assert summarize_cases(CASES, resamples=50).detection is None
    assert summarize_cases(CASES, resamples=50).calibration_of_lesions is None


def test_calibration_of_lesions_compares_scores_with_hits() -> None:
    cases = [case("a", 1, 0, 1, scores=(0.95, 0.05))]
    assert summarize_cases(cases, resamples=50).calibration_of_lesions.ece == pytest.approx(0.05)


def test_a_cohort_of_no_case_is_refused() -> None:
    with pytest.raises(UsageError, match="at least one case"):
        summarize_cases([])


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.floats(-5, 5), st.floats(0.1, 5)), min_size=2, max_size=8))
def test_a_ratio_lies_within_its_interval_and_within_its_cases(parts) -> None:
    resampler = Resampler([str(n) for n in range(len(parts))], resamples=200)
    found = resampler.ratio([a for a, _ in parts], [b for _, b in parts])
    each = [a / b for a, b in parts]
    assert found.value == pytest.approx(sum(a for a, _ in parts) / sum(b for _, b in parts))
    assert min(each) - 1e-9 <= found.low <= found.high <= max(each) + 1e-9


def test_the_interval_of_a_difference_is_narrow_where_cases_vary_alike() -> None:
    rng = np.random.default_rng(0)
    hardness = rng.normal(0.5, 0.2, 40)
    first = [(value, 1.0) for value in hardness]
    second = [(value + 0.02, 1.0) for value in hardness + rng.normal(0, 0.005, 40)]
    found = Resampler([str(n) for n in range(40)], resamples=2000).difference(first, second)
    assert 0 < found.difference.low < found.difference.value < found.difference.high < 0.03


def test_a_case_that_one_system_does_not_define_is_left_out_of_both() -> None:
    found = Resampler(["a", "b", "c"], resamples=50).difference(
        [(0.2, 1.0), (None, 1.0), (0.4, 1.0)], [(0.5, 1.0), (0.9, 1.0), (0.6, 1.0)]
    )
    assert (found.first, found.second, found.difference.n) == (pytest.approx(0.3), pytest.approx(0.55), 2)
