"""`medseg finetune`: a model trained on with other cases."""

from __future__ import annotations

from typing import Annotated

import typer

from medseg.cli.console import print_json, show_progress
from medseg.cli.options import Device, Json, Overwrite, Quiet
from medseg.cli.training_options import (
    Aim,
    BatchSize,
    BudgetMinutes,
    BundleFolder,
    CrossValidate,
    DataRoot,
    Devices,
    Folds,
    Manifest,
    Patience,
    Resume,
    ValidateEvery,
    WorkDir,
)

__all__ = ["finetune"]

_Given = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        show_default=False,
        help="Model to start from: name of a shipped bundle, a bundle's folder, or an nnU-Net model folder.",
    ),
]
_FromFold = Annotated[
    str | None,
    typer.Option(
        "--from-fold",
        metavar="K",
        help="Fold of an nnU-Net model to start from, a number or all [default: its first].",
        show_default=False,
    ),
]
_NewOutput = Annotated[
    bool, typer.Option("--new-output", help="Other classes than the bundle's: the output layer starts anew.")
]
_Steps = Annotated[int | None, typer.Option("--steps", min=1, help="Optimizer steps [default: the bundle's].")]
_Seed = Annotated[int | None, typer.Option("--seed", help="Seed [default: the bundle's].")]
_Rate = Annotated[
    float | None, typer.Option("--learning-rate", help="Learning rate [default: a tenth of the bundle's].")
]


def finetune(
    given: _Given,
    manifest: Manifest,
    output: BundleFolder,
    from_fold: _FromFold = None,
    new_output: _NewOutput = False,
    data_root: DataRoot = None,
    work_dir: WorkDir = None,
    device: Device = "auto",
    devices: Devices = 1,
    resume: Resume = False,
    cross_validate: CrossValidate = False,
    aim: Aim = None,
    folds: Folds = None,
    steps: _Steps = None,
    batch_size: BatchSize = None,
    seed: _Seed = None,
    learning_rate: _Rate = None,
    validate_every: ValidateEvery = None,
    patience: Patience = None,
    budget_minutes: BudgetMinutes = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train a model's network on with other cases.

    The result is a bundle of its own. Grid, intensities and windows stay as they
    are; channels must be the same, and so must classes unless --new-output is
    given. An nnU-Net model folder serves as well as a bundle.

    \b
    Example:
      medseg finetune sarcoma_pet my_lesions.json -o bundles/my_lesions --steps 200
      medseg finetune nnUNetTrainer__nnUNetPlans__3d_fullres my_lesions.json -o bundles/my_lesions --from-fold 0
    """  # noqa: D301
    from medseg.training.finetune import finetune as train_on
    from medseg.training.planner import Budget

    with show_progress(quiet=quiet) as progress:
        written = train_on(
            given,
            manifest,
            output,
            from_fold=from_fold,
            new_output=new_output,
            data_root=data_root,
            work_dir=work_dir,
            device=device,
            devices=devices,
            resume=resume,
            cross_validate=cross_validate,
            aim=aim,
            folds=tuple(folds) if folds else None,
            steps=steps,
            batch_size=batch_size,
            seed=seed,
            learning_rate=learning_rate,
            validate_every=validate_every,
            patience=patience,
            budget=None if budget_minutes is None else Budget(minutes=budget_minutes),
            overwrite=overwrite,
            progress=progress,
        )
    if as_json:
        print_json({"bundle": given, "manifest": str(manifest), "output": str(written), "folds": folds or None})
    else:
        typer.echo(f"{'Folds' if folds else 'Bundle'} written to {written}")
