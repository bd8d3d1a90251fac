"""FROC, average precision, ROC, Wilson intervals beside brute force and known figures."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medseg.errors import UsageError
from medseg.metrics.detection import (
    CPM_RATES,
    Findings,
    area_under_roc,
    average_precision,
    froc,
    sensitivity_by_size,
    wilson_interval,
)
from tests.metrics import brute_force as slow

SCORES = st.lists(st.sampled_from((0.1, 0.25, 0.5, 0.75, 0.9)), max_size=8)


def findings(hits, false, n_missed=0, n_scans=1) -> Findings:
    return Findings(np.array(hits, dtype=float), np.array(false, dtype=float), n_missed, n_scans)


@settings(max_examples=500, deadline=None)
@given(SCORES, SCORES, st.integers(0, 4), st.integers(1, 4))
def test_froc_and_average_precision_are_those_of_brute_force(hits, false, n_missed, n_scans) -> None:
    found = findings(hits, false, n_missed, n_scans)
    curve, ap = froc(found), average_precision(found)
    if not hits and not n_missed:
        assert curve is ap is None
        return
    expected = [slow.froc_at(hits, false, n_missed, n_scans, rate) for rate in CPM_RATES]
    assert curve.at(CPM_RATES) == pytest.approx(expected)
    assert curve.cpm == pytest.approx(sum(expected) / 7)
    assert ap == pytest.approx(slow.average_precision(hits, false, n_missed))


@settings(max_examples=300, deadline=None)
@given(SCORES, SCORES)
def test_area_under_roc_counts_ordered_pairs(positive, negative) -> None:
    area = area_under_roc(np.array(positive), np.array(negative))
    if not positive or not negative:
        assert area is None
        return
    wins = sum((p > n) + 0.5 * (p == n) for p in positive for n in negative)
    assert area == pytest.approx(wins / len(positive) / len(negative))


def test_a_perfect_detector_reaches_one() -> None:
    found = findings([0.9, 0.8], [0.1])
    assert (froc(found).cpm, average_precision(found)) == (1.0, 1.0)


def test_joined_findings_are_those_of_all_scans() -> None:
    joined = Findings.joined([findings([0.9], [0.5], 1), findings([], [0.7])])
    assert (joined.n_reference, joined.n_scans, joined.false_scores.tolist()) == (2, 2, [0.5, 0.7])


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [(0, 10, 0.0, 0.2775), (5, 10, 0.2366, 0.7634), (10, 10, 0.7225, 1.0), (81, 263, 0.2553, 0.3662)],
)
def test_wilson_intervals_are_those_of_the_literature(successes, n, low, high) -> None:
    """Newcombe RG. Stat Med 17:857 (1998), table I has 81/263 and the ends of n = 10 follow from the formula."""
    assert wilson_interval(successes, n) == pytest.approx((low, high), abs=6e-5)


@settings(max_examples=200)
@given(st.integers(1, 400), st.data())
def test_both_ends_of_a_wilson_interval_solve_its_equation(n, data) -> None:
    successes = data.draw(st.integers(0, n))
    low, high = wilson_interval(successes, n)
    assert 0 <= low <= successes / n <= high <= 1
    for end in (low, high):
        if 0 < end < 1:
            assert abs(successes / n - end) / math.sqrt(end * (1 - end) / n) == pytest.approx(1.959964, rel=1e-4)


def test_sensitivity_by_size_counts_each_lesion_once() -> None:
    sizes, found = np.array([1.0, 10.0, 19.9, 20.0, 50.0]), np.array([False, True, False, True, True])
    small, middle, large = sensitivity_by_size(sizes, found, (10.0, 20.0))
    assert [(c.n, c.n_found) for c in (small, middle, large)] == [(1, 0), (2, 1), (2, 2)]
    assert (small.low, small.high, large.high) == (0.0, 10.0, None)


def test_a_class_without_lesions_has_no_sensitivity() -> None:
    (only,) = sensitivity_by_size(np.empty(0), np.empty(0, dtype=bool), ())
    assert only.sensitivity is only.interval_low is only.interval_high is None


@pytest.mark.parametrize("edges", [(10.0, 10.0), (20.0, 10.0), (0.0, 1.0)])
def test_edges_that_do_not_ascend_are_refused(edges) -> None:
    with pytest.raises(UsageError, match="ascend"):
        sensitivity_by_size(np.array([1.0]), np.array([True]), edges)


def test_more_successes_than_trials_are_refused() -> None:
    with pytest.raises(UsageError, match="3 successes of 2"):
        wilson_interval(3, 2)
    assert wilson_interval(0, 0) is None
