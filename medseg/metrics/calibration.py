"""Whether probabilities mean what they say."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from medseg.errors import UsageError

__all__ = ["Calibration", "CalibrationBin", "calibrate"]


class CalibrationBin(BaseModel):
    """The probabilities of one bin: how many, their mean, and the share that came true."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    low: float
    high: float
    n: int
    mean_probability: float | None
    observed: float | None


class Calibration(BaseModel):
    """Expected and largest calibration error over bins, Brier score; None without a probability."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    n: int
    ece: float | None
    mce: float | None
    brier: float | None
    bins: tuple[CalibrationBin, ...]


def calibrate(probability: NDArray[np.floating], is_true: NDArray[np.bool_], n_bins: int = 10) -> Calibration:
    """Compare probabilities with what came true.

    Parameters
    ----------
    probability
        (N,) float, 0..1: of voxels, or scores of predicted lesions.
    is_true
        (N,) bool: whether the voxel is lesion, or the predicted lesion was right.
    n_bins
        Bins of equal width; a probability on an edge goes to the upper bin, 1 to the last.

    Raises
    ------
    UsageError
        If a probability is not within 0..1, the lengths differ, or there is no bin.

    References
    ----------
    Guo C et al. On calibration of modern neural networks. ICML 2017. Brier GW. Mon Weather Rev 78:1 (1950).

    Examples
    --------
    >>> round(calibrate(np.array([0.05, 0.95]), np.array([False, True])).ece, 6)
    0.05
    """
    values = np.asarray(probability, dtype=np.float64).ravel()
    truth = np.asarray(is_true, dtype=np.bool_).ravel()
    if values.size != truth.size or n_bins < 1:
        raise UsageError(f"{values.size} probabilities need as many outcomes ({truth.size}) and at least one bin")
    if values.size and not (values.min() >= 0 and values.max() <= 1):
        raise UsageError(f"probabilities lie within 0..1; got {values.min():g}..{values.max():g}")
    which = np.minimum((values * n_bins).astype(np.int64), n_bins - 1)
    n = np.bincount(which, minlength=n_bins)
    filled = np.maximum(n, 1)
    mean = np.bincount(which, weights=values, minlength=n_bins) / filled
    observed = np.bincount(which, weights=truth, minlength=n_bins) / filled
    gap = np.abs(mean - observed)
    bins = tuple(
        CalibrationBin(
            low=number / n_bins,
            high=(number + 1) / n_bins,
            n=int(n[number]),
            mean_probability=float(mean[number]) if n[number] else None,
            observed=float(observed[number]) if n[number] else None,
        )
        for number in range(n_bins)
    )
    if not values.size:
        return Calibration(n=0, ece=None, mce=None, brier=None, bins=bins)
    return Calibration(
        n=values.size,
        ece=float((gap * n).sum() / values.size),
        mce=float(gap[n > 0].max()),
        brier=float(np.mean((values - truth) ** 2)),
        bins=bins,
    )
