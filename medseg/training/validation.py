"""Validation while a network trains: whole held-out scans, on their own grids, by Dice and by lesions found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from medseg.core.lesions import Lesion, LesionMap, label_dtype
from medseg.core.plan import Plan, SeparationPlan, TrainingPlan
from medseg.core.semantic import SemanticMap
from medseg.errors import TrainingError, UsageError
from medseg.evaluation.case import evaluate_case
from medseg.inference.options import RunOptions
from medseg.inference.segmenter import Segmenter
from medseg.io.labelled_cases import LabelledCase
from medseg.io.scan import load_volume
from medseg.lesions.separate import separate_lesions
from medseg.networks.build import build_member
from medseg.training.team import Team

__all__ = ["ValidationScores", "cases_to_fit", "reference_lesions", "validate"]


@dataclass(frozen=True)
class ValidationScores:
    """Mean Dice over the cases in which it is defined, and F1 of the lesions of all cases together."""

    dice: float
    lesion_f1: float

    @property
    def score(self) -> float:
        """What decides which weights are kept: the mean of both."""
        return (self.dice + self.lesion_f1) / 2


def validate(
    weights: Mapping[str, torch.Tensor],
    plan: Plan,
    cases: Sequence[LabelledCase],
    device: torch.device,
    team: Team | None = None,
) -> ValidationScores:
    """Segment whole scans with the weights of one member and compare them with their references.

    Lesions come apart as the plan says, without mirroring at test time, in float32: the same weights give the same
    scores.

    Parameters
    ----------
    weights
        State dict of one member.
    plan
        Its plan.
    cases
        At least one with a lesion.
    device
        Where the network runs.
    team
        Processes that share out the cases; each gets the scores of all.
    """
    team = team or Team()
    network = build_member(plan)
    network.load_state_dict(dict(weights))
    options = RunOptions(mirror=False, keeps_probability=plan.separation.valley_share > 0)
    segmenter = Segmenter(network, plan, device=str(device), engine="torch", precision="exact", options=options)
    own = []
    for case in team.share(cases):
        semantic, _ = segmenter.segment(load_volume(case.scan, units=segmenter.units))
        predicted = separate_lesions(semantic, plan.separation)
        reference = reference_lesions(case, plan.separation.merge_regions)
        own.append(evaluate_case(predicted, reference, case_id=case.case_id, overlap_only=True))
    scored = team.gather(own)
    dice = [float(one.dice) for one in scored if one.dice is not None]
    found, wrong = sum(one.tp for one in scored), sum(one.fp + one.fn for one in scored)
    return ValidationScores(float(np.mean(dice)), 2 * found / (2 * found + wrong))


def reference_lesions(case: LabelledCase, regions: tuple[str, ...] = ()) -> LesionMap:
    """The lesions of a case: by their numbers where these are known, else the 26-connected components of each class.

    `regions` are those of the scheme whose classes count as one.
    """
    if case.lesions is None:
        return separate_lesions(case.reference, SeparationPlan(method="components", merge_regions=regions))
    return _numbered(case.reference, case.lesions)


def _numbered(reference: SemanticMap, numbers: NDArray[np.unsignedinteger]) -> LesionMap:
    values, first, inverse = np.unique(numbers.ravel(), return_index=True, return_inverse=True)
    is_lesion = values > 0
    order = np.cumsum(is_lesion) * is_lesion
    names = {0: "lesion", **reference.scheme.classes}
    lesions = tuple(Lesion(names[int(reference.array.ravel()[at])]) for at in first[is_lesion])
    array = order[inverse].reshape(numbers.shape).astype(label_dtype(len(lesions)))
    return LesionMap(array, reference.geometry, lesions)


def cases_to_fit(
    cases: Sequence[LabelledCase], given: Sequence[LabelledCase], plan: TrainingPlan, held_out: int | None = None
) -> tuple[list[LabelledCase], list[LabelledCase]]:
    """The cases to train on and those to validate on while training; none of the latter if none are asked for.

    Cases of the manifest's split "validation" serve where there are some. Else one fold is taken from those to train
    on: the one after the held-out fold, or the last one where none is held out. So no network is chosen by the patients
    that it is scored on.

    Parameters
    ----------
    cases
        Split "train".
    given
        Split "validation".
    plan
        Whether validation is asked for.
    held_out
        The fold that is scored afterwards, None for the final network.

    Raises
    ------
    UsageError
        If there is patience without validation.
    TrainingError
        If nothing is left to train on or to validate on, or no lesion is marked in the latter.
    """
    training = [case for case in cases if held_out is None or case.fold != held_out]
    if plan.patience and not plan.validate_every:
        raise UsageError(
            f"a patience of {plan.patience} counts validations; give validate_every too (--validate-every)"
        )
    if not plan.validate_every:
        return training, []
    if given:
        validation = list(given)
    else:
        fold = _fold_after(sorted({case.fold for case in cases if case.fold is not None}), held_out)
        validation = [case for case in training if case.fold == fold and fold is not None]
        training = [case for case in training if case.fold != fold or fold is None]
    if not validation or not training:
        raise TrainingError(
            f"validation while training needs cases of its own: {len(training)} case(s) would be left to train on and "
            f"{len(validation)} to validate on. Mark some as split validation in the manifest, deal the cases into "
            "at least three folds, or train with validate_every 0"
        )
    if not any(case.reference.array.any() for case in validation):
        raise TrainingError(
            f"no lesion is marked in any of the {len(validation)} case(s) to validate on "
            f"({', '.join(case.case_id for case in validation[:5])}): nothing would tell good weights from bad"
        )
    return training, validation


def _fold_after(folds: Sequence[int], held_out: int | None) -> int | None:
    if not folds:
        return None
    return folds[-1] if held_out is None else folds[(folds.index(held_out) + 1) % len(folds)]
