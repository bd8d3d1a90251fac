"""Before training: the manifest's cases, verified, and the plan that they are trained by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from medseg.core.plan import Plan, with_changes
from medseg.errors import InvalidPlan, TrainingError, UsageError
from medseg.inference.device import resolve_device
from medseg.io.labelled_cases import LabelledCase, read_cases
from medseg.io.manifest import DataManifest, read_manifest
from medseg.networks.build import build_member, build_network
from medseg.networks.supervision import supervised
from medseg.training.fingerprint import take_fingerprint
from medseg.training.planner import Budget, Planned, plan_with_reasons, within_minutes
from medseg.training.rules import find_lesions_below_the_grid
from medseg.training.team import check_team
from medseg.training.validation import cases_to_fit

__all__ = [
    "TrainingData",
    "changed",
    "check_channels",
    "check_network",
    "fitted_plan",
    "plan_manifest",
    "plan_of",
    "read_training_data",
]


@dataclass(frozen=True, eq=False)
class TrainingData:
    """A manifest with its verified cases: those of split "train", and those of split "validation"."""

    manifest: DataManifest
    cases: tuple[LabelledCase, ...]
    validation: tuple[LabelledCase, ...]

    def to_fit(self, plan: Plan, held_out: int | None = None) -> tuple[list[LabelledCase], list[LabelledCase]]:
        """The cases to train on and those to validate on while training, see `cases_to_fit`."""
        return cases_to_fit(self.cases, self.validation, plan.training, held_out)


def read_training_data(manifest: str | Path, data_root: str | Path | None = None) -> TrainingData:
    """Read and verify a manifest and its cases.

    Raises
    ------
    InvalidManifest, HashMismatch
        If the manifest is malformed, or a file is not the one it names.
    TrainingError
        If no case is in split "train", or nothing is marked in any of them.
    """
    data, root = read_manifest(Path(manifest), Path(data_root) if data_root is not None else None)
    cases = read_cases(data, root)
    training = tuple(case for case in cases if case.split == "train")
    if not training:
        raise TrainingError(f"manifest {data.name} has {len(cases)} case(s), none of them in split train")
    if not any(case.reference.array.any() for case in training):
        raise TrainingError(f"manifest {data.name}: no lesion is marked in any of the {len(training)} training case(s)")
    return TrainingData(data, training, tuple(case for case in cases if case.split == "validation"))


def plan_manifest(
    manifest: str | Path,
    *,
    plan: Plan | None = None,
    data_root: str | Path | None = None,
    device: str = "auto",
    devices: int = 1,
    budget: Budget | None = None,
    changes: Mapping[str, int | None] | None = None,
) -> Planned:
    """What `train` would train by, and why; nothing is trained and nothing is written.

    Parameters
    ----------
    manifest, plan, data_root, device, devices, budget
        As `medseg.train` takes them.
    changes
        Fields of the plan's training in place of its own; None stands for the plan's.

    Returns
    -------
    The plan, the reasons for its choices (none for a plan that was given), and warnings.

    Raises
    ------
    InvalidManifest, HashMismatch, TrainingError, UsageError
        As `medseg.train`, before it trains.
    """
    data = read_training_data(manifest, data_root)
    planned = plan_of(data, plan, budget or Budget(), device, devices)
    planned = replace(planned, plan=changed(planned.plan, changes or {}))
    check_network(planned.plan)
    check_team(planned.plan, devices)
    data.to_fit(planned.plan)
    return planned


def plan_of(data: TrainingData, plan: Plan | None, budget: Budget, device: str, n_devices: int = 1) -> Planned:
    """The plan that was given, or the one that suits the cases within the budget; with warnings either way."""
    fingerprint = take_fingerprint(data.cases, data.manifest)
    if plan is None:
        planned = plan_with_reasons(data.manifest, fingerprint, budget.memory_mib)
    else:
        check_channels(plan, data.manifest)
        if budget.memory_mib is not None:
            raise UsageError("a memory budget decides the window, and the plan that was given has decided it already")
        warning = None if plan.spacing_mm is None else find_lesions_below_the_grid(fingerprint, plan.spacing_mm)
        planned = Planned(plan, warnings=() if warning is None else (warning,))
    if budget.minutes is not None:
        check_network(planned.plan)  # a plan that cannot be built fails with a sentence and not in a timed step
        planned = within_minutes(planned, data.cases, budget.minutes, resolve_device(device), n_devices)
    return planned


def check_channels(plan: Plan, manifest: DataManifest) -> None:
    """Refuse a plan with another number of channels: UsageError."""
    if len(plan.channels) != len(manifest.channels):
        raise UsageError(
            f"plan {plan.name} has {len(plan.channels)} channel(s), manifest {manifest.name} {len(manifest.channels)}"
        )


def check_network(plan: Plan) -> None:
    """Refuse a plan whose network cannot be built, or not be trained so: InvalidPlan."""
    build_network(plan)
    training = fitted_plan(plan).training
    if training.deep_supervision:
        supervised(build_member(plan), plan)
    for asked, what in (
        (training.lesion_loss != "none", f'training.lesion_loss "{training.lesion_loss}"'),
        (training.owner_weight > 0, f"training.owner_weight {training.owner_weight:g}"),
    ):
        if asked and not plan.network.instance_heads:
            raise InvalidPlan(
                f"plan {plan.name}: {what} needs to know which voxel is of which lesion, as networks with instance "
                "heads do; set network.instance_heads, or take the loss away"
            )
    if training.owner_weight > 0 and plan.spacing_mm is None:
        raise InvalidPlan(
            f"plan {plan.name}: training.owner_weight measures in millimeters, on a grid of one spacing; set "
            "spacing_mm, or take the loss away"
        )


def changed(plan: Plan, changes: Mapping[str, float | None]) -> Plan:
    """A plan with fields of its training in place of its own; None stands for the plan's."""
    part = "training" if plan.heads_training is None else "heads_training"
    return with_changes(plan, {part: {name: value for name, value in changes.items() if value is not None}})


def fitted_plan(plan: Plan) -> Plan:
    """The plan as the loop takes it: where instance heads alone are trained, by what the plan says of them."""
    return plan if plan.heads_training is None else plan.model_copy(update={"training": plan.heads_training})
