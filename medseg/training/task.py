"""What a network is trained on and by which plan, as one value that can be handed to other processes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from medseg.core.plan import Plan
from medseg.io.labelled_cases import LabelledCase
from medseg.transforms.augment import TrainingCase

__all__ = ["FitTask", "read_tensors", "write_tensors"]


@dataclass(frozen=True, eq=False)
class FitTask:
    """A network, or the members of an ensemble, to train.

    Parameters
    ----------
    plan
        Network, patch, steps, seed.
    cases, phantoms
        What is trained on.
    validation
        What is validated on while training.
    given
        Weights that stay as they are; None where all are trained.
    start
        Weights that training starts from; None for fresh ones.
    """

    plan: Plan
    cases: Sequence[TrainingCase]
    phantoms: Sequence[TrainingCase] = ()
    validation: Sequence[LabelledCase] = ()
    given: Mapping[str, torch.Tensor] | None = None
    start: Mapping[str, torch.Tensor] | None = None


def write_tensors(task: FitTask, path: Path) -> None:
    """Write all that holds tensors in a task, for `read_tensors`."""
    content = {name: [dict(_fields(case)) for case in getattr(task, name)] for name in ("cases", "phantoms")}
    torch.save({**content, "given": _plain(task.given), "start": _plain(task.start)}, path)


def read_tensors(path: Path, plan: Plan, validation: Sequence[LabelledCase]) -> FitTask:
    """A task whose tensors are mapped from a file: processes that read the same file share its memory."""
    content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    cases, phantoms = ([TrainingCase(**fields) for fields in content[name]] for name in ("cases", "phantoms"))
    return FitTask(plan, cases, phantoms, validation, content["given"], content["start"])


def _fields(case: TrainingCase) -> list[tuple[str, Any]]:
    spacing = tuple(map(float, case.spacing_mm))
    return [
        ("case_id", case.case_id),
        ("image", case.image),
        ("label", case.label),
        ("spacing_mm", spacing),
        ("lesions", case.lesions),
    ]


def _plain(weights: Mapping[str, torch.Tensor] | None) -> dict[str, torch.Tensor] | None:
    return None if weights is None else dict(weights)
