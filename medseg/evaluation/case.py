"""One case: two maps in, all scores out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from medseg.core.geometry import Geometry
from medseg.core.lesions import LesionMap
from medseg.core.semantic import SemanticMap
from medseg.errors import GridMismatch, UsageError
from medseg.evaluation.distances import Distances, outline, whole_distances
from medseg.evaluation.published import Matched, published_values
from medseg.evaluation.rows import lesion_rows
from medseg.evaluation.scores import CaseScores, EmptyCase
from medseg.evaluation.sides import check_grids, check_region, lesions_of, with_scores
from medseg.lesions.foreground import find_foreground, lesion_boxes
from medseg.metrics.calibration import Calibration, calibrate
from medseg.metrics.contingency import Contingency, tabulate
from medseg.metrics.matching import (
    Candidates,
    Matching,
    assign,
    center_candidates,
    dilated_candidates,
    distance_candidates,
    overlap_candidates,
)
from medseg.metrics.overlap import dice_of_counts, iou_of_counts, relative_difference
from medseg.metrics.panoptic import DetectionCounts, panoptic_quality
from medseg.metrics.presets import Convention, get_convention

__all__ = ["TOLERANCE_MM", "evaluate_case"]

TOLERANCE_MM = 1.0
"""Tolerance of the surface Dice, unless another is asked for."""


def evaluate_case(
    prediction: LesionMap | SemanticMap,
    reference: LesionMap | SemanticMap,
    preset: str | Convention = "default",
    *,
    case_id: str = "case",
    region: str | None = None,
    probability: NDArray[np.floating] | None = None,
    excluded: LesionMap | None = None,
    tolerance_mm: float = TOLERANCE_MM,
    overlap_only: bool = False,
) -> CaseScores:
    """Score a prediction against a reference.

    Parameters
    ----------
    prediction, reference
        Lesion maps are taken as they are; semantic maps are separated first by the preset's own rule.
    preset
        Name of a convention (`medseg.metrics.presets.PRESETS`), or a convention of one's own.
    case_id
        For the record and for messages.
    region
        Which of the convention's regions; None: its first, or everything where it has none.
    probability
        (I, J, K) float, 0..1: lesions score the highest within them, and the calibration of voxels is reported.
    excluded
        Findings that count neither way: a prediction whose center lies within one is no false positive.
    tolerance_mm
        Of the normalized surface Dice (NSD).
    overlap_only
        True: no surface distances, no diameters; they then are None.

    Returns
    -------
    Scores, lesion by lesion too; figures that are not defined are None.

    Raises
    ------
    GridMismatch
        If the maps do not lie on one grid.
    InvalidLabelMap
        If a semantic map holds a class that the preset does not know.
    UsageError
        If there is no such preset or region, or the tolerance is negative.

    Examples
    --------
    >>> from medseg.core.lesions import Lesion
    >>> array = np.zeros((8, 8, 8), dtype=np.uint16)
    >>> array[1:4, 1:4, 1:4], array[5:7, 5:7, 5:7] = 1, 2
    >>> grid = Geometry(array.shape, np.eye(4))
    >>> reference = LesionMap(array, grid, (Lesion("lesion"),) * 2)
    >>> prediction = LesionMap(array * (array == 1), grid, (Lesion("lesion"),))
    >>> scores = evaluate_case(prediction, reference, "kirillov")
    >>> scores.tp, scores.fn, scores.pq
    (1, 1, 0.6666666666666666)
    """
    convention = get_convention(preset)
    if not 0 <= tolerance_mm < math.inf:
        raise UsageError(f"the tolerance of a surface Dice is 0 mm or above; got {tolerance_mm}")
    check_grids(prediction.geometry, reference.geometry, case_id)
    region = check_region(convention, region, isinstance(reference, SemanticMap))
    sides = _Sides(
        lesions_of(prediction, convention, region, is_reference=False, name=f"{case_id}, prediction"),
        lesions_of(reference, convention, region, is_reference=True, name=f"{case_id}, reference"),
    )
    table = tabulate(
        sides.prediction.array, sides.reference.array, sides.prediction.n_lesions, sides.reference.n_lesions
    )
    scores = with_scores(sides.prediction, _checked(probability, sides.reference.geometry, case_id))
    matching = _ignoring(_match(sides, table, convention, scores), sides, table, excluded, case_id)
    outlines = None if overlap_only else (outline(sides.prediction), outline(sides.reference))
    whole = Distances() if overlap_only else whole_distances(sides.prediction, sides.reference, tolerance_mm)
    kept = _kept(table, sides.reference.geometry, convention)
    rows = lesion_rows(sides.prediction, sides.reference, table, matching, kept, scores, outlines, tolerance_mm)
    counts = _counts(matching, kept)
    matched = Matched(sides.prediction, sides.reference, table, rows, counts, whole, outlines)
    return CaseScores(
        case_id=case_id,
        preset=convention.name,
        region=region,
        **_count_fields(matched, matching, kept),
        **_volume_fields(matched),
        **_distance_fields(matched, tolerance_mm),
        values=published_values(convention, matched),
        lesions=rows,
        calibration=_calibration(probability, sides.reference),
    )


@dataclass(frozen=True, eq=False)
class _Sides:
    prediction: LesionMap
    reference: LesionMap

    def centers_mm(self, table: Contingency) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Centroids (P, 3) and (R, 3) in RAS+ millimeters."""
        grid = self.reference.geometry
        return grid.to_world(table.prediction_centroids), grid.to_world(table.reference_centroids)


def _match(sides: _Sides, table: Contingency, convention: Convention, scores: Sequence[float | None]) -> Matching:
    beyond = _beyond_the_best(scores, convention.most_predictions)
    candidates = _candidates(sides, table, convention)
    candidates = candidates.chosen(~beyond[candidates.prediction - 1])
    matching = assign(candidates, table, convention.matching)
    return replace(matching, spared=matching.spared | beyond)


def _beyond_the_best(scores: Sequence[float | None], most: int | None) -> NDArray[np.bool_]:
    """(P,) bool, predictions that do not score above the first one beyond the limit; none without scores."""
    known = np.array([score for score in scores if score is not None])
    if most is None or len(scores) <= most or known.size < len(scores):
        return np.zeros(len(scores), dtype=np.bool_)
    beyond: NDArray[np.bool_] = known <= np.sort(known)[::-1][most]
    return beyond


def _candidates(sides: _Sides, table: Contingency, convention: Convention) -> Candidates:
    rule = convention.matching
    if rule.by == "distance":
        return distance_candidates(*sides.centers_mm(table), rule)
    if rule.by == "center":
        return center_candidates(*sides.centers_mm(table), _radii_mm(table.reference_voxels, sides.reference.geometry))
    if rule.by == "dilated":
        boxes = lesion_boxes(find_foreground(sides.reference.array), table.n_reference)
        return dilated_candidates(sides.prediction.array, sides.reference.array, boxes, rule.dilation_voxels)
    return overlap_candidates(table, rule)


def _radii_mm(voxels: NDArray[np.int64], grid: Geometry) -> NDArray[np.float64]:
    """Radius of the sphere of a lesion's volume."""
    radii: NDArray[np.float64] = np.cbrt(voxels * grid.voxel_volume_mm3 * 3.0 / (4.0 * np.pi))
    return radii


def _ignoring(
    matching: Matching, sides: _Sides, table: Contingency, excluded: LesionMap | None, case_id: str
) -> Matching:
    """The matching in which predictions at excluded findings are spared."""
    if excluded is None:
        return matching
    check_grids(excluded.geometry, sides.reference.geometry, f"{case_id}, excluded findings")
    foreground = find_foreground(excluded.array)
    others = tabulate(excluded.array, excluded.array, excluded.n_lesions, excluded.n_lesions)
    if not foreground.numbers.size:
        return matching
    centers = sides.reference.geometry.to_world(others.reference_centroids)
    near = center_candidates(sides.centers_mm(table)[0], centers, _radii_mm(others.reference_voxels, excluded.geometry))
    spared = matching.spared.copy()
    spared[near.prediction - 1] = True
    return replace(matching, spared=spared)


def _checked(probability: NDArray[np.floating] | None, grid: Geometry, case_id: str) -> NDArray[np.floating] | None:
    if probability is not None and probability.shape != grid.shape:
        raise GridMismatch(f"{case_id}: the probability has shape {probability.shape}; expected {grid.shape}")
    return probability


def _kept(table: Contingency, grid: Geometry, convention: Convention) -> NDArray[np.bool_]:
    """Which reference lesions count: those above the convention's least volume."""
    if convention.least_reference_mm3 is None:
        return np.ones(table.n_reference, dtype=np.bool_)
    kept: NDArray[np.bool_] = table.reference_voxels * grid.voxel_volume_mm3 > convention.least_reference_mm3
    return kept


def _counts(matching: Matching, kept: NDArray[np.bool_]) -> DetectionCounts:
    return DetectionCounts(
        tp=int(np.count_nonzero(matching.found & kept)),
        fp=int(np.count_nonzero(~matching.used & ~matching.spared)),
        fn=int(np.count_nonzero(~matching.found & kept)),
    )


def _count_fields(matched: Matched, matching: Matching, kept: NDArray[np.bool_]) -> dict[str, object]:
    counts, table = matched.counts, matched.table
    quality = panoptic_quality(np.array([row.iou for row in matched.found], dtype=np.float64), counts)
    return {
        "empty_case": _empty_case(table, counts),
        "n_reference": table.n_reference,
        "n_prediction": table.n_prediction,
        "n_left_out": int(np.count_nonzero(~kept)),
        "n_ignored": int(np.count_nonzero(~matching.used & matching.spared)),
        **counts.model_dump(),
        "precision": counts.precision,
        "sensitivity": counts.sensitivity,
        "f1": counts.f1,
        **quality.model_dump(),
        "count_error": table.n_prediction - table.n_reference,
        "n_merges": _n_with_several(table.prediction, table.reference, table.reference_voxels, table),
        "n_splits": _n_with_several(table.reference, table.prediction, table.prediction_voxels, table),
    }


def _empty_case(table: Contingency, counts: DetectionCounts) -> EmptyCase | None:
    if not table.n_reference:
        return "both_empty" if not table.n_prediction else "empty_reference"
    if not table.n_prediction:
        return "empty_prediction"
    return None if counts.tp else "no_match"


def _n_with_several(
    holders: NDArray[np.int64], held: NDArray[np.int64], held_voxels: NDArray[np.int64], table: Contingency
) -> int:
    """How many lesions of one map hold more than half of each of several lesions of the other."""
    mostly = 2 * table.shared_voxels > held_voxels[held - 1]
    return int(np.count_nonzero(np.bincount(holders[mostly]) > 1))


def _volume_fields(matched: Matched) -> dict[str, object]:
    shared, predicted, referenced = matched.voxels
    ml, table = matched.reference.geometry.voxel_volume_ml, matched.table
    alone = [
        int(voxels[np.bincount(numbers, minlength=voxels.size + 1)[1:] == 0].sum())
        for voxels, numbers in (
            (table.prediction_voxels, table.prediction),
            (table.reference_voxels, table.reference),
        )
    ]
    return {
        "dice": dice_of_counts(shared, predicted, referenced),
        "iou": iou_of_counts(shared, predicted, referenced),
        "reference_volume_ml": referenced * ml,
        "prediction_volume_ml": predicted * ml,
        "shared_volume_ml": shared * ml,
        "volume_error_ml": (predicted - referenced) * ml,
        "relative_volume_error": relative_difference(predicted, referenced),
        "false_positive_volume_ml": alone[0] * ml,
        "false_negative_volume_ml": alone[1] * ml,
    }


def _distance_fields(matched: Matched, tolerance_mm: float) -> dict[str, object]:
    _, predicted, referenced = matched.voxels
    whole, grid = matched.whole, matched.reference.geometry
    one_is_empty = bool(predicted) != bool(referenced)
    corners = grid.to_world([[0, 0, 0], [n - 1 for n in grid.shape]])
    diagonal = float(np.linalg.norm(corners[1] - corners[0]))
    penalized = diagonal if one_is_empty and matched.outlines else whole.hd95_mm
    return {
        "hd95_mm": whole.hd95_mm,
        "hd95_penalized_mm": penalized,
        "assd_mm": whole.assd_mm,
        "nsd": whole.nsd,
        "nsd_tolerance_mm": tolerance_mm,
        "prediction_renumbered": matched.prediction.renumbered,
        "reference_renumbered": matched.reference.renumbered,
    }


def _calibration(probability: NDArray[np.floating] | None, reference: LesionMap) -> Calibration | None:
    if probability is None:
        return None
    looked_at = (probability > 0) | (reference.array > 0)
    return calibrate(probability[looked_at], reference.array[looked_at] > 0)
