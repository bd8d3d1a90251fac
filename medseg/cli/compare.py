"""`medseg compare`: two systems and a reference in, what the second adds out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from medseg.cli.console import print_json, show_progress
from medseg.cli.evaluate import By, Groups, Like, Match, Page, Preset, Seed, Threshold, Tolerance, convention_of
from medseg.cli.options import Json, Overwrite, Quiet

__all__ = ["compare"]

_Kind = Literal["lesions", "semantic"]
_First = Annotated[
    Path, typer.Argument(metavar="PRED_A", show_default=False, help="Maps of the first system: a file or a folder.")
]
_Second = Annotated[
    Path, typer.Argument(metavar="PRED_B", show_default=False, help="Maps of the second system: a file or a folder.")
]
_Reference = Annotated[
    Path, typer.Argument(metavar="REF", show_default=False, help="Reference maps: a file or a folder.")
]
_Output = Annotated[Path, typer.Option("--output", "-o", help="Comparison to write: .json.", show_default=False)]


def compare(
    prediction_a: _First,
    prediction_b: _Second,
    reference: _Reference,
    output: _Output,
    name_a: Annotated[str, typer.Option("--name-a", help="What to call the first system.")] = "A",
    name_b: Annotated[str, typer.Option("--name-b", help="What to call the second system.")] = "B",
    preset: Preset = "default",
    input_a: Annotated[
        _Kind | None, typer.Option("--input-a", help="What the maps of A hold [default: the preset's].")
    ] = None,
    input_b: Annotated[
        _Kind | None, typer.Option("--input-b", help="What the maps of B hold [default: the preset's].")
    ] = None,
    input_reference: Annotated[
        _Kind | None, typer.Option("--input-ref", help="What the reference holds [default: the preset's].")
    ] = None,
    match: Match = None,
    by: By = None,
    threshold: Threshold = None,
    tolerance_mm: Tolerance = 1.0,
    like: Like = None,
    groups: Groups = None,
    seed: Seed = 0,
    page: Page = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Compare two systems, scan by scan, with a verdict.

    To see what instance segmentation adds over semantic, give the semantic maps of a model as A (--input-a semantic:
    separated into components) and its lesion maps as B: counts, volumes, diameters and measurable lesions side by side.

    \b
    Example:
      medseg compare semantic lesions references --input-a semantic -o comparison.json --page comparison.html
    """  # noqa: D301
    from medseg.core.monitor import Monitor
    from medseg.evaluation.compare import compare_systems
    from medseg.evaluation.page import write_comparison_page
    from medseg.io.atomic import check_output_folder
    from medseg.io.json_files import write_json

    for file in (output, *([page] if page else [])):
        check_output_folder(file.parent, [file.name], overwrite=overwrite)
    with show_progress(quiet=quiet) as progress:
        monitor = Monitor(progress)
        with monitor.stage("compare"):
            result = compare_systems(
                prediction_a,
                prediction_b,
                reference,
                convention_of(preset, match, by, threshold),
                names=(name_a, name_b),
                input_kinds=(input_a, input_b, input_reference),
                like=like,
                groups=groups,
                tolerance_mm=tolerance_mm,
                seed=seed,
                monitor=monitor,
            )
    record = result.model_dump(mode="json")
    write_json(record, output)
    if page:
        write_comparison_page(result, page)
    if as_json:
        print_json(record)
    else:
        typer.echo("\n".join(result.verdict))
        typer.echo(f"\nWritten to {output}" + (f" and {page}" if page else ""))
