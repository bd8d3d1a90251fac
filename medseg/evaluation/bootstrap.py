"""How far a figure would move with other patients: bootstrap over patients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from medseg.errors import UsageError

__all__ = ["Estimate", "Interval", "PairedDifference", "Resampler", "bootstrap_mean"]


class Interval(BaseModel):
    """A mean over patients with its bootstrap interval."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mean: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


class Estimate(BaseModel):
    """A figure with its 95 % bootstrap interval over patients, and from how many cases it is.

    All None where no case defines the figure; no interval from a single patient.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    value: float | None
    low: float | None
    high: float | None
    n: int


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


@dataclass(frozen=True)
class PairedDifference:
    """A figure of two systems over the cases that define it for both, and the second minus the first."""

    first: float | None
    second: float | None
    difference: Estimate


class Resampler:
    """Draws patients with replacement; the same draws for every figure, so that differences of figures are paired.

    Parameters
    ----------
    patients
        The patient of each case; cases of one patient are drawn together.
    resamples
        Number of bootstrap samples.
    level
        Share of the resampled figures inside an interval.
    seed
        Seed of the draws.
    """

    def __init__(self, patients: Sequence[str], *, resamples: int = 10_000, level: float = 0.95, seed: int = 0) -> None:
        names, self._patient = np.unique(np.asarray(patients, dtype=object).astype(str), return_inverse=True)
        self.n_patients = names.size
        self._level = level
        shares = np.full(self.n_patients, 1.0 / max(self.n_patients, 1))
        self.draws: NDArray[np.int64] = np.random.default_rng(seed).multinomial(self.n_patients, shares, size=resamples)
        """(B, P) int64, how often each patient is drawn in each sample."""

    def ratio(self, numerator: Sequence[float | None], denominator: Sequence[float]) -> Estimate:
        """A sum over a sum, over all cases; a case whose numerator is None is left out of both.

        Parameters
        ----------
        numerator, denominator
            One entry a case; with denominators of 1 the ratio is a mean.
        """
        defined = np.array([value is not None for value in numerator], dtype=np.bool_)
        top = self._by_patient([0.0 if value is None else float(value) for value in numerator])
        bottom = self._by_patient(np.where(defined, np.asarray(denominator, dtype=np.float64), 0.0))
        n = int(np.count_nonzero(defined))
        if not bottom.sum():
            return Estimate(value=None, low=None, high=None, n=n)
        value = float(top.sum() / bottom.sum())
        low, high = self._interval(top, bottom) if self.n_patients > 1 else (None, None)
        return Estimate(value=value, low=low, high=high, n=n)

    def mean(self, values: Sequence[float | None]) -> Estimate:
        """The mean over the cases that define it."""
        return self.ratio(values, [1.0] * len(values))

    def difference(
        self, first: Sequence[tuple[float | None, float]], second: Sequence[tuple[float | None, float]]
    ) -> PairedDifference:
        """Second ratio minus first, drawn together.

        Parameters
        ----------
        first, second
            Numerator and denominator of each case; a case that lacks a numerator on either side is left out of both.
        """
        defined = [a[0] is not None and b[0] is not None for a, b in zip(first, second, strict=True)]
        sums = [
            self._by_patient([(part[n] or 0.0) if kept else 0.0 for part, kept in zip(side, defined, strict=True)])
            for side in (first, second)
            for n in (0, 1)
        ]
        n = sum(defined)
        if not sums[1].sum() or not sums[3].sum():
            return PairedDifference(None, None, Estimate(value=None, low=None, high=None, n=n))
        a, b = (float(sums[k].sum() / sums[k + 1].sum()) for k in (0, 2))
        low, high = self._paired_interval(sums) if self.n_patients > 1 else (None, None)
        return PairedDifference(a, b, Estimate(value=b - a, low=low, high=high, n=n))

    def _paired_interval(self, sums: list[NDArray[np.float64]]) -> tuple[float, float]:
        drawn = [self.draws @ column for column in sums]
        with np.errstate(divide="ignore", invalid="ignore"):
            figures = drawn[2] / drawn[3] - drawn[0] / drawn[1]
        return self.quantiles(figures[(drawn[1] != 0) & (drawn[3] != 0)])

    def _by_patient(self, values: Sequence[float] | NDArray[np.float64]) -> NDArray[np.float64]:
        sums = np.bincount(self._patient, weights=np.asarray(values, dtype=np.float64), minlength=self.n_patients)
        return sums.astype(np.float64)

    def _interval(self, top: NDArray[np.float64], bottom: NDArray[np.float64]) -> tuple[float, float]:
        sums = self.draws @ bottom
        with np.errstate(divide="ignore", invalid="ignore"):
            figures = (self.draws @ top) / sums
        return self.quantiles(figures[sums != 0])

    def quantiles(self, figures: NDArray[np.float64]) -> tuple[float, float]:
        """The interval that holds the level's share of resampled figures."""
        low, high = np.quantile(figures, ((1 - self._level) / 2, (1 + self._level) / 2))
        return float(low), float(high)
