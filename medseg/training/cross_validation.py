"""Cross-validation: how well the same training does on patients that it has not seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from torch import nn

from medseg.core.lesions import LesionMap
from medseg.core.monitor import Monitor
from medseg.core.plan import Plan, SeparationPlan, with_changes
from medseg.core.semantic import SemanticMap
from medseg.core.volume import Volume
from medseg.errors import TrainingError
from medseg.evaluation.cohort import bootstrap_mean
from medseg.inference.peaks import without_faint
from medseg.inference.segmenter import Segmenter
from medseg.io.json_files import write_json
from medseg.io.labelled_cases import LabelledCase
from medseg.io.scan import load_volume
from medseg.lesions.separate import separate_lesions
from medseg.metrics.overlap import dice
from medseg.networks.build import build_network
from medseg.training.held_out import LEAST_PROBABILITY, HeldOutSummary, keep, read_summary
from medseg.training.loop import fit
from medseg.training.scores import CaseScore, CrossValidation
from medseg.training.validation import cases_to_fit, reference_lesions
from medseg.training.validation_page import draw_case
from medseg.transforms.augment import TrainingCase

__all__ = ["CaseScore", "CrossValidation", "fold_numbers", "read_fold", "run_fold", "summarize"]

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
    devices: int = 1,
    resume: bool,
    monitor: Monitor,
    given_validation: Sequence[LabelledCase] = (),
    start: Mapping[str, torch.Tensor] | None = None,
    needs_held_out: bool = False,
) -> list[CaseScore]:
    """Train on the other folds, score this one's patients on their own grids; scores also go to `scores.json`.

    What the network makes of them is kept, see `medseg.training.held_out`. With `resume`, a fold that was scored with
    the same plan is read and not trained again; nor segmented again, unless that is needed and was not kept. Where the
    plan validates while training, it does so on `given_validation`, or else on the next fold, which then is not trained
    on. Networks start from the weights `start` where there are some. `device` and `devices` as `fit` takes them; cases
    are scored on the first device.
    """
    scores_file = folder / "scores.json"
    if resume and scores_file.is_file():
        saved = _FoldScores.model_validate_json(scores_file.read_text(encoding="utf-8"))
        if saved.plan_sha256 == plan.sha256 and not (needs_held_out and _lacks_held_out(saved, folder)):
            return list(saved.cases)
    training, validation = cases_to_fit(labelled, given_validation, plan.training, held_out=fold)
    weights = fit(
        [loaded[case.case_id] for case in training],
        plan,
        folder,
        device=device,
        devices=devices,
        resume=resume,
        monitor=monitor,
        validation=validation,
        start=start,
    )
    network = build_network(plan)
    network.load_state_dict(weights)
    trained = _Trained(network, plan, device, fold, folder)
    scores = [trained.score(case) for case in labelled if case.fold == fold]
    write_json(_FoldScores(plan_sha256=plan.sha256, cases=tuple(scores)).model_dump(mode="json"), scores_file)
    return scores


def read_fold(folder: Path, plan: Plan) -> list[HeldOutSummary]:
    """What is kept of every case of a fold that was trained by a plan.

    Raises
    ------
    TrainingError
        If the fold is not scored yet, was trained by another plan, or nothing is kept of one of its cases.
    """
    scores_file = folder / "scores.json"
    if not scores_file.is_file():
        raise TrainingError(f"{folder}: this fold is not scored yet; finish it with medseg train --resume")
    saved = _FoldScores.model_validate_json(scores_file.read_text(encoding="utf-8"))
    if saved.plan_sha256 != plan.sha256:
        raise TrainingError(
            f"{folder}: trained by a plan of SHA-256 {saved.plan_sha256[:12]}..., not by {plan.sha256[:12]}...; run "
            "medseg train --cross-validate anew"
        )
    if _lacks_held_out(saved, folder):
        raise TrainingError(
            f"{folder}: not all that its network made of its {len(saved.cases)} case(s) was kept, as by an older "
            "version; medseg train --cross-validate --aim --resume segments them again, without training"
        )
    found = [read_summary(folder, case.case_id) for case in saved.cases]
    return [summary for summary in found if summary is not None]


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


def _lacks_held_out(saved: _FoldScores, folder: Path) -> bool:
    summaries = [read_summary(folder, case.case_id) for case in saved.cases]
    return any(summary is None or summary.plan_sha256 != saved.plan_sha256 for summary in summaries)


class _Trained:
    """A fold's network: how it does on cases that it was not trained on."""

    def __init__(self, network: nn.Module, plan: Plan, device: torch.device, fold: int, folder: Path) -> None:
        self._network, self._plan, self._device, self._fold, self._folder = network, plan, device, fold, folder
        self._segmenter = self._with()
        self._with_faint = self._with(least_peak=None)

    def score(self, case: LabelledCase) -> CaseScore:
        """Segment a case, keep what came out, compare it with the reference."""
        segmenter, fold, folder = self._segmenter, self._fold, self._folder
        volume = load_volume(case.scan, units=segmenter.units)
        decided, _ = self._with_faint.segment(volume)
        self._keep(case, volume, decided)
        least_peak = self._plan.inference.least_peak
        semantic = decided if least_peak is None else without_faint(decided, volume, least_peak)[0]
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

    def _with(self, **inference: float | None) -> Segmenter:
        """The network with other settings of inference."""
        plan = with_changes(self._plan, {"inference": inference})
        return Segmenter(self._network, plan, device=str(self._device), engine="torch", precision="exact")

    def _keep(self, case: LabelledCase, volume: Volume, decided: SemanticMap) -> None:
        plan = self._plan
        least = min(LEAST_PROBABILITY, plan.inference.foreground_threshold or LEAST_PROBABILITY)
        if plan.labels.highest == 1 and decided.probability is not None:
            likeliest = (decided.probability > least).astype(decided.array.dtype)
        else:  # which of several classes is likeliest where background wins, only the network knows
            low, _ = self._with(least_peak=None, foreground_threshold=least).segment(volume)
            likeliest = low.array
        reference = reference_lesions(case, plan.separation.merge_regions)
        keep(self._folder, case.case_id, self._fold, plan.sha256, volume, decided, likeliest, reference)


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
