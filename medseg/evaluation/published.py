"""The figures of published conventions, by their published names, computed from what was matched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medseg.core.lesions import LesionMap
from medseg.evaluation.distances import Distances, Outlined
from medseg.evaluation.scores import LesionScore
from medseg.metrics.contingency import Contingency
from medseg.metrics.overlap import dice_of_counts, iou_of_counts, relative_difference
from medseg.metrics.panoptic import DetectionCounts, panoptic_quality
from medseg.metrics.presets import Convention
from medseg.metrics.territories import territory_dice

__all__ = ["Matched", "published_values"]

_FARTHEST_MM = 374.0  # BraTS: what a distance to nothing counts

Values = Mapping[str, float | None]


@dataclass(frozen=True, eq=False)
class Matched:
    """A case once its lesions are matched: maps, voxel counts, rows, counts, and outlines if distances are wanted."""

    prediction: LesionMap
    reference: LesionMap
    table: Contingency
    rows: Sequence[LesionScore]
    counts: DetectionCounts
    whole: Distances
    outlines: tuple[Outlined, Outlined] | None

    @property
    def voxels(self) -> tuple[int, int, int]:
        """Voxels shared, predicted, and of the reference."""
        table = self.table
        return (
            int(table.shared_voxels.sum()),
            int(table.prediction_voxels.sum()),
            int(table.reference_voxels.sum()),
        )

    @property
    def found(self) -> list[LesionScore]:
        """Rows of the lesions that were found."""
        return [row for row in self.rows if row.outcome == "tp"]


def published_values(convention: Convention, matched: Matched) -> Values:
    """What the convention's own script would print for a case; None where that is nan or infinite."""
    functions = {
        "panoptica": panoptica,
        "brats2023": brats2023,
        "cc-metrics": cc_metrics,
        "autopet": autopet,
    }
    function = functions.get(convention.published or "")
    return function(matched) if function else {}


def brats2023(matched: Matched) -> Values:
    """The columns of the BraTS 2023 lesion-wise script."""
    shared, predicted, referenced = matched.voxels
    kept = [row for row in matched.rows if row.outcome in ("tp", "fn")]
    n = len(kept) + matched.counts.fp
    both_empty = not predicted and not referenced
    n_voxels = matched.reference.array.size
    background = n_voxels - predicted - referenced + shared
    values = {
        "Num_TP": matched.counts.tp,
        "Num_FP": matched.counts.fp,
        "Num_FN": matched.counts.fn,
        "Sensitivity": 1.0 if both_empty else (shared / referenced if referenced else 0.0),
        "Specificity": background / (n_voxels - referenced) if n_voxels > referenced else 0.0,
        "Legacy_Dice": dice_of_counts(shared, predicted, referenced) if not both_empty else 1.0,
        "GT_Complete_Volume": referenced * matched.reference.geometry.voxel_volume_mm3,
        "LesionWise_Score_Dice": sum(row.dice or 0.0 for row in kept) / n if n else 1.0,
    }
    if matched.outlines is None:
        return values
    lesion_mm = sum(_FARTHEST_MM if row.hd95_mm is None else row.hd95_mm for row in kept)
    whole_mm = _FARTHEST_MM if matched.whole.hd95_mm is None else matched.whole.hd95_mm
    return {
        **values,
        "Legacy_HD95": 0.0 if both_empty else whole_mm,
        "LesionWise_Score_HD95": (lesion_mm + matched.counts.fp * _FARTHEST_MM) / n if n else 0.0,
    }


def autopet(matched: Matched) -> Values:
    """Dice, and the volume of components without any overlap, in milliliters."""
    shared, predicted, referenced = matched.voxels
    ml = matched.reference.geometry.voxel_volume_ml
    alone = [
        voxels[~np.isin(np.arange(1, voxels.size + 1), numbers)].sum()
        for voxels, numbers in (
            (matched.table.prediction_voxels, matched.table.prediction),
            (matched.table.reference_voxels, matched.table.reference),
        )
    ]
    return {
        "dice": dice_of_counts(shared, predicted, referenced) if referenced else None,
        "false_positive_volume_ml": float(alone[0] * ml),
        "false_negative_volume_ml": float(alone[1] * ml),
    }


def cc_metrics(matched: Matched) -> Values:
    """Mean Dice over the territories of the reference components."""
    if not matched.reference.n_lesions:
        return {"cc_dice": 0.0 if matched.prediction.n_lesions else 1.0}
    dice = territory_dice(matched.prediction.array > 0, matched.reference.array, matched.reference.n_lesions)
    return {"cc_dice": float(dice.mean())}


def panoptica(matched: Matched) -> Values:
    """The keys of panoptica's result of one group; distances between border voxels as panoptica measures them."""
    found = matched.found
    voxel = matched.reference.geometry.voxel_volume_mm3
    shared, predicted, referenced = matched.voxels
    counts = matched.counts
    iou = np.array([row.iou for row in found], dtype=np.float64)
    dice = np.array([row.dice for row in found], dtype=np.float64)
    sizes = np.array([matched.table.reference_voxels[_id(row) - 1] for row in found], dtype=np.float64)
    relative = np.array(
        [relative_difference(row.prediction_volume_ml or 0.0, row.reference_volume_ml or 0.0) for row in found],
        dtype=np.float64,
    )
    is_zero = not found and counts.f1 is not None
    quality = {
        name: 0.0 if is_zero else panoptic_quality(values, counts).pq
        for name, values in (("pq", iou), ("pq_dsc", dice))
    }
    return {
        "prec": 0.0 if is_zero else counts.precision,
        "rec": 0.0 if is_zero else counts.sensitivity,
        "rq": counts.f1,
        **_mean_std("sq", iou, empty=0.0 if is_zero else None),
        **_mean_std("sq_dsc", dice, empty=0.0 if is_zero else None),
        **quality,
        **_mean_std("sq_rvd", relative),
        "instance_voxel_count_ref": float(sizes.mean()) if found else None,
        "instance_volume_ref": float(sizes.mean() * voxel) if found else None,
        "global_bin_volume_pred": float(predicted),
        "global_bin_volume_ref": float(referenced),
        "global_bin_dsc": dice_of_counts(shared, predicted, referenced),
        "global_bin_iou": iou_of_counts(shared, predicted, referenced),
        "global_bin_rvd": relative_difference(predicted, referenced),
        **(_panoptica_distances(matched) if matched.outlines else {}),
    }


def _panoptica_distances(matched: Matched) -> Values:
    """ASSD: mean of two means; HD; HD95: both ways pooled; NSD at the least spacing: mean of two shares."""
    if matched.outlines is None:
        return {}
    prediction, reference = matched.outlines
    tolerance = min(matched.reference.geometry.spacing)
    columns: dict[str, list[float]] = {"sq_assd": [], "sq_hd": [], "sq_hd95": [], "sq_nsd": []}
    for row in matched.found:
        there, back = prediction.border_distances(row.prediction_ids, reference, (_id(row),))
        columns["sq_assd"].append(float(np.mean((there.mean(), back.mean()))))
        columns["sq_hd"].append(float(max(there.max(), back.max())))
        columns["sq_hd95"].append(float(np.percentile(np.hstack((there, back)), 95)))
        columns["sq_nsd"].append(float(np.mean((np.mean(there <= tolerance), np.mean(back <= tolerance)))))
    values: dict[str, float | None] = {}
    for name, column in columns.items():
        values |= _mean_std(name, np.array(column))
    return values


def _mean_std(name: str, values: NDArray[np.float64], empty: float | None = None) -> Values:
    if not values.size:
        return {name: empty, f"{name}_std": empty}
    return {name: float(values.mean()), f"{name}_std": float(values.std())}


def _id(row: LesionScore) -> int:
    """Number of the reference lesion of a found one, which always has one."""
    return row.reference_id or 0
