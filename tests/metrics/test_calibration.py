"""Calibration errors by hand and beside a loop."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medseg.errors import UsageError
from medseg.metrics.calibration import calibrate


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=40), st.integers(1, 12))
def test_errors_are_those_of_a_loop_over_bins(pairs, n_bins: int) -> None:
    found = calibrate(np.array([p for p, _ in pairs]), np.array([t for _, t in pairs]), n_bins)
    bins: dict[int, list[tuple[float, bool]]] = {}
    for p, t in pairs:
        bins.setdefault(min(int(p * n_bins), n_bins - 1), []).append((p, t))
    gaps = {n: abs(sum(p for p, _ in part) - sum(t for _, t in part)) / len(part) for n, part in bins.items()}
    assert found.ece == pytest.approx(sum(gaps[n] * len(part) for n, part in bins.items()) / len(pairs), abs=1e-12)
    assert found.mce == pytest.approx(max(gaps.values()), abs=1e-12)
    assert found.brier == pytest.approx(sum((p - t) ** 2 for p, t in pairs) / len(pairs), abs=1e-12)
    assert sum(part.n for part in found.bins) == len(pairs)


def test_right_probabilities_have_no_error() -> None:
    rng = np.random.default_rng(0)
    probability = rng.random(200_000)
    found = calibrate(probability, rng.random(200_000) < probability)
    assert found.ece < 0.005
    assert calibrate(probability**3, rng.random(200_000) < probability).ece > 0.1


def test_nothing_has_no_error() -> None:
    found = calibrate(np.empty(0), np.empty(0, dtype=bool))
    assert found.ece is found.mce is found.brier is found.bins[0].observed is None


@pytest.mark.parametrize("probability", [-0.1, 1.1, float("nan")])
def test_what_is_no_probability_is_refused(probability: float) -> None:
    with pytest.raises(UsageError, match=r"0\.\.1"):
        calibrate(np.array([probability]), np.array([True]))
