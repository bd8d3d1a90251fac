"""Training on from a model's weights, on other cases."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from medseg.core.monitor import Monitor, Progress
from medseg.core.plan import Plan
from medseg.errors import ChannelMismatch, TrainingError
from medseg.io.manifest import DataManifest
from medseg.networks.build import build_network
from medseg.training.planner import Budget
from medseg.training.preparation import plan_of, read_training_data
from medseg.training.rules import choose_phantom_share
from medseg.training.start import Start, named_classes, read_model, start_of
from medseg.training.train import check_folds, checked_aim, first_device, ready_folders, ready_job, run_job

__all__ = ["finetune"]

_LEARNING_RATE_SHARE = 0.1  # of the rate that the bundle was trained with: its weights are near where they should be


def finetune(
    given: str | Path,
    manifest: str | Path,
    bundle: str | Path,
    *,
    from_fold: int | str | None = None,
    new_output: bool = False,
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
    learning_rate: float | None = None,
    validate_every: int | None = None,
    patience: int | None = None,
    budget: Budget | None = None,
    aim: str | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Train a model's network on with the cases of a manifest, and write it as a bundle of its own.

    Grid, intensities, network, windows and separation stay the bundle's; the name and the classes are the manifest's.
    Of an nnU-Net model, network, grid, intensities, patch and mirrored axes are taken over.
    Cross-validation is honest only for cases that the model itself was not trained on.

    Parameters
    ----------
    given
        A bundle of medseg's own, by name or path; or an nnU-Net v2 model folder. It is left as it is.
    from_fold
        Number (or "all") of the fold of an nnU-Net model; None for the first that it has.
    manifest, bundle, data_root, work_dir, device, devices, resume, cross_validate, folds
        As `medseg.train` takes them.
    budget, aim, overwrite, progress
        The same.
    new_output
        The manifest's classes may be others: the layers whose size follows from them start from fresh weights.
    steps, batch_size, seed, learning_rate, validate_every, patience
        In place of the bundle's own; the learning rate is a tenth of its own unless it is given.

    Returns
    -------
    The bundle's folder, or the work folder when only folds were trained.

    Raises
    ------
    ChannelMismatch
        If the manifest's channels are not those of the model.
    UnsupportedModel
        If a plan cannot say what an nnU-Net model is.
    UsageError
        If a fold is asked for that is not there.
    TrainingError
        If its classes are others and `new_output` is False, or training cannot start or go on.
    InvalidManifest, HashMismatch, OutputExists
        As `medseg.train`.
    """
    bundle, monitor = Path(bundle), Monitor(progress)
    place = first_device(device, devices)
    wanted_aim = checked_aim(aim, cross_validate=cross_validate)
    work = ready_folders(bundle, work_dir, folds, overwrite=overwrite)
    model = read_model(given, from_fold)
    with monitor.stage("read"):
        data = read_training_data(manifest, data_root)
    check_folds(data, folds, cross_validate=cross_validate)
    with monitor.stage("plan"):
        source = start_of(model, data)
        plan = _plan(source, data.manifest, new_output=new_output, learning_rate=learning_rate)
        planned = plan_of(data, plan, budget or Budget(), device, devices)
        changes = {"steps": steps, "batch_size": batch_size, "seed": seed}
        changes |= {"validate_every": validate_every, "patience": patience}
        for remark in source.remarks:
            monitor.remark(remark)
        weights = _start(source, plan)
        job = ready_job(planned, data, changes, work, place, resume, monitor, weights, devices)
    return run_job(job, bundle, cross_validate=cross_validate, folds=folds, aim=wanted_aim, started_from=source.name)


def _plan(source: Start, data: DataManifest, *, new_output: bool, learning_rate: float | None) -> Plan:
    """The model's plan for other cases, once it is clear that they go together."""
    own = source.plan
    expected = [f"{channel.modality} in {channel.units} units" for channel in own.channels]
    got = [f"{channel.modality} in {channel.units} units" for channel in data.channels]
    if expected != got:
        raise ChannelMismatch(
            f"{source.path}: the network takes {len(expected)} channel(s) ({'; '.join(expected)}), manifest "
            f"{data.name} has {len(got)} ({'; '.join(got)}); list the channels in the network's "
            "order, or train a network anew"
        )
    if source.classes != dict(data.labels) and not new_output:
        raise TrainingError(
            f"{source.path}: the network knows {source.outputs}, manifest {data.name} has "
            f"{named_classes(data.labels)}; with --new-output the layers that follow from the classes start anew"
        )
    rate = learning_rate if learning_rate is not None else own.training.learning_rate * _LEARNING_RATE_SHARE
    share = min(own.training.phantom_share, choose_phantom_share(data)[0])
    training = own.training.model_copy(update={"learning_rate": rate, "phantom_share": share})
    changes = {"name": data.name, "labels": data.scheme, "training": training, "heads_training": None}
    return Plan.from_json(own.model_copy(update=changes).to_json(), source=f"plan for {data.name}")


def _start(source: Start, plan: Plan) -> dict[str, torch.Tensor]:
    """The model's weights; where classes are others, fresh ones for the layers whose shape is another.

    A network with as many other classes keeps no output layer either: its channels mean something else.
    """
    if source.classes == dict(plan.labels.classes):
        return dict(source.weights)
    torch.manual_seed(plan.training.seed)
    fresh = build_network(plan).state_dict()
    # which layers follow from the number of classes shows in a network of one class more
    wider_labels = plan.labels.model_copy(update={"classes": {**plan.labels.classes, plan.labels.highest + 1: "other"}})
    wider = build_network(plan.model_copy(update={"labels": wider_labels})).state_dict()
    return {
        name: tensor if wider[name].shape != tensor.shape else source.weights[name] for name, tensor in fresh.items()
    }
