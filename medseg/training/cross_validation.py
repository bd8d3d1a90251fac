"""Cross-validation: how well the same training does on patients that it has not seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from medseg.core.lesions import LesionMap
from medseg.core.monitor import Monitor
from medseg.core.plan import Plan, SeparationPlan
from medseg.core.volume import Volume
from medseg.errors import TrainingError
from medseg.evaluation.cohort import bootstrap_mean
from medseg.inference.segmenter import Segmenter
from medseg.io.json_files import write_json
from medseg.io.labelled_cases import LabelledCase
from medseg.io.scan import load_volume
from medseg.lesions.separate import separate_lesions
from medseg.metrics.overlap import dice
from medseg.networks.build import build_network
from medseg.training.loop import fit
from medseg.training.scores import CaseScore, CrossValidation
from medseg.training.validation import cases_to_fit
from medseg.training.validation_page import draw_case
from medseg.transforms.augment import TrainingCase

__all__ = ["CaseScore", "CrossValidation", "fold_numbers", "run_fold", "summarize"]

_LEAST_MARGIN = 0.1  # share of a margin that a patient cut anew keeps at least
_FOUND_OVERLAP = 0.5  # share of a reference lesion's voxels that must be predicted for it to count as found


def fold_numbers(cases: Sequence[LabelledCase]) -> tuple[int, ...]:
    """The folds that a manifest's cases are in.

    Raises
    ------
    TrainingError
        If a case has no fold, or there is only one.
    """
    without = [case.case_id for case in cases if case.fold is None]
    if without:
        raise TrainingError(f"cross-validation needs a fold for every case; without one: {', '.join(without[:5])}")
    numbers = sorted({case.fold for case in cases if case.fold is not None})
    if len(numbers) < 2:
        raise TrainingError(f"cross-validation needs at least two folds; the manifest has {numbers}")
    return tuple(numbers)


def run_fold(
    fold: int,
    labelled: Sequence[LabelledCase],
    loaded: Mapping[str, TrainingCase],
    plan: Plan,
    folder: Path,
    *,
    device: torch.device,
    resume: bool,
    monitor: Monitor,
    given_validation: Sequence[LabelledCase] = (),
    start: Mapping[str, torch.Tensor] | None = None,
) -> list[CaseScore]:
    """Train on the other folds, score this one's patients on their own grids; scores also go to `scores.json`.

    With `resume`, a fold that was scored with the same plan is read and not trained again. Where the plan validates
    while training, it does so on `given_validation`, or else on the next fold, which then is not trained on. Networks
    start from the weights `start` where there are some.
    """
    scores_file = folder / "scores.json"
    if resume and scores_file.is_file():
        saved = _FoldScores.model_validate_json(scores_file.read_text(encoding="utf-8"))
        if saved.plan_sha256 == plan.sha256:
            return list(saved.cases)
    training, validation = cases_to_fit(labelled, given_validation, plan.training, held_out=fold)
    weights = fit(
        [loaded[case.case_id] for case in training],
        plan,
        folder,
        device=device,
        resume=resume,
        monitor=monitor,
        validation=validation,
        start=start,
    )
    network = build_network(plan)
    network.load_state_dict(weights)
    segmenter = Segmenter(network, plan, device=str(device), engine="torch", precision="exact")
    scores = [_score(case, fold, segmenter, folder) for case in labelled if case.fold == fold]
    write_json(_FoldScores(plan_sha256=plan.sha256, cases=tuple(scores)).model_dump(mode="json"), scores_file)
    return scores


def summarize(scores: Sequence[CaseScore], plan: Plan) -> CrossValidation:
    """Means and intervals over all held-out patients."""
    with_lesion = [score for score in scores if score.reference_ml > 0]
    n_reference = sum(score.n_reference for score in scores)
    n_found = sum(score.n_found for score in scores)
    return CrossValidation(
        n_folds=len({score.fold for score in scores}),
        plan_sha256=plan.sha256,
        dice=bootstrap_mean([score.dice for score in scores if score.dice is not None]),
        dice_recut=bootstrap_mean([score.dice_recut for score in scores if score.dice_recut is not None]),
        absolute_volume_error_ml=bootstrap_mean([abs(score.volume_error_ml) for score in scores]),
        absolute_relative_volume_error=bootstrap_mean(
            [abs(score.volume_error_ml) / score.reference_ml for score in with_lesion]
        ),
        sensitivity=n_found / max(n_reference, 1),
        n_reference=n_reference,
        n_found=n_found,
        n_false=sum(score.n_false for score in scores),
        cases=tuple(sorted(scores, key=lambda score: score.case_id)),
    )


class _FoldScores(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    plan_sha256: str
    cases: tuple[CaseScore, ...]


def _score(case: LabelledCase, fold: int, segmenter: Segmenter, folder: Path) -> CaseScore:
    volume = load_volume(case.scan, units=segmenter.units)
    semantic, _ = segmenter.segment(volume)
    predicted = separate_lesions(semantic, segmenter.recipe.separation)
    reference = separate_lesions(case.reference, SeparationPlan(method="components"))
    draw_case(folder, case.case_id, volume, segmenter.recipe.channels[0].modality, reference, predicted)
    recut, recut_reference = _recut(volume, case.reference.array > 0, case.case_id)
    voxel_ml = case.scan.geometry.voxel_volume_ml
    return CaseScore(
        case_id=case.case_id,
        fold=fold,
        dice=dice(predicted.array > 0, reference.array > 0),
        dice_recut=dice(segmenter.segment(recut)[0].array > 0, recut_reference),
        reference_ml=float(np.count_nonzero(reference.array) * voxel_ml),
        predicted_ml=float(np.count_nonzero(predicted.array) * voxel_ml),
        n_reference=reference.n_lesions,
        n_found=_n_covered(reference, predicted, _FOUND_OVERLAP),
        n_predicted=predicted.n_lesions,
        n_false=predicted.n_lesions - _n_covered(predicted, reference, 0.0),
    )


def _recut(volume: Volume, reference: NDArray[np.bool_], case_id: str) -> tuple[Volume, NDArray[np.bool_]]:
    """The same patient with margins of a random share of what they were, drawn from the case's name."""
    inside = np.argwhere(reference)
    if not inside.size:
        return volume, reference
    rng = np.random.default_rng(list(case_id.encode()))
    kept = rng.uniform(_LEAST_MARGIN, 1.0, (2, 3))
    shape = np.array(reference.shape)
    low = np.floor(inside.min(axis=0) * (1 - kept[0])).astype(int)
    high = shape - np.floor((shape - 1 - inside.max(axis=0)) * (1 - kept[1])).astype(int)
    part = tuple(slice(start, stop) for start, stop in zip(low.tolist(), high.tolist(), strict=True))
    grid = volume.geometry.cropped(low.tolist(), high.tolist())
    return Volume(volume.array[:, *part], grid, volume.channels, units=volume.units), reference[part]


def _n_covered(lesions: LesionMap, by: LesionMap, share: float) -> int:
    """How many lesions have at least this share (and at least one) of their voxels inside the other map's lesions."""
    sizes = np.bincount(lesions.array.ravel(), minlength=lesions.n_lesions + 1)[1:]
    covered = np.bincount(lesions.array[by.array > 0], minlength=lesions.n_lesions + 1)[1:]
    return int(np.count_nonzero((covered > 0) & (covered >= share * sizes)))
