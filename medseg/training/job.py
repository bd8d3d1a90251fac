"""A training job: the cases, the plan, and where the work is kept; one network a fold, and the final one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from medseg.core.monitor import Monitor
from medseg.core.plan import Plan
from medseg.errors import UsageError
from medseg.io.json_files import write_json
from medseg.training.cross_validation import fold_numbers, run_fold, summarize
from medseg.training.datasets import load_case
from medseg.training.loop import fit
from medseg.training.preparation import TrainingData, fitted_plan
from medseg.training.scores import CaseScore, CrossValidation
from medseg.training.validation_page import write_validation_page
from medseg.transforms.augment import TrainingCase

__all__ = ["Job"]


@dataclass(frozen=True, eq=False)
class Job:
    """What is trained, by which plan, where, and from which weights on.

    Parameters
    ----------
    data, plan
        Verified cases, and how they are trained.
    work
        Folder of checkpoints and logs.
    device, resume, monitor
        As `fit` takes them.
    start
        Weights that every network starts from; None for fresh ones.
    """

    data: TrainingData
    plan: Plan
    work: Path
    device: torch.device
    resume: bool
    monitor: Monitor
    start: Mapping[str, torch.Tensor] | None = None

    def prepare(self) -> None:
        """Refuse what cannot be trained, write the plan into the work folder, load the cases.

        Raises
        ------
        TrainingError
            If no case is left to train or to validate on.
        """
        self.data.to_fit(fitted_plan(self.plan))
        write_json(self.plan.model_dump(mode="json"), self.work / "plan.json")
        assert self.loaded  # noqa: S101  # read_training_data refuses a manifest without cases

    @cached_property
    def loaded(self) -> dict[str, TrainingCase]:
        """The training cases by name, as the network sees them."""
        return {case.case_id: load_case(case, self.plan) for case in self.data.cases}

    def fold(self, number: int) -> list[CaseScore]:
        """Train on the other folds and score this one's patients."""
        with self.monitor.stage(f"fold {number}"):
            return run_fold(
                number,
                self.data.cases,
                self.loaded,
                self.plan,
                self.work / f"fold_{number}",
                device=self.device,
                resume=self.resume,
                monitor=self.monitor,
                given_validation=self.data.validation,
                start=self.start,
            )

    def folds(self, numbers: Sequence[int]) -> None:
        """Train and score only these folds; UsageError if the manifest has no such fold."""
        known = fold_numbers(self.data.cases)
        unknown = sorted(set(numbers) - set(known))
        if unknown:
            raise UsageError(f"the manifest has no fold {unknown}; its folds are {list(known)}")
        for number in numbers:
            self.fold(number)

    def cross_validation(self) -> CrossValidation:
        """Train and score every fold; `cross_validation.html` in the work folder shows how it went."""
        scores = [score for fold in fold_numbers(self.data.cases) for score in self.fold(fold)]
        validation = summarize(scores, self.plan)
        write_validation_page(validation, self.work)
        return validation

    def final(self, given: Mapping[str, torch.Tensor] | None = None) -> tuple[dict[str, torch.Tensor], int]:
        """The weights of the final network, and on how many cases it was trained; `given` as `fit` takes it."""
        plan = fitted_plan(self.plan)
        training, validation = self.data.to_fit(plan)
        with self.monitor.stage("train"):
            weights = fit(
                [self.loaded[case.case_id] for case in training],
                plan,
                self.work / "all",
                device=self.device,
                resume=self.resume,
                monitor=self.monitor,
                given=given,
                validation=validation,
                start=self.start,
            )
        return weights, len(training)
