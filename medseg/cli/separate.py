"""`medseg separate`: a map of classes in, a map of lesions out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medseg.cli.console import print_json, show_progress
from medseg.cli.options import Connectivity, Json, Method, MinimumVolume, Overwrite, Quiet, separation_changes

__all__ = ["separate"]

_Semantic = Annotated[
    Path, typer.Argument(metavar="SEMANTIC", show_default=False, help="Map of class numbers, 0 for background.")
]
_Output = Annotated[
    Path, typer.Option("--output", "-o", help="Lesion map to write: .nii.gz or .nii.", show_default=False)
]
_Evidence = Annotated[
    Path | None,
    typer.Option(
        "--evidence",
        show_default=False,
        help="What instance heads said: evidence.nii.gz as medseg segment --save-evidence writes it, or its folder.",
    ),
]


def separate(
    semantic: _Semantic,
    output: _Output,
    evidence: _Evidence = None,
    method: Method = None,
    connectivity: Connectivity = None,
    minimum_volume_ml: MinimumVolume = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Turn a semantic map into a map of lesions numbered 1..n.

    The lesion map lies on the semantic map's own grid; lesion 1 is the largest.
    With evidence, lesions come apart by offsets unless another method is given.

    \b
    Example:
      medseg separate out/semantic.nii.gz -o lesions.nii.gz --method components
    """  # noqa: D301
    from medseg.core.monitor import Monitor
    from medseg.core.plan import SeparationPlan
    from medseg.io.atomic import check_output_folder
    from medseg.io.evidence import read_evidence
    from medseg.io.label_files import read_semantic
    from medseg.io.nifti import write_labels
    from medseg.lesions.separate import separate_lesions

    check_output_folder(output.parent, [output.name], overwrite=overwrite)
    plan = SeparationPlan().model_copy(update=separation_changes(method, connectivity, minimum_volume_ml))
    with show_progress(quiet=quiet) as progress:
        monitor = Monitor(progress)
        with monitor.stage("read"):
            classes = read_semantic(semantic)
            said = None if evidence is None else read_evidence(evidence)
        with monitor.stage("separate"):
            lesions = separate_lesions(classes, plan, said)
        with monitor.stage("write"):
            write_labels(lesions.array, lesions.geometry, output, like=semantic)
    if as_json:
        print_json(
            {
                "n_lesions": lesions.n_lesions,
                "classes": [lesion.class_name for lesion in lesions.lesions],
                "method": lesions.method,
                "n_removed": lesions.n_removed,
                "removed_volume_ml": lesions.removed_volume_ml,
                "output": str(output),
            }
        )
    else:
        typer.echo(f"{lesions.n_lesions} lesion(s) by {lesions.method}, {lesions.n_removed} below the minimum volume")
        typer.echo(f"Written to {output}")
