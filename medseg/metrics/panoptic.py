"""Counts of found, false and missed lesions, and the panoptic quality of the found ones."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

__all__ = ["DetectionCounts", "PanopticQuality", "panoptic_quality"]


class DetectionCounts(BaseModel):
    """True positives, false positives and false negatives, and the ratios that follow; None for 0 / 0."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tp: int
    fp: int
    fn: int

    @property
    def precision(self) -> float | None:
        """Share of predictions that are right."""
        return _ratio(self.tp, self.tp + self.fp)

    @property
    def sensitivity(self) -> float | None:
        """Share of reference lesions that were found."""
        return _ratio(self.tp, self.tp + self.fn)

    @property
    def f1(self) -> float | None:
        """2 TP / (2 TP + FP + FN); the recognition quality (RQ) of panoptic quality."""
        return _ratio(2 * self.tp, 2 * self.tp + self.fp + self.fn)


class PanopticQuality(BaseModel):
    """SQ: mean IoU of the found lesions, None without any. RQ: F1. PQ: their product, 0 without a found lesion."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sq: float | None
    rq: float | None
    pq: float | None


def panoptic_quality(iou: NDArray[np.float64], counts: DetectionCounts) -> PanopticQuality:
    """Panoptic quality of one case.

    Parameters
    ----------
    iou
        (TP,) float64, the intersection over union of every found lesion with what found it.
    counts
        Of the same matching.

    Returns
    -------
    All None where there is neither a prediction nor a reference lesion.

    References
    ----------
    Kirillov A et al. Panoptic segmentation. CVPR 2019, equation 1.

    Examples
    --------
    >>> panoptic_quality(np.array([0.8, 0.6]), DetectionCounts(tp=2, fp=1, fn=1)).pq
    0.4666666666666666
    """
    if counts.f1 is None:
        return PanopticQuality(sq=None, rq=None, pq=None)
    if not counts.tp:
        return PanopticQuality(sq=None, rq=counts.f1, pq=0.0)
    sq = float(np.mean(iou))
    return PanopticQuality(sq=sq, rq=counts.f1, pq=sq * counts.f1)


def _ratio(numerator: float, denominator: float) -> float | None:
    return numerator / denominator if denominator else None
