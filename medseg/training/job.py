"""A training job: the cases, the plan, and where the work is kept; one network a fold, and the final one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from medseg.core.monitor import Monitor
from medseg.core.plan import Plan
from medseg.io.json_files import write_json
from medseg.training.aim import Aim
from medseg.training.cross_validation import fold_numbers, run_fold, summarize
from medseg.training.datasets import load_case
from medseg.training.loop import fit
from medseg.training.operating_point import OperatingPoint
from medseg.training.operating_text import warnings_of
from medseg.training.preparation import TrainingData, fitted_plan
from medseg.training.reasons import REASONS_PATH, PlanReasons
from medseg.training.scores import CaseScore, CrossValidation
from medseg.training.team import check_team
from medseg.training.tune import find_point
from medseg.training.validation_page import write_validation_page
from medseg.training.work_folder import case_hashes, claim, start_anew
from medseg.transforms.augment import TrainingCase

__all__ = ["Job"]

_FINAL_FOLDER = "all"


@dataclass(frozen=True, eq=False)
class Job:
    """What is trained, by which plan, where, and from which weights on.

    Parameters
    ----------
    data, plan, reasons
        Verified cases, how they are trained, and why so.
    work
        Folder of checkpoints and logs.
    device, resume, monitor
        As `fit` takes them.
    start
        Weights that every network starts from; None for fresh ones.
    devices
        As `fit` takes it.
    """

    data: TrainingData
    plan: Plan
    reasons: PlanReasons
    work: Path
    device: torch.device
    resume: bool
    monitor: Monitor
    start: Mapping[str, torch.Tensor] | None = None
    devices: int = 1

    def prepare(self) -> None:
        """Refuse what cannot be trained, write the plan and its reasons into the work folder, load the cases.

        Raises
        ------
        TrainingError
            If no case is left to train or to validate on, or the plan cannot be trained on so many devices.
        """
        check_team(fitted_plan(self.plan), self.devices)
        self.data.to_fit(fitted_plan(self.plan))
        write_json(self.plan.model_dump(mode="json"), self.work / "plan.json")
        write_json(self.reasons.model_dump(mode="json"), self.work / REASONS_PATH.name)
        assert self.loaded  # noqa: S101  # read_training_data refuses a manifest without cases

    @cached_property
    def loaded(self) -> dict[str, TrainingCase]:
        """The training cases by name, as the network sees them."""
        return {case.case_id: load_case(case, self.plan) for case in self.data.cases}

    def fold(self, number: int, *, needs_held_out: bool = False) -> list[CaseScore]:
        """Train on the other folds and score this one's patients; `needs_held_out` as `run_fold` takes it."""
        folder = self.work / _fold_folder(number)
        claim(folder, case_hashes(self.data.manifest), resume=self.resume)
        with self.monitor.stage(f"fold {number}"):
            return run_fold(
                number,
                self.data.cases,
                self.loaded,
                self.plan,
                folder,
                device=self.device,
                devices=self.devices,
                resume=self.resume,
                monitor=self.monitor,
                given_validation=self.data.validation,
                start=self.start,
                needs_held_out=needs_held_out,
            )

    def folds(self, numbers: Sequence[int]) -> None:
        """Train and score only these folds."""
        self._start_anew(*map(_fold_folder, numbers))
        for number in numbers:
            self.fold(number)

    def cross_validation(self, aim: Aim | None = None) -> tuple[CrossValidation, OperatingPoint | None]:
        """Train and score every fold, and choose the settings that meet an aim on the held-out cases.

        `cross_validation.html` in the work folder shows how it went.
        """
        numbers = fold_numbers(self.data.cases)
        self._start_anew(*map(_fold_folder, numbers), _FINAL_FOLDER)
        scores = [score for fold in numbers for score in self.fold(fold, needs_held_out=aim is not None)]
        validation = summarize(scores, self.plan)
        point = None
        if aim is not None:
            point = find_point(self.work, self.plan, numbers, aim, self.monitor)
            for warning in warnings_of(point):
                self.monitor.remark(f"Warning: {warning}")
        write_validation_page(validation, self.work, point)
        return validation, point

    def final(self, given: Mapping[str, torch.Tensor] | None = None) -> tuple[dict[str, torch.Tensor], int]:
        """The weights of the final network, and on how many cases it was trained; `given` as `fit` takes it."""
        plan, folder = fitted_plan(self.plan), self.work / _FINAL_FOLDER
        training, validation = self.data.to_fit(plan)
        self._start_anew(_FINAL_FOLDER)
        claim(folder, case_hashes(self.data.manifest), resume=self.resume)
        with self.monitor.stage("train"):
            weights = fit(
                [self.loaded[case.case_id] for case in training],
                plan,
                folder,
                device=self.device,
                devices=self.devices,
                resume=self.resume,
                monitor=self.monitor,
                given=given,
                validation=validation,
                start=self.start,
            )
        return weights, len(training)

    def _start_anew(self, *names: str) -> None:
        """Before the first network of a run that does not go on: none of an earlier run is taken for its own later."""
        if not self.resume:
            for name in names:
                start_anew(self.work / name)


def _fold_folder(number: int) -> str:
    return f"fold_{number}"
