"""Figures of a cohort, with intervals that say how far they would move with other patients."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict

from medseg.errors import UsageError

__all__ = ["Interval", "bootstrap_mean"]


class Interval(BaseModel):
    """A mean over patients with its bootstrap interval."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mean: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


def bootstrap_mean(values: Sequence[float], *, resamples: int = 10_000, level: float = 0.95, seed: int = 0) -> Interval:
    """The mean of one value a patient, with its percentile bootstrap interval over patients.

    Parameters
    ----------
    values
        One number a patient.
    resamples
        Number of bootstrap samples.
    level
        Share of the resampled means inside the interval.
    seed
        Seed of the resampling.

    Raises
    ------
    UsageError
        If there is no value.

    References
    ----------
    Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13.

    Examples
    --------
    >>> bootstrap_mean([0.5, 0.5, 0.5])
    Interval(mean=0.5, low=0.5, high=0.5, n=3)
    """
    if not values:
        raise UsageError("a bootstrap interval needs at least one value")
    array = np.asarray(values, dtype=np.float64)
    chosen = np.random.default_rng(seed).integers(0, array.size, size=(resamples, array.size))
    means = array[chosen].mean(axis=1)
    low, high = np.quantile(means, ((1 - level) / 2, (1 + level) / 2))
    return Interval(mean=float(array.mean()), low=float(low), high=float(high), n=array.size)
