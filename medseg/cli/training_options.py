"""Options that `medseg train` and `medseg finetune` share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = [
    "Aim",
    "BatchSize",
    "BudgetMinutes",
    "BundleFolder",
    "CrossValidate",
    "DataRoot",
    "Devices",
    "Folds",
    "Manifest",
    "Patience",
    "Resume",
    "ValidateEvery",
    "WorkDir",
]

Aim = Annotated[
    str | None,
    typer.Option(
        "--aim",
        metavar="AIM",
        help="With --cross-validate: choose thresholds, least size and separation on the held-out cases; see medseg "
        "tune.",
        show_default=False,
    ),
]
BatchSize = Annotated[
    int | None,
    typer.Option("--batch-size", min=1, metavar="N", help="Samples a step [default: the plan's].", show_default=False),
]
BudgetMinutes = Annotated[
    float | None,
    typer.Option(
        "--budget-minutes",
        metavar="M",
        help="As many steps as a network (one fold, or the final one) can be trained for in M minutes here.",
        show_default=False,
    ),
]
BundleFolder = Annotated[Path, typer.Option("--output", "-o", help="Bundle folder to write.", show_default=False)]
CrossValidate = Annotated[
    bool, typer.Option("--cross-validate", help="Also train one network a fold and score it on that fold's patients.")
]
DataRoot = Annotated[
    Path | None, typer.Option("--data-root", help="Folder that the manifest's paths start from [default: its own].")
]
Devices = Annotated[
    int,
    typer.Option(
        "--devices",
        min=1,
        metavar="N",
        help="CUDA devices that train each network together (with --device cpu: processes); each takes its share of "
        "every batch.",
    ),
]
Folds = Annotated[
    list[int] | None,
    typer.Option("--fold", metavar="K", help="Only this fold, and no bundle; may be repeated.", show_default=False),
]
Manifest = Annotated[
    Path, typer.Argument(metavar="MANIFEST", show_default=False, help="JSON list of cases with their SHA-256.")
]
Patience = Annotated[
    int | None,
    typer.Option(
        "--patience",
        min=0,
        metavar="N",
        help="End after N validations without better weights; 0 never [default: the plan's].",
        show_default=False,
    ),
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on from the checkpoints in the work folder.")]
ValidateEvery = Annotated[
    int | None,
    typer.Option(
        "--validate-every",
        min=0,
        metavar="STEPS",
        help="Validate on held-out scans every so many steps and keep the best weights; 0 never [default: the plan's].",
        show_default=False,
    ),
]
WorkDir = Annotated[
    Path | None, typer.Option("--work-dir", help="Checkpoints and logs [default: the bundle's name + .training].")
]
