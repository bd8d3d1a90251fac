"""One row a lesion: what found it, and how well."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.core.lesions import LesionMap
from medseg.evaluation.distances import Distances, Outlined
from medseg.evaluation.scores import LesionScore, Outcome
from medseg.metrics.contingency import Contingency
from medseg.metrics.matching import Matching
from medseg.metrics.overlap import dice_of_counts, iou_of_counts

__all__ = ["lesion_rows"]


def lesion_rows(
    prediction: LesionMap,
    reference: LesionMap,
    table: Contingency,
    matching: Matching,
    kept: NDArray[np.bool_],
    scores: Sequence[float | None],
    outlines: tuple[Outlined, Outlined] | None,
    tolerance_mm: float,
) -> tuple[LesionScore, ...]:
    """Rows of all reference lesions by number, then of the predictions that found none.

    Parameters
    ----------
    prediction, reference, table, matching
        Of the case.
    kept
        (R,) bool, which reference lesions count.
    scores
        One a predicted lesion, or None.
    outlines
        Of prediction and reference, for distances and diameters; None leaves them out.
    tolerance_mm
        Of the surface Dice.
    """
    writer = _Writer(prediction, reference, table, scores, outlines, tolerance_mm)
    finders: dict[int, list[int]] = defaultdict(list)
    for number, found in zip(matching.pairs.prediction.tolist(), matching.pairs.reference.tolist(), strict=True):
        finders[found].append(number)
    rows = [
        writer.of_reference(number, tuple(sorted(finders[number])), bool(kept[number - 1]))
        for number in range(1, table.n_reference + 1)
    ]
    alone = np.flatnonzero(~matching.used) + 1
    rows += [writer.of_prediction(number, bool(matching.spared[number - 1])) for number in alone.tolist()]
    return tuple(rows)


@dataclass(frozen=True, eq=False)
class _Writer:
    prediction: LesionMap
    reference: LesionMap
    table: Contingency
    scores: Sequence[float | None]
    outlines: tuple[Outlined, Outlined] | None
    tolerance_mm: float

    def __post_init__(self) -> None:
        shared: dict[tuple[int, int], int] = {
            (p, r): n
            for p, r, n in zip(
                self.table.prediction.tolist(),
                self.table.reference.tolist(),
                self.table.shared_voxels.tolist(),
                strict=True,
            )
        }
        object.__setattr__(self, "_shared", shared)

    def of_prediction(self, number: int, is_spared: bool) -> LesionScore:
        """A prediction that found none."""
        return LesionScore(
            reference_id=None,
            prediction_ids=(number,),
            outcome="ignored" if is_spared else "fp",
            class_name=self.prediction.lesions[number - 1].class_name,
            score=self.scores[number - 1],
            prediction_volume_ml=int(self.table.prediction_voxels[number - 1]) * self._ml,
            prediction_diameter_mm=self.outlines[0].diameter_mm((number,)) if self.outlines else None,
        )

    def of_reference(self, number: int, finders: tuple[int, ...], is_kept: bool) -> LesionScore:
        """A reference lesion."""
        outcome: Outcome = "left out" if not is_kept else ("tp" if finders else "fn")
        return LesionScore(
            reference_id=number,
            prediction_ids=finders,
            outcome=outcome,
            class_name=self.reference.lesions[number - 1].class_name,
            reference_volume_ml=int(self.table.reference_voxels[number - 1]) * self._ml,
            **(self._overlaps(number, finders) if finders else {}),
            **self._distances(number, finders),
        )

    @property
    def _ml(self) -> float:
        return self.reference.geometry.voxel_volume_ml

    def _overlaps(self, number: int, finders: tuple[int, ...]) -> dict[str, Any]:
        slots = np.array(finders) - 1
        shared = sum(self._shared.get((finder, number), 0) for finder in finders)  # type: ignore[attr-defined]
        predicted = int(self.table.prediction_voxels[slots].sum())
        referenced = int(self.table.reference_voxels[number - 1])
        scores = [self.scores[slot] for slot in slots]
        known = [score for score in scores if score is not None]
        centroid = np.average(
            self.table.prediction_centroids[slots], axis=0, weights=self.table.prediction_voxels[slots]
        )
        ends = self.reference.geometry.to_world([centroid, self.table.reference_centroids[number - 1]])
        return {
            "score": max(known) if len(known) == len(scores) else None,
            "prediction_volume_ml": predicted * self._ml,
            "volume_error_ml": (predicted - referenced) * self._ml,
            "iou": iou_of_counts(shared, predicted, referenced),
            "dice": dice_of_counts(shared, predicted, referenced),
            "overlap": shared / referenced,
            "centroid_distance_mm": float(np.linalg.norm(ends[0] - ends[1])),
        }

    def _distances(self, number: int, finders: tuple[int, ...]) -> dict[str, Any]:
        if self.outlines is None:
            return {}
        prediction, reference = self.outlines
        diameter = reference.diameter_mm((number,))
        if not finders:
            return {"reference_diameter_mm": diameter}
        found: Distances = prediction.distances(finders, reference, (number,), self.tolerance_mm)
        predicted = prediction.diameter_mm(finders)
        return {
            "reference_diameter_mm": diameter,
            "prediction_diameter_mm": predicted,
            "diameter_error_mm": predicted - diameter,
            "hd95_mm": found.hd95_mm,
            "assd_mm": found.assd_mm,
            "nsd": found.nsd,
        }
