"""Detection over scans: FROC, average precision, sensitivity by lesion size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from medseg.errors import UsageError

__all__ = [
    "CPM_RATES",
    "Findings",
    "FrocCurve",
    "SizeClass",
    "area_under_roc",
    "average_precision",
    "froc",
    "sensitivity_by_size",
    "wilson_interval",
]

CPM_RATES = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""False positives a scan at which LUNA16 reads the sensitivity."""


@dataclass(frozen=True, eq=False)
class Findings:
    """What a detector found in some scans.

    Parameters
    ----------
    hit_scores
        (TP,) float64, score of each reference lesion that was found: the highest of what found it.
    false_scores
        (FP,) float64, score of each false positive.
    n_missed
        Reference lesions that nothing found, at any score.
    n_scans
        Scans in all.
    """

    hit_scores: NDArray[np.float64]
    false_scores: NDArray[np.float64]
    n_missed: int
    n_scans: int

    @property
    def n_reference(self) -> int:
        """Reference lesions in all."""
        return self.hit_scores.size + self.n_missed

    @staticmethod
    def joined(parts: Sequence[Findings]) -> Findings:
        """Findings of several sets of scans as one."""
        empty = np.empty(0)
        return Findings(
            np.concatenate([empty, *(part.hit_scores for part in parts)]),
            np.concatenate([empty, *(part.false_scores for part in parts)]),
            sum(part.n_missed for part in parts),
            sum(part.n_scans for part in parts),
        )


@dataclass(frozen=True, eq=False)
class FrocCurve:
    """Sensitivity against false positives a scan, from the highest score down; both start at 0.

    Parameters
    ----------
    false_per_scan, sensitivity
        (T,) float64, one entry a threshold.
    """

    false_per_scan: NDArray[np.float64]
    sensitivity: NDArray[np.float64]

    def at(self, rates: Sequence[float]) -> list[float]:
        """Sensitivity at false positives a scan, linear between thresholds, level beyond the last."""
        return [float(value) for value in np.interp(rates, self.false_per_scan, self.sensitivity)]

    @property
    def cpm(self) -> float:
        """Competition performance metric: the mean sensitivity at `CPM_RATES`."""
        return float(np.mean(self.at(CPM_RATES)))


def froc(findings: Findings) -> FrocCurve | None:
    """Free-response operating characteristic; None without a reference lesion.

    References
    ----------
    Setio AAA et al. Validation, comparison, and combination of algorithms for automatic detection of pulmonary nodules
    in computed tomography images: the LUNA16 challenge. Med Image Anal 42:1 (2017).

    Examples
    --------
    >>> found = Findings(np.array([0.9, 0.4]), np.array([0.5]), n_missed=1, n_scans=1)
    >>> curve = froc(found)
    >>> curve.false_per_scan.tolist(), curve.sensitivity.round(3).tolist()
    ([0.0, 0.0, 1.0, 1.0], [0.0, 0.333, 0.333, 0.667])
    """
    if not findings.n_reference:
        return None
    hits, false = _cumulated(findings)
    return FrocCurve(np.append(0.0, false / findings.n_scans), np.append(0.0, hits / findings.n_reference))


def _cumulated(findings: Findings) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Hits and false positives at or above each distinct score, from the highest down."""
    scores = np.concatenate([findings.hit_scores, findings.false_scores])
    thresholds = -np.unique(-scores)
    hits = np.searchsorted(np.sort(-findings.hit_scores), -thresholds, side="right")
    false = np.searchsorted(np.sort(-findings.false_scores), -thresholds, side="right")
    return hits.astype(np.float64), false.astype(np.float64)


def average_precision(findings: Findings) -> float | None:
    """Area under the steps of precision over sensitivity; missed lesions bring no precision. None without a lesion.

    References
    ----------
    Saha A et al. Artificial intelligence and radiologists in prostate cancer detection on MRI (PI-CAI). Lancet Oncol
    25:879 (2024); code: DIAGNijmegen/picai_eval.

    Examples
    --------
    >>> average_precision(Findings(np.array([0.9, 0.4]), np.array([0.5]), n_missed=1, n_scans=1))
    0.5555555555555556
    """
    if not findings.n_reference:
        return None
    hits, false = _cumulated(findings)
    if not hits.size:
        return 0.0
    gained = np.diff(hits, prepend=0.0) / findings.n_reference
    return float(np.sum(gained * hits / (hits + false)))


def area_under_roc(positive: NDArray[np.float64], negative: NDArray[np.float64]) -> float | None:
    """Chance that a positive case scores above a negative one, ties counting half; None without cases of both kinds.

    Examples
    --------
    >>> area_under_roc(np.array([0.9, 0.5]), np.array([0.5, 0.1]))
    0.875
    """
    if not positive.size or not negative.size:
        return None
    ordered = np.sort(negative)
    below = np.searchsorted(ordered, positive, side="left")
    at_most = np.searchsorted(ordered, positive, side="right")
    return float((below + at_most).sum() / (2.0 * positive.size * negative.size))


def wilson_interval(successes: int, n: int, level: float = 0.95) -> tuple[float, float] | None:
    """Wilson score interval of a proportion; None for no trial.

    Raises
    ------
    UsageError
        If there are more successes than trials, or the level is not between 0 and 1.

    References
    ----------
    Wilson EB. Probable inference, the law of succession, and statistical inference. J Am Stat Assoc 22:209 (1927).

    Examples
    --------
    >>> low, high = wilson_interval(8, 10)
    >>> round(low, 4), round(high, 4)
    (0.4902, 0.9433)
    """
    if not 0 <= successes <= n:
        raise UsageError(f"{successes} successes of {n} make no proportion")
    if not 0 < level < 1:
        raise UsageError(f"the level of an interval lies between 0 and 1; got {level}")
    if n == 0:
        return None
    z = NormalDist().inv_cdf((1 + level) / 2)
    share, spread = successes / n, z * z / n
    center = (share + spread / 2) / (1 + spread)
    half = z * math.sqrt(share * (1 - share) / n + spread / (4 * n)) / (1 + spread)
    # at the ends the formula gives 0 and 1 but for rounding
    return center - half if successes else 0.0, center + half if successes < n else 1.0


class SizeClass(BaseModel):
    """How many reference lesions of a size were found: at least `low`, below `high` (None: no upper end)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    low: float
    high: float | None
    n: int
    n_found: int
    sensitivity: float | None
    interval_low: float | None
    interval_high: float | None


def sensitivity_by_size(
    sizes: NDArray[np.float64], found: NDArray[np.bool_], edges: Sequence[float], level: float = 0.95
) -> list[SizeClass]:
    """Sensitivity in classes of size, with Wilson intervals.

    Parameters
    ----------
    sizes
        (R,) float64, size of each reference lesion in any unit.
    found
        (R,) bool.
    edges
        Ascending lower ends of the second class on; the first class starts at 0.
    level
        Of the intervals.

    Raises
    ------
    UsageError
        If the edges do not ascend from above 0.

    Examples
    --------
    >>> [c.sensitivity for c in sensitivity_by_size(np.array([5.0, 30.0]), np.array([False, True]), (10.0, 20.0))]
    [0.0, None, 1.0]
    """
    bounds = [0.0, *(float(edge) for edge in edges)]
    if any(low >= high for low, high in pairwise(bounds)):
        raise UsageError(f"the edges of size classes ascend from above 0; got {list(edges)}")
    return [
        _size_class(low, high, found[(sizes >= low) & (sizes < (np.inf if high is None else high))], level)
        for low, high in zip(bounds, [*bounds[1:], None], strict=True)
    ]


def _size_class(low: float, high: float | None, found: NDArray[np.bool_], level: float) -> SizeClass:
    n, n_found = int(found.size), int(np.count_nonzero(found))
    interval = wilson_interval(n_found, n, level) or (None, None)
    share = n_found / n if n else None
    return SizeClass(
        low=low, high=high, n=n, n_found=n_found, sensitivity=share, interval_low=interval[0], interval_high=interval[1]
    )
