"""`medseg phantom`: a synthetic scan whose lesions are known exactly."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from medseg.cli.console import print_json, show_progress
from medseg.cli.options import Json, OutputFolder, Overwrite, Quiet

__all__ = ["phantom"]

_FILES = ("scan.nii.gz", "lesions.nii.gz", "phantom.json")

_Seed = Annotated[int, typer.Option("--seed", min=0, help="The same seed gives the same scan.")]
_Kind = Annotated[Literal["pet", "ct"], typer.Option("--kind", help="PET in SUV, or CT in HU.")]
_Touching = Annotated[bool, typer.Option("--touching", help="Let some lesions touch and overlap.")]
_NLesions = Annotated[int | None, typer.Option("--n-lesions", min=0, help="How many [default: 3 to 7].")]


def phantom(
    output: OutputFolder,
    seed: _Seed = 0,
    kind: _Kind = "pet",
    touching: _Touching = False,
    n_lesions: _NLesions = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Make a synthetic scan with known lesions.

    Writes scan.nii.gz, lesions.nii.gz (which voxel belongs to which lesion) and phantom.json (what each lesion is).

    \b
    Example:
      medseg phantom -o phantom --seed 1 --kind ct --touching
    """  # noqa: D301
    from medseg.core.monitor import Monitor
    from medseg.io.atomic import atomic_folder, check_output_folder
    from medseg.io.nifti import write_labels, write_volume
    from medseg.phantoms.make import make_phantom

    check_output_folder(output, _FILES, overwrite=overwrite)
    with show_progress(quiet=quiet) as progress:
        monitor = Monitor(progress)
        with monitor.stage("make"):
            made = make_phantom(kind, seed, n_lesions=n_lesions, touching=touching)
        with monitor.stage("write"), atomic_folder(output) as draft:
            write_volume(made.volume, draft / "scan.nii.gz")
            write_labels(made.lesions.array, made.lesions.geometry, draft / "lesions.nii.gz")
            (draft / "phantom.json").write_text(made.to_json(), encoding="utf-8")
    if as_json:
        lesions = [truth.model_dump(mode="json") for truth in made.truths]
        files = [str(output / name) for name in _FILES]
        print_json({"kind": kind, "seed": seed, "n_lesions": len(lesions), "files": files, "lesions": lesions})
    else:
        typer.echo(f"{made.lesions.n_lesions} lesion(s) in a {kind.upper()} phantom, seed {seed}")
        typer.echo(f"Written to {output}: {', '.join(_FILES)}")
