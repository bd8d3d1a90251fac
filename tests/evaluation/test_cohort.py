"""Means over patients, with intervals."""

from __future__ import annotations

import numpy as np
import pytest

from medseg.errors import UsageError
from medseg.evaluation.cohort import bootstrap_mean


def test_interval_of_equal_values_is_the_value() -> None:
    interval = bootstrap_mean([0.25] * 7)
    assert (interval.mean, interval.low, interval.high, interval.n) == (0.25, 0.25, 0.25, 7)


def test_interval_of_normal_values_is_near_the_analytic_one() -> None:
    values = np.random.default_rng(1).normal(10.0, 2.0, size=400)
    interval = bootstrap_mean(values.tolist())
    half = 1.96 * values.std() / np.sqrt(400)
    assert interval.mean == pytest.approx(values.mean())
    assert interval.low == pytest.approx(values.mean() - half, abs=0.02)
    assert interval.high == pytest.approx(values.mean() + half, abs=0.02)


def test_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(2)
    samples = rng.exponential(1.0, size=(200, 40))
    intervals = [bootstrap_mean(sample.tolist(), resamples=500, level=0.8) for sample in samples]
    share = np.mean([interval.low <= 1.0 <= interval.high for interval in intervals])
    assert 0.70 < share < 0.88  # 0.8, less what skewed small samples cost, give or take 2.8 points (one sd)


def test_same_seed_same_interval_and_narrower_level_narrower_interval() -> None:
    values = [0.1, 0.5, 0.9, 0.7]
    assert bootstrap_mean(values, seed=3) == bootstrap_mean(values, seed=3)
    wide, narrow = bootstrap_mean(values), bootstrap_mean(values, level=0.5)
    assert wide.low < narrow.low < narrow.high < wide.high


def test_no_value_is_refused() -> None:
    with pytest.raises(UsageError, match="at least one value"):
        bootstrap_mean([])
