"""`medseg train`: labeled cases in, a model out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medseg.cli.console import print_json, show_progress
from medseg.cli.options import Device, Json, Overwrite, Quiet, memory_mib
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

if TYPE_CHECKING:
    from medseg.core.plan import Plan
    from medseg.training.planner import Budget

__all__ = ["train"]

_PlanFile = Annotated[
    Path | None, typer.Option("--plan", help="Plan in JSON [default: planned from the cases].", show_default=False)
]
_HeadsFor = Annotated[
    str | None,
    typer.Option(
        "--heads-for",
        metavar="BUNDLE",
        help="Give this bundle's network instance heads; all else of it stays as it is.",
        show_default=False,
    ),
]
_Steps = Annotated[int | None, typer.Option("--steps", min=1, help="Optimizer steps [default: the plan's].")]
_MaxMemory = Annotated[
    str | None,
    typer.Option(
        "--max-memory",
        metavar="SIZE",
        help="What training may hold in memory, as 6GiB or 800MiB: smaller windows are planned to stay within it.",
        show_default=False,
    ),
]
_DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Print the plan and the reason for each choice; train nothing.")
]
_Seed = Annotated[int | None, typer.Option("--seed", help="Seed [default: the plan's].")]


def train(
    manifest: Manifest,
    output: BundleFolder,
    plan: _PlanFile = None,
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
    validate_every: ValidateEvery = None,
    patience: Patience = None,
    budget_minutes: BudgetMinutes = None,
    max_memory: _MaxMemory = None,
    dry_run: _DryRun = False,
    heads_for: _HeadsFor = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train a lesion model and write it as a MONAI bundle.

    Every file of the manifest is checked against its hash first. A run that was killed goes on with --resume.

    \b
    Example:
      medseg train data_manifests/sarcoma_pet.json -o bundles/sarcoma_pet --cross-validate
    """  # noqa: D301
    chosen = _read_plan(plan) if plan else None
    memory = memory_mib(max_memory)
    from medseg.training.planner import Budget
    from medseg.training.train import train as train_model

    budget = Budget(memory, budget_minutes) if memory is not None or budget_minutes is not None else None
    if dry_run:
        changes = {"steps": steps, "batch_size": batch_size, "seed": seed}
        changes |= {"validate_every": validate_every, "patience": patience}
        _show_plan(manifest, chosen, data_root, device, devices, budget, changes, as_json=as_json)
        return

    with show_progress(quiet=quiet) as progress:
        written = train_model(
            manifest,
            output,
            plan=chosen,
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
            validate_every=validate_every,
            patience=patience,
            budget=budget,
            heads_for=heads_for,
            overwrite=overwrite,
            progress=progress,
        )
    if as_json:
        print_json({"manifest": str(manifest), "output": str(written), "folds": folds or None})
    else:
        typer.echo(f"{'Folds' if folds else 'Bundle'} written to {written}")


def _show_plan(
    manifest: Path,
    plan: Plan | None,
    data_root: Path | None,
    device: str,
    devices: int,
    budget: Budget | None,
    changes: dict[str, int | None],
    *,
    as_json: bool,
) -> None:
    """The plan with its reasons on stdout: sentences, or JSON that `--plan` takes under "plan"."""
    from medseg.training.preparation import plan_manifest

    planned = plan_manifest(
        manifest, plan=plan, data_root=data_root, device=device, devices=devices, budget=budget, changes=changes
    )
    if as_json:
        reasons = [dict(vars(reason)) for reason in planned.reasons]
        print_json(
            {"plan": planned.plan.model_dump(mode="json"), "reasons": reasons, "warnings": list(planned.warnings)}
        )
        return
    for reason in planned.reasons:
        typer.echo(str(reason))
    training = planned.plan.training
    typer.echo(
        f"{planned.plan.network.members} network(s) of {training.steps} steps with {training.batch_size} samples each; "
        "nothing was trained"
    )
    for warning in planned.warnings:
        typer.echo(f"Warning: {warning}", err=True)


def _read_plan(path: Path) -> Plan:
    from medseg.core.plan import Plan
    from medseg.errors import UsageError

    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"plan {path} cannot be read: {error}") from error
    return Plan.from_json(text, source=str(path))
