"""`medseg tune`: the operating point of a model, chosen anew on held-out cases."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medseg.cli.console import print_json, show_progress
from medseg.cli.options import Json, Overwrite, Quiet
from medseg.cli.training_options import WorkDir

__all__ = ["tune"]

_Bundle = Annotated[
    Path, typer.Argument(metavar="BUNDLE", show_default=False, help="Bundle trained with --cross-validate.")
]
_Aim = Annotated[
    str,
    typer.Option(
        "--aim",
        metavar="AIM",
        show_default=False,
        help='"false positives <= N" (a scan), "sensitivity >= S", "count error", "count error <= N", "lesion f1", '
        '"dice".',
    ),
]
_Keep = Annotated[
    list[str] | None,
    typer.Option(
        "--keep",
        metavar="SETTING",
        show_default=False,
        help="Leave this as the plan has it: foreground_threshold, least_peak, minimum_volume_ml or separation; may be "
        "repeated.",
    ),
]
_DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would be chosen; write nothing.")]


def tune(
    bundle: _Bundle,
    aim: _Aim,
    work_dir: WorkDir = None,
    keep: _Keep = None,
    dry_run: _DryRun = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Choose threshold, least size and separation to meet an aim.

    They are chosen on what the networks of its cross-validation made of cases
    that they were not trained on; no network runs. The plan, the configurations
    and the model card of the bundle are written anew, its weights stay.

    \b
    Example:
      medseg tune bundles/my_lesions --aim "false positives <= 0.5"
    """  # noqa: D301
    from medseg.training.operating_text import as_lines, warnings_of
    from medseg.training.tune import tune as choose

    with show_progress(quiet=quiet) as progress:
        point = choose(
            bundle,
            aim,
            work_dir=work_dir,
            keep=keep or (),
            dry_run=dry_run,
            overwrite=overwrite,
            progress=progress,
        )
    if as_json:
        print_json(point.model_dump(mode="json"))
        return
    for line in as_lines(point):
        typer.echo(line)
    if quiet:  # else said already, among the progress
        for warning in warnings_of(point):
            typer.echo(f"Warning: {warning}", err=True)
    typer.echo("Nothing was written" if dry_run else f"Written to {bundle}")
