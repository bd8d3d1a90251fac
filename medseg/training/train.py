"""From a data manifest to a MONAI bundle: verify, plan, cross-validate, train, write."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from medseg.core.monitor import Monitor, Progress
from medseg.core.plan import Plan, with_changes
from medseg.errors import OutputExists, TrainingError, UsageError
from medseg.inference.device import resolve_device
from medseg.io.json_files import write_json
from medseg.io.labelled_cases import LabelledCase, read_cases
from medseg.io.manifest import DataManifest, read_manifest
from medseg.models.bundle import PLAN_PATH, Bundle, read_bundle
from medseg.models.export import write_bundle
from medseg.models.own_network import own_weights
from medseg.models.shipped import find_model
from medseg.networks.build import build_network
from medseg.training.cross_validation import CaseScore, CrossValidation, fold_numbers, run_fold, summarize
from medseg.training.datasets import load_case
from medseg.training.loop import fit
from medseg.training.model_card import model_card
from medseg.training.planner import plan_training, take_fingerprint
from medseg.training.validation import cases_to_fit

__all__ = ["train"]

logger = logging.getLogger(__name__)

_SCORES_PATH = Path("docs") / "cross_validation.json"


def train(
    manifest: str | Path,
    bundle: str | Path,
    *,
    plan: Plan | None = None,
    data_root: str | Path | None = None,
    work_dir: str | Path | None = None,
    device: str = "auto",
    resume: bool = False,
    cross_validate: bool = False,
    folds: Sequence[int] | None = None,
    steps: int | None = None,
    seed: int | None = None,
    validate_every: int | None = None,
    patience: int | None = None,
    heads_for: str | Path | None = None,
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
    resume
        Go on from the checkpoints in `work_dir`; folds that are done are not trained again.
    cross_validate
        Also train one network for each fold, and score it on that fold's patients.
    folds
        Only these folds, and no bundle: for folds that run side by side on several machines or cores. A last call
        with `resume` and `cross_validate` gathers them.
    steps, seed, validate_every, patience
        In place of the plan's. Validation uses the manifest's cases of split "validation", or else a fold that is then
        not trained on.
    heads_for
        A bundle of kind "segresnet" whose network is given instance heads: only they are trained, by the plan's
        `heads_training`; all else of it, its plan, its scores and what it says of classes, stays as it is.
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
    if (bundle / PLAN_PATH).exists() and not overwrite and folds is None:
        raise OutputExists(f"{bundle}: a bundle is there already; --overwrite replaces it")
    work = Path(work_dir) if work_dir is not None else bundle.with_name(bundle.name + ".training")
    torch_device = resolve_device(device)
    with monitor.stage("read"):
        data, root = read_manifest(Path(manifest), Path(data_root) if data_root is not None else None)
        cases = read_cases(data, root)
        labelled = _to_train_on(cases, data)
        given_validation = [case for case in cases if case.split == "validation"]
    given = None if heads_for is None else read_bundle(find_model(heads_for))
    if given is not None and (cross_validate or folds is not None):
        raise UsageError("instance heads leave a network as it is: there is nothing to cross-validate")
    with monitor.stage("plan"):
        changes = {"steps": steps, "seed": seed, "validate_every": validate_every, "patience": patience}
        chosen = _chosen_plan(plan if given is None else _with_heads(given, plan), data, labelled, changes)
        build_network(chosen)  # a plan that cannot be built fails here and not after the cases are loaded
        fitted = (
            chosen if chosen.heads_training is None else chosen.model_copy(update={"training": chosen.heads_training})
        )
        final = cases_to_fit(labelled, given_validation, fitted.training)
        write_json(chosen.model_dump(mode="json"), work / "plan.json")
        loaded = {case.case_id: load_case(case, chosen) for case in labelled}

    def one_fold(fold: int) -> list[CaseScore]:
        with monitor.stage(f"fold {fold}"):
            folder = work / f"fold_{fold}"
            return run_fold(
                fold,
                labelled,
                loaded,
                chosen,
                folder,
                device=torch_device,
                resume=resume,
                monitor=monitor,
                given_validation=given_validation,
            )

    if folds is not None:
        for fold in _known_folds(folds, labelled):
            one_fold(fold)
        return work
    validation = None
    if cross_validate:
        scores = [score for fold in fold_numbers(labelled) for score in one_fold(fold)]
        validation = summarize(scores, chosen)
    before = None if given is None else own_weights(given)
    with monitor.stage("train"):
        weights = fit(
            [loaded[case.case_id] for case in final[0]],
            fitted,
            work / "all",
            device=torch_device,
            resume=resume,
            monitor=monitor,
            given=before,
            validation=final[1],
        )
    if given is not None:
        validation = _kept_validation(given)
    with monitor.stage("write"):
        _write(bundle, chosen, weights, data, len(final[0]), validation)
    return bundle


def _to_train_on(cases: Sequence[LabelledCase], data: DataManifest) -> list[LabelledCase]:
    """The cases of split train.

    Raises
    ------
    TrainingError
        If there is none, or nothing is marked in any of them.
    """
    training = [case for case in cases if case.split == "train"]
    if not training:
        raise TrainingError(f"manifest {data.name} has {len(cases)} case(s), none of them in split train")
    if not any(case.reference.array.any() for case in training):
        raise TrainingError(f"manifest {data.name}: no lesion is marked in any of the {len(training)} training case(s)")
    return training


def _chosen_plan(
    plan: Plan | None, data: DataManifest, labelled: Sequence[LabelledCase], changes: Mapping[str, int | None]
) -> Plan:
    chosen = plan if plan is not None else plan_training(data, take_fingerprint(labelled, data))
    if len(chosen.channels) != len(data.channels):
        raise UsageError(
            f"plan {chosen.name} has {len(chosen.channels)} channel(s), manifest {data.name} {len(data.channels)}"
        )
    part = "training" if chosen.heads_training is None else "heads_training"
    return with_changes(chosen, {part: {name: value for name, value in changes.items() if value is not None}})


def _with_heads(given: Bundle, plan: Plan | None) -> Plan:
    """The bundle's plan with instance heads, trained as it was itself unless another plan says how."""
    own = given.plan
    if own.network.kind != "segresnet" or own.network.instance_heads:
        raise TrainingError(
            f"{given.folder}: heads alone are trained for a network of kind segresnet without any, which gets them as "
            f"a branch of its own; this is a {own.network.kind}{' with heads' * own.network.instance_heads}. Train it "
            "anew with network.instance_heads in its plan"
        )
    heads_training = plan.heads_training if plan is not None and plan.heads_training is not None else own.training
    network = own.network.model_copy(update={"instance_heads": True})
    return own.model_copy(update={"network": network, "heads_training": heads_training})


def _kept_validation(given: Bundle) -> CrossValidation | None:
    """What the bundle is worth on patients that it has not seen: the same with heads as without."""
    path = given.folder / _SCORES_PATH
    return CrossValidation.model_validate_json(path.read_text(encoding="utf-8")) if path.is_file() else None


def _known_folds(folds: Sequence[int], labelled: Sequence[LabelledCase]) -> tuple[int, ...]:
    known = fold_numbers(labelled)
    unknown = sorted(set(folds) - set(known))
    if unknown:
        raise UsageError(f"the manifest has no fold {unknown}; its folds are {list(known)}")
    return tuple(folds)


def _write(
    bundle: Path,
    plan: Plan,
    weights: dict[str, torch.Tensor],
    data: DataManifest,
    n_cases: int,
    validation: CrossValidation | None,
) -> None:
    extra = {} if validation is None else {_SCORES_PATH: validation.model_dump(mode="json")}
    write_bundle(
        bundle,
        plan,
        weights,
        description=data.description,
        data_source=f"{data.source} ({data.licence}). {data.attribution}",
        n_cases=n_cases,
        model_card=model_card(plan, data, validation),
        eval_metrics=None if validation is None else {"mean_dice": round(validation.dice.mean, 4)},
        json_files=extra,
    )
