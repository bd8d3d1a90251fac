"""`medseg finetune`: a model trained on with other cases."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medseg.cli.console import print_json, show_progress
from medseg.cli.options import Device, Json, Overwrite, Quiet

__all__ = ["finetune"]

_Given = Annotated[
    str, typer.Argument(metavar="BUNDLE", show_default=False, help="Bundle to start from: a shipped name or a folder.")
]
_Manifest = Annotated[
    Path, typer.Argument(metavar="MANIFEST", show_default=False, help="JSON list of cases with their SHA-256.")
]
_Output = Annotated[Path, typer.Option("--output", "-o", help="Bundle folder to write.", show_default=False)]
_NewOutput = Annotated[
    bool, typer.Option("--new-output", help="Other classes than the bundle's: the output layer starts anew.")
]
_DataRoot = Annotated[
    Path | None, typer.Option("--data-root", help="Folder that the manifest's paths start from [default: its own].")
]
_WorkDir = Annotated[
    Path | None, typer.Option("--work-dir", help="Checkpoints and logs [default: the bundle's name + .training].")
]
_Resume = Annotated[bool, typer.Option("--resume", help="Go on from the checkpoints in the work folder.")]
_CrossValidate = Annotated[
    bool, typer.Option("--cross-validate", help="Also train one network a fold and score it on that fold's patients.")
]
_Steps = Annotated[int | None, typer.Option("--steps", min=1, help="Optimizer steps [default: the bundle's].")]
_Seed = Annotated[int | None, typer.Option("--seed", help="Seed [default: the bundle's].")]
_Rate = Annotated[
    float | None, typer.Option("--learning-rate", help="Learning rate [default: a tenth of the bundle's].")
]
_ValidateEvery = Annotated[
    int | None,
    typer.Option("--validate-every", min=0, metavar="STEPS", help="As for medseg train.", show_default=False),
]
_Patience = Annotated[
    int | None, typer.Option("--patience", min=0, metavar="N", help="As for medseg train.", show_default=False)
]


def finetune(
    given: _Given,
    manifest: _Manifest,
    output: _Output,
    new_output: _NewOutput = False,
    data_root: _DataRoot = None,
    work_dir: _WorkDir = None,
    device: Device = "auto",
    resume: _Resume = False,
    cross_validate: _CrossValidate = False,
    steps: _Steps = None,
    seed: _Seed = None,
    learning_rate: _Rate = None,
    validate_every: _ValidateEvery = None,
    patience: _Patience = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train a bundle's network on with other cases.

    The result is a bundle of its own. Grid, intensities and windows stay as they
    are; channels must be the same, and so must classes unless --new-output is
    given.

    \b
    Example:
      medseg finetune sarcoma_pet my_lesions.json -o bundles/my_lesions --steps 200
    """  # noqa: D301
    from medseg.training.finetune import finetune as train_on

    with show_progress(quiet=quiet) as progress:
        written = train_on(
            given,
            manifest,
            output,
            new_output=new_output,
            data_root=data_root,
            work_dir=work_dir,
            device=device,
            resume=resume,
            cross_validate=cross_validate,
            steps=steps,
            seed=seed,
            learning_rate=learning_rate,
            validate_every=validate_every,
            patience=patience,
            overwrite=overwrite,
            progress=progress,
        )
    if as_json:
        print_json({"bundle": given, "manifest": str(manifest), "output": str(written)})
    else:
        typer.echo(f"Bundle written to {written}")
