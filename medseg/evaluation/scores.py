"""The scores of one case, as records that go to JSON; a figure that is not defined is None."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from medseg.metrics.calibration import Calibration
from medseg.metrics.detection import Findings

__all__ = ["CaseScores", "EmptyCase", "LesionScore", "Outcome", "findings_of"]

Outcome = Literal["tp", "fn", "fp", "left out", "ignored"]
EmptyCase = Literal["both_empty", "empty_reference", "empty_prediction", "no_match"]


class LesionScore(BaseModel):
    """One reference lesion, or one prediction that found none.

    Parameters
    ----------
    reference_id
        Its number in the reference; None for a prediction that found none.
    prediction_ids
        Numbers of the predictions that count as having found it; of the prediction itself where it found none.
    outcome
        "tp": found; "fn": missed; "fp": a prediction that found none; "left out": a reference lesion below the
        convention's least volume; "ignored": a prediction that found none, but is no false positive by the convention.
    class_name
        Of the reference lesion, or of the prediction that found none.
    score
        Highest score of the predictions, None where they have none.
    iou, dice, overlap
        Of the united predictions with the reference; overlap is the share of the reference's voxels.
    centroid_distance_mm
        Between the centroids; of several predictions, of all their voxels.
    volume_error_ml, diameter_error_mm
        Prediction minus reference.
    reference_diameter_mm, prediction_diameter_mm
        Longest diameter within an axial slice.
    hd95_mm, assd_mm, nsd
        Of the two surfaces; None unless found.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    reference_id: int | None
    prediction_ids: tuple[int, ...]
    outcome: Outcome
    class_name: str
    score: float | None = None
    reference_volume_ml: float | None = None
    prediction_volume_ml: float | None = None
    volume_error_ml: float | None = None
    iou: float | None = None
    dice: float | None = None
    overlap: float | None = None
    centroid_distance_mm: float | None = None
    reference_diameter_mm: float | None = None
    prediction_diameter_mm: float | None = None
    diameter_error_mm: float | None = None
    hd95_mm: float | None = None
    assd_mm: float | None = None
    nsd: float | None = None


class CaseScores(BaseModel):
    """All scores of one case, or of one region of it.

    Parameters
    ----------
    case_id, preset, region
        What was scored, by which convention; `region` is None where the convention has none.
    empty_case
        "both_empty", "empty_reference", "empty_prediction", "no_match", or None for none of these.
    n_reference, n_prediction
        Lesions of each map; `n_left_out` of the reference are below the convention's least volume, `n_ignored` of the
        prediction are spared by it.
    count_error
        Predicted minus reference lesions.
    n_merges, n_splits
        Predictions that hold more than half of each of several reference lesions; reference lesions that hold more than
        half of each of several predictions.
    sq, rq, pq
        Panoptic quality; `rq` equals `f1`.
    dice, iou, hd95_mm, assd_mm, nsd
        Of all lesions of a map as one mask.
    hd95_penalized_mm
        `hd95_mm`, or the diagonal of the grid where only one mask is empty: the figure to average, so that a missed
        structure never improves a mean.
    false_positive_volume_ml, false_negative_volume_ml
        Volume of predictions, and of reference lesions, that share no voxel with the other map.
    prediction_renumbered, reference_renumbered
        Whether a map held other numbers than 1..n, so that its lesions were numbered anew.
    values
        The convention's published figures, by the names in which they are published.
    lesions
        Reference lesions by number, then predictions that found none.
    calibration
        Of the voxels in the reference or of probability above 0; None without a probability map.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    case_id: str
    preset: str
    region: str | None
    empty_case: EmptyCase | None
    n_reference: int
    n_prediction: int
    n_left_out: int
    n_ignored: int
    tp: int
    fp: int
    fn: int
    precision: float | None
    sensitivity: float | None
    f1: float | None
    sq: float | None
    rq: float | None
    pq: float | None
    count_error: int
    n_merges: int
    n_splits: int
    dice: float | None
    iou: float | None
    reference_volume_ml: float
    prediction_volume_ml: float
    shared_volume_ml: float
    volume_error_ml: float
    relative_volume_error: float | None
    false_positive_volume_ml: float
    false_negative_volume_ml: float
    hd95_mm: float | None
    hd95_penalized_mm: float | None
    assd_mm: float | None
    nsd: float | None
    nsd_tolerance_mm: float
    prediction_renumbered: bool
    reference_renumbered: bool
    values: Mapping[str, float | None]
    lesions: tuple[LesionScore, ...]
    calibration: Calibration | None = None


def findings_of(case: CaseScores) -> Findings | None:
    """What a case adds to a FROC; None if a prediction that counts has no score."""
    hits = [row.score for row in case.lesions if row.outcome == "tp"]
    false = [row.score for row in case.lesions if row.outcome == "fp"]
    scores = [score for score in (*hits, *false) if score is not None]
    if len(scores) < len(hits) + len(false):
        return None
    return Findings(np.array(scores[: len(hits)]), np.array(scores[len(hits) :]), case.fn, 1)
