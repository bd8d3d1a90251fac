"""From a data manifest to a MONAI bundle: verify, plan, cross-validate, train, write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import torch
from pydantic import BaseModel

from medseg.core.monitor import Monitor, Progress
from medseg.core.plan import Plan
from medseg.errors import OutputExists, TrainingError, UsageError
from medseg.inference.device import resolve_device
from medseg.models.bundle import PLAN_PATH, Bundle, read_bundle
from medseg.models.export import write_bundle
from medseg.models.own_network import own_weights
from medseg.models.shipped import find_model
from medseg.training.aim import Aim, parse_aim
from medseg.training.cross_validation import fold_numbers
from medseg.training.job import Job
from medseg.training.model_card import model_card
from medseg.training.operating_point import OperatingPoint
from medseg.training.planner import Budget, Planned
from medseg.training.preparation import TrainingData, changed, check_network, plan_of, read_training_data
from medseg.training.reasons import REASONS_PATH, reasons_of
from medseg.training.scores import SCORES_PATH, CrossValidation
from medseg.training.team import devices_of
from medseg.training.tune import POINT_PATH

__all__ = ["check_folds", "checked_aim", "first_device", "ready_folders", "ready_job", "run_job", "train"]

Record = TypeVar("Record", bound=BaseModel)


def train(
    manifest: str | Path,
    bundle: str | Path,
    *,
    plan: Plan | None = None,
    data_root: str | Path | None = None,
    work_dir: str | Path | None = None,
    device: str = "auto",
    devices: int = 1,
    resume: bool = False,
    cross_validate: bool = False,
    folds: Sequence[int] | None = None,
    steps: int | None = None,
    batch_size: int | None = None,
    seed: int | None = None,
    validate_every: int | None = None,
    patience: int | None = None,
    budget: Budget | None = None,
    heads_for: str | Path | None = None,
    aim: str | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Train a lesion model on the cases of a manifest and write it as a MONAI bundle.

    Every file is checked against the manifest's SHA-256 first. The final network is trained on all cases; what it
    is worth on other patients is measured by cross-validation, whose scores go into the model card.

    Parameters
    ----------
    manifest
        Path of the data manifest.
    bundle
        Folder of the bundle to write.
    plan
        Choices of the model; by default planned from the cases.
    data_root
        Folder that the manifest's paths start from, in place of its own `root`.
    work_dir
        Where checkpoints and logs go; by default the bundle's path with `.training` behind it.
    device
        "auto", "cpu", "cuda" or "cuda:N".
    devices
        How many CUDA devices train each network together, or processes on the CPU: each takes its share of every batch,
        and the result is that of one, up to the order of sums.
    resume
        Go on from the checkpoints in `work_dir`; folds that are done are not trained again.
    cross_validate
        Also train one network for each fold, and score it on that fold's patients.
    folds
        Only these folds, and no bundle: for folds that run side by side on several machines or cores. A last call
        with `resume` and `cross_validate` gathers them.
    steps, batch_size, seed, validate_every, patience
        In place of the plan's. Validation uses the manifest's cases of split "validation", or else a fold that is then
        not trained on.
    budget
        Memory and minutes that training may take: they decide the window and the number of steps. A resumed run keeps
        to the plan that was made at its start.
    heads_for
        A bundle of kind "segresnet" whose network is given instance heads: only they are trained, by the plan's
        `heads_training`; all else of it, its plan, its scores and what it says of classes, stays as it is.
    aim
        What the bundle's thresholds, least size and separation are chosen for on the held-out cases of the
        cross-validation, see `medseg.training.aim.AIMS`; None: they stay the plan's. What is trained does not change.
    overwrite
        Replace a bundle that is there already.
    progress
        Called with stage, steps done and steps in all.

    Returns
    -------
    The bundle's folder, or the work folder when only folds were trained.

    Raises
    ------
    InvalidManifest, HashMismatch
        If the manifest is malformed, or a file is not the one it names.
    TrainingError
        If training cannot start or go on.
    OutputExists
        If the bundle is there and `overwrite` is False.
    """
    bundle, monitor = Path(bundle), Monitor(progress)
    place = first_device(device, devices)
    wanted_aim = checked_aim(aim, cross_validate=cross_validate)
    work = ready_folders(bundle, work_dir, folds, overwrite=overwrite)
    with monitor.stage("read"):
        data = read_training_data(manifest, data_root)
    check_folds(data, folds, cross_validate=cross_validate)
    given = None if heads_for is None else read_bundle(find_model(heads_for))
    if given is not None and (cross_validate or folds is not None):
        raise UsageError("instance heads leave a network as it is: there is nothing to cross-validate")
    with monitor.stage("plan"):
        before = _plan_before(work) if resume and budget is not None and plan is None else None
        wanted = plan if given is None else _with_heads(given, plan)
        planned = plan_of(data, before or wanted, Budget() if before or budget is None else budget, device, devices)
        changes = {"steps": steps, "batch_size": batch_size, "seed": seed}
        changes |= {"validate_every": validate_every, "patience": patience}
        job = ready_job(planned, data, changes, work, place, resume, monitor, devices=devices)
    return run_job(job, bundle, cross_validate=cross_validate, folds=folds, aim=wanted_aim, heads_for=given)


def first_device(device: str, n: int) -> torch.device:
    """The device that a network is scored on, once it is clear that there are n to train it on: UsageError."""
    if torch.distributed.is_available() and torch.distributed.is_torchelastic_launched():
        raise UsageError("medseg starts the processes of a training itself: give --devices N, without torchrun")
    return devices_of(resolve_device(device), n)[0]


def checked_aim(aim: str | None, *, cross_validate: bool) -> Aim | None:
    """The aim in words as a value, once it is clear that there will be held-out cases to choose on: UsageError."""
    if aim is None:
        return None
    wanted = parse_aim(aim)
    if not cross_validate:
        raise UsageError(f'the aim "{wanted}" is met on held-out cases: give cross_validate too (--cross-validate)')
    return wanted


def check_folds(data: TrainingData, folds: Sequence[int] | None, *, cross_validate: bool) -> None:
    """Refuse, before anything is written, folds that the manifest has not.

    Raises
    ------
    UsageError
        If a fold is asked for that no case is in.
    TrainingError
        If the cases are not in folds.
    """
    if folds is None and not cross_validate:
        return
    known = fold_numbers(data.cases)
    unknown = sorted(set(folds or ()) - set(known))
    if unknown:
        raise UsageError(f"the manifest has no fold {unknown}; its folds are {list(known)}")


def ready_folders(bundle: Path, work_dir: str | Path | None, folds: Sequence[int] | None, *, overwrite: bool) -> Path:
    """The work folder, once it is clear that the bundle may be written: OutputExists. Folds alone write none."""
    if (bundle / PLAN_PATH).exists() and not overwrite and folds is None:
        raise OutputExists(f"{bundle}: a bundle is there already; --overwrite replaces it")
    return Path(work_dir) if work_dir is not None else bundle.with_name(bundle.name + ".training")


def ready_job(
    planned: Planned,
    data: TrainingData,
    changes: dict[str, int | None],
    work: Path,
    device: torch.device,
    resume: bool,
    monitor: Monitor,
    start: Mapping[str, torch.Tensor] | None = None,
    devices: int = 1,
) -> Job:
    """What is to be trained, once it is clear that it can be; what was planned is told."""
    plan = changed(planned.plan, changes)
    check_network(plan)  # a plan that cannot be built fails here and not after the cases are loaded
    for sentence in (*map(str, planned.reasons), *(f"Warning: {warning}" for warning in planned.warnings)):
        monitor.remark(sentence)
    reasons = reasons_of(planned, plan, changes, work if resume else None)
    job = Job(data, plan, reasons, work, device, resume, monitor, start, devices)
    job.prepare()
    return job


def run_job(
    job: Job,
    bundle: Path,
    *,
    cross_validate: bool = False,
    folds: Sequence[int] | None = None,
    aim: Aim | None = None,
    started_from: str | None = None,
    heads_for: Bundle | None = None,
) -> Path:
    """Do the work: some folds and no more, or the cross-validation where it is wanted, the final network, the bundle.

    Parameters
    ----------
    job
        What is trained.
    bundle, cross_validate, folds, aim
        As `train` takes them.
    started_from
        Name of the model whose weights the networks start from.
    heads_for
        The bundle whose network is given heads.

    Returns
    -------
    The bundle's folder, or the work folder when only folds were trained.
    """
    if folds is not None:
        job.folds(folds)
        return job.work
    validation, point = job.cross_validation(aim) if cross_validate else (None, None)
    weights, n_cases = job.final(None if heads_for is None else own_weights(heads_for))
    if heads_for is not None:
        validation, point = _kept(heads_for, SCORES_PATH, CrossValidation), _kept(heads_for, POINT_PATH, OperatingPoint)
    with job.monitor.stage("write"):
        _write_trained(bundle, job, weights, n_cases, validation, started_from, point)
    return bundle


def _plan_before(work: Path) -> Plan | None:
    """The plan that a run was started with, if it came as far as that."""
    path = work / "plan.json"
    return Plan.from_json(path.read_text(encoding="utf-8"), source=str(path)) if path.is_file() else None


def _with_heads(given: Bundle, plan: Plan | None) -> Plan:
    """The bundle's plan with instance heads, trained as it was itself unless another plan says how."""
    own = given.plan
    if own.network.kind != "segresnet" or own.network.instance_heads:
        raise TrainingError(
            f"{given.folder}: heads alone are trained for a network of kind segresnet without any, which gets them as "
            f"a branch of its own; this is a {own.network.kind}{' with heads' * own.network.instance_heads}. Train it "
            "anew with network.instance_heads in its plan"
        )
    own_training = own.training.model_copy(update={"deep_supervision": False})
    heads_training = plan.heads_training if plan is not None and plan.heads_training is not None else own_training
    network = own.network.model_copy(update={"instance_heads": True})
    return own.model_copy(update={"network": network, "heads_training": heads_training})


def _kept(given: Bundle, name: Path, kind: type[Record]) -> Record | None:
    """What a bundle keeps of the patients that it has not seen, if it does: the same with heads as without."""
    path = given.folder / name
    return kind.model_validate_json(path.read_text(encoding="utf-8")) if path.is_file() else None


def _write_trained(
    bundle: Path,
    job: Job,
    weights: dict[str, torch.Tensor],
    n_cases: int,
    validation: CrossValidation | None,
    started_from: str | None,
    point: OperatingPoint | None,
) -> None:
    """Write a trained network as a bundle, with its model card, its plan's reasons and its cross-validation's scores.

    With an operating point, the bundle's plan is the one that the network was trained by, at that point.
    """
    data, reasons = job.data.manifest, job.reasons if job.reasons.reasons else None
    found = {SCORES_PATH: validation, POINT_PATH: point, REASONS_PATH: reasons}
    extra = {path: record.model_dump(mode="json") for path, record in found.items() if record is not None}
    plan = job.plan if point is None else point.applied(job.plan)
    write_bundle(
        bundle,
        plan,
        weights,
        description=data.description,
        data_source=f"{data.source} ({data.licence}). {data.attribution}",
        n_cases=n_cases,
        model_card=model_card(plan, data, job.reasons, validation, started_from, point),
        eval_metrics=None if validation is None else {"mean_dice": round(validation.dice.mean, 4)},
        json_files=extra,
    )
